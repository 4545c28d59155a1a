"""Scenes and polygons to patches, a training on them, a map of another scene, and back to polygons."""

import shutil
import subprocess
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import shapes
from shapely.geometry import shape

from landslide.bands.build import ensure_cache
from landslide.data.patches import find_patches, read_mask, read_stored
from landslide.data.table import patch_table
from landslide.folds.parts import fold_rows
from landslide.inference.ensemble import Member, save_ensemble
from landslide.mapping.model import open_model
from landslide.mapping.plan import make_plan
from landslide.mapping.scene_map import map_scene
from landslide.mapping.settings import MappingSettings
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.reader import SceneReader
from landslide.scenes.scene import open_scene
from landslide.scenes.terrain import prepare_terrain
from landslide.scenes.units import to_stored
from landslide.schema import ORIGINAL_BANDS, STORED_DIVISORS
from landslide.tiling.sources import LabelSettings
from landslide.tiling.tiles import LabelledScene, TileSettings, tile_scenes
from landslide.training.augmentation import AugmentationSettings
from landslide.training.fold import FoldTask, TrainingSettings, train_fold
from landslide.training.optimizers import StepSchedule
from tests.support.map_models import BANDS, SETTINGS, ground, write_stack

pytestmark = pytest.mark.slow

SOUTH, NORTH = "EPSG:32718", "EPSG:32645"
EPOCHS = 24
TRAINING = TrainingSettings(
    bands=BANDS,
    model="unet",
    model_options={"width": 4, "batch_norm_momentum": 0.1},
    standardize=True,
    loss="focal_lin+iou",
    epochs=EPOCHS,
    batch_size=4,
    crop=64,
    optimizer="adamw",
    schedule=StepSchedule(rates=((EPOCHS * 3 // 4, 1e-2), (EPOCHS, 2e-3))),
    augmentation=AugmentationSettings(plain_epochs=0, max_pastes=0),
    device="cpu",
)


def scene_and_polygons(folder: Path, crs: str, seed: int) -> tuple[Path, Path]:
    """Write a scene of 3 x 3 patches and more, and the outlines of its landslides in degrees."""
    image, mask = ground(400, 420, seed)
    transform = Affine(10, 0, 500_000, 0, -10, 8_500_000 if crs == SOUTH else 3_000_000)
    outlines = [shape(one) for one, _ in shapes(mask, mask=mask > 0, connectivity=8, transform=transform)]
    folder.mkdir()
    gpd.GeoDataFrame(geometry=outlines, crs=crs).to_crs("EPSG:4326").to_file(folder / "drawn.gpkg")
    return write_stack(folder / "scene.tif", image, crs, transform), folder / "drawn.gpkg"


def train(patches: Path, work: Path) -> Path:
    """Train two folds on patches, and return the folder of their ensemble."""
    table = patch_table(patches)
    table = table.assign(fold=1 + table["row"].astype(int))
    cache = ensure_cache(work / "caches", patches, table, "round trip", SETTINGS)
    members = []
    for fold in (1, 2):
        rows = fold_rows(table, fold, seed=1)
        result = train_fold(FoldTask(cache, rows, BANDS, TRAINING, work / f"fold-{fold}"))
        members.append(Member(fold, result.spec, result.threshold, result.weights, prediction=TRAINING.prediction))
    save_ensemble(work / "ensemble", members, SETTINGS)
    return work / "ensemble"


def agreement(found: gpd.GeoDataFrame, drawn: gpd.GeoDataFrame) -> float:
    """Intersection over union of the areas of two sets of polygons."""
    one, other = found.union_all(), drawn.to_crs(found.crs).union_all()
    return shapely.area(one & other) / shapely.area(one | other)


def test_polygons_come_back(tmp_path):
    """Measured: intersection over union 0.95 on the scene of the patches, 0.94 on another one; all 28 and 25 found."""
    south, drawn_south = scene_and_polygons(tmp_path / "south", SOUTH, seed=0)
    north, drawn_north = scene_and_polygons(tmp_path / "north", NORTH, seed=1)
    tile_scenes(
        [LabelledScene(open_scene(str(south)), drawn_south)], tmp_path / "patches",
        settings=TileSettings(stored=BANDS, units="reflectance"), labels=LabelSettings(),
        exclusions=ExclusionSettings(),
    )  # fmt: skip
    model = open_model(str(train(tmp_path / "patches", tmp_path / "work")), tmp_path)
    for scene, polygons in ((south, drawn_south), (north, drawn_north)):
        plan = make_plan(open_scene(str(scene)), model, MappingSettings(overlap=0.25), ExclusionSettings(), ())
        done = map_scene(plan, scene.parent / "maps", workers=1)
        found, drawn = gpd.read_file(done.folder / "landslides.gpkg", layer="landslides"), gpd.read_file(polygons)
        assert agreement(found, drawn) > 0.8
        assert abs(len(found) - len(drawn)) <= 5


@pytest.mark.parametrize("crs", [SOUTH, NORTH, "EPSG:4326"])
def test_masks_are_the_pixels_whose_centres_lie_in_the_polygons(tmp_path, crs):
    """Shapely says which, independently of GDAL: across edges of patches, with a hole, and in several parts."""
    image, _ = ground(256, 256)
    pixel = 1e-4 if crs == "EPSG:4326" else 10.0
    transform = Affine(pixel, 0, -70.0, 0, -pixel, -13.0) if pixel < 1 else Affine(10, 0, 5e5, 0, -10, 8.5e6)
    scene = write_stack(tmp_path / "scene.tif", image, crs, transform)
    ring = shapely.Point(128.2, 127.9).buffer(40.3).difference(shapely.Point(130.1, 120.3).buffer(11.7))
    parts = shapely.MultiPolygon([shapely.box(20.3, 200.2, 60.9, 230.8), shapely.box(180.2, 5.1, 250.7, 30.6)])
    sliver = shapely.Polygon([(100.3, 240.2), (240.7, 180.4), (230.2, 250.9)])
    over_the_edge = shapely.Polygon([(-20.5, 60.3), (15.2, 50.7), (10.8, 90.1)])
    drawn = [
        shapely.transform(one, lambda xy: np.stack(transform @ tuple(xy.T), axis=1))
        for one in (ring, parts, sliver, over_the_edge)
    ]
    gpd.GeoDataFrame(geometry=drawn, crs=crs).to_file(tmp_path / "drawn.gpkg")
    tile_scenes(
        [LabelledScene(open_scene(str(scene)), tmp_path / "drawn.gpkg")], tmp_path / "patches",
        settings=TileSettings(stored=BANDS, units="reflectance"), labels=LabelSettings(),
        exclusions=ExclusionSettings(),
    )  # fmt: skip
    masks = [read_mask(patch.mask) for patch in find_patches(tmp_path / "patches") if patch.mask]
    mask = np.vstack([np.hstack(masks[:2]), np.hstack(masks[2:])])
    rows, columns = np.indices(mask.shape) + 0.5
    together = shapely.union_all(drawn)
    np.testing.assert_array_equal(mask, shapely.contains_xy(together, *(transform @ (columns, rows))))
    if shutil.which("gdal_rasterize"):  # GDAL's own program, at once over the whole scene
        west, north = transform @ (0, 0)
        east, south = transform @ (256, 256)
        subprocess.run(
            ["gdal_rasterize", "-q", "-burn", "1", "-ot", "Byte", "-ts", "256", "256", "-te"]
            + [repr(edge) for edge in (west, south, east, north)]
            + [str(tmp_path / "drawn.gpkg"), str(tmp_path / "burnt.tif")],
            check=True,
        )
        with rasterio.open(tmp_path / "burnt.tif") as burnt:
            np.testing.assert_array_equal(mask, burnt.read(1))
    visible = together & shapely.box(*transform @ (0, 256), *transform @ (256, 0))
    assert mask.sum() * pixel**2 == pytest.approx(visible.area, abs=pixel * visible.length / 10)
    assert not mask[120, 130]  # the hole


def test_patches_have_the_values_that_a_map_sees(tmp_path):
    """All 14 bands, slope and elevation included, read once for the whole scene as a map reads it."""
    write_demo_scene(tmp_path, layout="stack", crop=(260, 270))
    scene = open_scene(str(tmp_path / "stack.tif"))
    dem = [str(tmp_path / "dem.tif")]
    tile_scenes(
        [LabelledScene(scene, tmp_path / "landslides.gpkg")], tmp_path / "patches", settings=TileSettings(),
        labels=LabelSettings(), exclusions=ExclusionSettings(), dem=dem,
    )  # fmt: skip
    terrain = prepare_terrain(dem, scene.grid, tmp_path)
    with SceneReader(scene, ORIGINAL_BANDS, ExclusionSettings(), terrain, work_folder=tmp_path) as reader:
        values, _ = reader.read(0, 260)
    expected = to_stored(values, ORIGINAL_BANDS, ORIGINAL_BANDS, "landslide4sense")
    patches = find_patches(tmp_path / "patches")
    assert len(patches) == 4
    for patch, (row, column) in zip(patches, np.ndindex(2, 2), strict=True):
        part = expected[:, 128 * row : 128 * (row + 1), 128 * column : 128 * (column + 1)]
        np.testing.assert_allclose(read_stored(patch.image, 14).transpose(2, 0, 1), part, rtol=1e-6)
    with rasterio.open(tmp_path / "dem.tif") as elevation:
        first_row, first_column = elevation.index(*(scene.grid.transform @ (0.5, 0.5)))
        metres = elevation.read(1)[first_row : first_row + 256, first_column : first_column + 256]
    whole = np.vstack([np.hstack([read_stored(p.image, 14)[..., 13] for p in patches[i : i + 2]]) for i in (0, 2)])
    np.testing.assert_allclose(whole * STORED_DIVISORS["dem"], metres, rtol=1e-5)
    steepness = np.degrees(np.arctan(np.hypot(*np.gradient(metres.astype(float), 10))))
    slopes = np.vstack([np.hstack([read_stored(p.image, 14)[..., 12] for p in patches[i : i + 2]]) for i in (0, 2)])
    assert np.corrcoef(slopes[1:-1, 1:-1].ravel(), steepness[1:-1, 1:-1].ravel())[0, 1] > 0.95
