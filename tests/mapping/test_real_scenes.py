"""Maps of real Sentinel-2 material from end to end, by networks with random weights."""

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from click.testing import CliRunner

from landslide.bands.formulas import BandSettings
from landslide.cli.map import map_command
from landslide.inference.ensemble import load_ensemble, save_ensemble
from landslide.schema import PATCH_SIZE
from tests.support import versions
from tests.support.sentinel2 import sentinel2_folder

pytestmark = pytest.mark.slow

SURFACE = BandSettings(stored=("B2", "B3", "B4", "B5", "B8", "B11"), level="L2A", units="reflectance")


@pytest.fixture(scope="module")
def sentinel2(real_data):
    return sentinel2_folder(real_data)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder with a model for L1C, with bands of all resolutions and terrain, and one for L2A without terrain."""
    folder = tmp_path_factory.mktemp("models")
    bands = {"L1C": ("B4", "B5", "B10", "gray", "slope", "dem"), "L2A": ("B4", "B5", "B11", "gray")}
    for level, settings in {"L1C": BandSettings(), "L2A": SURFACE}.items():
        save_ensemble(folder / level, versions.members(folder / f"{level} members", bands=bands[level]), settings)
    return folder


@pytest.fixture
def landslide_map(tmp_path):
    """Run `landslide map`: first the dry run, whose text is returned, then the map, with its folder and summary."""

    def run(scene, *options):
        arguments = [str(scene), *map(str, options), "-o", str(tmp_path), "--overlap", "0", "--min-area", "0"]
        said = [CliRunner().invoke(map_command, [*arguments, option]) for option in ("--dry-run", "--json")]
        assert [done.exit_code for done in said] == [0, 0], [done.output for done in said]
        summary = json.loads(said[1].stdout)
        return said[0].stdout, tmp_path / summary["scene"], summary

    return run


def read(path, window=None):
    with rasterio.open(path) as raster:
        return raster.read(window=window)


def test_jpeg_2000_bands_of_three_resolutions_with_a_plane_as_elevation_model(
    sentinel2, models, landslide_map, tmp_path
):
    scene = sentinel2 / "l1c-jp2-bands"
    with rasterio.open(next(scene.glob("*_B02.jp2"))) as band:
        bounds, crs, shape = band.bounds, band.crs, band.shape
    corner = Affine(30, 0, bounds.left - 300, 0, -30, bounds.top + 300)
    columns = np.indices((280, 540))[1]
    plane = (300 + 3 * columns).astype(np.float32)  # rises by a tenth of the way to the east
    with rasterio.open(
        tmp_path / "dem.tif", "w", driver="GTiff", width=540, height=280, count=1, dtype="float32", crs=crs,
        transform=corner,
    ) as dem:  # fmt: skip
        dem.write(plane, 1)
    said, folder, summary = landslide_map(
        scene, "--model", models / "L1C", "--dem", tmp_path / "dem.tif",
        "--quantification", "10000", "--offset", "0", "--level", "L1C",
    )  # fmt: skip
    assert "number x 0.0001 +0 (options)" in said
    assert "72, each 128 x 128 pixels" in said
    assert "100.0 % of the scene" in said
    assert summary["not_analysed"] == 0
    (note,) = summary["notes"]
    assert "nothing says where clouds are" in note
    with rasterio.open(folder / "probability.tif") as probability:
        assert (probability.shape, probability.bounds, probability.crs) == (shape, bounds, crs)
    polygons = gpd.read_file(folder / "landslides.gpkg", layer="landslides")
    assert len(polygons) == summary["landslides"] > 10
    np.testing.assert_allclose(polygons["slope_mean"], np.rad2deg(np.arctan(0.1)), atol=0.06)
    centres = polygons.centroid.x
    expected = 300 + 0.1 * (centres - corner.c - 15)
    np.testing.assert_allclose(polygons["elev_mean"], expected, atol=0.15)


def test_reflectance_with_its_elevation_model_smaller_than_a_window(sentinel2, models, landslide_map):
    folder = sentinel2 / "l1c-stack-with-dem"
    said, made, summary = landslide_map(
        folder / "eolearn_S2L1C_2015-07-11.tif", "--model", models / "L1C", "--dem", folder / "eolearn_DEM.tif",
        "--quantification", "1", "--offset", "0", "--level", "L1C",
    )  # fmt: skip
    assert "4, each 96 x 96 pixels" in said
    assert "number x 1 +0 (options)" in said
    assert summary["not_analysed"] == 0
    small, clouds = summary["notes"]
    assert "smaller than a training patch" in small
    assert "nothing says where clouds are" in clouds
    polygons = gpd.read_file(made / "landslides.gpkg", layer="landslides")
    elevation = read(folder / "eolearn_DEM.tif")
    assert len(polygons) > 3
    assert polygons["elev_min"].min() >= elevation.min() - 0.1
    assert polygons["elev_max"].max() <= elevation.max() + 0.1


def test_surface_reflectance_with_the_offset_of_its_metadata(sentinel2, models, landslide_map):
    path = sentinel2 / "l2a-stack/20231217.tif"
    said, folder, summary = landslide_map(path, "--model", models / "L2A")
    assert "Sentinel-2B, level L2A, baseline 05.10, 2023-12-17" in said
    assert "number x 0.0001 -0.1" in said
    with rasterio.open(path) as raster:
        columns = [raster.descriptions.index(name) for name in ("B02", "B03", "B04", "B05", "B08", "B11")]
    reflectance = (read(path)[columns].astype(np.float64) - 1000) / 10_000
    missing = ~np.isfinite(reflectance).all(axis=0)
    assert missing.sum() == 436
    probability = read(folder / "probability.tif")[0]
    np.testing.assert_array_equal(probability == 65535, missing)
    assert summary["not_analysed"] == pytest.approx(missing.mean())
    assert set(gpd.read_file(folder / "landslides.gpkg", layer="not_analysed")["reason"]) == {"no data"}
    ensemble = load_ensemble(models / "L2A", torch.device("cpu"))
    down, across = (length - PATCH_SIZE for length in missing.shape)  # where the last windows start
    first, last = np.s_[:PATCH_SIZE, :PATCH_SIZE], np.s_[down:, across:]
    in_one_window = np.s_[:down, :across], np.s_[PATCH_SIZE:, PATCH_SIZE:]
    for window, part in zip((first, last), in_one_window, strict=True):
        expected = np.full(missing.shape, np.nan)
        expected[window] = ensemble.predict(reflectance[None, :, *window])[0][0]
        found = np.where(missing, np.nan, probability * 1e-4)
        np.testing.assert_allclose(found[part], expected[part], atol=0.0002)
