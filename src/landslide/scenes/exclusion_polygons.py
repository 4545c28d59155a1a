"""Polygons that say which pixels are left out: masks and areas of the user's own, and those of older products."""

import math
import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, GeometryError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from landslide.errors import ConfigurationError, DataError, first_few
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.grid import Grid
from landslide.scenes.vector_files import opened_vector_file, read_features, reason_of

_BOX_STEPS = 32  # points along an edge of a bounding box, which is curved in the scene's reference system
_SURROUNDINGS = 0.1  # of the size of a scene
_POLYGONS = ("Polygon", "MultiPolygon")

# What a damaged file of polygons raises, in a folder or in a zip.
_UNREADABLE = (
    OSError, EOFError, ValueError, LookupError, RuntimeError, zipfile.BadZipFile, zlib.error, ElementTree.ParseError,
    CRSError, GEOSException,
)  # fmt: skip


def area_polygons(settings: ExclusionSettings, grid: Grid) -> list[BaseGeometry]:
    """Return the polygons of the area of interest inside a scene, in its reference system; none if it lies outside.

    Args:
        settings: They have an area.
        grid: The scene.

    Raises:
        DataError: The file cannot be read, or no polygon meets the condition.
        ConfigurationError: The bounding box or the condition is wrong.
    """
    area, where = settings.area, settings.area_where
    box = _bounding_box(area) if isinstance(area, str) else None
    if box is None:
        return read_polygons(str(area), grid, where)
    if where is not None:
        raise ConfigurationError(
            f"The area {area} is a bounding box, and there is a condition on its attributes: {where}.",
            remedy="Give the area as a vector file, or leave the condition out.",
        )
    return _box_polygons(box, grid)


def read_polygons(path: str, grid: Grid, where: str | None = None) -> list[BaseGeometry]:
    """Return the polygons of a vector file inside a grid, in its reference system; none if all lie outside.

    Args:
        path: GeoPackage, GeoJSON, Shapefile or another format that GDAL reads, with one layer of polygons.
        grid: The scene.
        where: Only these polygons: a condition on attributes as in SQL.

    Raises:
        DataError: The file cannot be read, or has no such polygons.
        ConfigurationError: The condition is wrong.
    """
    if not Path(path).exists():
        raise DataError(f"There is no file {path}.", remedy="Check the path.")
    remedy = "Give polygons as GeoPackage, GeoJSON or Shapefile (.shp with its .shx, .dbf and .prj beside it)."
    try:
        with opened_vector_file(path):
            layers = [name for name, kind in pyogrio.list_layers(path) if kind and not re.search("Point|Line", kind)]
            frames = {name: read_features(path, name, where) for name in layers}
    except (FeatureError, ValueError) as error:
        if where is None:
            raise DataError(f"{path} cannot be read: {error}.", remedy=remedy) from error
        raise ConfigurationError(
            f"{path}: the condition {where!r} is wrong: {error}.",
            remedy="Write it as in SQL after WHERE, with attributes that the file has.",
        ) from error
    except (DataSourceError, DataLayerError, GeometryError) as error:
        raise DataError(f"{path} cannot be read: {reason_of(error)}.", remedy=remedy) from error
    frames = {name: frame[frame.geom_type.isin(_POLYGONS)] for name, frame in frames.items()}
    frames = {name: frame for name, frame in frames.items() if len(frame)}
    if not frames:
        if where is not None:
            raise DataError(f"{path} has no polygons for which {where}.", remedy="Change the condition.")
        raise DataError(f"{path} has no polygons.", remedy=remedy)
    if len(frames) > 1:
        raise DataError(
            f"{path} has {len(frames)} layers of polygons: {first_few(list(frames))}.",
            remedy="Save the one that you mean as a file of its own, from QGIS or with ogr2ogr NEW.gpkg FILE LAYER.",
        )
    (frame,) = frames.values()
    if frame.crs is None:
        raise DataError(
            f"{path} has no coordinate reference system.", remedy="Save it with one, for example from QGIS."
        )
    return _inside(frame.geometry, grid)


def touches_grid(other: Grid, grid: Grid) -> bool:
    """Return whether a grid lies partly inside another one."""
    return bool(_inside(gpd.GeoSeries([shapely.box(*other.bounds)], crs=other.crs.to_wkt()), grid))


def _inside(polygons: gpd.GeoSeries, grid: Grid, *, steps: int = 0) -> list[BaseGeometry]:
    """Take polygons to the reference system of a grid, and cut them at its edges.

    They are first cut around the grid in their own reference system: far away, that of the grid may know no
    coordinates. Beyond 180 degrees of longitude the surroundings have two parts. With `steps`, edges of the length of
    the scene get so many points, because a straight one is curved in the other system.
    """
    crs = CRS.from_user_input(polygons.crs)
    west, south, east, north = transform_bounds(grid.crs, crs, *grid.bounds)
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    side = max(north - south, *(right - left for left, right in spans))
    margin = _SURROUNDINGS * side
    valid = shapely.make_valid(polygons.to_numpy())
    near = [
        shapely.clip_by_rect(valid, left - margin, south - margin, right + margin, north + margin)
        for left, right in spans
    ]
    fine = shapely.segmentize(np.concatenate(near), side / steps) if steps else np.concatenate(near)
    there = gpd.GeoSeries(fine, crs=polygons.crs).to_crs(grid.crs)
    parts = shapely.get_parts(shapely.clip_by_rect(shapely.make_valid(there.to_numpy()), *grid.bounds))
    return [part for part in parts if part.geom_type in _POLYGONS and part.area > 0]


def _bounding_box(text: str) -> tuple[float, float, float, float] | None:
    """Return west, south, east, north; None if this is no list of numbers. Across 180 degrees, east is below west."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(numbers) == 1:
        return None  # a file may have such a name
    west, south, east, north = numbers if len(numbers) == 4 else [math.nan] * 4
    across = west >= east  # of a box that is meant so; more than half of the earth is a mistake
    in_range = -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90
    if not in_range or (across and east + 360 - west > 180):
        raise ConfigurationError(
            f"The area {text} is no bounding box.",
            remedy="Give west,south,east,north in degrees of longitude and latitude, such as 86.1,28.0,86.3,28.2.",
        )
    return west, south, east, north


def _box_polygons(box: tuple[float, float, float, float], grid: Grid) -> list[BaseGeometry]:
    west, south, east, north = box
    spans = [(west, east)] if west < east else [(west, 180.0), (-180.0, east)]
    boxes = [shapely.box(left, south, right, north) for left, right in spans]
    return _inside(gpd.GeoSeries(boxes, crs="OGC:CRS84"), grid, steps=_BOX_STEPS)


def read_mask_polygons(path: str, grid: Grid) -> list[tuple[str, BaseGeometry]]:
    """Return the polygons of a mask of an older product, such as MSK_CLOUDS_B00.gml; most files have none.

    Args:
        path: The file, or its path in a zip as GDAL writes it (`/vsizip/`).
        grid: The polygons are in its reference system.

    Returns:
        The type of each mask, such as OPAQUE, CIRRUS or QT_DEFECTIVE_PIXELS, and its polygon.

    Raises:
        DataError: The file is damaged.
    """
    try:
        root = ElementTree.fromstring(_read_file(path))
        found = [
            (" ".join(kind.text or "" for kind in _named(mask, "maskType")).strip(), _gml_polygon(polygon))
            for mask in _named(root, "MaskFeature")
            for polygon in _named(mask, "Polygon")
        ]
        if not all(kind for kind, _ in found):
            raise ValueError("a mask has no type")
        if len(found) != len(_named(root, "Polygon") + _named(root, "PolygonPatch")):
            raise ValueError("it has polygons that are in no MaskFeature")
        if not found:
            return []
        names = {name for element in root.iter() if (name := element.get("srsName"))}
        codes = {re.split("[:/#]", name)[-1] for name in names}
        if len(codes) != 1:
            raise ValueError(f"its reference system is {' and '.join(sorted(names)) or 'missing'}")
        crs = CRS.from_epsg(int(codes.pop()))
    except _UNREADABLE as error:
        leave = "leave its clouds unused with --clouds none" if "MSK_CLOUDS" in path else "take this file out of it"
        raise DataError(
            f"{path} cannot be read: {error}.", remedy=f"Download the product again, or {leave}."
        ) from error
    types, polygons = zip(*found, strict=True)
    return list(zip(types, gpd.GeoSeries(polygons, crs=crs).to_crs(grid.crs), strict=True))


def _named(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the elements of a name, whatever their namespace."""
    return [one for one in element.iter() if one.tag.rpartition("}")[2] == name]


def _gml_polygon(element: ElementTree.Element) -> BaseGeometry:
    rings: dict[str, list[list[tuple[float, ...]]]] = {"exterior": [], "interior": []}
    for part in element:
        for positions in part.iter():
            if positions.tag.rpartition("}")[2] == "posList":
                numbers = [float(number) for number in (positions.text or "").split()]
                dimension = int(positions.get("srsDimension", "2"))
                if dimension not in (2, 3) or len(numbers) % dimension:
                    raise ValueError(f"a posList has {len(numbers)} numbers for points of {dimension}")
                points = [tuple(numbers[i : i + 2]) for i in range(0, len(numbers), dimension)]
                rings[part.tag.rpartition("}")[2]].append(points)
    if len(rings["exterior"]) != 1:
        raise ValueError("a polygon has no outline")
    return shapely.make_valid(shapely.Polygon(rings["exterior"][0], rings["interior"]))


def _read_file(path: str) -> bytes:
    archive, inside, name = path.removeprefix("/vsizip/").partition(".zip/")
    if path.startswith("/vsizip/") and inside:
        with zipfile.ZipFile(archive + ".zip") as file:
            return file.read(name)
    return Path(path).read_bytes()
