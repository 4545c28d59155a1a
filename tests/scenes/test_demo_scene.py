"""The generated scene is what it says: bands, elevation and landslides at their places."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.features import rasterize

from landslide.cli import main
from landslide.data.demo import scene
from landslide.locks import locked
from landslide.scenes.demo_scene import write_demo_scene


def test_safe_folder_has_the_bands_of_the_product_at_their_resolutions(tmp_path):
    product = write_demo_scene(tmp_path, rows=1, columns=1, crop=(90, 100), clouds=True)
    files = {path.stem.rpartition("_")[2]: path for path in product.rglob("IMG_DATA/*.jp2")}
    assert len(files) == 13
    shapes = {}
    for name, path in files.items():
        with rasterio.open(path) as dataset:
            assert dataset.crs == "EPSG:32645"
            assert dataset.transform @ (0, 0) == (399_960, 3_100_020)
            shapes[name] = (dataset.transform.a, *dataset.shape)
    assert shapes["B02"] == (10, 90, 100)
    assert shapes["B8A"] == (20, 45, 50)
    assert shapes["B10"] == (60, 15, 17)
    with rasterio.open(next(product.rglob("MSK_CLASSI_B00.jp2"))) as dataset:
        assert dataset.count == 3
        assert all(layer.any() and not layer.all() for layer in dataset.read())


def test_values_elevation_and_landslides_are_those_of_the_generated_ground(tmp_path):
    product = write_demo_scene(tmp_path, rows=2, columns=1, seed=3)
    image, mask, elevation = scene(3, 1, 2 * 128 + 24, 128 + 24)
    inside = np.s_[12:-12, 12:-12]
    with rasterio.open(next(product.rglob("*_B04.jp2"))) as dataset:
        assert (dataset.read(1) == image[inside][..., 3] + 1000).all()
        grid = dataset.transform
    with rasterio.open(next(product.rglob("*_B11.jp2"))) as dataset:
        top_left = image[inside][:2, :2, 10].mean()
        assert abs(dataset.read(1)[0, 0] - 1000 - top_left) <= 0.5
    with rasterio.open(tmp_path / "dem.tif") as dataset:
        row, column = dataset.index(*(grid @ (0.5, 0.5)))
        assert (dataset.read(1)[row : row + 256, column : column + 128] == elevation[inside].astype(np.float32)).all()
    polygons = gpd.read_file(tmp_path / "landslides.gpkg", layer="landslides")
    assert (rasterize(polygons.geometry, out_shape=(256, 128), transform=grid) == mask[inside]).all()
    assert len(polygons) > 3


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_clouds_are_bright_and_classified(tmp_path, level):
    product = write_demo_scene(tmp_path, rows=1, columns=1, clouds=True, level=level)
    layer = "SCL_20m" if level == "L2A" else "MSK_CLASSI_B00"
    with rasterio.open(next(product.rglob(f"*{layer}.jp2"))) as dataset:
        cloud = dataset.read(1) == (9 if level == "L2A" else 1)
        step = round(dataset.transform.a / 10)
    band = next(product.rglob("*_B04_10m.jp2" if level == "L2A" else "*_B04.jp2"))
    with rasterio.open(band) as dataset:
        bright = dataset.read(1) == 7500
    assert bright.any()
    classified = np.kron(cloud, np.ones((step, step), bool))[: bright.shape[0], : bright.shape[1]]
    assert (classified & bright).sum() > 0.95 * bright.sum()
    assert any(product.rglob("*B10*")) == (level == "L1C")


def test_the_command_fills_the_folder_where_it_runs_and_refuses_one_with_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["data", "scene", "."])
    assert done.exit_code == 0, done.output
    assert {"dem.tif", "landslides.gpkg"} < {path.name for path in tmp_path.iterdir()}
    again = CliRunner().invoke(main, ["data", "scene", str(tmp_path)])
    assert again.exit_code == 1
    assert f"{tmp_path} exists and is not an empty folder" in again.output
    with locked(tmp_path / ".new.lock"):
        twice = CliRunner().invoke(main, ["data", "scene", str(tmp_path / "new")])
    assert isinstance(twice.exception, SystemExit)
    assert "is locked by" in twice.output
