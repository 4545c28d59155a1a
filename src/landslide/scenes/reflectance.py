"""Rows of a scene's bands as reflectance on the scene's grid, and where they have no value."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from landslide.errors import DataError
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import alpha_band, open_raster, reading, tiles_of_rows
from landslide.scenes.reasons import Reason
from landslide.scenes.resampling import any_neighbour, axes, bilinear
from landslide.scenes.row_blocks import RowBlocks
from landslide.scenes.scene import Band, Scene

Array = npt.NDArray[Any]

POSSIBLE = (-0.2, 3.0)
"""Reflectance below or above is no measurement: clouds reach about 2, and the offset of dark ground about -0.1."""
_BLOCK = 64  # rows that are read at a time
_FAR = 2.0**62  # beyond all integers of a raster


class ReflectanceReader:
    """Reads bands of a scene, bilinear where their pixels are larger than the scene's.

    A pixel has a value only if all pixels that it is interpolated from have one. Values outside `POSSIBLE` are none,
    and a pixel whose number is 0 in all bands has no data, whether or not the file declares these fill values.

    Args:
        scene: The scene.
        bands: Names such as B2, in the order of the result.
        stack: Closes the files.

    Attributes:
        tiles: Bytes of the tiles of the files that are read side by side.

    Raises:
        DataError: The scene lacks a band, or a file cannot be opened.
    """

    def __init__(self, scene: Scene, bands: Sequence[str], stack: ExitStack) -> None:
        _refuse_missing(scene, bands)
        datasets: dict[str, DatasetReader] = {}
        for path in {scene.bands[name].path for name in bands}:
            datasets[path] = stack.enter_context(open_raster(path))
        alphas = {path: _alpha_of_scene(scene, path, dataset) for path, dataset in datasets.items()}
        read = [scene.bands[name] for name in bands]
        self._bands = [_BandRows(datasets[band.path], band, alphas[band.path], scene.grid) for band in read]
        self._width = scene.grid.width
        used = {path: [band.index for band in read if band.path == path] for path in datasets}
        self.tiles = sum(tiles_of_rows(dataset, used[path], _BLOCK) for path, dataset in datasets.items())

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Return reflectance (bands, stop - start, width), and the reasons (stop - start, width) for missing values.

        Raises:
            DataError: A file is damaged.
        """
        values = np.empty((len(self._bands), stop - start, self._width), np.float32)
        reasons = np.zeros((stop - start, self._width), np.uint8)
        empty = np.full(reasons.shape, bool(self._bands))
        for top in range(start // _BLOCK * _BLOCK, stop, _BLOCK):  # of all bands, before their tiles leave the cache
            rows = slice(max(top, start) - start, min(top + _BLOCK, stop) - start)
            for band, layer in zip(self._bands, values, strict=True):
                empty[rows] &= band.read(start + rows.start, start + rows.stop, layer[rows], reasons[rows])
        values[:, empty] = np.nan
        np.maximum(reasons, Reason.NO_DATA.value, out=reasons, where=empty)
        return values, reasons


def _refuse_missing(scene: Scene, bands: Sequence[str]) -> None:
    lacking = [name for name in bands if name not in scene.bands]
    if not lacking:
        return
    files = [scene.missing[name] for name in lacking if name in scene.missing]
    if files:
        raise DataError(
            f"{scene.source}: the file of band {lacking[0]} is missing: {files[0]}.",
            remedy="Download the product again; its folder GRANULE has the bands.",
        )
    level = f"a scene of level {scene.level}" if scene.level else "the scene"
    raise DataError(
        f"{scene.source}: {level} has no band {', '.join(lacking)}; it has {', '.join(scene.bands)}.",
        remedy="Add the bands, or use a model that does not need them. No L2A product has B10: "
        "configs/surface_reflectance.yaml trains a model without it.",
    )


def _alpha_of_scene(scene: Scene, path: str, dataset: DatasetReader) -> int | None:
    """Return the alpha band of a file, unless it is a band of the scene: GDAL says so of a fourth band by itself."""
    alpha = alpha_band(dataset)
    return None if any((band.path, band.index) == (path, alpha) for band in scene.bands.values()) else alpha


class _BandRows:
    """Rows of one band on the scene's grid."""

    def __init__(self, dataset: DatasetReader, band: Band, alpha: int | None, grid: Grid) -> None:
        self._dataset = dataset
        self._band = band
        self._alpha = alpha
        own = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        self._axes = None if own.same_pixels(grid) else axes(own.transform, dataset.shape, grid)
        flags = dataset.mask_flag_enums[band.index - 1]
        self._masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        low, high = ((limit - band.offset) / band.scale for limit in POSSIBLE)
        if np.issubdtype(dataset.dtypes[band.index - 1], np.integer):  # numbers need not become floats to be compared
            low, high = math.ceil(max(low, -_FAR)), math.floor(min(high, _FAR))
        self._possible = low, high
        self._numbers = RowBlocks(self._load, dataset.height, _BLOCK)  # a JPEG 2000 file decodes whole tiles for a row

    def read(self, start: int, stop: int, values: Array, reasons: Array) -> Array:
        """Write reflectance to `values`, and raise `reasons` where there is none; return where the number is 0."""
        if self._axes is None:
            numbers, missing = self._native(start, stop)
            empty = numbers == 0
        else:
            first, last, rows = self._axes[0][start:stop].from_start()
            numbers, missing = self._native(first, last + 1)
            empty = ~any_neighbour(numbers != 0, rows, self._axes[1])
            for mask in missing.values():
                numbers[mask] = 0  # infinite ones cannot be interpolated
            numbers = bilinear(numbers, rows, self._axes[1])
            missing = {
                reason: any_neighbour(mask, rows, self._axes[1]) for reason, mask in missing.items() if mask.any()
            }
        values[:] = numbers * np.float64(self._band.scale) + self._band.offset
        for reason, mask in missing.items():
            values[mask] = np.nan
            np.maximum(reasons, reason.value, out=reasons, where=mask)
        return np.asarray(empty)

    def _native(self, start: int, stop: int) -> tuple[Array, dict[Reason, Array]]:
        """Return rows of the file, and where they have no reflectance, by reason."""
        numbers = self._numbers.read(start, stop)
        low, high = self._possible
        absent = ~np.isfinite(numbers) if numbers.dtype.kind == "f" else np.zeros(numbers.shape, bool)
        missing = {Reason.IMPOSSIBLE_VALUE: (numbers < low) | (numbers > high), Reason.NO_DATA: absent}
        if self._band.nodata is not None:
            absent |= numbers == self._band.nodata
        if self._band.saturated is not None:
            missing[Reason.DEFECTIVE] = numbers == self._band.saturated
        for reason in (Reason.NO_DATA, Reason.DEFECTIVE):  # they say more
            if reason in missing:
                missing[Reason.IMPOSSIBLE_VALUE] &= ~missing[reason]
        return numbers, missing

    def _load(self, start: int, stop: int) -> Array:
        window = Window(0, start, self._dataset.width, stop - start)
        with reading(self._band.path):
            numbers: Array = self._dataset.read(self._band.index, window=window)
            transparent = np.zeros(numbers.shape, bool)
            if self._masked:
                transparent |= self._dataset.read_masks(self._band.index, window=window) == 0
            if self._alpha is not None:
                transparent |= self._dataset.read(self._alpha, window=window) == 0
        if transparent.any():
            numbers = numbers.astype(np.result_type(numbers, np.float32))
            numbers[transparent] = np.nan
        return numbers
