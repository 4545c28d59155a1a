"""The patch table."""

import os

import pandas as pd
import pytest

from landslide.data.check import survey
from landslide.data.digests import directory_digest, file_digest
from landslide.data.table import patch_table
from landslide.errors import DataError
from tests.support.patch_sets import image_path, mask_path, write_patch_set


def test_the_patch_table_has_one_row_per_patch_in_natural_order(root):
    table = patch_table(root)
    assert table["number"].tolist() == [1, 2, 10]
    assert table["image"].tolist() == [f"TrainData/img/image_{n}.h5" for n in (1, 2, 10)]
    assert table["mask"].tolist() == [f"TrainData/mask/mask_{n}.h5" for n in (1, 2, 10)]
    assert table["positive_pixels"].tolist() == [1, 2, 10]
    assert table["image_md5"].tolist() == [file_digest(image_path(root, n)) for n in (1, 2, 10)]
    assert table["mask_md5"].tolist() == [file_digest(mask_path(root, n)) for n in (1, 2, 10)]
    assert table[["scene", "row", "column"]].isna().all(axis=None)
    assert table.dtypes[["number", "positive_pixels"]].tolist() == ["int64", "int64"]
    assert table.dtypes[["scene", "row", "column"]].tolist() == ["Int64"] * 3
    pd.testing.assert_frame_equal(patch_table(root, digests=directory_digest(root)[1]), table)


def test_values_of_a_survey_are_not_read_again(root):
    table, found = patch_table(root), survey(root)
    for path in root.rglob("*.h5"):
        os.truncate(path, 0)
    given = patch_table(root, digests=found.digests, positive_pixels=found.positive_pixels)
    pd.testing.assert_frame_equal(given, table)


def test_digests_and_pixels_of_another_folder_are_refused(root):
    with pytest.raises(DataError, match=r"lack TrainData/img/image_1\.h5"):
        patch_table(root, digests={})
    with pytest.raises(DataError, match=r"lack TrainData/mask/mask_1\.h5"):
        patch_table(root, positive_pixels={})


def test_the_patch_table_without_masks_has_unknown_landslide_pixels(tmp_path):
    write_patch_set(tmp_path, (1, 2), split="test")
    (tmp_path / "TestData/mask/mask_1.h5").unlink()
    (tmp_path / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n2,1,0,1\n")
    table = patch_table(tmp_path, "test")
    assert table[["mask", "mask_md5", "positive_pixels"]].isna().to_numpy().tolist() == [
        [True] * 3,
        [False] * 3,
    ]
    assert table["positive_pixels"][1] == 2
    assert table["scene"].isna().all(), "scenes.csv is about training patches"


def test_the_real_masks_hold_the_published_counts(real_data):
    published = pd.read_csv(real_data / "landslide4sense_train_positive_pixels.csv", index_col="n")
    table = patch_table(real_data / "landslide4sense-sample", positions="landslide4sense")
    expected = published.loc[table["number"], "landslide_pixels"]
    assert table["positive_pixels"].tolist() == expected.tolist()
    assert table.set_index("number").loc[3520, ["scene", "row", "column"]].tolist() == [4, 8, 7]
