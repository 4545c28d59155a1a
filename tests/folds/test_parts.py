"""The parts of a fold: training, selection, test and in-scene rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landslide.errors import DataError
from landslide.folds.parts import HoldOut, fold_parts, fold_rows
from tests.support.patch_tables import build_patch_table, grid_positions


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("fraction", [0.1, 0.3, None])
def test_parts_are_disjoint_and_cover_all_patches_except_the_excluded(exclude, fraction):
    n = 200
    table = build_patch_table(n, grid_positions(n // 10, 10), pixels=np.arange(n) % 5, folds=np.arange(n) // 40 + 1)
    rows = fold_rows(table, 2, HoldOut(gap=int(exclude)), validation_fraction=fraction, seed=3)
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
    for gap in (0, 1, 3):
        rows = fold_rows(table, 2, HoldOut(gap=gap), validation_fraction=fraction)
        of_first = table.loc[np.concatenate([rows.training, rows.selection])].query("fold == 1")
        assert sorted(of_first["row"].unique()) == list(range(6 - gap))


def test_a_gap_wider_than_the_scenes_leaves_other_scenes_and_patches_without_position():
    positions = [*grid_positions(4, 4), *grid_positions(2, 2, scene=2), (None, None, None), (1, None, None)]
    table = build_patch_table(len(positions), positions, folds=[1] * 8 + [2] * 14)
    found = fold_parts(table, 1, HoldOut(gap=10**9)).remaining  # as one given in metres
    assert np.flatnonzero(found).tolist() == [16, 17, 18, 19, 20, 21]


def test_fold_whose_other_tiles_all_adjoin_it_is_named():
    table = build_patch_table(4, folds=[1, 1, 2, 2], positions=[(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)])
    with pytest.raises(DataError, match=r"Fold 1 has 0 training patches(.|\n)*contiguous"):
        fold_rows(table, 1, HoldOut(gap=1))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(3, 16), st.integers(3, 16)), min_size=2, max_size=3),
    st.sampled_from(["scenes", "stripes"]),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.1, None]),
    st.integers(0, 1000),
)
def test_no_tile_that_trains_or_selects_is_near_what_is_tested(scenes, folds, gap, fraction, validation, seed):
    positions = [place for number, size in enumerate(scenes) for place in grid_positions(*size, scene=number)]
    scene, _, column = np.array(positions).T
    table = build_patch_table(len(positions), positions, folds=1 + (scene > 0 if folds == "scenes" else column >= 2))
    hold_out = HoldOut(gap=gap, in_scene_fraction=fraction, seed=seed)
    try:
        parts = fold_parts(table, 1, hold_out)
    except DataError:
        assert gap > 0
        return
    rows = fold_rows(table, 1, hold_out, validation_fraction=validation, seed=seed)
    selection = [] if validation is None else rows.selection
    used = np.concatenate([rows.training, selection]).astype(int)
    np.testing.assert_array_equal(np.sort(used), np.flatnonzero(parts.remaining))
    np.testing.assert_array_equal(parts.test, table["fold"] == 1)
    assert not (parts.test & parts.in_scene).any()
    assert parts.in_scene.any() == (fraction > 0)
    tested = parts.test | parts.in_scene
    places = np.array(positions)[tested]
    distance = np.array(
        [
            min(np.where(places[:, 0] == place[0], np.abs(places[:, 1:] - place[1:]).max(axis=1), 99))
            for place in np.array(positions)
        ]
    )
    # Complete: every tile is tested, within the gap of one that is tested, or used.
    np.testing.assert_array_equal(parts.remaining, distance > gap)


def test_in_scene_part_is_blocks_of_the_wanted_size_drawn_by_its_own_seed():
    positions = [*grid_positions(40, 40), *grid_positions(8, 8, scene=2)]
    table = build_patch_table(len(positions), positions, folds=[1] * 1600 + [2] * 64)

    def in_scene(fold: int, **changes) -> list[int]:
        hold_out = HoldOut(**{"gap": 1, "in_scene_fraction": 0.1, "seed": 3, **changes})
        return np.flatnonzero(fold_parts(table, fold, hold_out).in_scene).tolist()

    chosen = in_scene(2)
    assert len(chosen) == 160
    assert all(sum(positions[row][1:] == (4 * r + i, 4 * c + j) for row in chosen for i in range(4) for j in range(4))
               in (0, 16) for r in range(10) for c in range(10))  # fmt: skip
    assert in_scene(2) == chosen == in_scene(2, gap=3)
    assert in_scene(2, seed=4) != chosen
    assert in_scene(2, in_scene_fraction=0.0) == []
    assert {positions[row][0] for row in in_scene(1)} == {2}


def test_gap_of_an_in_scene_part_that_leaves_nothing_is_named():
    table = build_patch_table(17, [*grid_positions(4, 4), (2, 0, 0)], folds=[1] * 16 + [2])
    with pytest.raises(
        DataError, match=r"within 3 tiles of the test fold or in or near the in-scene part(.|\n)*gap, .*fraction: 0"
    ):
        fold_rows(table, 2, HoldOut(gap=3, in_scene_fraction=0.1))
    fold_rows(table, 2, HoldOut(gap=3))
    with pytest.raises(
        DataError, match=r"has 1 training patches: all others are in the in-scene part(.|\n)*Use folds.in"
    ):
        fold_rows(table.iloc[14:], 2, HoldOut(in_scene_fraction=0.1))
