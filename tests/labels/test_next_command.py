"""`landslide data next` from a shell's point of view: a model, scenes and data sets in, tiles to label out."""

import shutil
import sqlite3

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import torch
from affine import Affine
from click.testing import CliRunner
from safetensors.torch import save_file

from landslide.cli import main
from landslide.data.patches import read_stored, write_array
from landslide.inference.ensemble import Member, load_ensemble, save_ensemble
from landslide.labels.choosing import rank_next, summarise
from landslide.labels.proposals import COLUMNS, FILES, LabelledSet, describe_images, windows_of_scenes
from landslide.locks import locked
from landslide.mapping.model import open_model
from landslide.mapping.plan import make_plan
from landslide.mapping.settings import MappingSettings
from landslide.models import ModelSpec, build_model
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene
from tests.support.map_models import BANDS, SETTINGS, bright_ensemble, ground, write_stack

CORNER = Affine(10, 0, 400_000, 0, -10, 3_100_000)
SETS = ("--bands", ",".join(BANDS), "--units", "reflectance")


def data(*arguments: object):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, a scene of 3 x 4 windows with a gap, its landslides as polygons, and a second scene elsewhere."""
    folder = tmp_path_factory.mktemp("world")
    bright_ensemble(folder / "model")
    image, mask = ground(400, 520)
    image[:, 200:210, 200:210] = -0.1  # the digital number of no data, in window 1, 1
    write_stack(folder / "scene.tif", image, "EPSG:32645", CORNER)
    outlines = [
        shapely.box(400_000 + 10 * x, 3_100_000 - 10 * y - 10, 400_010 + 10 * x, 3_100_000 - 10 * y)
        for y, x in np.argwhere(mask)
    ]
    polygons = shapely.get_parts(shapely.union_all(outlines))
    gpd.GeoDataFrame(geometry=polygons, crs=32645).to_file(folder / "landslides.gpkg")
    write_stack(folder / "other.tif", ground(128, 256, seed=5)[0], "EPSG:32646", CORNER)
    return folder


def next_of(world, *arguments):
    return data("next", *arguments, "--model", world / "model" / "ensemble", "--level", "L1C")


@pytest.fixture(scope="module")
def proposed(world):
    done = next_of(world, world / "scene.tif", "-o", world / "next", "-n", 4)
    assert done.exit_code == 0, done.output
    assert "11 of 12 windows are candidates (left out: 1 no data)" in done.output
    return world / "next"


def test_the_tables_hold_what_the_ranking_says_of_the_windows(world, proposed):
    table = pd.read_csv(proposed / "next.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["rank"].tolist() == list(range(1, 12))
    for column in ("rank_coverage", "rank_random"):
        assert sorted(table[column]) == list(range(1, 12))
    image = np.rint(ground(400, 520)[0] * 10_000) / 10_000
    table = table.sort_values(["row", "column"], ignore_index=True)
    parts = [
        image[:, 128 * r : 128 * r + 128, 128 * c : 128 * c + 128]
        for r, c in zip(table["row"], table["column"], strict=True)
    ]
    probability, _ = load_ensemble(world / "model" / "ensemble").predict(np.stack(parts))
    windows = summarise(np.stack(parts), probability)
    np.testing.assert_allclose(table["uncertainty"], windows.uncertainty, atol=2e-3)
    np.testing.assert_allclose(table["expected_area_m2"], 100 * windows.expected, rtol=5e-3)
    order = rank_next(windows, np.zeros(11, bool), 11).order
    assert np.argsort(table["rank"]).tolist() == order.tolist()


@pytest.mark.parametrize(("name", "column"), FILES.items())
def test_each_geopackage_holds_the_best_tiles_where_they_lie(proposed, name, column):
    tiles = gpd.read_file(proposed / f"{name}.gpkg", layer="tiles")
    assert tiles[column].tolist() == [1, 2, 3, 4]
    assert tiles.crs.to_epsg() == 32645
    assert tiles["labelled"].dtype == bool
    assert not tiles["labelled"].any()
    for tile in tiles.itertuples():
        west, north = 400_000 + 1280 * tile.column, 3_100_000 - 1280 * tile.row
        assert tile.geometry.equals(shapely.MultiPolygon([shapely.box(west, north - 1280, west + 1280, north)]))
    with sqlite3.connect(proposed / f"{name}.gpkg") as database:
        ((style,),) = database.execute("SELECT styleQML FROM layer_styles WHERE f_table_name = 'tiles'").fetchall()
    assert "CASE WHEN labelled THEN" in style


def test_equal_input_gives_equal_tables(world, proposed):
    done = next_of(world, world / "scene.tif", "-o", world / "again", "-n", 99)
    assert (world / "again" / "next.csv").read_bytes() == (proposed / "next.csv").read_bytes()
    assert "11 of 11 tiles" in done.output
    assert len(gpd.read_file(world / "again" / "next.gpkg", layer="tiles")) == 11


def tick(path, ticked, rank):
    """Tick the tile of a rank, too, as QGIS saves it; return the new file."""
    tiles = gpd.read_file(path, layer="tiles")
    tiles.assign(labelled=tiles["labelled"] | (tiles["rank"] <= rank)).to_file(ticked, layer="tiles")
    return ticked


def test_ticked_tiles_become_patches_that_are_not_proposed_again(world, proposed, tmp_path):
    tiles = gpd.read_file(proposed / "next.gpkg", layer="tiles")
    area = ("--area", tick(proposed / "next.gpkg", tmp_path / "next.gpkg", rank=2), "--area-where")
    cut = ("tile", world / "scene.tif", "--labels", world / "landslides.gpkg", "-o", tmp_path / "set", *SETS)
    done = data(*cut, *area, "labelled = 1")
    assert done.exit_code == 0, done.output
    assert "2 of 12 windows became patches" in done.output
    again = next_of(world, world / "scene.tif", "--labelled", tmp_path / "set", "-o", tmp_path / "next")
    assert again.exit_code == 0, again.output
    assert "9 of 12 windows are candidates (left out: 2 labelled already, 1 no data)" in again.output
    assert "9 of 9 tiles, to be compared with 2 labelled patches" in again.output
    for name, column in FILES.items():
        tiles_now = gpd.read_file(tmp_path / "next" / f"{name}.gpkg", layer="tiles")
        assert tiles_now[column].isna().tolist() == tiles_now["labelled"].tolist() == [False] * 9 + [True] * 2
    more = tick(tmp_path / "next" / "next.gpkg", tmp_path / "two.gpkg", rank=1)
    grown = data(*cut, "--area", more, "--area-where", "labelled = 1")
    assert "1 new, 0 changed, 2 unchanged, 0 removed" in grown.output
    places = {(tile.row, tile.column) for tile in tiles.itertuples() if tile.rank <= 2}
    table = pd.read_csv(tmp_path / "next" / "next.csv")
    assert not places & set(zip(table["row"], table["column"], strict=True))
    assert table["distance"].notna().all()  # the first one, too, has labelled neighbours
    for where, message in (
        ("labelled = 7", "no polygons for which labelled = 7"),
        ("ticked", "the condition 'ticked'"),
    ):
        wrong = data(*cut, *area, where)
        assert (wrong.exit_code, message in wrong.output) == (1, True), wrong.output


def test_scenes_of_several_reference_systems_are_ranked_together(world, tmp_path):
    done = next_of(world, world / "scene.tif", world / "other.tif", "-o", tmp_path / "next")
    assert done.exit_code == 0, done.output
    tiles = gpd.read_file(tmp_path / "next" / "next.gpkg", layer="tiles")
    assert tiles.crs.to_epsg() == 4326
    assert tiles["scene"].value_counts().to_dict() == {"scene": 11, "other": 2}
    there = tiles[(tiles["scene"] == "other") & (tiles["column"] == 1)].to_crs(32646).total_bounds
    np.testing.assert_allclose(there, [401_280, 3_098_720, 402_560, 3_100_000], atol=0.01)


def test_windows_of_a_scene_are_described_as_their_patches(world, tmp_path):
    """Also by a model that does not need all stored bands, which are not read from the scene then."""
    spec = ModelSpec("unet", BANDS[:2], {"width": 4})
    save_file({name: value.contiguous() for name, value in build_model(spec).state_dict().items()}, tmp_path / "w")
    save_ensemble(tmp_path / "model", [Member(1, spec, 0.5, tmp_path / "w")], SETTINGS)
    model = open_model(str(tmp_path / "model"), tmp_path, torch.device("cpu"))
    cut = ("tile", world / "scene.tif", "--labels", world / "landslides.gpkg", "-o", tmp_path / "set", *SETS)
    assert data(*cut).exit_code == 0
    patches = describe_images(LabelledSet(tmp_path / "set", model).images, model)
    plan = make_plan(open_scene(world / "scene.tif", level="L1C"), model, MappingSettings(), ExclusionSettings())
    windows = windows_of_scenes([plan]).windows
    assert patches.image.shape == (11, 4)
    for name in ("uncertainty", "expected", "image", "landslides"):
        np.testing.assert_allclose(getattr(windows, name), getattr(patches, name), rtol=1e-4, atol=1e-6)


def test_images_without_masks_of_a_data_set_are_proposed(world, tmp_path):
    root = tmp_path / "set"
    for split, number, masked in (("Train", 1, True), ("Train", 2, False), ("Valid", 1, False), ("Valid", 2, True)):
        image, mask = ground(128, 128, seed=number + len(split))
        for kind, values in (("img", image.transpose(1, 2, 0)), ("mask", mask)):
            (root / f"{split}Data" / kind).mkdir(parents=True, exist_ok=True)
            if kind == "img" or masked:
                name = {"img": "image", "mask": "mask"}[kind]
                write_array(root / f"{split}Data" / kind / f"{name}_{number}.h5", kind, values)
    done = next_of(world, root, "-o", tmp_path / "next")
    assert done.exit_code == 1
    assert "options of scenes" in done.output  # --level
    done = data("next", root, "-o", tmp_path / "next", "--model", world / "model" / "ensemble")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "next" / "next.csv").sort_values("image", ignore_index=True)
    assert table["image"].tolist() == ["TrainData/img/image_2.h5", "ValidData/img/image_1.h5"]
    assert "2 of 2 tiles, to be compared with 2 labelled patches" in done.output
    stored = read_stored(root / "ValidData/img/image_1.h5", 3).transpose(2, 0, 1)[None]
    probability, _ = load_ensemble(world / "model" / "ensemble").predict(stored)
    assert table["expected_area_m2"][1] == pytest.approx(100 * probability.sum(dtype=float), rel=1e-4)
    assert table["row"].isna().all()
    tiles = gpd.read_file(tmp_path / "next" / "next.gpkg", layer="tiles")
    assert tiles.geometry.union_all().area == 2 * 128**2  # beside each other
    write_array(root / "ValidData/img/image_1.h5", "img", np.full((128, 128, 3), np.nan))
    done = data("next", root, "-o", tmp_path / "again", "--model", world / "model" / "ensemble")
    assert (done.exit_code, "no pixel in which every band has a value: image_1.h5" in done.output) == (1, True)
    assert not (tmp_path / "again").exists()


def test_images_with_coordinates_are_proposed_where_they_lie(world, tmp_path):
    cut = ("tile", world / "scene.tif", "--labels", world / "landslides.gpkg", "-o", tmp_path / "set", *SETS)
    assert data(*cut).exit_code == 0
    (tmp_path / "set/TrainData/mask/mask_3.h5").unlink()
    (tmp_path / "set/TrainData/mask/mask_8.h5").unlink()
    next_set = ("next", tmp_path / "set", "--model", world / "model" / "ensemble", "-o")
    done = data(*next_set, tmp_path / "one")
    assert "2 of 2 tiles, to be compared with 9 labelled patches" in done.output
    tiles = gpd.read_file(tmp_path / "one" / "next.gpkg", layer="tiles").sort_values("row")
    assert (tiles["row"].tolist(), tiles["column"].tolist()) == ([0, 2], [2, 0])
    np.testing.assert_allclose(tiles.total_bounds, [400_000, 3_096_160, 403_840, 3_100_000])
    (tmp_path / "set/ValidData/img").mkdir(parents=True)
    shutil.copyfile(tmp_path / "set/TrainData/img/image_1.h5", tmp_path / "set/ValidData/img/image_1.h5")
    done = data(*next_set, tmp_path / "two")  # this image has no coordinates
    assert done.exit_code == 0, done.output
    tiles = gpd.read_file(tmp_path / "two" / "next.gpkg", layer="tiles")
    assert tiles.geometry.union_all().area == 3 * 128**2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{world}/scene.tif", "--labelled", "{world}/none"), 1, "holds no train images"),
        (("{world}/scene.tif", "--min-valid", "0"), 1, "share of valid pixels is 0"),
        (("{world}/scene.tif", "-n", "0"), 2, "0 is not in the range"),
        (("{world}/scene.tif", "--area", "10,10,11,11"), 1, "lies outside the scene"),
        (("{world}/scene.tif", "--area", "85.99,28.01,85.995,28.012"), 1, "No window is left to label"),
        (("{world}/scene.tif", "--area-where", "a = 1"), 1, "a condition on the area"),
        (("{world}/scene.tif", "--area", "80,20,90,30", "--area-where", "a = 1"), 1, "is a bounding box"),
        (("{world}/scene.tif", "{world}/scene.tif"), 1, "scene"),
        (("{world}/scene.tif", "-o", "{world}/model"), 1, "is not an empty folder"),
        (("{world}/none.tif",), 1, "none.tif"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(world, tmp_path, arguments, code, message):
    given = [argument.format(world=world) for argument in arguments]
    before = sorted(world.rglob("*"))
    done = next_of(world, "-o", tmp_path / "next", *given)
    assert done.exit_code == code, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []
    assert sorted(world.rglob("*")) == before


def test_a_set_of_other_units_or_without_unlabelled_images_is_refused(world, tmp_path):
    cut = ("tile", world / "scene.tif", "--labels", world / "landslides.gpkg", "--bands", ",".join(BANDS))
    assert data(*cut, "-o", tmp_path / "set").exit_code == 0
    done = next_of(world, world / "scene.tif", "--labelled", tmp_path / "set", "-o", tmp_path / "next")
    assert (done.exit_code, "units landslide4sense, and the model has reflectance" in done.output) == (1, True)
    assert data(*cut, "-o", tmp_path / "fits", "--units", "reflectance").exit_code == 0
    done = data("next", tmp_path / "fits", "-o", tmp_path / "next", "--model", world / "model" / "ensemble")
    assert (done.exit_code, "has a mask" in done.output) == (1, True)
    assert not (tmp_path / "next").exists()


def test_two_proposals_do_not_share_a_folder(world, tmp_path):
    with locked(tmp_path / ".next.lock"):
        done = next_of(world, world / "other.tif", "-o", tmp_path / "next")
    assert done.exit_code == 1
    assert "is locked by" in done.output
    assert not (tmp_path / "next").exists()


def test_a_proposal_does_not_lie_in_a_data_set(world, tmp_path):
    patches = tmp_path / "patches"
    (patches / "TrainData/img").mkdir(parents=True)
    for given in ((patches,), (world / "other.tif", "--labelled", patches)):
        done = next_of(world, *given, "-o", patches / "next")
        assert done.exit_code == 2
        assert "lies in the data set" in done.output
    assert not (patches / "next").exists()


def test_the_next_command_has_its_paths_quoted_and_a_small_scene_is_named(world, tmp_path):
    done = next_of(world, world / "other.tif", "-o", tmp_path / "in may", "-n", 1)
    assert f"--area '{tmp_path / 'in may' / 'next.gpkg'}' --area-where" in done.output
    write_stack(tmp_path / "strip.tif", ground(100, 300)[0], "EPSG:32645", CORNER)
    done = next_of(world, tmp_path / "strip.tif", "-o", tmp_path / "strip")
    assert done.exit_code == 1
    assert "strip has 300 x 100 pixels, less than a patch of 128 x 128" in done.output
