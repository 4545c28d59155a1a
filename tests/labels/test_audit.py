"""The ranking of labels on predictions that are made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from landslide.labels.audit import Noise, audited_objects, noise, references
from landslide.labels.predictions import Predictions

LOW, HIGH = 0.02, 0.9


def predictions(masks, probability, folds, deviation=None):
    masks, probability = np.asarray(masks, np.uint8), np.asarray(probability, np.float32)
    n = len(masks)
    table = pd.DataFrame({"number": range(1, n + 1), "fold": folds})
    spread = np.zeros_like(probability) if deviation is None else np.asarray(deviation, np.float32)
    return Predictions(Path("nowhere"), ("B4",), table, masks, probability, spread, np.full(n, 0.5))


def blank(n=1):
    return np.zeros((n, 128, 128))


@pytest.fixture
def case():
    """Patch 1 is right; patch 2 has a false label, a missing one, an outline that is off, and one nearly right."""
    masks, seen = blank(2), blank(2)
    masks[0, 20:50, 20:50] = seen[0, 20:50, 20:50] = 1
    masks[1, 5:15, 5:15] = 1  # nothing is there
    seen[1, 60:70, 5:15] = 1  # nobody drew it
    masks[1, 90:120, 90:100] = seen[1, 90:120, 95:105] = 1
    masks[1, 10:30, 60:80] = seen[1, 11:29, 61:79] = 1  # one pixel wider
    return predictions(masks, np.where(seen == 1, HIGH, LOW), [1, 2])


def test_kinds_and_order(case):
    found = audited_objects(case, references(case))
    assert found["score"].is_monotonic_decreasing
    assert sorted(found["kind"][:3]) == ["missing", "no_landslide", "outline"]
    assert found["row"].tolist()[:3] == [1, 1, 1]
    assert found["overlap"][3] == pytest.approx(18 * 18 / 400)  # an outline within a pixel comes later
    assert found["score"][4] == found["score"].min()  # a label that is right
    by_kind = found[:3].set_index("kind")
    assert by_kind.loc["no_landslide", ["pixels", "label_pixels", "predicted_pixels"]].tolist() == [100, 100, 0]
    assert by_kind.loc["missing", ["pixels", "label_pixels", "predicted_pixels"]].tolist() == [100, 0, 100]
    off = by_kind.loc["outline"]
    assert [off["pixels"], off["label_pixels"], off["overlap"]] == [300, 300, pytest.approx(150 / 450)]
    assert [by_kind.loc[kind, "objects"] for kind in ("no_landslide", "missing", "outline")] == ["1", "", "3"]


def test_the_score_is_the_formula(case):
    found = audited_objects(case, references(case))
    by_kind = found[:3].set_index("kind")
    false, missing, right, wrong = -np.log([LOW, 1 - HIGH, HIGH, LOW]) / 1.0
    assert by_kind.loc["no_landslide", "score"] == pytest.approx(100 * false / 100**0.75, rel=1e-5)
    assert by_kind.loc["missing", "score"] == pytest.approx(100 * missing / 100**0.75, rel=1e-5)
    off = (150 * wrong + 150 * right + 150 * missing) / 450**0.75
    assert by_kind.loc["outline", "score"] == pytest.approx(off, rel=1e-5)


def test_unsure_predictions_count_less(case):
    unsure = predictions(case.masks, case.probability, [1, 2], np.full((2, 128, 128), 0.25))
    sure, less = (audited_objects(one, references(one))["score"].to_numpy() for one in (case, unsure))
    np.testing.assert_allclose(less, sure / 2, rtol=1e-6)


def test_a_label_that_is_barely_predicted_is_in_doubt_itself():
    masks, seen = blank(2), blank(2)
    masks[0, 20:40, 20:60] = 1
    seen[0, 20:22, 20:30] = 1
    masks[1, 60:70, 60:70] = seen[1, 60:70, 60:70] = 1
    one = predictions(masks, np.where(seen == 1, HIGH, LOW), [1, 2])
    first = audited_objects(one, references(one)).iloc[0]
    assert (first["kind"], first["pixels"]) == ("no_landslide", 800)


def test_a_patch_is_judged_by_the_other_folds_alone(case):
    before = references(case)
    turned = case.masks.copy()
    turned[1] = 1 - turned[1]
    after = references(predictions(turned, case.probability, [1, 2]))
    assert after[2] == before[2]  # its own labels changed
    assert after[1] != before[1]


def test_calibration_is_logistic_regression():
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 128, 128)) < 0.2).astype(np.uint8)
    logits = rng.normal(0, 1, masks.shape) + 2 * masks - 0.5
    case = predictions(masks, 1 / (1 + np.exp(-logits)), [1, 2])
    found = references(case)[2]  # by patch 1
    fitted = LogisticRegression(C=np.inf).fit(logits[0].reshape(-1, 1), masks[0].ravel())
    assert found.slope == pytest.approx(fitted.coef_[0, 0], rel=0.01)
    assert found.offset == pytest.approx(fitted.intercept_[0], rel=0.01)
    p = found.calibrated(case.probability[0])
    assert found.landslide == pytest.approx(p[masks[0] == 1].mean(), rel=0.01)
    assert found.background == pytest.approx(p[masks[0] == 0].mean(), rel=0.01)


def test_noise_is_found_where_labels_are_turned():
    rng = np.random.default_rng(1)
    truth = np.zeros((4, 128, 128), np.uint8)
    truth[:, :40] = 1
    wrong = rng.random(truth.shape) < np.where(truth == 1, 0.1, 0.02)
    masks = np.where(wrong, 1 - truth, truth)
    probability = np.where(truth == 1, 0.95, 0.01) + rng.normal(0, 0.004, truth.shape)
    case = predictions(masks, probability, [1, 2, 3, 4])
    found = noise(case, references(case))
    false, missed = wrong[(masks == 1)].mean(), wrong[masks == 0].mean()
    assert found.false_landslide == pytest.approx(false, rel=0.05)
    assert found.missed_landslide == pytest.approx(missed, rel=0.25)


@pytest.mark.parametrize("value", [0, 1])
def test_sets_of_one_class_and_one_fold_are_judged_too(value):
    case = predictions(np.full((2, 128, 128), value), np.full((2, 128, 128), 0.3), [1, 1])
    found = audited_objects(case, references(case))
    assert len(found) == 2 * value
    assert np.isfinite(found["score"]).all()
    assert noise(case, references(case)) == Noise(0, 0)
