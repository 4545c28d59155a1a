"""Elevation, slope and gradient under a scene, on the elevation model's own grid in metres.

Slope and gradient are Horn's (1981, Proceedings of the IEEE 69(1):14-47), as `gdaldem slope` computes them. They are
computed before anything is resampled to the scene, because a slope depends on the distance over which it is measured.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from shapely.geometry import Polygon
from shapely.ops import nearest_points

from landslide.errors import DataError
from landslide.files import atomic_write
from landslide.scenes.grid import WGS84, Grid
from landslide.scenes.rasters import (
    gdal_environment,
    gdal_path,
    interpolation_only,
    open_raster,
    reading,
    refuse_without_place,
    warped,
    writing,
)

Floats = npt.NDArray[np.float32]

BANDS = ("elevation", "slope", "gradient_east", "gradient_north")
"""Bands of `terrain.tif`: metres, degrees, rise per metre to the east and to the north."""

POSSIBLE = (-500.0, 9000.0)
"""Metres between which the ground lies: the Dead Sea is at -430, Mount Everest at 8849."""

_MARGIN = 4  # pixels around the scene
_ROWS = 128  # computed at a time, and the height of the blocks, so that none is written twice
_SAMPLES = 1000  # along each side of the scene, to measure the coverage
_METRES = ("", "m", "metre", "metres", "meter", "meters")


@dataclass(frozen=True)
class Terrain:
    """Terrain under a scene.

    Attributes:
        path: GeoTIFF, float32, with the bands `BANDS`; NaN where there is no elevation.
        coverage: Share of the scene that has an elevation, 0 to 1.
        impossible: Share of the scene where an elevation model has a height that is none, see `POSSIBLE`.
    """

    path: Path
    coverage: float
    impossible: float


def prepare_terrain(paths: Sequence[str | Path], grid: Grid, folder: Path) -> Terrain:
    """Compute elevation, slope and gradient under a scene, and write `terrain.tif`.

    The rasters are mosaicked; where several have an elevation, the first one counts. If the finest of them is in
    metres, its grid is kept. Otherwise they are warped, bilinear, to the scene's reference system or, if that is not
    in metres either, to its UTM zone. Heights outside `POSSIBLE` are none: most often they are fill values that the
    file does not declare. Memory does not grow with the size of the scene.

    Args:
        paths: Elevation models, heights in metres, in any reference system; files or addresses.
        grid: Grid of the scene.
        folder: Where `terrain.tif` is written.

    Raises:
        DataError: An elevation model cannot be read, has no reference system or other units, or none covers the scene.
        OSError: The disk is full.
    """
    with _opened(paths) as models, ExitStack() as stack:
        target = _target(models, grid)
        options = {"nodata": math.nan, **interpolation_only(1)}
        mosaics = [
            stack.enter_context(warped(mosaic, target, Resampling.bilinear, **options))
            for mosaic in _mosaics(models, grid.footprint.centroid.x, stack)
        ]
        path = folder / "terrain.tif"
        path.unlink(missing_ok=True)  # there may be no space for two
        with atomic_write(path) as temporary, writing(temporary):
            _write(temporary, mosaics, target)
        coverage = _coverage(path, grid)
        if coverage == 0:
            raise _no_coverage(models, grid)
        impossible = _impossible(models, grid)
    return Terrain(path, coverage, impossible)


def terrain_size(paths: Sequence[str | Path], grid: Grid) -> int:
    """Return the bytes that `terrain.tif` may take.

    Args:
        paths: Elevation models, as in `prepare_terrain`.
        grid: Grid of the scene.

    Raises:
        DataError: An elevation model cannot be read, or has no reference system or other units.
    """
    with _opened(paths) as models:
        target = _target(models, grid)
    return target.width * target.height * len(BANDS) * np.dtype(np.float32).itemsize


@contextmanager
def _opened(paths: Sequence[str | Path]) -> Iterator[list[DatasetReader]]:
    """Yield the elevation models, open and checked."""
    sources = [gdal_path(str(path)) for path in paths]
    with gdal_environment(remote=any(source.startswith("/vsi") for source in sources)), ExitStack() as stack:
        models = [stack.enter_context(open_raster(source)) for source in sources]
        for model in models:
            _check(model)
        yield models


def horn(elevation: Floats, width: float, height: float) -> tuple[Floats, Floats, Floats]:
    """Return slope and gradient of the inner pixels of a raster, by Horn's method.

    A neighbour without elevation is extrapolated from the opposite one through the centre; if that is missing, too, a
    diagonal one continues the plane of its two neighbours.

    Args:
        elevation: Metres, (h + 2, w + 2), float32, NaN if unknown.
        width: Width of a pixel in metres.
        height: Height of a pixel.

    Returns:
        Slope in degrees, rise per metre to the east, and to the north, each float32 (h, w); NaN where the centre is.
    """
    z = elevation.astype(np.float64)
    rows, columns = z.shape[0] - 2, z.shape[1] - 2
    centre = z[1:-1, 1:-1]

    def neighbour(row: int, column: int, otherwise: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        one = z[1 + row : 1 + row + rows, 1 + column : 1 + column + columns]
        other = z[1 - row : 1 - row + rows, 1 - column : 1 - column + columns]
        return np.where(np.isnan(one), np.where(np.isnan(other), otherwise, 2 * centre - other), one)

    north, south = neighbour(-1, 0, centre), neighbour(1, 0, centre)
    west, east = neighbour(0, -1, centre), neighbour(0, 1, centre)
    north_west, north_east = neighbour(-1, -1, north + west - centre), neighbour(-1, 1, north + east - centre)
    south_west, south_east = neighbour(1, -1, south + west - centre), neighbour(1, 1, south + east - centre)
    to_east = (north_east + 2 * east + south_east - north_west - 2 * west - south_west) / (8 * width)
    to_north = (north_west + 2 * north + north_east - south_west - 2 * south - south_east) / (8 * height)
    to_east[np.isnan(centre)] = to_north[np.isnan(centre)] = np.nan
    slope = np.degrees(np.arctan(np.hypot(to_east, to_north)))
    return slope.astype(np.float32), to_east.astype(np.float32), to_north.astype(np.float32)


def _check(model: DatasetReader) -> None:
    refuse_without_place(model)
    if model.count != 1:
        raise DataError(
            f"{model.name} has {model.count} bands; an elevation model has one.",
            remedy="Give a raster of elevations in metres.",
        )
    if not min(_grid(model).pixel_size) > 0:
        raise DataError(
            f"{model.name}: its pixels have no width or no height on the ground.",
            remedy="Give a raster of elevations of this place.",
        )
    scale, offset = model.scales[0], model.offsets[0]
    if scale == 0 or not (math.isfinite(scale) and math.isfinite(offset)):
        raise DataError(
            f"{model.name}: its tags say scale {scale:g} and offset {offset:g}, which cannot be.",
            remedy="Correct them: gdal_edit.py -scale 1 -offset 0 FILE if its numbers are metres.",
        )
    unit = (model.units[0] or "").strip()
    if unit.lower() not in _METRES:
        raise DataError(
            f"{model.name}: its elevations are in {unit}, not in metres.",
            remedy="Convert them, for example with rio calc '(* 0.3048 (read 1))' for feet.",
        )


def _grid(model: DatasetReader) -> Grid:
    return Grid(model.crs, model.transform, model.width, model.height)


def _in_metres(grid: Grid) -> bool:
    """Whether coordinates are in metres on the ground; those of Web Mercator, for example, are not."""
    if not grid.crs.is_projected or grid.crs.linear_units_factor[1] != 1 or grid.transform.b or grid.transform.d:
        return False
    size = grid.pixel_size
    return math.isclose(size[0], grid.transform.a, rel_tol=0.01) and math.isclose(
        size[1], -grid.transform.e, rel_tol=0.01
    )


def _target(models: Sequence[DatasetReader], scene: Grid) -> Grid:
    """Return the grid in metres, under the scene and a margin around it."""
    finest = min((_grid(model) for model in models), key=lambda grid: math.prod(grid.pixel_size))
    if _in_metres(finest):
        crs, (width, height), (left, top) = (
            finest.crs,
            (finest.transform.a, -finest.transform.e),
            finest.transform @ (0, 0),
        )
    else:
        crs = scene.crs if _in_metres(scene) else _utm(scene)
        width = height = math.sqrt(math.prod(finest.pixel_size))
        left, top = 0.0, 0.0
    west, south, east, north = transform_bounds(scene.crs, crs, *scene.bounds)
    first_column, last_column = math.floor((west - left) / width), math.ceil((east - left) / width)
    first_row, last_row = math.floor((top - north) / height), math.ceil((top - south) / height)
    transform = Affine(
        width, 0, left + (first_column - _MARGIN) * width, 0, -height, top - (first_row - _MARGIN) * height
    )
    return Grid(crs, transform, last_column - first_column + 2 * _MARGIN, last_row - first_row + 2 * _MARGIN)


def _utm(scene: Grid) -> CRS:
    centre = scene.footprint.centroid
    zone = min(max(math.floor((centre.x + 180) / 6) + 1, 1), 60)
    return CRS.from_epsg((32600 if centre.y >= 0 else 32700) + zone)


def _mosaics(models: Sequence[DatasetReader], longitude: float, stack: ExitStack) -> list[DatasetReader]:
    """Join the rasters of one reference system and pixel size, so that nothing is missing at their seams.

    Args:
        models: The rasters.
        longitude: Degrees; where rasters in degrees are joined, so that those on both sides of the 180th meridian are
            neighbours, and one around the globe is its own. A joined raster that goes beyond the meridian is
            returned twice, a whole turn apart, because each is read only between -180 and 180 degrees.
        stack: Closes the joined rasters.
    """
    groups: dict[tuple[str, float, float], list[DatasetReader]] = {}
    for model in models:
        sizes = (round(model.transform.a, 12), round(model.transform.e, 12))
        groups.setdefault((model.crs.to_wkt(), *sizes), []).append(model)
    mosaics = []
    for group in groups.values():
        transforms = [_near(model, longitude) for model in group]
        for model, transform in list(zip(group, transforms, strict=True)):
            if model.crs.is_geographic and model.width > 360 / abs(transform.a) - 1:  # its own neighbour
                group += [model, model]
                transforms += [_turned(transform, -1), _turned(transform, 1)]
        mosaics.append(_mosaic(group, transforms))
        ends = [_ends(model, transform) for model, transform in zip(group, transforms, strict=True)]
        west, east = min(west for west, _ in ends), max(east for _, east in ends)
        if group[0].crs.is_geographic and (west < -180 or east > 180):
            mosaics.append(_mosaic(group, [_turned(one, -1 if east > 180 else 1) for one in transforms]))
    return [stack.enter_context(rasterio.open(mosaic)) for mosaic in mosaics]


def _near(model: DatasetReader, longitude: float) -> Affine:
    """Return the transform of a raster; one in degrees is moved by the whole turns that bring it to a longitude."""
    transform: Affine = model.transform
    if not model.crs.is_geographic:
        return transform
    return _turned(transform, round((longitude - sum(_ends(model, transform)) / 2) / 360))


def _ends(model: DatasetReader, transform: Affine) -> tuple[float, float]:
    """Return where a raster ends in the west and in the east, along its first row."""
    west, east = sorted((transform @ (column, 0))[0] for column in (0, model.width))
    return west, east


def _turned(transform: Affine, turns: int) -> Affine:
    """Return the transform of a raster in degrees, moved to the east by whole turns."""
    moved: Affine = Affine.translation(360 * turns, 0) @ transform
    return moved


def _mosaic(models: Sequence[DatasetReader], transforms: Sequence[Affine]) -> str:
    """Return a virtual raster (XML of GDAL) of rasters with one reference system and pixel size."""
    first = transforms[0]
    corners = [(~first @ one) @ (0, 0) for one in transforms]  # in pixels of the first one
    left, top = (min(values) for values in zip(*corners, strict=True))
    sizes = [(x - left + model.width, y - top + model.height) for (x, y), model in zip(corners, models, strict=True)]
    width, height = (math.ceil(round(max(values), 6)) for values in zip(*sizes, strict=True))
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ElementTree.SubElement(root, "SRS").text = models[0].crs.to_wkt()
    transform = first @ Affine.translation(left, top)
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, transform.to_gdal()))
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Float32", band="1")
    ElementTree.SubElement(band, "NoDataValue").text = "nan"
    for (x, y), model in reversed(list(zip(corners, models, strict=True))):  # the last one covers the others
        _add_source(band, _heights(model), model, x - left, y - top, NODATA="nan")
    return ElementTree.tostring(root, encoding="unicode")


def _heights(model: DatasetReader) -> str:
    """Return a virtual raster of one elevation model in metres, NaN where it has none or an impossible one."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(model.width), rasterYSize=str(model.height))
    band = ElementTree.SubElement(root, "VRTRasterBand", dataType="Float32", band="1")
    ElementTree.SubElement(band, "NoDataValue").text = "nan"
    low, high = POSSIBLE
    options = {"UseMaskBand": "true", "LUT": f"{low - 1}:nan,{low}:{low},{high}:{high},{high + 1}:nan"}
    if (model.scales[0], model.offsets[0]) != (1.0, 0.0):
        options |= {"ScaleOffset": repr(model.offsets[0]), "ScaleRatio": repr(model.scales[0])}
    _add_source(band, model.name, model, 0, 0, **options)
    return ElementTree.tostring(root, encoding="unicode")


def _add_source(band: ElementTree.Element, name: str, model: DatasetReader, x: float, y: float, **options: str) -> None:
    """Put a raster of the size of `model` at a place in a band of a virtual raster."""
    source = ElementTree.SubElement(band, "ComplexSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = name
    ElementTree.SubElement(source, "SourceBand").text = "1"
    size = {"xSize": str(model.width), "ySize": str(model.height)}
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0"} | size)
    ElementTree.SubElement(source, "DstRect", {"xOff": repr(x), "yOff": repr(y)} | size)
    for key, value in options.items():
        ElementTree.SubElement(source, key).text = value


def _write(path: Path, mosaics: Sequence[WarpedVRT], target: Grid) -> None:
    profile: dict[str, Any] = {
        "driver": "GTiff", "dtype": "float32", "count": len(BANDS), "nodata": math.nan, "crs": target.crs,
        "transform": target.transform, "width": target.width, "height": target.height, "tiled": True,
        "blockxsize": 256, "blockysize": _ROWS, "compress": "deflate", "zlevel": 1, "predictor": 3,
        "bigtiff": "IF_SAFER",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.descriptions = BANDS
        dataset.units = ("m", "degree", "m/m", "m/m")
        for start in range(0, target.height, _ROWS):
            stop = min(start + _ROWS, target.height)
            elevation = _elevation(mosaics, start, stop, target)
            layers = elevation[1:-1, 1:-1], *horn(elevation, target.transform.a, -target.transform.e)
            dataset.write(np.stack(layers), window=Window(0, start, target.width, stop - start))


def _elevation(mosaics: Sequence[WarpedVRT], start: int, stop: int, target: Grid) -> Floats:
    """Return rows start - 1 to stop + 1 and one more column at each side, NaN beyond the target."""
    padded = np.full((stop - start + 2, target.width + 2), np.nan, np.float32)
    first, last = max(start - 1, 0), min(stop + 1, target.height)
    inside = padded[first - start + 1 : last - start + 1, 1:-1]
    for mosaic in mosaics:
        with reading(mosaic.name):
            values = mosaic.read(1, window=Window(0, first, target.width, last - first))
        np.copyto(inside, values, where=np.isnan(inside) & np.isfinite(values))
    return padded


def _coverage(path: Path, grid: Grid) -> float:
    """Share of the scene with an elevation, measured at up to a million points."""
    with open_raster(str(path)) as dataset:
        return float(np.isfinite(_samples(dataset, grid).filled(math.nan)).mean())


def _impossible(models: Sequence[DatasetReader], grid: Grid) -> float:
    """Likewise the largest share of the scene in which one of the models has an impossible height."""
    low, high = POSSIBLE
    heights = (_samples(model, grid) * model.scales[0] + model.offsets[0] for model in models)
    return max(float(((values < low) | (values > high)).filled(False).mean()) for values in heights)


def _samples(dataset: DatasetReader, grid: Grid) -> Any:
    """Return the values of a raster at up to a million points of the scene, masked where there are none."""
    width, height = min(grid.width, _SAMPLES), min(grid.height, _SAMPLES)
    transform = grid.transform @ Affine.scale(grid.width / width, grid.height / height)
    target = Grid(grid.crs, transform, width, height)
    options = {"src_transform": _near(dataset, grid.footprint.centroid.x)}
    with warped(dataset, target, Resampling.nearest, **options) as sampled, reading(dataset.name):
        return sampled.read(1, masked=True, out_dtype=np.float64)


def _no_coverage(models: Sequence[DatasetReader], grid: Grid) -> DataError:
    """Say how far the nearest elevation model is from the scene."""
    footprints = [_grid(model).footprint for model in models]
    distance, name = min((_kilometres(f, grid.footprint), m.name) for f, m in zip(footprints, models, strict=True))
    west, south, east, north = grid.footprint.bounds
    place = f"longitude {west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}"
    where = f"is {distance:.1f} km away from the scene" if distance > 0 else "has no data there"
    if distance == 0 and _impossible(models, grid):
        where = f"has no height between {POSSIBLE[0]:g} and {POSSIBLE[1]:g} m there"
    return DataError(
        f"No elevation model covers the scene ({place}): {name} {where}.",
        remedy="Give an elevation model of this place, for example tiles of the Copernicus DEM GLO-30.",
    )


def _kilometres(one: Polygon, other: Polygon) -> float:
    a, b = nearest_points(one, other)
    return float(WGS84.inv(a.x, a.y, b.x, b.y)[2]) / 1000
