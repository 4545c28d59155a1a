"""The fold table of growing data: patches keep their folds, and new ones join their neighbours."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landslide.data.positions import landslide4sense_positions
from landslide.errors import ConfigurationError, DataError
from landslide.folds.schemes import BLOCK_SIDE, assign
from landslide.folds.table import extend_fold_table, previous_folds, read_folds, removed_patches
from tests.support.patch_tables import as_recorded, build_patch_table, grid_positions, image_names

EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))


def folds_of(table: pd.DataFrame) -> dict[str, int]:
    return dict(zip(table["image_md5"], table["fold"], strict=True))


def random_fold_table(rng: np.random.Generator, n_folds: int, positioned: bool) -> pd.DataFrame:
    """Some tiles of two scenes in random folds."""
    positions = [p for p in grid_positions(6, 7, 1) + grid_positions(5, 4, 2) if rng.random() < 0.6]
    table = build_patch_table(image_names(positions), positions if positioned else None)
    fold = np.concatenate([np.arange(n_folds), rng.integers(0, n_folds, len(table) - n_folds)]) + 1
    return as_recorded(table.assign(fold=fold))


# ---- known patches


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.booleans())
def test_old_patches_keep_their_folds_and_new_tiles_join_their_neighbours(seed, n_folds, positioned):
    rng = np.random.default_rng(seed)
    previous = random_fold_table(rng, n_folds, positioned)
    fold_of = folds_of(previous)
    places = grid_positions(8, 9, 1) + grid_positions(7, 6, 2) + grid_positions(2, 3, 3)
    kept = [p for p in places if f"image {p[0]} {p[1]} {p[2]}" in fold_of and rng.random() < 0.8]
    changed = [p for p in kept if positioned and rng.random() < 0.2]
    new = [p for p in places if f"image {p[0]} {p[1]} {p[2]}" not in fold_of and rng.random() < 0.4]
    images = {p: f"image {p[0]} {p[1]} {p[2]}" for p in kept} | dict(zip(new, image_names(new, "new"), strict=True))
    images |= dict(zip(changed, image_names(changed, "changed"), strict=True))
    order = [list(images)[i] for i in rng.permutation(len(images))]
    if not order:
        return
    table = build_patch_table(
        [images[p] for p in order], order if positioned else None, rng.permutation(len(order)) + 1
    )
    try:
        grown = extend_fold_table(table, previous, n_folds=n_folds)
    except DataError:
        return  # a fold was emptied
    assert positioned or grown["scene"].isna().all()
    pd.testing.assert_frame_equal(grown.drop(columns="fold"), table)
    assert grown["fold"].dtype == np.int64
    found = dict(zip(order, grown["fold"], strict=True))
    assert set(found.values()) == set(range(1, n_folds + 1))
    assert {p: found[p] for p in kept} == {p: fold_of[f"image {p[0]} {p[1]} {p[2]}"] for p in kept}
    if positioned:
        before = {
            tuple(row): fold for *row, fold in previous[["scene", "row", "column", "fold"]].itertuples(index=False)
        }
        for scene, row, column in new:
            around = [(scene, row + down, column + right) for down, right in EDGES]
            votes = [before[p] for p in around if p in before]
            if votes:
                most = {fold for fold in votes if votes.count(fold) == max(map(votes.count, votes))}
                assert found[scene, row, column] in most


def test_every_patch_of_an_unchanged_data_set_keeps_its_fold():
    previous = random_fold_table(np.random.default_rng(1), 5, positioned=True)
    table = build_patch_table(previous["image_md5"], None, previous["number"])
    for same in (
        previous,
        table,
        previous.drop(columns=["scene", "row", "column"]).join(table[["scene", "row", "column"]]),
    ):
        assert previous_folds(same, previous).tolist() == previous["fold"].tolist()


def test_a_changed_image_without_position_keeps_the_fold_of_its_number():
    previous = as_recorded(build_patch_table("abcd").assign(fold=[1, 2, 1, 2]))
    assert previous_folds(build_patch_table("abXd"), previous).tolist() == [1, 2, 1, 2]


def test_a_reused_number_does_not_identify_a_patch():
    previous = as_recorded(build_patch_table("abcd").assign(fold=[1, 2, 1, 2]))
    # A new first patch changes the numbers of all others.
    assert previous_folds(build_patch_table("Xabcd"), previous).tolist() == [0, 1, 2, 1, 2]


def test_equal_images_are_distinguished_by_their_numbers():
    previous = as_recorded(build_patch_table("aba").assign(fold=[1, 2, 2]))
    assert previous_folds(build_patch_table("aba"), previous).tolist() == [1, 2, 2]
    assert previous_folds(build_patch_table("aa", numbers=[7, 8]), previous).tolist() == [1, 1]
    placed = as_recorded(build_patch_table("aba", [(1, 0, 0), (1, 0, 1), (1, 0, 2)]).assign(fold=[1, 2, 2]))
    assert previous_folds(build_patch_table("aa", [(1, 0, 2), (1, 0, 0)]), placed).tolist() == [2, 1]


def test_a_removed_patch_returns_to_its_fold_although_its_position_is_reused():
    places = [(1, 0, 0), (1, 0, 1), (1, 0, 2)]
    first = build_patch_table("abc", places).assign(fold=[1, 2, 1])
    second = extend_fold_table(build_patch_table("aXc", places), as_recorded(first), n_folds=2)
    gone = removed_patches(second, as_recorded(first))
    assert (second["fold"].tolist(), gone["image_md5"].tolist()) == ([1, 2, 1], ["b"])
    previous = pd.concat([as_recorded(second), as_recorded(gone)], ignore_index=True)
    third = extend_fold_table(build_patch_table("abcY", [*places, (9, 9, 9)]), previous, n_folds=2)
    assert folds_of(third)["b"] == 2
    assert removed_patches(third, previous)["image_md5"].tolist() == ["X"]


def test_an_image_in_two_folds_is_recorded_in_both():
    previous = as_recorded(build_patch_table("aba").assign(fold=[1, 2, 2]))
    grown = extend_fold_table(build_patch_table("ab"), previous, n_folds=2)
    left = removed_patches(grown, previous)
    assert left[["image_md5", "fold"]].to_numpy().tolist() == [["a", 2]]


def test_a_corrected_position_replaces_the_old_one_but_copies_are_recorded_separately():
    previous = as_recorded(build_patch_table("abb", [(1, 0, 0), (1, 0, 1), (1, 0, 2)]).assign(fold=[1, 2, 2]))
    grown = extend_fold_table(build_patch_table("ab", [(1, 5, 5), (1, 0, 1)]), previous, n_folds=2)
    assert grown["fold"].tolist() == [1, 2]
    left = removed_patches(grown, previous)
    assert left[["image_md5", "column", "fold"]].to_numpy().tolist() == [["b", 2, 2]]


def test_present_patches_take_precedence_over_removed_ones():
    # b was at this position, in fold 2; now c is, in fold 1.
    place = (1, 5, 5)
    previous = pd.concat(
        [
            build_patch_table("ac", [(1, 0, 0), place]).assign(fold=[2, 1]),
            build_patch_table("b", [place], [2]).assign(fold=2),
        ]
    )
    assert previous_folds(build_patch_table("aZ", [(1, 0, 0), place]), as_recorded(previous)).tolist() == [2, 1]
    beside = extend_fold_table(
        build_patch_table("acN", [(1, 0, 0), place, (1, 5, 6)]), as_recorded(previous), n_folds=2
    )
    assert beside["fold"].tolist() == [2, 1, 1]


# ---- new patches


def test_recorded_positions_are_kept_if_the_data_set_loses_them():
    """This happens if patches are added to the official set: its built-in positions apply to that set only."""
    places = [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 0, 1)]
    previous = as_recorded(build_patch_table("abcc", places).assign(fold=[1, 2, 1, 1]))
    grown = extend_fold_table(build_patch_table("abXcN", numbers=[7, 2, 1, 3, 9]), previous, n_folds=2)
    assert grown["column"].astype(object).where(grown["column"].notna(), None).tolist() == [0, 1, None, None, None]
    grown = extend_fold_table(build_patch_table("aXcN", numbers=[1, 2, 3, 9]), previous, n_folds=2)
    assert grown["fold"].tolist()[:3] == [1, 2, 1]
    assert grown.loc[1, ["scene", "row", "column"]].tolist() == [1, 0, 1], "redrawn at the position of b"
    assert grown["scene"].dtype == "Int64"


def test_a_new_tile_joins_the_fold_of_a_tile_at_its_corner():
    old = [(1, 3, 2), (1, 3, 3), (2, 0, 0)]
    previous = as_recorded(build_patch_table("abc", old).assign(fold=[2, 2, 1]))
    # It joins across the border of the block, although the other fold has less.
    assert extend_fold_table(build_patch_table("abcN", [*old, (1, 4, 4)]), previous, n_folds=2)["fold"].tolist() == [
        2,
        2,
        1,
        2,
    ]


def test_new_tiles_without_known_neighbours_stay_together_and_folds_stay_balanced():
    old = [(scene, row, column) for scene in range(1, 6) for row in range(4) for column in range(4)]
    previous = as_recorded(build_patch_table(image_names(old), old).assign(fold=np.repeat(np.arange(1, 6), 16)))
    new = [p for scene in range(10, 20) for p in grid_positions(BLOCK_SIDE, BLOCK_SIDE, scene)]
    pixels = [100] * len(old) + [(p[0] - 9) * 50 for p in new]
    grown = extend_fold_table(build_patch_table(image_names(old + new), old + new, pixels=pixels), previous, n_folds=5)
    dealt = grown.iloc[len(old) :]
    assert (dealt.groupby("scene")["fold"].nunique() == 1).all()
    assert grown["fold"].value_counts().tolist() == [48] * 5
    # No fold has more landslides than another by more than the largest block.
    shares = grown.groupby("fold")["positive_pixels"].sum()
    assert shares.max() - shares.min() <= 16 * 500


@pytest.mark.parametrize(
    ("folds", "pixels", "expected"),
    [
        ([1, 1, 1, 2], [0, 0, 0, 0, 0], 2),  # fold 2 has fewer patches
        ([1, 1, 2, 2], [500, 400, 100, 200, 900], 2),  # fold 2 has fewer landslides
        ([2, 2, 1, 1], [500, 400, 100, 200, 900], 1),
    ],
)
def test_a_new_block_joins_the_fold_with_fewest_patches_and_landslides(folds, pixels, expected):
    places = [(scene, 0, 0) for scene in range(5)]
    previous = as_recorded(build_patch_table("abcd", places[:4]).assign(fold=folds))
    assert (
        extend_fold_table(build_patch_table("abcdN", places, pixels=pixels), previous, n_folds=2)["fold"].iloc[-1]
        == expected
    )


def test_a_block_partly_joined_to_a_fold_joins_it_as_a_whole():
    old = [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 0, 1)]
    previous = as_recorded(build_patch_table(image_names(old), old).assign(fold=[2, 2, 1, 1]))
    new = [p for p in grid_positions(4, 4) if p not in old]  # two of them have no known neighbour
    grown = extend_fold_table(build_patch_table(image_names(old + new), old + new), previous, n_folds=2)
    assert set(grown["fold"].iloc[len(old) :]) == {2}


def test_without_positions_new_patches_are_assigned_in_consecutive_runs():
    previous = as_recorded(build_patch_table([f"old {i}" for i in range(32)]).assign(fold=np.repeat([1, 2], 16)))
    images = [f"old {i}" for i in range(32)] + [f"new {i}" for i in range(64)]
    fold = extend_fold_table(build_patch_table(images), previous, n_folds=2)["fold"].to_numpy()
    assert fold[:32].tolist() == previous["fold"].tolist()
    runs = fold[32:].reshape(4, 16)
    assert (runs == runs[:, :1]).all()
    assert sorted(runs[:, 0]) == [1, 1, 2, 2]


def test_patches_without_position_do_not_change_the_blocks_of_others():
    old = [(scene, 0, 0) for scene in (1, 2)]
    previous = as_recorded(build_patch_table("ab", old).assign(fold=[1, 2]))
    places = [*old, *grid_positions(4, 4, 5), None, *grid_positions(4, 4, 6)]
    grown = extend_fold_table(
        build_patch_table([f"{i}" if i > 1 else "ab"[i] for i in range(len(places))], places), previous, n_folds=2
    )
    assert (grown.dropna().groupby("scene")["fold"].nunique() == 1).all()


def test_whole_scenes_keep_their_fold_and_new_ones_join_the_smallest():
    old = [*grid_positions(3, 3, 1), *grid_positions(2, 2, 2), (3, 0, 0)]
    table = build_patch_table(image_names(old), old)
    folds = assign(table["number"].tolist(), scheme="scene", n_folds=2, scenes=np.array(old))
    previous = as_recorded(table.assign(fold=folds))
    assert folds.tolist() == [1] * 9 + [2] * 5
    # Tiles far from those known, of a known scene and of one whose patches are all gone; a small and a large new scene.
    kept = [*grid_positions(3, 3, 1), *grid_positions(2, 2, 2)]
    new = [(1, 40, 40), (3, 50, 50), (9, 0, 0), *grid_positions(5, 1, 8)]
    grown = extend_fold_table(
        build_patch_table(image_names(kept + new), kept + new), previous, n_folds=2, whole_scenes=True
    )
    assert (grown.groupby("scene")["fold"].nunique() == 1).all()
    assert grown.groupby("scene")["fold"].first().to_dict() == {1: 1, 2: 2, 3: 2, 8: 2, 9: 1}


def test_new_blocks_join_the_cluster_that_they_resemble():
    old = grid_positions(8, 8)
    kind = np.array([column // 4 for _, _, column in old])
    previous = as_recorded(build_patch_table(image_names(old), old).assign(fold=1 + kind))
    new = [*grid_positions(2, 2, 5), *grid_positions(2, 2, 6), (1, 8, 0)]
    statistics = np.ones((len(old + new), 2, 3)) + np.r_[kind, [0] * 4, [1] * 4, 1][:, None, None]
    table = build_patch_table(image_names(old + new), old + new)
    grown = extend_fold_table(table, previous, n_folds=2, statistics=statistics)
    assert grown["fold"].tolist()[-9:] == [1] * 4 + [2] * 4 + [1]  # the last one joins its neighbours


def test_a_hundred_patches_added_to_the_official_set_are_assigned_quickly():
    positions = [tuple(p) for p in landslide4sense_positions()[["scene", "row", "column"]].to_numpy().tolist()]
    table = build_patch_table(image_names(positions), positions)
    folds = assign(table["number"].tolist(), scheme="scene_blocked", scenes=np.array(positions))
    previous = as_recorded(table.assign(fold=folds))
    taken = set(positions)
    beside = [(s, r + d, c + e) for s, r, c in positions for d, e in EDGES]
    new = sorted({p for p in beside if p not in taken and min(p[1:]) >= 0})[:60] + grid_positions(8, 5, 99)
    before = time.perf_counter()
    grown = extend_fold_table(build_patch_table(image_names(positions + new), positions + new), previous, n_folds=5)
    assert time.perf_counter() - before < 5  # 0.2 s on an idle machine
    assert grown["fold"].iloc[:3799].tolist() == folds.tolist()


# ---- errors


@pytest.mark.parametrize("n_folds", [2, 4])
def test_another_number_of_folds_is_a_configuration_error(n_folds):
    previous = build_patch_table("abc").assign(fold=[1, 2, 3])
    with pytest.raises(ConfigurationError, match=f"has the folds 1 to 3, and folds.n_folds is {n_folds}") as error:
        extend_fold_table(build_patch_table("abcdef"), previous, n_folds=n_folds)
    assert "Set folds.n_folds to 3" in error.value.remedy


def test_an_emptied_fold_is_a_data_error_unless_new_patches_fill_it():
    previous = build_patch_table("abcd").assign(fold=[1, 1, 2, 3])
    with pytest.raises(DataError, match="Fold 3 of the older fold table has no patch left") as error:
        extend_fold_table(build_patch_table("abc"), previous, n_folds=3)
    assert "bring these patches back" in error.value.remedy
    assert extend_fold_table(build_patch_table("abcX", numbers=[1, 2, 3, 9]), previous, n_folds=3)["fold"].tolist() == [
        1,
        1,
        2,
        3,
    ]


# ---- reading a recorded table


def test_a_recorded_table_is_read_in_the_order_of_the_patches(tmp_path):
    table = build_patch_table("abc").assign(fold=[2, 1, 2])
    table.to_csv(tmp_path / "folds.csv", index=False)
    assert read_folds(tmp_path / "folds.csv", table.iloc[::-1], n_folds=2).tolist() == [2, 1, 2][::-1]


@pytest.mark.parametrize(
    ("content", "n_folds", "message"),
    [
        (None, 2, "cannot be read"),
        ("number,fold\n1,1\n", 2, "cannot be read"),
        ("number,image_md5,fold\n1,a,1\n2,b,3\n", 2, r"are \[1, 3\], not 1 to 2"),
        ("number,image_md5,fold\n1,a,1\n2,b,\n", 2, "not 1 to 2"),
        ("number,image_md5,fold\n1,a,1\n3,b,2\n", 2, "1 of 2 patches are not in .* 2"),
        ("number,image_md5,fold\n1,a,1\n2,X,2\n", 2, "1 of 2 patches are not in .* 2"),
    ],
)
def test_an_invalid_fold_table_is_refused(tmp_path, content, n_folds, message):
    if content is not None:
        (tmp_path / "folds.csv").write_text(content)
    with pytest.raises((ConfigurationError, DataError), match=message):
        read_folds(tmp_path / "folds.csv", build_patch_table("ab"), n_folds=n_folds)
