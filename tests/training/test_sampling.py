"""The patches of an epoch: properties for any training part."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from landslide.training.sampling import epoch_order, evenly_spaced

flags = st.lists(st.booleans(), min_size=1, max_size=60)


def order(positive: list[bool], share: float | None, seed: int = 0) -> torch.Tensor:
    return epoch_order(torch.tensor(positive), share, torch.Generator().manual_seed(seed))


@given(flags, st.integers(0, 9))
def test_without_a_share_every_patch_occurs_once(positive, seed):
    assert sorted(order(positive, None, seed).tolist()) == list(range(len(positive)))


@given(flags, st.floats(0.01, 1.0), st.integers(0, 9))
def test_a_share_is_reached_and_patches_of_a_class_occur_equally_often(positive, share, seed):
    drawn = order(positive, share, seed)
    assert len(drawn) == len(positive)
    if all(positive) or not any(positive):
        assert sorted(drawn.tolist()) == list(range(len(positive)))
        return
    kinds = np.array(positive)
    assert kinds[drawn].sum() == min(max(round(share * len(kinds)), 1), len(kinds))
    times = np.bincount(drawn, minlength=len(kinds))
    for kind in (True, False):
        assert np.ptp(times[kinds == kind]) <= 1


def test_the_order_is_random_and_depends_on_the_seed():
    positive = [True] * 20 + [False] * 20
    for share in (None, 0.7):
        assert order(positive, share).tolist() == order(positive, share).tolist()
        assert order(positive, share).tolist() != order(positive, share, seed=1).tolist()
        assert order(positive, share).tolist() != sorted(order(positive, share).tolist())


@given(st.integers(1, 500), st.integers(1, 600))
def test_evenly_spaced_rows_keep_their_order_and_distances(length, n):
    rows = np.arange(length) * 3 + 1
    chosen = evenly_spaced(rows, n)
    assert len(chosen) == min(n, length)
    assert set(chosen) <= set(rows)
    gaps = np.diff(np.concatenate([(chosen - 1) // 3, [length]]))
    assert chosen[0] == rows[0]
    assert gaps.min() >= 1
    assert np.ptp(gaps) <= 1


def test_without_a_limit_all_rows_are_kept():
    rows = np.array([4, 7, 9])
    assert evenly_spaced(rows, None) is rows
