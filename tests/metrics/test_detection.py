"""Detection compared with scikit-learn, with ties, and with patches of only one class."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from landslide.metrics.bootstrap import score_intervals
from landslide.metrics.detection import (
    detection_counts,
    detection_scores,
    patch_scores,
    ranking_scores,
    roc_curve,
    select_detection_threshold,
    undefined_reason,
)


@st.composite
def patches(draw):
    """Scores with ties, and the truth."""
    n = draw(st.integers(2, 40))
    scores = hnp.arrays(np.float64, n, elements=st.integers(0, 8).map(lambda i: i / 8))
    return draw(scores), draw(hnp.arrays(np.bool_, n))


def test_a_patch_is_positive_at_a_threshold_when_its_predicted_mask_is_not_empty():
    rng = np.random.default_rng(0)
    probability = (rng.random((30, 8, 8)) ** 20).astype(np.float32)
    scores = patch_scores(probability)
    assert scores.dtype == np.float64
    for threshold in (0.1, 0.5, 0.9, float(scores[3])):
        np.testing.assert_array_equal(scores >= threshold, (probability >= threshold).any(axis=(1, 2)))
    assert 0 < (scores >= 0.9).sum() < 30


@settings(max_examples=80, deadline=None)
@given(patches(), st.sampled_from([0.25, 0.5, 0.9]))
def test_detection_scores_agree_with_scikit_learn(case, threshold):
    scores, truth = case
    answer = scores >= threshold
    found = detection_scores(scores, truth, threshold)
    assert list(found) == ["detection_f1", "detection_precision", "detection_recall"]
    if (truth | answer).any():
        options = {"zero_division": 0}
        assert found["detection_f1"] == pytest.approx(reference.f1_score(truth, answer, **options))
        assert found["detection_precision"] == pytest.approx(reference.precision_score(truth, answer, **options))
        assert found["detection_recall"] == pytest.approx(reference.recall_score(truth, answer, **options))
    else:
        assert set(found.values()) == {1.0}  # no landslide and none predicted
    counts = detection_counts(scores, truth, threshold)
    assert (counts.sum(axis=(1, 2)) == 1).all()
    np.testing.assert_array_equal(counts.sum(axis=0), reference.confusion_matrix(truth, answer, labels=[False, True]))


@settings(max_examples=80, deadline=None)
@given(patches())
def test_the_ranking_agrees_with_scikit_learn(case):
    scores, truth = case
    assume(truth.any() and not truth.all())
    found = ranking_scores(scores, truth)
    assert found["detection_auc"] == pytest.approx(reference.roc_auc_score(truth, scores), abs=1e-12)
    assert found["detection_average_precision"] == pytest.approx(
        reference.average_precision_score(truth, scores), abs=1e-12
    )
    curve = roc_curve(scores, truth)
    x, y, thresholds = reference.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve[["false_positive_rate", "true_positive_rate"]], np.stack([x, y], axis=1))
    np.testing.assert_array_equal(curve["threshold"], thresholds)


def test_the_area_is_the_probability_that_a_positive_patch_ranks_higher():
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.6
    scores = np.round(rng.random(60) * 0.7 + 0.3 * truth, 1)
    pairs = scores[truth][:, None] - scores[~truth]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert ranking_scores(scores, truth)["detection_auc"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("value", "reason"), [(True, "every patch holds"), (False, "no patch holds")])
def test_patches_of_one_class_have_no_curve_but_a_reason(value, reason):
    truth, scores = np.full(5, value), np.linspace(0.1, 0.9, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert undefined_reason(truth).startswith(reason)
        assert ranking_scores(scores, truth) == {}
        assert len(roc_curve(scores, truth)) == 0
        assert select_detection_threshold(scores, truth) == 0.5
        assert all(np.isfinite(list(detection_scores(scores, truth).values())))
    assert undefined_reason(np.array([True, False])) == ""


# ---- the tuned threshold


@settings(max_examples=80, deadline=None)
@given(patches())
def test_the_tuned_threshold_is_optimal_on_the_selection_part(case):
    scores, truth = case
    assume(truth.any() and not truth.all())
    chosen = select_detection_threshold(scores, truth)
    every = [detection_scores(scores, truth, t)["detection_f1"] for t in np.arange(-1, 19) / 16]
    best = detection_scores(scores, truth, chosen)["detection_f1"]
    assert best == pytest.approx(max(every))
    if detection_scores(scores, truth)["detection_f1"] == best:
        assert chosen == 0.5


def test_the_tuned_threshold_is_between_the_scores():
    scores, truth = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])
    assert select_detection_threshold(scores, truth) == pytest.approx(0.25)
    assert select_detection_threshold(scores, np.array([True] * 3 + [False])) == pytest.approx(0.05)


# ---- with the bootstrap


def test_detection_counts_have_bootstrap_intervals():
    rng = np.random.default_rng(0)
    truth = rng.random(80) < 0.5
    scores = np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1)
    row = score_intervals(detection_counts(scores, truth), np.arange(80)).loc["f1_landslide"]
    assert row["value"] == detection_scores(scores, truth)["detection_f1"]
    assert row["low"] < row["value"] < row["high"]
