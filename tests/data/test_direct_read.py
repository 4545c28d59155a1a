"""Files read directly against the same files read by HDF5: equal values, or left to HDF5."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landslide.data import direct_read
from landslide.data.patches import read_stored


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch):
    monkeypatch.setattr(direct_read, "_layouts", {})


def write(path: Path, array: np.ndarray, key: str = "img", *, track_times: bool = False, **options) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=array, track_times=track_times, **options)
    return path


def by_hdf5(path: Path, key: str = "img") -> np.ndarray:
    with h5py.File(path) as file:
        direct_read.learn(path, file[key])
        return file[key][()]


def values(seed: int, shape=(30, 25, 3), dtype="f8") -> np.ndarray:
    return (100 * np.random.default_rng(seed).random(shape)).astype(dtype)


@settings(deadline=None, max_examples=40)
@given(
    dtype=st.sampled_from(["<f8", ">f8", "<f4", "<f2", "<i2", ">u2", "u1", "<i8"]),
    shape=st.lists(st.integers(1, 3), max_size=2).map(lambda sides: (60, 40, *sides)),  # smaller ones are not alone
    seed=st.integers(0, 99),
)
def test_a_file_like_one_that_was_seen_is_read_as_hdf5_reads_it(tmp_path_factory, dtype, shape, seed):
    direct_read._layouts.clear()
    folder = tmp_path_factory.mktemp("files")
    by_hdf5(write(folder / "first.h5", values(0, shape, dtype)))
    second = write(folder / "second.h5", values(seed, shape, dtype))
    found = direct_read.read(second, "img")
    assert found is not None
    np.testing.assert_array_equal(found, by_hdf5(second))
    assert found.dtype == by_hdf5(second).dtype
    assert found.flags.writeable


def test_nothing_is_read_before_a_file_was_seen_or_under_another_key(tmp_path):
    path = write(tmp_path / "1.h5", values(0))
    assert direct_read.read(path, "img") is None
    by_hdf5(path)
    assert direct_read.read(path, "mask") is None
    assert direct_read.read(path, "img") is not None


def test_the_time_of_writing_may_differ_and_nothing_else(tmp_path):
    first, second = (write(tmp_path / f"{i}.h5", values(i), track_times=True) for i in (0, 1))
    expected = by_hdf5(second)
    direct_read._layouts.clear()
    by_hdf5(first)
    content = bytearray(second.read_bytes())
    (layout,) = direct_read._layouts["img"]
    assert layout.time_at is not None
    later = int.from_bytes(content[layout.time_at : layout.time_at + 4], "little") + 1000
    content[layout.time_at : layout.time_at + 4] = later.to_bytes(4, "little")
    second.write_bytes(content)
    np.testing.assert_array_equal(direct_read.read(second, "img"), expected)
    for position in range(len(layout.header)):
        if not layout.time_at <= position < layout.time_at + 4:
            changed = bytearray(content)
            changed[position] ^= 1
            second.write_bytes(changed)
            assert direct_read.read(second, "img") is None, position


@pytest.mark.parametrize(
    "options",
    [{"chunks": (3, 5, 3)}, {"compression": "gzip"}, {"chunks": True, "shuffle": True}, {"maxshape": (None, 25, 3)}],
)
def test_chunked_and_compressed_files_are_left_to_hdf5(tmp_path, options):
    path = write(tmp_path / "1.h5", values(0), **options)
    by_hdf5(path)
    assert direct_read.read(path, "img") is None


def test_a_file_with_more_than_one_array_or_none_stored_is_left_to_hdf5(tmp_path):
    two = tmp_path / "two.h5"
    with h5py.File(two, "w") as file:
        file["img"], file["other"] = values(0), values(1)
    empty = tmp_path / "empty.h5"
    with h5py.File(empty, "w") as file:
        file.create_dataset("img", (30, 25, 3), dtype="f8")
    flags = write(tmp_path / "flags.h5", values(0) > 50)
    for path in (two, empty, flags):
        by_hdf5(path)
        assert direct_read.read(path, "img") is None


def test_numbers_that_are_not_as_numpy_has_them_are_left_to_hdf5(tmp_path):
    twelve_bits = h5py.h5t.STD_I16LE.copy()
    twelve_bits.set_precision(12)
    twelve_bits.set_offset(4)
    for number in (1, 2):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            space = h5py.h5s.create_simple((60, 40))
            dataset = h5py.h5d.create(file.id, b"img", twelve_bits, space)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.full((60, 40), number, np.int16))
        assert (by_hdf5(path) == number).all()
        assert direct_read.read(path, "img") is None


def test_patches_are_read_directly_from_the_second_on(tmp_path, monkeypatch):
    first, second = (write(tmp_path / f"{i}.h5", values(i, (128, 128, 14))) for i in (0, 1))
    read_stored(first)
    monkeypatch.setattr(h5py, "File", None)
    np.testing.assert_array_equal(read_stored(second), values(1, (128, 128, 14)))


def test_other_types_shapes_and_lengths_are_left_to_hdf5(tmp_path):
    by_hdf5(write(tmp_path / "1.h5", values(0)))
    for i, array in enumerate(
        (values(1, dtype="i8"), values(1, dtype=">f8"), values(1, (25, 30, 3)), values(1, (2250,)))
    ):
        assert direct_read.read(write(tmp_path / f"other{i}.h5", array), "img") is None
    for name, size in (("shorter", -1), ("longer", 1)):
        path = write(tmp_path / f"{name}.h5", values(1))
        os.truncate(path, path.stat().st_size + size)
        assert direct_read.read(path, "img") is None


def test_the_number_of_remembered_layouts_is_bounded(tmp_path):
    for n in range(1, 40):
        by_hdf5(write(tmp_path / f"{n}.h5", values(0, (n + 300,))))
    assert len(direct_read._layouts["img"]) == direct_read._MOST_LAYOUTS


def test_a_file_that_is_gone_is_an_error(tmp_path):
    path = write(tmp_path / "1.h5", values(0))
    by_hdf5(path)
    path.unlink()
    with pytest.raises(OSError, match=r"1\.h5"):
        direct_read.read(path, "img")
