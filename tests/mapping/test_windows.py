import numpy as np
import pytest

from landslide.errors import ConfigurationError, DataError
from landslide.mapping.windows import blending_weights, window_side, window_starts


@pytest.mark.parametrize(("length", "overlap"), [(128, 0.5), (129, 0.5), (1000, 0.5), (300, 0.0), (517, 0.3)])
def test_windows_cover_an_axis_and_their_weights_sum_to_one(length, overlap):
    starts = window_starts(length, 128, overlap)
    total = np.zeros(length)
    for start, weights in zip(starts, blending_weights(starts, 128), strict=True):
        assert weights.min() > 0
        total[start : start + 128] += weights
    assert starts[0] == 0
    assert starts[-1] == length - 128
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_window_counts_most_in_its_middle():
    starts = window_starts(1000, 128, 0.5)
    weights = blending_weights(starts, 128)[5]
    assert weights.argmax() in (63, 64)
    assert max(weights[0], weights[-1]) < 0.001


@pytest.mark.parametrize(("height", "width", "side"), [(500, 500, 128), (128, 4000, 128), (100, 101, 96), (16, 90, 16)])
def test_a_small_scene_has_smaller_windows(height, width, side):
    assert window_side(height, width) == side


def test_scenes_and_overlaps_that_are_impossible_are_refused():
    with pytest.raises(DataError, match="15 x 500"):
        window_side(15, 500)
    with pytest.raises(ConfigurationError, match="overlap of windows is 1"):
        window_starts(500, 128, 1.0)
