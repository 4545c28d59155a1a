"""The choice of windows to label next: what is known of windows, the ranking, and its controls."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import entropy

from landslide.labels.choosing import Windows, rank_at_random, rank_by_coverage, rank_next, summarise

NONE = np.zeros(40, bool)


def windows(uncertainty, expected, image, landslides=None):
    image = np.asarray(image, float)
    landslides = image if landslides is None else np.asarray(landslides, float)
    return Windows(np.asarray(uncertainty, float), np.asarray(expected, float), image, landslides)


def random_windows(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return windows(rng.random(n), 900 * rng.random(n), rng.normal(size=(n, 6)), rng.normal(size=(n, 3)))


def test_summary_of_windows_agrees_with_scipy_and_masked_statistics():
    rng = np.random.default_rng(1)
    images = rng.normal(50, 9, (3, 2, 8, 8))
    probability = rng.random((3, 8, 8)).astype(np.float32)
    probability[0, :2] = 0.0
    probability[1, :3] = 1.0
    valid = rng.random((3, 8, 8)) < 0.7
    images[~np.broadcast_to(valid[:, None], images.shape)] = np.nan
    probability[~valid] = np.nan
    found = summarise(images, probability, valid)
    for i in range(3):
        p, values = probability[i][valid[i]].astype(float), images[i][:, valid[i]]
        assert found.uncertainty[i] == pytest.approx(entropy([p, 1 - p], base=2).mean())
        assert found.expected[i] == pytest.approx(p.sum())
        np.testing.assert_allclose(found.image[i], [*values.mean(axis=1), *values.std(axis=1)])
        np.testing.assert_allclose(found.landslides[i], np.average(values, axis=1, weights=p))


def test_window_without_any_probability_looks_like_its_mean():
    found = summarise(np.full((1, 2, 4, 4), 7, np.uint8), np.zeros((1, 4, 4)))
    assert (found.uncertainty[0], found.expected[0]) == (0, 0)
    assert found.landslides.tolist() == [[7, 7]]


@pytest.mark.parametrize("labelled", [NONE, np.arange(40) % 4 == 0])
def test_next_is_the_greedy_choice_of_its_definition(labelled):
    pool = random_windows()
    features = np.concatenate([pool.image, pool.landslides], axis=1)
    distances = cdist(*2 * [(features - features.mean(axis=0)) / features.std(axis=0) / 3])
    usual = np.median(np.sort(distances, axis=1)[:, 1])
    weight = np.sqrt(pool.uncertainty * pool.expected)
    taken, expected = list(np.flatnonzero(labelled)), []
    for _ in range(12):
        nearest = distances[:, taken].min(axis=1) if taken else np.full(40, np.inf)
        gain = weight * (1 - np.exp(-((nearest / usual) ** 2) / 2))
        gain[taken] = -1
        expected.append((int(gain.argmax()), nearest[gain.argmax()]))
        taken.append(expected[-1][0])
    found = rank_next(pool, labelled, 12)
    assert found.order.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(found.distance, [distance for _, distance in expected])


def test_a_copy_of_a_labelled_window_comes_last_however_uncertain_it_is():
    pool = random_windows()
    pool.image[5], pool.landslides[5], pool.uncertainty[5], pool.expected[5] = pool.image[0], pool.landslides[0], 1, 1e4
    assert rank_next(pool, NONE, 1).order.tolist() == [5]
    assert rank_next(pool, np.arange(40) == 0, 99).order[-1] == 5


def test_a_window_unlike_all_others_does_not_come_first_for_that():
    pool = random_windows()
    pool.image[7] += 1000
    pool.uncertainty[7] = 0.001
    labelled = np.arange(40) == 0
    assert 7 not in rank_next(pool, labelled, 20).order
    assert rank_by_coverage(pool, labelled, 1).order.tolist() == [7]


def test_units_and_constant_bands_change_nothing():
    pool = random_windows()
    scale = np.array([1, 1000, 0.01, 5, 3, 7])
    image = np.column_stack([pool.image * scale + 3])
    other = windows(pool.uncertainty * 9, pool.expected * 100, image, pool.landslides)
    for rank in (rank_next, rank_by_coverage):
        assert rank(other, NONE, 40).order.tolist() == rank(pool, NONE, 40).order.tolist()
    constant = np.full((40, 3), 0.1)
    without = windows(pool.uncertainty, pool.expected, np.concatenate([pool.image, constant], axis=1), pool.landslides)
    assert rank_by_coverage(without, NONE, 40).order.tolist() == rank_by_coverage(pool, NONE, 40).order.tolist()


@pytest.mark.parametrize("labelled", [NONE, np.arange(40) % 9 == 0])
def test_coverage_is_farthest_first(labelled):
    pool = random_windows(seed=3)
    distances = cdist(*2 * [(pool.image - pool.image.mean(axis=0)) / pool.image.std(axis=0) / np.sqrt(6)])
    found = rank_by_coverage(pool, labelled, 10)
    taken = list(np.flatnonzero(labelled))
    for row, distance in zip(found.order, found.distance, strict=True):
        if taken:
            assert distance == pytest.approx(distances[:, taken].min(axis=1).max())
            assert distances[row, taken].min() == pytest.approx(distance)
        else:
            centre = np.abs((pool.image - pool.image.mean(axis=0)) / pool.image.std(axis=0))
            assert row == np.linalg.norm(centre, axis=1).argmin()
        taken.append(row)


def test_every_window_that_is_not_labelled_is_ranked_once():
    pool, labelled = random_windows(), np.arange(40) % 3 == 0
    for order in (
        rank_next(pool, labelled, 99).order,
        rank_by_coverage(pool, labelled, 99).order,
        rank_at_random(labelled, 99),
    ):
        assert sorted(order) == np.flatnonzero(~labelled).tolist()
    copies = windows([0.5] * 4, [3] * 4, np.ones((4, 2)))
    assert rank_next(copies, np.zeros(4, bool), 9).order.tolist() == [0, 1, 2, 3]


def test_shorter_rankings_are_the_beginning_of_longer_ones():
    pool, labelled = random_windows(), np.arange(40) % 3 == 0
    assert rank_next(pool, labelled, 5).order.tolist() == rank_next(pool, labelled, 20).order[:5].tolist()
    assert rank_at_random(labelled, 5).tolist() == rank_at_random(labelled, 20)[:5].tolist()
    assert rank_at_random(labelled, 20, seed=1).tolist() != rank_at_random(labelled, 20).tolist()
