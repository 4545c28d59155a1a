"""Elevation, slope and gradient at single pixels of a scene, from terrain.tif on whatever grid it has."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.windows import Window

from landslide.scenes.grid import Grid

TERRAIN_BANDS = ("elevation", "slope", "gradient_east", "gradient_north")

Array = npt.NDArray[Any]


class TerrainSamples:
    """terrain.tif, sampled at the centres of pixels of a scene. If it is finer than the scene it is averaged first.

    Args:
        path: terrain.tif.
        grid: The scene.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._grid = grid
        self._dataset = rasterio.open(path)
        terrain = Grid(self._dataset.crs, self._dataset.transform, self._dataset.width, self._dataset.height)
        self._step = max(1, round(min(grid.pixel_size) / min(terrain.pixel_size)))
        self._transformer = Transformer.from_crs(grid.crs, terrain.crs, always_xy=True)

    def __enter__(self) -> "TerrainSamples":
        return self

    def __exit__(self, *_: object) -> None:
        self._dataset.close()

    def sample(self, rows: Array, columns: Array) -> dict[str, Array]:
        """Interpolate each band bilinearly.

        Args:
            rows: (P,) rows of pixels of the scene.
            columns: (P,) their columns.

        Returns:
            (P,) float64 by band; NaN outside the terrain and where most of the weight has no value.
        """
        x, y = self._transformer.transform(*rasterio.transform.xy(self._grid.transform, rows, columns))
        across, down = ~self._dataset.transform @ (x, y)
        inside = (across >= 0) & (across < self._dataset.width) & (down >= 0) & (down < self._dataset.height)
        values = np.full((len(TERRAIN_BANDS), len(rows)), np.nan)
        if inside.any():
            values[:, inside] = self._bilinear(across[inside] / self._step - 0.5, down[inside] / self._step - 0.5)
        return dict(zip(TERRAIN_BANDS, values, strict=True))

    def _bilinear(self, across: Array, down: Array) -> Array:
        """Interpolate at positions counted from the centre of the first cell of `step` x `step` pixels."""
        left, top = np.floor(across).astype(int), np.floor(down).astype(int)
        first_column, first_row = max(left.min(), 0), max(top.min(), 0)
        cells = self._cells(first_row, first_column, top.max() + 2, left.max() + 2)
        total, weights = np.zeros((2, len(TERRAIN_BANDS), len(across)))
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (1 - np.abs(down - top - row)) * (1 - np.abs(across - left - column))
            value = cells[
                :,
                np.clip(top + row - first_row, 0, cells.shape[1] - 1),
                np.clip(left + column - first_column, 0, cells.shape[2] - 1),
            ]
            weights += np.where(np.isfinite(value), weight, 0)
            total += weight * np.nan_to_num(value)
        return np.where(weights >= 0.5, total / np.maximum(weights, 0.5), np.nan)

    def _cells(self, first_row: int, first_column: int, last_row: int, last_column: int) -> Array:
        """Read cells of `step` x `step` pixels, as far as the terrain goes."""
        step, terrain = self._step, self._dataset
        top, left = first_row * step, first_column * step
        height = min(last_row * step, terrain.height) - top
        width = min(last_column * step, terrain.width) - left
        shape = (len(TERRAIN_BANDS), -(-height // step), -(-width // step))
        window = Window(left, top, width, height)
        read = terrain.read(window=window, out_shape=shape, resampling=Resampling.average, masked=True)
        return np.asarray(read.astype(np.float64).filled(np.nan))
