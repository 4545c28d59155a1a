"""The batches of an epoch: from the memory-mapped band cache compared with the HDF5 files, all warm.

Two comparisons: batches as training needs them, 26 bands as float32 with channels last in memory, for which the bands
of the files have to be computed; and only reading, the 14 stored bands as float32.
"""

from functools import partial
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor

from benchmarks import patches
from benchmarks.measure import Comparison, in_turn
from landslide.bands.batches import PatchBatches
from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache
from landslide.bands.formulas import BAND_NAMES, BandSettings, engineer
from landslide.schema import ORIGINAL_BANDS

BATCH = 12


def from_h5(root: Path, table, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Read images (14, H, W) float32 and masks (B, H, W) with h5py."""
    images, masks = [], []
    for row in rows:
        with h5py.File(root / table["image"][row]) as file:
            images.append(np.ascontiguousarray(file["img"][()].transpose(2, 0, 1), dtype=np.float32))
        with h5py.File(root / table["mask"][row]) as file:
            masks.append(file["mask"][()])
    return images, np.stack(masks)


def from_h5_with_bands(root: Path, table, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Read with h5py, compute the bands, and lay them out as training needs them."""
    images, masks = [], []
    for row in rows:
        with h5py.File(root / table["image"][row]) as file:
            images.append(engineer(file["img"][()]))
        with h5py.File(root / table["mask"][row]) as file:
            masks.append(file["mask"][()])
    batch = torch.from_numpy(np.stack(images)).contiguous(memory_format=torch.channels_last)
    return batch, torch.from_numpy(np.stack(masks)).long()


def stacked(cache: BandCache, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the 14 stored bands (B, 14, H, W) float32 and masks from the cache."""
    return np.stack([cache.bands[row, :14] for row in rows]).astype(np.float32, copy=False), cache.masks[rows]


def epoch(read, order: np.ndarray) -> None:
    for start in range(0, len(order), BATCH):
        read(order[start : start + BATCH])


def run(quick: bool) -> list[Comparison]:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    n, rounds = (60, 5) if quick else (240, 15)
    with patches.data_set(n) as (folder, what, data, table):
        order = np.random.default_rng(0).permutation(n)
        caches = {
            dtype: ensure_cache(folder / "caches", data, table, "benchmark", BandSettings(dtype=dtype))
            for dtype in ("float16", "float32")
        }
        whole = {
            name: PatchBatches(cache, np.arange(n), BAND_NAMES, torch.device("cpu")) for name, cache in caches.items()
        }
        stored = PatchBatches(caches["float16"], np.arange(n), ORIGINAL_BANDS, torch.device("cpu"))
        first = order[:BATCH]
        for ours, theirs in zip(
            whole["float32"].batch(torch.from_numpy(first)), from_h5_with_bands(data, table, first), strict=True
        ):
            assert torch.equal(ours, theirs)
        as_training = {
            "h5py, bands computed": partial(from_h5_with_bands, data, table),
            "PatchBatches, float32 cache": lambda rows: whole["float32"].batch(torch.from_numpy(rows)),
            "PatchBatches, float16 cache": lambda rows: whole["float16"].batch(torch.from_numpy(rows)),
        }
        reading = {
            "h5py": partial(from_h5, data, table),
            "float32 cache": partial(stacked, caches["float32"]),
            "PatchBatches, float16 cache": lambda rows: stored.batch(torch.from_numpy(rows)),
        }
        results = []
        for name, sides, ours in (
            ("epoch of batches, 26 bands", as_training, "PatchBatches, float16 cache"),
            ("epoch read, 14 stored bands", reading, "PatchBatches, float16 cache"),
        ):
            seconds = in_turn({side: partial(epoch, read, order) for side, read in sides.items()}, rounds)
            results.append(
                Comparison(
                    name=name,
                    unit="ms per patch",
                    values={side: 1e3 * value / n for side, value in seconds.items()},
                    reference=next(iter(sides)),
                    ours=ours,
                    goal=10.0,
                    facts={"patches": what, "batch": BATCH, "rounds": rounds},
                )
            )
        return results
