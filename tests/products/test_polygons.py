"""From rasters to polygons: shapes, areas, attributes, areas not analysed."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS

from landslide.products.map_info import LANDSLIDE_COLUMNS
from landslide.products.polygons import (
    area_of_interest,
    image_footprint,
    landslide_polygons,
    not_analysed_polygons,
    source_table,
)
from landslide.scenes.grid import Grid
from landslide.scenes.reasons import Reason
from tests.support.finished_maps import degree_grid, map_info, utm_grid, write_map, write_terrain

pytestmark = pytest.mark.slow

GRIDS = {"north": utm_grid(90, 70), "south": utm_grid(90, 70, "EPSG:32721"), "degrees": degree_grid(90, 70)}
TERRAIN_COLUMNS = [
    *("elev_min", "elev_max", "elev_mean", "relief_m", "slope_mean", "slope_max", "aspect_mean"),
    *("runout_m", "h_over_l"),
]


def blank(grid):
    return np.zeros((grid.height, grid.width), np.uint8)


def equal_area(frame):
    """Areas by an equal-area projection around the polygons, independent of geodesics."""
    longitude, latitude = frame.to_crs("OGC:CRS84").union_all().centroid.coords[0]
    projection = CRS.from_proj4(f"+proj=laea +lon_0={longitude} +lat_0={latitude} +datum=WGS84")
    return (
        frame.set_geometry(frame.segmentize(np.ptp(frame.total_bounds[::2]) / 1000)).to_crs(projection).area.to_numpy()
    )


@pytest.mark.parametrize("name", GRIDS)
def test_areas_and_places_of_polygons(tmp_path, name):
    grid = GRIDS[name]
    mask = blank(grid)
    mask[5:12, 40:80] = 1
    mask[30:60, 10:20] = 1
    mask[40:45, 12:18] = 0
    frame, below = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), None)
    assert below == 0
    assert frame["id"].tolist() == [1, 2]
    assert CRS(frame.crs) == CRS(grid.crs)
    np.testing.assert_allclose(frame["area_m2"], equal_area(frame), rtol=1e-3)
    for polygon, (top, bottom, left, right) in zip(frame.geometry, [(5, 12, 40, 80), (30, 60, 10, 20)], strict=True):
        west, north = grid.transform @ (left, top)
        east, south = grid.transform @ (right, bottom)
        np.testing.assert_allclose(polygon.bounds, (west, south, east, north), atol=1e-6)
    assert [len(polygon.interiors) for polygon in frame.geometry] == [0, 1]
    assert not frame["at_edge"].any()


def test_sizes_of_a_rectangle_in_metres(tmp_path):
    grid = utm_grid(90, 70)
    mask = blank(grid)
    mask[20:26, 30:70] = 1
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), None)
    scale = 0.9997  # of UTM, 70 km from the central meridian
    row = frame.iloc[0]
    np.testing.assert_allclose(
        [row["length_m"], row["width_m"], row["perimeter_m"]], np.array([400, 60, 920]) / scale, rtol=5e-4
    )
    assert row["elongation"] == pytest.approx(400 / 60, abs=0.01)
    np.testing.assert_allclose(row["area_m2"], 24_000 / scale**2, rtol=5e-4)


def test_length_and_width_of_a_diagonal_landslide(tmp_path):
    grid = utm_grid(100, 100)
    rows, columns = np.mgrid[:100, :100]
    mask = (np.abs(rows - columns) <= 5) & (rows + columns >= 40) & (rows + columns <= 160)
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), None)
    assert frame["length_m"].item() == pytest.approx(120 / np.sqrt(2) * 10, abs=30)
    assert frame["width_m"].item() == pytest.approx(10 / np.sqrt(2) * 10, abs=30)


def test_pixels_that_touch_at_a_corner_are_one_valid_landslide(tmp_path):
    grid = utm_grid(40, 40)
    mask = blank(grid)
    mask[10:20, 10:20] = mask[20:30, 20:30] = 1
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), None)
    assert len(frame) == 1
    assert frame.is_valid.all()
    assert frame.area.item() == 20_000


def test_a_landslide_across_blocks_is_whole(tmp_path):
    grid = utm_grid(1100, 700)
    mask, probability, uncertainty = blank(grid), np.zeros((700, 1100)), np.full((700, 1100), 0.1)
    mask[500:530, 400:1060] = 1
    probability[mask == 1] = 0.6
    probability[525, 1050] = 0.97
    uncertainty[:, 600:] = 0.3
    folder = write_map(tmp_path, grid, mask, probability, uncertainty)
    rows, columns = np.mgrid[:700, :1100]
    terrain = write_terrain(tmp_path / "terrain.tif", grid, 1000 + columns - 2.0 * rows, 0.1, 0.2)
    frame, _ = landslide_polygons(folder, map_info(), terrain)
    row = frame.loc[0]
    assert len(frame) == 1
    assert frame.area.item() == 30 * 660 * 100
    assert row["prob_max"] == 0.97
    assert row["prob_mean"] == pytest.approx(0.6, abs=1e-4)
    assert row["std_mean"] == pytest.approx((200 * 0.1 + 460 * 0.3) / 660, abs=1e-4)
    assert (row["elev_min"], row["elev_max"]) == (1000 + 400 - 2 * 529, 1000 + 1059 - 2 * 500)
    assert row["runout_m"] == pytest.approx(np.hypot(659, 29) * 10, rel=1e-3)


@pytest.mark.parametrize(
    ("terrain_crs", "pixel", "origin"),
    [("EPSG:32633", 10, (430_000, 5_300_000)), ("EPSG:32633", 30, (429_911, 5_300_077)),
     ("EPSG:32633", 2, (429_990, 5_300_010)), ("EPSG:3035", 25, None)],
)  # fmt: skip
def test_attributes_on_a_tilted_plane(tmp_path, terrain_crs, pixel, origin):
    """The plane rises 0.3 per metre to the east and falls 0.4 per metre to the north."""
    grid = utm_grid(60, 50)
    mask = blank(grid)
    mask[10:20, 10:40] = 1
    if origin is None:
        corners = shapely.box(*grid.bounds)
        west, _, _, north = gpd.GeoSeries([corners], crs=grid.crs.to_wkt()).to_crs(terrain_crs).total_bounds
        origin = west - 100, north + 100
    size = int(1300 / pixel)
    plane = Grid(
        rasterio.crs.CRS.from_string(terrain_crs), Affine(pixel, 0, origin[0], 0, -pixel, origin[1]), size, size
    )
    x, y = rasterio.transform.xy(plane.transform, *np.mgrid[:size, :size])
    x, y = np.reshape(x, (size, size)), np.reshape(y, (size, size))
    if terrain_crs != "EPSG:32633":
        x, y = gpd.GeoSeries.from_xy(x.ravel(), y.ravel(), crs=terrain_crs).to_crs(32633).get_coordinates().T.to_numpy()
        x, y = x.reshape(size, size), y.reshape(size, size)
    elevation = 0.3 * (x - 430_000) - 0.4 * (y - 5_300_000)
    terrain = write_terrain(tmp_path / "terrain.tif", plane, elevation, 0.3, -0.4)
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), terrain)
    row = frame.loc[0]
    lowest, highest = 0.3 * 105 + 0.4 * 105, 0.3 * 395 + 0.4 * 195
    assert row["elev_min"] == pytest.approx(lowest, abs=0.1)
    assert row["elev_max"] == pytest.approx(highest, abs=0.1)
    assert row["elev_mean"] == pytest.approx((lowest + highest) / 2, abs=0.1)
    assert row["relief_m"] == pytest.approx(highest - lowest, abs=0.15)
    assert row["slope_mean"] == row["slope_max"] == round(np.degrees(np.arctan(0.5)), 1)
    assert row["aspect_mean"] == round(np.degrees(np.arctan2(-0.3, 0.4)) % 360, 1)
    assert row["runout_m"] == pytest.approx(np.hypot(290, 90), rel=1e-3)
    assert row["h_over_l"] == pytest.approx((highest - lowest) / np.hypot(290, 90), abs=2e-3)


def test_the_mean_aspect_is_circular(tmp_path):
    grid = utm_grid(40, 20)
    mask = blank(grid)
    mask[5:15, 10:30] = 1
    east = np.where(np.arange(40) < 20, np.tan(np.radians(10)), -np.tan(np.radians(10)))
    terrain = write_terrain(tmp_path / "terrain.tif", grid, 500.0, np.broadcast_to(east, (20, 40)), -1.0)
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), terrain)
    assert frame["aspect_mean"].item() % 360 == pytest.approx(0, abs=0.05)  # from 350 and 10 degrees, not 180


def test_flat_ground_has_no_aspect_and_no_angle(tmp_path):
    grid = utm_grid(40, 20)
    mask = blank(grid)
    mask[5:8, 10:30] = 1
    terrain = write_terrain(tmp_path / "terrain.tif", grid, 500.0, 0.0, 0.0)
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), terrain)
    row = frame.loc[0]
    assert row[["relief_m", "slope_mean", "runout_m"]].tolist() == [0, 0, 0]
    assert np.isnan(row["aspect_mean"])
    assert np.isnan(row["h_over_l"])


def test_terrain_attributes_come_from_the_pixels_with_elevation(tmp_path):
    grid = utm_grid(60, 20)
    mask = blank(grid)
    mask[5:15, 10:30] = mask[5:15, 40:50] = 1
    elevation = np.broadcast_to(np.arange(60.0), (20, 60)).copy()
    elevation[:, 20:] = np.nan
    gradient = np.where(np.isnan(elevation), np.nan, 0.1)
    terrain = write_terrain(tmp_path / "terrain.tif", grid, elevation, gradient, gradient)
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), terrain)
    assert frame.loc[0, ["elev_min", "elev_max", "elev_mean"]].tolist() == [10, 19, 14.5]
    assert frame.loc[0, "slope_mean"] == round(np.degrees(np.arctan(np.sqrt(0.02))), 1)
    assert frame.loc[1, TERRAIN_COLUMNS].isna().all()
    frame, _ = landslide_polygons(tmp_path, map_info(), None)
    assert frame[TERRAIN_COLUMNS].isna().all(axis=None)


def test_at_edge_is_the_edge_of_the_scene_or_of_what_was_analysed(tmp_path):
    grid = utm_grid(60, 60)
    mask = blank(grid)
    mask[0:5, 10:15] = 1
    mask[10:15, 55:60] = 1
    mask[20:25, 20:25] = 1
    mask[25, 25] = 255
    mask[40:45, 40:45] = 1
    mask[40:45, 47] = 255
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), None)
    assert frame["at_edge"].tolist() == [True, True, True, False]


def test_polygons_below_the_minimum_area_are_counted(tmp_path):
    grid = utm_grid(60, 60)
    mask = blank(grid)
    mask[5, 5:9] = mask[20:22, 20] = 1
    mask[40:45, 40:45] = mask[50:55, 10:20] = 1
    frame, below = landslide_polygons(write_map(tmp_path, grid, mask), map_info(minimum_area=1000), None)
    assert below == 2
    assert frame["id"].tolist() == [1, 2]
    assert frame.area.tolist() == [2500, 5000]
    assert frame["min_area_m2"].tolist() == [1000, 1000]


def test_polygons_are_numbered_from_north_to_south_then_west_to_east(tmp_path):
    grid = utm_grid(60, 60)
    mask = blank(grid)
    for row, column in ((40, 5), (10, 40), (10, 5), (25, 30)):
        mask[row : row + 4, column : column + 4] = 1
    frame, _ = landslide_polygons(write_map(tmp_path, grid, mask), map_info(), None)
    places = [~grid.transform @ (polygon.bounds[0], polygon.bounds[3]) for polygon in frame.geometry]
    assert places == [(5, 10), (40, 10), (30, 25), (5, 40)]


@pytest.mark.parametrize(
    ("probability", "uncertainty", "confidence"),
    [(0.9, 0.1, "high"), (0.8, 0.1, "medium"), (0.7, 0.1, "medium"), (0.65, 0.1, "low"), (0.9, 0.4, "low")],
)
def test_confidence_by_the_mean_minus_the_uncertainty(tmp_path, probability, uncertainty, confidence):
    grid = utm_grid(30, 30)
    mask = blank(grid)
    mask[10:20, 10:20] = 1
    folder = write_map(tmp_path, grid, mask, probability, uncertainty)
    frame, _ = landslide_polygons(folder, map_info(threshold=0.59), None)
    assert frame["confidence"].tolist() == [confidence]


def test_a_map_without_landslides_has_all_columns(tmp_path):
    grid = utm_grid(30, 30)
    folder = write_map(tmp_path, grid, blank(grid))
    frame, below = landslide_polygons(folder, map_info(), None)
    assert (len(frame), below) == (0, 0)
    assert list(frame.columns) == [*LANDSLIDE_COLUMNS, "geometry"]
    kinds = {"int": "i", "float": "f", "text": "O", "bool": "b"}
    assert [frame[name].dtype.kind for name in LANDSLIDE_COLUMNS] == [
        kinds[column.dtype] for column in LANDSLIDE_COLUMNS.values()
    ]
    assert list(not_analysed_polygons(folder).columns) == ["reason", "area_m2", "geometry"]


def test_what_was_not_analysed_by_reason(tmp_path):
    grid = utm_grid(60, 60)
    reasons = blank(grid)
    reasons[0:10] = Reason.NO_DATA
    reasons[30:40, 10:20] = Reason.CLOUD
    reasons[30:40, 20:30] = Reason.CLOUD_SHADOW
    reasons[50:55, 50:55] = Reason.CLOUD
    mask = np.where(reasons > 0, 255, 0)
    frame = not_analysed_polygons(write_map(tmp_path, grid, mask, reasons=reasons))
    assert frame["reason"].tolist() == ["no data", "cloud", "cloud shadow", "cloud"]
    assert frame.area.tolist() == [60_000, 10_000, 10_000, 2500]
    np.testing.assert_allclose(frame["area_m2"], equal_area(frame), rtol=1e-3)


@pytest.mark.parametrize("grid", [utm_grid(10_980, 10_980), degree_grid(11_000, 11_000)])
def test_footprint_and_area_of_interest(grid):
    footprint = image_footprint(grid)
    assert footprint.total_bounds.tolist() == list(grid.bounds)
    np.testing.assert_allclose(footprint["area_m2"], equal_area(footprint), rtol=1e-3)
    middle = grid.footprint.centroid
    given = gpd.GeoDataFrame(geometry=[middle.buffer(0.01), middle.buffer(0.02)], crs="OGC:CRS84")
    area = area_of_interest(grid, given)
    assert CRS(area.crs) == CRS(grid.crs)
    np.testing.assert_allclose(area["area_m2"], equal_area(area), rtol=1e-3)
    assert area_of_interest(grid, None).geometry.item() == footprint.geometry.item()


def test_the_source_quotes_everything():
    grid, info = utm_grid(10, 10), map_info(sensor=None, image_datetime=None)
    row = source_table(grid, info).iloc[0]
    assert row["model_address"] == info.model_address
    assert row["created"] == "2026-01-02T03:04:05+00:00"
    assert row["sensor"] is None
    assert row["image_datetime"] is None


@pytest.fixture
def confidence(real_data):
    folder = real_data / "sentinel2/landslide-confidence"
    if not folder.is_dir():
        pytest.skip(f"no confidence rasters in {folder}")
    return folder


def published_map(folder, scene):
    """A real confidence raster in percent as a map with the threshold 0.5."""
    with rasterio.open(scene / "Predict_LS_Conf.tif") as dataset:
        percent = dataset.read(1)
        grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
    with rasterio.open(scene / "MaskImage.tif") as dataset:
        mask = np.where(dataset.read(1) == 1, 255, percent >= 50)
    return write_map(folder, grid, mask, percent / 100, 0.0), grid, mask


def pixel_areas(grid):
    """Area in m2 of a pixel of each row of a grid in degrees: the closed form for a zone of the ellipsoid."""
    minor, eccentricity = 6_356_752.314245, 0.0818191908426
    sine = np.sin(np.radians(grid.bounds[3] + grid.transform.e * np.arange(grid.height + 1)))
    flattened = sine / (1 - (eccentricity * sine) ** 2) + np.arctanh(eccentricity * sine) / eccentricity
    return -np.diff(flattened) * minor**2 / 2 * np.radians(grid.transform.a)


def test_real_confidence_at_50_gives_the_mask_of_its_authors(confidence, tmp_path):
    folder, grid, _ = published_map(tmp_path, confidence / "area_5")
    frame, _ = landslide_polygons(folder, map_info(), None)
    with rasterio.open(confidence / "area_5/Predict_LS_HighConf_50.tif") as dataset:
        published = dataset.read(1)
    burnt = rasterio.features.rasterize(frame.geometry, published.shape, transform=grid.transform)
    np.testing.assert_array_equal(burnt, published)
    assert frame["area_m2"].sum() == pytest.approx((published.sum(axis=1) * pixel_areas(grid)).sum(), rel=1e-3)
    assert frame["prob_max"].max() == 0.99


def test_real_confidence_of_hokkaido_with_an_area_that_was_not_looked_at(confidence, tmp_path):
    folder, grid, mask = published_map(tmp_path, confidence / "area_1")
    everything, _ = landslide_polygons(folder, map_info(), None)
    expected = ((mask == 1).sum(axis=1) * pixel_areas(grid)).sum()
    assert everything["area_m2"].sum() == pytest.approx(expected, rel=1e-4)
    assert everything.is_valid.all()
    excluded = not_analysed_polygons(folder)
    expected = ((mask == 255).sum(axis=1) * pixel_areas(grid)).sum()
    assert excluded["area_m2"].sum() == pytest.approx(expected, rel=1e-4)
