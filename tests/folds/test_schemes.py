"""Fold schemes and the inner validation part."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landslide.data.positions import landslide4sense_positions
from landslide.errors import ConfigurationError, DataError
from landslide.folds.clusters import block_features
from landslide.folds.parts import adjacent_to, inner_validation
from landslide.folds.schemes import BLOCK_SIDE, SCHEMES, assign, neighbour_blocks, tile_blocks
from tests.support.patch_tables import build_patch_table

OFFICIAL = 3799
# Table of the authors' logs: fold, first and last patch, positive patches.
PUBLISHED = [(1, 3040, 3799, 294), (2, 2280, 3039, 328), (3, 1520, 2279, 496), (4, 760, 1519, 569), (5, 1, 759, 544)]


def grid(rows: int, columns: int, scene: int = 1) -> np.ndarray:
    """Scene, row, column of rows x columns tiles in file order: (n, 3) int64."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([np.full(rows * columns, scene), row, column], axis=1)


@pytest.fixture(scope="module")
def label_counts(real_data: Path) -> np.ndarray:
    """Landslide pixels of the 3,799 official training masks."""
    table = real_data / "landslide4sense_train_positive_pixels.csv"
    if not table.is_file():
        pytest.skip(f"{table.name} not found in {real_data}")
    return pd.read_csv(table, index_col="n").sort_index()["landslide_pixels"].to_numpy()


def official_positions() -> np.ndarray:
    return landslide4sense_positions()[["scene", "row", "column"]].to_numpy(np.int64)


def split(scheme: str, n: int, n_folds: int, seed: int = 0) -> np.ndarray:
    """Folds of n patches in rows of 7 tiles; every third patch has landslides.

    Under the scheme `scene` there are as many scenes as folds.
    """
    scene = np.sort(np.arange(n) % n_folds) if scheme == "scene" else np.ones(n, int)
    positions = np.stack([scene, *np.divmod(np.arange(n), 7)], axis=1)
    pixels = np.where(np.arange(n) % 3 == 0, np.arange(n), 0)
    statistics = np.random.default_rng(n).random((n, 2, 3))
    return assign(
        range(n), scheme=scheme, n_folds=n_folds, seed=seed, positive_pixels=pixels, scenes=positions,
        statistics=statistics,
    )  # fmt: skip


# ---- every scheme


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12).flatmap(lambda k: st.tuples(st.just(k), st.integers(k, 300))), st.integers(0, 1000))
def test_every_patch_has_one_fold_and_every_fold_has_patches(scheme, sizes, seed):
    n_folds, n = sizes
    folds = split(scheme, n, n_folds, seed)
    assert (folds.shape, folds.dtype) == ((n,), np.int64)
    assert set(folds.tolist()) == set(range(1, n_folds + 1))
    np.testing.assert_array_equal(split(scheme, n, n_folds, seed), folds)


@pytest.mark.parametrize("scheme", ["random", "stratified"])
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12).flatmap(lambda k: st.tuples(st.just(k), st.integers(k, 300))))
def test_dealt_folds_differ_by_at_most_one_patch(scheme, sizes):
    n_folds, n = sizes
    assert np.ptp(np.bincount(split(scheme, n, n_folds))[1:]) <= 1


@pytest.mark.parametrize("scheme", ["random", "stratified", "scene_blocked"])
def test_another_seed_gives_another_random_split(scheme):
    def folds(seed: int) -> np.ndarray:
        return assign(range(600), scheme=scheme, seed=seed, positive_pixels=np.ones(600), scenes=grid(20, 30))

    assert (folds(1) != folds(2)).any()


def test_contiguous_folds_do_not_depend_on_the_seed():
    np.testing.assert_array_equal(split("contiguous", 600, 5, seed=1), split("contiguous", 600, 5, seed=2))


@pytest.mark.parametrize(("n", "n_folds"), [(4, 5), (0, 2), (10, 1), (10, 0)])
def test_too_few_patches_or_folds_are_a_configuration_error(n, n_folds):
    with pytest.raises(ConfigurationError, match=f"{n} patches cannot be split into {n_folds} folds"):
        assign(range(n), scheme="random", n_folds=n_folds)


def test_an_unknown_scheme_is_a_configuration_error_that_lists_the_others():
    with pytest.raises(ConfigurationError, match="no fold scheme 'grouped'") as error:
        assign(range(10), scheme="grouped")
    assert all(scheme in error.value.remedy for scheme in SCHEMES)


# ---- names and their order

RECORDED = {  # 60 patches of two scenes, seed 3
    "contiguous": "555555555555444444444444333333333333222222222222111111111111",
    "random": "221312255132543422242114314344345355454325345154251123115313",
    "stratified": "243545352441223331115252451155533332154444222211333514424151",
    "scene_blocked": "554411554411223344223344553333442233442233551122551122115544",
}
# The official positions, seed 7: digest of the folds.
RECORDED_OFFICIAL = {
    "contiguous": "7166b5d84b9e0e16",
    "random": "ce58dd036c56a903",
    "stratified": "89f49fc7332e7452",
    "scene_blocked": "c43a98b63fe2b510",
}


@pytest.mark.parametrize("scheme", RECORDED)
def test_names_in_natural_order_get_the_recorded_folds(scheme):
    positions = np.concatenate([grid(5, 6, 1), grid(5, 6, 2)])
    pixels = np.where(np.arange(60) % 3 == 0, np.arange(60) * 7 % 40, 0)
    folds = assign(range(1, 61), scheme=scheme, seed=3, positive_pixels=pixels, scenes=positions)
    assert "".join(map(str, folds)) == RECORDED[scheme]
    numbers = np.arange(OFFICIAL)
    pixels = np.where(numbers % 3 == 0, numbers * 2654435761 % 997, 0)
    folds = assign(numbers + 1, scheme=scheme, seed=7, positive_pixels=pixels, scenes=official_positions())
    assert hashlib.sha256(folds.tobytes()).hexdigest()[:16] == RECORDED_OFFICIAL[scheme]


def names_of_patches() -> st.SearchStrategy[list[object]]:
    text = st.builds(
        "{}{}{}".format, st.sampled_from(["image_", "a", "b", ""]), st.integers(0, 120), st.sampled_from("xy")
    )
    return st.one_of(
        st.lists(st.integers(-50, 500), min_size=5, max_size=60, unique=True),
        st.lists(text, min_size=5, max_size=60, unique=True),
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=60, deadline=None)
@given(names_of_patches(), st.integers(2, 5), st.integers(0, 50), st.randoms(use_true_random=False))
def test_the_folds_do_not_depend_on_the_order_of_the_patches(scheme, names, n_folds, seed, random):
    n = len(names)
    pixels, positions = np.arange(n) * 7 % 4, grid(-(-n // 6), 6)[:n]
    statistics = np.random.default_rng(seed).random((n, 2, 3))
    if scheme == "scene":
        positions[:, 0] = np.arange(n) % n_folds

    def folds(order: list[int]) -> np.ndarray:
        return assign(
            [names[i] for i in order], scheme=scheme, n_folds=n_folds, seed=seed,
            positive_pixels=pixels[order], scenes=positions[order], statistics=statistics[order],
        )  # fmt: skip

    order = random.sample(range(n), n)
    np.testing.assert_array_equal(folds(order), folds(list(range(n)))[order])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=5, max_size=60, unique=True), st.sampled_from(["", "image_", "b7_"]))
def test_contiguous_folds_follow_the_numbers_inside_the_names(numbers, prefix):
    folds = assign([f"{prefix}{number}" for number in numbers], scheme="contiguous")
    by_number = folds[np.argsort(numbers)]
    np.testing.assert_array_equal(by_number, assign(range(len(numbers)), scheme="contiguous"))
    np.testing.assert_array_equal(folds, assign(numbers, scheme="contiguous"))


def test_contiguous_folds_follow_every_number_of_a_name():
    names = ["s2_t1", "s10_t1", "s2_t10", "s2_t2", "s1_t100", "s10_t02"]
    assert assign(names, scheme="contiguous", n_folds=6).tolist() == [5, 2, 3, 4, 6, 1]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("names", [["a", "b", "a"], [1, 2, "1"]])
def test_a_name_that_occurs_twice_is_a_configuration_error(scheme, names):
    with pytest.raises(ConfigurationError, match=f"1 patch names occur more than once: {names[0]}"):
        assign(names, scheme=scheme, n_folds=2, positive_pixels=[0, 1, 2], scenes=grid(1, 3))


def test_landslide_pixels_of_other_patches_are_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"shape \(5,\), and there are 4 patches"):
        assign(range(4), scheme="stratified", n_folds=2, positive_pixels=np.zeros(5))


# ---- contiguous


@settings(max_examples=200, deadline=None)
@given(st.integers(5, 20_000))
def test_contiguous_folds_are_the_papers_fractions_for_any_number_of_patches(n):
    expected = np.zeros(n, np.int64)
    for fold, (a, b) in enumerate([(0.8, 1), (0.6, 0.8), (0.4, 0.6), (0.2, 0.4), (0, 0.2)], start=1):
        expected[int(n * a) : int(n * b)] = fold
    np.testing.assert_array_equal(assign(range(n), scheme="contiguous"), expected)


@pytest.mark.parametrize("n_folds", range(2, 13))
def test_contiguous_folds_of_equal_share_are_equal(n_folds):
    folds = assign(range(3 * n_folds), scheme="contiguous", n_folds=n_folds)
    np.testing.assert_array_equal(folds, np.repeat(np.arange(n_folds, 0, -1), 3))


def test_the_official_folds_have_the_published_ranges():
    folds = assign(range(1, OFFICIAL + 1), scheme="contiguous")
    numbers = np.arange(1, OFFICIAL + 1)
    for fold, first, last, _ in PUBLISHED:
        np.testing.assert_array_equal(numbers[folds == fold], np.arange(first, last + 1))
    assert np.bincount(folds)[1:].tolist() == [760, 760, 760, 760, 759]


def test_the_official_folds_have_the_published_positive_patches(label_counts):
    pixels = label_counts
    assert (len(pixels), (pixels > 0).sum(), pixels.sum()) == (OFFICIAL, 2231, 1_442_790)
    folds = assign(range(OFFICIAL), scheme="contiguous")
    assert [int((pixels[folds == fold] > 0).sum()) for fold, *_ in PUBLISHED] == [p for *_, p in PUBLISHED]


# ---- random and stratified


def test_random_folds_are_independent_of_file_order_and_landslides():
    folds = assign(range(5000), scheme="random", seed=3)
    thousand = np.array([[(folds[i : i + 1000] == k).sum() for k in range(1, 6)] for i in range(0, 5000, 1000)])
    assert 130 < thousand.min() <= thousand.max() < 270  # 200 expected, 12.6 standard deviation
    pixels = np.random.default_rng(0).integers(0, 900, 5000)
    np.testing.assert_array_equal(assign(range(5000), scheme="random", seed=3, positive_pixels=pixels), folds)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.just(0), st.integers(1, 16_384)), min_size=5, max_size=300),
    st.integers(2, 5),
    st.integers(0, 100),
)
def test_stratified_folds_balance_positive_patches_of_every_size(pixels, n_folds, seed):
    pixels = np.array(pixels)
    folds = assign(range(len(pixels)), scheme="stratified", n_folds=n_folds, seed=seed, positive_pixels=pixels)
    for amount in (0, *np.quantile(pixels, [0.25, 0.5, 0.9])):
        more = [(pixels[folds == fold] > amount).sum() for fold in range(1, n_folds + 1)]
        assert max(more) - min(more) <= 1


def test_stratified_official_folds_balance_patches_and_landslide_pixels(label_counts):
    pixels = label_counts
    folds = assign(range(OFFICIAL), scheme="stratified", positive_pixels=pixels)
    positive = [(pixels[folds == fold] > 0).sum() for fold in range(1, 6)]
    total = np.array([pixels[folds == fold].sum() for fold in range(1, 6)])
    assert sorted(positive) == [446, 446, 446, 446, 447]
    assert np.ptp(total) / total.mean() < 0.05  # the contiguous folds differ by more than their mean
    contiguous = assign(range(OFFICIAL), scheme="contiguous")
    assert np.ptp(np.bincount(contiguous, weights=pixels)[1:]) / total.mean() > 0.5


def test_stratified_folds_without_label_counts_are_an_explained_error():
    with pytest.raises(ConfigurationError, match="need the landslide pixels") as error:
        assign(range(10), scheme="stratified")
    assert "positive_pixels" in error.value.remedy


# ---- scene blocked


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4),
    st.integers(2, 5),
    st.booleans(),
    st.integers(0, 100),
)
def test_scene_blocked_folds_never_split_a_block(scenes, n_folds, with_pixels, seed):
    positions = np.concatenate([grid(r, c, scene) for scene, (r, c) in enumerate(scenes)])
    n = len(positions)
    if n < n_folds:
        return
    pixels = np.random.default_rng(seed).integers(0, 50, n) if with_pixels else None
    folds = assign(
        range(n), scheme="scene_blocked", n_folds=n_folds, seed=seed, positive_pixels=pixels, scenes=positions
    )
    assert set(folds.tolist()) == set(range(1, n_folds + 1))
    # The rule: the largest square with a side of at most 4 tiles of which 2 n_folds fit into the patches, or one of
    # 8 or 12 tiles of which 5 n_folds fit.
    small = max(s for s in range(1, 5) if s == 1 or n >= 2 * n_folds * s * s)
    side = max([small, *(s for s in (8, 12) if n >= 5 * n_folds * s * s)])
    owner: dict[tuple[int, int, int], int] = {}
    for (scene, row, column), fold in zip(positions.tolist(), folds.tolist(), strict=True):
        assert owner.setdefault((scene, row // side, column // side), fold) == fold


def test_scene_blocked_official_folds_keep_4x4_blocks_and_balance(label_counts):
    pixels, positions = label_counts, official_positions()
    folds = assign(range(OFFICIAL), scheme="scene_blocked", positive_pixels=pixels, scenes=positions)
    blocks = [(scene, row // 4, column // 4) for scene, row, column in positions.tolist()]
    assert len(set(zip(blocks, folds, strict=True))) == len(set(blocks))
    patches, total = np.bincount(folds)[1:], np.bincount(folds, weights=pixels)[1:]
    assert np.ptp(patches) / patches.mean() < 0.25
    assert np.ptp(total) / total.mean() < 0.25


def test_scene_blocked_folds_can_exclude_every_adjacent_tile(label_counts):
    positions = official_positions()
    folds = assign(range(OFFICIAL), scheme="scene_blocked", positive_pixels=label_counts, scenes=positions)
    table = build_patch_table(OFFICIAL, positions, pixels=label_counts)
    for fold in range(1, 6):
        test = folds == fold
        left_out = adjacent_to(table, test)
        assert not (left_out & test).any()
        training = positions[~test & ~left_out]
        for scene, row, column in positions[test].tolist():
            near = training[training[:, 0] == scene][:, 1:] - (row, column)
            assert (np.abs(near).max(axis=1) > 1).all()
        assert left_out.sum() < 0.12 * (~test).sum(), "most of the training part is left"


def test_patches_of_a_scene_are_adjacent_across_edges_and_corners():
    table = build_patch_table(18, np.concatenate([grid(3, 3), grid(3, 3, scene=2)]))
    test = np.zeros(18, bool)
    test[0] = True
    assert np.flatnonzero(adjacent_to(table, test)).tolist() == [1, 3, 4]
    table.loc[[0, 1], ["scene", "row", "column"]] = pd.NA
    assert not adjacent_to(table, test).any()


@pytest.mark.parametrize(
    "scenes",
    [
        None,
        grid(2, 4),  # fewer positions than patches
        grid(2, 5)[:, :2],
        np.where(np.arange(30).reshape(10, 3) == 16, np.nan, grid(2, 5)),
        build_patch_table(10, np.where(np.arange(30).reshape(10, 3) == 16, None, grid(2, 5)))[
            ["scene", "row", "column"]
        ],
    ],
    ids=["none", "too few", "no column", "one NaN", "one NA in the patch table"],
)
@pytest.mark.parametrize("scheme", ["scene_blocked", "scene"])
def test_folds_by_position_without_all_positions_are_an_explained_error(scheme, scenes):
    with pytest.raises(ConfigurationError, match=f"{scheme} folds need scene, row and column of every patch") as error:
        assign(range(10), scheme=scheme, scenes=scenes)
    assert "scenes.csv" in error.value.remedy


# ---- whole scenes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=9), st.integers(2, 5), st.integers(0, 100))
def test_scene_folds_never_split_a_scene_and_use_the_largest_first(sizes, n_folds, seed):
    if len(sizes) < n_folds:
        return
    positions = np.concatenate([grid(1, size, scene=scene) for scene, size in enumerate(sizes)])
    folds = assign(range(len(positions)), scheme="scene", n_folds=n_folds, seed=seed, scenes=positions)
    fold_of_scene = {scene: set(folds[positions[:, 0] == scene].tolist()) for scene in range(len(sizes))}
    assert all(len(of_scene) == 1 for of_scene in fold_of_scene.values())
    # Greedy, written out independently: the largest scenes open the folds, later ones fill the smallest.
    expected: list[list[int]] = [[] for _ in range(n_folds)]
    for scene in sorted(range(len(sizes)), key=lambda scene: (-sizes[scene], scene)):
        min(expected, key=lambda fold: (sum(sizes[one] for one in fold), expected.index(fold))).append(scene)
    assert [{s for s, of in fold_of_scene.items() if of == {fold}} for fold in range(1, n_folds + 1)] == [
        set(fold) for fold in expected
    ]


def test_official_scenes_are_test_folds_once_or_in_groups():
    positions = official_positions()
    sizes = np.bincount(positions[:, 0])
    folds = assign(range(OFFICIAL), scheme="scene", scenes=positions)
    assert np.bincount(folds)[1:].tolist() == sorted((size for size in sizes.tolist() if size), reverse=True)
    folds = assign(range(OFFICIAL), scheme="scene", n_folds=3, scenes=positions)
    assert np.bincount(folds)[1:].tolist() == [3033, 494, 150 + 121 + 1]


@pytest.mark.parametrize(
    ("scenes", "expected"),
    [
        (1, r"of 1 scene, too few for 5 folds(.|\n)*-> Use folds\.scheme: cluster"),
        (2, r"of 2 scenes, too few for 5 folds(.|\n)*-> Set folds\.n_folds to 2, or use folds\.scheme: cluster"),
        (4, r"of 4 scenes, too few for 5 folds(.|\n)*-> Set folds\.n_folds to 4 or fewer, or use"),
    ],
)
def test_too_few_scenes_are_counted_and_the_remedy_works(scenes, expected):
    positions = np.concatenate([grid(3, 4, scene) for scene in range(scenes)])
    with pytest.raises(ConfigurationError, match=expected):
        assign(range(len(positions)), scheme="scene", scenes=positions)
    if scenes > 1:
        assert set(assign(range(len(positions)), scheme="scene", n_folds=scenes, scenes=positions)) == set(
            range(1, scenes + 1)
        )


# ---- clusters


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 6).flatmap(lambda k: st.tuples(st.just(k), st.integers(2 * k, 500))),
    st.booleans(),
    st.sampled_from(["random", "equal", "one outlier"]),
    st.integers(0, 2**32 - 1),
)
def test_cluster_folds_keep_blocks_and_a_least_size(sizes, placed, values, seed):
    n_folds, n = sizes
    positions = grid(-(-n // 11), 11)[:n] if placed else None
    statistics = np.random.default_rng(seed).random((n, 2, 3))
    if values != "random":
        statistics[:] = 0.7
    if values == "one outlier":
        statistics[n // 2] = 1000
    folds = assign(range(n), scheme="cluster", n_folds=n_folds, seed=seed, scenes=positions, statistics=statistics)
    patches = np.bincount(folds, minlength=n_folds + 1)[1:]
    assert patches.min() >= max(1, n // (2 * n_folds))
    assert patches.tolist() == sorted(patches, reverse=True)
    side = max(s for s in range(1, 5) if s == 1 or n >= 8 * n_folds * s * s)
    blocks = tile_blocks(positions, side) if placed else np.arange(n) // side**2
    assert all(len(set(folds[blocks == block])) == 1 for block in np.unique(blocks))


def test_cluster_folds_find_kinds_of_ground_in_any_order_of_the_patches():
    """Three kinds of ground in 9 x 12 tiles each: one fold each, whatever the seed and the order."""
    positions = grid(27, 12)
    kind = positions[:, 1] // 9
    means = np.array([[0.2, 0.5, 10.0], [0.2, 0.9, 10.0], [0.2, 0.5, 40.0]])[kind]
    n = len(kind)
    noise = np.random.default_rng(0).normal(size=(n, 3)) * [0, 0.01, 0.5]  # the first band is constant
    statistics = np.stack([means + noise, np.ones((n, 3))], axis=1)
    for seed in range(5):
        folds = assign(range(n), scheme="cluster", n_folds=3, seed=seed, scenes=positions, statistics=statistics)
        assert len(set(zip(kind, folds, strict=True))) == 3
    shuffled = np.random.default_rng(1).permutation(n)
    again = assign(
        shuffled, scheme="cluster", n_folds=3, seed=4, scenes=positions[shuffled], statistics=statistics[shuffled]
    )
    np.testing.assert_array_equal(again, folds[shuffled])


def test_block_is_described_by_mean_and_deviation_over_all_its_pixels():
    pixels = np.random.default_rng(0).normal(size=(12, 2, 16)) * [[1.0], [5.0]] + np.arange(12)[:, None, None]
    blocks = np.repeat([0, 2, 1], [3, 4, 5])
    of_blocks = [pixels[blocks == block].transpose(1, 0, 2).reshape(2, -1) for block in range(3)]
    raw = np.array([[*values.mean(axis=1), *values.std(axis=1)] for values in of_blocks])
    statistics = np.stack([pixels.mean(axis=2), pixels.std(axis=2)], axis=1)
    features = block_features(statistics, blocks)
    np.testing.assert_allclose(features, (raw - raw.mean(axis=0)) / raw.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize("statistics", [None, np.zeros((9, 2, 3)), np.zeros((10, 3)), np.zeros((10, 2))])
def test_cluster_folds_without_statistics_are_an_explained_error(statistics):
    with pytest.raises(ConfigurationError, match=r"need the band statistics(.|\n)*patch_statistics"):
        assign(range(10), scheme="cluster", statistics=statistics)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cluster_folds_name_the_images_without_finite_values(value):
    statistics = np.random.default_rng(0).random((20, 2, 3))
    statistics[[2, 7], 1, 1] = value
    with pytest.raises(DataError, match=r"2 patches have values that are no finite numbers: image_2, image_7\."):
        assign([f"image_{number}" for number in range(20)], scheme="cluster", statistics=statistics)


def test_positions_can_be_given_as_the_patch_table():
    positions = grid(8, 5)
    table = build_patch_table(40, positions)[["scene", "row", "column"]]
    np.testing.assert_array_equal(
        assign(range(40), scheme="scene_blocked", scenes=table),
        assign(range(40), scheme="scene_blocked", scenes=positions),
    )


# ---- blocks


def test_a_block_is_a_square_of_tiles_of_one_scene():
    blocks = tile_blocks(np.concatenate([grid(4, 4, 1), grid(1, 1, 2)]), 2)
    assert blocks[:16].reshape(4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert blocks[16] == 4


def test_neighbours_without_positions_are_runs_of_consecutive_patches():
    table = build_patch_table(330)
    blocks = neighbour_blocks(table, parts=10)
    assert BLOCK_SIDE == 4
    np.testing.assert_array_equal(blocks, np.arange(330) // 16)
    np.testing.assert_array_equal(neighbour_blocks(table[:319], parts=10), np.arange(319) // 9)
    np.testing.assert_array_equal(neighbour_blocks(table[:20], parts=10), np.arange(20))


# ---- inner validation


@st.composite
def training_tables(draw) -> pd.DataFrame:
    n = draw(st.integers(2, 700))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    positions = np.stack([np.ones(n, int), *np.divmod(np.arange(n), 13)], axis=1) if draw(st.booleans()) else None
    pixels = np.where(rng.random(n) < draw(st.sampled_from([0.02, 0.1, 0.6])), 100, 0)
    return build_patch_table(n, positions, pixels=pixels)


@settings(max_examples=100, deadline=None)
@given(training_tables(), st.integers(0, 50))
def test_inner_validation_is_about_a_tenth_in_whole_blocks(table, seed):
    n = len(table)
    chosen = inner_validation(table, seed=seed)
    assert (chosen.shape, chosen.dtype) == ((n,), np.bool_)
    assert 0 < chosen.sum() < n
    blocks = neighbour_blocks(table, parts=10)
    assert not set(blocks[chosen]) & set(blocks[~chosen])
    largest = np.bincount(blocks).max()
    assert abs(chosen.sum() - max(1, n / 10)) <= largest / 2 + 0.5
    np.testing.assert_array_equal(inner_validation(table, seed=seed), chosen)


@settings(max_examples=150, deadline=None)
@given(training_tables(), st.sampled_from([0.1, 0.5]), st.integers(0, 50))
def test_both_parts_have_landslides_if_two_blocks_do(table, fraction, seed):
    positive = table["positive_pixels"].to_numpy() > 0
    if len(set(neighbour_blocks(table, parts=round(1 / fraction))[positive])) < 2:
        return
    chosen = inner_validation(table, fraction=fraction, seed=seed)
    assert positive[chosen].any()
    assert positive[~chosen].any()


def test_inner_validation_never_takes_both_blocks_with_landslides():
    pixels = np.zeros(100, np.int64)
    pixels[[0, 50]] = 10
    table = build_patch_table(100, pixels=pixels)
    for fraction in (0.1, 0.5):
        draws = [inner_validation(table, fraction=fraction, seed=seed) for seed in range(150)]
        assert [seed for seed, chosen in enumerate(draws) if not pixels[~chosen].any()] == []
        assert [seed for seed, chosen in enumerate(draws) if not pixels[chosen].any()] == []


def test_another_seed_selects_other_blocks():
    table = build_patch_table(400, grid(20, 20))
    draws = {tuple(np.flatnonzero(inner_validation(table, seed=seed))) for seed in range(10)}
    assert len(draws) == 10


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_other_fractions_are_met(fraction):
    chosen = inner_validation(build_patch_table(1600, grid(40, 40)), fraction=fraction)
    assert chosen.mean() == pytest.approx(fraction, abs=0.006)  # half a block of 16


def test_inner_validation_of_the_official_training_folds(label_counts):
    table = build_patch_table(OFFICIAL, official_positions(), pixels=label_counts)
    folds = assign(range(OFFICIAL), scheme="contiguous")
    for fold in range(1, 6):
        training = table[folds != fold].reset_index(drop=True)
        chosen = inner_validation(training)
        pixels = training["positive_pixels"].to_numpy()
        assert chosen.mean() == pytest.approx(0.1, abs=0.003)
        assert (pixels[chosen] > 0).sum() > 50
        assert (pixels[~chosen] > 0).sum() > 1000


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_patches_for_two_parts_are_a_data_error(n):
    with pytest.raises(DataError, match=f"hold {n} patch"):
        inner_validation(build_patch_table(n, grid(1, max(n, 1))[:n]))
