"""Maps of whole scenes on a GPU: a full Sentinel-2 tile by five Lite U-Nets, and a smaller square by a plain script.

The sides are those of `benchmarks.map`: same networks, windows and overlap.
"""

import tempfile
from pathlib import Path

import numpy as np
import rasterio
import torch

from benchmarks.map import FULL_TILE, LITE, measured, starts, write_ensemble, write_scene
from benchmarks.measure import Comparison

SECONDS = 60.0
_SQUARE = 1_000


def run(quick: bool) -> list[Comparison]:
    """Compare both sides on a GPU, and time a full tile; nothing without a GPU."""
    if not torch.cuda.is_available():
        print("map_gpu: skipped, torch finds no GPU here")
        return []
    return compare("cuda", _SQUARE, 1_000 if quick else FULL_TILE, members=5, rounds=1)


def compare(device: str, square: int, tile: int, *, members: int, rounds: int) -> list[Comparison]:
    """Compare both sides on a square of pixels, and time ours on a tile."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ensemble = write_ensemble(folder / "lite", *LITE, members)
        scenes = {size: write_scene(folder / f"{size}.tif", size) for size in {square, tile}}
        measured("ours", scenes[square], ensemble, folder, device)  # the first use of a GPU takes longer
        found: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(rounds):
            for side, seconds in found.items():
                seconds.append(measured(side, scenes[square], ensemble, folder, device)[0])
        on_gpu = _probability(folder)
        measured("ours", scenes[square], ensemble, folder)
        difference = float(np.abs(_probability(folder) - on_gpu).max())
        full, megabytes = measured("ours", scenes[tile], ensemble, folder, device)
        windows = {size: len(starts(size)) ** 2 for size in scenes}
        medians = {side: sorted(seconds)[rounds // 2] for side, seconds in found.items()}
        return [
            Comparison(
                name=f"map on {device}, {members} Lite U-Nets, {square} pixels",
                unit="ms a window",
                values={side: 1000 * seconds / windows[square] for side, seconds in medians.items()},
                reference="plain",
                ours="ours",
                goal=3.0,
                facts={"rounds": rounds, "largest difference to the CPU": f"{difference:.4f}"},
            ),
            Comparison(
                name=f"map on {device}, {tile} pixels",
                unit="s",
                values={"plain, projected": medians["plain"] * windows[tile] / windows[square], "ours": full},
                reference="plain, projected",
                ours="ours",
                limit=SECONDS,
                facts={"peak memory": f"{megabytes:.0f} MB", "windows": windows[tile]},
            ),
        ]


def _probability(folder: Path) -> np.ndarray:
    """Return our map."""
    with rasterio.open(folder / "out.ours.tif") as dataset:
        return dataset.read(1) / 10_000.0
