"""Rows of a scene: the values of bands and terrain, and why pixels are left out."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from landslide.errors import ConfigurationError
from landslide.scenes.exclusions import Exclusions, ExclusionSettings
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import (
    cache_for_rows,
    gdal_environment,
    interpolation_only,
    open_raster,
    reading,
    tiles_of_rows,
    warped,
)
from landslide.scenes.reasons import Reason
from landslide.scenes.reflectance import ReflectanceReader
from landslide.scenes.resampling import axes, bilinear
from landslide.scenes.row_blocks import RowBlocks
from landslide.scenes.scene import Scene
from landslide.scenes.terrain import BANDS as TERRAIN_BANDS
from landslide.scenes.terrain import Terrain

Array = npt.NDArray[Any]

_BRIGHTEST = 4  # times the median, in the preview
_TERRAIN = {"slope": "slope", "dem": "elevation"}  # name of the model's band: band of terrain.tif


class SceneReader:
    """Reads rows of a scene; a context manager.

    The same rows always have the same bits, however they are read. Memory does not grow with the height of the scene.
    One thread at a time may read, and one reader of a process: the size of GDAL's cache is the process's.

    Args:
        scene: The scene.
        bands: Names of `landslide.schema.ORIGINAL_BANDS`, in the order of the result.
        exclusions: What is left out.
        terrain: Elevation and slope, if `bands` has `dem` or `slope`.
        work_folder: Where a computed cloud mask is kept and found again; a temporary folder by default.

    Raises:
        DataError: The scene lacks a band, or a file cannot be read. Raised on entering the context.
        ConfigurationError: A band of the terrain is needed and there is no terrain, or a setting is wrong.
    """

    def __init__(
        self,
        scene: Scene,
        bands: Sequence[str],
        exclusions: ExclusionSettings | None = None,
        terrain: Terrain | None = None,
        *,
        work_folder: Path | None = None,
    ) -> None:
        self._scene = scene
        self._bands = tuple(bands)
        self._settings = exclusions or ExclusionSettings()
        self._terrain = terrain
        self._work_folder = work_folder
        self._stack = ExitStack()

    def __enter__(self) -> "SceneReader":
        with ExitStack() as stack:
            stack.enter_context(gdal_environment(remote=self._scene.remote))
            spectral = [name for name in self._bands if name not in _TERRAIN]
            self._reflectance = ReflectanceReader(self._scene, spectral, stack)
            self._elevation, tiles = self._open_terrain(stack)
            stack.enter_context(cache_for_rows(self._reflectance.tiles + tiles))
            self._exclusions = Exclusions(self._scene, spectral, self._settings, stack, self._work_folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def notes(self) -> list[str]:
        """What looks wrong about the masks."""
        return self._exclusions.notes

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """Read rows `start` to `stop`.

        Returns:
            The values (bands, stop - start, width), float32: reflectance 0-1, slope in degrees, elevation in metres,
            NaN where a band has none; and codes of `Reason` (stop - start, width), uint8.

        Raises:
            DataError: A file is damaged.
        """
        reflectance, reasons = self._reflectance.read(start, stop)
        if self._elevation is None:
            values = reflectance
        else:
            terrain = iter(self._elevation.read(start, stop))
            spectral = iter(reflectance)
            values = np.stack([next(terrain if name in _TERRAIN else spectral) for name in self._bands])
            unknown = np.isnan([values[i] for i, name in enumerate(self._bands) if name in _TERRAIN]).any(axis=0)
            np.maximum(reasons, Reason.NO_DATA.value, out=reasons, where=unknown)
        np.maximum(reasons, self._exclusions.read(start, stop), out=reasons)
        return values, reasons

    def _open_terrain(self, stack: ExitStack) -> tuple[RowBlocks | None, int]:
        """Return the rows of the terrain, if bands need it, and the bytes of the tiles that some of them touch."""
        names = [name for name in self._bands if name in _TERRAIN]
        if not names:
            return None, 0
        if self._terrain is None:
            raise ConfigurationError(
                f"The model needs the elevation of the ground ({', '.join(names)}), and there is no elevation model.",
                remedy="Give an elevation model with --dem, for example tiles of the Copernicus DEM GLO-30.",
            )
        dataset = stack.enter_context(open_raster(str(self._terrain.path)))
        indexes = [TERRAIN_BANDS.index(_TERRAIN[name]) + 1 for name in names]
        tiles = 2 * tiles_of_rows(dataset, indexes, 1)  # its rows are others than those of the scene
        return RowBlocks(_terrain_rows(dataset, indexes, self._scene.grid, stack), self._scene.grid.height), tiles


def _terrain_rows(
    dataset: DatasetReader, indexes: list[int], grid: Grid, stack: ExitStack
) -> Callable[[int, int], Array]:
    """Return a function that reads rows of terrain on the scene's grid, bilinear; means if its pixels are far finer."""
    scale = dataset.transform.a / grid.pixel_size[0]
    if dataset.crs == grid.crs and scale >= 0.5:
        rows, columns = axes(dataset.transform, dataset.shape, grid)

        def interpolate(start: int, stop: int) -> Array:
            first, last, part = rows[start:stop].from_start()
            with reading(dataset.name):
                values = dataset.read(indexes, window=Window(0, first, dataset.width, last + 1 - first))
            return np.stack([bilinear(layer, part, columns) for layer in values])

        return interpolate
    on_grid = stack.enter_context(warped(dataset, grid, Resampling.bilinear, **interpolation_only(scale)))

    def warp(start: int, stop: int) -> Array:
        with reading(dataset.name):
            values: Array = on_grid.read(indexes, window=Window(0, start, grid.width, stop - start))
        return values

    return warp


def scene_preview(scene: Scene, max_side: int = 1600, *, reasons: Path | None = None) -> npt.NDArray[np.uint8]:
    """Return the scene in true colour, or in gray if it lacks B2, B3 or B4.

    Args:
        scene: The scene.
        max_side: Longest side of the picture in pixels.
        reasons: reasons.tif of the scene: the percentiles are then those of what was analysed, if anything was.

    Returns:
        uint8 (h, w, 3), each band stretched from its 2nd to its 98th percentile, but at most to four times its median,
        so that clouds do not darken the rest; (0, 0, 0) where there is no data.

    Raises:
        DataError: A file is damaged.
    """
    colours = ["B4", "B3", "B2"]
    names = colours if set(colours) <= set(scene.bands) else [next(iter(scene.bands))] * 3
    factor = max(1.0, max(scene.grid.height, scene.grid.width) / max_side)
    shape = max(1, round(scene.grid.height / factor)), max(1, round(scene.grid.width / factor))
    picture = np.zeros((*shape, 3), np.uint8)
    valid, analysed = np.ones(shape, bool), np.ones(shape, bool)
    if reasons is not None:
        with open_raster(str(reasons)) as dataset, reading(str(reasons)):
            analysed = dataset.read(1, out_shape=shape, resampling=Resampling.nearest) == Reason.ANALYSED
    with gdal_environment(remote=scene.remote):
        for channel, name in enumerate(names):
            band = scene.bands[name]
            with open_raster(band.path) as dataset, reading(band.path):
                numbers = dataset.read(band.index, out_shape=shape, resampling=Resampling.average).astype(np.float32)
            known = np.isfinite(numbers) & (numbers != band.nodata if band.nodata is not None else True)
            valid &= known
            if known.any():
                used = known & analysed if (known & analysed).any() else known
                picture[..., channel] = _stretched(numbers * band.scale + band.offset, used)
    picture[~valid] = 0
    return picture


def _stretched(reflectance: Array, used: Array) -> Array:
    low, median, high = np.percentile(reflectance[used], (2, 50, 98))
    high = max(min(high, _BRIGHTEST * median), low + 0.01)
    share = (np.where(np.isfinite(reflectance), reflectance, low) - low) / (high - low)
    return np.asarray(1 + np.rint(254 * np.clip(share, 0, 1)))
