"""Detection: does a patch hold a landslide at all? The paper's title asks it beside the outline.

The score of a patch is the largest landslide probability of its pixels. It has no parameter, and it agrees with the
segmentation: at a threshold the patch is called positive exactly when the predicted mask at that threshold is not
empty. A patch is truly positive when its mask has a landslide pixel.
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
    """Return the score of every patch, (n,) float64 in [0, 1]; landslide probabilities (n, H, W) of any kind."""
    largest: npt.NDArray[np.float64] = torch.as_tensor(probability).amax(dim=(1, 2)).double().cpu().numpy()
    return largest


def detection_counts(
    patch_score: npt.NDArray[Any], truth: npt.NDArray[Any], threshold: float = 0.5
) -> npt.NDArray[np.int64]:
    """Return the confusion counts of every patch as a whole.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.
        threshold: Score from which it is said to hold one.

    Returns:
        (n, 2, 2) with a single 1 each, rows truth, columns answer: as counts of pixels, for
        `landslide.metrics.bootstrap.score_intervals`.
    """
    counts = np.zeros((len(patch_score), 2, 2), np.int64)
    answer = np.asarray(patch_score) >= threshold
    counts[np.arange(len(counts)), np.asarray(truth, np.int64), answer.astype(np.int64)] = 1
    return counts


def detection_scores(
    patch_score: npt.NDArray[Any], truth: npt.NDArray[Any], threshold: float = 0.5
) -> dict[str, float]:
    """Score the answers at a threshold.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.
        threshold: Score from which it is said to hold one.

    Returns:
        `detection_f1`, `detection_precision`, `detection_recall`, with the conventions of
        `landslide.metrics.counts.scores` where a ratio is 0/0.
    """
    values = scores(confusion_counts(np.asarray(patch_score) >= threshold, np.asarray(truth)))
    return {name: values[source] for source, name in _NAMES.items()}


def one_class(truth: npt.NDArray[Any]) -> str:
    """Say why there is no ROC curve: that all patches or none hold a landslide; empty where both kinds are there."""
    positive = np.asarray(truth) != 0
    if positive.any() and not positive.all():
        return ""
    return "every patch holds a landslide" if positive.any() else "no patch holds a landslide"


def ranking_scores(patch_score: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[str, float]:
    """Score the order of the patches, whatever the threshold.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.

    Returns:
        `detection_auc`, the area under the ROC curve, and `detection_average_precision`, the mean of the precision
        over the steps of recall; nothing where they are not defined (see `one_class`).
    """
    if one_class(truth):
        return {}
    curve = roc_curve(patch_score, truth)
    x, y = curve["false_positive_rate"].to_numpy(), curve["true_positive_rate"].to_numpy()
    return {
        "detection_auc": float(np.trapezoid(y, x)),
        "detection_average_precision": float(np.sum(np.diff(y) * curve["precision"].to_numpy()[1:])),
    }


def roc_curve(patch_score: npt.NDArray[Any], truth: npt.NDArray[Any]) -> pd.DataFrame:
    """Return the rates of true and false alarms by threshold.

    Args:
        patch_score: (n,) scores of the patches.
        truth: (n,) whether a patch holds a landslide.

    Returns:
        One row a distinct score, highest first, behind one of an infinite threshold: threshold,
        false_positive_rate, true_positive_rate and precision (1 where nothing is called positive). No row where the
        curve is not defined (see `one_class`).
    """
    if one_class(truth):
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
    """Return the threshold of the best F1 of the patches on a selection part.

    Args:
        patch_score: (n,) scores of the patches of the selection part.
        truth: (n,) whether a patch holds a landslide.

    Returns:
        The middle between two neighbouring scores; of equally good ones the nearest to 0.5, and 0.5 itself where it
        is as good or where only one kind of patch is there.
    """
    if one_class(truth):
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
