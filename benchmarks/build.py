"""From HDF5 files to the band cache: `ensure_cache` compared with a plain loop; files are warm, both write to disk."""

import shutil
import time

import cv2
import h5py
import numpy as np

from benchmarks import patches
from benchmarks.bands import plain
from benchmarks.measure import Comparison, in_turn
from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings


def run(quick: bool) -> list[Comparison]:
    cv2.setNumThreads(1)
    n_compared, rounds = (100, 3) if quick else (400, 5)
    with patches.data_set(n_compared) as (folder, what, data, table):

        def ours() -> float:
            shutil.rmtree(folder / "caches", ignore_errors=True)
            start = time.perf_counter()
            ensure_cache(folder / "caches", data, table, "benchmark", BandSettings())
            return time.perf_counter() - start

        def plain_loop() -> None:
            bands = np.lib.format.open_memmap(folder / "b.npy", "w+", "float16", (len(table), 26, 128, 128))
            masks = np.lib.format.open_memmap(folder / "m.npy", "w+", "uint8", (len(table), 128, 128))
            for i, patch in enumerate(table.itertuples()):
                with h5py.File(data / patch.image) as file:
                    bands[i] = plain(file["img"][()]).astype(np.float16)
                with h5py.File(data / patch.mask) as file:
                    masks[i] = file["mask"][()]
            bands.flush()
            masks.flush()

        ours()
        plain_loop()
        built = next((folder / "caches").glob("*/*/bands.npy"))
        np.testing.assert_array_equal(np.load(built, mmap_mode="r"), np.load(folder / "b.npy", mmap_mode="r"))
        seconds = in_turn({"h5py, plain float64, NumPy's float16": plain_loop, "ensure_cache": ours}, rounds)
        compared = Comparison(
            name="h5 to cache",
            unit="ms per patch",
            values={name: 1e3 * value / n_compared for name, value in seconds.items()},
            reference="h5py, plain float64, NumPy's float16",
            ours="ensure_cache",
            facts={"patches": what, "rounds": rounds},
        )
        return [compared] if quick else [compared, whole_set()]


def whole_set(n: int = 3799) -> Comparison:
    """Build the cache of as many patches as the official training set has."""
    seconds = []
    with patches.data_set(n) as (folder, _, data, table):
        for _ in range(3):
            shutil.rmtree(folder / "caches", ignore_errors=True)
            start = time.perf_counter()
            ensure_cache(folder / "caches", data, table, "benchmark", BandSettings())
            seconds.append(time.perf_counter() - start)
    return Comparison(
        name=f"h5 to cache, {n} patches",
        unit="s",
        values={"ensure_cache": sorted(seconds)[1]},
        reference="ensure_cache",
        ours="ensure_cache",
        limit=10.0,
        facts={"patches": n, "rounds": len(seconds)},
    )
