"""Calibration compared with scikit-learn and a loop, and on masks drawn from the probabilities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from landslide.metrics.calibration import calibration


def drawn(seed: int, shape=(5, 32, 32), power: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, mostly low, and masks drawn from them."""
    rng = np.random.default_rng(seed)
    probability = rng.random(shape).astype(np.float32) ** power
    return probability, (rng.random(shape) < probability).astype(np.uint8)


@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_bins_and_brier_score_agree_with_scikit_learn(n_bins):
    probability, masks = drawn(0, power=1.5)
    masks = masks & (np.random.default_rng(1).random(masks.shape) < 0.7)  # not calibrated
    result = calibration(probability, masks, n_bins)
    table = result.table()
    frequency, mean = calibration_curve(masks.ravel(), probability.ravel().astype(np.float64), n_bins=n_bins)
    np.testing.assert_allclose(table["observed_frequency"], frequency, atol=1e-12)
    np.testing.assert_allclose(table["mean_probability"], mean, atol=1e-12)
    np.testing.assert_array_equal(table["pixels"], np.histogram(probability, n_bins, range=(0, 1))[0])
    expected = float((table["pixels"] / probability.size * np.abs(frequency - mean)).sum())
    assert result.scores() == pytest.approx(
        {
            "expected_calibration_error": expected,
            "brier_score": brier_score_loss(masks.ravel(), probability.ravel().astype(np.float64)),
        },
        abs=1e-12,
    )
    assert expected > 0.05


def test_calibration_equals_a_closed_form():
    probability = np.array([[[0.2, 0.2], [0.2, 0.2]], [[0.9, 0.9], [1.0, 0.0]]])
    masks = np.array([[[1, 0], [0, 0]], [[1, 0], [1, 0]]])
    result = calibration(probability, masks)
    # Bins [0, .1): one pixel, correct; [.2, .3): a quarter observed, .2 predicted; [.9, 1]: 2 of 3, 2.8 predicted.
    assert result.pixels.tolist() == [1, 0, 4, 0, 0, 0, 0, 0, 0, 3]
    assert result.scores()["expected_calibration_error"] == pytest.approx((0.2 + 0.8) / 8)
    assert result.scores()["brier_score"] == pytest.approx((0.64 + 3 * 0.04 + 0.01 + 0.81) / 8)
    table = result.table()
    assert table["low"].tolist() == pytest.approx([i / 10 for i in range(10)])
    assert table.loc[1, ["mean_probability", "observed_frequency"]].isna().all()


def test_masks_drawn_from_the_probabilities_are_calibrated():
    probability, masks = drawn(2, shape=(40, 64, 64))
    scores = calibration(probability, masks).scores()
    assert scores["expected_calibration_error"] < 0.003
    assert scores["brier_score"] == pytest.approx(float((probability * (1 - probability)).mean()), abs=0.002)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float32, (4, 3, 3), elements=st.floats(0, 1, width=32)),
    hnp.arrays(np.uint8, (4, 3, 3), elements=st.integers(0, 1)),
    st.integers(1, 3),
)
def test_the_sums_of_parts_add_up_to_those_of_the_whole(probability, masks, cut):
    whole = calibration(probability, masks)
    parts = calibration(probability[:cut], masks[:cut]) + calibration(probability[cut:], masks[cut:])
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    np.testing.assert_array_equal(parts.landslides, whole.landslides)
    assert parts.scores() == pytest.approx(whole.scores(), abs=1e-12)
    assert whole.pixels.sum() == probability.size
    for bin_, row in whole.table().iterrows():
        inside = (probability >= np.float64(row["low"])) & (
            (probability < np.float64(row["high"])) | (bin_ == 9) & (probability == 1)
        )
        assert row["pixels"] == inside.sum()
