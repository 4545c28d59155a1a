"""Confusion counts, and every score as a pure function of them.

Scores of a fold are computed from counts pooled over all its pixels, never averaged over patches or batches. The
paper's F1 and mIoU are unweighted means over the two classes; scores of the landslide class are reported as well.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

METRIC_NAMES = (
    "f1_macro",
    "miou",
    "f1_landslide",
    "iou_landslide",
    "precision_landslide",
    "recall_landslide",
    "accuracy",
)


def confusion_counts(prediction: Any, mask: Any) -> Any:
    """Count pixels by true and predicted class.

    Args:
        prediction: Predicted class, boolean or integers 0 and 1, any shape; a NumPy array or a torch tensor.
        mask: True class, same shape and kind.

    Returns:
        (2, 2) int64: rows truth, columns prediction; class 0 is background, class 1 landslide. Arrays give a NumPy
        array; tensors give a tensor on the same device, without synchronising with it.

    Raises:
        ValueError: If the shapes differ.
    """
    if tuple(prediction.shape) != tuple(mask.shape):
        raise ValueError(f"prediction {tuple(prediction.shape)} and mask {tuple(mask.shape)} differ in shape")
    predicted, true = prediction != 0, mask != 0
    hits = (predicted & true).sum()
    predicted_total, true_total = predicted.sum(), true.sum()
    misses, false_alarms = true_total - hits, predicted_total - hits
    size = int(np.prod(prediction.shape))
    cells = [size - hits - misses - false_alarms, false_alarms, misses, hits]
    if isinstance(hits, np.integer):
        return np.array(cells, np.int64).reshape(2, 2)
    import torch

    return torch.stack(cells).reshape(2, 2)


def scores(counts: npt.ArrayLike) -> dict[str, float]:
    """Compute every score from pooled counts.

    Args:
        counts: (2, 2) counts, rows truth, columns prediction, as returned by `confusion_counts`.

    Returns:
        `METRIC_NAMES` with values in [0, 1]. `f1_macro` and `miou` are means over both classes (the paper's F1
        and mIoU). A class that neither occurs nor is predicted counts as 1, as in the authors' protocol; any
        other ratio 0/0 counts as 0.
    """
    return {name: float(value) for name, value in score_arrays(counts).items()}


def patch_counts(probability: Any, masks: Any, threshold: float = 0.5) -> npt.NDArray[np.int64]:
    """Return the confusion counts of every patch at a threshold.

    Args:
        probability: (n, H, W) landslide probabilities: an array, or a tensor, which is counted on its own device.
        masks: (n, H, W) masks 0 and 1 of the same kind.
        threshold: A pixel with at least this probability is predicted as landslide.

    Returns:
        (n, 2, 2), rows truth, columns prediction.
    """
    import torch

    if tuple(probability.shape) != tuple(masks.shape):
        raise ValueError(f"probability {tuple(probability.shape)} and masks {tuple(masks.shape)} differ in shape")
    predicted, true = (torch.as_tensor(x).flatten(1) for x in (probability >= threshold, masks != 0))
    hits, alarms, positives = (x.sum(dim=1) for x in (predicted & true, predicted, true))
    cells = [predicted.shape[1] - alarms - positives + hits, alarms - hits, positives - hits, hits]
    counts: npt.NDArray[np.int64] = torch.stack(cells, dim=1).reshape(-1, 2, 2).cpu().numpy()
    return counts


def score_arrays(counts: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
    """Compute every score of many tables of counts at once.

    Args:
        counts: (..., 2, 2) counts, rows truth, columns prediction.

    Returns:
        The scores of `scores`, each an array (...).
    """
    table = np.asarray(counts, dtype=np.float64)
    true_positives = np.diagonal(table, axis1=-2, axis2=-1)
    false_positives = table.sum(axis=-2) - true_positives
    false_negatives = table.sum(axis=-1) - true_positives
    union = true_positives + false_positives + false_negatives
    absent = union == 0

    def ratio(numerator: npt.NDArray[np.float64], denominator: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        quotient = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
        return np.where(absent, 1.0, quotient)

    f1 = ratio(2 * true_positives, 2 * true_positives + false_positives + false_negatives)
    iou = ratio(true_positives, union)
    precision = ratio(true_positives, true_positives + false_positives)
    recall = ratio(true_positives, true_positives + false_negatives)
    total = table.sum(axis=(-2, -1))
    correct = true_positives.sum(axis=-1)
    return {
        "f1_macro": f1.mean(axis=-1),
        "miou": iou.mean(axis=-1),
        "f1_landslide": f1[..., 1],
        "iou_landslide": iou[..., 1],
        "precision_landslide": precision[..., 1],
        "recall_landslide": recall[..., 1],
        "accuracy": np.divide(correct, total, out=np.ones_like(total), where=total > 0),
    }


def mean_and_std(folds: list[dict[str, float]]) -> dict[str, float]:
    """Aggregate the scores of the folds.

    Args:
        folds: One dictionary of scores per fold, with equal keys.

    Returns:
        `<name>`, the unweighted mean over folds, and `<name>_std`, the population standard deviation (ddof 0,
        as in the authors' logs), for every name.
    """
    result: dict[str, float] = {}
    for name in folds[0]:
        values = np.array([fold[name] for fold in folds])
        result[name] = float(values.mean())
        result[f"{name}_std"] = float(values.std())
    return result
