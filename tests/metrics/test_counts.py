"""Counts and scores compared with scikit-learn, closed forms and loops."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from landslide.metrics.counts import METRIC_NAMES, confusion_counts, mean_and_std, scores
from landslide.metrics.thresholds import threshold_counts


@st.composite
def prediction_and_mask(draw, min_side: int = 1):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=min_side, max_side=8))
    arrays = hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))
    return draw(arrays), draw(arrays)


def sklearn_scores(prediction: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The same scores by scikit-learn, if both classes occur in the mask or the prediction."""
    true, predicted = mask.ravel(), prediction.ravel()
    options = {"labels": [0, 1], "zero_division": 0}
    return {
        "f1_macro": reference.f1_score(true, predicted, average="macro", **options),
        "miou": reference.jaccard_score(true, predicted, average="macro", **options),
        "f1_landslide": reference.f1_score(true, predicted, zero_division=0),
        "iou_landslide": reference.jaccard_score(true, predicted, zero_division=0),
        "precision_landslide": reference.precision_score(true, predicted, zero_division=0),
        "recall_landslide": reference.recall_score(true, predicted, zero_division=0),
        "accuracy": reference.accuracy_score(true, predicted),
    }


# ---- counts


@settings(max_examples=100, deadline=None)
@given(prediction_and_mask())
def test_counts_have_truth_in_rows_and_prediction_in_columns(arrays):
    prediction, mask = arrays
    counts = confusion_counts(prediction, mask)
    assert (counts.shape, counts.dtype) == ((2, 2), np.int64)
    np.testing.assert_array_equal(counts, reference.confusion_matrix(mask.ravel(), prediction.ravel(), labels=[0, 1]))


@settings(max_examples=50, deadline=None)
@given(prediction_and_mask())
def test_tensors_and_arrays_give_the_same_counts(arrays):
    prediction, mask = arrays
    expected = confusion_counts(prediction, mask)
    for dtype in (torch.uint8, torch.int64, torch.bool):
        counts = confusion_counts(torch.tensor(prediction).to(dtype), torch.tensor(mask).to(dtype))
        assert isinstance(counts, torch.Tensor)
        assert counts.dtype == torch.int64
        np.testing.assert_array_equal(counts.numpy(), expected)
    np.testing.assert_array_equal(confusion_counts(prediction == 1, mask == 1), expected)


def test_counts_of_parts_add_up_to_the_counts_of_the_whole():
    rng = np.random.default_rng(0)
    prediction, mask = rng.integers(0, 2, (2, 7, 16, 16))
    parts = sum(confusion_counts(p, m) for p, m in zip(prediction, mask, strict=True))
    np.testing.assert_array_equal(parts, confusion_counts(prediction, mask))


def test_counts_do_not_overflow_small_integers():
    ones = np.ones((300, 300), np.uint8)
    assert confusion_counts(ones, ones).tolist() == [[0, 0], [0, 90_000]]
    assert confusion_counts(torch.tensor(ones), torch.tensor(ones)).tolist() == [[0, 0], [0, 90_000]]


@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_shapes_that_would_broadcast_are_refused(kind):
    with pytest.raises(ValueError, match=r"\(2, 4, 4\) and mask \(1, 4, 4\)"):
        confusion_counts(kind((2, 4, 4)), kind((1, 4, 4)))


# ---- scores


@settings(max_examples=150, deadline=None)
@given(prediction_and_mask())
def test_scores_agree_with_scikit_learn_if_both_classes_occur(arrays):
    prediction, mask = arrays
    result = scores(confusion_counts(prediction, mask))
    assert tuple(result) == METRIC_NAMES
    assert all(type(value) is float and 0 <= value <= 1 for value in result.values())
    if len({*prediction.ravel().tolist(), *mask.ravel().tolist()}) == 2:
        assert result == pytest.approx(sklearn_scores(prediction, mask), abs=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_scores_of_an_imbalanced_fold_agree_with_scikit_learn(share):
    rng = np.random.default_rng(1)
    mask = (rng.random((3, 64, 64)) < share).astype(np.uint8)
    prediction = np.where(rng.random(mask.shape) < 0.1, 1 - mask, mask)
    assert scores(confusion_counts(prediction, mask)) == pytest.approx(sklearn_scores(prediction, mask), abs=1e-12)


def test_f1_and_miou_are_the_unweighted_means_over_the_two_classes():
    result = scores([[90, 4], [2, 4]])  # 100 pixels: true positives 4, false alarms 4, misses 2
    assert result == pytest.approx(
        {
            "f1_macro": (180 / 186 + 8 / 14) / 2,
            "miou": (90 / 96 + 4 / 10) / 2,
            "f1_landslide": 8 / 14,
            "iou_landslide": 4 / 10,
            "precision_landslide": 4 / 8,
            "recall_landslide": 4 / 6,
            "accuracy": 0.94,
        },
        abs=1e-15,
    )


def test_a_class_neither_present_nor_predicted_counts_as_1():
    only_background = scores([[50, 0], [0, 0]])
    assert only_background == dict.fromkeys(METRIC_NAMES, 1.0)
    only_landslide = scores([[0, 0], [10, 30]])
    assert only_landslide["miou"] == pytest.approx((0 + 0.75) / 2)  # background is predicted, so it is not absent
    assert scores([[0, 0], [0, 30]]) == dict.fromkeys(METRIC_NAMES, 1.0)
    assert scores(np.zeros((2, 2))) == dict.fromkeys(METRIC_NAMES, 1.0)


def test_a_ratio_of_zeros_for_a_class_that_occurs_counts_as_0():
    nothing_found = scores([[50, 0], [5, 0]])
    assert (nothing_found["precision_landslide"], nothing_found["recall_landslide"]) == (0, 0)
    assert nothing_found["f1_landslide"] == nothing_found["iou_landslide"] == 0
    nothing_there = scores([[50, 5], [0, 0]])
    assert (nothing_there["precision_landslide"], nothing_there["recall_landslide"]) == (0, 0)


def test_scores_divide_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for counts in ([[0, 0], [0, 0]], [[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 1]]):
            scores(counts)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=4, max_size=4))
def test_f1_and_iou_of_a_class_determine_each_other(cells):
    result = scores(np.reshape(cells, (2, 2)))
    iou = result["iou_landslide"]
    assert result["f1_landslide"] == pytest.approx(2 * iou / (1 + iou), abs=1e-12)


# ---- folds


def test_mean_and_population_deviation_over_the_folds():
    logged = [72.42, 86.76, 87.68, 87.22, 86.31]
    result = mean_and_std([{"f1_macro": f1, "miou": f1 / 2} for f1 in logged])
    mean = sum(logged) / 5
    deviation = (sum((x - mean) ** 2 for x in logged) / 5) ** 0.5
    assert list(result) == ["f1_macro", "f1_macro_std", "miou", "miou_std"]
    assert result["f1_macro"] == pytest.approx(84.078, abs=1e-9)
    assert result["f1_macro_std"] == pytest.approx(deviation, abs=1e-12)
    assert result["f1_macro_std"] == pytest.approx(5.84, abs=0.01)  # authors' log, unrounded scores
    assert result["miou_std"] == pytest.approx(deviation / 2, abs=1e-12)


def test_one_fold_has_no_deviation():
    assert mean_and_std([{"miou": 0.25}]) == {"miou": 0.25, "miou_std": 0.0}


# ---- thresholds


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
            hnp.arrays(np.uint8, n, elements=st.integers(0, 1)),
        )
    ),
    st.sampled_from([1, 2, 10, 100]),
)
def test_threshold_counts_equal_a_loop_over_the_thresholds(arrays, n_thresholds):
    probability, mask = arrays
    thresholds, counts = threshold_counts(probability, mask, n_thresholds)
    assert (counts.shape, counts.dtype) == ((n_thresholds, 2, 2), np.int64)
    for i in range(n_thresholds):
        assert thresholds[i] == i / n_thresholds
        expected = confusion_counts(probability.astype(np.float64) >= i / n_thresholds, mask)
        np.testing.assert_array_equal(counts[i], expected, err_msg=f"threshold {i} / {n_thresholds}")


def test_a_probability_equal_to_a_threshold_is_a_landslide_at_that_threshold():
    thresholds = np.arange(100) / 100
    _, counts = threshold_counts(thresholds, np.ones(100, np.uint8))
    assert [at for at in range(100) if counts[at, 1, 1] != 100 - at] == []


def test_probability_1_exceeds_every_threshold_and_threshold_0_selects_every_pixel():
    _, counts = threshold_counts(np.array([[0.0, 1.0], [1.0, 0.5]]), np.array([[0, 1], [0, 1]]), 4)
    assert counts[0].tolist() == [[0, 2], [0, 2]]
    assert counts[3].tolist() == [[1, 1], [1, 1]]
