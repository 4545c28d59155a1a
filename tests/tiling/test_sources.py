"""Labels from vector files and rasters: layers, conditions, dates, invalid geometries, burning."""

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from landslide.errors import ConfigurationError, DataError
from landslide.scenes.grid import Grid
from landslide.tiling.sources import LabelCounts, Labels, LabelSettings

UTM = "EPSG:32645"
GRID = Grid(CRS.from_user_input(UTM), Affine(10, 0, 500_000, 0, -10, 3_100_000), 60, 40)
ALL = Window(0, 0, 60, 40)
WHEN = datetime(2024, 6, 12, 4, 47, tzinfo=UTC)


def box(left: float, top: float, right: float, bottom: float) -> shapely.Polygon:
    """A rectangle in pixels of the grid."""
    (west, north), (east, south) = GRID.transform @ (left, top), GRID.transform @ (right, bottom)
    return shapely.box(west, south, east, north)


def write(path: Path, geometries, crs: str | None = UTM, **columns) -> Path:
    gpd.GeoDataFrame(columns, geometry=geometries, crs=UTM).to_crs(crs or UTM).to_file(path)
    return path


def labels(path: Path, when: datetime | None = None, grid: Grid = GRID, **settings) -> Labels:
    return Labels(path, LabelSettings(**settings), grid, when)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp", ".fgb"])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:32644"])
def test_polygons_of_any_format_and_system_are_burnt(tmp_path, suffix, crs):
    hole = box(10, 10, 20, 20).difference(box(14, 14, 16, 16))
    several = shapely.MultiPolygon([box(30, 5, 33, 8), box(40, 5, 43, 8)])
    path = write(tmp_path / f"labels{suffix}", [hole, several, box(12, 12, 25, 13)], crs)
    with labels(path) as found:
        mask = found.burn(ALL)[0]
    expected = np.zeros((40, 60), np.uint8)
    expected[10:20, 10:20] = 1
    expected[14:16, 14:16] = 0
    expected[12, 12:25] = 1
    expected[5:8, 30:33] = expected[5:8, 40:43] = 1
    np.testing.assert_array_equal(mask, expected)
    assert found.counts.used == 3
    np.testing.assert_array_equal(found.burn(Window(8, 9, 20, 6))[0], expected[9:15, 8:28])


def test_a_pixel_counts_by_its_centre_or_by_its_covered_share(tmp_path):
    path = write(tmp_path / "labels.gpkg", [box(10.25, 10, 12.75, 12)])  # 3/4, 1, 3/4 of the pixels
    for settings, columns in (
        ({}, [10, 11, 12]),
        ({"burn": "area", "min_share": 0.7}, [10, 11, 12]),
        ({"burn": "area", "min_share": 0.8}, [11]),
    ):
        with labels(path, **settings) as found:
            assert np.flatnonzero(found.burn(ALL)[0][10]).tolist() == columns
    thin = write(tmp_path / "thin.gpkg", [box(10.1, 10, 10.4, 30)])
    with labels(thin, burn="area", min_share=0.25) as by_area:
        assert by_area.burn(ALL)[0][10:30, 10].all()
    with labels(thin, allow_empty=True) as by_centre:
        assert not by_centre.burn(ALL)[0].any()
        assert by_centre.counts.too_small == 1
    with pytest.raises(DataError, match=r"The 1 polygons of .* smaller than a pixel and cover none"):
        labels(thin)


def test_a_layer_and_a_condition_choose_polygons(tmp_path):
    path = tmp_path / "labels.gpkg"
    frame = gpd.GeoDataFrame({"kind": ["landslide", "gully"]}, geometry=[box(0, 0, 5, 5), box(10, 0, 15, 5)], crs=UTM)
    frame.to_file(path, layer="old")
    frame.iloc[:1].to_file(path, layer="new")
    with pytest.raises(ConfigurationError, match=r"has the layers old, new"):
        labels(path)
    with pytest.raises(ConfigurationError, match=r"no layer newest; it has old, new"):
        labels(path, layer="newest")
    both = labels(path, layer="old")
    both.burn(ALL)
    assert both.counts.used == 2
    assert labels(path, layer="old", where="kind = 'gully'").burn(ALL)[0][0].nonzero()[0].tolist() == [
        10,
        11,
        12,
        13,
        14,
    ]
    with pytest.raises(DataError, match="has no polygons for which kind = 'rock'"):
        labels(path, layer="old", where="kind = 'rock'")
    with pytest.raises(ConfigurationError, match=r"is wrong(.|\n)*the attributes are kind"):
        labels(path, layer="old", where="sort = 'gully'")


def test_polygons_outside_are_counted_and_invalid_ones_mended(tmp_path):
    bow = shapely.Polygon([GRID.transform @ p for p in ((10, 10), (20, 20), (20, 10), (10, 20))])
    path = write(tmp_path / "labels.gpkg", [bow, box(200, 0, 210, 5), box(55, 35, 80, 60)])
    found = labels(path)
    mask = found.burn(ALL)[0]
    assert (found.counts.used, found.counts.outside, found.counts.mended) == (2, 1, 1)
    assert mask[12, 11] == mask[12, 18] == 1
    assert mask[18, 15] == mask[12, 15] == 0
    assert mask[36:, 56:].all()


def test_polygons_of_collections_count_and_points_and_lines_are_counted(tmp_path):
    line, point = shapely.LineString([(400_000, 5_000_000), (400_100, 5_000_000)]), shapely.Point(400_000, 5_000_000)
    mixed = shapely.GeometryCollection([line, box(0, 0, 5, 5), shapely.MultiPolygon([box(10, 0, 15, 5)])])
    frame = gpd.GeoDataFrame(geometry=[mixed, line, point, box(20, 0, 25, 5), None], crs=UTM)
    frame.to_file(tmp_path / "labels.geojson", driver="GeoJSON")
    found = labels(tmp_path / "labels.geojson")
    assert found.burn(ALL)[0][0].nonzero()[0].tolist() == [*range(5), *range(10, 15), *range(20, 25)]
    assert found.counts == LabelCounts(used=2, no_polygons=2, without_geometry=1)


def test_landslides_after_the_scene_are_left_out(tmp_path):
    dates = ["2024-06-12", "2024-06-13", "2023-01-01", None]
    places = [box(10 * i, 0, 10 * i + 5, 5) for i in range(4)]
    path = write(tmp_path / "labels.gpkg", places, event=dates)
    found = labels(path, WHEN, date_field="event")
    assert found.burn(ALL)[0][0, [2, 12, 22, 32]].tolist() == [1, 0, 1, 1]
    assert (found.counts.used, found.counts.too_late) == (3, 1)
    with pytest.raises(ConfigurationError, match="date of the scene is unknown"):
        labels(path, None, date_field="event")
    with pytest.raises(ConfigurationError, match="no attribute day; it has event"):
        labels(path, WHEN, date_field="day")
    wrong = write(tmp_path / "wrong.gpkg", places, event=["2024-06-12", "in June", None, None])
    with pytest.raises(DataError, match="in June in event is no date"):
        labels(wrong, WHEN, date_field="event")


@pytest.mark.parametrize(
    "dates", [[2025], [20250612.0], ["07/06/2024"], ["01.07.2024"], ["today"], ["2025"], ["2024-06"]]
)
def test_a_date_that_may_mean_another_one_is_refused(tmp_path, dates):
    path = write(tmp_path / "labels.gpkg", [box(0, 0, 5, 5)], event=dates)
    with pytest.raises(DataError, match=f"{dates[0]} in event is no date"):
        labels(path, WHEN, date_field="event")


@pytest.mark.parametrize("late", ["2024-06-13", "20240613", "2024/06/13", "2024-06-12T10:00:00Z", " 2025-01-01 "])
def test_a_date_that_is_written_year_first_is_understood(tmp_path, late):
    path = write(tmp_path / "labels.gpkg", [box(0, 0, 5, 5), box(10, 0, 15, 5)], event=["2023-01-01", late])
    assert labels(path, WHEN, date_field="event").counts.too_late == 1
    with pytest.raises(DataError, match=r"All 1 polygons of .* of events after it was taken, which was on 2024-06-12"):
        labels(path, WHEN, date_field="event", where=f"event = '{late}'")
    far = write(tmp_path / "far.gpkg", [box(0, 0, 5, 5), box(900, 0, 905, 5)], event=[late, "2023-01-01"])
    with pytest.raises(DataError, match=r"All 1 polygons of .* in the scene are of events after"):
        labels(far, WHEN, date_field="event")


def test_polygons_count_as_used_if_a_burnt_window_shows_them(tmp_path):
    places = [box(2, 2, 8, 8), box(28, 2, 36, 8), box(50, 30, 58, 38), box(40.6, 10.6, 40.9, 10.9)]
    found = labels(write(tmp_path / "labels.gpkg", places))
    assert (found.counts.used, found.counts.in_no_patch, found.counts.too_small) == (0, 3, 1)
    found.burn(Window(36, 0, 8, 8))  # touches the second one
    assert found.counts.used == 0
    found.burn(Window(0, 0, 32, 32))
    assert (found.counts.used, found.counts.in_no_patch, found.counts.too_small) == (2, 1, 1)


def test_small_polygons_that_add_up_and_long_ones_are_not_taken_for_nothing(tmp_path):
    quarters = [box(10 + x / 2, 10 + y / 2, 10.5 + x / 2, 10.5 + y / 2) for x in range(20) for y in range(20)]
    found = labels(write(tmp_path / "quarters.gpkg", quarters), burn="area")
    assert found.burn(ALL)[0].sum() == 100
    assert (found.counts.used, found.counts.too_small) == (400, 0)
    apart = shapely.MultiPolygon([box(20.1, 20.1, 20.3, 20.3), box(20_000, 20_000, 20_000.2, 20_000.2)])
    with pytest.raises(DataError, match="cover none"):
        labels(write(tmp_path / "apart.gpkg", [apart]))
    line = shapely.Polygon([GRID.transform @ corner for corner in ((5, 5), (10, 5), (7, 5))])
    with pytest.raises(DataError, match="cover none"):
        labels(write(tmp_path / "line.gpkg", [line]))
    both = labels(write(tmp_path / "both.gpkg", [line, box(20, 20, 30, 30)]))
    both.burn(ALL)
    assert both.counts == LabelCounts(used=1, too_small=1)


def test_rings_are_closed_and_geometries_that_nobody_can_read_are_counted(tmp_path):
    (west, south), (east, north) = GRID.transform @ (0, 10), GRID.transform @ (10, 0)
    rings = [[[west, south], [east, south], [east, north], [west, north]], [[west, south]]]
    features = [
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in rings
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32645"}}
    path = tmp_path / "labels.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = labels(path)
    assert found.burn(ALL)[0][:10, :10].all()
    assert found.counts == LabelCounts(used=1, without_geometry=1)


def test_a_raster_of_landslides_is_taken_to_the_grid(tmp_path):
    path = tmp_path / "mask.tif"
    values = np.zeros((1, 20, 30), np.uint8)
    values[0, 5:10, 5:10] = 1
    values[0, 15, :] = 255
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=20, count=1, dtype="uint8", crs=UTM, nodata=255,
        transform=GRID.transform @ Affine.scale(2),
    ) as target:  # fmt: skip
        target.write(values)
    with labels(path) as found:
        mask, labelled = found.burn(ALL)
    expected = np.zeros((40, 60), np.uint8)
    expected[10:20, 10:20] = 1
    np.testing.assert_array_equal(mask, expected)
    assert not labelled[30:32].any()
    assert labelled[:30].all()
    assert labelled[32:].all()
    with pytest.raises(ConfigurationError, match="is a raster, and where is about polygons"):
        labels(path, where="a = 1")
    with pytest.raises(ConfigurationError, match="is a raster, and burn is about polygons"):
        labels(path, burn="area")


def write_raster(path: Path, values: np.ndarray, transform: Affine = GRID.transform, **profile) -> Path:
    bands, height, width = values.shape
    profile = {"driver": "GTiff", "crs": UTM, "count": bands, "dtype": values.dtype, **profile}
    with rasterio.open(path, "w", width=width, height=height, transform=transform, **profile) as target:
        target.write(values)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "float32"])
def test_ground_outside_of_a_raster_or_without_data_in_it_is_not_labelled(tmp_path, dtype):
    values = np.zeros((1, 40, 30), dtype)
    values[0, :5] = 1
    values[0, 20:] = no_data = -1 if dtype == "int16" else 7
    with labels(write_raster(tmp_path / "mask.tif", values, nodata=no_data)) as found:
        mask, labelled = found.burn(ALL)
    assert mask[:5, :30].all()
    assert mask.sum() == 5 * 30
    assert labelled[:20, :30].all()
    assert labelled.sum() == 20 * 30
    as_a_gis_writes = write_raster(tmp_path / "zero.tif", (values == 1).astype(dtype), nodata=0)
    with labels(as_a_gis_writes) as found:
        assert found.burn(ALL)[1][:, :30].all()


def test_nan_is_not_labelled(tmp_path):
    values = np.zeros((1, 40, 60), np.float32)
    values[0, :5], values[0, 5:9] = 1, np.nan
    with labels(write_raster(tmp_path / "mask.tif", values)) as found:
        labelled = found.burn(ALL)[1]
    assert not labelled[5:9].any()
    assert labelled[:5].all()
    assert labelled[9:].all()


def test_a_raster_without_landslides_or_with_several_bands_is_refused(tmp_path):
    values = np.zeros((3, 40, 60), np.uint8)
    values[1, :5] = 255
    with pytest.raises(DataError, match="has 3 bands"):
        labels(write_raster(tmp_path / "rendered.tif", values, photometric="RGB"))
    with pytest.raises(DataError, match=r"has no landslide in the scene\."):
        labels(write_raster(tmp_path / "empty.tif", values[:1]))
    with pytest.raises(DataError, match="no landslide in the scene, and declares 255 as no data"):
        labels(write_raster(tmp_path / "hidden.tif", values[1:2], nodata=255))
    with labels(tmp_path / "empty.tif", allow_empty=True) as found:
        assert not found.burn(ALL)[0].any()


def test_a_raster_that_is_no_mask_is_refused(tmp_path):
    path = tmp_path / "dem.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=60, height=40, count=1, dtype="float32", crs=UTM, transform=GRID.transform
    ) as target:
        target.write(np.full((1, 40, 60), 812.5, np.float32))
    with pytest.raises(DataError, match=r"dem\.tif has other values than 0, 1 and 255"), labels(path) as found:
        found.burn(ALL)[0]


def test_a_mask_that_is_cut_off_is_refused_and_not_read_as_noise(tmp_path):
    path = tmp_path / "mask.png"
    noise = np.random.default_rng(0).integers(0, 2, (1, 40, 60), dtype=np.uint8)
    with rasterio.open(
        path, "w", driver="PNG", width=60, height=40, count=1, dtype="uint8", crs=UTM, transform=GRID.transform
    ) as target:
        target.write(noise)
    with labels(path) as found:
        np.testing.assert_array_equal(found.burn(ALL)[0], noise[0])
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(DataError, match=r"mask\.png"), labels(path) as found:
        found.burn(ALL)[0]


def test_files_that_are_no_labels_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*labels\.gpkg"):
        labels(tmp_path / "labels.gpkg")
    (tmp_path / "text.geojson").write_text("nothing")
    with pytest.raises(DataError, match="cannot be read"):
        labels(tmp_path / "text.geojson")
    points = write(tmp_path / "points.gpkg", [shapely.Point(500_100, 3_099_900)])
    with pytest.raises(DataError, match="has no polygons"):
        labels(points)
    with pytest.warns(UserWarning, match="not provided"):
        gpd.GeoDataFrame(geometry=[box(0, 0, 5, 5)]).to_file(tmp_path / "nowhere.shp")
    with pytest.raises(DataError, match="no coordinate reference system"):
        labels(tmp_path / "nowhere.shp")
    with pytest.raises(ConfigurationError, match="share of a pixel is 0"):
        LabelSettings(burn="area", min_share=0)
    with pytest.raises(ConfigurationError, match="no effect if its centre decides"):
        LabelSettings(min_share=0.25)


def test_labels_of_another_place_are_refused_unless_somebody_looked(tmp_path):
    path = write(tmp_path / "labels.gpkg", [box(200, 0, 210, 5), box(220, 0, 230, 5)])
    with pytest.raises(DataError, match=r"None of the 2 polygons(.|\n)*longitude 87(.|\n)*--allow-empty"):
        labels(path)
    assert not labels(path, allow_empty=True).burn(ALL)[0].any()
    wrong = tmp_path / "wrong.gpkg"
    gpd.GeoDataFrame(geometry=[box(0, 0, 5, 5)], crs="EPSG:32633").to_file(wrong)
    with pytest.raises(DataError, match="None of the 1 polygons"):
        labels(wrong)
    empty = tmp_path / "empty.gpkg"
    gpd.GeoDataFrame({"id": []}, geometry=[], crs=UTM).to_file(empty)
    with pytest.raises(DataError, match="has no polygons"):
        labels(empty)
    assert not labels(empty, allow_empty=True).burn(ALL)[0].any()
    raster = tmp_path / "elsewhere.tif"
    with rasterio.open(
        raster, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", crs="EPSG:32633",
        transform=GRID.transform,
    ) as target:  # fmt: skip
        target.write(np.ones((1, 9, 9), np.uint8))
    with pytest.raises(DataError, match=r"elsewhere.tif lies outside the scene"):
        labels(raster)
