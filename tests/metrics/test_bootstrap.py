"""Intervals compared with all possible draws and with a known truth; the effect of blocks and pairing."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, jaccard_score

from landslide.metrics.bootstrap import (
    difference_draws,
    named_intervals,
    paired_differences,
    resampling_blocks,
    score_draws,
    score_intervals,
)
from landslide.metrics.counts import METRIC_NAMES, confusion_counts, scores
from tests.support.patch_tables import build_patch_table, grid_positions

SIDE = 128 * 128


def simulated(rng: np.random.Generator, n_blocks: int, per_block: int, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Counts (n, 2, 2) of one model per share of hits; a block has one difficulty for all its patches and models."""
    n = n_blocks * per_block
    landslides = rng.integers(50, 500, n)
    hardness = np.repeat(rng.normal(0, 0.2, n_blocks), per_block)
    counts = []
    for share in shares:
        hits = np.round(landslides * np.clip(share + hardness, 0, 1)).astype(np.int64)
        alarms = rng.integers(20, 60, n)
        cells = [SIDE - landslides - alarms, alarms, landslides - hits, hits]
        counts.append(np.stack(cells, axis=1).reshape(n, 2, 2))
    return counts


# ---- compared with all possible draws


def test_draws_match_all_possible_choices_of_blocks():
    """Three blocks have 27 ordered choices: every draw is one of them, with the expected frequency."""
    rng = np.random.default_rng(3)
    masks = (rng.random((4, 12, 12)) < 0.3).astype(np.uint8)
    predictions = [rng.random(masks.shape) * (0.5 + 0.5 * masks) > 0.5 for _ in range(2)]
    first, second = (np.array([confusion_counts(p, m) for p, m in zip(q, masks, strict=True)]) for q in predictions)
    blocks = np.array([7, 7, 3, 5])
    patches = {7: [0, 1], 3: [2], 5: [3]}
    possible = {"f1_macro": [], "f1_landslide": [], "miou": []}
    for choice in product(patches, repeat=3):
        rows = [row for block in choice for row in patches[block]]
        true = masks[rows].ravel()
        one, other = (prediction[rows].ravel() for prediction in predictions)
        possible["f1_macro"].append([f1_score(true, p, average="macro") for p in (one, other)])
        possible["f1_landslide"].append([f1_score(true, p) for p in (one, other)])
        possible["miou"].append([jaccard_score(true, p, average="macro") for p in (one, other)])
    draws = score_draws(first, blocks, resamples=4000, seed=1)
    differences = difference_draws(first, second, blocks, resamples=4000, seed=1)
    for name, pairs in possible.items():
        one, other = np.array(pairs).T
        for drawn, exact in ((draws[name], one), (differences[name], other - one)):
            distance = np.abs(drawn.to_numpy()[:, None] - exact)
            assert distance.min(axis=1).max() < 1e-12
            assert drawn.mean() == pytest.approx(exact.mean(), abs=4 * exact.std() / 4000**0.5)
            assert drawn.std() == pytest.approx(exact.std(), rel=0.1)


def test_the_interval_is_between_percentiles_of_the_draws_around_the_pooled_score():
    counts, other = simulated(np.random.default_rng(0), 20, 3, (0.5, 0.6))
    blocks = np.repeat(np.arange(20), 3)
    for confidence, ends in ((0.95, (2.5, 97.5)), (0.8, (10, 90))):
        intervals = score_intervals(counts, blocks, confidence=confidence, resamples=300, seed=5)
        draws = score_draws(counts, blocks, resamples=300, seed=5)
        paired = paired_differences(counts, other, blocks, confidence=confidence, resamples=300, seed=5)
        differences = difference_draws(counts, other, blocks, resamples=300, seed=5)
        for name in METRIC_NAMES:
            expected, apart = np.percentile(draws[name], ends), np.percentile(differences[name], ends)
            np.testing.assert_allclose(intervals.loc[name, ["low", "high"]], expected, atol=1e-15)
            np.testing.assert_allclose(paired.loc[name, ["low", "high"]], apart, atol=1e-15)
            assert intervals.loc[name, "value"] == scores(counts.sum(axis=0))[name]
            assert paired.loc[name, "difference"] == scores(other.sum(axis=0))[name] - intervals.loc[name, "value"]


# ---- compared with a known truth


def test_intervals_have_nominal_coverage_only_if_blocks_are_resampled():
    rng = np.random.default_rng(0)
    shares, n_blocks, per_block = (0.5, 0.55), 40, 8
    truth = [scores(c.sum(axis=0))["f1_landslide"] for c in simulated(rng, 20_000, 1, shares)]
    trials = 120
    covered = {"score": 0, "difference": 0, "score patch by patch": 0}
    for trial in range(trials):
        first, second = simulated(rng, n_blocks, per_block, shares)
        blocks = np.repeat(np.arange(n_blocks), per_block)
        options = {"confidence": 0.9, "resamples": 200, "seed": trial}
        for name, intervals, true in (
            ("score", score_intervals(first, blocks, **options), truth[0]),
            ("difference", paired_differences(first, second, blocks, **options), truth[1] - truth[0]),
            ("score patch by patch", score_intervals(first, np.arange(len(first)), **options), truth[0]),
        ):
            low, high = intervals.loc["f1_landslide", ["low", "high"]]
            covered[name] += low <= true <= high
    shares_covered = {name: count / trials for name, count in covered.items()}
    assert 0.8 <= shares_covered["score"] <= 0.97  # 90 % are expected; three standard deviations are 8 %
    assert 0.8 <= shares_covered["difference"] <= 0.97
    assert shares_covered["score patch by patch"] < 0.65


def test_pairing_removes_the_difficulty_shared_by_both_models():
    first, second = simulated(np.random.default_rng(1), 60, 1, (0.5, 0.53))
    blocks = np.arange(60)
    paired = paired_differences(first, second, blocks).loc["f1_landslide"]
    single = score_intervals(first, blocks).loc["f1_landslide"]
    assert paired["high"] - paired["low"] < 0.3 * (single["high"] - single["low"])
    assert paired["low"] > 0


def test_the_difference_of_a_model_to_itself_is_zero_and_swapping_changes_the_sign():
    first, second = simulated(np.random.default_rng(2), 30, 2, (0.4, 0.6))
    blocks = np.repeat(np.arange(30), 2)
    assert (paired_differences(first, first, blocks) == 0).all(axis=None)
    there, back = paired_differences(first, second, blocks), paired_differences(second, first, blocks)
    np.testing.assert_allclose(there[["difference", "low", "high"]], -back[["difference", "high", "low"]], atol=1e-12)


# ---- edge cases and names


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_intervals_are_between_0_and_1_and_independent_of_block_names(seed, n):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 50, (n, 2, 2)) * (rng.random((n, 2, 2)) < 0.7)
    blocks = rng.integers(0, 4, n)
    intervals = score_intervals(counts, blocks, resamples=50)
    pd.testing.assert_frame_equal(intervals, score_intervals(counts, 1000 * blocks - 7, resamples=50))
    if len(set(blocks.tolist())) > 1:
        assert ((intervals >= 0) & (intervals <= 1)).all(axis=None)
        assert (intervals["low"] <= intervals["high"]).all()


def test_one_block_has_no_interval_and_logs_none():
    counts = simulated(np.random.default_rng(0), 4, 1, (0.5,))[0]
    intervals = score_intervals(counts, np.zeros(4, np.int64))
    assert intervals[["low", "high"]].isna().all(axis=None)
    assert named_intervals(intervals, ["miou"]) == {"miou_pooled": scores(counts.sum(axis=0))["miou"]}
    assert paired_differences(counts, counts, np.zeros(4))["low"].isna().all()


def test_intervals_are_named_as_metrics():
    counts = simulated(np.random.default_rng(0), 9, 1, (0.5,))[0]
    intervals = score_intervals(counts, np.arange(9))
    names = named_intervals(intervals, ["f1_macro", "miou"])
    assert list(names) == [f"{name}_{end}" for name in ("f1_macro", "miou") for end in ("pooled", "low", "high")]
    assert names["miou_low"] < names["miou_pooled"] < names["miou_high"]
    assert all(type(value) is float for value in names.values())


def test_models_scored_on_different_patches_are_refused():
    first, second = simulated(np.random.default_rng(0), 5, 1, (0.5, 0.6))
    with pytest.raises(ValueError, match="not scored on the same patches"):
        paired_differences(first, second[::-1], np.arange(5))


def test_blocks_are_4x4_tiles_or_single_patches_without_position():
    places = [*grid_positions(4, 5, 1), *grid_positions(2, 2, 2), None, None]
    blocks = resampling_blocks(build_patch_table([str(i) for i in range(len(places))], places))
    sizes = np.bincount(blocks)
    assert sorted(sizes.tolist()) == [1, 1, 4, 4, 16]
    assert len(set(blocks[-2:].tolist())) == 2
