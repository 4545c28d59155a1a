"""Patches on disk: both layouts, pairing by number, reading, and unusable files."""

import pickle
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from landslide.data.patches import find_patches, load_stored, read_image, read_mask, read_stored
from landslide.errors import DataError
from landslide.schema import LAYOUTS
from tests.support.patch_sets import (
    HUGGING_FACE,
    build_image,
    build_mask,
    image_path,
    mask_path,
    write_h5,
    write_patch_set,
)

# ---- search and pairing


@pytest.mark.parametrize("layout", LAYOUTS, ids=["zenodo", "hugging_face"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_images_and_masks_pair_in_natural_order_in_both_layouts(tmp_path, layout, split):
    write_patch_set(tmp_path, (10, 2, 1), layout=layout, split=split)
    patches = find_patches(tmp_path, split)
    assert [p.number for p in patches] == [1, 2, 10]
    assert [p.image for p in patches] == [tmp_path / layout[split][0] / f"image_{n}.h5" for n in (1, 2, 10)]
    assert [int(read_mask(p.mask).sum()) for p in patches] == [1, 2, 10]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.sets(st.integers(0, 99_999), min_size=1, max_size=12),
    strays=st.sets(st.integers(0, 99_999), max_size=5),
)
def test_pairing_is_by_number_and_ignores_stray_files(tmp_path_factory, images, strays):
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


def test_masks_are_optional_outside_the_training_split(tmp_path):
    write_patch_set(tmp_path, (1, 2), split="test")
    (tmp_path / "TestData/mask/mask_1.h5").unlink()
    assert [p.mask is None for p in find_patches(tmp_path, "test")] == [True, False]


def test_zero_padded_numbers_pair_with_plain_ones(root):
    image_path(root, 2).rename(root / "TrainData/img/image_0002.h5")
    assert [p.number for p in find_patches(root)] == [1, 2, 10]


def test_a_training_image_without_mask_is_named(root):
    mask_path(root, 2).unlink()
    with pytest.raises(DataError, match=r"1 training image.* have no mask .*image_2\.h5"):
        find_patches(root)


def test_a_missing_folder_is_an_error_with_path_reason_and_remedy(tmp_path):
    with pytest.raises(DataError, match=r"(?s)nowhere.*does not exist.*->.*TrainData") as error:
        find_patches(tmp_path / "nowhere")
    assert "landslide data demo" in error.value.remedy
    with pytest.raises(DataError, match=r"neither .*TrainData/img nor .*images/train"):
        find_patches(tmp_path)


def test_an_empty_folder_is_a_data_error(tmp_path):
    (tmp_path / "TrainData/img").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no patch"):
        find_patches(tmp_path)


def test_two_files_with_the_same_number_are_refused(root):
    shutil.copy(image_path(root, 1), root / "TrainData/img/image_01.h5")
    with pytest.raises(DataError, match="number 1 occurs twice"):
        find_patches(root)


def test_a_split_in_both_layouts_is_refused(root):
    write_patch_set(root, (1,), layout=HUGGING_FACE)
    with pytest.raises(DataError, match="train split twice"):
        find_patches(root)


# ---- reading


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("bands", [3, 12, 14])
def test_images_of_any_real_dtype_become_float32_channels_first(tmp_path, dtype, bands):
    stored = build_image(bands=bands, dtype=dtype)
    image = read_image(write_h5(tmp_path / "image_1.h5", "img", stored), n_bands=bands)
    assert image.dtype == np.float32
    assert image.shape == (bands, 128, 128)
    assert image.flags.c_contiguous
    for band in range(bands):
        np.testing.assert_array_equal(image[band], stored[:, :, band].astype(np.float32))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32"])
def test_masks_become_uint8(tmp_path, dtype):
    mask = read_mask(write_h5(tmp_path / "mask_1.h5", "mask", build_mask(7).astype(dtype)))
    assert mask.dtype == np.uint8
    assert mask.shape == (128, 128)
    assert mask.sum() == 7


def test_a_mask_value_that_overflows_uint8_to_zero_is_refused(tmp_path):
    path = write_h5(tmp_path / "mask_1.h5", "mask", build_mask(7).astype("int64") * 256)
    with pytest.raises(DataError, match=r"mask_1\.h5: values other than 0 and 1: 256 \(7 pixels\)"):
        read_mask(path)


def damaged_images(folder: Path) -> dict[str, Path]:
    """One real HDF5 file per kind of unusable file."""
    whole = write_h5(folder / "whole.h5", "img", build_image())
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
        "key": write_h5(folder / "key.h5", "image", build_image()),
        "channels_first": write_h5(folder / "first.h5", "img", build_image().transpose(2, 0, 1)),
        "bands": write_h5(folder / "bands.h5", "img", build_image(bands=3)),
        "complex": write_h5(folder / "complex.h5", "img", build_image(dtype="complex64")),
        "text_values": write_h5(folder / "strings.h5", "img", build_image().astype("S4")),
    }


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "cannot be read"),
        ("text", "cannot be read"),
        ("empty", "cannot be read"),
        ("missing", "cannot be read"),
        ("folder", "cannot be read"),
        ("nothing", "holds nothing; expected a data set `img`"),
        ("group", "holds `img`, which is a group; expected a data set `img`"),
        ("key", "holds `image`; expected a data set `img`"),
        ("channels_first", r"shape \(14, 128, 128\); expected \(128, 128, 14\)"),
        ("bands", r"shape \(128, 128, 3\); expected \(128, 128, 14\)"),
        ("complex", "type complex64; expected"),
        ("text_values", r"type \|S4; expected"),
    ],
)
def test_an_unusable_image_is_an_error_with_file_finding_and_expectation(tmp_path, kind, message):
    path = damaged_images(tmp_path)[kind]
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert str(path) in error.value.what
    assert error.value.remedy
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_bytes_in_memory_are_read_as_the_file_is(tmp_path):
    shape = (128, 128, 14)
    for path in damaged_images(tmp_path).values():
        if path.is_file():
            found, faults = load_stored(path, "img", shape, path.read_bytes())
            assert found is None
            assert [fault.code for fault in faults] == [fault.code for fault in load_stored(path, "img", shape)[1]]
    whole = tmp_path / "whole.h5"
    np.testing.assert_array_equal(load_stored(whole, "img", shape, whole.read_bytes())[0], read_stored(whole))


def test_an_image_damaged_at_any_byte_is_read_or_a_data_error(tmp_path):
    sound = write_h5(tmp_path / "image_1.h5", "img", build_image()).read_bytes()
    damaged, draw, refused = tmp_path / "damaged.h5", random.Random(0), 0
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(3):
            content[draw.randrange(2048)] = draw.randrange(256)
        damaged.write_bytes(content)
        in_memory, _ = load_stored(damaged, "img", (128, 128, 14), bytes(content))
        try:
            np.testing.assert_array_equal(read_stored(damaged), in_memory)
        except DataError:
            assert in_memory is None
            refused += 1
    assert refused > 10


def test_the_real_sample_reads_as_documented(real_data):
    patches = find_patches(real_data / "landslide4sense-sample")
    assert len(patches) == 27
    assert [p.number for p in patches][:4] == [1, 2, 3, 16]
    with h5py.File(patches[0].image) as file:
        stored = file["img"][()]
    assert (stored.shape, stored.dtype) == ((128, 128, 14), np.float64)
    np.testing.assert_array_equal(read_image(patches[0].image), np.moveaxis(stored, -1, 0).astype(np.float32))
