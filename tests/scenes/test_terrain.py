"""Slope and gradients compared with closed forms, SciPy and GDAL; elevation models as users have them."""

import math
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from scipy.ndimage import correlate

from landslide.errors import DataError
from landslide.scenes.grid import Grid
from landslide.scenes.terrain import BANDS, horn, prepare_terrain

UTM = CRS.from_epsg(32645)
SCENE = Grid(UTM, Affine(10, 0, 400_000, 0, -10, 3_100_000), 90, 70)


def write(path, values, transform, crs=UTM, nodata=-9999.0, **options):
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": values.dtype,
        "nodata": nodata,
        "crs": crs,
        "transform": transform,
    }
    with rasterio.open(path, "w", height=values.shape[0], width=values.shape[1], **profile, **options) as dataset:
        dataset.write(values, 1)
    return path


def around(pixel=10.0, margin=100.0, crs=UTM):
    """Coordinates of pixel centres, and the transform, of a raster around the scene."""
    left, bottom, right, top = SCENE.bounds
    if crs != UTM:
        left, bottom, right, top = rasterio.warp.transform_bounds(UTM, crs, *SCENE.bounds)
    transform = Affine(pixel, 0, left - margin, 0, -pixel, top + margin)
    x = np.arange(left - margin + pixel / 2, right + margin, pixel)
    y = np.arange(top + margin - pixel / 2, bottom - margin, -pixel)
    return *np.meshgrid(x, y), transform


def rough(x, y):
    z = 800 + 90 * np.sin(x / 160) + 70 * np.cos(y / 110) + np.random.default_rng(0).normal(0, 3, x.shape)
    return z.astype(np.float32)


def read(terrain):
    with rasterio.open(terrain.path) as dataset:
        assert dataset.descriptions == BANDS
        return dataset.read(), Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)


def test_slope_of_a_plane_up_to_the_edges_of_the_data(tmp_path):
    x, y, transform = around(margin=0)
    z = (500 + 0.3 * (x - 400_000) - 0.4 * (y - 3_100_000)).astype(np.float32)
    z[20:25, 30:33] = -9999
    terrain = prepare_terrain([write(tmp_path / "dem.tif", z, transform)], SCENE, tmp_path)
    layers, grid = read(terrain)
    known = np.isfinite(layers[0])
    assert known.sum() == z.size - 15
    assert terrain.coverage == pytest.approx(1 - 15 / z.size, abs=1e-6)
    assert (np.isnan(layers) == ~known).all()
    assert layers[1][known] == pytest.approx(math.degrees(math.atan(0.5)), abs=1e-3)
    assert layers[2][known] == pytest.approx(0.3, abs=1e-4)
    assert layers[3][known] == pytest.approx(-0.4, abs=1e-4)
    assert grid.transform @ (4, 4) == (400_000, 3_100_000)


def test_slope_equals_an_independent_computation_in_one_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("landslide.scenes.terrain._ROWS", 16)  # many blocks
    x, y, transform = around(pixel=12.5)
    z = rough(x, y)
    layers, grid = read(prepare_terrain([write(tmp_path / "dem.tif", z, transform)], SCENE, tmp_path))
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / (8 * 12.5)
    east, south = correlate(z.astype(float), kernel), correlate(z.astype(float), kernel.T)
    column, row = map(round, ~transform @ (grid.transform @ (0, 0)))
    inside = np.s_[row : row + grid.height, column : column + grid.width]
    expected = np.stack([z, np.degrees(np.arctan(np.hypot(east, south))), east, -south])[:, *inside]
    inner = np.s_[:, 1:-1, 1:-1]  # the raster ends there, and its edge is extrapolated
    assert np.abs(layers - expected)[inner].max() < 1e-4
    assert expected[1].max() > 30


@pytest.mark.skipif(shutil.which("gdaldem") is None, reason="gdaldem is not installed (Debian: gdal-bin)")
def test_slope_equals_gdaldem(tmp_path):
    x, y, transform = around()
    z = rough(x, y)
    z[40:43, 50:60] = -9999
    path = write(tmp_path / "dem.tif", z, transform)
    subprocess.run(["gdaldem", "slope", "-q", path, tmp_path / "slope.tif"], check=True)
    layers, grid = read(prepare_terrain([path], SCENE, tmp_path))
    with rasterio.open(tmp_path / "slope.tif") as dataset:
        column, row = map(round, ~transform @ (grid.transform @ (0, 0)))
        expected = dataset.read(1, masked=True)[row : row + grid.height, column : column + grid.width]
    compared = ~expected.mask
    compared[[0, -1]] = compared[:, [0, -1]] = False
    assert compared.mean() > 0.9
    assert np.abs(layers[1] - expected.data)[compared].max() < 1e-3


def test_horn_without_any_neighbour():
    z = np.full((3, 3), np.nan, np.float32)
    z[1, 1] = 7
    assert [float(layer[0, 0]) for layer in horn(z, 10, 10)] == [0, 0, 0]
    z[1, 1], z[1, 2] = np.nan, 3
    assert all(np.isnan(layer[0, 0]) for layer in horn(z, 10, 10))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:2263"])
def test_models_that_are_not_in_metres_are_warped(tmp_path, crs):
    """Degrees, Web Mercator (its metres are none on the ground), and feet."""
    place = {"EPSG:2263": CRS.from_epsg(32618)}.get(crs, UTM)
    scene = SCENE if place == UTM else Grid(place, Affine(10, 0, 583_000, 0, -10, 4_507_000), 90, 70)
    left, bottom, right, top = scene.bounds
    warp = rasterio.warp.transform(place, crs, [left - 300, right + 300], [top + 300, bottom - 300])
    pixel = (warp[0][1] - warp[0][0]) / 150
    transform = Affine(pixel, 0, warp[0][0], 0, -pixel, warp[1][0])
    rows, columns = int((warp[1][0] - warp[1][1]) / pixel), 150
    x, y = transform.c + pixel * (np.arange(columns) + 0.5), transform.f - pixel * (np.arange(rows) + 0.5)
    x, y = np.meshgrid(x, y)
    east, north = rasterio.warp.transform(crs, place, x.ravel(), y.ravel())
    z = (900 + 0.2 * (np.array(east) - left) + 0.1 * (np.array(north) - top)).astype(np.float32).reshape(x.shape)
    terrain = prepare_terrain([write(tmp_path / "dem.tif", z, transform, crs)], scene, tmp_path)
    layers, grid = read(terrain)
    assert grid.crs == place
    assert terrain.coverage == 1
    inner = np.s_[:, 3:-3, 3:-3]
    assert np.abs(layers[inner][2] - 0.2).max() < 1e-3
    assert np.abs(layers[inner][3] - 0.1).max() < 1e-3
    column, row = ~grid.transform @ (left, top)
    assert layers[0][round(row), round(column)] == pytest.approx(900, abs=3)


def test_tiles_are_joined_without_a_seam(tmp_path):
    """Two tiles in degrees that share an edge: the interpolation runs across it."""
    left, bottom, right, top = rasterio.warp.transform_bounds(UTM, "EPSG:4326", *SCENE.bounds)
    pixel, edge = 3e-4, 20
    transform = Affine(pixel, 0, left - 10 * pixel, 0, -pixel, top + 10 * pixel)
    rows, columns = int((top - bottom) / pixel) + 20, int((right - left) / pixel) + 20
    z = (20.0 * np.arange(columns) + np.zeros((rows, 1))).astype(np.float32)
    whole = write(tmp_path / "whole.tif", z, transform, "EPSG:4326")
    west = write(tmp_path / "west.tif", z[:, :edge], transform, "EPSG:4326")
    east = write(tmp_path / "east.tif", z[2:, edge:], transform @ Affine.translation(edge, 2), "EPSG:4326", -1.0)
    expected, _ = read(prepare_terrain([whole], SCENE, tmp_path))
    actual, _ = read(prepare_terrain([east, west], SCENE, tmp_path))
    assert np.nanmax(np.abs(actual - expected)) < 1e-3
    assert (np.isnan(actual) == np.isnan(expected)).mean() > 0.99


def test_first_model_counts_and_others_fill_what_it_lacks(tmp_path):
    x, _, transform = around()
    z = np.full(x.shape, 100, np.float32)
    z[:30] = -9999
    first = write(tmp_path / "a.tif", z, transform)
    coarse_x, _, coarse = around(pixel=25)
    second = write(tmp_path / "b.tif", np.full(coarse_x.shape, 200, np.int16), coarse, nodata=None)
    layers, grid = read(prepare_terrain([first, second], SCENE, tmp_path))
    assert grid.transform.a == 10
    assert set(np.unique(layers[0])) == {100, 200}
    row = round((~grid.transform @ (transform @ (0, 30)))[1])
    assert (layers[0][:row] == 200).all()
    assert (layers[0][row:] == 100).all()


@pytest.mark.parametrize("fill", [-9999, -32768, 3.4e38, math.inf, math.nan])
@pytest.mark.parametrize("pixel", [10.0, 25.0])
def test_fill_values_that_the_file_does_not_declare(tmp_path, fill, pixel):
    """As if they were declared: the next model fills them, and nothing beside them is mixed with them."""
    x, y, transform = around(pixel)
    z = rough(x, y)
    z[12:20, 15:30] = fill
    bare = write(tmp_path / "bare.tif", z, transform, nodata=None)
    declared = write(tmp_path / "declared.tif", z, transform, nodata=fill)
    expected, actual = (prepare_terrain([path], SCENE, tmp_path) for path in (declared, bare))
    assert expected.impossible == 0
    hole = 8 * 15 * pixel**2 / (SCENE.width * SCENE.height * 100)
    assert actual.impossible == (0 if math.isnan(fill) else pytest.approx(hole, rel=0.3))
    assert actual.coverage == expected.coverage < 1
    layers = [read(prepare_terrain([path], SCENE, tmp_path))[0] for path in (declared, bare)]
    np.testing.assert_array_equal(*layers)
    second = write(tmp_path / "second.tif", np.full(z.shape, 200, np.int16), transform, nodata=None)
    filled, _ = read(prepare_terrain([bare, second], SCENE, tmp_path))
    assert (filled[0][np.isnan(layers[0][0])] == 200).all()


def test_heights_that_are_possible_keep_their_bits(tmp_path):
    x, _, transform = around()
    z = np.linspace(-500, 9000, x.size, dtype=np.float32).reshape(x.shape)
    layers, grid = read(prepare_terrain([write(tmp_path / "dem.tif", z, transform)], SCENE, tmp_path))
    column, row = map(round, ~transform @ (grid.transform @ (0, 0)))
    np.testing.assert_array_equal(layers[0], z[row : row + grid.height, column : column + grid.width])


def test_a_model_in_other_units_is_refused(tmp_path):
    x, _, transform = around()
    path = write(tmp_path / "dem.tif", np.full(x.shape, 21_000, np.uint16), transform, nodata=0)
    with pytest.raises(DataError, match=r"dem\.tif has no height between -500 and 9000 m there"):
        prepare_terrain([path], SCENE, tmp_path)


@pytest.mark.parametrize("nodata", [None, -9999])
def test_a_mask_in_the_file(tmp_path, nodata):
    x, _, transform = around()
    z = np.full(x.shape, 100, np.int16)
    z[12:20, 15:30] = 0
    path = write(tmp_path / "dem.tif", z, transform, nodata=nodata)
    mask = np.where(z == 0, 0, 255).astype(np.uint8)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    layers, _ = read(prepare_terrain([path], SCENE, tmp_path))
    assert np.isnan(layers[0]).sum() == 8 * 15
    assert (layers[0][~np.isnan(layers[0])] == 100).all()


def test_partial_coverage_is_told(tmp_path):
    x, _, transform = around()
    z = np.full(x.shape, 100, np.float32)
    path = write(tmp_path / "dem.tif", z[:, : 10 + 45], transform)
    assert prepare_terrain([path], SCENE, tmp_path).coverage == pytest.approx(0.5)


def test_scaled_integers(tmp_path):
    x, _, transform = around()
    path = write(tmp_path / "dem.tif", np.full(x.shape, 250, np.uint16), transform, nodata=0)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = [0.5], [-25]
    layers, _ = read(prepare_terrain([path], SCENE, tmp_path))
    assert (layers[0] == 100).all()


def test_models_that_cannot_be_used(tmp_path):
    x, y, transform = around()
    z = rough(x, y)
    far = write(tmp_path / "far.tif", z, Affine.translation(30_000, 0) @ transform)
    with pytest.raises(DataError, match=r"far\.tif is (28|29)\.\d km away from the scene") as error:
        prepare_terrain([far], SCENE, tmp_path)
    assert "longitude 85." in error.value.what
    empty = write(tmp_path / "empty.tif", np.full_like(z, -9999), transform)
    with pytest.raises(DataError, match=r"empty\.tif has no data there"):
        prepare_terrain([empty], SCENE, tmp_path)
    with pytest.raises(DataError, match=r"none\.tif has no coordinate reference system"):
        prepare_terrain([write(tmp_path / "none.tif", z, transform, None)], SCENE, tmp_path)
    with pytest.raises(DataError, match=r"nowhere\.tif is not georeferenced"):
        prepare_terrain([write(tmp_path / "nowhere.tif", z, Affine.identity())], SCENE, tmp_path)
    feet = write(tmp_path / "feet.tif", z, transform)
    with rasterio.open(feet, "r+") as dataset:
        dataset.units = ["ft"]
    with pytest.raises(DataError, match=r"feet\.tif: its elevations are in ft"):
        prepare_terrain([feet], SCENE, tmp_path)
    scaled = write(tmp_path / "scaled.tif", z, transform)
    with rasterio.open(scaled, "r+") as dataset:
        dataset.scales, dataset.offsets = [0], [5]
    with pytest.raises(DataError, match=r"scaled\.tif: its tags say scale 0 and offset 5, which cannot be"):
        prepare_terrain([scaled], SCENE, tmp_path)
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(feet.read_bytes()[:5000])
    for path in (damaged, tmp_path / "missing.tif"):
        with pytest.raises(DataError, match="cannot be read"):
            prepare_terrain([path], SCENE, tmp_path)


def test_a_failed_run_leaves_no_terrain(tmp_path):
    x, y, transform = around()
    path = write(tmp_path / "dem.tif", rough(x, y), transform)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot be read"):
        prepare_terrain([path], SCENE, tmp_path)
    assert not list(tmp_path.glob("*terrain*"))


@pytest.mark.parametrize("order", [(179, -180), (-180, 179)])
def test_tiles_on_both_sides_of_the_180th_meridian_join(tmp_path, order):
    """As those of the Copernicus DEM, in degrees; the scene lies on both."""
    pixel, crs = 1 / 1200, CRS.from_epsg(32601)
    steps = pixel * (np.arange(1200) + 0.5)
    for west in order:
        east_of_179 = (west - 179) % 360 + steps
        z = (500 * east_of_179[None, :] + 300 * (1 - steps[:, None])).astype(np.float32)
        write(tmp_path / f"{west}.tif", z, Affine(pixel, 0, west, 0, -pixel, 65), "EPSG:4326")
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [180], [64.5])
    scene = Grid(crs, Affine(10, 0, round(x) - 2000, 0, -10, round(y) + 2000), 400, 400)
    terrain = prepare_terrain([tmp_path / f"{west}.tif" for west in order], scene, tmp_path)
    assert terrain.coverage == 1
    layers, grid = read(terrain)
    rows, columns = np.indices(layers[0].shape)
    xs, ys = grid.transform @ (columns.ravel() + 0.5, rows.ravel() + 0.5)
    longitude, latitude = map(np.array, rasterio.warp.transform(crs, "EPSG:4326", xs, ys))
    expected = 500 * ((longitude - 179) % 360) + 300 * (latitude - 64)
    assert layers[0].ravel() == pytest.approx(expected, abs=0.01)
    assert layers[1] == pytest.approx(np.median(layers[1]), abs=0.01)


def test_longitudes_from_0_to_360(tmp_path):
    pixel, crs = 1 / 4, CRS.from_epsg(32618)
    longitude = pixel * (np.arange(1440) + 0.5)
    z = np.broadcast_to(10 * longitude, (80, 1440)).astype(np.float32)
    path = write(tmp_path / "dem.tif", z, Affine(pixel, 0, 0, 0, -pixel, 10), "EPSG:4326")
    scene = Grid(crs, Affine(1000, 0, 450_000, 0, -1000, 50_000), 100, 100)
    layers, grid = read(prepare_terrain([path], scene, tmp_path))
    (x,), _ = rasterio.warp.transform(crs, "EPSG:4326", *([v] for v in grid.transform @ (2.5, 2.5)))
    assert np.isfinite(layers[0]).all()
    assert layers[0, 2, 2] == pytest.approx(10 * (x + 360), abs=0.1)


@pytest.mark.parametrize(
    ("west", "meridian", "zone"),
    [(-180, 180, 32601), (-180, -179.999, 32601), (-180, 180, 32660), (0, 180, 32601), (0, 0, 32631), (0, 0, 32630)],
)
def test_a_global_model_is_its_own_neighbour_at_its_edge(tmp_path, west, meridian, zone):
    pixel, crs = 1 / 20, CRS.from_epsg(zone)

    def height(longitude):
        return 1000 + 800 * np.sin(np.radians(20 * longitude))

    z = np.broadcast_to(height(west + pixel * (np.arange(7200) + 0.5)), (400, 7200)).astype(np.float32)
    path = write(tmp_path / "dem.tif", z, Affine(pixel, 0, west, 0, -pixel, 10), "EPSG:4326")
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [meridian], [1.0])
    scene = Grid(crs, Affine(1000, 0, round(x) - 50_000, 0, -1000, round(y) + 50_000), 100, 100)
    terrain = prepare_terrain([path], scene, tmp_path)
    assert (terrain.coverage, terrain.impossible) == (1, 0)
    layers, grid = read(terrain)
    rows, columns = np.indices(layers[0].shape)
    xs, ys = grid.transform @ (columns.ravel() + 0.5, rows.ravel() + 0.5)
    longitude, _ = map(np.array, rasterio.warp.transform(crs, "EPSG:4326", xs, ys))
    assert layers[0].ravel() == pytest.approx(height(longitude), abs=0.1)


def test_a_model_from_east_to_west_covers_both_sides_of_the_180th_meridian(tmp_path):
    pixel, crs = 1 / 100, CRS.from_epsg(32701)
    z = np.broadcast_to(np.arange(200, dtype=np.float32), (200, 200))  # rises to the west
    path = write(tmp_path / "dem.tif", z, Affine(-pixel, 0, 181, 0, -pixel, -16), "EPSG:4326")
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", crs, [180], [-17])
    scene = Grid(crs, Affine(100, 0, round(x) - 10_000, 0, -100, round(y) + 10_000), 200, 200)
    terrain = prepare_terrain([path], scene, tmp_path)
    assert terrain.coverage == 1
    layers, grid = read(terrain)
    rows, columns = np.indices(layers[0].shape)
    longitude, _ = rasterio.warp.transform(
        crs, "EPSG:4326", *(grid.transform @ (columns.ravel() + 0.5, rows.ravel() + 0.5))
    )
    assert layers[0].ravel() == pytest.approx((181 - np.array(longitude) % 360) / pixel - 0.5, abs=0.1)


def test_a_model_whose_pixels_go_around_the_globe_is_refused(tmp_path):
    path = write(tmp_path / "dem.tif", np.zeros((200, 1), np.float32), Affine(360, 0, -180, 0, -0.01, 29), "EPSG:4326")
    with pytest.raises(DataError, match=r"dem\.tif: its pixels have no width or no height on the ground"):
        prepare_terrain([path], SCENE, tmp_path)


def test_impossible_heights_between_180_and_360_degrees_are_counted(tmp_path):
    pixel, crs = 1 / 4, CRS.from_epsg(32618)
    z = np.full((80, 1440), 100, np.float32)
    z[:, round(285 / pixel) :] = 30_000  # from 75 degrees west, the middle of the scene
    path = write(tmp_path / "dem.tif", z, Affine(pixel, 0, 0, 0, -pixel, 10), "EPSG:4326")
    scene = Grid(crs, Affine(1000, 0, 450_000, 0, -1000, 50_000), 100, 100)
    terrain = prepare_terrain([path], scene, tmp_path)
    assert terrain.impossible == pytest.approx(0.5, abs=0.02)
