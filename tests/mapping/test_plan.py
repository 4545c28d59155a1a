"""What decides a map: the identity by which a map that is there already is known, and the space that a map needs."""

import os
import shutil
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from rasterio.crs import CRS

from landslide.errors import DataError
from landslide.mapping.plan import make_plan
from landslide.mapping.settings import MappingSettings
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene
from tests.support.map_models import ground, write_stack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A product of level L2A with its scene classification."""
    return write_demo_scene(tmp_path_factory.mktemp("product"), layout="SAFE", rows=1, columns=1, level="L2A")


@pytest.fixture
def stack(tmp_path):
    return write_stack(tmp_path / "scene.tif", ground(128, 128)[0], "EPSG:32645", Affine(10, 0, 4e5, 0, -10, 31e5))


def plan_of(model, scene, *, dem=(), **exclusions):
    return make_plan(scene, model, MappingSettings(), ExclusionSettings(**exclusions), dem)


def identity(model, scene, **options):
    return plan_of(model, scene if hasattr(scene, "grid") else open_scene(scene), **options).identity


def different(before, after):
    return [part for part in before if before[part] != after[part]]


def elevation(path, height=100.0):
    raster = {"driver": "GTiff", "dtype": "float32", "count": 1, "width": 4, "height": 4, "crs": "EPSG:32645"}
    with rasterio.open(path, "w", transform=Affine(1000, 0, 399e3, 0, -1000, 3101e3), **raster) as dataset:
        dataset.write(np.full((1, 4, 4), height, np.float32))
    return str(path)


def shapefile(path):
    gpd.GeoDataFrame(geometry=[shapely.box(4e5, 3099e3, 401e3, 31e5)], crs="EPSG:32645").to_file(path)
    return str(path)


@pytest.mark.parametrize(
    "change",
    [{"level": "L1C"}, {"baseline": "05.09"}, {"sensor": "Sentinel-2C"}, {"datetime": None}],
    ids=lambda change: next(iter(change)),
)
def test_what_a_scene_says_about_itself_belongs_to_its_identity(bright, product, change):
    scene = open_scene(product)
    assert different(identity(bright, scene), identity(bright, replace(scene, **change))) == ["scene"]


def test_saturated_values_and_the_grid_belong_to_the_identity(bright, product):
    scene = open_scene(product)
    bands = {name: replace(band, saturated=4095.0) for name, band in scene.bands.items()}
    moved = replace(scene.grid, transform=scene.grid.transform @ Affine.translation(1, 0))
    for other in (replace(scene, bands=bands), replace(scene, grid=moved)):
        assert different(identity(bright, scene), identity(bright, other)) == ["scene"]


def test_a_changed_classification_is_another_scene(bright, product, tmp_path):
    copy = shutil.copytree(product, tmp_path / product.name)
    before = identity(bright, copy)
    os.utime(open_scene(copy).classification.scene.path, (1, 1))
    assert different(before, identity(bright, copy)) == ["scene"]


def test_the_order_of_elevation_models_counts(bright, stack, tmp_path):
    models = [elevation(tmp_path / "a.tif", 100), elevation(tmp_path / "b.tif", 200)]
    found = [identity(bright, stack, dem=order) for order in (models, models[::-1])]
    assert different(*found) == ["elevation model"]


def test_a_file_is_the_same_by_any_path(bright, stack, tmp_path, monkeypatch):
    models, mask = [elevation(tmp_path / "a.tif")], shapefile(tmp_path / "mask.shp")
    before = identity(bright, stack, dem=models, masks=(mask,), area=mask)
    monkeypatch.chdir(tmp_path)
    assert identity(bright, "scene.tif", dem=("a.tif",), masks=("mask.shp",), area="mask.shp") == before
    assert different(before, identity(bright, stack, dem=models, masks=(mask,))) == ["area, masks or clouds"]


@pytest.mark.parametrize("suffix", [".prj", ".dbf", ".shx", ".shp"])
def test_every_part_of_a_shapefile_counts(bright, stack, tmp_path, suffix):
    mask = shapefile(tmp_path / "mask.shp")
    uses = {"masks": (mask,)}, {"area": mask}
    before = [identity(bright, stack, **use) for use in uses]
    os.utime(tmp_path / f"mask{suffix}", (1, 1))
    for use, one in zip(uses, before, strict=True):
        assert different(one, identity(bright, stack, **use)) == ["area, masks or clouds"]


def test_what_files_beside_a_raster_say_counts_and_the_statistics_of_a_viewer_do_not(bright, stack, tmp_path):
    (model,) = models = [elevation(tmp_path / "a.tif")]
    before = identity(bright, stack, dem=models)
    beside = tmp_path / "a.tif.aux.xml"
    statistics = '<PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MEAN">100</MDI></Metadata></PAMRasterBand>'
    beside.write_text(f"<PAMDataset>{statistics}</PAMDataset>")
    assert identity(bright, stack, dem=models) == before
    beside.write_text(f"<PAMDataset><SRS>{CRS.from_epsg(32646).to_wkt()}</SRS></PAMDataset>")
    assert different(before, identity(bright, stack, dem=models)) == ["elevation model"]
    virtual = tmp_path / "all.vrt"
    rasterio.shutil.copy(model, virtual, driver="VRT")
    before = identity(bright, stack, dem=[str(virtual)])
    os.utime(model, (1, 1))
    assert different(before, identity(bright, stack, dem=[str(virtual)])) == ["elevation model"]


def test_space_is_needed_for_the_rasters_and_the_terrain_but_not_for_what_is_there(bright, stack, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    scene, folder = open_scene(stack), tmp_path / "work"
    folder.mkdir()
    plan_of(bright, scene, dem=[elevation(tmp_path / "coarse.tif")]).check_space(folder)
    fine = tmp_path / "fine.tif"
    transform = Affine(1e-3, 0, 4e5, 0, -1e-3, 31e5)
    with rasterio.open(
        fine, "w", driver="GTiff", dtype="float32", count=1, width=4, height=4, crs="EPSG:32645", transform=transform
    ) as dataset:
        dataset.write(np.ones((1, 4, 4), np.float32))
    with pytest.raises(DataError, match=r"needs about [\d,]+\.\d\d GB while") as caught:
        plan_of(bright, scene, dem=[str(fine)]).check_space(folder)
    assert "--output" in caught.value.remedy
    large = replace(scene, grid=replace(scene.grid, height=2 * free // (20 * 128)))
    with pytest.raises(DataError, match="of free space"):
        plan_of(bright, large).check_space(folder)
    with (folder / "probability.raw").open("wb") as file:
        file.truncate(2 * free)  # takes no space, as it holds nothing
    plan_of(bright, large).check_space(folder)
