"""Confusion counts by threshold, and the threshold chosen on them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from landslide.metrics.counts import scores


def threshold_counts(
    probability: Any, mask: Any, n_thresholds: int = 100
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Count at all thresholds at once, by a histogram.

    Args:
        probability: Landslide probability in [0, 1], any shape: an array, or a tensor, which is counted on its own
            device.
        mask: True class 0 or 1, same shape and kind.
        n_thresholds: Number of thresholds, evenly spaced from 0 to below 1.

    Returns:
        Thresholds (n,) float64 and counts (n, 2, 2) int64. A pixel is predicted as landslide if its probability is
        at least the threshold.
    """
    thresholds = np.arange(n_thresholds) / n_thresholds
    # Each probability belongs to the highest threshold that it reaches.
    p, true = torch.as_tensor(probability).double(), torch.as_tensor(mask != 0)
    bins = torch.bucketize(p, torch.from_numpy(thresholds).to(p.device), right=True) - 1
    reached = torch.bincount((2 * bins + true).flatten(), minlength=2 * n_thresholds).reshape(-1, 2).cpu().numpy()
    negatives, positives = reached[::-1].cumsum(axis=0)[::-1].T
    counts = np.empty((n_thresholds, 2, 2), np.int64)
    counts[:, 1, 1], counts[:, 1, 0] = positives, positives[0] - positives
    counts[:, 0, 1], counts[:, 0, 0] = negatives, negatives[0] - negatives
    return thresholds, counts


def select_threshold(thresholds: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], select_by: str) -> float:
    """Return the threshold in [0, 1) with the best score on the selection part; of several, the one nearest to 0.5.

    Args:
        thresholds: (n,) thresholds.
        counts: (n, 2, 2) counts of the selection part at these thresholds, see `threshold_counts`.
        select_by: Score to maximise.
    """
    values = np.array([scores(table)[select_by] for table in counts])
    best = np.flatnonzero(values == values.max())
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])
