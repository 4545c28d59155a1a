"""Vector files of a map: a GeoPackage with styles for QGIS, and GeoJSON."""

import json
import math
import sqlite3
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from landslide.files import atomic_write
from landslide.products.map_info import LANDSLIDE_COLUMNS, Column
from landslide.products.qgis_styles import qgis_styles


@dataclass(frozen=True)
class LayerKind:
    """What every layer of a name has.

    Attributes:
        title: What it holds.
        style: How QGIS draws and edits it, as QML.
        columns: Descriptions of its columns.
    """

    title: str
    style: str
    columns: Mapping[str, Column] = field(default_factory=dict)


_TITLES = {
    "landslides": "Landslides",
    "not_analysed": "Areas that were not analysed, and why",
    "image_footprint": "Outline of the scene",
    "area_of_interest": "Area in which landslides were searched",
    "source": "Image, model and settings",
}
LAYERS = MappingProxyType(
    {
        name: LayerKind(title, qgis_styles()[name], LANDSLIDE_COLUMNS if name == "landslides" else {})
        for name, title in _TITLES.items()
    }
)
"""The layers of the GeoPackage of a map, after the structure of Copernicus EMS products."""

_DECIMALS = 7  # of a degree: 1 cm

# The table that QGIS itself creates, and the tables of the GeoPackage extension "schema".
_TABLES = """
CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
  f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT,
  styleSLD TEXT, useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME);
INSERT INTO gpkg_contents (table_name, data_type, identifier, description, srs_id)
  VALUES ('layer_styles', 'attributes', 'layer_styles', 'Styles for QGIS', 0);
CREATE TABLE gpkg_data_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL, name TEXT, title TEXT,
  description TEXT, mime_type TEXT, constraint_name TEXT,
  CONSTRAINT pk_gdc PRIMARY KEY (table_name, column_name), CONSTRAINT gdc_tn UNIQUE (table_name, name));
CREATE TABLE gpkg_data_column_constraints (constraint_name TEXT NOT NULL, constraint_type TEXT NOT NULL, value TEXT,
  min NUMERIC, min_is_inclusive BOOLEAN, max NUMERIC, max_is_inclusive BOOLEAN, description TEXT,
  CONSTRAINT gdcc_ntv UNIQUE (constraint_name, constraint_type, value));
INSERT INTO gpkg_extensions (table_name, extension_name, definition, scope) VALUES
  ('gpkg_data_columns', 'gpkg_schema', 'http://www.geopackage.org/spec/#extension_schema', 'read-write'),
  ('gpkg_data_column_constraints', 'gpkg_schema', 'http://www.geopackage.org/spec/#extension_schema', 'read-write');
"""


def write_geopackage(
    path: Path,
    layers: Mapping[str, gpd.GeoDataFrame],
    created: datetime,
    kinds: Mapping[str, LayerKind] = LAYERS,
) -> None:
    """Write a GeoPackage of polygons, with styles that QGIS applies and a description of each attribute.

    Args:
        path: The file; an older one is replaced when the new one is complete.
        layers: Polygons by the name of the layer, one of `kinds`; a layer without rows keeps its columns. Without a
            reference system, the layer is in an undefined Cartesian one.
        created: Time stamp of the layers, with its time zone; equal input gives equal content.
        kinds: What the layers have.

    Raises:
        OSError: If the file cannot be written.
    """
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        draft = Path(folder) / "draft.gpkg"  # a GeoPackage has to bear this suffix
        try:
            for name, frame in layers.items():
                _write_layer(draft, name, frame, kinds[name].title)
            with closing(sqlite3.connect(draft)) as database, database:
                _describe(database, {name: kinds[name] for name in layers}, created)
        except (DataSourceError, DataLayerError, FieldError, GeometryError, FeatureError, sqlite3.Error) as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        with atomic_write(path) as temporary:
            draft.replace(temporary)


def _write_layer(path: Path, name: str, frame: gpd.GeoDataFrame, title: str) -> None:
    """Add a layer to a GeoPackage."""
    append = path.exists()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")  # an undefined one is meant
        pyogrio.write_dataframe(
            frame,
            path,
            layer=name,
            driver="GPKG",
            append=append,
            geometry_type="MultiPolygon",
            promote_to_multi=True,
            dataset_options={} if append else {"VERSION": "1.3"},  # GDAL before 3.7 warns of 1.4
            layer_options={"DESCRIPTION": title},
        )


def _describe(database: sqlite3.Connection, layers: Mapping[str, LayerKind], created: datetime) -> None:
    """Add styles, descriptions of columns, and the time stamp."""
    stamp = created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    database.executescript(_TABLES)
    database.executemany(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, useAsDefault, description, owner, update_time) VALUES ('', '', ?, 'geom', ?, ?, 1, ?, '', ?)",
        [(name, name, kind.style, kind.title, stamp) for name, kind in layers.items()],
    )
    database.executemany(
        "INSERT INTO gpkg_data_columns (table_name, column_name, description) VALUES (?, ?, ?)",
        [
            (name, column, described.description + f" ({described.unit})" * bool(described.unit))
            for name, kind in layers.items()
            for column, described in kind.columns.items()
        ],
    )
    database.execute("UPDATE gpkg_contents SET last_change = ?", (stamp,))


def write_geojson(path: Path, landslides: gpd.GeoDataFrame) -> None:
    """Write landslides by RFC 7946: longitude and latitude on WGS 84, outer rings anticlockwise, 7 decimals.

    Polygons across the antimeridian are cut there.

    Args:
        path: The file; an older one is replaced when the new one is complete.
        landslides: With the column `id` and a reference system.

    Raises:
        OSError: If the file cannot be written.
    """
    lonlat = landslides.to_crs("OGC:CRS84")
    geometries = _cut_at_antimeridian(lonlat.geometry.to_numpy())
    rows = lonlat.drop(columns="geometry").to_dict("records")
    features = [_feature(row, geometry) for row, geometry in zip(rows, geometries, strict=True)]
    text = ",\n".join(json.dumps(feature, allow_nan=False) for feature in features)
    with atomic_write(path) as temporary:
        temporary.write_text(f'{{"type": "FeatureCollection", "features": [\n{text}\n]}}\n', encoding="utf-8")


def _feature(row: Mapping[Any, Any], geometry: shapely.Geometry) -> dict[str, Any]:
    missing = {name for name, value in row.items() if isinstance(value, float) and math.isnan(value)}
    properties = {name: None if name in missing else value for name, value in row.items()}
    rounded = shapely.transform(geometry, lambda points: points.round(_DECIMALS))
    outline = shapely.geometry.mapping(shapely.orient_polygons(rounded))
    return {"type": "Feature", "id": row["id"], "properties": properties, "geometry": outline}


def _cut_at_antimeridian(geometries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cut polygons in longitude and latitude that jump from 180 to -180 degrees."""
    west, _, east, _ = shapely.bounds(geometries).T
    result = geometries.copy()
    for i in np.flatnonzero(east - west > 180):
        unwrapped = shapely.transform(geometries[i], lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
        left = shapely.clip_by_rect(unwrapped, 0, -90, 180, 90)
        right = shapely.clip_by_rect(unwrapped, 180, -90, 360, 90)
        shifted = shapely.transform(right, lambda xy: xy - (360, 0))
        result[i] = shapely.multipolygons(shapely.get_parts([left, shifted]))
    return result
