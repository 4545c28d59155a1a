"""Scenes as users have them: what is understood, and what is refused with the reason."""

import json
import shlex
import shutil
import subprocess
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from landslide.errors import ConfigurationError, DataError, RemoteError
from landslide.scenes.band_names import band_of_file, band_of_text
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.reader import SceneReader
from landslide.scenes.scene import open_scene
from tests.support.range_server import range_server
from tests.support.sentinel2 import rewrite, sentinel2_folder

ALL = tuple(f"B{number}" for number in range(1, 13))
SMALL = {"rows": 1, "columns": 1, "crop": (60, 70)}


@pytest.fixture(scope="module")
def sentinel2(real_data):
    return sentinel2_folder(real_data)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    layouts = {"SAFE": "L1C", "bands": "L1C", "stack": "L1C", "STAC item": "L1C"}
    scenes = {
        name: write_demo_scene(folder / name, layout=name, level=level, **SMALL) for name, level in layouts.items()
    }
    return scenes | {"L2A": write_demo_scene(folder / "L2A", layout="SAFE", level="L2A", **SMALL)}


@pytest.fixture
def copy(originals, tmp_path):
    """Copy a scene, so that a test may damage it."""

    def of(layout: str) -> Path:
        original = originals[layout]
        shutil.copytree(original.parent, tmp_path / "copy")
        return tmp_path / "copy" / original.name

    return of


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("B2", "B2"), ("b02", "B2"), ("B8A", "B8A"), ("b08a", "B8A"), ("B12", "B12"), ("swir16", "B11"), ("NIR", "B8"),
        ("B4, central wavelength 665 nm", "B4"), ("B02_10m", "B2"), ("SCL_20m", "SCL"), ("nir08", "B8A"),
        ("QA60", None), ("B13", None), ("B0", None), ("B8B", None), ("", None), (None, None), ("AB2", None),
        ("B112", None),
    ],
)  # fmt: skip
def test_names_of_bands(text, band):
    assert band_of_text(text) == band


@pytest.mark.parametrize(
    ("file", "band"),
    [
        ("B02.tif", ("B2", None)), ("x/T33UUU_20170216T102101_B8A.jp2", ("B8A", None)), ("b2.TIF", ("B2", None)),
        ("T33UUU_20170216T102101_B02_10m.jp2", ("B2", 10)), ("T33UUU_SCL_20m.jp2", ("SCL", 20)),
        ("B13.tif", (None, None)), ("dem.tif", (None, None)), ("T01WCP_20230625T234621_TCI_10m.jp2", (None, None)),
        ("SUBB02.tif", (None, None)), ("x/MSK_QUALIT_B04.jp2", (None, None)), ("MSK_DETFOO_B04.jp2", (None, None)),
    ],
)  # fmt: skip
def test_names_of_files(file, band):
    assert band_of_file(file) == band


@pytest.mark.parametrize("layout", ["SAFE", "bands", "stack", "STAC item"])
def test_every_layout_has_the_same_grid_and_scale(originals, layout):
    scene = open_scene(originals[layout])
    assert scene.kind == layout
    assert tuple(scene.bands) == ALL
    assert {(band.scale, band.offset, band.nodata) for band in scene.bands.values()} == {(0.0001, -0.1, 0)}
    assert (scene.grid.height, scene.grid.width) == (60, 70)
    assert scene.grid.transform == Affine(10, 0, 399_960, 0, -10, 3_100_020)
    assert scene.grid.crs == "EPSG:32645"
    assert not scene.missing


def test_product_says_its_level_baseline_sensor_and_time(originals):
    scene = open_scene(originals["SAFE"])
    assert scene.name == originals["SAFE"].stem
    assert (scene.level, scene.baseline, scene.sensor) == ("L1C", "05.10", "Sentinel-2A")
    assert scene.datetime == datetime(2024, 6, 12, 4, 47, 1, 24000, tzinfo=UTC)
    assert scene.scaling.endswith("MTD_MSIL1C.xml")
    item = open_scene(originals["STAC item"])
    assert (item.level, item.baseline, item.sensor) == ("L1C", "05.10", "Sentinel-2A")
    assert item.datetime == datetime(2024, 6, 12, 4, 47, 1, tzinfo=UTC)


def test_surface_reflectance_has_the_finest_bands_and_the_scene_classification(originals):
    scene = open_scene(originals["L2A"])
    assert scene.level == "L2A"
    assert tuple(scene.bands) == tuple(band for band in ALL if band != "B10")
    assert scene.bands["B2"].path.endswith("R10m/T45XXX_20240612T044701_B02_10m.jp2")
    assert scene.classification.scene.path.endswith("SCL_20m.jp2")


def test_zip_parent_folder_and_metadata_file_mean_the_same_product(originals, tmp_path):
    product = originals["SAFE"]
    archive = shutil.make_archive(str(tmp_path / "product"), "zip", product.parent, product.name)
    expected = open_scene(product)
    for source in (archive, product.parent, product / "MTD_MSIL1C.xml"):
        scene = open_scene(source)
        assert (scene.name, scene.level, scene.grid) == (expected.name, expected.level, expected.grid)
        with rasterio.open(scene.bands["B4"].path) as a, rasterio.open(expected.bands["B4"].path) as b:
            assert (a.read() == b.read()).all()


def test_real_band_files_need_both_options(sentinel2):
    folder = sentinel2 / "l1c-jp2-bands"
    scene = open_scene(folder, quantification=10000, offset=0, level="L1C")
    assert tuple(scene.bands) == ALL
    assert (scene.grid.width, scene.grid.height, scene.grid.transform.a) == (1536, 768, 10)
    assert {(band.scale, band.offset, band.nodata, band.saturated) for band in scene.bands.values()} == {
        (1e-4, 0, 0, 65535)
    }
    assert (scene.level, scene.scaling) == ("L1C", "options")
    for options in ({}, {"offset": 0}):
        with pytest.raises(ConfigurationError, match=r"B01\.jp2") as error:
            open_scene(folder, **options)
        assert "--quantification" in error.value.remedy
        assert "--offset" in error.value.remedy
    with pytest.raises(ConfigurationError, match=r"B01\.jp2: nothing says which offset"):
        open_scene(folder, quantification=10000)


def test_metadata_beside_a_real_stack_count(sentinel2):
    path = sentinel2 / "l2a-stack/20231217.tif"
    scene = open_scene(path)
    assert tuple(scene.bands) == tuple(band for band in ALL if band not in ("B9", "B10"))
    assert (scene.name, scene.level, scene.baseline, scene.sensor) == ("20231217", "L2A", "05.10", "Sentinel-2B")
    assert {(band.scale, band.offset) for band in scene.bands.values()} == {(0.0001, -0.1)}
    assert [band.index for band in scene.bands.values()] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert open_scene(path, offset=-1000, quantification=10000, level="L2A").bands == scene.bands
    for options, message in (
        ({"offset": 0}, "--offset is 0, but .*MTD_MSIL2A.xml says -1000 for B1"),
        ({"quantification": 1}, "--quantification is 1, but .*MTD_MSIL2A.xml says 10000"),
        ({"level": "L1C"}, "--level is L1C, but .* says L2A"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            open_scene(path, **options)


def test_reflectance_stack(sentinel2):
    scene = open_scene(sentinel2 / "l1c-stack-with-dem/eolearn_S2L1C_2015-07-11.tif", quantification=1, offset=0)
    assert tuple(scene.bands) == ALL
    assert scene.bands["B9"].index == 10
    assert {(band.scale, band.offset, band.nodata) for band in scene.bands.values()} == {(1, 0, None)}


def test_real_products_without_pixels_name_a_missing_file(sentinel2):
    products = sorted((sentinel2 / "product-metadata").glob("*.SAFE"))
    assert len(products) == 4
    for product in products:
        with pytest.raises(DataError, match=r"MTD_MSIL..\.xml names band files that are missing: T\w+_B0[12]"):
            open_scene(product)


def test_a_missing_band_file_is_known_by_its_name(copy):
    product = copy("SAFE")
    next(product.rglob("*_B10.jp2")).unlink()
    scene = open_scene(product)
    assert tuple(scene.bands) == tuple(band for band in ALL if band != "B10")
    assert list(scene.missing) == ["B10"]
    assert scene.missing["B10"].endswith("IMG_DATA/T45XXX_20240612T044701_B10")


def test_names_can_be_given_for_a_stack_without_descriptions(copy):
    path = copy("stack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = [None] * 13
    with pytest.raises(DataError, match="no band has the name"):
        open_scene(path)
    names = ["B1", "b02", "red", *["-"] * 9, "B8A"]
    assert {name: band.index for name, band in open_scene(path, bands=names).bands.items()} == {
        "B1": 1,
        "B2": 2,
        "B4": 3,
    }
    for given, message in ((["B2"], "13 bands; 1 names"), (["B2", "Bx", *["-"] * 11], "Unknown names of bands: Bx")):
        with pytest.raises(ConfigurationError, match=message):
            open_scene(path, bands=given)
    with pytest.raises(DataError, match="bands 1 and 3 are both B2"):
        open_scene(path, bands=["B2", "-", "blue", *["-"] * 10])


def test_names_for_layouts_that_name_their_bands_are_refused(originals):
    for layout in ("SAFE", "bands", "STAC item"):
        with pytest.raises(ConfigurationError, match="names"):
            open_scene(originals[layout], bands=["B2"])


def test_the_same_band_twice(copy):
    folder = copy("bands")
    shutil.copy(folder / "B02.tif", folder / "old_B2.tif")
    with pytest.raises(DataError, match=r"old_B2\.tif and .*B02\.tif are both band B2"):
        open_scene(folder)


def test_the_finest_of_several_resolutions_is_taken(copy):
    folder = copy("bands")
    for name in ("R10m", "R20m"):
        (folder / name).mkdir()
    (folder / "B02.tif").rename(folder / "R10m/x_B02_10m.tif")
    shutil.copy(folder / "B05.tif", folder / "R20m/x_B02_20m.tif")
    assert open_scene(folder).bands["B2"].path.endswith("R10m/x_B02_10m.tif")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crs": None}, "no coordinate reference system"),
        ({"crs": "EPSG:32646"}, "reference system EPSG:32646, B2 .* has EPSG:32645"),
        ({"transform": Affine(10, 1, 399_960, 1, -10, 3_100_020)}, "is rotated"),
        ({"transform": Affine(10, 0, 399_960, 0, 10, 3_099_420)}, "is flipped"),
        ({"transform": Affine(10, 0, 399_980, 0, -10, 3_100_020)}, r"2\.0 pixels of B3 apart"),
        ({"transform": Affine(10, 0, 399_960, 0, -10, 3_100_002)}, r"1\.8 pixels of B3 apart"),
        ({"crs": "EPSG:4326"}, "do not fit the reference system EPSG:4326"),
        ({"transform": Affine(1e-4, 0, 86, 0, -1e-4, 28)}, "do not fit the reference system EPSG:32645"),
        ({"crs": 'LOCAL_CS["site",UNIT["metre",1]]'}, "neither projected nor geographic"),
        ({"transform": Affine.identity()}, "is not georeferenced"),
        ({"transform": Affine.identity(), "crs": None}, "is not georeferenced"),
        ({"transform": Affine(250, 0, 399_960, 0, -250, 3_100_020)}, "has pixels of 250 x 250 m in EPSG:32645"),
        ({"transform": Affine(0.3, 0, 399_960, 0, -0.3, 3_100_020)}, r"has pixels of 0\.3 x 0\.3 m in EPSG:32645"),
    ],
)
def test_grids_that_do_not_fit(copy, changes, message):
    folder = copy("bands")
    rewrite(folder / "B03.tif", **changes)
    with pytest.raises(DataError, match=message) as error:
        open_scene(folder)
    assert "B03.tif" in str(error.value)


@pytest.mark.skipif(shutil.which("gdalwarp") is None, reason="gdalwarp is not installed (Debian: gdal-bin)")
@pytest.mark.parametrize(
    "transform", [Affine(9, 4, 399_960, 4, -9, 3_100_020), Affine(10, 0, 399_960, 0, 10, 3_099_420)]
)
def test_the_remedy_for_a_rotated_or_flipped_raster_leads_to_a_scene(copy, transform):
    path = rewrite(copy("stack"), transform=transform)
    with pytest.raises(DataError, match=r"is (rotated|flipped)") as error:
        open_scene(path)
    command, _, _ = error.value.remedy.partition(": ")[2].partition(" (")
    new = path.with_name("new.tif")
    subprocess.run(command.replace("NEW_FILE", str(new)).replace("FILE", str(path)).split(), check=True)
    assert open_scene(new).bands.keys() == set(ALL)
    assert open_scene(new).bands["B4"].scale == 1e-4


@pytest.mark.parametrize("crs", ["EPSG:32645", None])
def test_the_remedy_for_a_raster_without_a_place_leads_to_a_scene(copy, crs):
    path = rewrite(copy("stack"), transform=Affine.identity(), crs=crs)
    with pytest.raises(DataError, match="is not georeferenced") as error:
        open_scene(path)
    command = error.value.remedy.partition(": ")[2].partition(", with")[0]
    place = command.replace("32633", "32645").replace("[WIDTH, 0, LEFT, 0, -HEIGHT, TOP]", "[10, 0, 4e5, 0, -10, 3e6]")
    subprocess.run(shlex.split(place.replace("FILE", str(path))), check=True)
    assert open_scene(path).grid.bounds == (400_000, 2_999_400, 400_700, 3_000_000)


def test_bands_may_differ_by_less_than_a_pixel_of_their_own(copy):
    folder = copy("bands")
    rewrite(folder / "B01.tif", transform=Affine(60, 0, 399_910, 0, -60, 3_100_020))
    assert open_scene(folder).grid.transform.a == 10
    rewrite(folder / "B01.tif", transform=Affine(60, 0, 399_890, 0, -60, 3_100_020))
    with pytest.raises(DataError, match="pixels of B1 apart"):
        open_scene(folder)


def test_several_bands_in_the_file_of_one_band(copy):
    folder = copy("bands")
    rewrite(folder / "B03.tif", np.ones((3, 60, 70), np.uint16))
    with pytest.raises(DataError, match="has 3 bands; expected band B3"):
        open_scene(folder)


def test_a_file_that_is_no_raster(copy):
    folder = copy("bands")
    (folder / "B03.tif").write_bytes(b"not a raster")
    with pytest.raises(DataError, match=r"B03\.tif cannot be read: .*not recognized"):
        open_scene(folder)


def test_tags_that_contradict_the_metadata_or_an_option(copy, originals):
    folder = copy("bands")
    with pytest.raises(ConfigurationError, match="--offset is 0, but tags of the rasters says -1000"):
        open_scene(folder, offset=0)
    metadata = originals["SAFE"] / "MTD_MSIL1C.xml"
    shutil.copy(metadata, folder)
    assert open_scene(folder).scaling.endswith("MTD_MSIL1C.xml")
    (folder / metadata.name).write_text(metadata.read_text().replace(">-1000<", ">-500<"))
    with pytest.raises(
        DataError,
        match=r"xml says scale 0\.0001 and offset -0\.05 for B1, but the tags of .* say scale 0\.0001 and offset -0\.1",
    ):
        open_scene(folder)


@pytest.mark.parametrize("tags", [(0, 0), (-1e-4, 0), (float("nan"), 0), (1e-4, float("nan")), (float("inf"), -0.1)])
def test_tags_that_cannot_be_are_replaced_by_the_options_only(copy, tags):
    path = copy("stack")
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = [tags[0]] * 13, [tags[1]] * 13
    for options in ({}, {"quantification": 10000}, {"offset": -1000}):
        with pytest.raises(ConfigurationError, match=r"The tags of .*\.tif say scale .*, which cannot be"):
            open_scene(path, **options)
    band = open_scene(path, quantification=10000, offset=-1000).bands["B4"]
    assert (band.scale, band.offset) == (1e-4, -0.1)


def test_metadata_of_two_products_in_one_folder(copy, originals):
    folder = copy("bands")
    shutil.copy(originals["SAFE"] / "MTD_MSIL1C.xml", folder)
    shutil.copy(originals["L2A"] / "MTD_MSIL2A.xml", folder)
    with pytest.raises(DataError, match=r"several products: MTD_MSIL1C\.xml, MTD_MSIL2A\.xml"):
        open_scene(folder)


def test_missing_paths_empty_folders_and_products_without_metadata(copy, tmp_path):
    with pytest.raises(DataError, match="There is no scene"):
        open_scene(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found no file"):
        open_scene(tmp_path / "empty")
    product = copy("SAFE")
    (product / "MTD_MSIL1C.xml").unlink()
    with pytest.raises(DataError, match=r"has no MTD_MSIL1C\.xml or MTD_MSIL2A\.xml"):
        open_scene(product)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "The path of a scene is empty"),
        (" ", "The path of a scene is empty"),
        ("s3://bucket/S2A.SAFE", "s3://bucket/S2A.SAFE is an address of a kind that cannot be opened"),
        ("gs://bucket/item.json", "is an address of a kind that cannot be opened"),
    ],
)
def test_addresses_that_are_none(source, message, originals, monkeypatch):
    monkeypatch.chdir(originals["bands"])  # the current folder is a scene
    with pytest.raises(ConfigurationError, match=message):
        open_scene(source)


def test_names_in_other_scripts_stay_apart(copy):
    path = copy("stack")
    names = []
    for name in ("滑坡", "山崩", "Glissement é 1"):
        path = path.rename(path.with_name(f"{name}.tif"))
        names.append(open_scene(path).name)
    assert names == ["滑坡", "山崩", "Glissement_é_1"]


def test_masks_of_a_product_beside_its_bands(copy):
    folder = copy("bands")
    shutil.copy(folder / "B04.tif", folder / "MSK_QUALIT_B04.tif")
    scene = open_scene(folder)
    assert scene.bands["B4"].path.endswith("/B04.tif")
    assert list(scene.classification.quality) == ["B4"]


def test_complex_numbers_are_refused(copy, tmp_path):
    folder = copy("bands")
    rewrite(folder / "B03.tif", np.ones((1, 60, 70), np.complex64))
    with pytest.raises(DataError, match=r"B03\.tif has complex numbers"):
        open_scene(folder)


def test_several_products_in_one_folder(originals, tmp_path):
    for name in ("a.SAFE", "b.SAFE"):
        shutil.copytree(originals["SAFE"], tmp_path / name)
    with pytest.raises(DataError, match=r"holds 2 products: a\.SAFE, b\.SAFE"):
        open_scene(tmp_path)


def test_broken_and_encrypted_zip_files(originals, tmp_path):
    product = originals["SAFE"]
    archive = Path(shutil.make_archive(str(tmp_path / "product"), "zip", product.parent, product.name))
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"product\.zip is not a readable zip file"):
        open_scene(archive)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.SAFE/MTD_MSIL1C.xml", "secret")
    # The flag of encryption of the entry, in its own header and in the directory.
    raw = bytearray(archive.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    with pytest.raises(DataError, match="is encrypted"):
        open_scene(archive)


@pytest.mark.parametrize("options", [{"quantification": 0}, {"quantification": float("nan")}, {"offset": float("inf")}])
def test_options_out_of_range(originals, options):
    with pytest.raises(ConfigurationError, match=r"^--"):
        open_scene(originals["SAFE"], **options)


# --- STAC ---------------------------------------------------------------------------------------------------


@pytest.fixture
def item(copy):
    """A copy of the item, and a function that changes its JSON."""
    path = copy("STAC item")

    def change(function) -> Path:
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))
        return path

    return change


def test_planetary_computer_names_and_metadata_asset(item, originals):
    keys = {"coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "nir08": "B8A"}

    def change(content):
        assets = content["assets"]
        for asset in assets.values():
            del asset["raster:bands"]
        content["assets"] = {new: assets[old] for old, new in keys.items()}
        content["assets"]["product-metadata"] = {"href": str(originals["SAFE"] / "MTD_MSIL1C.xml")}
        content["assets"]["visual"] = content["assets"]["B02"]
        del content["properties"]["s2:product_type"]

    scene = open_scene(item(change))
    assert list(scene.bands) == ["B1", "B2", "B3", "B4", "B8"]
    assert {(band.scale, band.offset, band.saturated) for band in scene.bands.values()} == {(0.0001, -0.1, 65535)}
    assert scene.level == "L1C"
    assert scene.scaling.endswith("MTD_MSIL1C.xml")


@pytest.mark.parametrize("version", ["bands", "asset"])
def test_scale_and_offset_of_stac_1_1(item, version):
    def change(content):
        for asset in content["assets"].values():
            del asset["raster:bands"]
            values = {"raster:scale": 0.0002, "raster:offset": -0.2}
            asset.update({"bands": [{"name": "x"} | values]} if version == "bands" else values)

    path = item(change)
    for file in path.parent.rglob("*.tif"):
        with rasterio.open(file, "r+") as dataset:
            dataset.scales, dataset.offsets = [1] * dataset.count, [0] * dataset.count
    band = open_scene(path).bands["B4"]
    assert (band.scale, band.offset) == (0.0002, -0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": float("nan")}, r"item\.json says scale 0\.0001 and offset nan for B1, which cannot be"),
        ({"scale": float("inf")}, "says scale inf and offset -0.1 for B1, which cannot be"),
        ({"scale": 0}, "says scale 0 and offset -0.1 for B1, which cannot be"),
        (
            {"offset": 0},
            r"says scale 0\.0001 and offset 0 for B1, but the tags of .* say scale 0\.0001 and offset -0\.1",
        ),
        ({"scale": 0.001}, r"says scale 0\.001 and offset -0\.1 for B1, but the tags"),
    ],
)
def test_scale_and_offset_of_an_item_that_cannot_be_or_contradict_the_tags(item, changes, message):
    def change(content):
        for asset in content["assets"].values():
            asset["raster:bands"][0].update(changes)

    path = item(change)
    with pytest.raises(ConfigurationError, match=message) as error:
        open_scene(path)
    assert "--quantification and --offset" in error.value.remedy
    band = open_scene(path, quantification=10000, offset=-1000).bands["B4"]
    assert (band.scale, band.offset) == (1e-4, -0.1)


def test_an_item_without_scale_needs_the_options(item):
    def change(content):
        for asset in content["assets"].values():
            del asset["raster:bands"]
            asset["href"] = str(Path("assets") / Path(asset["href"]).name)
        content["assets"]["product_metadata"] = {"href": "https://127.0.0.1:1/unreachable.xml"}

    path = item(change)
    for file in (path.parent / "assets").iterdir():
        with rasterio.open(file, "r+") as dataset:
            dataset.scales, dataset.offsets = [1], [0]
    with pytest.raises(ConfigurationError, match="not even the STAC item") as error:
        open_scene(path)
    assert "--offset" in error.value.remedy
    assert open_scene(path, quantification=10000, offset=-1000).bands["B4"].offset == -0.1


def test_an_applied_offset_that_is_not_0_contradicts_itself(item):
    path = item(lambda content: content["properties"].update({"earthsearch:boa_offset_applied": True}))
    with pytest.raises(ConfigurationError, match="contradicts itself: earthsearch:boa_offset_applied is true") as error:
        open_scene(path)
    assert "--offset" in error.value.remedy
    assert open_scene(path, offset=0).bands["B4"].offset == 0
    assert open_scene(path, offset=-1000).bands["B4"].offset == -0.1


def test_an_applied_offset_with_the_metadata_of_the_original_product(item, originals):
    def change(content):
        content["properties"]["earthsearch:boa_offset_applied"] = True
        for asset in content["assets"].values():
            del asset["raster:bands"]
        content["assets"]["product_metadata"] = {"href": str(originals["SAFE"] / "MTD_MSIL1C.xml")}

    path = item(change)
    for file in (path.parent / "assets").iterdir():
        with rasterio.open(file, "r+") as dataset:
            dataset.scales, dataset.offsets = [1], [0]
    with pytest.raises(ConfigurationError, match=r"is true, but the offset of .*MTD_MSIL1C\.xml is not 0"):
        open_scene(path)
    band = open_scene(path, offset=0).bands["B4"]
    assert (band.scale, band.offset) == (0.0001, 0)


def test_items_that_are_none(tmp_path, item):
    path = tmp_path / "x.json"
    for content in ("{", "[]", '{"type": "FeatureCollection", "features": []}', '{"type": "Feature", "assets": {}}'):
        path.write_text(content)
        with pytest.raises(DataError, match="not a readable STAC Item"):
            open_scene(path)
    with pytest.raises(DataError, match="no asset of a Sentinel-2 band; found thumbnail"):
        open_scene(item(lambda content: content.update(assets={"thumbnail": {"href": "x.jpg"}})))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("id",), 5, "id is 5, not a text"),
        (("assets",), [], r"assets is \[\], not an object"),
        (("assets", "red"), "x", 'asset red: "x" is not an object'),
        (("assets", "red", "href"), None, "asset red: href is null, not a text"),
        (("assets", "red", "type"), 5, "asset red: type is 5, not a text"),
        (("properties",), None, "properties is null, not an object"),
        (("properties", "datetime"), 5, "not a readable STAC Item"),
        (("properties", "start_datetime"), "x", "not a readable STAC Item"),
        (("collection",), 5, "collection is 5, not a text"),
        (("links",), "x", 'links is "x", not a list'),
        (("links",), [{"href": "x"}], "link 1: the field rel is missing"),
        (("links",), ["x"], 'link 1: "x" is not an object'),
        (("stac_version",), 1, "stac_version is 1, not a text"),
        (("links",), ..., "the field links is missing"),
        (("assets", "red", "href"), ..., "asset red: the field href is missing"),
    ],
)
def test_fields_of_an_item_that_are_missing_or_wrong(item, place, value, message):
    def change(content):
        *outer, last = place
        for key in outer:
            content = content[key]
        if value is ...:
            del content[last]
        else:
            content[last] = value

    path = item(change)
    with pytest.raises(DataError, match=message) as error:
        open_scene(path)
    assert str(path) in error.value.what


def test_remote_item_and_assets(item):
    """Over HTTP, with relative links: the item, its metadata, and the pixels."""
    files: dict[str, bytes] = {}
    with range_server(files) as url:
        path = item(lambda content: content["assets"]["green"].update(href=f"{url}/elsewhere/green.tif"))
        files["/x/item.json"] = path.read_bytes()
        for file in (path.parent / "assets").iterdir():
            files[f"/x/assets/{file.name}"] = file.read_bytes()
        files["/elsewhere/green.tif"] = files.pop("/x/assets/B03.tif")
        remote = open_scene(f"{url}/x/item.json")
        assert remote.remote
        with SceneReader(remote, ALL) as a, SceneReader(open_scene(path.parent / "assets"), ALL) as b:
            assert (a.read(0, 60)[0] == b.read(0, 60)[0]).all()
        files["/x/other.json"] = files["/x/item.json"].replace(b"B11.tif", b"missing.tif")
        with pytest.raises(DataError, match=r"missing\.tif cannot be read: .*404"):
            open_scene(f"{url}/x/other.json")
        with pytest.raises(RemoteError, match=r"none\.json cannot be read: 404"):
            open_scene(f"{url}/none.json")


def test_assets_in_s3_need_a_key_or_a_public_bucket(item, monkeypatch, tmp_path):
    files: dict[str, bytes] = {}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "YES")
    with range_server(files) as url:
        for name, value in (("AWS_S3_ENDPOINT", url.removeprefix("http://")), ("AWS_HTTPS", "NO")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        path = item(lambda content: content["assets"]["red"].update(href="s3://bucket/B04.tif"))
        files["/bucket/B04.tif"] = (path.parent / "assets/B04.tif").read_bytes()
        with pytest.raises(RemoteError, match=r"/vsis3/bucket/B04\.tif cannot be read") as error:
            open_scene(path)
        assert "AWS_NO_SIGN_REQUEST=YES" in error.value.remedy
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        assert open_scene(path).bands["B4"].path == "/vsis3/bucket/B04.tif"


@pytest.mark.parametrize("damage", ["compression", "data"])
def test_zip_files_that_cannot_be_unpacked(originals, tmp_path, damage):
    product = originals["SAFE"]
    archive = Path(shutil.make_archive(str(tmp_path / "product"), "zip", product.parent, product.name))
    with zipfile.ZipFile(archive) as file:
        entry = next(entry for entry in file.infolist() if entry.filename.endswith("MTD_MSIL1C.xml"))
    content = bytearray(archive.read_bytes())
    name = entry.filename.encode()
    if damage == "compression":  # 97: a method that zipfile lacks, in both headers
        content[entry.header_offset + 8] = 97
        content[content.rindex(name) - 46 + 10] = 97
    else:
        start = entry.header_offset + 30 + len(name)
        content[start : start + 40] = b"\xff" * 40
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"product\.zip is not a readable zip file"):
        open_scene(archive)
