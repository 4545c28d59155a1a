"""A batch of random patches as float32: from the memory-mapped band cache against the HDF5 files.

    python benchmarks/cache.py

Files and cache are warm (in the page cache) on both sides. The HDF5 side reads the stored bands only, so its 26
bands would still have to be computed. Uses the real patches where they are (LANDSLIDE_REAL_DATA), generated ones
otherwise.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from landslide import demo
from landslide.bands import BAND_NAMES, BandSettings
from landslide.batches import PatchBatches
from landslide.cache import BandCache, ensure_cache
from landslide.patches import patch_table

ROUNDS, BATCH = 60, 12


def from_h5(root: Path, table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read images (B, 14, H, W) float32 and masks (B, H, W) from the files."""
    images, masks = [], []
    for row in rows:
        with h5py.File(root / table["image"][row]) as file:
            images.append(np.ascontiguousarray(file["img"][()].transpose(2, 0, 1), dtype=np.float32))
        with h5py.File(root / table["mask"][row]) as file:
            masks.append(file["mask"][()])
    return np.stack(images), np.stack(masks)


def from_cache(cache: BandCache, n_bands: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Read images (B, n_bands, H, W) float32 and masks (B, H, W) from the cache."""
    images = np.stack([cache.bands[row, :n_bands] for row in rows])
    return torch.from_numpy(images).float(), torch.from_numpy(cache.masks[rows])


def milliseconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - start) * 1e3 / BATCH


def measure(root: Path, cache_root: Path) -> None:
    table = patch_table(root)
    settings = {dtype: BandSettings(dtype=dtype) for dtype in ("float16", "float32")}
    caches = {name: ensure_cache(cache_root, root, table, "benchmark", s) for name, s in settings.items()}
    batches = PatchBatches(caches["float16"], np.arange(len(table)), BAND_NAMES, torch.device("cpu"))
    sides = {
        "HDF5 files, 14 bands": lambda rows: from_h5(root, table, rows),
        "float32 cache, 14 bands": lambda rows: from_cache(caches["float32"], 14, rows),
        "float32 cache, 26 bands": lambda rows: from_cache(caches["float32"], 26, rows),
        "float16 cache, 14 bands": lambda rows: from_cache(caches["float16"], 14, rows),
        "float16 cache, 26 bands": lambda rows: from_cache(caches["float16"], 26, rows),
        "PatchBatches, 26 bands": lambda rows: batches.batch(torch.from_numpy(rows)),
    }
    rng = np.random.default_rng(0)
    rows = rng.integers(len(table), size=BATCH)
    for stored, cached in zip(from_h5(root, table, rows), from_cache(caches["float32"], 14, rows), strict=True):
        np.testing.assert_array_equal(stored, cached.numpy())
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        rows = rng.integers(len(table), size=BATCH)
        for name, side in sides.items():
            times[name].append(milliseconds(side, rows))
    print(f"{len(table)} patches, {ROUNDS} random batches of {BATCH}, equal values; PatchBatches ends channels-last")
    reference = statistics.median(times["HDF5 files, 14 bands"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:24} median {median:6.3f} ms a patch   ratio {reference / median:5.1f}")


def main() -> None:
    torch.set_num_threads(1)
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    real = Path(os.environ.get("LANDSLIDE_REAL_DATA", default)) / "landslide4sense-sample"
    with tempfile.TemporaryDirectory() as folder:
        if not real.is_dir():
            demo.generate(Path(folder) / "data", scenes=((4, 6),))
        measure(real if real.is_dir() else Path(folder) / "data", Path(folder) / "caches")


if __name__ == "__main__":
    main()
