"""Labels of a scene: polygons in a vector file, or a raster of landslides, burnt into masks."""

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyogrio
import shapely
from affine import Affine
from pyogrio.errors import DataSourceError, FeatureError
from pyproj.exceptions import CRSError
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from landslide.errors import ConfigurationError, DataError
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import gdal_environment, open_raster, reading, refuse_several_bands, warped
from landslide.scenes.vector_files import IS_LOCKED, opened_vector_file, read_features, reason_of

Mask = npt.NDArray[np.uint8]
Labelled = npt.NDArray[np.bool_]

_RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png")
_DATE = r"\d{4}([-/]?)\d{1,2}\1\d{1,2}(?!\d)"
_FINER = 8  # cells of a pixel along each axis, from which its covered share is counted
_NARROW = 1.5  # pixels: twice the area by the outline of a polygon that may lie between the centres of pixels
_LONG = 512  # pixels: a polygon of this length covers one
_NOT_LABELLED = -128  # value of pixels outside of a raster of labels, or without data there
_ROWS = 1024  # of a raster that are searched for landslides at a time


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """Which labels are read, and how they are burnt."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    layer: str | None = None
    """Layer of the vector file; needed if it has several."""
    where: str | None = None
    """Condition on attributes, as in SQL after WHERE: `class = 'landslide' AND checked = 1`."""
    date_field: str | None = None
    """Attribute with the date of the event, such as 2024-06-12; polygons of events after the scene are left out."""
    burn: Literal["centre", "area"] = "centre"
    """A pixel is a landslide if its `centre` is in a polygon, or if polygons cover a share of its `area`."""
    min_share: float | None = None
    """That share, above 0 and at most 1, in sixty-fourths of a pixel; 0.5 by default."""
    allow_empty: bool = False
    """Accept a scene without any polygon, because somebody looked and saw no landslide."""

    def __post_init__(self) -> None:
        if self.min_share is not None and self.burn == "centre":
            raise ConfigurationError(
                "A share of a pixel has no effect if its centre decides.", remedy="Use --burn area, or leave it out."
            )
        if self.min_share is not None and not 0 < self.min_share <= 1:
            raise ConfigurationError(
                f"The share of a pixel is {self.min_share:g}.", remedy="Give a number above 0 and at most 1."
            )


@dataclass(frozen=True)
class LabelCounts:
    """What became of the polygons of a file of labels.

    Attributes:
        used: Polygons that lie in a window that was burnt, at least partly.
        in_no_patch: Others in the scene.
        too_small: Polygons that cover no pixel, as they are burnt.
        outside: Polygons outside of the scene.
        mended: Invalid polygons in the scene, which were made valid.
        too_late: Polygons left out because their event came after the scene.
        no_polygons: Points and lines, which are left out; of collections, only the polygons count.
        without_geometry: Features without a geometry, or with one that cannot be read.
    """

    used: int = 0
    in_no_patch: int = 0
    too_small: int = 0
    outside: int = 0
    mended: int = 0
    too_late: int = 0
    no_polygons: int = 0
    without_geometry: int = 0


class Labels:
    """The labels of one scene.

    Args:
        path: A vector file with polygons, or a raster of one band in which 1 and 255 are landslides and 0 none. What it
            declares as no data is not labelled, unless that is 0.
        settings: Which are read, and how they are burnt.
        grid: The scene.
        when: When the scene was taken.

    Raises:
        DataError: The file cannot be read, has no labels in the scene, or no reference system; or a date is none.
        ConfigurationError: A setting does not fit the file.
    """

    def __init__(self, path: Path, settings: LabelSettings, grid: Grid, when: datetime | None) -> None:
        if not path.exists():
            raise DataError(f"There is no file {path}.", remedy="Check the path of the labels.")
        self._labels = path
        self._grid = grid
        self._settings = settings
        self._counts = LabelCounts()
        self._raster: Any = None
        with ExitStack() as self._stack:  # an error closes what was opened
            if path.suffix.lower() in _RASTERS:
                self._open_raster(path)
            else:
                self._read_polygons(path, when)
            self._stack = self._stack.pop_all()

    def __enter__(self) -> "Labels":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def counts(self) -> LabelCounts:
        """What became of the polygons, by the windows that were burnt so far."""
        if self._raster is not None:
            return self._counts
        small, reached = int(self._small.sum()), int((self._reached & ~self._small).sum())
        counts, others = self._counts, len(self._polygons) - small - reached
        return replace(counts, used=reached, too_small=counts.too_small + small, in_no_patch=others)

    def burn(self, window: Window) -> tuple[Mask, Labelled]:
        """Burn the labels of a window of the scene.

        Returns:
            The mask, uint8 (rows, columns), 1 on a landslide; and where there are labels, boolean (rows, columns). With
            polygons that is everywhere.

        Raises:
            DataError: A raster has other values, or is damaged.
        """
        shape = int(window.height), int(window.width)
        if self._raster is not None:
            values = self._values(window)
            labelled = values != _NOT_LABELLED
            return np.asarray((values != 0) & labelled).astype(np.uint8), labelled
        transform = self._grid.transform @ Affine.translation(window.col_off, window.row_off)
        west, north = transform @ (0, 0)
        east, south = transform @ (shape[1], shape[0])
        outline = shapely.box(west, south, east, north)
        here = self._tree.query(outline, predicate="intersects")
        self._reached[here[~shapely.touches(self._polygons[here], outline)]] = True
        return self._burnt(self._polygons[here], shape, transform), np.ones(shape, bool)

    def _burnt(self, polygons: npt.NDArray[Any], shape: tuple[int, int], transform: Affine) -> Mask:
        if not len(polygons):
            return np.zeros(shape, np.uint8)
        if self._settings.burn == "centre":
            burnt: Mask = rasterize(polygons, shape, transform=transform, dtype=np.uint8)
            return burnt
        finer = rasterize(
            polygons, [_FINER * side for side in shape], transform=transform @ Affine.scale(1 / _FINER), dtype=np.uint8
        )
        covered = finer.reshape(shape[0], _FINER, shape[1], _FINER).mean(axis=(1, 3))
        return np.asarray(covered >= (self._settings.min_share or 0.5)).astype(np.uint8)

    def _covers_no_pixel(self, polygon: shapely.Geometry) -> bool:
        """Return whether no centre of a pixel lies in a polygon; False if shares decide, which polygons add up to."""
        if self._settings.burn != "centre":
            return False
        pixel = math.sqrt(abs(self._grid.transform.determinant))
        for part in shapely.get_parts(polygon):
            if 2 * part.area >= _NARROW * pixel * part.length:
                return False
            west, south, east, north = part.bounds
            corners = (~self._grid.transform @ corner for corner in ((west, north), (east, south)))
            columns, rows = zip(*corners, strict=True)
            left, top = math.floor(min(columns)), math.floor(min(rows))
            shape = math.ceil(max(rows)) - top + 1, math.ceil(max(columns)) - left + 1
            around = self._grid.transform @ Affine.translation(left, top)
            if max(shape) > _LONG or rasterize([part], shape, transform=around, dtype=np.uint8).any():
                return False
        return True

    def _values(self, window: Window) -> npt.NDArray[np.int16]:
        """Read a raster: 0, 1, 255 or `_NOT_LABELLED`, int16 (rows, columns)."""
        with reading(self._raster.name):
            values = self._raster.read(1, window=window)
        values = np.where(np.isnan(values), _NOT_LABELLED, values)
        if not np.isin(values, (0, 1, 255, _NOT_LABELLED)).all():
            raise DataError(
                f"{self._labels} has other values than 0, 1 and 255.",
                remedy="Give a mask: 0 is no landslide, 1 or 255 a landslide.",
            )
        return np.asarray(values).astype(np.int16)

    def _open_raster(self, path: Path) -> None:
        settings = self._settings
        of_polygons = {"layer": settings.layer, "where": settings.where, "date_field": settings.date_field}
        of_polygons["burn"] = None if settings.burn == "centre" else settings.burn
        for name, value in of_polygons.items():
            if value is not None:
                raise ConfigurationError(
                    f"{path} is a raster, and {name} is about polygons.", remedy="Leave it out, or give polygons."
                )
        self._stack.enter_context(gdal_environment())
        dataset = self._stack.enter_context(open_raster(str(path)))
        if dataset.crs is None:
            raise DataError(
                f"{path} has no coordinate reference system.",
                remedy="Assign the right one to a GeoTIFF: rio edit-info --crs EPSG:32633.",
            )
        covered = shapely.box(*transform_bounds(dataset.crs, self._grid.crs, *dataset.bounds))
        if not shapely.intersects(covered, shapely.box(*self._grid.bounds)):
            raise DataError(
                f"{path} lies outside the scene, which covers {_extent(self._grid)}.",
                remedy="Give labels of this scene; see that their coordinate reference system is right.",
            )
        refuse_several_bands(dataset, "Give a mask of one band: 0 is no landslide, 1 or 255 a landslide.")
        options: dict[str, Any] = {"src_nodata": None} if dataset.nodata == 0 else {}
        self._raster = self._stack.enter_context(
            warped(dataset, self._grid, Resampling.nearest, nodata=_NOT_LABELLED, dtype="float32", **options)
        )
        width, height = self._grid.width, self._grid.height
        parts = (Window(0, top, width, min(_ROWS, height - top)) for top in range(0, height, _ROWS))
        if not settings.allow_empty and not any(self.burn(part)[0].any() for part in parts):
            no_data = "" if dataset.nodata is None else f", and declares {dataset.nodata:g} as no data"
            raise DataError(
                f"{path} has no landslide in the scene{no_data}.",
                remedy="Give a mask in which landslides are 1 or 255. If somebody looked and saw none, say so with "
                "--allow-empty.",
            )

    def _read_polygons(self, path: Path, when: datetime | None) -> None:
        frame, counts = _read(path, self._settings)
        late = _too_late(path, frame, self._settings.date_field, when)
        try:
            geometries = frame.geometry.to_crs(self._grid.crs.to_wkt()).force_2d().to_numpy()
        except CRSError as error:
            raise DataError(
                f"{path}: its reference system does not lead to that of the scene: {error}.",
                remedy="Save the polygons in longitude and latitude (EPSG:4326).",
            ) from error
        inside = shapely.intersects(geometries, shapely.box(*self._grid.bounds))
        kept = geometries[inside & ~late]
        if not len(kept) and not self._settings.allow_empty:
            raise self._none_in_scene(path, frame, inside, when)
        invalid = ~shapely.is_valid(kept)
        kept[invalid] = shapely.make_valid(kept[invalid], method="structure", keep_collapsed=False)
        collapsed = shapely.is_empty(kept)
        self._polygons = kept[~collapsed]
        self._tree = shapely.STRtree(self._polygons)
        self._reached = np.zeros(len(self._polygons), bool)
        self._small = np.array([self._covers_no_pixel(polygon) for polygon in self._polygons], bool)
        if len(kept) and self._small.all() and not self._settings.allow_empty:
            raise DataError(
                f"The {len(kept):,} polygons of {path} in the scene are smaller than a pixel and cover none.",
                remedy="Use --burn area with a small --min-share, or give larger ones. If nobody saw a landslide that "
                "fills a pixel, say so with --allow-empty.",
            )
        self._counts = replace(
            counts, too_small=int(collapsed.sum()), outside=int((~inside).sum()),
            mended=int((invalid & ~collapsed).sum()), too_late=int((inside & late).sum()),
        )  # fmt: skip

    def _none_in_scene(
        self, path: Path, frame: gpd.GeoDataFrame, inside: npt.NDArray[np.bool_], when: datetime | None
    ) -> DataError:
        if inside.any():
            return DataError(
                f"All {int(inside.sum()):,} polygons of {path} in the scene are of events after it was taken, "
                f"which was on {when:%Y-%m-%d}, by {self._settings.date_field}.",
                remedy="Give a later scene. If somebody looked and saw no landslide here, say so with --allow-empty.",
            )
        west, south, east, north = frame.to_crs(4326).total_bounds if len(frame) else (np.nan,) * 4
        return DataError(
            f"None of the {len(inside):,} polygons of {path} lies in the scene, which covers "
            f"{_extent(self._grid)}. "
            f"They cover longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}.",
            remedy="See that their coordinate reference system is right. If somebody looked and saw no landslide "
            "here, say so with --allow-empty.",
        )


def _extent(grid: Grid) -> str:
    west, south, east, north = grid.footprint.bounds
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"


def _read(path: Path, settings: LabelSettings) -> tuple[gpd.GeoDataFrame, LabelCounts]:
    """Return the polygons of a vector file with their attributes, and what is beside them."""
    with opened_vector_file(path):
        frame = _read_layer(path, settings)
    if not isinstance(frame, gpd.GeoDataFrame):
        frame = gpd.GeoDataFrame(geometry=[])
    nothing = (frame.geometry.isna() | frame.geometry.is_empty).to_numpy()
    frame = frame[~nothing]
    kinds = sorted(set(frame.geom_type))
    collections = (frame.geom_type == "GeometryCollection").to_numpy()
    frame.loc[collections, frame.geometry.name] = [_polygons_of(one) for one in frame.geometry[collections]]
    is_polygon = frame.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy()
    counts = LabelCounts(no_polygons=int((~is_polygon).sum()), without_geometry=int(nothing.sum()))
    frame = frame[is_polygon]
    if frame.empty and not settings.allow_empty:
        if settings.where:
            raise DataError(f"{path} has no polygons for which {settings.where}.", remedy="Change the condition.")
        raise DataError(
            f"{path} has no polygons" + (f"; it has {', '.join(kinds)}." if kinds else "."),
            remedy="Give a file with polygons of landslides. If somebody looked and saw none, say so with "
            "--allow-empty.",
        )
    if frame.crs is None:
        raise DataError(
            f"{path} has no coordinate reference system.", remedy="Save it with one, for example from QGIS."
        )
    return frame, counts


def _read_layer(path: Path, settings: LabelSettings) -> gpd.GeoDataFrame:
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if settings.layer is None and len(layers) > 1:
            raise ConfigurationError(f"{path} has the layers {', '.join(layers)}.", remedy="Say which with --layer.")
        if settings.layer is not None and settings.layer not in layers:
            raise ConfigurationError(
                f"{path} has no layer {settings.layer}; it has {', '.join(layers) or 'none'}.",
                remedy="Give one of these with --layer.",
            )
        return read_features(path, settings.layer, settings.where)
    except DataSourceError as error:
        if IS_LOCKED in str(error):
            raise
        raise DataError(
            f"{path} cannot be read: {reason_of(error)}.",
            remedy="Give polygons as GeoPackage, GeoJSON, Shapefile or FlatGeobuf, or a raster.",
        ) from error
    except (FeatureError, ValueError) as error:
        if settings.where is None:
            raise DataError(f"{path} is damaged: {error}.", remedy="Save it again, for example from QGIS.") from error
        fields = ", ".join(pyogrio.read_info(path, layer=settings.layer)["fields"])
        raise ConfigurationError(
            f"{path}: the condition {settings.where!r} is wrong: {error}.",
            remedy=f"Write it as in SQL after WHERE; the attributes are {fields}.",
        ) from error


def _polygons_of(collection: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a collection of geometries; the collection itself if it has none."""
    parts = [
        part
        for member in shapely.get_parts(collection)
        for part in (shapely.get_parts(member) if member.geom_type.startswith("Multi") else [member])
        if part.geom_type == "Polygon"
    ]
    return shapely.MultiPolygon(parts) if parts else collection


def _too_late(path: Path, frame: gpd.GeoDataFrame, field: str | None, when: datetime | None) -> npt.NDArray[np.bool_]:
    """Return which polygons are of events after a scene."""
    if field is None:
        return np.zeros(len(frame), bool)
    if field not in frame:
        raise ConfigurationError(
            f"{path} has no attribute {field}; it has {', '.join(map(str, frame.columns.drop('geometry')))}.",
            remedy="Give the attribute with the date of the event.",
        )
    if when is None:
        raise ConfigurationError(
            "The date of the scene is unknown, so the dates of events say nothing.",
            remedy="Leave the attribute of the date out, or give a product or a STAC Item.",
        )
    written = frame[field]
    if pd.api.types.is_datetime64_any_dtype(written):
        dates = pd.to_datetime(written, utc=True)
    else:  # other orders of day and month look alike, numbers may be anything, and a year alone may be either side
        text = written.map(str, na_action="ignore").str.strip() if len(written) else written.astype(str)
        whole = text.str.match(_DATE) & (not pd.api.types.is_numeric_dtype(written))
        dates = pd.to_datetime(text.where(whole), errors="coerce", utc=True, format="ISO8601")
        written = text.where(text != "")
    if (wrong := dates.isna() & written.notna()).any():
        raise DataError(
            f"{path}: {written[wrong].iloc[0]} in {field} is no date.",
            remedy="Write dates as 2024-06-12, in a field of dates or of text, or leave them empty.",
        )
    return np.asarray(dates > pd.Timestamp(when))
