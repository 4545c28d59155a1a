"""Evaluation: the scores of a fold, of a cross-validation, and of trivial answers to compare with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.metrics import METRIC_NAMES, confusion_counts, mean_and_std, scores, threshold_counts


def score_fold(
    probability: npt.NDArray[Any], masks: npt.NDArray[Any], threshold: float
) -> tuple[dict[str, float], npt.NDArray[np.int64]]:
    """Score the predictions of a test fold.

    Args:
        probability: (n, H, W) landslide probabilities.
        masks: (n, H, W) masks 0 and 1.
        threshold: The tuned threshold, chosen elsewhere (see `landslide.prediction.select_threshold`).

    Returns:
        Every score of `METRIC_NAMES` at the usual threshold 0.5, and as `<name>_tuned` at the tuned one, with
        `threshold` itself; and the (2, 2) counts at 0.5.
    """
    counts = confusion_counts(probability >= 0.5, masks)
    tuned = scores(confusion_counts(probability >= threshold, masks))
    named = {f"{name}_tuned": value for name, value in tuned.items()}
    return scores(counts) | named | {"threshold": threshold}, counts


def cross_validated(folds: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Aggregate the scores of the folds: `<name>` is the mean, `<name>_std` the population standard deviation."""
    return mean_and_std([dict(values) for _, values in sorted(folds.items())])


def score_table(folds: Mapping[int, Mapping[str, float]]) -> pd.DataFrame:
    """Return a table of scores: one row a fold, then mean and std; the columns are `METRIC_NAMES`."""
    table = pd.DataFrame(
        [[values[name] for name in METRIC_NAMES] for _, values in sorted(folds.items())],
        index=[f"fold {fold}" for fold in sorted(folds)],
        columns=list(METRIC_NAMES),
    )
    table.loc["mean"] = table.mean()
    table.loc["std"] = table.iloc[:-1].std(ddof=0)
    return table


def precision_recall(probability: npt.NDArray[Any], masks: npt.NDArray[Any], n_thresholds: int = 200) -> pd.DataFrame:
    """Return precision and recall of the landslide class by threshold.

    Returns:
        Columns threshold, precision, recall, f1_landslide; n_thresholds rows.
    """
    thresholds, counts = threshold_counts(probability, masks, n_thresholds)
    values = [scores(table) for table in counts]
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "precision": [v["precision_landslide"] for v in values],
            "recall": [v["recall_landslide"] for v in values],
            "f1_landslide": [v["f1_landslide"] for v in values],
        }
    )
