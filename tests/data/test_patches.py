"""The data set on disk: pairing, reading, digests, positions, and a check that reports every fault."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landslide.data.check import CheckReport, check
from landslide.data.digests import directory_digest, file_digest
from landslide.data.patches import find_patches, read_image, read_mask
from landslide.data.positions import landslide4sense_positions, read_positions
from landslide.data.table import patch_table
from landslide.errors import DataError
from landslide.schema import LAYOUTS, ORIGINAL_BANDS

REPOSITORY = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("LANDSLIDE_REAL_DATA", REPOSITORY / "../shared/data"))
REAL_SAMPLE = REAL_DATA / "landslide4sense-sample"
needs_real_data = pytest.mark.skipif(
    not REAL_SAMPLE.is_dir(), reason="real patches not found: set LANDSLIDE_REAL_DATA to their folder"
)

ZENODO, HUGGING_FACE = LAYOUTS


def write_h5(path: Path, key: str, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = values
    return path


def an_image(seed: int = 0, bands: int = 14, dtype: str = "float64") -> np.ndarray:
    values = np.random.default_rng(seed).integers(1, 200, (128, 128, bands))
    return values.astype(dtype)


def a_mask(positive: int = 10) -> np.ndarray:
    mask = np.zeros((128, 128), np.uint8)
    mask.flat[:positive] = 1
    return mask


def write_set(root: Path, numbers=(1, 2, 10), *, layout=ZENODO, split="train", bands=14, dtype="float64") -> Path:
    images, masks = layout[split]
    for number in numbers:
        write_h5(root / images / f"image_{number}.h5", "img", an_image(number, bands, dtype))
        write_h5(root / masks / f"mask_{number}.h5", "mask", a_mask(number))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound set of the patches 1, 2 and 10 (which have as many landslide pixels) in the Zenodo layout."""
    return write_set(tmp_path / "set")


def image_path(root: Path, number: int) -> Path:
    return root / f"TrainData/img/image_{number}.h5"


def mask_path(root: Path, number: int) -> Path:
    return root / f"TrainData/mask/mask_{number}.h5"


def truncate(path: Path, size: int = 10_000) -> None:
    os.truncate(path, size)


def codes(report: CheckReport) -> list[tuple[str, str]]:
    return sorted((finding.path, finding.code) for finding in report.faults)


# ---- finding and pairing


@pytest.mark.parametrize("layout", LAYOUTS, ids=["zenodo", "hugging_face"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_both_layouts_pair_every_split_in_natural_order(tmp_path, layout, split):
    write_set(tmp_path, (10, 2, 1), layout=layout, split=split)
    patches = find_patches(tmp_path, split)
    assert [p.number for p in patches] == [1, 2, 10]
    assert [p.image for p in patches] == [tmp_path / layout[split][0] / f"image_{n}.h5" for n in (1, 2, 10)]
    assert [int(read_mask(p.mask).sum()) for p in patches] == [1, 2, 10]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.sets(st.integers(0, 99_999), min_size=1, max_size=12),
    strays=st.sets(st.integers(0, 99_999), max_size=5),
)
def test_pairing_is_by_number_whatever_else_lies_beside_the_masks(tmp_path_factory, images, strays):
    root = tmp_path_factory.mktemp("pairing")
    for folder in HUGGING_FACE["train"]:
        (root / folder).mkdir(parents=True)
    for number in images:
        (root / f"images/train/image_{number}.h5").touch()
        (root / f"annotations/train/mask_{number}.h5").touch()
    for number in strays:
        (root / f"annotations/train/image_{number}.h5").touch()
        (root / f"annotations/train/mask_{number + 100_000}.h5").touch()
    patches = find_patches(root)
    assert [p.number for p in patches] == sorted(images)
    assert all(p.mask.name == f"mask_{p.number}.h5" and p.image.parent.parent.name == "images" for p in patches)


def test_masks_may_be_missing_outside_the_training_split(tmp_path):
    write_set(tmp_path, (1, 2), split="test")
    (tmp_path / "TestData/mask/mask_1.h5").unlink()
    assert [p.mask is None for p in find_patches(tmp_path, "test")] == [True, False]


def test_zero_padded_numbers_pair_with_plain_ones(root):
    image_path(root, 2).rename(root / "TrainData/img/image_0002.h5")
    assert [p.number for p in find_patches(root)] == [1, 2, 10]


def test_a_training_image_without_mask_is_named(root):
    mask_path(root, 2).unlink()
    with pytest.raises(DataError, match=r"1 training image.* have no mask .*image_2\.h5"):
        find_patches(root)


def test_a_missing_folder_says_where_why_and_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"(?s)nowhere.*does not exist.*->.*TrainData") as error:
        find_patches(tmp_path / "nowhere")
    assert "landslide data demo" in error.value.remedy
    with pytest.raises(DataError, match=r"neither .*TrainData/img nor .*images/train"):
        find_patches(tmp_path)


def test_an_empty_folder_is_a_data_error(tmp_path):
    (tmp_path / "TrainData/img").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no patch"):
        find_patches(tmp_path)


def test_two_files_of_one_number_are_refused(root):
    shutil.copy(image_path(root, 1), root / "TrainData/img/image_01.h5")
    with pytest.raises(DataError, match="number 1 occurs twice"):
        find_patches(root)


def test_a_split_in_both_layouts_is_refused(root):
    write_set(root, (1,), layout=HUGGING_FACE)
    with pytest.raises(DataError, match="train split twice"):
        find_patches(root)


# ---- reading


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("bands", [3, 12, 14])
def test_images_of_any_real_type_become_float32_channels_first(tmp_path, dtype, bands):
    stored = an_image(bands=bands, dtype=dtype)
    image = read_image(write_h5(tmp_path / "image_1.h5", "img", stored), n_bands=bands)
    assert image.dtype == np.float32
    assert image.shape == (bands, 128, 128)
    assert image.flags.c_contiguous
    for band in range(bands):
        np.testing.assert_array_equal(image[band], stored[:, :, band].astype(np.float32))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32"])
def test_masks_become_uint8(tmp_path, dtype):
    mask = read_mask(write_h5(tmp_path / "mask_1.h5", "mask", a_mask(7).astype(dtype)))
    assert mask.dtype == np.uint8
    assert mask.shape == (128, 128)
    assert mask.sum() == 7


def test_a_mask_value_that_uint8_would_fold_to_zero_is_refused(tmp_path):
    path = write_h5(tmp_path / "mask_1.h5", "mask", a_mask(7).astype("int64") * 256)
    with pytest.raises(DataError, match=r"mask_1\.h5: values other than 0 and 1: 256 \(7 pixels\)"):
        read_mask(path)


def damaged_images(folder: Path) -> dict[str, Path]:
    """One real HDF5 file for each way in which a file cannot be used."""
    whole = write_h5(folder / "whole.h5", "img", an_image())
    truncated = folder / "truncated.h5"
    truncated.write_bytes(whole.read_bytes()[:-1])
    text = folder / "text.h5"
    text.write_text("<html>404</html>")
    (folder / "empty.h5").touch()
    with h5py.File(folder / "nothing.h5", "w"):
        pass
    with h5py.File(folder / "group.h5", "w") as file:
        file.create_group("img")
    return {
        "truncated": truncated,
        "text": text,
        "empty": folder / "empty.h5",
        "missing": folder / "missing.h5",
        "folder": folder,
        "nothing": folder / "nothing.h5",
        "group": folder / "group.h5",
        "key": write_h5(folder / "key.h5", "image", an_image()),
        "channels_first": write_h5(folder / "first.h5", "img", an_image().transpose(2, 0, 1)),
        "bands": write_h5(folder / "bands.h5", "img", an_image(bands=3)),
        "complex": write_h5(folder / "complex.h5", "img", an_image(dtype="complex64")),
        "text_values": write_h5(folder / "strings.h5", "img", an_image().astype("S4")),
    }


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("truncated", "cannot be read as HDF5"),
        ("text", "cannot be read as HDF5"),
        ("empty", "cannot be read as HDF5"),
        ("missing", "cannot be read as HDF5"),
        ("folder", "cannot be read as HDF5"),
        ("nothing", "holds nothing; expected a data set `img`"),
        ("group", "holds `img`; expected a data set `img`"),
        ("key", "holds `image`; expected a data set `img`"),
        ("channels_first", r"shape \(14, 128, 128\); expected \(128, 128, 14\)"),
        ("bands", r"shape \(128, 128, 3\); expected \(128, 128, 14\)"),
        ("complex", "type complex64; expected"),
        ("text_values", r"type \|S4; expected"),
    ],
)
def test_an_unusable_image_says_which_file_what_was_found_and_what_expected(tmp_path, kind, says):
    path = damaged_images(tmp_path)[kind]
    with pytest.raises(DataError, match=says) as error:
        read_image(path)
    assert str(path) in error.value.what
    assert error.value.remedy
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_damage_at_any_byte_gives_an_image_or_a_data_error(tmp_path):
    sound = write_h5(tmp_path / "image_1.h5", "img", an_image()).read_bytes()
    damaged, draw, refused = tmp_path / "damaged.h5", random.Random(0), 0
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(3):
            content[draw.randrange(2048)] = draw.randrange(256)
        damaged.write_bytes(content)
        try:
            assert read_image(damaged).shape == (14, 128, 128)
        except DataError:
            refused += 1
    assert refused > 10


# ---- digests


@pytest.fixture(scope="module")
def dvc_pinned(tmp_path_factory) -> tuple[Path, dict]:
    """A folder that the real `dvc add` has pinned, and what it wrote into data.dvc."""
    import yaml

    repository = tmp_path_factory.mktemp("dvc")
    write_set(repository / "data", (1, 2, 10), bands=3, dtype="uint8")
    for name in (
        "scenes.csv",
        "TrainData.txt",
        "TrainData/img2",
        "TrainData/a/b/c",
        'Ünï çode/"quoted".txt',
        "Z",
    ):
        path = repository / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (repository / "data/empty").touch()
    (repository / "data/empty_folder").mkdir()
    (repository / "data/link").symlink_to("scenes.csv")
    (repository / "elsewhere").mkdir()
    (repository / "elsewhere/file").write_text("not pinned")
    (repository / "data/link_to_folder").symlink_to("../elsewhere", target_is_directory=True)
    (repository / "data/.git").mkdir()
    (repository / "data/.git/config").write_text("not pinned")
    for arguments in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=repository, check=True)
    return repository, yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]


def test_the_digest_of_a_folder_is_the_one_that_dvc_pins(dvc_pinned):
    repository, pinned = dvc_pinned
    digest, files = directory_digest(repository / "data")
    assert digest == pinned["md5"]
    assert len(digest) == 36
    assert len(files) == pinned["nfiles"]


def test_the_digests_of_the_files_are_those_in_the_dvc_cache(dvc_pinned):
    repository, pinned = dvc_pinned
    cache = repository / ".dvc/cache/files/md5"
    listing = json.loads((cache / pinned["md5"][:2] / pinned["md5"][2:]).read_text())
    files = directory_digest(repository / "data")[1]
    assert files == {entry["relpath"]: entry["md5"] for entry in listing}
    assert file_digest(repository / "data/scenes.csv") == files["scenes.csv"]


def test_the_digest_sees_content_and_names_and_not_times(root):
    before = directory_digest(root)[0]
    os.utime(image_path(root, 1), (0, 0))
    assert directory_digest(root)[0] == before
    image_path(root, 1).rename(image_path(root, 3))
    renamed = directory_digest(root)[0]
    assert renamed != before
    truncate(mask_path(root, 1), 18_000)
    assert directory_digest(root)[0] not in (before, renamed)


def test_a_digest_of_nothing_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        directory_digest(tmp_path / "nowhere")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(DataError, match="broken cannot be read"):
        directory_digest(tmp_path)


# ---- tables and positions


def test_the_patch_table_has_a_row_a_patch_in_natural_order(root):
    table = patch_table(root)
    assert table["number"].tolist() == [1, 2, 10]
    assert table["image"].tolist() == [f"TrainData/img/image_{n}.h5" for n in (1, 2, 10)]
    assert table["mask"].tolist() == [f"TrainData/mask/mask_{n}.h5" for n in (1, 2, 10)]
    assert table["positive_pixels"].tolist() == [1, 2, 10]
    assert table["image_md5"].tolist() == [file_digest(image_path(root, n)) for n in (1, 2, 10)]
    assert table["mask_md5"].tolist() == [file_digest(mask_path(root, n)) for n in (1, 2, 10)]
    assert table[["scene", "row", "column"]].isna().all(axis=None)
    assert table.dtypes[["number", "positive_pixels"]].tolist() == ["int64", "int64"]
    assert table.dtypes[["scene", "row", "column"]].tolist() == ["Int64"] * 3
    pd.testing.assert_frame_equal(patch_table(root, digests=directory_digest(root)[1]), table)


def test_digests_of_another_folder_are_refused(root):
    with pytest.raises(DataError, match=r"lack TrainData/img/image_1\.h5"):
        patch_table(root, digests={})


def test_a_table_of_patches_without_mask_says_that_nothing_is_known(tmp_path):
    write_set(tmp_path, (1, 2), split="test")
    (tmp_path / "TestData/mask/mask_1.h5").unlink()
    (tmp_path / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n2,1,0,1\n")
    table = patch_table(tmp_path, "test")
    assert table[["mask", "mask_md5", "positive_pixels"]].isna().to_numpy().tolist() == [
        [True] * 3,
        [False] * 3,
    ]
    assert table["positive_pixels"][1] == 2
    assert table["scene"].isna().all(), "scenes.csv is about training patches"


def test_positions_come_from_the_table_beside_the_data(root):
    (root / "scenes.csv").write_text("\ufeffn,scene,row,column\n10,2,0,0\n1,1,4,5\n2,1,4,6\n7,1,0,0\n\n")
    positions = read_positions(root, [1, 2, 10])
    assert positions.to_numpy().tolist() == [[1, 4, 5], [1, 4, 6], [2, 0, 0]]
    assert patch_table(root)["column"].tolist() == [5, 6, 0]
    assert read_positions(root, [1, 2], positions="none").isna().all(axis=None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "header is an empty file; expected n,scene,row,column"),
        ("number,scene,row,column\n1,1,0,0\n", "header is number,scene"),
        ("n,scene,row,column\n1,1,0,0\n2,1,x,0\n", "line 3: found '2,1,x,0'"),
        ("n,scene,row,column\n1,1,0\n", "line 2"),
        ("n,scene,row,column\n1,1,0,0,0\n", "line 2"),
        ("n,scene,row,column\n1,1,0,\n", "line 2"),
        ("n,scene,row,column\n1,1,0,0\n1,1,0,1\n", "line 3: patch 1 occurs twice"),
        ("n,scene,row,column\n1,1,0,0\n2,1,0,1\n", "no position for patch 10"),
        ("n,scene,row,column\n1,\xff\n", "line 2"),
    ],
)
def test_a_faulty_table_of_positions_says_where(root, content, says):
    (root / "scenes.csv").write_text(content)
    with pytest.raises(DataError, match=says) as error:
        read_positions(root, [1, 2, 10])
    assert "scenes.csv" in str(error.value)


def test_a_table_of_positions_that_is_no_text_is_a_data_error(root):
    (root / "scenes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"scenes\.csv cannot be read"):
        read_positions(root, [1, 2, 10])


def test_the_official_scenes_are_contiguous_tiles():
    table = landslide4sense_positions()
    assert table.index.tolist() == list(range(1, 3800))
    assert table["scene"].value_counts().to_dict() == {1: 3033, 2: 150, 3: 121, 4: 494, 5: 1}
    assert table.loc[[1, 41, 42, 3033, 3034, 3184, 3305, 3798, 3799]].to_numpy().tolist() == [
        [1, 0, 0],
        [1, 0, 40],
        [1, 1, 0],
        [1, 73, 39],
        [2, 0, 0],
        [3, 0, 0],
        [4, 0, 0],
        [4, 18, 25],
        [5, 0, 0],
    ]
    assert not table.duplicated().any()


def test_the_official_table_serves_the_whole_official_set_or_by_name(root):
    everything = list(range(1, 3800))
    assert read_positions(root, everything)["scene"].nunique() == 5
    assert read_positions(root, everything[:-1]).isna().all(axis=None)
    assert read_positions(root, [*everything, 3800]).isna().all(axis=None)
    named = read_positions(root, [42, 1], positions="landslide4sense")
    assert named.to_numpy().tolist() == [[1, 1, 0], [1, 0, 0]]
    with pytest.raises(DataError, match="no position for patch 3800"):
        read_positions(root, [1, 3800], positions="landslide4sense")


def test_a_part_of_the_numbers_of_an_official_folder_has_positions(tmp_path):
    (tmp_path / "images/train").mkdir(parents=True)
    for number in range(1, 3800):
        (tmp_path / f"images/train/image_{number}.h5").touch()
    assert read_positions(tmp_path, [43])["row"].tolist() == [1]


# ---- checking


def test_a_sound_set_has_no_findings_and_is_counted(root):
    write_set(root, (1, 2), split="validation")
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
        "landslide_pixels": 16,
        "landslide_share": 16 / (5 * 128 * 128),
    }


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (12, "uint16"), (12, "float32")])
def test_sets_with_fewer_bands_are_sound_when_declared(tmp_path, bands, dtype):
    write_set(tmp_path, bands=bands, dtype=dtype)
    assert check(tmp_path, n_bands=bands).ok
    assert check(tmp_path, bands=ORIGINAL_BANDS[:bands]).ok
    assert [code for _, code in codes(check(tmp_path))] == ["wrong_shape"] * 3


def overwrite(path: Path, key: str, values: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    write_h5(path, key, values)


def with_values(**places: float) -> np.ndarray:
    image = an_image()
    image[0, 0, 2] = places.get("b3", image[0, 0, 2])
    image[:5, 7, 13] = places.get("dem", image[:5, 7, 13])
    return image


IMAGE_1, MASK_1 = "TrainData/img/image_1.h5", "TrainData/mask/mask_1.h5"
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
    "wrong_key": (lambda r: overwrite(image_path(r, 1), "image", an_image()), IMAGE_1, "`image`"),
    "wrong_key mask": (lambda r: overwrite(mask_path(r, 1), "label", a_mask()), MASK_1, "`label`"),
    "wrong_shape": (
        lambda r: overwrite(image_path(r, 1), "img", an_image()[:64]),
        IMAGE_1,
        "(64, 128, 14); expected (128, 128, 14)",
    ),
    "wrong_shape mask": (
        lambda r: overwrite(mask_path(r, 1), "mask", a_mask()[None]),
        MASK_1,
        "(1, 128, 128)",
    ),
    "wrong_dtype": (
        lambda r: overwrite(image_path(r, 1), "img", an_image(dtype="complex128")),
        IMAGE_1,
        "complex128",
    ),
    "wrong_dtype mask": (lambda r: overwrite(mask_path(r, 1), "mask", a_mask().astype("S1")), MASK_1, "S1"),
    "not_finite": (
        lambda r: overwrite(image_path(r, 1), "img", with_values(b3=np.inf, dem=np.nan)),
        IMAGE_1,
        "1 infinite in band 3 (B3); 5 NaN in band 14 (dem)",
    ),
    "not_finite in float32": (
        lambda r: overwrite(image_path(r, 1), "img", with_values(b3=-1e300)),
        IMAGE_1,
        "1 infinite in band 3 (B3)",
    ),
    "mask_values": (
        lambda r: overwrite(mask_path(r, 1), "mask", a_mask(9) * 255),
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
        lambda r: write_set(r / "TrainData", (5,)),
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
        lambda r: write_set(r, (4,), layout=HUGGING_FACE),
        ".",
        "TrainData/img and as images/train",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_fault_is_found_where_it_is(root, kind):
    damage, path, says = FAULTS[kind]
    damage(root)
    found = [f for f in check(root).faults if f.code == kind.split()[0] and f.path == path]
    assert len(found) == 1, check(root).render()
    assert says in found[0].message
    assert found[0].remedy


def test_all_faults_are_in_one_report(tmp_path):
    root = write_set(tmp_path / "set", range(1, 11))
    truncate(image_path(root, 1))
    overwrite(image_path(root, 2), "data", an_image())
    overwrite(image_path(root, 3), "img", an_image(bands=13, dtype="complex64"))
    overwrite(image_path(root, 4), "img", with_values(dem=np.nan))
    overwrite(mask_path(root, 4), "mask", a_mask() * 2)
    mask_path(root, 5).unlink()
    image_path(root, 6).unlink()
    truncate(mask_path(root, 7))
    shutil.copy(image_path(root, 8), root / "TrainData/img/image_8.hdf5")
    shutil.copy(image_path(root, 9), root / "TrainData/img/image_009.h5")
    write_set(root, (1,), split="test")
    truncate(root / "TestData/img/image_1.h5")
    (root / "notes.doc").write_text("by hand")
    report = check(root)
    assert codes(report) == [
        ("TestData/img/image_1.h5", "unreadable"),
        ("TrainData/img/image_1.h5", "unreadable"),
        ("TrainData/img/image_2.h5", "wrong_key"),
        ("TrainData/img/image_3.h5", "wrong_dtype"),
        ("TrainData/img/image_3.h5", "wrong_shape"),
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
def test_a_folder_that_is_not_a_data_set_is_a_fault_and_never_an_exception(tmp_path, make):
    make(tmp_path / "set")
    report = check(tmp_path / "set")
    assert codes(report) == [(".", "missing_folder")]
    assert report.render()


def test_the_strays_of_the_hugging_face_copy_are_warnings(tmp_path):
    write_set(tmp_path, layout=HUGGING_FACE)
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


def test_a_constant_elevation_is_a_warning_where_there_is_an_elevation(root):
    image = an_image()
    image[:, :, 13] = 0.5
    overwrite(image_path(root, 2), "img", image)
    report = check(root)
    assert report.ok
    assert [(w.path, w.code) for w in report.warnings] == [("TrainData/img/image_2.h5", "constant_dem")]
    assert not check(root, bands=[f"x{i}" for i in range(14)]).warnings


# ---- the real thing


@needs_real_data
def test_the_real_sample_reads_as_documented():
    patches = find_patches(REAL_SAMPLE)
    assert len(patches) == 27
    assert [p.number for p in patches][:4] == [1, 2, 3, 16]
    with h5py.File(patches[0].image) as file:
        stored = file["img"][()]
    assert (stored.shape, stored.dtype) == ((128, 128, 14), np.float64)
    np.testing.assert_array_equal(read_image(patches[0].image), np.moveaxis(stored, -1, 0).astype(np.float32))
    report = check(REAL_SAMPLE)
    assert report.ok
    assert report.counts["patches"] == 27


@needs_real_data
def test_the_real_masks_hold_the_published_counts():
    published = pd.read_csv(REAL_DATA / "landslide4sense_train_positive_pixels.csv", index_col="n")
    table = patch_table(REAL_SAMPLE, positions="landslide4sense")
    expected = published.loc[table["number"], "landslide_pixels"]
    assert table["positive_pixels"].tolist() == expected.tolist()
    assert table.set_index("number").loc[3520, ["scene", "row", "column"]].tolist() == [4, 8, 7]


@needs_real_data
def test_a_truncated_real_file_is_found(tmp_path):
    shutil.copytree(REAL_SAMPLE, tmp_path / "set")
    image = tmp_path / "set/TrainData/img/image_700.h5"
    image.chmod(0o644)
    os.truncate(image, 1_000_000)
    assert codes(check(tmp_path / "set")) == [("TrainData/img/image_700.h5", "unreadable")]
