"""Groups of blocks of tiles with similar ground, which stand for other scenes in data of one scene.

A block is described by the mean and the standard deviation of each stored band, thus by its spectra and, if these bands
are stored, by slope and elevation. Each of these is standardised over the blocks. k-means then groups the blocks
(Lloyd 1982, started by k-means++, Arthur and Vassilvitskii 2007). A group is not another scene: light, season and
sensor are the same everywhere. So its scores are those of "another cluster", wherever they are shown.
"""

import cv2
import numpy as np
import numpy.typing as npt

# Starts of k-means, of which the most compact result counts; iterations of each, and the shift that ends them.
_STARTS, _ITERATIONS, _SHIFT = 20, 100, 1e-4


def cluster_blocks(
    statistics: npt.NDArray[np.float64], blocks: npt.NDArray[np.int64], n_groups: int, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Group blocks of neighbouring tiles by their band statistics.

    No group has fewer than half of n / n_groups patches: as long as one does, it takes the block that is nearest to
    its centre, of all groups that keep this many.

    Args:
        statistics: (n, 2, bands) means and standard deviations of the patches, see `landslide.data.band_statistics`.
        blocks: (n,) block of each patch, 0 to blocks - 1; at least `n_groups` blocks, none with more than a quarter of
            the smallest size of a group, unless all hold one patch.
        n_groups: Number of groups.
        seed: Seed of the starts of k-means.

    Returns:
        (n,) group of each patch, 0 to n_groups - 1, the largest first. Equal for equal arguments.
    """
    features = block_features(statistics, blocks)
    sizes = np.bincount(blocks)
    cv2.setRNGSeed(int(np.random.default_rng(seed).integers(2**31)))
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, _ITERATIONS, _SHIFT)
    _, labels, centres = cv2.kmeans(
        features.astype(np.float32), n_groups, np.empty(0), until, _STARTS, cv2.KMEANS_PP_CENTERS
    )
    groups = labels.reshape(-1).astype(np.int64)
    _fill_small_groups(
        groups, sizes, features, np.asarray(centres, np.float64), minimum=max(1, len(blocks) // (2 * n_groups))
    )
    first = np.array([np.flatnonzero(groups == group)[0] for group in range(n_groups)])
    totals = np.bincount(groups, weights=sizes, minlength=n_groups)
    rank = np.empty(n_groups, np.int64)
    rank[np.lexsort((first, -totals))] = np.arange(n_groups)
    return np.asarray(rank[groups][blocks])


def most_similar_groups(
    statistics: npt.NDArray[np.float64], blocks: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Find the group whose mean description is nearest to that of each block.

    Args:
        statistics: (n, 2, bands) means and standard deviations of the patches.
        blocks: (n,) block of each patch, 0 to blocks - 1.
        groups: (n,) group of each patch, 1 or more, 0 if it has none.

    Returns:
        (blocks,) group numbers.
    """
    features = block_features(statistics, blocks)
    numbers = np.unique(groups[groups > 0])
    centres = np.stack([features[blocks[groups == number]].mean(axis=0) for number in numbers])
    distance = np.linalg.norm(features[:, None] - centres, axis=2)
    return np.asarray(numbers[distance.argmin(axis=1)])


def block_features(statistics: npt.NDArray[np.float64], blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Describe every block: mean and standard deviation of each band over its pixels, standardised over the blocks.

    Args:
        statistics: (n, 2, bands) means and standard deviations of the patches.
        blocks: (n,) block of each patch, 0 to blocks - 1.

    Returns:
        (blocks, 2 bands); 0, but for rounding, where all blocks are equal.
    """
    of_patches = np.concatenate([statistics[:, 0], statistics[:, 1] ** 2], axis=1)
    sizes = np.bincount(blocks)[:, None]
    mean, within = np.split(_sums(of_patches, blocks) / sizes, 2, axis=1)
    between = _sums((statistics[:, 0] - mean[blocks]) ** 2, blocks) / sizes
    features = np.concatenate([mean, np.sqrt(within + between)], axis=1)
    deviation = features.std(axis=0)
    varies = deviation > 1e-9 * np.abs(features).max(axis=0)  # else it is rounding
    return np.asarray((features - features.mean(axis=0)) / np.where(varies, deviation, 1.0))


def _sums(values: npt.NDArray[np.float64], blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sum the rows of each block."""
    sums = np.zeros((int(blocks.max()) + 1, values.shape[1]))
    np.add.at(sums, blocks, values)
    return sums


def _fill_small_groups(
    groups: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    features: npt.NDArray[np.float64],
    centres: npt.NDArray[np.float64],
    minimum: int,
) -> None:
    """Move blocks, the nearest first, to the groups with fewer than `minimum` patches, in place."""
    for group in range(len(centres)):
        distance = np.linalg.norm(features - centres[group], axis=1)
        while sizes[groups == group].sum() < minimum:
            totals = np.bincount(groups, weights=sizes, minlength=len(centres))
            movable = (groups != group) & (totals[groups] - sizes >= minimum)
            groups[np.argmin(np.where(movable, distance, np.inf))] = group
