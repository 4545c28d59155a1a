"""Evaluation: the scores of a fold, of a cross-validation, and of trivial answers to compare with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.cache import BandCache
from landslide.comparison import refuse_seen
from landslide.ensemble import Ensemble
from landslide.metrics import METRIC_NAMES, confusion_counts, mean_and_std, scores, threshold_counts
from landslide.prediction import predict_rows


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


def predict_unseen(
    ensemble: Ensemble,
    cache: BandCache,
    table: pd.DataFrame,
    rows: npt.NDArray[np.int64],
    known: pd.DataFrame,
    *,
    model: str,
) -> npt.NDArray[np.float32]:
    """Predict patches out of fold: a patch of fold k by the member that left fold k out.

    Where the ensemble has no such member, all members answer together; they must not have seen the patch then.

    Args:
        ensemble: The fold models.
        cache: Their bands of the patches of `table`.
        table: Fold table.
        rows: (n,) rows of it to predict, ascending.
        known: Every patch that the members, or those that they started from, know, with its fold.
        model: Name of the model for messages.

    Returns:
        (n, 128, 128) landslide probabilities.

    Raises:
        ComparisonError: If one of the patches was in the training part of the member that predicts it.
    """
    probability = np.zeros((len(rows), *cache.masks.shape[1:]), np.float32)
    members = {m.fold: (m, network) for m, network in zip(ensemble.members, ensemble.models, strict=True)}
    fold_of_row = table["fold"].to_numpy()[rows]
    for fold in np.unique(fold_of_row):
        chosen = fold_of_row == fold
        answering = [members[fold]] if fold in members else list(members.values())
        refuse_seen(table, rows[chosen], int(fold) if fold in members else 0, known, model)
        for member, network in answering:
            predicted = predict_rows(
                network, cache, rows[chosen], member.spec.bands, device=ensemble.device, prediction=member.prediction
            )
            probability[chosen] += predicted / len(answering)
    return probability
