"""The STAC Item of a map, validated with the schemas that pystac ships."""

import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pystac
import pystac.validation
import pytest
import shapely
from affine import Affine
from pystac.extensions.projection import ProjectionExtension
from rasterio.crs import CRS

from landslide.products.stac_item import write_item
from landslide.scenes.grid import WGS84, Grid
from tests.support.finished_maps import degree_grid, map_info, utm_grid, write_map

SUMMARY = {"landslides": 12, "area_m2": 34_567.8, "share_not_analysed": 0.25}


def written(folder, grid, info=None, names=("probability.tif", "uncertainty.tif", "mask.tif")):
    write_map(folder, grid, np.zeros((grid.height, grid.width)))
    path = folder / "item.json"
    write_item(path, info or map_info(), grid, SUMMARY, [folder / name for name in names])
    return path, json.loads(path.read_text())


@pytest.mark.parametrize("grid", [utm_grid(40, 30), utm_grid(40, 30, "EPSG:32721"), degree_grid(40, 30)])
def test_the_item_is_valid_and_lies_where_the_scene_is(tmp_path, grid):
    path, content = written(tmp_path, grid)
    pystac.validation.validate_dict(content, extensions=[])
    item = pystac.Item.from_file(path)
    assert shapely.geometry.shape(item.geometry).symmetric_difference(grid.footprint).area < 1e-9
    assert item.bbox == pytest.approx(grid.footprint.bounds, abs=1e-7)
    projection = ProjectionExtension.ext(item)
    assert projection.code == grid.crs.to_string()
    assert projection.shape == [grid.height, grid.width]
    assert projection.transform == list(grid.transform)[:6]


def test_properties_and_links_say_where_the_map_comes_from(tmp_path):
    _, content = written(tmp_path, utm_grid(40, 30))
    properties = content["properties"]
    assert properties["datetime"] == "2017-02-16T10:21:01Z"
    assert properties["created"] == "2026-01-02T03:04:05Z"
    assert properties["landslide:threshold"] == 0.5
    assert properties["landslide:landslides"] == 12
    assert properties["landslide:area_m2"] == 34_567.8
    assert properties["platform"] == "sentinel-2a"
    assert properties["landslide:model"] == "landslide-lite_unet 3"
    links = {link["title"]: (link["rel"], link["href"]) for link in content["links"]}
    assert links == {
        "The scene": ("derived_from", "file:///data/S2A_MSIL1C_20170216T102101_N0204_R065_T33UUU.SAFE"),
        "The model": ("derived_from", "models:/landslide-lite_unet/3"),
    }


def test_a_model_from_a_folder_has_no_version(tmp_path):
    _, content = written(tmp_path, utm_grid(40, 30), map_info(model_version=""))
    assert content["properties"]["landslide:model"] == "landslide-lite_unet"


def test_assets_bear_digests_scale_and_classes(tmp_path):
    (tmp_path / "landslides.gpkg").write_bytes(b"polygons")
    names = ["probability.tif", "uncertainty.tif", "mask.tif", "landslides.gpkg"]
    _, content = written(tmp_path, utm_grid(40, 30), names=names)
    assets = content["assets"]
    assert list(assets) == ["probability", "uncertainty", "mask", "landslides.gpkg"]
    for asset in assets.values():
        stored = (tmp_path / asset["href"]).read_bytes()
        assert asset["file:size"] == len(stored)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(stored).hexdigest()
    assert assets["probability"]["raster:scale"] == 0.0001
    assert [entry["value"] for entry in assets["mask"]["classification:classes"]] == [0, 1, 255]
    assert assets["mask"]["type"] == pystac.MediaType.COG


def test_the_summary_is_listed_without_a_digest_because_it_holds_that_of_the_item(tmp_path):
    _, content = written(tmp_path, utm_grid(40, 30), names=["mask.tif", "summary.json"])
    assert content["assets"]["summary.json"] == {
        "href": "./summary.json", "type": "application/json", "title": "Summary", "roles": ["metadata"],
    }  # fmt: skip


def test_an_image_of_unknown_time_lies_in_an_interval(tmp_path):
    info = map_info(image_datetime=None, sensor=None, level=None, created=datetime(2026, 5, 1, tzinfo=UTC))
    _, content = written(tmp_path, utm_grid(40, 30), info)
    pystac.validation.validate_dict(content, extensions=[])
    assert content["properties"]["datetime"] is None
    assert content["properties"]["start_datetime"] < content["properties"]["end_datetime"] == "2026-05-01T00:00:00Z"
    assert "platform" not in content["properties"]


def test_the_schema_refuses_a_broken_item(tmp_path):
    _, content = written(tmp_path, utm_grid(40, 30))
    del content["bbox"]
    with pytest.raises(pystac.STACValidationError):
        pystac.validation.validate_dict(content, extensions=[])


def test_equal_maps_have_equal_items(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, utm_grid(40, 30))
    assert (tmp_path / "one/item.json").read_bytes() == (tmp_path / "two/item.json").read_bytes()


def test_a_scene_across_180_degrees_of_longitude(tmp_path):
    """Cut there, and with west above east, as RFC 7946 and STAC want it."""
    grid = Grid(CRS.from_epsg(32760), Affine(10, 0, 818_700, 0, -10, 8_118_000), 200, 100)
    _, content = written(tmp_path, grid)
    pystac.validation.validate_dict(content, extensions=[])
    west, south, east, north = content["bbox"]
    assert (west, south, east, north) == pytest.approx((179.99307, -17.00918, -179.98812, -16.99975), abs=2e-4)
    parts = shapely.get_parts(shapely.geometry.shape(content["geometry"]))
    left, right = sorted(parts, key=lambda part: -part.bounds[0])
    assert (left.bounds[0], left.bounds[2]) == (west, 180)
    assert (right.bounds[0], right.bounds[2]) == (-180, east)
    assert left.exterior.is_ccw
    assert right.exterior.is_ccw
    assert sum(abs(WGS84.geometry_area_perimeter(part)[0]) for part in (left, right)) == pytest.approx(2e6, rel=0.01)
    assert grid.footprint.bounds[2] - grid.footprint.bounds[0] < 0.1
