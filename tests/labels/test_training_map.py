"""The map of a training set: out-of-fold predictions beside the labels, on the grid of the scenes."""

import json
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner, Result
from rasterio.features import shapes
from sklearn.metrics import f1_score, jaccard_score

from landslide.cli import main
from landslide.data.digests import directory_digest
from landslide.data.patches import read_mask, read_stored
from landslide.data.table import patch_table
from landslide.inference.ensemble import Ensemble, Member
from landslide.products.geotiff import stored_threshold
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene
from landslide.tiling.sources import LabelSettings
from landslide.tiling.tiles import LabelledScene, TileSettings, tile_scenes
from landslide.tracking import runs
from tests.support.map_models import BANDS, SETTINGS, bright_members, ground, write_stack
from tests.support.patch_sets import write_patch_set
from tests.support.versions import add_version

pytestmark = pytest.mark.slow

CRS = "EPSG:32718"
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 8_500_000)
HEIGHT, WIDTH = 260, 390  # 2 x 3 patches and a little more


class Site(NamedTuple):
    """A set of patches of one scene, without its last window, and a version trained on them in two folds."""

    folder: Path
    patches: Path
    store: str
    members: list[Member]
    folds: dict[int, int]


def cut(folder: Path, name: str, stride: int = 128, hidden: shapely.Polygon | None = None) -> Path:
    """Cut patches from the scene `valley`, whose largest landslide nobody has drawn."""
    image, mask = ground(HEIGHT, WIDTH, seed=3)
    scene = write_stack(folder / "valley.tif", image, CRS, TRANSFORM)
    drawn = [shapely.geometry.shape(one) for one, _ in shapes(mask, mask=mask > 0, transform=TRANSFORM)]
    drawn.remove(max(drawn, key=lambda one: one.area))
    gpd.GeoDataFrame(geometry=drawn, crs=CRS).to_file(folder / "polygons.gpkg")
    masks = ()
    if hidden is not None:
        gpd.GeoDataFrame(geometry=[hidden], crs=CRS).to_file(folder / "water.gpkg")
        masks = (str(folder / "water.gpkg"),)
    settings = TileSettings(stride=stride, stored=BANDS, units="reflectance")
    tile_scenes(
        [LabelledScene(open_scene(str(scene)), folder / "polygons.gpkg")], folder / name,
        settings=settings, labels=LabelSettings(), exclusions=ExclusionSettings(masks=masks),
    )  # fmt: skip
    return folder / name


def register(folder: Path, patches: Path, folds: list[int], members: list[Member]) -> str:
    """Record a version that was trained on these patches in these folds; 0 leaves one out. Return its store."""
    store = f"sqlite:///{folder / 'mlflow.db'}"
    table = patch_table(patches).assign(fold=folds)
    add_version(
        runs.connect(store), folder, table=table[table["fold"] > 0], networks=members, settings=SETTINGS, bands=BANDS
    )
    return store


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    left, top = TRANSFORM @ (2 * 128, 128)
    patches = cut(folder, "set", hidden=shapely.box(left + 400, top - 800, left + 500, top - 700))
    members = bright_members(folder / "networks")
    folds = [1, 2, 2, 1, 0]
    return Site(folder, patches, register(folder, patches, folds, members), members, dict(enumerate(folds, start=1)))


def map_set(site: Site, output: Path, *arguments: object, patches: Path | None = None) -> Result:
    given = ["map", patches or site.patches, "-o", output, "--model", "1", *arguments]
    return CliRunner().invoke(main, list(map(str, given)), env={"MLFLOW_TRACKING_URI": site.store})


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as raster:
        assert raster.crs == rasterio.crs.CRS.from_string(CRS)
        assert raster.transform == TRANSFORM
        return raster.read(1)


def out_of_fold(site: Site, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The answer of the member that was not trained on a patch; of both members if none was."""
    unseen = [member for member in site.members if site.folds[number] in (0, member.fold)]
    image = read_stored(site.patches / f"TrainData/img/image_{number}.h5", 3).transpose(2, 0, 1)
    probability, deviation = Ensemble(unseen, SETTINGS).predict(image[None])
    return probability[0], deviation[0]


def part(row: int, column: int, stride: int = 128) -> tuple[slice, slice]:
    return slice(stride * row, stride * row + 128), slice(stride * column, stride * column + 128)


def test_rasters_have_the_answers_of_the_networks_that_have_not_seen_a_patch(site, tmp_path):
    done = map_set(site, tmp_path, "--augmentation", "none")
    assert done.exit_code == 0, done.output
    layers = {name: read(tmp_path / f"valley/{name}.tif") for name in ("probability", "uncertainty", "mask", "labels")}
    assert layers["mask"].shape == (256, 384)
    for number, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)], start=1):
        probability, deviation = out_of_fold(site, number)
        here = part(row, column)
        for name, expected in (("probability", probability), ("uncertainty", deviation)):
            np.testing.assert_allclose(layers[name][here] * 1e-4, expected, atol=0.51e-4)
        np.testing.assert_array_equal(layers["mask"][here], layers["probability"][here] >= stored_threshold(0.5))
        label = read_mask(site.patches / f"TrainData/mask/mask_{number}.h5")
        np.testing.assert_array_equal(layers["labels"][here], label)
    assert (layers["uncertainty"][part(1, 1)] > 0).any()  # of two networks
    assert not layers["uncertainty"][part(0, 0)].any()  # of one
    for name, nodata in (("probability", 65535), ("uncertainty", 65535), ("mask", 255), ("labels", 255)):
        assert (layers[name][part(1, 2)] == nodata).all()
        assert (layers[name] == nodata).sum() == 128**2


def test_the_summary_has_the_scores_of_the_predicted_pixels(site, tmp_path):
    done = map_set(site, tmp_path)
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "valley/summary.json").read_text())
    mask, labels = (read(tmp_path / f"valley/{name}.tif") for name in ("mask", "labels"))
    known = mask != 255
    truth, found = labels[known], mask[known]
    assert summary["pixels"] == 5 * 128**2 == sum(summary["counts"].values())
    assert summary["counts"]["false_positives"] == ((found == 1) & (truth == 0)).sum() > 0
    assert summary["scores"]["f1_macro"] == pytest.approx(f1_score(truth, found, average="macro"))
    assert summary["scores"]["f1_landslide"] == pytest.approx(f1_score(truth, found))
    assert summary["scores"]["miou"] == pytest.approx(jaccard_score(truth, found, average="macro"))
    assert f"landslide F1 {100 * f1_score(truth, found):.2f} %" in done.output
    assert (summary["model_version"], summary["patches"], summary["patches_predicted"]) == ("1", 5, 5)
    assert "1 patches are new to version 1" in done.output


def test_polygons_of_model_and_labels_lie_beside_each_other(site, tmp_path):
    assert map_set(site, tmp_path, "--min-area", 0).exit_code == 0
    package = tmp_path / "valley/landslides.gpkg"
    layers = {name: gpd.read_file(package, layer=name) for name in ("landslides", "labels", "patches", "source")}
    for name, raster in (("landslides", "mask"), ("labels", "labels")):
        values = read(tmp_path / f"valley/{raster}.tif")
        expected = [shapely.geometry.shape(one) for one, _ in shapes(values, mask=values == 1, transform=TRANSFORM)]
        expected = shapely.union_all(expected)
        assert expected.symmetric_difference(layers[name].union_all()).area < 1e-6
        assert layers[name]["area_m2"].sum() == pytest.approx(expected.area, rel=2e-3)  # geodesic, and on the map
    assert layers["labels"].columns.tolist() == ["id", "area_m2", "geometry"]
    patches = layers["patches"].set_index("patch")
    assert patches["fold"].to_dict() == site.folds
    mask, labels = (read(tmp_path / f"valley/{name}.tif")[part(0, 1)] for name in ("mask", "labels"))
    assert patches.loc[2, "differing"] == pytest.approx((mask != labels).mean(), abs=1e-4)
    west, north = TRANSFORM @ (128, 0)
    assert patches.loc[2].geometry.equals(shapely.box(west, north - 1280, west + 1280, north))
    assert layers["source"].loc[0, "model_version"] == "1"


def test_threshold_and_augmentation_are_those_asked_for(site, tmp_path):
    assert map_set(site, tmp_path / "plain", "--augmentation", "none", "--threshold", 0.9).exit_code == 0
    assert map_set(site, tmp_path / "turned", "--augmentation", "flips_and_rotations").exit_code == 0
    plain, turned = (read(tmp_path / name / "valley/probability.tif") for name in ("plain", "turned"))
    assert (plain != turned).any()
    mask = read(tmp_path / "plain/valley/mask.tif")
    np.testing.assert_array_equal(mask == 1, (plain >= stored_threshold(0.9)) & (plain != 65535))
    summary = json.loads((tmp_path / "plain/valley/summary.json").read_text())
    assert set(summary["threshold_by_fold"].values()) == {0.9}


def test_the_same_map_is_not_made_again_and_another_one_is_refused(site, tmp_path):
    first = map_set(site, tmp_path, "--json")
    (summary,) = map(json.loads, first.stdout.splitlines())
    assert summary == json.loads((tmp_path / "valley/summary.json").read_text())
    before = directory_digest(tmp_path)[0]
    again = map_set(site, tmp_path)
    assert "(it was there already)" in again.output
    assert directory_digest(tmp_path)[0] == before
    other = map_set(site, tmp_path, "--threshold", 0.2)
    assert other.exit_code == 1
    assert "holds a map that differs in settings" in other.output
    assert directory_digest(tmp_path)[0] == before
    assert map_set(site, tmp_path, "--threshold", 0.2, "--overwrite").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["valley"]
    (tmp_path / "valley/labels.tif").unlink()
    damaged = map_set(site, tmp_path, "--threshold", 0.2)
    assert "missing or damaged: labels.tif" in damaged.output


def test_a_map_does_not_lie_in_the_data_set(site):
    before = directory_digest(site.patches)
    done = map_set(site, site.patches / "maps")
    assert done.exit_code == 2
    assert "lies in the data set" in done.output
    assert directory_digest(site.patches) == before


def test_files_of_a_person_are_never_replaced(site, tmp_path):
    (tmp_path / "valley").mkdir()
    (tmp_path / "valley/notes.txt").write_text("mine")
    done = map_set(site, tmp_path, "--overwrite")
    assert done.exit_code == 1
    assert "exists and holds no finished map" in done.output
    assert [path.name for path in tmp_path.rglob("*")] == ["valley", "notes.txt"]


def test_an_interrupted_map_leaves_nothing_under_its_name(site, tmp_path, monkeypatch):
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("landslide.labels.training_map.write_geopackage", killed)
        assert map_set(site, tmp_path).exit_code != 0
    assert list(tmp_path.iterdir()) == []
    assert map_set(site, tmp_path).exit_code == 0


def test_a_dry_run_writes_nothing(site, tmp_path):
    done = map_set(site, tmp_path / "maps", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "5, 5 of them predicted out of fold" in done.output
    assert f"valley: 5 patches on 384 x 256 pixels of 10.00 x 10.00 m, {CRS}" in done.output
    assert not (tmp_path / "maps").exists()


def test_overlapping_patches_are_averaged_within_a_fold_and_left_out_between_folds(tmp_path):
    patches = cut(tmp_path, "half", stride=64)
    places = pd.read_csv(patches / "scenes.csv")
    columns = places["column"].to_numpy()
    folds = np.where(columns < 3, 1, 2)  # overlap: columns 192 to 255 of the scene
    members = bright_members(tmp_path / "networks")
    half = Site(tmp_path, patches, register(tmp_path, patches, folds.tolist(), members), members, {})
    done = map_set(half, tmp_path / "maps", "--augmentation", "none")
    assert done.exit_code == 0, done.output
    stored = read(tmp_path / "maps/valley/probability.tif")
    assert stored.shape == (256, 384)
    np.testing.assert_array_equal((stored == 65535).all(axis=0).nonzero()[0], np.arange(192, 256))
    assert "16.7 % of the ground is not predicted" in done.output
    half = half._replace(folds=dict(zip(places["n"].tolist(), folds.tolist(), strict=True)))
    total, count = np.zeros((2, 256, 384))
    for number, row, column in places[["n", "row", "column"]].itertuples(index=False):
        total[part(row, column, 64)] += out_of_fold(half, number)[0]
        count[part(row, column, 64)] += 1
    known = stored != 65535
    np.testing.assert_allclose(stored[known] * 1e-4, (total / count)[known], atol=0.51e-4)
    spread = read(tmp_path / "maps/valley/uncertainty.tif")
    assert not spread[:64, :64].any()  # in one patch only
    assert spread[64:192, 64:128].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dem", "dem.tif", "--workers", "2"), "for which --dem, --workers has no effect"),
        (("--clouds", "auto", "--overlap", "0.5"), "for which --clouds, --overlap has no effect"),
        (("--engine", "pytorch", "--precision", "bfloat16", "--record"), "--engine, --precision, --record"),
        (("--model", "{folder}/networks"), "is a folder, so nobody knows which patches"),
        (("--model", "models:/other/1"), "is not a version of landslide-segmentation"),
        (("--model", "7"), "has no version 7"),
        (("--threshold", "1.5"), "mapping.threshold is 1.5"),
        (("{folder}/valley.tif",), "2 scenes and folders of patches are given together"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(site, tmp_path, arguments, message):
    done = map_set(site, tmp_path / "maps", *[argument.format(folder=site.folder) for argument in arguments])
    assert done.exit_code == 1
    assert message in done.output
    assert "\n  -> " in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "maps").exists()


def test_patches_without_coordinates_or_off_the_grid_are_refused(site, tmp_path):
    def refused(patches: Path) -> str:
        folder = tmp_path / f"store of {patches.name}"
        folder.mkdir()
        store = register(folder, patches, [1, 2, 2], site.members)
        done = map_set(site._replace(store=store), tmp_path / "maps", patches=patches)
        assert done.exit_code == 1
        assert not (tmp_path / "maps").exists()
        return done.output

    patches = write_patch_set(tmp_path / "nowhere", (1, 2, 3), bands=3)
    assert "does not say where its patches lie on the map" in refused(patches)
    lines = ["n,scene,row,column,name,crs,west,south,east,north"]
    lines += [f"{n},1,0,{n},here,{CRS},{500_000 + 1280 * n + 4 * (n == 3)},0,{501_280 + 1280 * n + 4 * (n == 3)},1280"
              for n in (1, 2, 3)]  # fmt: skip
    patches = write_patch_set(tmp_path / "askew", (1, 2, 3), bands=3)
    (patches / "scenes.csv").write_text("\n".join(lines) + "\n")
    assert "the patches of here do not lie on one grid of pixels" in refused(patches)
    patches = write_patch_set(tmp_path / "named", (1, 2, 3), bands=3)
    (patches / "scenes.csv").write_text("\n".join([*lines[:3], lines[3].replace("here", "../x")]) + "\n")
    assert "has the name '../x', which no folder" in refused(patches)
