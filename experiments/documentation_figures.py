"""Draws the pictures of bands and folds in the documentation, from the demo set and the official positions.

python experiments/documentation_figures.py docs/images
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from landslide.bands import BAND_NAMES, engineer
from landslide.data.demo import generate
from landslide.data.patches import read_stored
from landslide.data.positions import landslide4sense_positions
from landslide.folds import assign

PATCH = 59


def bands(path: Path) -> None:
    """Draw all bands of one patch of the demo set, each scaled from its lowest to its highest value."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder, "demo"))
        image = read_stored(Path(folder, "demo", "TrainData", "img", f"image_{PATCH}.h5"))
    figure, axes = plt.subplots(4, 7, figsize=(9.8, 6.2), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (axis, name, band) in enumerate(zip(axes.flat, BAND_NAMES, engineer(image), strict=False), start=1):
        axis.imshow(band, cmap="gray", interpolation="nearest")
        axis.set_title(f"{number} {name}", fontsize=8, pad=2)
    figure.savefig(path, dpi=75)


def folds(path: Path) -> None:
    """Draw the scenes of the official training set as tiles in the colour of their fold, under three schemes."""
    positions = landslide4sense_positions()
    corners = {1: (0, 0), 2: (0, 44), 3: (13, 44), 4: (27, 44)}  # of the scenes; scene 5 is a single patch
    figure, axes = plt.subplots(1, 3, figsize=(9.8, 3.7), layout="constrained")
    for axis, scheme in zip(axes, ("contiguous", "random", "scene_blocked"), strict=True):
        fold = assign(positions.index.tolist(), scheme=scheme, scenes=positions.to_numpy())
        picture = np.full((75, 70), np.nan)
        for scene, (top, left) in corners.items():
            in_scene = (positions["scene"] == scene).to_numpy()
            rows, columns = positions["row"][in_scene].to_numpy(int), positions["column"][in_scene].to_numpy(int)
            picture[top + rows, left + columns] = fold[in_scene]
        drawn = axis.imshow(picture, cmap=plt.get_cmap("Set2", 5), vmin=0.5, vmax=5.5, interpolation="nearest")
        axis.set_title(scheme)
        axis.set_axis_off()
    figure.colorbar(drawn, ax=axes, location="right", shrink=0.6, ticks=range(1, 6), label="fold")
    figure.savefig(path, dpi=75)


if __name__ == "__main__":
    destination = Path(sys.argv[1])
    bands(destination / "bands.png")
    folds(destination / "folds.png")
