"""From the rasters of a map to polygons with attributes: landslides, areas not analysed, footprint, source."""

import itertools
from collections.abc import Set
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.features import shapes
from rasterio.windows import Window

from landslide.products.attributes import pixel_attributes
from landslide.products.map_info import LANDSLIDE_COLUMNS, MapInfo
from landslide.products.raw_files import row_slices
from landslide.scenes.grid import WGS84, Grid
from landslide.scenes.reasons import Reason

_LANDSLIDE = 1
_LONGITUDE_LATITUDE = "OGC:CRS84"
_SEGMENT = 100  # longest edge in pixels: a straight edge on the grid is no geodesic
_DTYPES = {"int": "int64", "float": "float64", "text": "object", "bool": "bool"}


def landslide_polygons(folder: Path, info: MapInfo, terrain: Path | None) -> tuple[gpd.GeoDataFrame, int]:
    """Turn the mask of a scene into polygons with attributes.

    Pixels that touch at an edge or a corner are one landslide. Memory grows with the polygons, not with the scene.

    Args:
        folder: The folder with mask.tif, probability.tif and uncertainty.tif.
        info: What the attributes quote; `minimum_area` is the smallest area in m2 that is kept.
        terrain: terrain.tif with the bands elevation (m), slope (degrees), gradient_east and gradient_north (rise per
            metre), on any grid; None leaves these attributes empty.

    Returns:
        The landslides in the reference system of the scene, with the columns `LANDSLIDE_COLUMNS`, and the number of
        polygons below the minimum area.
    """
    with rasterio.open(folder / "mask.tif") as mask:
        grid = Grid(mask.crs, mask.transform, mask.width, mask.height)
        geometries, _ = _vectorised(mask, {_LANDSLIDE})
    areas, perimeters = _geodesic_size(geometries, grid)
    kept = areas >= info.minimum_area
    order = _reading_order(geometries[kept], grid)
    geometries = geometries[kept][order]
    lengths, widths = _length_and_width(geometries, grid)
    columns: dict[str, Any] = {
        "id": np.arange(1, len(geometries) + 1),
        "area_m2": areas[kept][order],
        "perimeter_m": perimeters[kept][order],
        "length_m": lengths,
        "width_m": widths,
        "elongation": lengths / widths,
        **pixel_attributes(geometries, grid, folder, terrain),
        "image_date": info.image_date,
        "sensor": info.sensor,
        "processing_baseline": info.processing_baseline,
        "model": info.model,
        "model_version": info.model_version,
        "threshold": info.threshold,
        "min_area_m2": info.minimum_area,
        "reviewed": False,
    }
    columns["confidence"] = _confidence(columns["prob_mean"] - columns["std_mean"], info.threshold)
    table = pd.DataFrame(columns, index=range(len(geometries)))[list(LANDSLIDE_COLUMNS)]
    table = table.astype({name: _DTYPES[column.dtype] for name, column in LANDSLIDE_COLUMNS.items()})
    table = table.round({name: column.decimals for name, column in LANDSLIDE_COLUMNS.items()})
    frame = gpd.GeoDataFrame(table, geometry=geometries, crs=grid.crs.to_wkt())
    return frame, int((~kept).sum())


def not_analysed_polygons(folder: Path) -> gpd.GeoDataFrame:
    """Turn reasons.tif of a folder into polygons, one per connected area of one reason.

    Returns:
        Columns reason (`Reason.text`), area_m2 (geodesic) and geometry, in the reference system of the scene.
    """
    with rasterio.open(folder / "reasons.tif") as reasons:
        grid = Grid(reasons.crs, reasons.transform, reasons.width, reasons.height)
        geometries, values = _vectorised(reasons, set(Reason) - {Reason.ANALYSED})
    texts = np.array([Reason(value).text for value in values], dtype=object)
    order = _reading_order(geometries, grid)
    areas, _ = _geodesic_size(geometries, grid)
    columns = {"reason": texts[order], "area_m2": areas[order].round(1)}
    return gpd.GeoDataFrame(columns, geometry=geometries[order], crs=grid.crs.to_wkt())


def class_polygons(path: Path, code: int) -> gpd.GeoDataFrame:
    """Turn the pixels of one code of a raster of bytes into polygons; pixels that touch at a corner are one.

    Returns:
        Columns id (from north to south, then from west to east), area_m2 (geodesic) and geometry, in the reference
        system of the raster.
    """
    with rasterio.open(path) as dataset:
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        geometries, _ = _vectorised(dataset, {code})
    geometries = geometries[_reading_order(geometries, grid)]
    columns = {"id": np.arange(1, len(geometries) + 1), "area_m2": _geodesic_size(geometries, grid)[0].round(1)}
    return gpd.GeoDataFrame(columns, geometry=geometries, crs=grid.crs.to_wkt())


def image_footprint(grid: Grid) -> gpd.GeoDataFrame:
    """Return the outline of the scene and its geodesic area: columns area_m2 and geometry, one row."""
    return area_of_interest(grid, None)


def area_of_interest(grid: Grid, area: gpd.GeoDataFrame | None) -> gpd.GeoDataFrame:
    """Return the area of interest, or the outline of the scene if there is none.

    Args:
        grid: The scene.
        area: Polygons with a reference system.

    Returns:
        Columns area_m2 and geometry, in the reference system of the scene, one row per polygon.
    """
    crs = grid.crs.to_wkt()
    outline = [shapely.box(*grid.bounds)]
    geometries = np.array(outline if area is None else area.geometry.to_crs(crs).to_numpy(), dtype=object)
    return gpd.GeoDataFrame({"area_m2": _geodesic_size(geometries, grid)[0].round(1)}, geometry=geometries, crs=crs)


def source_table(grid: Grid, info: MapInfo) -> gpd.GeoDataFrame:
    """Return one row that says where the map comes from, with the outline of the scene."""
    columns = {
        "scene": info.scene,
        "source": info.source,
        "sensor": info.sensor,
        "level": info.level,
        "processing_baseline": info.processing_baseline,
        "image_datetime": None if info.image_datetime is None else info.image_datetime.isoformat(),
        "model": info.model,
        "model_version": info.model_version,
        "model_address": info.model_address,
        "threshold": info.threshold,
        "min_area_m2": info.minimum_area,
        "blending": info.blending,
        "augmentation": info.augmentation,
        "created": info.created.isoformat(),
        "landslide_version": info.landslide_version,
    }
    row = {name: [value] for name, value in columns.items()}
    return gpd.GeoDataFrame(row, geometry=[shapely.box(*grid.bounds)], crs=grid.crs.to_wkt())


def _vectorised(dataset: Any, wanted: Set[int]) -> tuple[npt.NDArray[Any], list[int]]:
    """Return valid polygons of connected pixels of one value, and the values; GDAL reads the dataset line by line."""
    rings: list[npt.NDArray[Any]] = []
    owners: list[int] = []
    values: list[int] = []
    window = _extent(dataset, wanted)
    if window is None:
        return np.empty(0, dtype=object), []
    with _without_other_values(dataset, wanted, window) as source:
        band = rasterio.band(source, 1)
        for outline, value in shapes(band, mask=band, connectivity=8, transform=source.transform):
            rings += [np.array(ring) for ring in outline["coordinates"]]
            owners += [len(values)] * len(outline["coordinates"])
            values.append(int(value))
    of_ring = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    geometries = shapely.polygons(shapely.linearrings(np.concatenate(rings), indices=of_ring), indices=owners)
    invalid = ~shapely.is_valid(geometries)  # parts that touch at a corner
    geometries[invalid] = shapely.make_valid(geometries[invalid], method="structure", keep_collapsed=False)
    return shapely.orient_polygons(geometries), values


def _extent(dataset: Any, wanted: Set[int]) -> Window | None:
    """Return the smallest window with all pixels of the wanted values; polygons outside would cost time for nothing."""
    rows, columns = np.zeros(dataset.height, bool), np.zeros(dataset.width, bool)
    for part in row_slices(dataset.height):
        values = dataset.read(1, window=Window(0, part.start, dataset.width, part.stop - part.start))
        found = np.isin(values, list(wanted))
        rows[part], columns = found.any(axis=1), columns | found.any(axis=0)
    if not rows.any():
        return None
    (top, bottom), (left, right) = (np.flatnonzero(axis)[[0, -1]].tolist() for axis in (rows, columns))
    return Window(left, top, right - left + 1, bottom - top + 1)


def _without_other_values(dataset: Any, wanted: Set[int], window: Window) -> Any:
    """Open a view of a window of a raster of bytes in which all values but the wanted ones are 0."""
    transform = dataset.transform @ Affine.translation(window.col_off, window.row_off)
    table = ",".join(f"{value}:{value if value in wanted else 0}" for value in range(256))
    return rasterio.open(
        f'''<VRTDataset rasterXSize="{window.width}" rasterYSize="{window.height}">
        <GeoTransform>{", ".join(map(repr, transform.to_gdal()))}</GeoTransform>
        <VRTRasterBand dataType="Byte" band="1"><ComplexSource>
        <SourceFilename>{escape(dataset.name)}</SourceFilename><SourceBand>1</SourceBand>
        <SrcRect xOff="{window.col_off}" yOff="{window.row_off}" xSize="{window.width}" ySize="{window.height}"/>
        <DstRect xOff="0" yOff="0" xSize="{window.width}" ySize="{window.height}"/><LUT>{table}</LUT>
        </ComplexSource></VRTRasterBand></VRTDataset>'''
    )


def _geodesic_size(geometries: npt.NDArray[Any], grid: Grid) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Area in m2 and perimeter in m on the ellipsoid, of polygons."""
    step = _SEGMENT * min(abs(grid.transform.a), abs(grid.transform.e))
    outlines = shapely.segmentize(shapely.orient_polygons(geometries), step)
    parts, of_part = shapely.get_parts(outlines, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, of_point = shapely.get_coordinates(rings, return_index=True)
    transformer = Transformer.from_crs(grid.crs, _LONGITUDE_LATITUDE, always_xy=True)
    longitude, latitude = transformer.transform(points[:, 0], points[:, 1])
    starts = np.searchsorted(of_point, np.arange(len(rings) + 1))
    sizes = np.zeros((len(geometries), 2))
    for ring, (start, stop) in enumerate(itertools.pairwise(starts)):
        # Holes run clockwise: their area is negative, their perimeter is not.
        sizes[of_part[of_ring[ring]]] += WGS84.polygon_area_perimeter(longitude[start:stop], latitude[start:stop])
    return sizes[:, 0], sizes[:, 1]


def _reading_order(geometries: npt.NDArray[Any], grid: Grid) -> npt.NDArray[np.int64]:
    """Order from north to south, then from west to east, by a point inside, to a hundredth of a pixel."""
    points = shapely.get_coordinates(shapely.point_on_surface(geometries))
    columns, rows = (~grid.transform) @ (points[:, 0], points[:, 1])
    return np.lexsort((np.round(columns, 2), np.round(rows, 2)))


def _length_and_width(geometries: npt.NDArray[Any], grid: Grid) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Sides in metres of the minimum rotated rectangle, in an equidistant projection around the centre of the scene."""
    longitude, latitude = shapely.get_coordinates(grid.footprint.centroid)[0]
    metric = f"+proj=aeqd +lon_0={longitude} +lat_0={latitude} +datum=WGS84 +units=m"
    transformer = Transformer.from_crs(grid.crs, metric, always_xy=True)
    hulls = shapely.transform(shapely.convex_hull(geometries), transformer.transform, interleaved=False)
    corners = shapely.get_coordinates(shapely.oriented_envelope(hulls)).reshape(-1, 5, 2)
    sides = np.hypot(*(corners[:, 1:3] - corners[:, :2]).transpose(2, 0, 1))
    return sides.max(axis=1, initial=0), sides.min(axis=1, initial=np.inf)


def _confidence(bound: npt.NDArray[Any], threshold: float) -> npt.NDArray[Any]:
    """Return "high", "medium" or "low" by the mean probability minus its standard deviation."""
    return np.select([bound >= (1 + threshold) / 2, bound >= threshold], ["high", "medium"], "low").astype(object)
