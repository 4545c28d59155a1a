"""Checking a data set: one report lists every fault of every file."""

import json
import os
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from landslide.bands.formulas import STORED_DIVISORS
from landslide.data.check import CheckReport, check, survey
from landslide.data.digests import directory_digest
from landslide.data.patches import find_patches, read_stored
from landslide.errors import DataError
from landslide.schema import ORIGINAL_BANDS
from tests.support.patch_sets import (
    HUGGING_FACE,
    build_image,
    build_mask,
    image_path,
    mask_path,
    write_h5,
    write_patch_set,
)


def truncate(path: Path, size: int = 10_000) -> None:
    os.truncate(path, size)


def paths_and_codes(report: CheckReport) -> list[tuple[str, str]]:
    return sorted((finding.path, finding.code) for finding in report.faults)


def test_a_valid_set_has_no_findings_and_is_counted(root):
    write_patch_set(root, (4, 5), split="validation")
    for name in ("scenes.csv", "README.md", "LICENSE"):
        (root / name).write_text("n,scene,row,column\n1,1,0,0\n2,1,0,1\n10,1,1,0\n")
    report = check(root)
    assert report.ok
    assert report.faults == report.warnings == []
    assert report.counts == {
        "patches": 5,
        "train_patches": 3,
        "validation_patches": 2,
        "test_patches": 0,
        "positive_patches": 5,
        "landslide_pixels": 22,
        "landslide_share": 22 / (5 * 128 * 128),
    }


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (12, "uint16"), (12, "float32")])
def test_sets_with_fewer_bands_are_valid_if_declared(tmp_path, bands, dtype):
    write_patch_set(tmp_path, bands=bands, dtype=dtype)
    assert check(tmp_path, n_bands=bands).ok
    assert check(tmp_path, bands=ORIGINAL_BANDS[:bands]).ok
    report = check(tmp_path)
    assert paths_and_codes(report) == [(".", "wrong_bands")]
    assert f"all 3 images: shape (128, 128, {bands}); expected (128, 128, 14)" in report.render()
    assert "bands.stored" in report.render()
    overwrite(image_path(tmp_path, 1), "img", build_image())
    assert [code for _, code in paths_and_codes(check(tmp_path))] == ["wrong_bands"] * 2


def test_undeclared_bands_are_one_fault_among_all_others(tmp_path):
    root = write_patch_set(tmp_path, range(1, 12), bands=3)
    truncate(image_path(root, 1), 2_000)
    not_finite = build_image(2, bands=3)
    not_finite[0, :7, 1] = np.nan
    overwrite(image_path(root, 2), "img", not_finite)
    overwrite(image_path(root, 3), "img", build_image(3, bands=3) * 10_000)
    overwrite(image_path(root, 4), "img", build_image(4, bands=3).astype("S4"))
    shutil.copy(image_path(root, 5), image_path(root, 6))
    report = check(root)
    assert paths_and_codes(report) == [
        (".", "wrong_bands"),
        (IMAGE_1, "unreadable"),
        ("TrainData/img/image_2.h5", "not_finite"),
        ("TrainData/img/image_3.h5", "mixed_scale"),
        ("TrainData/img/image_4.h5", "wrong_dtype"),
    ]
    assert [(w.path, w.code) for w in report.warnings] == [("TrainData/img/image_6.h5", "duplicate_image")]
    (of_bands,) = (fault for fault in report.faults if fault.code == "wrong_bands")
    assert of_bands.message == "all 10 images: shape (128, 128, 3); expected (128, 128, 14)"
    assert "--bands B4,B3,B2," in of_bands.remedy
    declared = check(root, bands=("B4", "B3", "B2"))
    assert [f for f in paths_and_codes(report) if f[0] != "."] == paths_and_codes(declared)


@pytest.mark.parametrize("n_bands", [1, 4, 12, 13])
def test_the_bands_that_the_remedy_names_are_accepted(tmp_path, n_bands):
    root = write_patch_set(tmp_path, bands=n_bands)
    (fault,) = check(root).faults
    names = re.search(r"--bands ([\w,]+),", fault.remedy)[1].split(",")
    assert check(root, bands=names).ok


def test_bands_of_landslide4sense_need_no_name_and_more_have_none(tmp_path):
    (fault,) = check(write_patch_set(tmp_path / "14"), bands=("B4", "B3", "B2")).faults
    assert "leave out --bands" in fault.remedy
    (fault,) = check(write_patch_set(tmp_path / "15", bands=15)).faults
    assert "--bands" not in fault.remedy


def overwrite(path: Path, key: str, values: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    write_h5(path, key, values)


def image_with_values(**places: float) -> np.ndarray:
    image = build_image()
    image[0, 0, 2] = places.get("b3", image[0, 0, 2])
    image[:5, 7, 13] = places.get("dem", image[:5, 7, 13])
    return image


IMAGE_1, MASK_1 = "TrainData/img/image_1.h5", "TrainData/mask/mask_1.h5"


def empty_dataset(path: Path, key: str) -> None:
    with h5py.File(path, "w") as file:
        file[key] = h5py.Empty("float64")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


FAULTS = {
    "missing_mask": (lambda r: mask_path(r, 1).unlink(), IMAGE_1, "no mask_1.h5"),
    "mask_without_image": (lambda r: image_path(r, 1).unlink(), MASK_1, "no image_1.h5"),
    "unreadable": (lambda r: truncate(image_path(r, 1)), IMAGE_1, "truncated"),
    "unreadable mask": (lambda r: truncate(mask_path(r, 1), 0), MASK_1, "truncated"),
    "unreadable link": (
        lambda r: (image_path(r, 1).unlink(), image_path(r, 1).symlink_to("gone")),
        IMAGE_1,
        "missing",
    ),
    "wrong_key": (lambda r: overwrite(image_path(r, 1), "image", build_image()), IMAGE_1, "`image`"),
    "wrong_key mask": (lambda r: overwrite(mask_path(r, 1), "label", build_mask()), MASK_1, "`label`"),
    "wrong_shape": (
        lambda r: overwrite(image_path(r, 1), "img", build_image()[:64]),
        IMAGE_1,
        "(64, 128, 14); expected (128, 128, 14)",
    ),
    "wrong_shape mask": (
        lambda r: overwrite(mask_path(r, 1), "mask", build_mask()[None]),
        MASK_1,
        "(1, 128, 128)",
    ),
    "wrong_dtype": (
        lambda r: overwrite(image_path(r, 1), "img", build_image(dtype="complex128")),
        IMAGE_1,
        "complex128",
    ),
    "wrong_dtype mask": (lambda r: overwrite(mask_path(r, 1), "mask", build_mask().astype("S1")), MASK_1, "S1"),
    "not_finite": (
        lambda r: overwrite(image_path(r, 1), "img", image_with_values(b3=np.inf, dem=np.nan)),
        IMAGE_1,
        "5 NaN in band 14 (dem); 1 infinite in band 3 (B3)",
    ),
    "not_finite in all bands": (
        lambda r: overwrite(image_path(r, 1), "img", image_with(half=np.nan)),
        IMAGE_1,
        "8192 NaN in each of the 14 bands",
    ),
    "not_finite in float32": (
        lambda r: overwrite(image_path(r, 1), "img", image_with_values(b3=-1e300)),
        IMAGE_1,
        "1 infinite in band 3 (B3)",
    ),
    "wrong_shape empty": (lambda r: empty_dataset(image_path(r, 1), "img"), IMAGE_1, "an empty data set"),
    "unreadable pipe": (lambda r: pipe(image_path(r, 1)), IMAGE_1, "a pipe"),
    "unreadable pipe beside": (lambda r: pipe(r / "notes.txt"), "notes.txt", "a pipe"),
    "mask_values": (
        lambda r: overwrite(mask_path(r, 1), "mask", build_mask(9) * 255),
        MASK_1,
        "255 (9 pixels)",
    ),
    "mask_values NaN": (
        lambda r: overwrite(mask_path(r, 1), "mask", np.full((128, 128), np.nan)),
        MASK_1,
        "nan (16384 pixels)",
    ),
    "duplicate_number": (
        lambda r: shutil.copy(image_path(r, 1), r / "TrainData/img/image_01.h5"),
        IMAGE_1,
        "number 1 is also image_01.h5",
    ),
    "unused_patch name": (
        lambda r: shutil.copy(image_path(r, 1), r / "TrainData/img/image_1 (copy).h5"),
        "TrainData/img/image_1 (copy).h5",
        "ignored",
    ),
    "unused_patch folder": (
        lambda r: write_patch_set(r / "TrainData", (5,)),
        "TrainData/TrainData/img/image_5.h5",
        "ignored",
    ),
    "positions": (
        lambda r: (r / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n"),
        "scenes.csv",
        "no position for patch 2, 10",
    ),
    "missing_folder": (lambda r: shutil.rmtree(r / "TrainData/mask"), "TrainData/mask", "does not exist"),
    "missing_folder images": (
        lambda r: shutil.rmtree(r / "TrainData/img"),
        "TrainData/img",
        "does not exist",
    ),
    "no_patches": (
        lambda r: [path.unlink() for path in (r / "TrainData/img").iterdir()],
        "TrainData/img",
        "no file is named",
    ),
    "two_layouts": (
        lambda r: write_patch_set(r, (4,), layout=HUGGING_FACE),
        ".",
        "TrainData/img and as images/train",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_fault_is_reported_with_its_file(root, kind):
    damage, path, message_part = FAULTS[kind]
    damage(root)
    found = [f for f in check(root).faults if f.code == kind.split()[0] and f.path == path]
    assert len(found) == 1, check(root).render()
    assert message_part in found[0].message
    assert found[0].remedy


def test_an_image_of_other_bands_among_good_ones_is_to_be_made_alike(root):
    overwrite(image_path(root, 2), "img", build_image()[..., :13])
    (fault,) = check(root).faults
    assert (fault.path, fault.code) == ("TrainData/img/image_2.h5", "wrong_bands")
    assert fault.remedy == "give it the 14 bands of the other images, or move it away with its mask"


def test_all_faults_are_in_one_report(tmp_path):
    root = write_patch_set(tmp_path / "set", range(1, 11))
    truncate(image_path(root, 1))
    overwrite(image_path(root, 2), "data", build_image())
    overwrite(image_path(root, 3), "img", build_image(bands=13, dtype="complex64"))
    overwrite(image_path(root, 4), "img", image_with_values(dem=np.nan))
    overwrite(mask_path(root, 4), "mask", build_mask() * 2)
    mask_path(root, 5).unlink()
    image_path(root, 6).unlink()
    truncate(mask_path(root, 7))
    shutil.copy(image_path(root, 8), root / "TrainData/img/image_8.hdf5")
    shutil.copy(image_path(root, 9), root / "TrainData/img/image_009.h5")
    write_patch_set(root, (1,), split="test")
    truncate(root / "TestData/img/image_1.h5", 20_000)
    (root / "notes.doc").write_text("by hand")
    report = check(root)
    assert paths_and_codes(report) == [
        ("TestData/img/image_1.h5", "unreadable"),
        ("TrainData/img/image_1.h5", "unreadable"),
        ("TrainData/img/image_2.h5", "wrong_key"),
        ("TrainData/img/image_3.h5", "wrong_bands"),
        ("TrainData/img/image_3.h5", "wrong_dtype"),
        ("TrainData/img/image_4.h5", "not_finite"),
        ("TrainData/img/image_5.h5", "missing_mask"),
        ("TrainData/img/image_8.hdf5", "unused_patch"),
        ("TrainData/img/image_9.h5", "duplicate_number"),
        ("TrainData/mask/mask_4.h5", "mask_values"),
        ("TrainData/mask/mask_6.h5", "mask_without_image"),
        ("TrainData/mask/mask_7.h5", "unreadable"),
    ]
    assert [(w.path, w.code) for w in report.warnings] == [("notes.doc", "stray")]
    text = report.render()
    assert all(finding.path in text and finding.message in text for finding in report.faults)
    assert "12 faults:" in text
    assert "unreadable (3)" in text
    assert report.to_json()["ok"] is False
    assert json.loads(json.dumps(report.to_json()))["faults"] == [vars(finding) for finding in report.faults]


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("a file")])
def test_a_folder_without_a_data_set_is_a_finding_not_an_exception(tmp_path, make):
    make(tmp_path / "set")
    report = check(tmp_path / "set")
    assert paths_and_codes(report) == [(".", "missing_folder")]
    assert ("this is no folder" in report.render()) == (tmp_path / "set").is_file()


def test_a_folder_of_a_data_set_is_one_fault_that_names_the_folder_above_or_below(tmp_path):
    zenodo = write_patch_set(tmp_path / "zenodo")
    hugging_face = write_patch_set(tmp_path / "hub", layout=HUGGING_FACE)
    renamed = shutil.copytree(zenodo / "TrainData", tmp_path / "renamed" / "Own")
    for folder, remedy in {
        zenodo / "TrainData": f"the folder above: {zenodo}",
        zenodo / "TrainData/img": f"the folder above: {zenodo}",
        hugging_face / "images": f"the folder above: {hugging_face}",
        hugging_face / "annotations/train": f"the folder above: {hugging_face}",
        tmp_path: f"the folder below: {hugging_face}",
        renamed: f"rename Own to TrainData, and give the folder above: {renamed.parent}",
    }.items():
        (fault,) = check(folder).faults
        assert (fault.path, fault.code) == (".", "missing_folder")
        assert remedy in fault.remedy
        with pytest.raises(DataError, match=re.escape(remedy)):
            find_patches(folder)
    renamed.rename(renamed.parent / "TrainData")
    assert check(renamed.parent).ok


def test_stray_files_of_the_hugging_face_copy_are_warnings(tmp_path):
    write_patch_set(tmp_path, layout=HUGGING_FACE)
    for number in range(5):
        with h5py.File(tmp_path / f"annotations/train/image_{number}.h5", "w"):
            pass
    assert (tmp_path / "annotations/train/image_0.h5").stat().st_size == 800
    report = check(tmp_path)
    assert report.ok
    assert {(w.path, w.code) for w in report.warnings} == {
        (f"annotations/train/image_{number}.h5", "stray") for number in range(5)
    }
    assert [p.number for p in find_patches(tmp_path)] == [1, 2, 10]


def test_a_fault_of_positions_names_the_file_once_and_the_line(root):
    (root / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n2,1,x,0\n10,1,0,-1\n")
    text = check(root).render()
    assert "    scenes.csv: line 3: found '2,1,x,0', expected four whole numbers" in text
    assert "line 4: found '10,1,0,-1'" in text
    assert "scenes.csv: scenes.csv" not in text


def test_a_position_without_a_patch_is_a_warning_with_its_line(root):
    (root / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n\n2,1,0,1\n11,1,0,2\n10,1,1,0\n")
    report = check(root)
    assert report.ok
    (warning,) = report.warnings
    assert (warning.path, warning.code) == ("scenes.csv", "unused_position")
    assert warning.message == "there is no training patch for line 5 (patch 11)"


def test_a_group_in_place_of_the_data_set_is_named(root):
    with h5py.File(image_path(root, 1), "w") as file:
        file.create_group("img")
    (fault,) = check(root).faults
    assert (fault.code, fault.message) == ("wrong_key", "holds `img`, which is a group; expected a data set `img`")


def test_constant_elevation_is_a_warning_if_elevation_is_stored(root):
    image = build_image()
    image[:, :, 13] = 0.5
    overwrite(image_path(root, 2), "img", image)
    report = check(root)
    assert report.ok
    assert [(w.path, w.code) for w in report.warnings] == [("TrainData/img/image_2.h5", "constant_dem")]
    unnamed = check(root, bands=[f"x{i}" for i in range(14)]).warnings
    assert [warning.code for warning in unnamed] == ["blank_band"]


def test_a_set_without_any_landslide_is_warned_of(root):
    assert "no_landslide" not in [warning.code for warning in check(root).warnings]
    for number in (1, 2, 10):
        overwrite(mask_path(root, number), "mask", np.zeros((128, 128), np.uint8))
    found = {warning.code: warning for warning in check(root).warnings}
    assert "none of the 3 training masks has a landslide" in found["no_landslide"].message


def blank(values: float) -> np.ndarray:
    return np.full((128, 128, 14), values)


def image_with(half: float | None = None, band: float | None = None) -> np.ndarray:
    """An image with one value in all bands of 64 rows, or in all of B4."""
    image = build_image()
    if half is not None:
        image[:64] = half
    if band is not None:
        image[..., 3] = band
    return image


def never_write(path: Path, key: str, shape: tuple[int, ...]) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset(key, shape, "float64")


BLANK = {
    "blank_image zeros": (lambda r: overwrite(image_path(r, 1), "img", blank(0)), IMAGE_1, "every pixel is 0"),
    "blank_image constant": (lambda r: overwrite(image_path(r, 1), "img", blank(-9999)), IMAGE_1, "is -9999"),
    "blank_image never written": (
        lambda r: never_write(image_path(r, 1), "img", (128, 128, 14)),
        IMAGE_1,
        "never written",
    ),
    "blank_mask": (lambda r: never_write(mask_path(r, 1), "mask", (128, 128)), MASK_1, "never written"),
    "blank_band": (lambda r: overwrite(image_path(r, 1), "img", image_with(band=0)), IMAGE_1, "in band 4 (B4)"),
    "no_data": (
        lambda r: overwrite(image_path(r, 1), "img", image_with(half=-9999)),
        IMAGE_1,
        "8,192 pixels (50.00 %) hold no measurement: -9999 in band 1 (B1)",
    ),
    "no_data zeros": (
        lambda r: overwrite(image_path(r, 1), "img", image_with(half=0)),
        IMAGE_1,
        "8,192 pixels (50.00 %) hold no measurement: 0 in every band",
    ),
    "duplicate_image": (
        lambda r: shutil.copy(image_path(r, 2), image_path(r, 10)),
        "TrainData/img/image_10.h5",
        "the same image as TrainData/img/image_2.h5",
    ),
    "duplicate_image in another split": (
        lambda r: shutil.copy(image_path(write_patch_set(r, (7,), split="test"), 2), r / "TestData/img/image_7.h5"),
        "TestData/img/image_7.h5",
        "the same image as TrainData/img/image_2.h5",
    ),
}


@pytest.mark.parametrize("kind", BLANK)
def test_blank_data_and_duplicates_are_warnings(root, kind):
    damage, path, message_part = BLANK[kind]
    damage(root)
    report = check(root)
    assert report.ok
    assert [(w.path, w.code) for w in report.warnings] == [(path, kind.split()[0])]
    assert message_part in report.warnings[0].message
    assert "nothing need be done" not in report.warnings[0].remedy


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_warning_of_a_duplicate_says_when_a_training_stops(root, split):
    write_patch_set(root, (7,), split=split)
    folder = {"train": "TrainData", "test": "TestData"}[split]
    shutil.copy(image_path(root, 2), root / folder / "img/image_7.h5")
    (warning,) = check(root).warnings
    assert (
        ("training stops" in warning.remedy) == ("folds.allow_duplicates: true" in warning.remedy) == (split == "train")
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999, 0])
def test_filling_pixels_without_measurement_as_the_remedy_says_leaves_no_finding(root, value):
    image = build_image()
    image[:40] = value
    overwrite(image_path(root, 1), "img", image)
    report = check(root)
    (finding,) = report.faults + report.warnings
    assert "with the median of the others of the same band and image" in finding.remedy
    image[:40] = np.median(image[40:], axis=(0, 1))
    overwrite(image_path(root, 1), "img", image)
    report = check(root)
    assert report.faults == report.warnings == []


def test_moving_a_damaged_patch_away_as_the_remedy_says_leaves_no_finding(root):
    (root / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n2,1,0,1\n10,1,1,0\n")
    truncate(image_path(root, 1))
    (fault,) = check(root).faults
    assert "move the patch away: image, mask and its line in scenes.csv" in fault.remedy
    image_path(root, 1).unlink()
    mask_path(root, 1).unlink()
    (root / "scenes.csv").write_text("n,scene,row,column\n2,1,0,1\n10,1,1,0\n")
    report = check(root)
    assert report.faults == report.warnings == []


@pytest.mark.parametrize("name", ["B4", "band 1"])
def test_no_data_is_found_in_few_bands_with_and_without_names(tmp_path, name):
    root = write_patch_set(tmp_path, (1, 2), bands=1)
    image = build_image(bands=1)
    image[5, :3] = -9999
    overwrite(image_path(root, 1), "img", image)
    (warning,) = check(root, bands=[name]).warnings
    assert (warning.code, "3 pixels (0.02 %)" in warning.message) == ("no_data", True)


def test_an_empty_mask_that_was_written_is_no_finding(root):
    overwrite(mask_path(root, 1), "mask", build_mask(0))
    assert check(root).warnings == []


@pytest.mark.parametrize("there", [True, False])
def test_values_in_other_files_are_a_fault(root, tmp_path, there):
    """HDF5 reads zeros where the other file is gone, and the digest of the patch does not cover it."""
    source = write_h5(tmp_path / "source.h5", "values", build_image())
    layout = h5py.VirtualLayout((128, 128, 14), "float64")
    layout[:] = h5py.VirtualSource(source, "values", (128, 128, 14))
    image_path(root, 1).unlink()
    with h5py.File(image_path(root, 1), "w") as file:
        file.create_virtual_dataset("img", layout)
    with h5py.File(image_path(root, 2), "w") as file:
        file.create_dataset("img", (128, 128, 14), "float64", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
    image_path(root, 10).unlink()
    with h5py.File(image_path(root, 10), "w") as file:
        file["img"] = h5py.ExternalLink(str(source), "values")
    if not there:
        source.unlink()
    report = check(root)
    codes = {fault.path: fault.code for fault in report.faults}
    assert codes == {
        "TrainData/img/image_1.h5": "values_elsewhere",
        "TrainData/img/image_2.h5": "values_elsewhere",
        "TrainData/img/image_10.h5": "values_elsewhere",
    }
    assert "source.h5" in report.faults[0].message
    with pytest.raises(DataError, match=r"source\.h5"):
        read_stored(image_path(root, 1))


def in_digital_numbers(path: Path) -> None:
    """Store an image as raw digital numbers, degrees and metres."""
    values = read_stored(path) * list(STORED_DIVISORS.values())
    overwrite(path, "img", values.round().astype("int32"))


def test_digital_numbers_among_normalised_images_are_a_fault(tmp_path):
    root = write_patch_set(tmp_path, range(1, 7))
    for number in (2, 4, 6):
        in_digital_numbers(image_path(root, number))
    report = check(root)
    assert paths_and_codes(report) == [(f"TrainData/img/image_{n}.h5", "mixed_scale") for n in (2, 4, 6)]
    assert re.search(r"B1 1\d{3} instead of 1\.\d+, B2 8\d\d instead of", report.faults[0].message)
    assert report.warnings == []  # which would have another remedy
    assert "docs/reference/bands.md" in report.faults[0].remedy
    assert "standardize" not in report.render()


def test_a_set_of_digital_numbers_is_one_warning_that_names_the_bands(root):
    for number in (1, 2, 10):
        in_digital_numbers(image_path(root, number))
    report = check(root)
    assert report.ok
    assert [(w.path, w.code) for w in report.warnings] == [(".", "other_scale")]
    assert all(f"{name} " in report.warnings[0].message for name in ORIGINAL_BANDS)
    assert "training.standardize" in report.warnings[0].remedy
    assert "docs/reference/bands.md" in report.warnings[0].remedy


@pytest.mark.parametrize("scale", [255 / 2, 1 / 10])
def test_sets_of_few_bands_have_a_scale_too(tmp_path, scale):
    root = write_patch_set(tmp_path, (1, 2), bands=3)
    for number in (1, 2):
        overwrite(image_path(root, number), "img", build_image(number, bands=3) * scale)
    assert [w.code for w in check(root, bands=("B4", "B3", "B2")).warnings] == ["other_scale"]
    assert check(root, n_bands=3).warnings == []  # nothing is declared


def test_a_single_band_of_another_scale_is_named(root):
    for number in (1, 2, 10):
        image = build_image(number)
        image[..., 12] *= 20.29
        image[..., 0] *= 0.001
        overwrite(image_path(root, number), "img", image)
    (warning,) = check(root).warnings
    assert re.search(r"about 1: B1 0\.001\d*, slope 20\.\d+$", warning.message)


def test_impossible_values_are_named_with_their_band(root):
    image = build_image(1)
    image[0, 0, 12], image[3, 3, 3] = 4.5, 148.0
    overwrite(image_path(root, 1), "img", image)
    (warning,) = check(root).warnings
    assert (warning.path, warning.code) == (IMAGE_1, "out_of_range")
    assert "148 in band 4 (B4), 4.5 in band 13 (slope)" in warning.message


def test_bright_dark_and_flat_images_are_no_finding(tmp_path):
    """Snow, water, and the plains at sea level are far from the mean as well."""
    root = write_patch_set(tmp_path, range(1, 6))
    snow, water = build_image(1), build_image(2)
    snow[..., :12] *= 15
    water[..., :12] /= 20
    water[..., 12:] /= 1000
    overwrite(image_path(root, 1), "img", snow)
    overwrite(image_path(root, 2), "img", water)
    report = check(root)
    assert (report.faults, report.warnings) == ([], [])


def test_many_warnings_of_a_kind_are_counted_and_not_all_shown(root):
    for number in range(100, 140):
        (root / f"stray_{number}.bin").touch()
    text = check(root).render()
    assert "stray (40)" in text
    assert "and 30 more; `landslide data check DIR --json` lists all" in text
    assert text.count(".bin") == 10


# ---- digests and versions from the same reading


def test_survey_and_folder_digest_give_the_same_version(root):
    write_patch_set(root, (1, 2), split="test")
    (root / "TestData/mask/mask_2.h5").unlink()
    (root / "README.md").write_text("read")
    (root / "stray.bin").write_bytes(bytes(range(256)))
    (root / "link").symlink_to("README.md")
    truncate(image_path(root, 1))
    overwrite(mask_path(root, 2), "mask", build_mask() * 2)
    found = survey(root)
    assert (found.version, found.digests) == directory_digest(root)
    assert found.positive_pixels == {
        "TrainData/mask/mask_1.h5": 1,
        "TrainData/mask/mask_10.h5": 10,
        "TestData/mask/mask_1.h5": 1,
    }
    assert found.report == check(root)


def test_files_of_a_linked_folder_are_checked_but_not_in_the_version(root, tmp_path):
    """DVC does not follow links to folders either."""
    (root / "TrainData/img").rename(tmp_path / "images")
    (root / "TrainData/img").symlink_to(tmp_path / "images", target_is_directory=True)
    truncate(image_path(root, 1))
    found = survey(root)
    assert paths_and_codes(found.report) == [("TrainData/img/image_1.h5", "unreadable")]
    assert (found.version, found.digests) == directory_digest(root)
    assert set(found.digests) == {f"TrainData/mask/mask_{n}.h5" for n in (1, 2, 10)}


@pytest.mark.parametrize("name", ["notes.txt", IMAGE_1])
def test_a_folder_with_an_unreadable_file_has_no_version(root, name):
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to("gone")
    found = survey(root)
    assert found.version is None
    assert paths_and_codes(found.report) == [(name, "unreadable")]
    assert "No such file" in found.report.faults[0].message
    assert name not in found.digests
    assert len(found.digests) == len(list(root.rglob("*.*"))) - 1


# ---- real patches


def test_the_real_sample_is_valid(real_data):
    report = check(real_data / "landslide4sense-sample")
    assert report.ok
    assert report.counts["patches"] == 27


def test_a_truncated_real_file_is_found(real_data, tmp_path):
    shutil.copytree(real_data / "landslide4sense-sample", tmp_path / "set")
    image = tmp_path / "set/TrainData/img/image_700.h5"
    image.chmod(0o644)
    os.truncate(image, 1_000_000)
    assert paths_and_codes(check(tmp_path / "set")) == [("TrainData/img/image_700.h5", "unreadable")]
