"""GeoPackage and GeoJSON of a map."""

import json
import resource
import sqlite3
import xml.etree.ElementTree
from contextlib import closing
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from landslide.products.map_info import LANDSLIDE_COLUMNS
from landslide.products.polygons import (
    area_of_interest,
    image_footprint,
    landslide_polygons,
    not_analysed_polygons,
    source_table,
)
from landslide.products.vectors import LAYERS, write_geojson, write_geopackage
from landslide.scenes.reasons import Reason
from tests.support.finished_maps import map_info, utm_grid, write_map

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def map_layers(folder, mask, grid=None):
    grid = grid or utm_grid(60, 60)
    info = map_info()
    write_map(folder, grid, mask)
    return {
        "landslides": landslide_polygons(folder, info, None)[0],
        "not_analysed": not_analysed_polygons(folder),
        "image_footprint": image_footprint(grid),
        "area_of_interest": area_of_interest(grid, None),
        "source": source_table(grid, info),
    }


@pytest.fixture
def mask():
    values = np.zeros((60, 60), np.uint8)
    values[10:20, 10:30] = values[40:50, 40:50] = 1
    values[44:46, 44:46] = 0
    values[:, 55:] = 255
    return values


def query(path, sql):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def test_layers_come_back_from_a_geopackage_as_they_were(tmp_path, mask):
    layers = map_layers(tmp_path, mask)
    path = tmp_path / "landslides.gpkg"
    write_geopackage(path, layers, CREATED)
    assert [name for name, _ in pyogrio.list_layers(path)] == [*LAYERS, "layer_styles"]
    for name, expected in layers.items():
        found = gpd.read_file(path, layer=name)
        assert found.crs.to_epsg() == 32633
        assert found.geometry.geom_equals(expected.geometry).all()
        pd.testing.assert_frame_equal(
            pd.DataFrame(found.drop(columns="geometry")),
            pd.DataFrame(expected.drop(columns="geometry")),
            check_dtype=False,
        )
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "SELECT elev_min, runout_m FROM landslides") == [(None, None)] * 2


def test_layers_without_landslides_keep_their_columns(tmp_path):
    path = tmp_path / "landslides.gpkg"
    write_geopackage(path, map_layers(tmp_path, np.zeros((60, 60))), CREATED)
    info = pyogrio.read_info(path, layer="landslides")
    assert info["features"] == 0
    assert list(info["fields"]) == list(LANDSLIDE_COLUMNS)
    kinds = {"int": "OFTInteger64", "float": "OFTReal", "text": "OFTString", "bool": "OFTInteger"}
    assert info["ogr_types"] == [kinds[column.dtype] for column in LANDSLIDE_COLUMNS.values()]
    assert info["geometry_type"] == "MultiPolygon"
    assert list(pyogrio.read_info(path, layer="not_analysed")["fields"]) == ["reason", "area_m2"]


def test_every_layer_has_a_default_style_that_names_its_values(tmp_path, mask):
    path = tmp_path / "landslides.gpkg"
    write_geopackage(path, map_layers(tmp_path, mask), CREATED)
    styles = query(path, "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles")
    geometry = query(path, "SELECT table_name, column_name FROM gpkg_geometry_columns")
    assert sorted(style[:2] for style in styles) == sorted(geometry)
    assert {style[2] for style in styles} == {1}
    trees = {style[0]: xml.etree.ElementTree.fromstring(style[3]) for style in styles}
    values = {name: [category.get("value") for category in tree.iter("category")] for name, tree in trees.items()}
    assert values["landslides"] == ["high", "medium", "low"]
    assert set(values["not_analysed"]) == {reason.text for reason in Reason if reason != Reason.ANALYSED}
    for tree in trees.values():
        symbols = {symbol.get("name") for symbol in tree.iterfind("renderer-v2/symbols/symbol")}
        assert {category.get("symbol") for category in tree.iter("category")} <= symbols
    registered = query(path, "SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'")
    assert registered == [("attributes",)]


def test_columns_are_described_with_their_units(tmp_path, mask):
    path = tmp_path / "landslides.gpkg"
    write_geopackage(path, map_layers(tmp_path, mask), CREATED)
    described = dict(query(path, "SELECT column_name, description FROM gpkg_data_columns"))
    assert list(described) == list(LANDSLIDE_COLUMNS)
    assert described["area_m2"] == "Geodesic area on WGS 84 (m2)"
    assert described["elongation"] == "Length divided by width"


def test_equal_layers_give_equal_files(tmp_path, mask):
    layers = map_layers(tmp_path, mask)
    for name in ("one", "two"):
        write_geopackage(tmp_path / f"{name}.gpkg", layers, CREATED)
        write_geojson(tmp_path / f"{name}.geojson", layers["landslides"])
    assert (tmp_path / "one.gpkg").read_bytes() == (tmp_path / "two.gpkg").read_bytes()
    assert (tmp_path / "one.geojson").read_bytes() == (tmp_path / "two.geojson").read_bytes()


@pytest.mark.parametrize("limit", [10_000, 100_000, 210_000])
def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path, mask, limit):
    layers = map_layers(tmp_path / "map", mask)
    path = tmp_path / "landslides.gpkg"
    path.write_text("older")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"landslides\.gpkg"):
            write_geopackage(path, layers, CREATED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "older"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["landslides.gpkg", "map"]


def test_geojson_is_in_longitude_and_latitude_by_the_right_hand_rule(tmp_path, mask):
    landslides = map_layers(tmp_path, mask)["landslides"]
    write_geojson(tmp_path / "landslides.geojson", landslides)
    content = json.loads((tmp_path / "landslides.geojson").read_text())
    assert set(content) == {"type", "features"}
    assert [feature["id"] for feature in content["features"]] == [1, 2]
    expected = landslides.to_crs(4326).geometry
    for feature, polygon in zip(content["features"], expected, strict=True):
        outer, *holes = feature["geometry"]["coordinates"]
        assert shapely.LinearRing(outer).is_ccw
        assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)
        np.testing.assert_allclose(shapely.geometry.shape(feature["geometry"]).bounds, polygon.bounds, atol=6e-8)
        assert all(len(str(number).split(".")[1]) <= 7 for point in outer for number in point)
    first = content["features"][0]["properties"]
    assert list(first) == list(LANDSLIDE_COLUMNS)
    assert first["slope_mean"] is None
    assert first["reviewed"] is False
    assert (first["image_date"], first["min_area_m2"]) == ("2017-02-16", 0)


def test_geojson_without_landslides(tmp_path):
    write_geojson(tmp_path / "none.geojson", map_layers(tmp_path, np.zeros((60, 60)))["landslides"])
    assert json.loads((tmp_path / "none.geojson").read_text()) == {"type": "FeatureCollection", "features": []}


def test_geojson_cuts_a_landslide_at_the_antimeridian(tmp_path):
    x, y = gpd.GeoSeries.from_xy([180], [65], crs=4326).to_crs(32601).get_coordinates().to_numpy()[0]
    polygon = shapely.box(x - 500, y, x + 300, y + 400)
    write_geojson(tmp_path / "cut.geojson", gpd.GeoDataFrame({"id": [1]}, geometry=[polygon], crs=32601))
    (feature,) = json.loads((tmp_path / "cut.geojson").read_text())["features"]
    parts = gpd.GeoSeries([shapely.geometry.shape(feature["geometry"])], crs=4326).explode()
    assert sorted(np.sign(parts.bounds["minx"])) == [-1, 1]
    assert (parts.bounds["maxx"] - parts.bounds["minx"]).max() < 0.02
    metric = "+proj=laea +lon_0=180 +lat_0=65 +datum=WGS84"
    expected = gpd.GeoSeries([polygon], crs=32601).to_crs(metric).area.sum()
    assert parts.to_crs(metric).area.sum() == pytest.approx(expected, rel=1e-3)
