"""Maps of scenes from end to end: what is in the folder of a map, where it lies, and what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from rasterio.features import shapes

from landslide.errors import ConfigurationError, DataError
from landslide.locks import locked
from landslide.mapping.map_folder import MapExistsError
from landslide.mapping.model import open_model
from landslide.mapping.plan import make_plan
from landslide.mapping.report import describe_map, describe_plan
from landslide.mapping.scene_map import foresee, map_scene
from landslide.mapping.settings import MappingSettings
from landslide.products.geotiff import stored_threshold
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.grid import WGS84
from landslide.scenes.scene import open_scene
from tests.support import versions
from tests.support.full_disk import files_limited
from tests.support.map_models import ground, write_stack
from tests.support.sentinel2 import rewrite

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NORTH = ("EPSG:32645", Affine(10, 0, 399_960, 0, -10, 3_100_020))
PRODUCTS = {
    *("probability.tif", "uncertainty.tif", "mask.tif", "reasons.tif", "landslides.gpkg", "landslides.geojson"),
    *("item.json", "quicklook.png", "map.html", "summary.json"),
}


@pytest.fixture(scope="module")
def demo_model(tmp_path_factory):
    """Random networks on bands of all resolutions and the terrain."""
    from landslide.bands.formulas import BandSettings
    from landslide.inference.ensemble import save_ensemble

    folder = tmp_path_factory.mktemp("random")
    members = versions.members(folder, bands=("B4", "B5", "B10", "gray", "slope", "dem"))
    save_ensemble(folder / "ensemble", members, BandSettings())
    return open_model(str(folder / "ensemble"), folder, torch.device("cpu"))


def make(model, source, output, *, dem=(), settings=None, exclusions=None, **options):
    scene = source if not isinstance(source, str | Path) else open_scene(source)
    plan = make_plan(scene, model, settings or MappingSettings(), exclusions or ExclusionSettings(), dem)
    return map_scene(plan, output, workers=2, **options)


def bright_scene(folder, height=200, width=300, crs=NORTH[0], transform=NORTH[1], seed=0, name="scene"):
    image, mask = ground(height, width, seed)
    return write_stack(folder / f"{name}.tif", image, crs, transform), mask


def rasters(folder):
    found = {}
    for name in ("probability", "uncertainty", "mask", "reasons"):
        with rasterio.open(folder / f"{name}.tif") as raster:
            found[name] = raster.read(1)
    return found


def layers(folder):
    return {name: gpd.read_file(folder / "landslides.gpkg", layer=name) for name in ("landslides", "not_analysed")}


def test_a_map_has_every_product_and_says_what_it_found(bright, tmp_path):
    source, mask = bright_scene(tmp_path)
    finished = make(bright, source, tmp_path / "maps", settings=MappingSettings(min_area=0))
    assert finished.folder == tmp_path / "maps" / "scene"
    assert {path.name for path in finished.folder.iterdir()} == PRODUCTS
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["scene"]
    found = rasters(finished.folder)
    np.testing.assert_array_equal(found["mask"], mask)
    polygons = layers(finished.folder)["landslides"]
    assert finished.summary["landslides"] == len(polygons) > 3
    assert finished.summary["area_m2"] == pytest.approx(polygons["area_m2"].sum(), abs=1)
    assert finished.summary["not_analysed"] == 0
    assert set(finished.summary["digests"]) == PRODUCTS - {"summary.json"}
    listed = json.loads((finished.folder / "item.json").read_text())["assets"].values()
    assert {Path(asset["href"]).name for asset in listed} == PRODUCTS - {"item.json"}
    with rasterio.open(finished.folder / "probability.tif") as probability:
        assert (probability.crs.to_epsg(), probability.transform) == (32645, NORTH[1])
        assert (probability.nodata, probability.scales, probability.overviews(1)) == (65535, (0.0001,), [])
        assert probability.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    with rasterio.open(finished.folder / "mask.tif") as raster:
        assert raster.colormap(1)[1] == (215, 25, 28, 255)


def test_the_same_map_is_not_made_again(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    first = make(bright, source, tmp_path / "maps")
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = make(bright, source, tmp_path / "maps")
    assert (first.new, again.new) == (True, False)
    assert again.summary == first.summary
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_another_threshold_takes_the_probabilities_of_the_map_before(demo_model, tmp_path, monkeypatch):
    """Rasters and polygons are those of a new map, and no network is called."""
    scene = write_demo_scene(tmp_path / "product", rows=2, columns=2, crop=(250, 200), clouds=True)
    dem, said = [str(tmp_path / "product" / "dem.tif")], []
    options = {"dem": dem, "exclusions": ExclusionSettings(area=str(tmp_path / "area.geojson"))}
    whole = gpd.GeoSeries([shapely.box(*open_scene(scene).grid.bounds)], crs=open_scene(scene).grid.crs)
    whole.scale(0.7, 0.9).to_file(tmp_path / "area.geojson")
    first = make(demo_model, scene, tmp_path / "maps", **options)
    probability = rasters(first.folder)["probability"]
    known = probability[probability != 65535]
    other = MappingSettings(threshold=float(np.quantile(known, 0.8)) / 10_000, min_area=900)
    expected = make(demo_model, scene, tmp_path / "fresh", settings=other, **options)

    class NoPredictor:
        def predict(self, images, batch_size=0):
            raise AssertionError("a network was called")

    monkeypatch.setattr("landslide.mapping.plan.MapPlan.predictor", lambda plan: NoPredictor())
    monkeypatch.setattr("landslide.products.raw_files._BLOCK_ROWS", 100)
    found = make(demo_model, scene, tmp_path / "maps", settings=other, overwrite=True, say=said.append, **options)
    assert any("previous map are used again" in text for text in said)
    assert found.new
    for name, values in rasters(expected.folder).items():
        np.testing.assert_array_equal(rasters(found.folder)[name], values)
    for name, table in layers(expected.folder).items():
        assert table.equals(layers(found.folder)[name])
    assert len(layers(found.folder)["landslides"]) > 0
    same = ("threshold", "min_area_m2", "landslides", "below_minimum", "not_analysed", "notes", "digest", "identity")
    assert {name: found.summary[name] for name in same} == {name: expected.summary[name] for name in same}
    with pytest.raises(AssertionError, match="a network was called"):
        make(demo_model, scene, tmp_path / "maps", settings=replace(other, overlap=0.25), overwrite=True, **options)
    raster = found.folder / "probability.tif"
    raster.write_bytes(raster.read_bytes()[:-1] + b"x")
    with pytest.raises(AssertionError, match="a network was called"):
        make(demo_model, scene, tmp_path / "maps", settings=replace(other, min_area=0), overwrite=True, **options)


def test_what_people_edited_or_added_is_kept_when_a_map_is_replaced(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    folder, said = make(bright, source, tmp_path / "maps").folder, []

    def replaced(threshold):
        made = make(
            bright, source, tmp_path / "maps", settings=MappingSettings(threshold=threshold), overwrite=True,
            say=said.append,
        )  # fmt: skip
        return [path for path in made.folder.rglob("*") if path.is_file() and path.parent != made.folder]

    (folder / "mask.tif.aux.xml").write_text("what GDAL writes beside a raster")
    assert replaced(0.4) == []
    assert not any("kept" in text for text in said)
    table = gpd.read_file(folder / "landslides.gpkg", layer="landslides").assign(reviewed=True)
    table.to_file(folder / "landslides.gpkg", layer="landslides")
    (folder / "project.qgz").write_text("a project")
    created = f"{datetime.fromisoformat(json.loads((folder / 'summary.json').read_text())['created']):%Y-%m-%dT%H%M%S}"
    kept = replaced(0.3)
    assert {path.name for path in kept} == {"landslides.gpkg", "project.qgz"}
    assert {path.parent for path in kept} == {folder / "kept" / created}
    assert said[-1] == f"note: {folder / 'kept' / created} keeps what was edited in the previous map, or added to it"
    assert gpd.read_file(folder / "kept" / created / "landslides.gpkg", layer="landslides")["reviewed"].all()
    assert not layers(folder)["landslides"]["reviewed"].any()
    (folder / "notes.txt").write_text("more")
    assert {path.name for path in replaced(0.2)} == {"landslides.gpkg", "project.qgz", "notes.txt"}


def test_whatever_lies_in_a_map_is_kept_and_stops_no_replacement(bright, tmp_path):
    """A file named as the folder of what is kept, links that lead nowhere, folders in place of products."""
    source, _ = bright_scene(tmp_path, 128, 128)
    folder = make(bright, source, tmp_path / "maps").folder
    for name in ("landslides.gpkg", "mask.tif", "landslides.geojson"):
        (folder / name).unlink()
    (folder / "landslides.gpkg").mkdir()
    (folder / "landslides.gpkg" / "mine.txt").write_text("mine")
    (folder / "mask.tif").mkdir()
    (folder / "landslides.geojson").symlink_to("nowhere")
    (folder / "kept").write_text("a file")
    (folder / "x.aux.xml").write_text("of no product")
    summary = json.loads((folder / "summary.json").read_text()) | {"created": "../../elsewhere", "notes": None}
    (folder / "summary.json").write_text(json.dumps(summary))
    finished = make(bright, source, tmp_path / "maps", settings=MappingSettings(threshold=0.4), overwrite=True)
    assert {path.name for path in finished.folder.iterdir()} == PRODUCTS | {"kept"}
    (kept,) = (folder / "kept").iterdir()
    assert kept.name == "earlier"
    assert {path.name for path in kept.iterdir()} == {
        *("landslides.gpkg", "mask.tif", "landslides.geojson", "kept", "x.aux.xml")
    }
    assert (kept / "landslides.gpkg" / "mine.txt").read_text() == "mine"
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"scene"}


def test_a_folder_of_another_map_is_refused_and_names_what_differs(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    make(bright, source, tmp_path / "maps")
    with pytest.raises(MapExistsError, match=r"holds a map that differs in settings\.") as caught:
        make(bright, source, tmp_path / "maps", settings=MappingSettings(threshold=0.4))
    assert "--overwrite" in caught.value.remedy
    replaced = make(bright, source, tmp_path / "maps", settings=MappingSettings(threshold=0.4), overwrite=True)
    assert replaced.summary["threshold"] == 0.4
    bright_scene(tmp_path, 128, 128, seed=1)
    with pytest.raises(MapExistsError, match="differs in scene"):
        make(bright, source, tmp_path / "maps", settings=MappingSettings(threshold=0.4))
    (tmp_path / "maps" / "scene" / "summary.json").unlink()
    for overwrite in (False, True):  # the folder may be anything
        with pytest.raises(MapExistsError, match="holds no finished map"):
            make(bright, source, tmp_path / "maps", overwrite=overwrite)
    assert (tmp_path / "maps" / "scene" / "mask.tif").exists()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32645", Affine(10, 0, 399_960, 0, -10, 3_100_020)),
        ("EPSG:32721", Affine(10, 0, 500_000, 0, -10, 6_200_000)),
        ("EPSG:32632", Affine(10, 0, 820_000, 0, -10, 5_200_000)),  # beyond the edge of the zone
        ("EPSG:4326", Affine(1e-4, 0, 86.0, 0, -1e-4, 28.2)),
    ],
    ids=["north", "south", "beyond its zone", "degrees"],
)
def test_polygons_lie_where_the_landslides_are(bright, tmp_path, crs, transform):
    source, mask = bright_scene(tmp_path, 205, 170, crs, transform)
    finished = make(bright, source, tmp_path / "maps", settings=MappingSettings(min_area=0))
    truth = gpd.GeoSeries(
        [shapely.geometry.shape(outline) for outline, value in shapes(mask, mask=mask == 1, transform=transform)],
        crs=crs,
    ).to_crs("OGC:CRS84")
    geojson = gpd.read_file(finished.folder / "landslides.geojson").to_crs("OGC:CRS84")
    pixel = 1.2e-4  # degrees, more than ten metres
    found, expected = geojson.geometry.union_all(), truth.union_all()
    assert found.hausdorff_distance(expected) < pixel
    assert found.symmetric_difference(expected).area < 0.02 * expected.area
    assert sum(geojson["area_m2"]) == pytest.approx(abs(WGS84.geometry_area_perimeter(expected)[0]), rel=1e-3)


@pytest.mark.parametrize(
    ("crs", "layouts"),
    [("EPSG:32645", ("bands", "stack", "STAC item")), ("EPSG:32745", ("stack",)), ("EPSG:4326", ("STAC item",))],
)
def test_every_layout_of_a_scene_gives_the_same_map(demo_model, tmp_path, crs, layouts):
    maps = {}
    for layout in ("SAFE", *layouts):
        folder = tmp_path / layout.split()[0]
        source = write_demo_scene(folder, layout=layout, rows=2, columns=2, crop=(150, 205), crs=crs, seed=3)
        settings = MappingSettings(overlap=0)
        finished = make(demo_model, source, folder / "maps", dem=[str(folder / "dem.tif")], settings=settings)
        maps[layout] = rasters(finished.folder)
    for layout in layouts:
        for name, expected in maps["SAFE"].items():
            np.testing.assert_array_equal(maps[layout][name], expected)


def test_a_run_shifted_by_half_a_window_differs_little(bright, tmp_path):
    image, _ = ground(192, 224)
    whole = make(bright, write_stack(tmp_path / "whole.tif", image, *NORTH), tmp_path / "maps")
    moved = NORTH[1] @ Affine.translation(32, 32)
    part = write_stack(tmp_path / "part.tif", image[:, 32:, 32:], NORTH[0], moved)
    shifted = make(bright, part, tmp_path / "maps")
    difference = rasters(whole.folder)["probability"][32:, 32:].astype(int) - rasters(shifted.folder)["probability"]
    assert np.abs(difference).max() > 0
    assert np.percentile(np.abs(difference), 99) <= 500  # 0.05


def test_a_call_that_failed_at_its_input_does_not_stand_in_the_way(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    with pytest.raises(DataError, match="lies outside the scene"):
        make(bright, source, tmp_path / "maps", exclusions=ExclusionSettings(area="10,10,11,11"))
    assert make(bright, source, tmp_path / "maps").new


def test_what_is_left_out_becomes_polygons_with_reasons(bright, tmp_path):
    source, _ = bright_scene(tmp_path)
    box = gpd.GeoDataFrame(geometry=[shapely.box(400_460, 3_098_500, 401_460, 3_099_500)], crs="EPSG:32645")
    box.to_file(tmp_path / "water.gpkg")
    exclusions = ExclusionSettings(masks=(str(tmp_path / "water.gpkg"),))
    finished = make(bright, source, tmp_path / "maps", exclusions=exclusions)
    left_out = layers(finished.folder)["not_analysed"]
    assert left_out["reason"].tolist() == ["masked"]
    assert left_out.geometry[0].symmetric_difference(box.geometry[0]).area < 1
    assert finished.summary["not_analysed"] == pytest.approx(100 * 100 / 60_000)
    assert (rasters(finished.folder)["probability"][60:140, 60:140] == 65535).all()


DRY_RUN = """
import sys
from landslide.cli import main
try:
    main(["map", sys.argv[2], "--model", sys.argv[1], "--output", sys.argv[3], "--dry-run"])
finally:
    print("modules", *sys.modules)
"""


def test_a_scene_is_predicted_without_the_libraries_of_the_products(bright, tmp_path):
    """They take 130 MB, and the networks have gone when they are needed."""
    source, _ = bright_scene(tmp_path, 128, 128)
    command = [sys.executable, "-c", DRY_RUN, bright.address, str(source), str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "a new map" in told
    loaded = told.splitlines()[-1].split()
    assert {"modules", "rasterio", "torch"} <= set(loaded)
    assert not {"geopandas", "pyogrio", "pandas", "matplotlib", "mlflow"} & set(loaded)


KILLED = """
import sys, time
from pathlib import Path
import torch
from landslide.scenes.exclusions import ExclusionSettings
from landslide.mapping.model import open_model
from landslide.mapping.plan import make_plan
from landslide.scenes.scene import open_scene
from landslide.mapping.scene_map import map_scene
from landslide.mapping.settings import MappingSettings
model, source, output = sys.argv[1:]
loaded = open_model(model, Path(output), torch.device("cpu"))
plan = make_plan(open_scene(source), loaded, MappingSettings(overlap=0.75), ExclusionSettings(), ())
print("ready", flush=True)
map_scene(plan, Path(output), workers=2, save_every=0)
"""


@pytest.mark.parametrize("moments", [pytest.param(2), pytest.param(10, marks=pytest.mark.soak)])
def test_a_map_that_was_killed_continues_to_the_same_map(bright, tmp_path, moments):
    source, _ = bright_scene(tmp_path, 500, 300)
    settings = MappingSettings(overlap=0.75)
    expected = make(bright, source, tmp_path / "whole", settings=settings).folder
    random = np.random.default_rng(moments)
    command = [sys.executable, "-c", KILLED, bright.address, str(source), str(tmp_path / "killed")]
    for _ in range(moments):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0.1, 4))
            process.send_signal(signal.SIGKILL)
            process.wait()
        final = tmp_path / "killed" / "scene"
        assert not final.exists() or {path.name for path in final.iterdir()} == PRODUCTS
    finished = make(bright, source, tmp_path / "killed", settings=settings).folder
    for name in ("probability.tif", "uncertainty.tif", "mask.tif", "reasons.tif", "landslides.geojson"):
        assert (finished / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_full_disk_leaves_an_unfinished_map_that_continues(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 1000, 150)
    expected = make(bright, source, tmp_path / "whole").folder
    limit = files_limited(250_000)  # most of the probabilities
    with limit, pytest.raises(DataError, match="cannot be written: File too large") as caught:
        make(bright, source, tmp_path / "maps", save_every=0)
    assert "the same command continues" in caught.value.remedy
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [".scene.partial"]
    with pytest.raises(MapExistsError, match="an unfinished map that differs in area, masks or clouds") as other:
        make(bright, source, tmp_path / "maps", exclusions=ExclusionSettings(clouds="none"))
    assert other.value.remedy.startswith("Finish it by the call that began it, discard it with --overwrite")
    said = []
    finished = make(bright, source, tmp_path / "maps", say=said.append, overwrite=True)
    assert any("continuing an interrupted map" in line for line in said)
    assert (finished.folder / "probability.tif").read_bytes() == (expected / "probability.tif").read_bytes()


def test_a_dry_run_says_what_would_be_done_with_the_folder(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 1000, 150)
    maps, final = tmp_path / "maps", tmp_path / "maps" / "scene"
    scene = open_scene(source)

    def foreseen(*, overwrite=False, exclusions=None, **settings) -> tuple[str, int]:
        files = {path: path.stat().st_mtime_ns for path in maps.rglob("*")}
        plan = make_plan(scene, bright, MappingSettings(**settings), exclusions or ExclusionSettings())
        told, left = foresee(plan, maps, overwrite=overwrite)
        assert files == {path: path.stat().st_mtime_ns for path in maps.rglob("*")}
        assert any(told in line for line in describe_plan(plan, 1, maps, overwrite=overwrite))
        return told, left

    windows = len(make_plan(scene, bright, MappingSettings(), ExclusionSettings()).windows)
    assert foreseen() == (f"{final}, a new map", windows)
    with locked(maps / ".scene.lock"):
        told, left = foreseen()
        assert told.startswith(f"{final} is being made by process {os.getpid()} on ")
        assert left == windows
    (maps / ".scene.lock").touch()  # its process was killed
    assert foreseen() == (f"{final}, a new map", windows)
    with files_limited(250_000), pytest.raises(DataError, match="cannot be written"):
        make(bright, source, maps, save_every=0)
    told, left = foreseen()
    assert told == f"{final}, an interrupted map: {windows - left} of {windows} windows are done"
    assert 0 < left < windows
    assert foreseen(threshold=0.9) == (told, left)
    told, left = foreseen(exclusions=ExclusionSettings(clouds="none"))
    assert (told.split(". ")[0], left) == (
        f"{maps / '.scene.partial'} holds an unfinished map that differs in area, masks or clouds", windows,
    )  # fmt: skip
    make(bright, source, maps)
    assert foreseen() == (f"{final} is this map", 0)
    told, left = foreseen(threshold=0.9)
    assert (told.split(". ")[0], left) == (f"{final} holds a map that differs in settings", windows)
    summary = json.loads((final / "summary.json").read_text())
    (final / "summary.json").write_text(json.dumps(summary | {"notes": []}))
    assert foreseen(threshold=0.9, overwrite=True) == (
        f"{final}, with the probabilities of the map that it replaces", 0,
    )  # fmt: skip
    assert foreseen(overlap=0.25, overwrite=True) == (f"{final}, replaced", 11 * 2)


def test_a_dry_run_sees_what_stands_in_the_way(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    plan = make_plan(open_scene(source), bright, MappingSettings(), ExclusionSettings())
    (tmp_path / "file").touch()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / ".scene.partial").touch()
    for output, refused in (("file", "file"), ("file/below", "file"), ("maps", "maps/.scene.partial")):
        assert foresee(plan, tmp_path / output) == (f"{tmp_path / refused} cannot be written", 1)
        with pytest.raises(DataError, match="cannot be written"):
            map_scene(plan, tmp_path / output, workers=1)
    make(bright, source, tmp_path / "whole")
    (tmp_path / "whole" / ".scene.done").mkdir()
    (tmp_path / "whole" / "scene").rename(tmp_path / "whole" / ".scene.done" / "products")
    final = tmp_path / "whole" / "scene"
    assert foresee(plan, tmp_path / "whole") == (f"{final}, an interrupted map that is complete", 0)
    assert not map_scene(plan, tmp_path / "whole", workers=1).new


@pytest.mark.parametrize(
    ("file", "content", "continues"),
    [
        ("progress.npz", b"garbage", False),
        ("progress.npz", b"", False),
        ("progress.npz", slice(300, 500), False),
        ("progress.npz", {"next": 999}, False),
        ("progress.npz", {"next": [1, 2]}, False),
        ("progress.npz", {"sums": 0}, False),
        ("identity.json", b"[1]", False),
        ("identity.json", b'{"scene": 1}', False),
        ("warnings.json", b"\xff\xfe", True),
        ("warnings.json", b'{"a": 1}', True),
    ],
)
def test_a_damaged_work_folder_is_no_obstacle(bright, tmp_path, file, content, continues):
    source, _ = bright_scene(tmp_path, 1000, 150)
    expected = make(bright, source, tmp_path / "whole")
    with files_limited(250_000), pytest.raises(DataError, match="cannot be written"):
        make(bright, source, tmp_path / "maps", save_every=0)
    damaged = tmp_path / "maps" / ".scene.partial" / file
    if isinstance(content, bytes):
        damaged.write_bytes(content)
    elif isinstance(content, slice):
        zeroed = bytearray(damaged.read_bytes())
        zeroed[content] = bytes(content.stop - content.start)
        damaged.write_bytes(zeroed)
    else:
        with np.load(damaged) as progress:
            np.savez(damaged, **(dict(progress) | content))
    plan = make_plan(open_scene(source), bright, MappingSettings(), ExclusionSettings())
    assert (foresee(plan, tmp_path / "maps")[1] < len(plan.windows)) == continues
    finished = make(bright, source, tmp_path / "maps")
    assert finished.summary["notes"] == expected.summary["notes"]
    assert (finished.folder / "probability.tif").read_bytes() == (expected.folder / "probability.tif").read_bytes()


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", [2, 3, "deletion"])
def test_a_kill_while_a_map_is_replaced_leaves_no_map_in_pieces(bright, tmp_path, monkeypatch, step):
    source, _ = bright_scene(tmp_path, 128, 128)
    make(bright, source, tmp_path / "maps")
    final, moved, rename, rmtree = tmp_path / "maps" / "scene", [], Path.rename, shutil.rmtree

    def dies(path, target):
        moved.append(path)
        if len(moved) == step:
            raise Killed
        return rename(path, target)

    def dies_after_a_file(folder, **options):
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if not files:
            return rmtree(folder, **options)
        files[0].unlink()
        raise Killed

    settings = MappingSettings(threshold=0.4)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        if step == "deletion":
            patch.setattr(shutil, "rmtree", dies_after_a_file)
        with pytest.raises(Killed):
            make(bright, source, tmp_path / "maps", settings=settings, overwrite=True)
    if final.exists():
        assert {path.name for path in final.iterdir()} == PRODUCTS
    else:
        with pytest.raises(MapExistsError, match=r"holds a map that differs in settings\."):
            make(bright, source, tmp_path / "maps")
    finished = make(bright, source, tmp_path / "maps", settings=settings, overwrite=True)
    assert finished.summary["threshold"] == 0.4
    assert {path.name for path in final.iterdir()} == PRODUCTS
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["scene"]


def test_a_finished_map_that_lost_files_is_made_again_on_demand(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    folder = make(bright, source, tmp_path / "maps").folder
    reviewed = (folder / "landslides.geojson").read_text().replace('"reviewed": false', '"reviewed": true')
    (folder / "landslides.geojson").write_text(reviewed)
    assert not make(bright, source, tmp_path / "maps").new
    (folder / "probability.tif").unlink()
    (folder / "landslides.gpkg").write_bytes(b"")
    with (folder / "mask.tif").open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(bytes(100))
    with pytest.raises(
        MapExistsError, match=r"missing or damaged: landslides\.gpkg, mask\.tif, probability\.tif"
    ) as caught:
        make(bright, source, tmp_path / "maps")
    assert "--overwrite" in caught.value.remedy
    again = make(bright, source, tmp_path / "maps", overwrite=True)
    assert again.new
    assert {path.name for path in again.folder.iterdir()} == PRODUCTS | {"kept"}
    (kept,) = (path for path in (again.folder / "kept").rglob("*") if path.is_file())
    assert kept.read_text() == reviewed


def _file(output):
    output.write_text("mine")


def _file_above(output):
    output.parent.mkdir()
    output.parent.rmdir()
    output.parent.write_text("mine")


def _link_to_nothing(output):
    output.symlink_to("nowhere")


def _file_for_the_work(output):
    output.mkdir()
    (output / ".scene.partial").write_text("mine")


def _folder_for_the_lock(output):
    (output / ".scene.lock").mkdir(parents=True)


def _link_for_the_map(output):
    output.mkdir()
    (output / "scene").symlink_to("nowhere")


@pytest.mark.parametrize(
    "obstacle", [_file, _file_above, _link_to_nothing, _file_for_the_work, _folder_for_the_lock, _link_for_the_map]
)
def test_what_is_in_the_way_is_named_before_anything_is_predicted(bright, tmp_path, obstacle):
    source, _ = bright_scene(tmp_path, 128, 128)
    output = tmp_path / "above" / "maps" if obstacle is _file_above else tmp_path / "maps"
    obstacle(output)
    done = []
    with pytest.raises((DataError, MapExistsError)) as caught:
        make(bright, source, output, progress=lambda *numbers: done.append(numbers))
    assert not done
    assert caught.value.remedy.startswith("Move ")
    assert "--output" in caught.value.remedy


def test_a_name_that_is_too_long_for_the_disk_is_named(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128, name="s" * 248)
    with pytest.raises(DataError, match="File name too long") as caught:
        make(bright, source, tmp_path / "maps")
    assert "shorter name" in caught.value.remedy


def test_a_folder_without_permission_is_named(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    with pytest.raises(DataError, match="/proc") as caught:
        make(bright, source, Path("/proc/maps"))
    assert "Move" not in caught.value.remedy


def test_a_link_to_a_map_is_replaced_by_a_folder_and_the_map_stays(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    make(bright, source, tmp_path / "maps").folder.rename(tmp_path / "kept")
    (tmp_path / "maps" / "scene").symlink_to(tmp_path / "kept")
    settings = MappingSettings(threshold=0.4)
    finished = make(bright, source, tmp_path / "maps", settings=settings, overwrite=True)
    assert not finished.folder.is_symlink()
    for folder in (finished.folder, tmp_path / "kept"):
        assert {path.name for path in folder.iterdir()} == PRODUCTS


def test_missing_bands_and_missing_terrain_name_the_way_out(demo_model, bright, tmp_path):
    source = write_demo_scene(tmp_path / "l2a", layout="SAFE", rows=1, columns=1, level="L2A")
    with pytest.raises(ConfigurationError, match="has no B10, which the model") as caught:
        make(demo_model, source, tmp_path / "maps", dem=[str(tmp_path / "l2a" / "dem.tif")])
    assert "configs/surface_reflectance.yaml" in caught.value.remedy
    source = write_demo_scene(tmp_path / "l1c", layout="SAFE", rows=1, columns=1)
    with pytest.raises(ConfigurationError, match="needs slope and dem") as caught:
        make(demo_model, source, tmp_path / "maps")
    assert "--dem" in caught.value.remedy


def test_notes_say_what_looks_wrong(bright, tmp_path):
    image, _ = ground(112, 120)
    source = write_stack(tmp_path / "small.tif", image, NORTH[0], NORTH[1] @ Affine.scale(3))
    gpd.GeoDataFrame(geometry=[shapely.box(80, 20, 81, 21)], crs=4326).to_file(tmp_path / "beside.gpkg")
    said, beside = [], ExclusionSettings(masks=(tmp_path / "beside.gpkg",))
    finished = make(bright, source, tmp_path / "maps", exclusions=beside, say=said.append)
    notes = " | ".join(finished.summary["notes"])
    assert "processing level is unknown" in notes
    assert "pixels are 30.0 x 30.0 m" in notes
    assert "windows of 112 pixels" in notes
    assert "no elevation model" in notes
    assert "nothing says where clouds are" in notes
    assert "beside.gpkg lies outside the scene" in notes
    assert all(any(note in line for line in said) for note in finished.summary["notes"])


@pytest.mark.parametrize(
    ("scale", "message"), [(1e-3, "the median of B4 is"), (1e-2, "a wrong quantification or offset")]
)
def test_values_that_are_wrong_for_the_model_are_reported(demo_model, tmp_path, scale, message):
    source = write_demo_scene(tmp_path, layout="stack", rows=1, columns=1)
    scene = open_scene(source)
    wrong = {name: replace(band, scale=scale) for name, band in scene.bands.items()}
    finished = make(demo_model, replace(scene, bands=wrong), tmp_path / "maps", dem=[str(tmp_path / "dem.tif")])
    assert any(message in note for note in finished.summary["notes"])


def test_a_map_of_which_nothing_could_be_analysed_says_so(bright, tmp_path):
    source, _ = bright_scene(tmp_path, 128, 128)
    gpd.GeoDataFrame(geometry=[shapely.box(*open_scene(source).grid.bounds)], crs=32645).to_file(tmp_path / "all.gpkg")
    everything = ExclusionSettings(masks=(tmp_path / "all.gpkg",))
    plan = make_plan(open_scene(source), bright, MappingSettings(), everything)
    assert any("none of the 12288 pixels of some rows that were read can be analysed (masked 100.0 %)" in line
               for line in describe_plan(plan, 1, tmp_path / "maps"))  # fmt: skip
    finished = map_scene(plan, tmp_path / "maps", workers=2)
    text = describe_map(finished)
    assert text.startswith("scene: nothing was analysed, so the map does not say whether there are landslides")
    assert "0 landslides" not in text
    assert "none of the 16384 pixels can be analysed (masked 100.0 %)" in finished.summary["notes"]


def test_fill_values_are_counted_and_no_landslides(bright, tmp_path):
    source, mask = bright_scene(tmp_path)
    with rasterio.open(source) as dataset:
        values = dataset.read().astype(np.float32)
    values[:, 100:110, :20] = 1e6  # bright, and so a landslide to the model
    rewrite(source, values, nodata=None)
    finished = make(bright, source, tmp_path / "maps", settings=MappingSettings(min_area=0))
    found = rasters(finished.folder)["mask"]
    assert (found[100:110, :20] == 255).all()
    assert not (found == 1)[mask == 0].any()
    assert finished.summary["not_analysed_by_reason"] == {"impossible value": 200 / 60_000}
    assert any(note.startswith("200 of 60000 pixels have a reflectance below") for note in finished.summary["notes"])
    assert "note: 200 of 60000 pixels have a reflectance below -0.2 or above 3" in describe_map(finished)


def test_fill_values_of_an_elevation_model_are_told(bright, tmp_path):
    source = write_demo_scene(tmp_path, layout="stack", rows=1, columns=1)
    with rasterio.open(tmp_path / "dem.tif") as dataset:
        values = dataset.read()
    values[:, 40:60, 40:60] = -9999
    rewrite(tmp_path / "dem.tif", values, nodata=None)
    plan = make_plan(open_scene(source), bright, MappingSettings(), ExclusionSettings(), [str(tmp_path / "dem.tif")])
    (note,) = (line for line in describe_plan(plan, 1, tmp_path / "maps") if "the elevation model has heights" in line)
    assert "in 2.4 % of the scene the elevation model has heights below -500 or above 9000 m" in note


@pytest.mark.parametrize(("threshold", "stored"), [(1e-12, 1), (1e-4, 1), (0.00011, 2), (0.5, 5000), (0.7001, 7001)])
def test_a_probability_of_0_is_never_a_landslide(threshold, stored):
    assert stored_threshold(threshold) == stored
