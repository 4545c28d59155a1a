"""Training patches from generated scenes and polygons: values, masks, positions, what stays equal."""

import csv
import errno
import json
import shutil
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import rasterize

from landslide.data.check import check
from landslide.data.patches import find_patches, read_mask, read_stored
from landslide.data.positions import read_positions
from landslide.errors import ConfigurationError, DataError
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene
from landslide.schema import ORIGINAL_BANDS, STORED_DIVISORS
from landslide.tiling import tiles
from landslide.tiling.sources import LabelSettings
from landslide.tiling.tiles import LabelledScene, TileSettings, tile_scenes

pytestmark = pytest.mark.slow

RGB = ("B4", "B3", "B2")


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Path:
    """Folder with a scene of 2 x 3 patches and a few rows and columns more, as `stack.tif`."""
    folder = tmp_path_factory.mktemp("ground")
    write_demo_scene(folder, layout="stack", crop=(300, 400))
    return folder


def tile(
    folder: Path, *scenes: Path, labels=None, dem=None, label_settings=None, exclusions=None, say=print, **settings
):
    given = [LabelledScene(open_scene(str(scene)), labels or scene.parent / "landslides.gpkg") for scene in scenes]
    return tile_scenes(
        given, folder, settings=TileSettings(**settings), labels=label_settings or LabelSettings(),
        exclusions=exclusions or ExclusionSettings(), dem=[str(dem or scenes[0].parent / "dem.tif")], say=say,
    )  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_patches_have_the_values_of_the_scene_and_the_polygons(ground, tmp_path):
    result = tile(tmp_path / "set", ground / "stack.tif")
    assert (result.new, result.changed, result.unchanged, result.removed) == (6, 0, 0, 0)
    report = check(tmp_path / "set")
    assert report.ok, report.render()
    assert report.warnings == []
    polygons = gpd.read_file(ground / "landslides.gpkg")
    with rasterio.open(ground / "stack.tif") as scene:
        numbers = scene.read()
        expected_mask = rasterize(polygons.to_crs(scene.crs).geometry, scene.shape, transform=scene.transform)
        names = scene.descriptions
    patches = list(find_patches(tmp_path / "set"))
    assert len(patches) == 6
    for patch, (row, column) in zip(patches, np.ndindex(2, 3), strict=True):
        part = np.s_[128 * row : 128 * (row + 1), 128 * column : 128 * (column + 1)]
        image = read_stored(tmp_path / "set" / patch.image, 14)
        assert image.dtype == np.float64
        for name, digital in zip(names, numbers[(slice(None), *part)], strict=True):
            if (band := name.replace("B0", "B")) in STORED_DIVISORS:
                expected = (digital - 1000.0) / STORED_DIVISORS[band]
                rounding = 0.005 / STORED_DIVISORS[band]  # digital numbers are kept to a hundredth
                np.testing.assert_allclose(image[..., ORIGINAL_BANDS.index(band)], expected, rtol=1e-7, atol=rounding)
        np.testing.assert_array_equal(read_mask(tmp_path / "set" / patch.mask), expected_mask[part])
    assert result.scenes[0].landslide_pixels == expected_mask[:256, :384].sum() > 0


def test_positions_and_edges_are_written_and_read(ground, tmp_path):
    tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    positions = read_positions(tmp_path / "set", range(1, 7))
    assert positions[["scene", "row", "column"]].to_numpy().tolist() == [[1, r, c] for r, c in np.ndindex(2, 3)]
    with (tmp_path / "set/scenes.csv").open() as file:
        lines = list(csv.DictReader(file))
    with rasterio.open(ground / "stack.tif") as scene:
        west, north = scene.transform @ (128, 128)
        assert lines[4] == {
            "n": "5", "scene": "1", "row": "1", "column": "1", "name": "stack", "crs": scene.crs.to_string(),
            "west": f"{west:.10g}", "south": f"{north - 1280:.10g}", "east": f"{west + 1280:.10g}",
            "north": f"{north:.10g}",
        }  # fmt: skip
    record = json.loads((tmp_path / "set/tiles.json").read_text())
    assert record["settings"] == {"stored": list(RGB), "units": "landslide4sense", "stride": 128}
    assert record["scenes"]["stack"]["number"] == 1
    rules = record["scenes"]["stack"]["rules"]
    assert (rules["labels"], rules["burn"], rules["min_valid"], rules["dem"]) == (
        "landslides.gpkg", "centre", 1.0, ["dem.tif"],
    )  # fmt: skip


def test_another_scene_of_the_same_name_or_another_rule_does_not_go_unnoticed(ground, tmp_path):
    tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    before = everything(tmp_path / "set")
    other = tmp_path / "other"
    write_demo_scene(other, layout="stack", rows=1, columns=2, seed=1, origin=(600_000, 3_000_000))
    with pytest.raises(ConfigurationError, match=r"Another scene of the name stack(.|\n)*transform differ"):
        tile(tmp_path / "set", other / "stack.tif", stored=RGB)
    assert everything(tmp_path / "set") == before
    (other / "stack.tif").rename(other / "valley.tif")
    said: list[str] = []
    settings = LabelSettings(burn="area")
    tile(tmp_path / "set", other / "valley.tif", stored=RGB, label_settings=settings, say=said.append)
    assert "note: valley: it is burnt by area, stack is not" in said


def test_what_looks_wrong_is_said(ground, tmp_path):
    with rasterio.open(ground / "stack.tif") as scene:
        profile, values, names = scene.profile, scene.read()[:, ::2, ::2], scene.descriptions
        scales, offsets = scene.scales, scene.offsets
    larger = profile["transform"] @ Affine.scale(2)
    coarse = {**profile, "width": values.shape[2], "height": values.shape[1], "transform": larger}
    (tmp_path / "coarse").mkdir()
    with rasterio.open(tmp_path / "coarse/coarse.tif", "w", **coarse) as target:
        target.write(values)
        target.descriptions = names
        target.scales, target.offsets = scales, offsets
    far = shapely.Point(300_000, 4_000_000).buffer(1_000)
    gpd.GeoDataFrame(geometry=[far], crs=profile["crs"]).to_file(tmp_path / "far.gpkg")
    tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    said: list[str] = []
    tile(
        tmp_path / "set", tmp_path / "coarse/coarse.tif", labels=ground / "landslides.gpkg", stored=RGB,
        exclusions=ExclusionSettings(masks=(tmp_path / "far.gpkg",)), say=said.append,
    )  # fmt: skip
    notes = [text.removeprefix("note: coarse: ") for text in said if text.startswith("note: ")]
    starts = ("pixels are 20.0 x 20.0 m", "its pixels have another size", "nothing says where clouds are", "the mask")
    assert all(text.startswith(start) for text, start in zip(notes, starts, strict=True)), notes
    assert notes[-1].endswith("far.gpkg lies outside the scene, so it leaves nothing out")
    assert "72 columns at the right edge and 22 rows at the lower edge in no window" in said[-1]


def test_polygons_that_fill_no_share_of_a_pixel_are_named(ground, tmp_path):
    with rasterio.open(ground / "stack.tif") as scene:
        west, north = scene.transform @ (60.1, 60.2)
        crs = scene.crs
    thin = shapely.box(west, north - 1, west + 1, north)
    gpd.GeoDataFrame(geometry=[thin], crs=crs).to_file(tmp_path / "thin.gpkg")
    said: list[str] = []
    tile(
        tmp_path / "set", ground / "stack.tif", labels=tmp_path / "thin.gpkg", stored=RGB,
        label_settings=LabelSettings(burn="area"), say=said.append,
    )  # fmt: skip
    assert "note: stack: no pixel of its patches became a landslide, though polygons lie in them" in said


@pytest.mark.parametrize(("min_valid", "patches"), [(1.0, 2), (0.5, 4)])
def test_a_window_without_labels_is_no_patch(ground, tmp_path, min_valid, patches):
    with rasterio.open(ground / "stack.tif") as scene:
        profile = {**scene.profile, "count": 1, "dtype": "uint8", "width": 200, "nodata": None}
        polygons = gpd.read_file(ground / "landslides.gpkg").to_crs(scene.crs).geometry
        mask = rasterize(polygons, scene.shape, transform=scene.transform)[:, :200]
    with rasterio.open(tmp_path / "west.tif", "w", **profile) as target:
        target.write(mask[None])
    said: list[str] = []
    settings = {"stored": RGB, "min_valid": min_valid}
    result = tile(tmp_path / "set", ground / "stack.tif", labels=tmp_path / "west.tif", say=said.append, **settings)
    assert result.new == patches
    assert f"left out: {6 - patches} no label" in said[-1]
    assert result.scenes[0].landslide_pixels == mask[:256, : 128 * patches // 2].sum()


def test_a_full_disk_is_that_of_the_set_and_the_set_before_stays(ground, tmp_path, monkeypatch):
    tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    before = everything(tmp_path / "set")
    write = tiles.write_array

    def fill_up(path: Path, key: str, values: np.ndarray) -> None:
        if path.name == "image_3.h5":
            raise OSError(errno.ENOSPC, "Can't synchronously write data (file write failed: ...)")
        write(path, key, values)

    monkeypatch.setattr(tiles, "write_array", fill_up)
    with pytest.raises(DataError, match=r"set cannot be written: No space left on device\.") as error:
        tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    assert error.value.remedy.startswith("Make room on its disk")
    assert everything(tmp_path / "set") == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_same_again_is_equal_to_the_byte(ground, tmp_path):
    tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    before = everything(tmp_path / "set")
    result = tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    assert (result.new, result.changed, result.unchanged, result.removed) == (0, 0, 6, 0)
    assert everything(tmp_path / "set") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".partial", ".old"))] == []


def test_a_further_scene_and_new_polygons_change_only_what_they_must(ground, tmp_path):
    other = tmp_path / "valley"
    write_demo_scene(other, layout="stack", rows=1, columns=2, seed=1)
    (other / "stack.tif").rename(other / "valley.tif")
    tile(tmp_path / "set", ground / "stack.tif", stored=RGB)
    before = everything(tmp_path / "set")
    result = tile(tmp_path / "set", other / "valley.tif", stored=RGB)
    assert (result.new, result.unchanged) == (2, 6)
    after = everything(tmp_path / "set")
    assert {name for name in before if after[name] != before[name]} == {"scenes.csv", "tiles.json"}
    assert read_positions(tmp_path / "set", range(1, 9))["scene"].tolist() == [1] * 6 + [2] * 2

    fewer = gpd.read_file(ground / "landslides.gpkg")
    with rasterio.open(ground / "stack.tif") as scene:
        left, _, _, top = scene.bounds
    upper_left = shapely.box(left, top - 1280, left + 1280, top)
    fewer = fewer[~fewer.to_crs(scene.crs).intersects(upper_left)]
    fewer.to_file(tmp_path / "fewer.gpkg")
    result = tile(tmp_path / "set", ground / "stack.tif", labels=tmp_path / "fewer.gpkg", stored=RGB)
    changed = {name for name, content in everything(tmp_path / "set").items() if content != after[name]}
    assert {"TrainData/mask/mask_1.h5", "tiles.json"} <= changed  # it names the file of the labels
    changed.remove("tiles.json")
    assert all(name.startswith("TrainData/mask/") for name in changed)
    assert result.changed == len(changed) < 6


def test_windows_outside_the_area_or_with_invalid_pixels_are_left_out(ground, tmp_path):
    with rasterio.open(ground / "stack.tif") as scene:
        left, _, _, top = scene.bounds
        crs = scene.crs
    area = gpd.GeoDataFrame(geometry=[shapely.box(left, top - 1300, left + 3000, top)], crs=crs)
    cloud = gpd.GeoDataFrame(geometry=[shapely.box(left + 100, top - 300, left + 300, top - 100)], crs=crs)
    area.to_file(tmp_path / "area.gpkg")
    cloud.to_file(tmp_path / "cloud.gpkg")
    exclusions = ExclusionSettings(area=str(tmp_path / "area.gpkg"), masks=(str(tmp_path / "cloud.gpkg"),))
    result = tile(tmp_path / "set", ground / "stack.tif", exclusions=exclusions, stored=RGB)
    assert dict(result.scenes[0].left_out) == {"outside area": 4, "masked": 1}
    assert read_positions(tmp_path / "set", [1])[["row", "column"]].to_numpy().tolist() == [[0, 1]]

    result = tile(tmp_path / "set", ground / "stack.tif", exclusions=exclusions, stored=RGB, min_valid=0.9)
    assert (result.new, result.unchanged) == (1, 1)
    image, mask = (
        read(tmp_path / f"set/TrainData/{kind}/{name}_2.h5", *more)
        for read, kind, name, more in ((read_stored, "img", "image", (3,)), (read_mask, "mask", "mask", ()))
    )
    hidden = np.zeros((128, 128), bool)
    hidden[10:30, 10:30] = True
    np.testing.assert_array_equal(image[hidden], np.broadcast_to(np.median(image[~hidden], axis=0), (400, 3)))
    assert not mask[hidden].any()


@pytest.mark.parametrize("crs", ["EPSG:32718", "EPSG:4326"])
def test_scenes_of_the_south_and_in_degrees_are_cut_too(tmp_path, crs):
    write_demo_scene(tmp_path, layout="stack", rows=1, columns=2, crs=crs)
    result = tile(tmp_path / "set", tmp_path / "stack.tif", stored=RGB)
    polygons = gpd.read_file(tmp_path / "landslides.gpkg")
    with rasterio.open(tmp_path / "stack.tif") as scene:
        expected = rasterize(polygons.to_crs(scene.crs).geometry, scene.shape, transform=scene.transform)
    assert result.scenes[0].landslide_pixels == expected.sum() > 0


def test_windows_overlap_with_a_smaller_stride(ground, tmp_path):
    result = tile(tmp_path / "set", ground / "stack.tif", stored=RGB, stride=64)
    assert result.new == 3 * 5
    images = [read_stored(tmp_path / f"set/TrainData/img/image_{n}.h5", 3) for n in (1, 2)]
    np.testing.assert_array_equal(images[0][:, 64:], images[1][:, :64])


def test_other_files_and_other_settings_are_never_replaced(ground, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="was not cut from scenes"):
        tile(folder, ground / "stack.tif", stored=RGB)
    assert everything(folder) == {"notes.txt": b"mine"}
    shutil.rmtree(folder)
    tile(folder, ground / "stack.tif", stored=RGB)
    before = everything(folder)
    with pytest.raises(ConfigurationError, match=r"was cut with stride 128, not 64"):
        tile(folder, ground / "stack.tif", stored=RGB, stride=64)
    with pytest.raises(ConfigurationError, match="have the name stack"):
        tile(folder, ground / "stack.tif", ground / "stack.tif", stored=RGB)
    assert everything(folder) == before


def test_files_of_a_person_in_a_set_stay_when_it_is_cut_again(ground, tmp_path):
    folder = tmp_path / "set"
    tile(folder, ground / "stack.tif", stored=RGB)
    before = everything(folder)
    mine = {"notes.txt": b"mine", "ValidData/img/image_1.h5": b"an image", "TrainData/img/.hidden": b""}
    for name, content in mine.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(ground / "dem.tif")
    tile(folder, ground / "stack.tif", stored=RGB)
    assert (folder / "empty").is_dir()
    assert (folder / "link").readlink() == ground / "dem.tif"
    (folder / "link").unlink()
    assert everything(folder) == before | mine
    shutil.copyfile(ground / "stack.tif", tmp_path / "more.tif")
    (folder / "TrainData/img/image_7.h5").write_bytes(b"drawn by hand")
    before = everything(folder)
    with pytest.raises(DataError, match=r"image_7\.h5 was not cut by this command, and is in the way"):
        tile(folder, tmp_path / "more.tif", labels=ground / "landslides.gpkg", dem=ground / "dem.tif", stored=RGB)
    assert everything(folder) == before


def test_a_patch_that_was_lost_is_cut_again_with_its_scene_only(ground, tmp_path):
    folder = tmp_path / "set"
    tile(folder, ground / "stack.tif", stored=RGB)
    before = everything(folder)
    (folder / "TrainData/img/image_3.h5").unlink()
    shutil.copyfile(ground / "stack.tif", tmp_path / "more.tif")
    with pytest.raises(DataError, match=r"image_3\.h5 is missing.\n.*give the scene stack again as well"):
        tile(folder, tmp_path / "more.tif", labels=ground / "landslides.gpkg", dem=ground / "dem.tif", stored=RGB)
    result = tile(folder, ground / "stack.tif", stored=RGB)
    assert (result.changed, result.unchanged) == (1, 5)
    assert everything(folder) == before


def test_a_record_that_contradicts_itself_is_refused(ground, tmp_path):
    folder = tmp_path / "set"
    tile(folder, ground / "stack.tif", stored=RGB)
    before = everything(folder)
    record = json.loads(before["tiles.json"])
    lines = before["scenes.csv"].decode()
    scene = record["scenes"]["stack"]
    for name, text in (
        ("scenes.csv", lines.replace("\n2,1,", "\n1,1,")),
        ("scenes.csv", lines.replace(",stack,", ",another,")),
        ("tiles.json", json.dumps(record | {"settings": {}})),
        ("tiles.json", json.dumps(record | {"scenes": {"stack": 5}})),
        ("tiles.json", json.dumps(record | {"scenes": {"stack": scene | {"rules": {}}}})),
        ("tiles.json", json.dumps(record | {"scenes": {"stack": scene | {"number": None}}})),
        ("tiles.json", json.dumps(record | {"scenes": {"stack": scene | {"datetime": "soon"}}})),
    ):
        (folder / name).write_text(text)
        with pytest.raises(DataError, match=r"scenes\.csv or tiles\.json is damaged"):
            tile(folder, ground / "stack.tif", stored=RGB)
        assert (folder / name).read_text() == text
        (folder / name).write_bytes(before[name])
    assert everything(folder) == before


def test_scenes_smaller_than_a_patch_are_named(ground, tmp_path):
    with rasterio.open(ground / "stack.tif") as source:
        profile = source.profile | {"height": 300, "width": 100}
        with rasterio.open(tmp_path / "strip.tif", "w", **profile) as target:
            target.write(source.read()[..., :100])
            target.descriptions, target.scales, target.offsets = source.descriptions, source.scales, source.offsets
    with pytest.raises(DataError, match="strip has 100 x 300 pixels, less than a patch of 128 x 128"):
        tile(tmp_path / "set", tmp_path / "strip.tif", labels=ground / "landslides.gpkg", stored=RGB)


@pytest.mark.parametrize("name", ["scenes.csv", "tiles.json"])
@pytest.mark.parametrize("length", [0, 60])
def test_a_damaged_record_is_refused(ground, tmp_path, name, length):
    folder = tmp_path / "set"
    tile(folder, ground / "stack.tif", stored=RGB)
    (folder / name).write_bytes((folder / name).read_bytes()[:length])
    before = everything(folder)
    with pytest.raises(DataError, match=r"scenes\.csv or tiles\.json is damaged"):
        tile(folder, ground / "stack.tif", stored=RGB)
    assert everything(folder) == before


def test_a_set_is_complete_or_as_it_was_whenever_it_is_killed(ground, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    tile(folder, ground / "stack.tif", stored=RGB)
    before = everything(folder)

    def killed(*paths: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tiles, "_differences", killed)
        with pytest.raises(KeyboardInterrupt):
            tile(folder, ground / "stack.tif", stored=RGB)
    assert everything(folder) == before
    folder.rename(tmp_path / ".set.old")  # as if killed between two renames
    result = tile(folder, ground / "stack.tif", stored=RGB)
    assert result.unchanged == 6
    assert everything(folder) == before


def test_scenes_without_a_band_or_a_window_are_refused(ground, tmp_path):
    with pytest.raises(ConfigurationError, match="no elevation model"):
        tile_scenes(
            [LabelledScene(open_scene(str(ground / "stack.tif")), ground / "landslides.gpkg")], tmp_path / "set",
            settings=TileSettings(), labels=LabelSettings(), exclusions=ExclusionSettings(),
        )  # fmt: skip
    everywhere = gpd.read_file(ground / "landslides.gpkg")
    with rasterio.open(ground / "stack.tif") as scene:
        gpd.GeoDataFrame(geometry=[shapely.box(*scene.bounds)], crs=scene.crs).to_file(tmp_path / "all.gpkg")
    assert len(everywhere)
    with pytest.raises(DataError, match=r"No window(.|\n)*left out: 6 masked"):
        tile(
            tmp_path / "set", ground / "stack.tif", stored=RGB,
            exclusions=ExclusionSettings(masks=(str(tmp_path / "all.gpkg"),)),
        )  # fmt: skip
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"stride": 129}, "stride is 129"),
        ({"min_valid": 0}, "share of valid pixels is 0"),
        ({"stored": ("B4", "B4")}, "B4, B4"),
        ({"stored": ("B8A",)}, "B8A"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        TileSettings(**wrong)
