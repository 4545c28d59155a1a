"""Batches from the band cache: values, order of bands, dtypes, memory layout; and prefetch."""

import threading
import time
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from landslide import bands
from landslide.bands.batches import PatchBatches, prefetch
from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings

NAMES = ("B2", "B3", "B4", "slope")


def build_cache(dtype: str, folder: Path) -> BandCache:
    """A memory-mapped cache of six patches."""
    rng = np.random.default_rng(0)
    np.save(folder / "bands.npy", rng.normal(size=(6, 4, 128, 128)).astype(dtype))
    np.save(folder / "masks.npy", (rng.random((6, 128, 128)) < 0.1).astype(np.uint8))
    bands, masks = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("bands", "masks"))
    return BandCache(folder, NAMES, bands, masks, np.dtype("float64"), BandSettings())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("names", [NAMES, ("slope", "B2"), ("B3",)])
def test_a_batch_has_the_requested_patches_and_bands(dtype, names, tmp_path):
    cache = build_cache(dtype, tmp_path)
    rows = np.array([5, 0, 3, 2])
    batches = PatchBatches(cache, rows, names, torch.device("cpu"))
    images, masks = batches.batch(torch.tensor([2, 0, 0]))
    wanted = cache.bands[[3, 5, 5]][:, [NAMES.index(name) for name in names]]
    assert (images.dtype, masks.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(images, wanted.astype(np.float32))
    np.testing.assert_array_equal(masks, cache.masks[[3, 5, 5]])
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("rows", [[5, 0, 3, 2, 1], []])
def test_the_patches_that_are_kept_on_a_device_give_the_same_batches(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(bands.batches, "_PIECE", 2)
    read = PatchBatches(build_cache("float16", tmp_path), np.array(rows, int), NAMES, torch.device("cpu"))
    kept = copy(read)
    kept._images, kept._masks = kept._resident(torch.device("cpu"))
    assert kept.resident
    wanted = torch.arange(len(rows)).flip(0)
    for expected, found in zip(read.batch(wanted), kept.batch(wanted), strict=True):
        assert torch.equal(found, expected)


def test_changing_a_batch_does_not_change_the_cache(tmp_path):
    cache = build_cache("float32", tmp_path)
    batches = PatchBatches(cache, np.arange(6), NAMES, torch.device("cpu"))
    first, _ = batches.batch(torch.arange(6))
    expected = first.clone()
    first.zero_()
    assert torch.equal(batches.batch(torch.arange(6))[0], expected)


def test_prefetch_computes_one_item_ahead_in_order_in_a_thread():
    made, threads = [], set()

    def items():
        for i in range(4):
            threads.add(threading.get_ident())
            made.append(i)
            yield i

    used = []
    for item in prefetch(items()):
        used.append(item)
        time.sleep(0.05)
        assert made == list(range(min(len(used) + 1, 4)))
    assert used == [0, 1, 2, 3]
    assert threads.isdisjoint({threading.get_ident()})


def test_prefetch_raises_the_error_of_the_iterable():
    def items():
        yield 1
        raise OSError("no patch")

    with pytest.raises(OSError, match="no patch"):
        list(prefetch(items()))


def test_prefetch_of_empty_iterable():
    assert list(prefetch([])) == []
