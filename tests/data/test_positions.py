"""Positions of patches: scenes.csv, and the built-in table of the official set."""

import os

import pytest

from landslide.data.positions import landslide4sense_positions, read_positions
from landslide.data.table import patch_table
from landslide.errors import DataError


def test_positions_come_from_scenes_csv(root):
    (root / "scenes.csv").write_text("\ufeffn,scene,row,column\n10,2,0,0\n1,1,4,5\n2,1,4,6\n7,1,0,0\n\n")
    positions = read_positions(root, [1, 2, 10])
    assert positions.to_numpy().tolist() == [[1, 4, 5], [1, 4, 6], [2, 0, 0]]
    assert patch_table(root)["column"].tolist() == [5, 6, 0]
    assert read_positions(root, [1, 2], positions="none").isna().all(axis=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "header is an empty file; expected n,scene,row,column"),
        ("number,scene,row,column\n1,1,0,0\n", "header is number,scene"),
        ("n,scene,row,column\n1,1,0,0\n2,1,x,0\n", "line 3: found '2,1,x,0'"),
        ("n,scene,row,column\n1,1,0\n", "line 2"),
        ("n,scene,row,column\n1,1,0,0,0\n", "line 2"),
        ("n,scene,row,column\n1,1,0,\n", "line 2"),
        ("n,scene,row,column\n1,1,0,0\n1,1,0,1\n", "line 3: patch 1 occurs twice"),
        ("n,scene,row,column\n1,1,0,0\n2,1,0,0\n", "line 3: patch 2 is where patch 1 is"),
        ("n,scene,row,column\n1,1,x,0\n2,1,0\n", "line 2: found '1,1,x,0'.*, line 3: found '2,1,0'"),
        ("n,scene,row,column\n1,1,0,0\n2,1,-1,0\n", "line 3: found '2,1,-1,0'"),
        ("n,scene,row,column\n-1,1,0,0\n", "line 2: found '-1,1,0,0'"),
        (f"n,scene,row,column\n1,1,0,{10**22}\n", "line 2: found '1,1,0,1000"),
        (f"n,scene,row,column\n{10**22},1,0,0\n", "line 2: found '1000"),
        (f"n,scene,row,column\n1,1,0,{'9' * 5000}\n", "line 2: found '1,1,0,999"),
        ("n,scene,row,column\n1,1,0,0\n2,1,0,1\n", "no position for patch 10"),
        ("n,scene,row,column\n1,\xff\n", "line 2"),
    ],
)
def test_a_faulty_position_table_is_an_error_that_names_the_fault(root, content, message):
    (root / "scenes.csv").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_positions(root, [1, 2, 10])
    assert "scenes.csv" in str(error.value)


def test_a_binary_position_table_is_a_data_error(root):
    (root / "scenes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"scenes\.csv cannot be read"):
        read_positions(root, [1, 2, 10])


def test_a_pipe_instead_of_the_position_table_is_a_data_error(root):
    os.mkfifo(root / "scenes.csv")
    with pytest.raises(DataError, match=r"scenes\.csv cannot be read: it is a pipe"):
        read_positions(root, [1, 2, 10])


def test_the_official_scenes_are_contiguous_tiles():
    table = landslide4sense_positions()
    assert table.index.tolist() == list(range(1, 3800))
    assert table["scene"].value_counts().to_dict() == {1: 3033, 2: 150, 3: 121, 4: 494, 5: 1}
    assert table.loc[[1, 41, 42, 3033, 3034, 3184, 3305, 3798, 3799]].to_numpy().tolist() == [
        [1, 0, 0],
        [1, 0, 40],
        [1, 1, 0],
        [1, 73, 39],
        [2, 0, 0],
        [3, 0, 0],
        [4, 0, 0],
        [4, 18, 25],
        [5, 0, 0],
    ]
    assert not table.duplicated().any()


def test_the_official_table_applies_to_the_whole_official_set_or_by_name(root):
    everything = list(range(1, 3800))
    assert read_positions(root, everything)["scene"].nunique() == 5
    assert read_positions(root, everything[:-1]).isna().all(axis=None)
    assert read_positions(root, [*everything, 3800]).isna().all(axis=None)
    named = read_positions(root, [42, 1], positions="landslide4sense")
    assert named.to_numpy().tolist() == [[1, 1, 0], [1, 0, 0]]
    with pytest.raises(DataError, match="no position for patch 3800"):
        read_positions(root, [1, 3800], positions="landslide4sense")


def test_a_part_of_the_numbers_of_an_official_folder_has_positions(tmp_path):
    (tmp_path / "images/train").mkdir(parents=True)
    for number in range(1, 3800):
        (tmp_path / f"images/train/image_{number}.h5").touch()
    assert read_positions(tmp_path, [43])["row"].tolist() == [1]
