"""`landslide data tile` from a shell's point of view."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result

from landslide.cli import main
from landslide.data.patches import read_stored
from landslide.scenes.demo_scene import write_demo_scene
from tests.support.sentinel2 import sentinel2_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ground")
    write_demo_scene(folder, rows=1, columns=2)
    return folder


def tile(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "tile", *map(str, arguments)])


def test_a_product_becomes_patches_that_the_check_accepts(ground, tmp_path):
    (product,) = ground.glob("*.SAFE")
    given = (product, "--dem", ground / "dem.tif", "--labels", ground / "landslides.gpkg", "-o", tmp_path / "set")
    done = tile(*given)
    assert done.exit_code == 0, done.output
    assert "2 of 2 windows became patches" in done.output
    assert f"landslide data use {tmp_path / 'set'}\n" in done.output
    checked = CliRunner().invoke(main, ["data", "check", str(tmp_path / "set")])
    assert checked.exit_code == 0, checked.output
    assert "no warnings" in checked.output
    again = tile(*given)
    assert "0 new, 0 changed, 2 unchanged, 0 removed" in again.output


def test_other_bands_are_named_for_the_next_command(ground, tmp_path):
    (product,) = ground.glob("*.SAFE")
    done = tile(
        product, "--labels", ground / "landslides.gpkg", "-o", tmp_path / "set",
        "--bands", "B4,B3,B2", "--units", "reflectance",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "--bands B4,B3,B2\n" in done.output
    assert done.output.endswith("bands: {stored: [B4, B3, B2], units: reflectance}\n")
    image = read_stored(tmp_path / "set/TrainData/img/image_1.h5", 3)
    assert 0 < image.min() < image.max() < 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--labels", "{ground}/landslides.gpkg"), 1, "no elevation model"),
        (("--labels", "{ground}/no.gpkg", "--bands", "B4"), 1, "There is no file"),
        (("--labels", "{ground}/landslides.gpkg", "--bands", "B4", "--layer", "x"), 1, "has no layer x; it has"),
        (("--labels", "{ground}/landslides.gpkg", "--bands", "B4,B8A"), 1, "B8A"),
        (("--labels", "a", "--labels", "b"), 2, "scenes: 1, files of labels: 2"),
        (
            ("--labels", "{ground}/landslides.gpkg", "--bands", "B4", "--area", "10,10,11,11"),
            1,
            "lies outside the scene",
        ),
        (("--labels", "{ground}/dem.tif", "--bands", "B4"), 1, "has other values than 0, 1 and 255"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(ground, tmp_path, arguments, code, message):
    (product,) = ground.glob("*.SAFE")
    given = [argument.format(ground=ground) for argument in arguments]
    done = tile(product, "-o", tmp_path / "set", *given)
    assert done.exit_code == code
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / ".set.partial").exists()


def test_a_real_scene_becomes_patches(real_data, tmp_path):
    folder = sentinel2_folder(real_data) / "l1c-jp2-bands"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    labels = tmp_path / "landslides.tif"
    source = next(folder.rglob("*B04*"))
    with rasterio.open(source) as band:
        profile = {**band.profile, "driver": "GTiff", "dtype": "uint8", "count": 1, "nodata": None}
        profile = {name: profile[name] for name in ("driver", "dtype", "count", "width", "height", "crs", "transform")}
        mask = np.zeros(band.shape, np.uint8)
        mask[20:60, 20:60] = 1
        with rasterio.open(labels, "w", **profile) as target:
            target.write(mask, 1)
    done = tile(
        folder, "--labels", labels, "-o", tmp_path / "set", "--bands", "B4,B3,B2", "--level", "L1C",
        "--quantification", 10000, "--offset", 0,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert " with landslides" in done.output
