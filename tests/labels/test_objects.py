"""Objects of a mask, against SciPy's labelling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from landslide.labels.objects import label_objects


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_objects_are_scipys_in_reading_order(seed, share):
    mask = np.random.default_rng(seed).random((12, 17)) < share
    expected, n = ndimage.label(mask, structure=np.ones((3, 3)))
    found = label_objects(mask)
    assert found.dtype == np.int32
    assert found.max(initial=0) == n
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == n + (not mask.all())  # one number of each for the other
    firsts = [np.flatnonzero(found.ravel() == number)[0] for number in range(1, n + 1)]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize(("value", "n"), [(0, 0), (1, 1)])
def test_masks_of_one_value(value, n):
    assert label_objects(np.full((4, 4), value, np.uint8)).max() == n
