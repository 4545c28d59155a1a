"""Which windows to label next, out of many without labels.

`rank_next` joins what a trained network says of a window with how much the window differs from those that are labelled
or chosen already. `rank_by_coverage` and `rank_at_random` are its controls: the first looks only at the images, the
second at nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SAMPLE = 1000  # windows, about, from which the usual distance of neighbours is taken


@dataclass(frozen=True)
class Windows:
    """What is known of n windows with C stored bands.

    Attributes:
        uncertainty: (n,) mean entropy of the pixels in bits: 0 if each pixel is certainly one or the other, 1 at most.
        expected: (n,) expected number of landslide pixels: the sum of their probabilities.
        image: (n, 2 C) mean and standard deviation of every band, in stored units.
        landslides: (n, C) mean of every band weighted by the landslide probability: how the predicted landslides look.
    """

    uncertainty: Floats
    expected: Floats
    image: Floats
    landslides: Floats

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.uncertainty)

    @classmethod
    def joined(cls, parts: Sequence["Windows"]) -> "Windows":
        """Join windows, at least one part, in their order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Ranking:
    """Windows in the order in which to label them.

    Attributes:
        order: (k,) indices of the windows, best first.
        distance: (k,) distance of each to the nearest window that is labelled or ranked before it, in standard
            deviations of the features; infinite if there is none.
    """

    order: npt.NDArray[np.int64]
    distance: Floats


def summarise(
    images: npt.NDArray[np.generic],
    probability: npt.NDArray[np.floating],
    valid: npt.NDArray[np.bool_] | None = None,
) -> Windows:
    """Reduce windows to what the choice needs.

    The uncertainty is the entropy of the mean probability of all members of an ensemble. It is high where the members
    differ, and where each of them is unsure.

    Args:
        images: (n, C, H, W) stored values; any number where a pixel is not valid.
        probability: (n, H, W) landslide probability, of a network or the mean of an ensemble; NaN is allowed where a
            pixel is not valid.
        valid: (n, H, W) pixels to use, at least one in each window; all if None.
    """
    used = np.ones(probability.shape, bool) if valid is None else valid
    p = np.where(used, probability, 0).astype(np.float64)
    pixels = used.sum(axis=(1, 2))
    # 1e-12 keeps the logarithm finite; what it multiplies is 0 there.
    entropy = -(p * np.log2(np.maximum(p, 1e-12)) + (1 - p) * np.log2(np.maximum(1 - p, 1e-12)))
    weights = np.stack([used / pixels[:, None, None], p / np.maximum(p.sum(axis=(1, 2)), 1e-12)[:, None, None]])
    values = np.where(used[:, None], images, 0).astype(np.float64)
    mean, landslides = np.einsum("wnij,ncij->wnc", weights, values)
    square = np.einsum("nij,ncij->nc", weights[0], (values - mean[..., None, None]) ** 2)
    landslides = np.where(p.sum(axis=(1, 2))[:, None] > 0, landslides, mean)
    return Windows(
        entropy.sum(axis=(1, 2)) / pixels,
        p.sum(axis=(1, 2)),
        np.concatenate([mean, np.sqrt(square)], axis=1),
        landslides,
    )


def rank_next(windows: Windows, labelled: npt.NDArray[np.bool_], number: int) -> Ranking:
    """Rank the windows from which a network should learn most.

    Windows are taken one by one: always the one with the largest product of weight and novelty. The weight is the
    geometric mean of uncertainty and expected landslide pixels. The novelty rises from 0 to 1 with the distance d to
    the nearest window that is labelled or taken, as 1 - exp(-d^2 / 2 h^2); h is the median distance of a window to its
    nearest neighbour. It keeps near duplicates out.

    It is the greedy farthest-first choice of Sener and Savarese ("Active Learning for Convolutional Neural Networks: A
    Core-Set Approach", ICLR 2018) with weights of the model's uncertainty, which Ash et al. ("Deep Batch Active
    Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020) join with diversity. Their distances have no
    bound, so windows unlike all others (clouds, water) would come first.

    Args:
        windows: All windows, labelled ones included.
        labelled: (n,) which of them are labelled; these are not ranked.
        number: How many to rank, 1 or more; fewer if there are fewer.
    """
    features = _standardised(np.concatenate([windows.image, windows.landslides], axis=1))
    weight = np.sqrt(windows.uncertainty * windows.expected)
    usual = max(_usual_distance(features), 1e-9)  # 0 if most windows occur twice

    def score(distance: Floats) -> Floats:
        return np.asarray(weight * -np.expm1(-((distance / usual) ** 2) / 2))

    return _greedy(features, labelled, number, score)


def rank_by_coverage(windows: Windows, labelled: npt.NDArray[np.bool_], number: int) -> Ranking:
    """Rank windows so that their images cover those of the pool: always the one farthest from all before it.

    This is the greedy k-centre of Sener and Savarese (ICLR 2018) on means and standard deviations of the bands; no
    network is needed. If nothing is labelled, the window nearest to the mean of the pool is first.

    Args:
        windows: All windows, labelled ones included.
        labelled: (n,) which of them are labelled; these are not ranked.
        number: How many to rank, 1 or more; fewer if there are fewer.
    """
    features = _standardised(windows.image)
    centrality = -np.linalg.norm(features, axis=1)

    def score(distance: Floats) -> Floats:
        return centrality if np.isinf(distance).all() else distance

    return _greedy(features, labelled, number, score)


def rank_at_random(labelled: npt.NDArray[np.bool_], number: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Rank windows at random.

    Args:
        labelled: (n,) which windows are labelled; these are not ranked.
        number: How many to rank; fewer if there are fewer.
        seed: Seed. With equal `labelled`, the first windows do not depend on `number`.

    Returns:
        (k,) indices of windows.
    """
    return np.random.default_rng(seed).permutation(np.flatnonzero(~labelled))[:number]


def _greedy(
    features: Floats, labelled: npt.NDArray[np.bool_], number: int, score: Callable[[Floats], Floats]
) -> Ranking:
    """Take windows one by one, each with the highest score of its distance to the nearest one taken before."""
    distance = np.full(len(features), np.inf)
    for row in np.flatnonzero(labelled):
        distance = np.minimum(distance, _distances(features, int(row)))
    free, order, at = ~labelled, [], []
    for _ in range(min(number, int(free.sum()))):
        best = int(np.argmax(np.where(free, score(distance), -np.inf)))
        order.append(best)
        at.append(distance[best])
        free[best] = False
        distance = np.minimum(distance, _distances(features, best))
    return Ranking(np.array(order, np.int64), np.array(at, np.float64))


def _distances(features: Floats, row: int) -> Floats:
    return np.asarray(np.linalg.norm(features - features[row], axis=1))


def _standardised(features: Floats) -> Floats:
    """Give each feature mean 0 and standard deviation 1, and the distance of two windows the same scale for any C."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > 1e-9 * np.abs(mean)  # the rest is rounding
    scaled = np.where(varies, features - mean, 0) / np.where(varies, deviation, 1)
    return np.asarray(scaled / np.sqrt(features.shape[1]))


def _usual_distance(features: Floats) -> float:
    """Return the median distance of a window to its nearest neighbour."""
    n = len(features)
    nearest = []
    for row in range(0, n, max(1, n // _SAMPLE)):
        distance = _distances(features, row)
        distance[row] = np.inf
        nearest.append(distance.min())
    return float(np.median(nearest)) if n > 1 else 1.0
