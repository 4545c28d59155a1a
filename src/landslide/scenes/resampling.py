"""Rows of one raster at the pixels of another grid of the same reference system, bilinear or nearest.

The bands of a Sentinel-2 scene have pixels of 10, 20 and 60 m in one reference system. Such an interpolation is
separable, and each pixel depends on its own coordinates only, so that the same rows have the same bits, however they
are read. (GDAL's warper also reprojects, which is not needed here, and takes several times as long.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from landslide.scenes.grid import Grid

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """For each pixel along one axis of the target the two neighbours in the source, and the weight of the second.

    Attributes:
        first: Index of the first neighbour (n,), int64.
        second: Index of the second neighbour (n,), int64; it equals `first` where its weight is 0.
        weight: Weight of the second neighbour (n,), float32.
        nearest: Index of the source pixel that holds the centre of the target's pixel (n,), int64.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]
    nearest: npt.NDArray[np.int64]

    def __getitem__(self, part: slice) -> "Axis":
        return Axis(self.first[part], self.second[part], self.weight[part], self.nearest[part])

    def from_start(self) -> tuple[int, int, "Axis"]:
        """Return the first and the last needed source pixel, and the axis counted from the first one."""
        start, last = int(min(self.first.min(), self.nearest.min())), int(max(self.second.max(), self.nearest.max()))
        return start, last, Axis(self.first - start, self.second - start, self.weight, self.nearest - start)


def axes(source: Affine, source_shape: tuple[int, int], grid: Grid) -> tuple[Axis, Axis]:
    """Return the rows and the columns of `grid` in the pixels of a source raster of the same reference system.

    Args:
        source: Transform of the source raster, without rotation.
        source_shape: Its height and width. Beyond its edges the pixels at the edge continue.
        grid: The target.
    """
    to_source = ~source @ grid.transform
    rows = to_source.e * (np.arange(grid.height) + 0.5) + to_source.f
    columns = to_source.a * (np.arange(grid.width) + 0.5) + to_source.c
    return _axis(rows, source_shape[0]), _axis(columns, source_shape[1])


def _axis(position: npt.NDArray[np.float64], size: int) -> Axis:
    centre = np.round(position - 0.5, 6)  # a millionth of a pixel: transforms in degrees are not exact
    below = np.floor(centre)
    weight = (centre - below).astype(np.float32)
    first = np.clip(below, 0, size - 1).astype(np.int64)
    second = np.clip(np.where(weight > 0, below + 1, below), 0, size - 1).astype(np.int64)
    nearest = np.clip(np.floor(np.round(position, 6)), 0, size - 1).astype(np.int64)
    return Axis(first, second, weight, nearest)


def bilinear(values: Array, rows: Axis, columns: Axis) -> npt.NDArray[np.float32]:
    """Interpolate values (h, w) at the pixels of `rows` and `columns`; float32 (rows, columns)."""
    values = values.astype(np.float32)
    across = values[:, columns.first]
    across += columns.weight * (values[:, columns.second] - across)
    result: npt.NDArray[np.float32] = across[rows.first]
    result += rows.weight[:, None] * (across[rows.second] - result)
    return result


def any_neighbour(mask: Mask, rows: Axis, columns: Axis) -> Mask:
    """Whether a pixel that contributes to the interpolation is marked in a mask (h, w); bool (rows, columns)."""
    across = mask[:, columns.first] | mask[:, columns.second]
    return across[rows.first] | across[rows.second]


def nearest(values: Array, rows: Axis, columns: Axis) -> Array:
    """Take from values (h, w) the pixel that holds the centre of each target pixel; (rows, columns)."""
    return values[rows.nearest][:, columns.nearest]
