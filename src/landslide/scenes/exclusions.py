"""Pixels that are left out: clouds, shadows, snow, defects, masks of the user's own, and what is outside the area.

What reads polygons is imported when there are some, or a mask: geopandas takes a second and 100 MB.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from landslide.errors import ConfigurationError, DataError
from landslide.scenes.cloud_mask import write_cloud_mask
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import open_raster, reading, refuse_several_bands, refuse_without_place, warped
from landslide.scenes.reasons import Reason
from landslide.scenes.row_blocks import RowBlocks
from landslide.scenes.scene import Scene

_GROWN = (Reason.SNOW, Reason.CLOUD_SHADOW, Reason.CLOUD)
_LARGEST_MARGIN = 2_000.0  # metres: rows above and below a window are read as far

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.uint8]
Clouds = Literal["auto", "none", "csmask"]

_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png")
_BLOCK = 1024  # rows computed at a time: the tiles of a product's JPEG 2000 files, which are decoded as a whole

# Classes of Sen2Cor's scene classification.
_SCENE_CLASSES = {0: Reason.NO_DATA, 1: Reason.DEFECTIVE}
_SCENE_CLOUDS = {3: Reason.CLOUD_SHADOW, 8: Reason.CLOUD, 9: Reason.CLOUD, 10: Reason.CLOUD}
_SCENE_SNOW = {11: Reason.SNOW}

# Layers of MSK_QUALIT, in the order of the product: lost packets of the instrument, defective pixels, saturated
# pixels (3, 5, 8) and pixels without data (6). Degraded or partially corrected ones stay.
_DEFECTS = {3: Reason.DEFECTIVE, 5: Reason.DEFECTIVE, 8: Reason.DEFECTIVE, 6: Reason.NO_DATA}

# The same in the polygons of older products.
_DEFECT_TYPES = {
    "MSI_LOST": Reason.DEFECTIVE,
    "QT_DEFECTIVE_PIXELS": Reason.DEFECTIVE,
    "QT_SATURATED_PIXELS_L1A": Reason.DEFECTIVE,
    "QT_NODATA_PIXELS": Reason.NO_DATA,
}


@dataclass(frozen=True, kw_only=True)
class ExclusionSettings:
    """What is left out."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    clouds: Clouds = "auto"
    """`auto`: what the product says of clouds, if it does; `none`: nothing; `csmask`: found by the package
    ukis-csmask."""
    snow: bool = False
    """Leave out snow and ice, too."""
    margin: float = 60.0
    """Metres by which clouds, their shadows and snow are grown: the largest bands have pixels of 60 m, which hold some
    cloud beside it."""
    masks: tuple[str | Path, ...] = ()
    """Rasters, where other values than 0 are left out, and vector files, whose polygons are left out."""
    area: str | Path | None = None
    """Area of interest: a vector file, or `west,south,east,north` in longitude and latitude."""
    area_where: str | None = None
    """Only these polygons of the file: a condition on attributes as in SQL, such as `labelled = 1`."""


def cloud_source(scene: Scene, settings: ExclusionSettings) -> str | None:
    """Return in words what says where clouds are; None if nothing does."""
    if settings.clouds == "csmask":
        return "ukis-csmask"
    if settings.clouds == "none":
        return None
    classification = scene.classification
    if classification.scene is not None:
        return "scene classification (SCL)"
    if classification.clouds is not None:
        return "classification mask (MSK_CLASSI)"
    return "cloud polygons (MSK_CLOUDS)" if classification.cloud_vectors is not None else None


class Exclusions:
    """Reads for rows of a scene why its pixels are left out.

    Args:
        scene: The scene.
        bands: Bands whose defects count.
        settings: What is left out.
        stack: Closes the files.
        work_folder: Where the cloud mask of ukis-csmask is kept and found again; a temporary folder by default.

    Attributes:
        notes: What looks wrong: masks that lie beside the scene.

    Raises:
        DataError: A mask or an area cannot be read or does not fit.
        ConfigurationError: A setting is wrong, or a package is missing.
    """

    def __init__(
        self,
        scene: Scene,
        bands: Sequence[str],
        settings: ExclusionSettings,
        stack: ExitStack,
        work_folder: Path | None = None,
    ) -> None:
        if not 0 <= settings.margin <= _LARGEST_MARGIN:
            raise ConfigurationError(
                f"The margin around clouds is {settings.margin:g} m.",
                remedy=f"Give a number from 0 to {_LARGEST_MARGIN:g}.",
            )
        self._grid = scene.grid
        self._reach = [math.ceil(round(settings.margin / size, 3)) for size in scene.grid.pixel_size]
        self._stack = stack
        self._layers: list[Callable[[int, int], Codes]] = []
        self.notes: list[str] = []
        self._codes = RowBlocks(self._compute, scene.grid.height, _BLOCK)
        self._add_classification(scene, settings)
        for band, path in scene.classification.quality.items():
            if band in bands:
                self._add_raster(path, _DEFECTS, _codes_of_layers)
        for band, paths in scene.classification.quality_vectors.items():
            if band in bands:
                self._add_defects(paths)
        if settings.clouds == "csmask":
            folder = work_folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            cloud_mask = folder / "clouds.tif"
            if not cloud_mask.exists():
                write_cloud_mask(scene, cloud_mask)
            self._add_raster(str(cloud_mask), {int(reason): reason for reason in Reason}, _codes_of_classes)
        for mask in settings.masks:
            self._add_mask(str(mask))
        if settings.area is not None:
            self._add_area(settings)
        elif settings.area_where is not None:
            raise ConfigurationError(
                f"There is a condition on the area, {settings.area_where}, and no area.",
                remedy="Give the area as a vector file, or leave the condition out.",
            )

    def read(self, start: int, stop: int) -> Codes:
        """Return the codes of `Reason` of rows `start` to `stop`, uint8 (stop - start, width)."""
        across, down = self._reach
        first = max(0, start - down)
        codes = self._codes.read(first, min(self._grid.height, stop + down))
        around = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * across + 1, 2 * down + 1))
        grown = [reason.value * cv2.dilate((codes == reason).astype(np.uint8), around) for reason in _GROWN]
        return np.asarray(np.maximum.reduce([codes, *grown])[start - first : stop - first])

    def _compute(self, start: int, stop: int) -> Codes:
        codes = np.zeros((stop - start, self._grid.width), np.uint8)
        for layer in self._layers:
            np.maximum(codes, layer(start, stop), out=codes)
        return codes

    def _add_classification(self, scene: Scene, settings: ExclusionSettings) -> None:
        classification, clouds = scene.classification, settings.clouds == "auto"
        if classification.scene is not None:
            reasons = _SCENE_CLASSES | (_SCENE_CLOUDS if clouds else {}) | (_SCENE_SNOW if settings.snow else {})
            image = classification.scene
            self._add_raster(image.path, reasons, _codes_of_classes, image.index)
        elif classification.clouds is not None:
            layers = {1: Reason.CLOUD, 2: Reason.CLOUD} if clouds else {}
            if settings.snow:
                layers[3] = Reason.SNOW
            if layers:
                self._add_raster(classification.clouds, layers, _codes_of_layers)
        elif classification.cloud_vectors is not None and clouds:
            from landslide.scenes.exclusion_polygons import read_mask_polygons

            polygons = read_mask_polygons(classification.cloud_vectors, self._grid)
            self._add_polygons([polygon for _, polygon in polygons], Reason.CLOUD)
        has_snow = classification.scene is not None or classification.clouds is not None
        if settings.snow and not has_snow:
            raise ConfigurationError(
                f"{scene.source}: nothing says where snow is, so it cannot be left out.",
                remedy="Leave --snow out, or give a mask of the snow with --mask.",
            )

    def _add_defects(self, paths: Sequence[str]) -> None:
        from landslide.scenes.exclusion_polygons import read_mask_polygons

        polygons = [one for path in paths for one in read_mask_polygons(path, self._grid)]
        for reason in sorted({*_DEFECT_TYPES.values()}):
            types = {kind for kind, its_reason in _DEFECT_TYPES.items() if its_reason == reason}
            if found := [polygon for kind, polygon in polygons if types.intersection(kind.split())]:
                self._add_polygons(found, reason)

    def _add_mask(self, path: str) -> None:
        from landslide.scenes.exclusion_polygons import read_polygons, touches_grid

        if path.lower().endswith(_RASTERS):
            dataset = self._add_raster(path, {1: Reason.MASKED}, _codes_of_layers)
            refuse_several_bands(dataset, "Give a mask of one band, in which other values than 0 are left out.")
            touches = touches_grid(Grid(dataset.crs, dataset.transform, dataset.width, dataset.height), self._grid)
        else:
            polygons = read_polygons(path, self._grid)
            self._add_polygons(polygons, Reason.MASKED)
            touches = bool(polygons)
        if not touches:
            self.notes.append(f"the mask {path} lies outside the scene, so it leaves nothing out")

    def _add_area(self, settings: ExclusionSettings) -> None:
        from landslide.scenes.exclusion_polygons import area_polygons

        area, polygons = settings.area, area_polygons(settings, self._grid)
        if not polygons:
            _, (west, south, east, north) = self._grid.geojson_outline
            raise DataError(
                f"The area {area} lies outside the scene, which covers longitude {west:.4f} to {east:.4f}, latitude "
                f"{south:.4f} to {north:.4f}.",
                remedy="Give an area that overlaps the scene.",
            )
        self._add_polygons(polygons, Reason.OUTSIDE_AREA, outside=True)
        height, layer = self._grid.height, self._layers[-1]
        if all(layer(start, min(start + _BLOCK, height)).all() for start in range(0, height, _BLOCK)):
            raise DataError(
                f"The area {area} covers the centre of no pixel of the scene.",
                remedy="Give an area that is larger than a pixel and overlaps the scene.",
            )

    def _add_raster(
        self,
        path: str,
        reasons: dict[int, Reason],
        to_codes: Callable[[Array, dict[int, Reason]], Codes],
        index: int | None = None,
    ) -> DatasetReader:
        """Add a raster, taken to the grid by the nearest pixel; `reasons` are per class or per layer."""
        dataset = self._stack.enter_context(open_raster(path))
        refuse_without_place(dataset)
        by_class = to_codes is _codes_of_classes
        indexes = [index or 1] if by_class else sorted(reasons)
        if max(indexes) > dataset.count:
            raise DataError(f"{path} has {dataset.count} bands; expected {max(indexes)}.", remedy="Download it again.")
        on_grid = self._stack.enter_context(warped(dataset, self._grid, Resampling.nearest))

        def compute(start: int, stop: int) -> Codes:
            with reading(path):
                window = Window(0, start, self._grid.width, stop - start)
                values = on_grid.read(indexes, window=window, masked=True).filled(0)
            return to_codes(values, reasons)

        self._layers.append(compute)
        return dataset

    def _add_polygons(self, polygons: Sequence[BaseGeometry], reason: Reason, *, outside: bool = False) -> None:
        """Leave out the pixels whose centres are in polygons, or the others if `outside`."""
        inner, outer = (Reason.ANALYSED, reason) if outside else (reason, Reason.ANALYSED)
        tree = shapely.STRtree(polygons)

        def compute(start: int, stop: int) -> Codes:
            rows = self._grid.rows(start, stop)
            here = [polygons[i] for i in tree.query(shapely.box(*rows.bounds))]
            shape = rows.height, rows.width
            if not here:
                return np.full(shape, outer.value, np.uint8)
            burnt: Codes = rasterize(
                here, shape, transform=rows.transform, fill=outer.value, default_value=inner.value, dtype=np.uint8
            )
            return burnt

        self._layers.append(compute)


def _codes_of_classes(values: Array, reasons: dict[int, Reason]) -> Codes:
    """Codes of one layer whose values are classes."""
    table = np.zeros(256, np.uint8)
    for value, reason in reasons.items():
        table[value] = reason.value
    codes: Codes = table[np.clip(np.nan_to_num(values[0]), 0, 255).astype(np.uint8)]
    return codes


def _codes_of_layers(values: Array, reasons: dict[int, Reason]) -> Codes:
    """Codes of layers in which other values than 0 count, in the order of their numbers."""
    codes = np.zeros(values.shape[1:], np.uint8)
    for layer, (_, reason) in zip(values, sorted(reasons.items()), strict=True):
        np.maximum(codes, reason.value, out=codes, where=(layer != 0) & ~np.isnan(layer))
    return codes
