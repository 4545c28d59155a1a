"""Objects of a mask: against SciPy, and numbered in reading order."""

import numpy as np
import pytest
from scipy import ndimage

from landslide.labels.objects import label_objects, parse_objects


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
def test_objects_are_connected_at_edges_and_corners_and_numbered_in_reading_order(share):
    mask = (np.random.default_rng(3).random((128, 128)) < share).astype(np.uint8)
    found = label_objects(mask)
    assert found.dtype == np.int32
    expected, n = ndimage.label(mask, np.ones((3, 3)))
    assert found.max(initial=0) == n
    np.testing.assert_array_equal(found == 0, mask == 0)
    pairs = set(zip(found[mask > 0].tolist(), expected[mask > 0].tolist(), strict=True))
    assert len(pairs) == n  # the same objects
    first = [int(np.flatnonzero(found == number)[0]) for number in range(1, n + 1)]
    assert first == sorted(first)


def test_the_first_pixel_decides_not_the_leftmost():
    mask = np.array([[0, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 0]])
    assert label_objects(mask).tolist() == [[0, 0, 1, 0, 2], [1, 0, 1, 0, 2], [1, 1, 0, 0, 0]]


@pytest.mark.parametrize(("text", "numbers"), [("", []), ("1", [1]), ("1, 3", [1, 3]), ("2;10 11", [2, 10, 11])])
def test_numbers_are_read(text, numbers):
    assert parse_objects(text) == numbers


@pytest.mark.parametrize("text", ["one", "0", "1-2", "1.5"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_objects(text)
