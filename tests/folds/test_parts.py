"""The parts of a fold: training, selection and test rows."""

import numpy as np
import pytest

from landslide.errors import DataError
from landslide.folds.parts import fold_rows
from tests.support.patch_tables import build_patch_table, grid_positions


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.3, None])
def test_parts_are_disjoint_and_cover_all_patches_except_the_excluded(exclude, fraction):
    n = 200
    table = build_patch_table(n, grid_positions(n // 10, 10), pixels=np.arange(n) % 5, folds=np.arange(n) // 40 + 1)
    rows = fold_rows(table, 2, exclude_adjacent=exclude, validation_fraction=fraction, seed=3)
    np.testing.assert_array_equal(rows.test, np.arange(40, 80))
    used = np.concatenate([rows.training, rows.selection])
    if fraction is None:
        np.testing.assert_array_equal(rows.selection, rows.test)
        others = rows.training
    else:
        others = used
        assert len(rows.selection) == pytest.approx(fraction * len(used), abs=16)
    assert len(set(others.tolist())) == len(others) == n - 40 - (20 if exclude else 0)
    assert not set(rows.training.tolist()) & set(rows.test.tolist())


@pytest.mark.parametrize("fraction", [0.1, None])
def test_tiles_adjacent_to_the_test_fold_can_be_excluded(fraction):
    side = 12
    upper_and_lower_half = np.repeat([1, 2], side * side // 2)
    table = build_patch_table(side * side, grid_positions(side, side), folds=upper_and_lower_half)
    for exclude in (False, True):
        rows = fold_rows(table, 2, exclude_adjacent=exclude, validation_fraction=fraction)
        of_first = table.loc[np.concatenate([rows.training, rows.selection])].query("fold == 1")
        assert sorted(of_first["row"].unique()) == list(range(5 if exclude else 6))


def test_fold_whose_other_tiles_all_adjoin_it_is_named():
    table = build_patch_table(4, folds=[1, 1, 2, 2], positions=[(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
    with pytest.raises(DataError, match=r"Fold 1 has 0 training patches(.|\n)*contiguous"):
        fold_rows(table, 1, exclude_adjacent=True)
