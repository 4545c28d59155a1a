"""Detection: does a patch hold a landslide at all? The paper's title names detection besides segmentation.

The score of a patch is the largest landslide probability of its pixels. It has no parameter, and it agrees with the
segmentation: at any threshold, a patch is detected exactly if the predicted mask at that threshold is not empty. The
truth of a patch is whether its mask has a landslide pixel.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from landslide.metrics.counts import confusion_counts, scores

_NAMES = {
    "f1_landslide": "detection_f1",
    "precision_landslide": "detection_precision",
    "recall_landslide": "detection_recall",
}
_CURVE = ("threshold", "false_positive_rate", "true_positive_rate", "precision")


def patch_scores(probability: Any) -> npt.NDArray[np.float64]:
    """Return the score of every patch, (n,) float64 in [0, 1].

    Args:
        probability: (n, H, W) landslide probabilities, an array or a tensor.
    """
    largest: npt.NDArray[np.float64] = torch.as_tensor(probability).amax(dim=(1, 2)).double().cpu().numpy()
    return largest


def detection_counts(
    patch_score: npt.NDArray[Any], truth: npt.NDArray[Any], threshold: float = 0.5
) -> npt.NDArray[np.int64]:
    """Return the confusion counts of detection, patch by patch.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.
        threshold: A patch with at least this score is detected.

    Returns:
        (n, 2, 2) with a single 1 per patch, rows truth, columns prediction: the form of pixel counts, for
        `landslide.metrics.bootstrap.score_intervals`.
    """
    counts = np.zeros((len(patch_score), 2, 2), np.int64)
    detected = np.asarray(patch_score) >= threshold
    counts[np.arange(len(counts)), np.asarray(truth, np.int64), detected.astype(np.int64)] = 1
    return counts


def detection_scores(
    patch_score: npt.NDArray[Any], truth: npt.NDArray[Any], threshold: float = 0.5
) -> dict[str, float]:
    """Score detection at a threshold.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.
        threshold: A patch with at least this score is detected.

    Returns:
        `detection_f1`, `detection_precision`, `detection_recall`, with the conventions of
        `landslide.metrics.counts.scores` for 0/0.
    """
    values = scores(confusion_counts(np.asarray(patch_score) >= threshold, np.asarray(truth)))
    return {name: values[source] for source, name in _NAMES.items()}


def undefined_reason(truth: npt.NDArray[Any]) -> str:
    """Say why there is no ROC curve: all patches or none hold a landslide. Empty if there are both kinds."""
    positive = np.asarray(truth) != 0
    if positive.any() and not positive.all():
        return ""
    return "every patch holds a landslide" if positive.any() else "no patch holds a landslide"


def ranking_scores(patch_score: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
    """Score the ranking of the patches, independently of any threshold.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.

    Returns:
        `detection_auc`, the area under the ROC curve, and `detection_average_precision`, the mean of the precision
        over the steps of recall. Empty if they are undefined (see `undefined_reason`).
    """
    if undefined_reason(truth):
        return {}
    curve = roc_curve(patch_score, truth)
    x, y = curve["false_positive_rate"].to_numpy(), curve["true_positive_rate"].to_numpy()
    return {
        "detection_auc": float(np.trapezoid(y, x)),
        "detection_average_precision": float(np.sum(np.diff(y) * curve["precision"].to_numpy()[1:])),
    }


def roc_curve(patch_score: npt.NDArray[Any], truth: npt.NDArray[Any]) -> pd.DataFrame:
    """Return the true and the false positive rate by threshold.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.

    Returns:
        One row per distinct score, highest first, after a first row with an infinite threshold. Columns threshold,
        false_positive_rate, true_positive_rate and precision (1 if nothing is detected). No rows if the curve is
        undefined (see `undefined_reason`).
    """
    if undefined_reason(truth):
        return pd.DataFrame(columns=list(_CURVE), dtype=np.float64)
    thresholds, positives, negatives = _by_score(patch_score, truth)
    columns = (
        np.concatenate([[np.inf], thresholds]),
        np.concatenate([[0.0], negatives / negatives[-1]]),
        np.concatenate([[0.0], positives / positives[-1]]),
        np.concatenate([[1.0], positives / (positives + negatives)]),
    )
    return pd.DataFrame(dict(zip(_CURVE, columns, strict=True)))


def select_detection_threshold(patch_score: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Return the threshold with the best detection F1 on a selection part.

    Args:
        patch_score: (n,) scores of the patches of the selection part.
        truth: (n,) whether a patch holds a landslide.

    Returns:
        The midpoint of two neighbouring scores. Of equally good thresholds, the one nearest to 0.5; 0.5 itself if it
        is as good, or if there is only one kind of patch.
    """
    if undefined_reason(truth):
        return 0.5
    thresholds, positives, negatives = _by_score(patch_score, truth)
    lower = np.append(thresholds[1:], 0.0)
    candidates = np.append((thresholds + lower) / 2, 0.5)
    f1 = 2 * positives / (positives + negatives + positives[-1])
    f1 = np.append(f1, detection_scores(patch_score, truth)["detection_f1"])
    best = candidates[f1 >= f1.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _by_score(
    patch_score: npt.NDArray[Any], truth: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the distinct scores from high to low, and how many patches of each kind reach them."""
    distinct, place = np.unique(-np.asarray(patch_score, np.float64), return_inverse=True)
    positive = np.asarray(truth) != 0
    positives = np.bincount(place[positive], minlength=len(distinct)).cumsum()
    negatives = np.bincount(place[~positive], minlength=len(distinct)).cumsum()
    return -distinct, positives, negatives
