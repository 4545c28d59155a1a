"""Patches put together again to the scenes that they were cut from: grids, labels, out-of-fold predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from affine import Affine

from landslide.data.patches import read_mask
from landslide.errors import DataError
from landslide.labels.predictions import Predictions
from landslide.products.geotiff import NOT_ANALYSED, stored_threshold
from landslide.products.raw_files import NO_DATA, SCALE
from landslide.scenes.grid import Grid
from landslide.schema import PATCH_SIZE
from landslide.tiling.places import Place, patch_places

SEEN = -1
"""Instead of a fold: every member may have seen the patch."""
_NEAR = 0.01  # pixels by which a patch may lie off the grid: edges are rounded


@dataclass(frozen=True)
class PlacedScene:
    """Where the n patches of a scene lie.

    Attributes:
        name: Its name.
        grid: The smallest grid that holds the patches.
        rows: (n,) their rows in the patch table.
        tops: (n,) first row of each in the grid.
        lefts: (n,) first column of each in the grid.
        folds: (n,) fold of the member that predicts each; 0 if all do, `SEEN` if none does.
    """

    name: str
    grid: Grid
    rows: npt.NDArray[np.int64]
    tops: npt.NDArray[np.int64]
    lefts: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]

    def unseen(self, rows: slice) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Find the pixels that are predicted out of fold.

        A pixel in overlapping patches of different folds is not: the member that left out one of them was trained on
        the other.

        Args:
            rows: Rows of the grid.

        Returns:
            Two arrays (rows, columns): where patches are, and where all of them are left out by one member.
        """
        fold = np.full((rows.stop - rows.start, self.grid.width), SEEN, np.int64)
        covered, several = np.zeros((2, *fold.shape), bool)
        for patch in self.within(rows):
            at, _ = self.parts(patch, rows)
            several[at] |= covered[at] & (fold[at] != self.folds[patch])
            covered[at], fold[at] = True, self.folds[patch]
        return covered, covered & (fold != SEEN) & ~several

    def within(self, rows: slice) -> list[int]:
        """Return the patches, from 0 to n - 1, that lie in some of these rows of the grid."""
        found = (self.tops < rows.stop) & (self.tops + PATCH_SIZE > rows.start)
        return [int(patch) for patch in np.flatnonzero(found)]

    def parts(self, patch: int, rows: slice) -> tuple[tuple[slice, slice], slice]:
        """Return where a patch lies in these rows of the grid, and which of its own rows these are."""
        top, left = int(self.tops[patch]), int(self.lefts[patch])
        start, stop = max(top, rows.start), min(top + PATCH_SIZE, rows.stop)
        at = slice(start - rows.start, stop - rows.start), slice(left, left + PATCH_SIZE)
        return at, slice(start - top, stop - top)


def place_scenes(root: Path, table: pd.DataFrame, folds: Mapping[int, int]) -> list[PlacedScene]:
    """Find the grids of the scenes of a data set, and where its patches lie in them.

    Args:
        root: Folder of the data set.
        table: Its patch table.
        folds: By number of a patch, the fold of the member that predicts it, 0 if all do; other patches are `SEEN`.

    Returns:
        The scenes in the order of their first patches.

    Raises:
        DataError: The set does not say where its patches lie on the map, or they lie on no common grid.
    """
    places = patch_places(root, table)
    if any(place.crs is None for place in places):
        raise DataError(
            f"{root} does not say where its patches lie on the map: scenes.csv has no coordinates for each of them.",
            remedy="Cut the scenes with `landslide data tile`, which writes them. `landslide data show` draws patches "
            "without coordinates.",
        )
    numbers = table["number"].tolist()
    of_patch = np.array([folds.get(number, SEEN) for number in numbers], np.int64)
    names = np.array([place.scene for place in places], object)
    return [
        _placed(root, name, numbers, places, np.flatnonzero(names == name), of_patch) for name in dict.fromkeys(names)
    ]


def _placed(
    root: Path,
    name: str,
    numbers: list[int],
    places: list[Place],
    rows: npt.NDArray[np.int64],
    folds: npt.NDArray[np.int64],
) -> PlacedScene:
    if not name or name.startswith(".") or "/" in name:
        raise DataError(
            f"{root / 'scenes.csv'}: the scene of patch {numbers[rows[0]]} has the name {name!r}, which no folder of a "
            "map can have.",
            remedy="Give it a name of letters, digits, `_` and `-`.",
        )
    here = [places[row] for row in rows]
    west, north, width, height = np.array(
        [(place.transform.c, place.transform.f, place.transform.a, -place.transform.e) for place in here]
    ).T
    columns, pixel_width = _axis(west, west + PATCH_SIZE * width)
    lines, pixel_height = _axis(north - PATCH_SIZE * height, north)
    lefts, tops = (west - west.min()) / pixel_width, (north.max() - north) / pixel_height
    off = np.abs([lefts - np.rint(lefts), tops - np.rint(tops)]).max(axis=0) > _NEAR
    off |= PATCH_SIZE * np.abs([width / pixel_width - 1, height / pixel_height - 1]).max(axis=0) > _NEAR
    off |= [place.crs != here[0].crs for place in here]
    if off.any():
        raise DataError(
            f"{root / 'scenes.csv'}: the patches of {name} do not lie on one grid of pixels.",
            remedy="Restore the file, for example with `dvc checkout`, or cut the scene again with `landslide data "
            "tile`.",
        )
    crs = here[0].crs
    assert crs is not None  # `place_scenes` has looked
    transform = Affine(pixel_width, 0, west.min(), 0, -pixel_height, north.max())
    return PlacedScene(
        name,
        Grid(crs, transform, columns, lines),
        rows,
        np.rint(tops).astype(np.int64),
        np.rint(lefts).astype(np.int64),
        folds[rows],
    )


def _axis(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> tuple[int, float]:
    """Return how many pixels patches cover along an axis, gaps included, and the size of a pixel."""
    length = high.max() - low.min()
    pixels = round(length / float(np.median((high - low) / PATCH_SIZE)))
    return pixels, float(length / pixels)


@dataclass(frozen=True)
class Layers:
    """Rows of a scene, each (rows, columns).

    Attributes:
        probability: uint16, out-of-fold landslide probability in steps of 0.0001; 65535 where it is not predicted.
        uncertainty: uint16, likewise its standard deviation.
        mask: uint8, 1 predicted landslide, 0 none, 255 not predicted.
        labels: uint8, 1 labelled landslide, 0 none, 255 outside of the patches.
    """

    probability: npt.NDArray[np.uint16]
    uncertainty: npt.NDArray[np.uint16]
    mask: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


class SceneLayers:
    """Labels and predictions of a scene; overlapping patches are averaged, and a label in one of them is a label.

    Args:
        scene: Where its patches lie.
        table: The patch table of the set.
        found: Predictions of all patches of the scene whose fold is not `SEEN`.
        threshold: Landslide probability from which a pixel is a landslide; by default that of the members that predict
            the patch.

    Raises:
        DataError: A mask cannot be read.
    """

    def __init__(
        self, scene: PlacedScene, table: pd.DataFrame, found: Predictions, threshold: float | None = None
    ) -> None:
        self.scene = scene
        self._found = found
        position = {number: i for i, number in enumerate(found.table["number"].tolist())}
        self.predicted = [position.get(number) for number in table["number"].iloc[scene.rows].tolist()]
        """Row in `found` of each patch of the scene; None if it is not predicted."""
        self._masks = [
            read_mask(found.root / path) if i is None else found.masks[i]
            for path, i in zip(table["mask"].iloc[scene.rows], self.predicted, strict=True)
        ]
        self.thresholds = [
            None if i is None else float(found.threshold[i]) if threshold is None else threshold for i in self.predicted
        ]
        """Threshold of each patch of the scene."""

    def rows(self, rows: slice) -> Layers:
        """Compute rows of the scene."""
        shape = (rows.stop - rows.start, self.scene.grid.width)
        total, square, count = np.zeros((3, *shape))
        labels, lowest = np.zeros(shape, np.uint8), np.zeros(shape, np.int64)
        for patch in self.scene.within(rows):
            at, part = self.scene.parts(patch, rows)
            labels[at] |= self._masks[patch][part]
            i, threshold = self.predicted[patch], self.thresholds[patch]
            if i is None or threshold is None:
                continue
            probability, deviation = (
                values[i, part].astype(float) for values in (self._found.probability, self._found.deviation)
            )
            total[at] += probability
            square[at] += probability**2 + deviation**2
            count[at] += 1
            lowest[at] = stored_threshold(threshold)
        covered, unseen = self.scene.unseen(rows)
        count = np.maximum(count, 1)
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, 0))
        known = unseen & np.isfinite(mean)
        stored, spread = (np.where(known, np.rint(np.where(known, x, 0) / SCALE), NO_DATA) for x in (mean, deviation))
        return Layers(
            stored.astype(np.uint16),
            spread.astype(np.uint16),
            np.where(known, stored >= lowest, NOT_ANALYSED).astype(np.uint8),
            np.where(covered, labels, NOT_ANALYSED).astype(np.uint8),
        )
