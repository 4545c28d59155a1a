"""Values of scenes in every layout, and of real rasters, compared with GDAL and with the generated ground."""

import shutil

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from landslide.data.demo import scene as generated
from landslide.errors import ConfigurationError, DataError
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.reader import SceneReader, scene_preview
from landslide.scenes.reasons import Reason
from landslide.scenes.scene import open_scene
from landslide.scenes.terrain import prepare_terrain
from landslide.schema import ORIGINAL_BANDS
from tests.support.sentinel2 import rewrite, sentinel2_folder

pytestmark = pytest.mark.slow

HEIGHT, WIDTH = 140, 70  # more than one block of rows; no multiples of 60 m
SMALL = {"rows": 1, "columns": 1, "crop": (HEIGHT, WIDTH)}
SPECTRAL = ORIGINAL_BANDS[:12]


@pytest.fixture(scope="module")
def sentinel2(real_data):
    return sentinel2_folder(real_data)


def read(scene, bands=SPECTRAL, **options):
    with SceneReader(scene, bands, **options) as reader:
        return reader.read(0, scene.grid.height)


@pytest.mark.parametrize("crs", ["EPSG:32645", "EPSG:32719", "EPSG:4326"])
def test_every_layout_has_the_same_values_however_rows_are_read(tmp_path, crs):
    reference = None
    for layout in ("SAFE", "bands", "stack", "STAC item"):
        scene = open_scene(write_demo_scene(tmp_path / layout, layout=layout, crs=crs, **SMALL))
        terrain = prepare_terrain([tmp_path / layout / "dem.tif"], scene.grid, tmp_path)
        with SceneReader(scene, ORIGINAL_BANDS, terrain=terrain) as reader:
            values, reasons = reader.read(0, HEIGHT)
            assert (values.dtype, values.shape, reasons.dtype) == (np.float32, (14, HEIGHT, WIDTH), np.uint8)
            middle, _ = reader.read(120, 135)
            assert (middle == values[:, 120:135]).all()
            if crs == "EPSG:32645":
                single = [reader.read(row, row + 1)[0] for row in reversed(range(HEIGHT))]
                assert (np.concatenate(single[::-1], axis=1) == values).all()
        assert not reasons.any()
        reference = values if reference is None else reference
        assert (values == reference).all()
    image, _, elevation = generated(0, 1, HEIGHT + 24, 128 + 24)
    image, elevation = image[12:-12, 12 : 12 + WIDTH], elevation[12:-12, 12 : 12 + WIDTH]
    at_10_m = [1, 2, 3, 7]
    assert reference[at_10_m] == pytest.approx(np.moveaxis(image[..., at_10_m], -1, 0) / 10_000, abs=1e-7)
    assert reference[13] == pytest.approx(elevation, abs=1e-3 if crs != "EPSG:4326" else 10)
    if crs != "EPSG:4326":  # there a degree of longitude is shorter, and the ground steeper
        assert np.abs(reference[12] - image[..., 12]).mean() < 0.5


def test_real_band_files_of_three_resolutions(sentinel2):
    scene = open_scene(sentinel2 / "l1c-jp2-bands", quantification=10000, offset=0)
    with SceneReader(scene, SPECTRAL) as reader:
        values, reasons = reader.read(300, 340)
    assert not reasons.any()
    grid = scene.grid
    target = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    for name, rows in zip(SPECTRAL, values, strict=True):
        path = scene.bands[name].path
        with rasterio.open(path) as dataset, WarpedVRT(dataset, resampling=Resampling.bilinear, **target) as warped:
            expected = warped.read(1, window=Window(0, 300, grid.width, 40))
        assert np.abs(rows * 10000 - expected).max() < 0.6, name  # the warper rounds to integers


def test_real_stack_with_missing_values_in_some_bands(sentinel2):
    scene = open_scene(sentinel2 / "l2a-stack/20231217.tif")
    with rasterio.open(sentinel2 / "l2a-stack/20231217.tif") as dataset:
        raw = dataset.read()
    values, reasons = read(scene, ["B4", "B11"])
    assert values[0] == pytest.approx(raw[3] / 10000 - 0.1, abs=1e-6)
    missing = np.isnan(raw[9])
    assert missing.sum() == 436
    assert (reasons == np.where(missing, Reason.NO_DATA, 0)).all()
    assert (np.isnan(values[1]) == missing).all()
    assert not read(scene, ["B4"])[1].any()
    with pytest.raises(DataError, match="level L2A has no band B9, B10") as error:
        read(scene, ["B4", "B9", "B10"])
    assert "configs/surface_reflectance.yaml" in error.value.remedy


def test_real_reflectance_stack_and_its_elevation(sentinel2, tmp_path):
    folder = sentinel2 / "l1c-stack-with-dem"
    for path in sorted(folder.glob("eolearn_S2L1C_*.tif")):
        scene = open_scene(path, quantification=1, offset=0)
        terrain = prepare_terrain([folder / "eolearn_DEM.tif"], scene.grid, tmp_path)
        assert terrain.coverage == 1
        values, reasons = read(scene, ["B12", "dem", "B1", "slope"], terrain=terrain)
        with rasterio.open(path) as dataset, rasterio.open(folder / "eolearn_DEM.tif") as dem:
            assert (values[0] == dataset.read(13)).all()
            assert (values[2] == dataset.read(1)).all()
            assert np.abs(values[1] - dem.read(1)).max() < 1e-2
        assert not reasons.any()
        assert 10 < values[3].max() < 60


def test_missing_and_saturated_pixels_spread_to_what_is_interpolated_from_them(tmp_path):
    folder = write_demo_scene(tmp_path, layout="bands", **SMALL)
    expected = read(open_scene(folder))[0]
    for name, place, value in (
        ("B02", (5, 6), 0),
        ("B02", (0, 0), 65535),
        ("B11", (10, 12), 65535),
        ("B11", (20, 3), 0),
    ):
        with rasterio.open(folder / f"{name}.tif") as dataset:
            values = dataset.read()
        values[0][place] = value
        rewrite(folder / f"{name}.tif", values)
    values, reasons = read(open_scene(folder))
    marked = np.zeros((HEIGHT, WIDTH), np.uint8)
    marked[5, 6], marked[0, 0] = Reason.NO_DATA, Reason.DEFECTIVE
    marked[19:23, 23:27] = Reason.DEFECTIVE
    marked[39:43, 5:9] = Reason.NO_DATA
    assert (reasons == marked).all()
    assert np.isnan(values[1]).sum() == 2
    assert np.isnan(values[10]).sum() == 32
    assert (values[~np.isnan(values)] == expected[~np.isnan(values)]).all()
    assert read(open_scene(folder), ["B3"])[1].max() == 0  # other bands do not count


def test_integers_without_nodata_tag_and_a_mask_in_the_file(tmp_path):
    folder = write_demo_scene(tmp_path, layout="bands", **SMALL)
    with rasterio.open(folder / "B03.tif") as dataset:
        values = dataset.read()
    values[0, 7, 8] = 0
    rewrite(folder / "B03.tif", values, nodata=None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(rewrite(folder / "B04.tif", nodata=None), "r+") as dataset,
    ):
        mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
        mask[30:40] = 0
        dataset.write_mask(mask)
    _, reasons = read(open_scene(folder))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[7, 8] = expected[30:40] = Reason.NO_DATA
    assert (reasons == expected).all()


def alpha_stack(path, names, alpha):
    """Write bands of 1, 2, ... hundredths of reflectance, the last one marked as alpha."""
    values = (
        np.ones((len(names), HEIGHT, WIDTH), np.uint16)
        * (100 * np.arange(1, len(names) + 1, dtype=np.uint16))[:, None, None]
    )
    values[-1] = alpha
    with rasterio.open(
        path, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=len(names), dtype="uint16", crs="EPSG:32645",
        transform=Affine(10, 0, 4e5, 0, -10, 31e5),
    ) as dataset:  # fmt: skip
        dataset.colorinterp = [ColorInterp.gray] * (len(names) - 1) + [ColorInterp.alpha]
        dataset.write(values)
    return path


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_transparent_pixels_have_no_data_beside_any_number_of_bands(tmp_path, n):
    """GDAL makes a mask of the alpha band beside one or three bands only."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint16)
    alpha[20:70, 5:9] = 0
    names = SPECTRAL[:n]
    path = alpha_stack(tmp_path / "scene.tif", (*names, "-"), alpha)
    scene = open_scene(path, bands=(*names, "-"), quantification=10_000, offset=0)
    values, reasons = read(scene, names)
    assert ((reasons == Reason.NO_DATA) == (alpha == 0)).all()
    assert np.isnan(values[:, alpha == 0]).all()
    assert (values[:, alpha > 0] == np.float32(np.arange(1, n + 1) / 100)[:, None]).all()


def test_a_band_of_the_scene_that_is_marked_as_alpha_hides_no_others(tmp_path):
    """As GDAL marks the fourth band of a file of red, green, blue and infrared."""
    infrared = np.full((HEIGHT, WIDTH), 400, np.uint16)
    infrared[20:30] = 0  # and it has no data itself
    path = alpha_stack(tmp_path / "scene.tif", ("B4", "B3", "B2", "B8"), infrared)
    scene = open_scene(path, bands=("B4", "B3", "B2", "B8"), quantification=10_000, offset=0)
    assert not read(scene, ("B4", "B3", "B2"))[1].any()
    assert ((read(scene, ("B4", "B8"))[1] == Reason.NO_DATA) == (infrared == 0)).all()


def test_infinite_values_have_no_data(tmp_path):
    folder = write_demo_scene(tmp_path, layout="bands", **SMALL)
    with rasterio.open(folder / "B11.tif") as dataset:
        values = dataset.read().astype(np.float32)
    values[0, 10, 12:14], values[0, 10, 14] = np.inf, -np.inf
    rewrite(folder / "B11.tif", values)
    _, reasons = read(open_scene(folder))
    assert (reasons[19:23, 23:31] == Reason.NO_DATA).all()
    assert (reasons > 0).sum() == 4 * 8


@pytest.mark.parametrize("fill", [-9999, 65535, 3.0e38])
def test_fill_values_that_the_file_does_not_declare(tmp_path, fill):
    """In a file of 20 m they spread to all pixels that are interpolated from them."""
    folder = write_demo_scene(tmp_path, layout="bands", **SMALL)
    expected = read(open_scene(folder))[0]
    for name, place in (("B04", np.s_[0, 30:40, 5:9]), ("B11", np.s_[0, 10, 12])):
        with rasterio.open(folder / f"{name}.tif") as dataset:
            values = dataset.read().astype(np.float32)
        values[place] = fill
        rewrite(folder / f"{name}.tif", values, nodata=None)
    values, reasons = read(open_scene(folder))
    marked = np.zeros((HEIGHT, WIDTH), np.uint8)
    marked[30:40, 5:9] = marked[19:23, 23:27] = Reason.IMPOSSIBLE_VALUE
    assert (reasons == marked).all()
    assert (np.isnan(values).any(axis=0) == (marked > 0)).all()
    assert values[~np.isnan(values)] == pytest.approx(expected[~np.isnan(values)], abs=1e-6)


def test_integers_with_an_impossible_reflectance(tmp_path):
    folder = write_demo_scene(tmp_path, layout="bands", **SMALL)
    with rasterio.open(folder / "B04.tif") as dataset:
        values = dataset.read().astype(np.int16)
    values[0, 0, :6] = -32768, 32767, -1001, -999, 30999, 31001
    rewrite(folder / "B04.tif", values)
    reasons = read(open_scene(folder))[1]
    assert (reasons[0, :6] == np.array([1, 1, 1, 0, 0, 1]) * Reason.IMPOSSIBLE_VALUE).all()
    assert not reasons[1:].any()


def test_floats_that_are_0_in_every_band_have_no_data(tmp_path):
    path = write_demo_scene(tmp_path, layout="stack", **SMALL)
    with rasterio.open(path) as dataset:
        values = (dataset.read() * 1e-4 - 0.1).astype(np.float32)
    values[:, 20:30] = 0
    values[3, 50] = 0  # of one band: dark water that was clipped
    with rasterio.open(rewrite(path, values, nodata=None), "r+") as dataset:
        dataset.scales, dataset.offsets = [1] * 13, [0] * 13
    values, reasons = read(open_scene(path, quantification=1, offset=0), ["B4", "B11"])
    assert (reasons[20:30] == Reason.NO_DATA).all()
    assert np.isnan(values[:, 20:30]).all()
    assert np.count_nonzero(reasons) == 10 * WIDTH
    assert not values[0, 50].any()


def test_ground_without_elevation_has_no_data(tmp_path):
    scene = open_scene(write_demo_scene(tmp_path, layout="stack", **SMALL))
    with rasterio.open(tmp_path / "dem.tif") as dataset:
        values = dataset.read()
    values[:, :, 12 + 40 :] = -9999
    rewrite(tmp_path / "dem.tif", values)
    terrain = prepare_terrain([tmp_path / "dem.tif"], scene.grid, tmp_path)
    assert terrain.coverage == pytest.approx(40 / WIDTH, abs=0.01)
    _, reasons = read(scene, ["B4", "dem"], terrain=terrain)
    assert (reasons[:, :40] == 0).all()
    assert (reasons[:, 40:] == Reason.NO_DATA).all()
    assert not read(scene, ["B4"], terrain=terrain)[1].any()
    with pytest.raises(ConfigurationError, match=r"\(dem\), and there is no elevation model"):
        read(scene, ["B4", "dem"])


@pytest.mark.parametrize(("crs", "pixel"), [("EPSG:32645", 27), ("EPSG:32644", 27), ("EPSG:32645", 3)])
def test_terrain_of_other_grids(tmp_path, crs, pixel):
    """A tilted plane keeps its heights and its slope, whatever the grid and the zone of the elevation model."""
    scene = open_scene(write_demo_scene(tmp_path, layout="stack", **SMALL))
    west, south, east, north = rasterio.warp.transform_bounds(scene.grid.crs, crs, *scene.grid.bounds)
    transform = Affine(pixel, 0, west - 200, 0, -pixel, north + 200)
    width, height = int((east - west + 400) / pixel), int((north - south + 400) / pixel)
    x, y = np.meshgrid(west - 200 + pixel * (np.arange(width) + 0.5), north + 200 - pixel * (np.arange(height) + 0.5))
    x, y = rasterio.warp.transform(crs, scene.grid.crs, x.ravel(), y.ravel())
    left, _, _, top = scene.grid.bounds
    z = (1000 + 0.6 * (np.array(x) - left) + 0.8 * (np.array(y) - top)).astype(np.float32).reshape(height, width)
    profile = {"driver": "GTiff", "count": 1, "dtype": "float32", "crs": crs, "transform": transform}
    with rasterio.open(tmp_path / "plane.tif", "w", width=width, height=height, **profile) as dataset:
        dataset.write(z, 1)
    terrain = prepare_terrain([tmp_path / "plane.tif"], scene.grid, tmp_path)
    values, reasons = read(scene, ["dem", "slope"], terrain=terrain)
    column, row = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    assert values[0] == pytest.approx(1000 + 6 * column - 8 * row[:, None], abs=0.1)
    assert values[1] == pytest.approx(45, abs=0.3)  # the scale of the neighbouring zone differs
    assert not reasons.any()


def test_missing_file_of_a_needed_band(tmp_path):
    product = write_demo_scene(tmp_path, **SMALL)
    next(product.rglob("*_B10.jp2")).unlink()
    scene = open_scene(product)
    assert read(scene, ["B9"])[0].shape == (1, HEIGHT, WIDTH)
    with pytest.raises(DataError, match=r"file of band B10 is missing: .*IMG_DATA/T45XXX_20240612T044701_B10"):
        read(scene)


@pytest.mark.parametrize("layout", ["SAFE", "bands"])
def test_truncated_files(tmp_path, layout):
    """A file that ends early either does not open or fails when its rows are read, with its name."""
    source = write_demo_scene(tmp_path, layout=layout, **SMALL)
    path = next(source.rglob("*B04.*"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"{path.name} cannot be read: \w+"):
        read(open_scene(source))


def test_zip_has_the_values_of_its_folder(tmp_path):
    product = write_demo_scene(tmp_path, **SMALL)
    archive = shutil.make_archive(str(tmp_path / "product"), "zip", product.parent, product.name)
    assert (read(open_scene(archive))[0] == read(open_scene(product))[0]).all()


def test_preview_shows_colours_and_black_where_there_is_no_data(tmp_path):
    folder = write_demo_scene(tmp_path, layout="bands", **SMALL)
    with rasterio.open(folder / "B02.tif") as dataset:
        values = dataset.read()
    values[:, :100] = 0
    rewrite(folder / "B02.tif", values)
    picture = scene_preview(open_scene(folder))
    assert (picture.shape, picture.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert not picture[:100].any()
    assert picture[100:].all()
    with rasterio.open(folder / "B04.tif") as dataset:
        red = dataset.read(1)[100:].astype(float)
    assert np.corrcoef(picture[100:, :, 0].ravel(), red.ravel())[0, 1] > 0.9
    assert scene_preview(open_scene(folder), max_side=90).shape == (90, 45, 3)
    for name in ("B02", "B03"):
        (folder / f"{name}.tif").unlink()
    gray = scene_preview(open_scene(folder))
    assert (gray[..., 0] == gray[..., 2]).all()


def test_preview_is_stretched_for_what_was_analysed(tmp_path):
    scene = open_scene(write_demo_scene(tmp_path, layout="bands", **SMALL))
    with rasterio.open(scene.bands["B4"].path) as dataset:
        profile, red = dataset.profile, dataset.read(1)
    reasons = np.where(red > np.median(red), Reason.CLOUD, Reason.ANALYSED).astype(np.uint8)
    profile.update(dtype="uint8", nodata=None)
    with rasterio.open(tmp_path / "reasons.tif", "w", **profile) as dataset:
        dataset.write(reasons, 1)
    dark, bright = scene_preview(scene), scene_preview(scene, reasons=tmp_path / "reasons.tif")
    assert dark[..., 0][reasons == 0].max() < 255
    assert (bright[..., 0][reasons != 0] == 255).mean() > 0.8
    with rasterio.open(tmp_path / "reasons.tif", "w", **profile) as dataset:
        dataset.write(np.full_like(reasons, Reason.CLOUD), 1)
    assert (scene_preview(scene, reasons=tmp_path / "reasons.tif") == dark).all()
