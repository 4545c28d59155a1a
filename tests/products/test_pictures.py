"""The picture of a map."""

import warnings

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from landslide.products.colours import CONFIDENCE_COLOURS
from landslide.products.pictures import write_quicklook
from landslide.products.polygons import landslide_polygons, not_analysed_polygons
from tests.support.finished_maps import degree_grid, map_info, utm_grid, write_map

pytestmark = pytest.mark.slow

PREVIEW = np.full((100, 100, 3), (20, 90, 60), np.uint8)


def picture(folder, grid, mask, probability=0.95, preview=None, **info):
    """Red, green and blue of the quicklook of a map, uint8."""
    write_map(folder, grid, mask, np.where(mask == 1, probability, 0.05), 0.0)
    quoted = map_info(**info)
    landslides, _ = landslide_polygons(folder, quoted, None)
    preview = PREVIEW if preview is None else preview
    path = folder / "quicklook.png"
    write_quicklook(path, preview, folder, grid, landslides, not_analysed_polygons(folder), quoted)
    return (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint8)


def places(image, colour):
    """Rows and columns of pixels of a colour."""
    return np.argwhere((image == (np.array(to_rgb(colour)) * 255).round()).all(axis=2))


def blank(grid):
    return np.zeros((grid.height, grid.width), np.uint8)


def panel(image):
    """Top, bottom, left and right of the image on the page."""
    rows, columns = places(image, "#145a3c").T
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


@pytest.mark.parametrize("grid", [utm_grid(600, 200), degree_grid(400, 400)])
def test_landslides_lie_where_they_are(tmp_path, grid):
    mask = blank(grid)
    top, bottom = grid.height // 4, grid.height // 2
    left, right = grid.width // 8, grid.width // 4
    mask[top:bottom, left:right] = 1
    image = picture(tmp_path, grid, mask)
    first, last, west, east = panel(image)
    metres = np.array(grid.pixel_size) * (grid.width, grid.height)
    assert (east - west) / (last - first) == pytest.approx(metres[0] / metres[1], rel=0.02)
    rows, columns = places(image[: last + 5], CONFIDENCE_COLOURS["high"]).T
    height, width = last - first, east - west
    assert (rows.min() - first) / height == pytest.approx(top / grid.height, abs=0.01)
    assert (rows.max() - first) / height == pytest.approx(bottom / grid.height, abs=0.01)
    assert (columns.min() - west) / width == pytest.approx(left / grid.width, abs=0.01)
    assert (columns.max() - west) / width == pytest.approx(right / grid.width, abs=0.01)


def test_a_small_landslide_is_ringed(tmp_path):
    grid = utm_grid(1000, 1000)
    mask = blank(grid)
    mask[499:501, 499:501] = 1
    image = picture(tmp_path, grid, mask)
    first, last, west, east = panel(image)
    rows, columns = places(image[:last], CONFIDENCE_COLOURS["high"]).T
    assert 15 < np.ptp(rows) < 60
    assert rows.mean() == pytest.approx((first + last) / 2, abs=3)
    assert columns.mean() == pytest.approx((west + east) / 2, abs=3)


def test_what_was_not_analysed_is_hatched_in_both_panels(tmp_path):
    grid = utm_grid(200, 200)
    mask = blank(grid)
    mask[:, 150:] = 255
    with_cloud = picture(tmp_path, grid, mask).astype(int)
    without = picture(tmp_path, grid, blank(grid)).astype(int)
    first, last, west, east = panel(without)
    changed = np.abs(with_cloud - without).sum(axis=2)[first + 5 : last - 5] > 0
    width = east - west
    assert changed[:, int(west + 0.76 * width) : east - 5].mean() > 0.95
    assert not changed[:, west : int(west + 0.74 * width)].any()
    assert changed[:, east + 40 :].mean() > 0.05


def test_image_and_probability_lie_as_the_scene_does(tmp_path):
    grid = utm_grid(200, 200)
    preview = PREVIEW.copy()
    preview[:50, :50] = 200, 30, 40
    probability = np.full((200, 200), 0.2)
    probability[:100, :100] = 0.9
    image = picture(tmp_path, grid, np.ones((200, 200)), probability=probability, preview=preview)
    first, last, west, east = panel(image)
    rows, columns = places(image, "#c81e28").T
    assert (rows.min(), columns.min()) == pytest.approx((first, west), abs=6)
    assert (rows.max(), columns.max()) == pytest.approx(((first + last) / 2, (west + east) / 2), abs=6)
    right = image[first:last, east + 10 :].astype(int)
    start = np.flatnonzero(right[-20].sum(axis=1) < 300)[0]  # the left edge of the other panel
    bright = right[:, start + 8 : start + east - west - 8].sum(axis=2) > 400
    top, bottom = np.array_split(bright, 2)
    assert [half.mean().round(1) for half in (*np.array_split(top, 2, axis=1), bottom)] == [1, 0, 0]


def test_an_empty_map_has_a_picture_and_equal_maps_have_equal_pictures(tmp_path):
    grid = utm_grid(100, 100)
    unknown = {"image_datetime": None, "sensor": None, "level": None, "processing_baseline": None}
    picture(tmp_path / "one", grid, blank(grid), **unknown)
    picture(tmp_path / "two", grid, blank(grid), **unknown)
    assert (tmp_path / "one/quicklook.png").read_bytes() == (tmp_path / "two/quicklook.png").read_bytes()


def test_names_in_scripts_that_the_font_lacks_give_no_warning(tmp_path):
    grid = utm_grid(100, 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture(tmp_path, grid, blank(grid), scene="滑坡")
