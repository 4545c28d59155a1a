"""Where patches lie: on the map, in their scene, or in lines."""

import pandas as pd
import pytest
from rasterio.crs import CRS

from landslide.data.table import patch_table
from landslide.errors import DataError
from landslide.tiling.places import common_crs, patch_places
from tests.support.patch_sets import write_patch_set

NUMBERS = (1, 2, 5, 9)
HEADER = "n,scene,row,column,name,crs,west,south,east,north\n"


def table(positions, numbers=(1, 2, 3)):
    columns = {name: pd.array([p[i] for p in positions], "Int64") for i, name in enumerate(("scene", "row", "column"))}
    return pd.DataFrame({"number": numbers, **columns})


def corners(place):
    return place.transform @ (0, 0), place.transform @ (128, 128)


def test_coordinates_of_scenes_csv_count(tmp_path):
    lines = ("1,1,0,0,north,EPSG:32633,500000,5000000,501280,5001280", "3,2,4,5,south,EPSG:32733,300000,20,301280,1300")
    (tmp_path / "scenes.csv").write_text(HEADER + "\n".join(lines) + "\n")
    places = patch_places(tmp_path, table([(1, 0, 0), (2, 4, 5)], (1, 3)))
    assert [place.scene for place in places] == ["north", "south"]
    assert [place.crs.to_epsg() for place in places] == [32633, 32733]
    assert corners(places[0]) == ((500000, 5001280), (501280, 5000000))
    assert corners(places[1]) == ((300000, 1300), (301280, 20))
    assert common_crs(places) == CRS.from_epsg(4326)
    assert common_crs(places[:1]) == CRS.from_epsg(32633)


def test_tiles_of_a_scene_adjoin_and_scenes_do_not_touch(tmp_path):
    (tmp_path / "scenes.csv").write_text("n,scene,row,column\n")
    places = patch_places(tmp_path, table([(1, 0, 0), (1, 2, 3), (7, 0, 0)]))
    assert [place.crs for place in places] == [None] * 3
    assert common_crs(places) is None
    assert corners(places[0]) == ((0, 0), (128, -128))
    assert corners(places[1]) == ((3 * 128, -2 * 128), (4 * 128, -3 * 128))
    assert corners(places[2])[0][0] > corners(places[1])[1][0]
    assert [place.scene for place in places] == ["scene 1", "scene 1", "scene 7"]


def test_patches_without_positions_lie_in_lines(tmp_path):
    n = 85
    places = patch_places(tmp_path, table([(pd.NA,) * 3] * n, range(1, n + 1)))
    assert len({corners(place) for place in places}) == n
    assert corners(places[84]) == ((4 * 128, -2 * 128), (5 * 128, -3 * 128))


@pytest.mark.parametrize(
    "line",
    ["1,1,0,0,a,EPSG:nonsense,0,0,1,1", "1,1,0,0,a,EPSG:32633,0,0,-1,1", "1,1,0,0,a,EPSG:32633,x,0,1,1"],
)
def test_wrong_coordinates_are_named(tmp_path, line):
    (tmp_path / "scenes.csv").write_text(f"{HEADER}{line}\n")
    with pytest.raises(DataError, match=r"scenes.csv, line 2: the place of patch 1 is wrong"):
        patch_places(tmp_path, table([(1, 0, 0)], (1,)))


@pytest.mark.parametrize("scenes", ["", "n,scene,row,column\n1,1,0,0\n2,1,0,3\n5,2,1,0\n9,3,0,0\n"])
def test_a_part_of_the_patches_lies_where_it_lies_in_the_whole(tmp_path, scenes):
    root = write_patch_set(tmp_path / "set", NUMBERS, bands=1)
    if scenes:
        (root / "scenes.csv").write_text(scenes)
    table = patch_table(root)
    whole = dict(zip(NUMBERS, patch_places(root, table), strict=True))
    assert len({place.transform for place in whole.values()}) == 4
    for part in ([1, 3], [3], [2, 0]):
        chosen = table.iloc[part].reset_index(drop=True)
        assert patch_places(root, chosen) == [whole[number] for number in chosen["number"]]
