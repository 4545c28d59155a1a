"""`landslide data import`: images and masks of other formats become patches that are equal to the byte of a value."""

import csv
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from landslide.cli import main
from landslide.data.check import check
from landslide.data.patches import find_patches, read_mask, read_stored
from landslide.data.positions import read_positions
from landslide.errors import DataError
from landslide.tiling.importing import ImportSettings, plan_import, write_import
from tests.support.patch_sets import build_image, build_mask

RGB = ("B4", "B3", "B2")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "import", *map(str, arguments)])


def save(path: Path, values: np.ndarray, **options: object) -> Path:
    """Write an array in the format of the path's suffix: (H, W) or (H, W, C) pictures, any array otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, values)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["values"] = values
    elif path.suffix == ".tif":
        bands = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
        profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
        with rasterio.open(path, "w", **profile, dtype=bands.dtype, **options) as file:
            file.write(bands)
    else:
        Image.fromarray(values).save(path, **options)
    return path


def rgb(seed: int = 0, height: int = 128, width: int = 128) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 255, (height, width, 3), dtype=np.uint8)


def mask_of(height: int = 128, width: int = 128, seed: int = 0) -> np.ndarray:
    """A mask, uint8, a tenth landslides."""
    return (np.random.default_rng(seed).random((height, width)) < 0.1).astype(np.uint8)


def patches(folder: Path, n_bands: int = 3) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [(p.number, read_stored(p.image, n_bands), read_mask(p.mask)) for p in find_patches(folder)]


def names(folder: Path) -> list[list[str]]:
    with (folder / "names.csv").open(newline="") as file:
        return list(csv.reader(file))


def imported(folder: Path, images: str, masks: str, bands: tuple[str, ...] = RGB, **options: object) -> Path:
    output = folder / "set"
    write_import(plan_import(folder, ImportSettings(images=images, masks=masks, bands=bands, **options)), output)
    return output


# ---- real patches come back


@pytest.mark.parametrize("form", ["tif", "npy channels first", "npz", "h5"])
def test_real_patches_come_back_from_other_formats(real_data, tmp_path, form):
    suffix, _, order = form.partition(" ")
    originals = find_patches(real_data / "landslide4sense-sample")[:6]
    for patch in originals:
        image, mask = read_stored(patch.image), read_mask(patch.mask)
        save(tmp_path / f"a/image_{patch.number:05}.{suffix}", image.transpose(2, 0, 1) if order else image)
        save(tmp_path / f"b/label-{patch.number}.{suffix}", mask.astype(bool) if suffix == "npz" else 255 * mask)
    done = run(tmp_path, "--images", "a/*", "--masks", "b/*", "-o", tmp_path / "set")
    assert done.exit_code == 0, done.output
    assert f"landslide data use {tmp_path / 'set'}\n" in done.output
    kind = {"tif": "TIFF, 14 channels", "h5": "HDF5, 14 channels (last)"}
    said = kind.get(suffix, f"NumPy, 14 channels ({'first' if order else 'last'})")
    assert f"images: {said}, float64: 6\n" in done.output
    back = find_patches(tmp_path / "set")
    assert [patch.number for patch in back] == [patch.number for patch in originals]
    for old, new in zip(originals, back, strict=True):
        np.testing.assert_array_equal(read_stored(new.image), read_stored(old.image), strict=True)
        np.testing.assert_array_equal(read_mask(new.mask), read_mask(old.mask))
    assert check(tmp_path / "set").ok


def test_real_patches_come_back_from_png(real_data, tmp_path):
    expected = {}
    for patch in find_patches(real_data / "landslide4sense-sample")[:6]:
        true_colour = read_stored(patch.image)[..., [3, 2, 1]]
        expected[patch.number] = (255 * true_colour / true_colour.max()).astype(np.uint8), read_mask(patch.mask)
        save(tmp_path / f"{patch.number:04}.png", expected[patch.number][0])
        save(tmp_path / f"{patch.number:04}_mask.png", expected[patch.number][1] * np.uint8(255))
    given = ("--images", "*.png", "--masks", "*_mask.png", "--bands", ",".join(RGB))
    done = run(tmp_path, *given, "-o", tmp_path / "set")
    assert done.exit_code == 0, done.output
    assert done.output.endswith(f"landslide data use {tmp_path / 'set'} --bands B4,B3,B2\n")
    found = patches(tmp_path / "set")
    assert {number for number, _, _ in found} == expected.keys()
    for number, image, mask in found:
        np.testing.assert_array_equal(image, expected[number][0], strict=True)
        np.testing.assert_array_equal(mask, expected[number][1])
    checked = CliRunner().invoke(main, ["data", "check", str(tmp_path / "set"), "--bands", "B4,B3,B2"])
    assert checked.exit_code == 0, checked.output
    assert "stray" not in checked.output


# ---- cutting, types, axes


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(128, 300), st.integers(128, 300)),
    dtype=st.sampled_from(["uint8", "int16", "uint16", "int32", "float16", "float32", "float64", ">f4"]),
    suffix=st.sampled_from(["npy", "npz", "h5", "tif"]),
    first=st.booleans(),
    seed=st.integers(0, 99),
)
def test_tiles_are_the_pixels_of_the_image_in_its_type(tmp_path_factory, shape, dtype, suffix, first, seed):
    folder = tmp_path_factory.mktemp("in")
    values = np.random.default_rng(seed).integers(0, 99, (*shape, 3)).astype(dtype)
    if suffix == "tif":
        values = values.astype({"float16": "float32", ">f4": "float32"}.get(dtype, dtype))
    save(folder / f"x.{suffix}", values.transpose(2, 0, 1) if first and suffix != "tif" else values)
    mask = mask_of(*shape, seed)
    save(folder / "y.png", mask)
    output = imported(folder, f"x.{suffix}", "y.png")
    lines = names(output)[1:]
    assert len(lines) == (shape[0] // 128) * (shape[1] // 128)
    for number, (line, (_, image, label)) in enumerate(zip(lines, patches(output), strict=True), start=1):
        row, column = int(line[2]), int(line[3])
        assert line == [f"x.{suffix}", "y.png", str(row), str(column), str(number)]
        part = np.s_[128 * row : 128 * (row + 1), 128 * column : 128 * (column + 1)]
        np.testing.assert_array_equal(image, values[part], strict=True)
        np.testing.assert_array_equal(label, mask[part])


def test_images_of_several_tiles_are_scenes_and_the_rest_is_said(tmp_path):
    for name, height, width in (("north", 300, 260), ("south", 128, 390)):
        save(tmp_path / f"{name}.png", rgb(1, height, width))
        save(tmp_path / f"{name}_mask.png", mask_of(height, width))
    done = run(tmp_path, "--images", "*.png", "--masks", "*_mask.png", "-o", tmp_path / "set", "--bands", "B4,B3,B2")
    assert done.exit_code == 0, done.output
    assert "patches of 128 x 128 pixels: 7," in done.output
    edge = 300 * 260 + 128 * 390 - 7 * 128**2
    assert f"left out: {edge:,} pixels" in done.output
    assert "at the right and lower edges, of images: 2" in done.output
    positions = read_positions(tmp_path / "set", range(1, 8))
    assert positions.to_numpy().tolist() == [
        [1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1], [2, 0, 0], [2, 0, 1], [2, 0, 2],
    ]  # fmt: skip
    assert check(tmp_path / "set", bands=RGB).ok


def test_tiles_without_data_are_left_out(tmp_path):
    values = rgb(0, 128, 640).astype(np.float32)
    values[5, 5, 1] = np.nan
    values[5, 200] = -9999
    values[5, 300, 0] = np.inf
    save(tmp_path / "x.tif", values, nodata=-9999)
    save(tmp_path / "y.png", mask_of(128, 640))
    assert [line[3] for line in names(imported(tmp_path, "x.tif", "y.png"))[1:]] == ["3", "4"]
    plan = plan_import(tmp_path, ImportSettings(images="x.tif", masks="y.png", bands=RGB))
    assert "left out: tiles with pixels without data: 3" in plan.describe()


def test_what_a_mask_declares_as_no_data_is_no_landslide_and_no_background(tmp_path):
    mask = mask_of(128, 384)
    mask[5, 200] = 7
    save(tmp_path / "x.tif", rgb(0, 128, 384))
    save(tmp_path / "y.tif", mask, nodata=7)
    plan = plan_import(tmp_path, ImportSettings(images="x.tif", masks="y.tif", bands=RGB))
    assert not plan.faults
    assert sorted(plan.pairs[0].tiles) == [(0, 0), (0, 2)]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        save(tmp_path / "y.tif", mask * (mask != 7))
        with rasterio.open(tmp_path / "y.tif", "r+") as file:
            file.write_mask(mask != 7)
    assert [line[3] for line in names(imported(tmp_path, "x.tif", "y.tif"))[1:]] == ["0", "2"]
    save(tmp_path / "y.tif", mask * (mask != 7), nodata=0)  # as GIS programs write
    plan = plan_import(tmp_path, ImportSettings(images="x.tif", masks="y.tif", bands=RGB))
    assert len(plan.pairs[0].tiles) == 3


@pytest.mark.parametrize("landslide", [None, "255"])
def test_a_mask_that_declares_its_landslides_as_no_data_is_refused(tmp_path, landslide):
    save(tmp_path / "x.tif", rgb(0, 128, 128))
    save(tmp_path / "y.tif", 255 * mask_of(128, 128), nodata=255)
    plan = plan_import(tmp_path, ImportSettings(images="x.tif", masks="y.tif", bands=RGB, landslide=landslide))
    (fault,) = [fault for fault in plan.faults if fault.code == "mask_values"]
    assert "as no data 255 (" in fault.message
    assert "-unsetnodata" in fault.remedy


def test_a_dark_pixel_is_data_though_zero_is_no_data(tmp_path):
    values = rgb(0, 128, 256)
    values[5, 5] = 0, 20, 30
    values[5, 200] = 0
    save(tmp_path / "x.tif", values, nodata=0)
    save(tmp_path / "y.png", mask_of(128, 256))
    assert [line[3] for line in names(imported(tmp_path, "x.tif", "y.png"))[1:]] == ["0"]


def test_opacity_is_no_band_and_transparent_tiles_are_left_out(tmp_path):
    values = np.dstack([rgb(0, 128, 256), np.full((128, 256), 255, np.uint8)])
    values[5, 200, 3] = 0
    save(tmp_path / "x.png", values)
    save(tmp_path / "y.png", mask_of(128, 256))
    ((number, image, _),) = patches(imported(tmp_path, "x.png", "y.png"))
    assert number == 1
    np.testing.assert_array_equal(image, values[:, :128, :3])


def test_four_declared_bands_are_bands_though_the_file_calls_one_opacity(tmp_path):
    values = np.dstack([rgb(), rgb(1)[..., 0]])
    save(tmp_path / "x.tif", values)
    with rasterio.open(tmp_path / "x.tif") as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    save(tmp_path / "y.png", mask_of())
    ((_, image, _),) = patches(imported(tmp_path, "x.tif", "y.png", (*RGB, "B8")), 4)
    np.testing.assert_array_equal(image, values)


def test_png_of_16_bits_keeps_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 65535, (3, 128, 128), dtype=np.uint16)
    with rasterio.open(tmp_path / "x.png", "w", driver="PNG", count=3, height=128, width=128, dtype="uint16") as file:
        file.write(values)
    save(tmp_path / "y.png", mask_of())
    ((_, image, _),) = patches(imported(tmp_path, "x.png", "y.png"))
    np.testing.assert_array_equal(image, values.transpose(1, 2, 0), strict=True)


def test_pages_of_a_tiff_file_are_channels(tmp_path):
    values = rgb()
    pages = [Image.fromarray(values[..., i]) for i in range(3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "y.png", mask_of())
    ((_, image, _),) = patches(imported(tmp_path, "x.tif", "y.png"))
    np.testing.assert_array_equal(image, values)


def test_one_file_holds_image_and_mask(tmp_path):
    for number in (3, 12):
        with h5py.File(tmp_path / f"tile_{number:03}.h5", "w") as file:
            file["data/image"], file["data/label"] = build_image(number), build_mask(number)
            file["id"] = number
    done = run(
        tmp_path, "--images", "*.h5", "--masks", "*.h5", "-o", tmp_path / "set",
        "--image-key", "data/image", "--mask-key", "/data/label",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for number, image, mask in patches(tmp_path / "set", 14):
        np.testing.assert_array_equal(image, build_image(number), strict=True)
        np.testing.assert_array_equal(mask, build_mask(number))


def test_a_number_beside_the_image_is_no_image(tmp_path):
    np.savez(tmp_path / "x.npz", image=rgb(), scale=np.float64(3), classes=np.array(["a", "b"]))
    save(tmp_path / "y.png", mask_of())
    ((_, image, _),) = patches(imported(tmp_path, "x.npz", "y.png"))
    np.testing.assert_array_equal(image, rgb())


# ---- masks


def coloured(mask: np.ndarray, background: tuple[int, ...], colour: tuple[int, ...]) -> np.ndarray:
    return np.where(mask[..., None] == 1, np.uint8(colour), np.uint8(background))


MASK = mask_of()
CLASSES = np.where(MASK == 1, 3, np.arange(128) % 3).astype(np.uint8)  # 0, 1, 2 and 3, a landslide
CODINGS = {
    "0/1": (MASK, None),
    "0/255": (MASK * np.uint8(255), None),
    "16 bits": (MASK.astype(np.uint16) * 255, None),
    "booleans": (MASK.astype(bool), None),
    "floats": (MASK.astype(np.float32), None),
    "signed": (MASK.astype(np.int64), None),
    "gray in three channels": (np.dstack([255 * MASK] * 3).astype(np.uint8), None),
    "gray and opaque": (np.dstack([255 * MASK] * 3 + [np.full_like(MASK, 255)]).astype(np.uint8), None),
    "one channel": (MASK[..., None], None),
    "channels first": (MASK[None], None),
    "classes": (CLASSES, "3"),
    "three classes": (np.where(MASK == 1, 3 + np.arange(128) % 3, CLASSES).astype(np.uint8), "5,3..4"),
    "inverted": (1 - MASK, "0"),
    "negative": (-MASK.astype(np.int16), "-1"),
    "probabilities": (np.where(MASK, 0.75, 0.1).astype(np.float32), "0.5..1"),
    "one tenth": (np.where(MASK, 0.1, 0.7).astype(np.float32), "0.1"),
    "red": (coloured(MASK, (0, 0, 0), (255, 0, 0)), "#ff0000"),
    "red on white": (coloured(MASK, (255, 255, 255), (200, 16, 0)), "#C81000"),
    "white": (coloured(MASK, (0, 0, 0), (255, 255, 255)), "#ffffff"),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_codings_of_masks_mean_the_same(tmp_path, coding):
    values, landslide = CODINGS[coding]
    save(tmp_path / "x.png", rgb())
    save(tmp_path / "y.npy", values)
    output = imported(tmp_path, "x.png", "y.npy", landslide=landslide)
    np.testing.assert_array_equal(patches(output)[0][2], MASK)


@pytest.mark.parametrize("landslide", ["1", "#ff0000"])
def test_a_palette_gives_numbers_and_colours(tmp_path, landslide):
    save(tmp_path / "x.png", rgb())
    picture = Image.fromarray(np.where(MASK == 1, 1, 2 * (np.arange(128) % 2)).astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "y.png")
    output = imported(tmp_path, "x.png", "y.png", landslide=landslide)
    np.testing.assert_array_equal(patches(output)[0][2], MASK)


def test_a_picture_of_one_bit_is_a_mask(tmp_path):
    save(tmp_path / "x.png", rgb())
    Image.fromarray(MASK.astype(bool)).save(tmp_path / "y.png")
    np.testing.assert_array_equal(patches(imported(tmp_path, "x.png", "y.png"))[0][2], MASK)


@settings(max_examples=20, deadline=None)
@given(values=hnp.arrays(np.uint8, (128, 128), elements=st.integers(0, 5), fill=st.just(0)), data=st.data())
def test_any_choice_of_classes_is_those_pixels(tmp_path_factory, values, data):
    folder = tmp_path_factory.mktemp("in")
    chosen = data.draw(st.sets(st.sampled_from(sorted(set(values.ravel().tolist()))), min_size=1))
    save(folder / "x.npy", rgb())
    save(folder / "y.png", values)
    output = imported(folder, "x.npy", "y.png", landslide=",".join(map(str, chosen)))
    np.testing.assert_array_equal(patches(output)[0][2], np.isin(values, list(chosen)))


@pytest.mark.parametrize(
    ("values", "landslide", "message"),
    [
        (CLASSES, None, "0 ({0:,} pixels), 1 ({1:,} pixels), 2 ({2:,} pixels), 3 ({3:,} pixels)"),
        (coloured(MASK, (0, 0, 0), (255, 0, 0)), None, "#ff0000 ({3:,} pixels)"),
        (MASK * np.uint8(128), None, "128 ({3:,} pixels)"),
        (np.linspace(0, 1, 128 * 128, dtype=np.float32).reshape(128, 128), None, "and 16,364 others, from 0 to 1"),
        (CLASSES, "7", "no mask has 7; they have the values 0"),
        (CLASSES, "3,7", "no mask has 7; they have the values 0"),
        (coloured(MASK, (0, 0, 0), (255, 0, 0)), "#fe0000", "no mask has #fe0000; they have the values #000000"),
        (coloured(MASK, (0, 0, 0), (255, 0, 0)), "1", "has colours, and --landslide 1 names none"),
        (CLASSES.astype(np.int16), "#ff0000", "has numbers, and --landslide #ff0000 names none"),
        (CLASSES, "red", "'red' is no number, range or colour"),
        (CLASSES, "3,", "'' is no number, range or colour"),
        (np.where(MASK, np.nan, 0.0), None, "has values that are no numbers (NaN)"),
        (np.dstack([MASK] * 2), None, "has 2 channels"),
        (np.dstack([255 * MASK] * 4).astype(np.uint8), None, "has transparent pixels"),
        (np.dstack([MASK, 1 - MASK, MASK]).astype(np.uint16), None, "has colours of type uint16"),
        (MASK.astype(complex), None, "complex numbers; expected integers or real numbers"),
        (MASK.astype(str), None, "type <U3; expected integers or real numbers"),
        (MASK.astype(object), None, "Python objects; expected integers or real numbers"),
    ],
)
def test_masks_that_are_not_clear_are_refused_with_what_they_hold(tmp_path, values, landslide, message):
    save(tmp_path / "x.png", rgb())
    save(tmp_path / "y.npy", values)
    option = () if landslide is None else ("--landslide", landslide)
    given = ("--images", "x.png", "--masks", "y.npy", "--bands", "B4,B3,B2", "-o", tmp_path / "set", *option)
    done = run(tmp_path, *given)
    assert done.exit_code == 1
    counts = np.bincount(CLASSES.ravel())
    assert message.format(*counts) in done.output
    assert "Traceback" not in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.png", "y.npy"]


def test_mixed_codings_are_not_clear(tmp_path):
    for number, factor in ((1, 1), (2, 255)):
        save(tmp_path / f"x{number}.png", rgb(number))
        save(tmp_path / f"y{number}.png", MASK * np.uint8(factor))
    given = ("--images", "x*.png", "--masks", "y*.png", "--bands", "B4,B3,B2", "-o", tmp_path / "set")
    assert run(tmp_path, *given).exit_code == 1
    done = run(tmp_path, *given, "--landslide", "1,255")
    assert done.exit_code == 0, done.output
    assert all((mask == MASK).all() for _, _, mask in patches(tmp_path / "set"))


def test_black_masks_among_coloured_ones_are_black(tmp_path):
    red = coloured(MASK, (0, 0, 0), (255, 0, 0))
    for number, mask in ((1, red), (2, 0 * red)):
        save(tmp_path / f"x{number}.png", rgb(number))
        save(tmp_path / f"y{number}.png", mask)
    plan = plan_import(tmp_path, ImportSettings(images="x*", masks="y*", bands=RGB, landslide="#ff0000"))
    n = int(MASK.sum())
    assert f"masks: #000000 ({2 * 128**2 - n:,} pixels), #ff0000 ({n:,} pixels); landslides are" in plan.describe()


def test_a_range_holds_what_jpeg_has_blurred(tmp_path):
    blocks = np.kron(mask_of(16, 16), np.ones((8, 8), np.uint8))
    save(tmp_path / "x.png", rgb())
    save(tmp_path / "y.jpg", 255 * blocks, quality=60)
    output = imported(tmp_path, "x.png", "y.jpg", landslide="128..255")
    np.testing.assert_array_equal(patches(output)[0][2], blocks)


def test_masks_that_look_inverted_are_said(tmp_path):
    save(tmp_path / "x.png", rgb())
    save(tmp_path / "y.png", 1 - MASK)
    plan = plan_import(tmp_path, ImportSettings(images="x.png", masks="y.png", bands=RGB))
    assert "if these are the background" in plan.describe()


# ---- faults


def test_all_faults_are_named_at_once(tmp_path):
    def pair(number: int, image: np.ndarray, mask: np.ndarray, suffix: str = "png") -> None:
        save(tmp_path / f"img/image_{number:03}.{suffix}", image)
        save(tmp_path / f"mask/mask_{number}.png", mask)

    pair(1, rgb(), MASK)
    pair(2, rgb(2, 64, 64), mask_of(64, 64))
    pair(3, rgb(3, 200, 200), MASK)
    pair(4, rgb(4)[..., 0], MASK)
    pair(5, rgb(5).astype(complex), MASK, "npy")
    pair(6, rgb(6)[:, :, None], MASK, "npy")
    pair(7, rgb(7) > 9, MASK, "npy")
    pair(8, rgb(8).transpose(0, 2, 1), MASK, "npy")
    pair(9, rgb(9), MASK)
    broken = tmp_path / "img/image_009.png"
    broken.write_bytes(broken.read_bytes()[:2000])
    save(tmp_path / "img/image_010.png", rgb())
    save(tmp_path / "mask/mask_11.png", MASK)
    (tmp_path / "img/image_012.txt").write_text("no image")
    save(tmp_path / "mask/mask_12.png", MASK)
    save(tmp_path / "img/image_01.png", rgb())
    given = ("--images", "img/*", "--masks", "mask/*", "--bands", "B4,B3,B2", "-o", tmp_path / "set")
    done = run(tmp_path, *given)
    assert done.exit_code == 1
    for expected in (
        "too_small (1)", "img/image_002.png: 64 x 64 pixels are less than a patch of 128 x 128",
        "other_size (1)", "img/image_003.png: 200 x 200 pixels, and mask/mask_3.png has 128 x 128",
        "img/image_004.png: channels: 1; bands declared: 3",
        "img/image_005.npy: complex numbers",
        "img/image_006.npy: shape (128, 128, 1, 3)",
        "img/image_007.npy: type bool",
        "img/image_008.npy: shape (128, 3, 128): the first or the last axis is that of the channels, and neither",
        "img/image_009.png: cannot be read",
        "missing_mask (1)", "img/image_010.png: no mask has such a name",
        "missing_image (2)", "mask/mask_11.png: no image has such a name",
        "img/image_012.txt: files *.txt are not read",
        "same_name (1)", "img/image_001.png: its name means the same as img/image_01.png",
    ):  # fmt: skip
        assert expected in done.output, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img", "mask"]


def test_images_of_another_number_of_bands_are_one_fault(tmp_path):
    for number in range(5):
        save(tmp_path / f"x{number}.png", rgb(number))
        save(tmp_path / f"y{number}.png", MASK)
    done = run(tmp_path, "--images", "x*", "--masks", "y*", "-o", tmp_path / "set")
    assert done.exit_code == 1
    assert "1 fault:" in done.output
    assert "all 5 images: channels: 3; bands declared: 14" in done.output
    assert "--bands B4,B3,B2" in done.output


def test_a_truncated_jpeg_is_refused(tmp_path):
    path = save(tmp_path / "x.jpg", rgb())
    path.write_bytes(path.read_bytes()[:-3000])
    save(tmp_path / "y.png", MASK)
    plan = plan_import(tmp_path, ImportSettings(images="x.jpg", masks="y.png", bands=RGB))
    assert [fault.code for fault in plan.faults] == ["unreadable"]


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5", "tif", "png"])
@pytest.mark.parametrize("kept", [0, 100, 1000, 45_000])
def test_damaged_files_are_refused(tmp_path, suffix, kept):
    path = save(tmp_path / f"x.{suffix}", rgb())
    path.write_bytes(path.read_bytes()[:kept])
    save(tmp_path / "y.npy", MASK)
    plan = plan_import(tmp_path, ImportSettings(images=path.name, masks="y.npy", bands=RGB))
    assert [(fault.path, fault.code) for fault in plan.faults] == [(path.name, "unreadable")]


def test_a_mask_on_another_grid_is_refused(tmp_path):
    for name, west, values in (("x", 500_000.0, rgb()), ("y", 500_010.0, MASK)):
        place = {"crs": "EPSG:32645", "transform": from_origin(west, 3_100_000.0, 10.0, 10.0)}
        save(tmp_path / f"{name}.tif", values, **place)
    plan = plan_import(tmp_path, ImportSettings(images="x.tif", masks="y.tif", bands=RGB))
    assert [fault.code for fault in plan.faults] == ["other_grid"]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.float64(3), "wrong_shape"),
        (np.zeros(50), "wrong_shape"),
        (np.zeros((0, 128, 3)), "wrong_shape"),
        (np.zeros((2, 128, 128, 3)), "wrong_shape"),
        (np.zeros((2, 128, 3)), "wrong_shape"),
        (np.full((128, 128, 3), b"a"), "wrong_dtype"),
        (np.zeros((128, 128), [("a", "f4"), ("b", "u1")]), "wrong_dtype"),
        (np.full((128, 128, 3), np.nan), "no_data"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_arrays_that_are_no_image_are_refused(tmp_path, values, code, suffix):
    save(tmp_path / f"x.{suffix}", values)
    save(tmp_path / "y.png", MASK)
    plan = plan_import(tmp_path, ImportSettings(images=f"x.{suffix}", masks="y.png", bands=RGB))
    arrays = suffix == "npy" or values.ndim > 1
    assert (code if arrays else "no_array") in [fault.code for fault in plan.faults]


def test_a_batch_of_one_is_an_image(tmp_path):
    save(tmp_path / "x.npy", rgb().transpose(2, 0, 1)[None])
    save(tmp_path / "y.npy", MASK[None, None])
    ((_, image, mask),) = patches(imported(tmp_path, "x.npy", "y.npy"))
    np.testing.assert_array_equal(image, rgb())
    np.testing.assert_array_equal(mask, MASK)


def test_several_arrays_need_a_name(tmp_path):
    np.savez(tmp_path / "x.npz", first=rgb(), second=rgb())
    save(tmp_path / "y.png", MASK)
    given = ("--images", "x.npz", "--masks", "y.png", "--bands", "B4,B3,B2", "-o", tmp_path / "set")
    done = run(tmp_path, *given)
    assert done.exit_code == 1
    assert "holds first (128, 128, 3), second (128, 128, 3)" in done.output
    assert "name the array with --image-key" in done.output
    assert "has no array third; it holds first" in run(tmp_path, *given, "--image-key", "third").output
    assert run(tmp_path, *given, "--image-key", "second").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "z*.png", "--masks", "y*"), "--images 'z*.png' fits no file"),
        (("--images", "z*.png", "--masks", "y*"), "there is *.png (2)"),
        (("--images", "/x*", "--masks", "y*"), "'/x*' is no pattern below"),
        (("--images", "", "--masks", "y*"), "is no pattern below"),
        (("--images", "*.png", "--masks", "*.png"), "--images and --masks both fit x.png, y.png"),
        (("--images", "x*", "--masks", "y*", "--bands", "B4,B99"), "unknown band 'B99'"),
    ],
)
def test_patterns_that_fit_nothing_or_too_much_are_refused(tmp_path, arguments, message):
    save(tmp_path / "x.png", rgb())
    save(tmp_path / "y.png", MASK)
    done = run(tmp_path, *arguments, "-o", tmp_path / "set")
    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "set").exists()


def test_a_missing_folder_is_named(tmp_path):
    done = run(tmp_path / "no", "--images", "*", "--masks", "*", "-o", tmp_path / "set")
    assert done.exit_code == 1
    assert "There is no folder" in done.output


# ---- output


@pytest.fixture
def two(tmp_path) -> tuple[object, ...]:
    """Two pairs, and the command that imports them."""
    for number in (4, 7):
        save(tmp_path / f"in/x{number:03}.png", rgb(number))
        save(tmp_path / f"in/y{number}.png", mask_of(seed=number) if number == 4 else np.zeros((128, 128), np.uint8))
    return tmp_path / "in", "--images", "x*", "--masks", "y*", "--bands", "B4,B3,B2"


def test_numbers_of_the_names_stay(two, tmp_path):
    (tmp_path / "set").mkdir()  # an empty folder will do
    assert run(*two, "-o", tmp_path / "set").exit_code == 0
    assert names(tmp_path / "set") == [
        ["image", "mask", "row", "column", "n"], ["x004.png", "y4.png", "0", "0", "4"],
        ["x007.png", "y7.png", "0", "0", "7"],
    ]  # fmt: skip
    assert not (tmp_path / "set/scenes.csv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "set"]


def test_names_without_numbers_are_numbered(tmp_path):
    for name in ("river", "Valley", "pass 2"):
        save(tmp_path / f"{name}.png", rgb(len(name)))
        save(tmp_path / f"{name.lower()}-gt.png", MASK)
    output = imported(tmp_path, "*.png", "*-gt.png")
    assert [(line[0], line[4]) for line in names(output)[1:]] == [
        ("pass 2.png", "1"), ("river.png", "2"), ("Valley.png", "3"),
    ]  # fmt: skip


def test_what_is_there_is_never_written_over(two, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/mine.txt").write_text("mine")
    done = run(*two, "-o", tmp_path / "set")
    assert done.exit_code == 1
    assert "is not an empty folder" in done.output
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("mine")
    assert run(*two, "-o", tmp_path / "file").exit_code == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_was_filled_meanwhile_is_refused(two, tmp_path):
    plan = plan_import(two[0], ImportSettings(images="x*", masks="y*", bands=RGB))
    save(tmp_path / "set/mine.npy", MASK)
    with pytest.raises(DataError, match="is not an empty folder"):
        write_import(plan, tmp_path / "set")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.npy"]


def test_a_failure_leaves_nothing(two, tmp_path):
    plan = plan_import(two[0], ImportSettings(images="x*", masks="y*", bands=RGB))
    (tmp_path / "in/y7.png").write_bytes(b"changed")
    with pytest.raises(DataError, match="has changed while it was imported"):
        write_import(plan, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_equal_input_gives_equal_bytes(two, tmp_path):
    assert run(*two, "-o", tmp_path / "a").exit_code == 0
    assert run(*two, "-o", tmp_path / "b").exit_code == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)


def test_a_dry_run_writes_only_the_preview(two, tmp_path):
    done = run(*two, "-o", tmp_path / "set", "--dry-run", "--preview", tmp_path / "four.png")
    assert done.exit_code == 0, done.output
    assert "usable pairs of image and mask: 2, such as x004.png with y4.png" in done.output
    assert "images: PNG, 3 channels, uint8: 2" in done.output
    assert "128 x 128: 2" in done.output
    assert "landslides are 1" in done.output
    assert "patches of 128 x 128 pixels: 2, with landslides: 1" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["four.png", "in"]
    with Image.open(tmp_path / "four.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
    again = run(*two, "-o", tmp_path / "set", "--dry-run", "--preview", tmp_path / "four.png")
    assert again.exit_code == 0, again.output


def test_the_preview_shows_the_masks_over_the_images(two, tmp_path):
    save(tmp_path / "in/y4.png", np.ones((128, 128), np.uint8))
    pictures = []
    for landslide in ("1", "0"):
        done = run(*two, "-o", tmp_path / "set", "--dry-run", "--preview", tmp_path / "p.png", "--landslide", landslide)
        assert done.exit_code == 0, done.output
        pictures.append(np.asarray(Image.open(tmp_path / "p.png").convert("RGB")))
    assert pictures[0].shape == pictures[1].shape
    first, second = pictures
    height, width = first.shape[:2]
    # The right half of a covered image is redder; the left is the same, but the pairs change places.
    assert first[: height // 2, width // 2 :, 1].mean() < first[: height // 2, : width // 2, 1].mean() - 20
    assert first[height // 2 :, width // 2 :, 1].mean() > second[: height // 2, width // 2 :, 1].mean() + 20


def test_a_preview_in_the_folder_of_patches_is_refused(two, tmp_path):
    done = run(*two, "-o", tmp_path / "set", "--preview", tmp_path / "set/four.png")
    assert done.exit_code == 2
    assert "the preview lies in the folder of the patches" in done.output
    assert not (tmp_path / "set").exists()


def test_the_next_command_is_right_for_folders_with_spaces(two, tmp_path):
    done = run(*two, "-o", tmp_path / "our patches")
    assert done.output.endswith(f"landslide data use '{tmp_path / 'our patches'}' --bands B4,B3,B2\n")


@pytest.mark.parametrize("name", ["mine.png", "in/x004.png", "sheet.jpg"])
def test_a_preview_never_replaces_a_file(two, tmp_path, name):
    save(tmp_path / "mine.png", rgb())
    shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-before"))
    done = run(*two, "-o", tmp_path / "set", "--dry-run", "--preview", tmp_path / name)
    assert done.exit_code == 1
    for path in tmp_path.rglob("*.png"):
        before = tmp_path.with_name(f"{tmp_path.name}-before") / path.relative_to(tmp_path)
        assert path.read_bytes() == before.read_bytes()
