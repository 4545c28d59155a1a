"""The page of a map: its content, and what a browser makes of it."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from landslide.products.map_page import _lonlat, write_map_page
from landslide.products.polygons import landslide_polygons, not_analysed_polygons
from landslide.scenes.grid import Grid
from tests.support.finished_maps import map_info, utm_grid, write_map

pytestmark = pytest.mark.slow

GRID = utm_grid(300, 200)
SCENE = "</script><b>T33UUU & 'x'"


@pytest.fixture
def mask():
    values = np.zeros((200, 300), np.uint8)
    values[20:40, 30:60] = values[100:150, 200:240] = 1
    values[110:120, 210:220] = 0
    values[160:180, 10:20] = values[180:190, 20:30] = 1
    values[:, 280:] = 255
    return values


def write_page(folder, mask, **changes):
    write_map(folder, GRID, mask, np.where(mask == 1, 0.9, 0.02), 0.0)
    info = map_info(scene=SCENE, **changes)
    landslides, _ = landslide_polygons(folder, info, None)
    path = folder / "map.html"
    preview = np.zeros((100, 150, 3), np.uint8)
    preview[..., 0] = 250
    write_map_page(path, preview, folder, GRID, landslides, not_analysed_polygons(folder), info)
    return path, landslides


class _Scripts(HTMLParser):
    """Collects the texts of script elements and the addresses of everything else."""

    def __init__(self):
        super().__init__()
        self.texts, self.addresses, self._inside = [], [], False

    def handle_starttag(self, tag, attributes):
        self._inside = tag == "script"
        self.texts += [""] if self._inside else []
        self.addresses += [value for name, value in attributes if name in {"src", "href", "data", "action"}]

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.texts[-1] += data


def parsed(path):
    parser = _Scripts()
    parser.feed(path.read_text())
    return parser


def page_data(path):
    return json.loads(parsed(path).texts[0])


def decoded(uri):
    return cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_UNCHANGED)


def polygon_of(path):
    """The polygon of a relative SVG path, in pixels of the scene."""
    area = shapely.Polygon()
    for start, steps in re.findall(r"M([-\d ]+)l([-\d ]+)z", path):
        moves = np.array([start.split(), *np.reshape(steps.split(), (-1, 2))], int)
        area = area.symmetric_difference(shapely.Polygon(np.cumsum(moves, axis=0)))
    return area


def test_paths_are_the_landslides_in_pixels_of_the_scene(tmp_path, mask):
    path, landslides = write_page(tmp_path, mask)
    data = page_data(path)
    assert len(data["paths"]) == len(data["rows"]) == 3
    for text, point, geometry in zip(data["paths"], data["points"], landslides.geometry, strict=True):
        expected = shapely.transform(geometry, lambda xy: np.stack(~GRID.transform @ xy.T, axis=1))
        assert polygon_of(text).equals(expected)
        assert expected.buffer(0.1).contains(shapely.Point(point))


def test_attributes_and_counts_on_the_page(tmp_path, mask):
    path, landslides = write_page(tmp_path, mask)
    data = page_data(path)
    names = [column["name"] for column in data["columns"]]
    assert [row[names.index("area_m2")] for row in data["rows"]] == landslides["area_m2"].tolist()
    assert [row[names.index("elev_min")] for row in data["rows"]] == [None] * 3
    assert data["counts"] == {"high": 3, "medium": 0, "low": 0}
    assert list(data["reasons"]) == ["cloud"]
    assert data["facts"]["Landslides"] == "3"
    assert data["scene"] == SCENE


@pytest.mark.parametrize(("version", "label"), [("3", "landslide-lite_unet version 3"), ("", "landslide-lite_unet")])
def test_a_model_from_a_folder_has_no_version(tmp_path, mask, version, label):
    path, _ = write_page(tmp_path, mask, model_version=version)
    assert page_data(path)["facts"]["Model"] == label


def test_longitude_and_latitude_between_the_corners_of_cells(tmp_path, mask):
    path, _ = write_page(tmp_path, mask)
    data = page_data(path)
    corners = np.array(data["lonlat"])
    transformer = Transformer.from_crs(GRID.crs, "OGC:CRS84", always_xy=True)
    row, column = 5.5 / 8 * GRID.height, 2.5 / 8 * GRID.width
    expected = transformer.transform(*(GRID.transform @ (column, row)))
    np.testing.assert_allclose(corners[5:7, 2:4].mean(axis=(0, 1)), expected, atol=2e-7)


def test_longitudes_go_on_across_180_degrees():
    corners = np.array(_lonlat(Grid(CRS.from_epsg(32760), Affine(10, 0, 818_700, 0, -10, 8_118_000), 200, 100)))
    longitude = corners[..., 0]
    assert 179.9 < longitude.min() < 180 < longitude.max() < 180.1
    assert (np.diff(longitude, axis=1) > 0).all()


def test_layers_are_images_of_the_scene(tmp_path, mask):
    path, _ = write_page(tmp_path, mask)
    layers = page_data(path)["layers"]
    image, probability, excluded = (decoded(layers[name]) for name in ("image", "probability", "not_analysed"))
    assert image.shape == (200, 300, 3)
    assert np.abs(image.astype(int) - (0, 0, 250)).max() < 8
    opacity = probability[..., 3]
    assert (opacity[mask == 1] > 200).all()
    assert (opacity[mask == 0] < 20).all()
    assert (opacity[mask == 255] == 0).all()
    np.testing.assert_array_equal(excluded[..., 3] > 0, mask == 255)


def test_the_page_needs_nothing_but_itself_and_escapes_names(tmp_path, mask):
    path, _ = write_page(tmp_path, mask)
    parser = parsed(path)
    assert parser.addresses == []
    assert len(parser.texts) == 2
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text())
    assert SCENE not in path.read_text()


def in_a_browser(path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium to open the page with")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    command = [chromium, *options, f"--user-data-dir={path.parent / 'profile'}", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_browser_draws_the_page_and_answers_a_click(tmp_path, mask):
    path, landslides = write_page(tmp_path, mask)
    # At the middle of the second landslide, as a person would click.
    click = """<script>
      const box = paths[1].getBoundingClientRect(), x = box.left + 5, y = box.top + box.height / 2;
      for (const kind of ["pointerdown", "pointerup"])
        map.dispatchEvent(new PointerEvent(kind, { clientX: x, clientY: y, pointerId: 1 }));
    </script></body>"""
    path.write_text(path.read_text().replace("</body>", click))
    page = in_a_browser(path)
    assert len(re.findall(r"<path d=", page)) == 3
    assert len(re.findall(r'<image [^>]*href="data:image/', page)) == 3
    assert "<title>Landslide map of &lt;/script&gt;" in page
    assert '<h2 id="chosen">Landslide 2</h2>' in page
    assert f"<td>{landslides['area_m2'][1]:,} m²</td>" in page
    assert re.search(r'id="bar"[^>]*>(500 m|200 m|1 km)<', page)


def test_a_browser_draws_a_page_without_landslides(tmp_path):
    path, _ = write_page(tmp_path, np.zeros((200, 300), np.uint8))
    page = in_a_browser(path)
    assert "<path d=" not in page
    assert "high confidence: 0" in page
