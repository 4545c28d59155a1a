"""`landslide data show`: pictures of patches with the outlines of their landslides."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from landslide.cli import main
from landslide.data.digests import directory_digest
from landslide.tiling.contact_sheet import Sample, choose, picture_of, sheet_figure
from tests.support.patch_sets import build_image, image_path, mask_path, write_h5, write_patch_set

PINK = np.array([255, 47, 160])


def show(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "show", *map(str, arguments)])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def pink(path: Path) -> int:
    """Pixels with the colour of outlines."""
    return int((np.abs(pixels(path) - PINK).max(axis=-1) < 30).sum())


def test_real_patches_are_drawn_and_stay_as_they_are(real_data, tmp_path):
    folder = real_data / "landslide4sense-sample"
    before = directory_digest(folder)[0]
    done = show(folder, "-o", tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    assert done.output == f"{tmp_path / 'sheet.png'}: drew 24 of 27 patches, 20 with landslides\n"
    assert pink(tmp_path / "sheet.png") > 1000
    assert directory_digest(folder)[0] == before


def test_outlines_lie_around_the_landslides():
    landslide = np.zeros((128, 128), bool)
    landslide[32:64, 64:96] = True
    whole = np.ones((128, 128), bool)
    figure = sheet_figure([Sample(str(i), np.zeros((128, 128, 3)), mask) for i, mask in enumerate((landslide, whole))])
    expected = {"0": (63.5, 31.5, 95.5, 63.5), "1": (-0.5, -0.5, 127.5, 127.5)}
    for axis in figure.axes[:2]:
        (outline,) = axis.collections
        corners = np.vstack([path.vertices for path in outline.get_paths()])
        assert (*corners.min(axis=0), *corners.max(axis=0)) == expected[axis.get_title()]
        assert (axis.get_xlim(), axis.get_ylim()) == ((-0.5, 127.5), (127.5, -0.5))


def test_only_the_named_patches_are_drawn(tmp_path):
    write_patch_set(tmp_path / "set", range(1, 31))
    done = show(tmp_path / "set", "-o", tmp_path / "some.png", "--number", "12, 3,12")
    assert done.exit_code == 0, done.output
    assert "drew 2 of 30 patches, 2 with landslides" in done.output
    assert pixels(tmp_path / "some.png").shape[1] < 600


def test_the_picture_is_in_the_working_folder(tmp_path, monkeypatch):
    write_patch_set(tmp_path / "set", (1,))
    monkeypatch.chdir(tmp_path)
    assert show("set").exit_code == 0
    assert show("set").exit_code == 0  # and may be drawn again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "sheet.png"]


def test_declared_bands_give_true_colours(tmp_path):
    write_patch_set(tmp_path / "set", (1,), bands=3)
    done = show(tmp_path / "set", "-o", tmp_path / "gray.png")
    assert "in gray: --bands would name B4, B3 and B2" in done.output
    inner = np.s_[60:240, 20:240]
    gray = pixels(tmp_path / "gray.png")[inner]
    coloured = np.abs(gray - PINK).max(axis=-1) > 250  # not an outline
    assert (gray[coloured].max(axis=-1) - gray[coloured].min(axis=-1)).max() == 0
    done = show(tmp_path / "set", "-o", tmp_path / "colour.png", "--bands", "B2,B3,B4")
    assert "gray" not in done.output
    colour = pixels(tmp_path / "colour.png")[inner]
    assert (colour.max(axis=-1) - colour.min(axis=-1)).mean() > 50


def test_pictures_have_red_first_and_hide_what_is_no_number():
    image = build_image(1)
    picture = picture_of(image, ("B2", "B3", "B4", *map(str, range(11))))
    assert np.corrcoef(picture[..., 0].ravel(), image[..., 2].ravel())[0, 1] > 0.99
    assert np.corrcoef(picture[..., 2].ravel(), image[..., 0].ravel())[0, 1] > 0.99
    image[3, 4] = np.nan
    image[5, 6] = np.inf
    assert np.isfinite(picture_of(image, ("B2", "B3", "B4", *map(str, range(11))))).all()


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"a": 5, "b": 9, "c": 0, "d": 7, "e": 0, "f": 1}, ["b", "d", "a", "c"]),
        ({"a": 5, "b": 9, "c": 7, "d": 1, "e": 2}, ["b", "c", "a", "e"]),
        ({"a": 0, "b": 3, "c": 0, "d": 0, "e": 0}, ["b", "a", "c", "d"]),
        ({"a": 0, "b": 3}, ["b", "a"]),
        (dict.fromkeys("abcdefgh", 0), ["a", "c", "e", "g"]),
    ],
)
def test_patches_with_most_landslides_are_chosen_and_some_without(found, chosen):
    assert choose(found, 4) == chosen


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--number", "2,40,50"), 1, "has no training patch 40, 50"),
        (("--number", "two"), 2, "'two' are no whole numbers"),
        (("--bands", "B4"), 1, "shape (128, 128, 14)"),
        (("-o", "{folder}/set/sheet.png"), 1, "lies in the data set"),
        (("-o", "{folder}/set/../set/new/sheet.png"), 1, "lies in the data set"),
        (("-o", "{folder}/mine.png"), 1, "exists and was not drawn by this command"),
        (("-o", "{folder}/sheet.pdf"), 1, "is no name of a PNG file"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, arguments, code, message):
    write_patch_set(tmp_path / "set")
    Image.new("RGB", (5, 5)).save(tmp_path / "mine.png")
    before = directory_digest(tmp_path)[0]
    given = [argument.format(folder=tmp_path) for argument in arguments]
    done = show(tmp_path / "set", *(() if "-o" in given else ("-o", tmp_path / "sheet.png")), *given)
    assert done.exit_code == code
    assert message in done.output
    assert "Traceback" not in done.output
    assert directory_digest(tmp_path)[0] == before


def test_bad_patches_are_named(tmp_path):
    write_patch_set(tmp_path / "set")
    image_path(tmp_path / "set", 10).write_bytes(b"no image")
    done = show(tmp_path / "set", "-o", tmp_path / "sheet.png")
    assert done.exit_code == 1
    assert "image_10.h5" in done.output
    write_h5(mask_path(tmp_path / "set", 2), "mask", np.full((128, 128), 7))
    done = show(tmp_path / "set", "-o", tmp_path / "sheet.png")
    assert "mask_2.h5" in done.output
    assert show(tmp_path / "no", "-o", tmp_path / "sheet.png").exit_code != 0
    assert not (tmp_path / "sheet.png").exists()
