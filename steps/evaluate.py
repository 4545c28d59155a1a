"""Evaluate: predict every patch with the model that has not seen it, score, draw, record."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from zenml import step

from landslide import tracking
from landslide.bands import BandSettings
from landslide.cache import BandCache
from landslide.ensemble import Ensemble
from landslide.evaluation import cross_validated, precision_recall, score_fold, score_table
from landslide.figures import learning_curves_figure, precision_recall_figure, prediction_figure, rgb_composite
from landslide.prediction import predict_rows
from steps.access import open_bands
from steps.code import depends_on_code_of
from steps.lineage import tracking_client
from steps.settings import DataSettings, EvaluationSettings


@step(cache_policy=depends_on_code_of("steps.evaluate"))
def evaluate(
    fold_runs: list[str],
    trained_folds: list[int],
    fold_table: pd.DataFrame,
    data_version: str,
    cross_validation_run: str,
    data: DataSettings,
    bands: BandSettings,
    evaluation: EvaluationSettings,
) -> Annotated[dict[str, Any], "scores"]:
    """Score the cross-validation.

    Args:
        fold_runs: Ids of the runs of the trained folds; empty for one that could not be trained.
        trained_folds: Their numbers, in the same order; patches of other folds are neither predicted nor scored.
        fold_table: The patches with their folds.
        data_version: Digest of the data set.
        cross_validation_run: Id of the parent run.
        data: Where the patches are.
        bands: Band settings.
        evaluation: What is drawn.

    Returns:
        `folds`: scores by fold number (as text); `mean`: cross-validated scores with `_std`. Empty without a run,
        or if a fold could not be trained.
    """
    if not cross_validation_run or not all(fold_runs):
        return {}
    client = tracking_client()
    cache = open_bands(data, bands, fold_table, data_version)
    folds: dict[int, dict[str, float]] = {}
    probability = np.zeros(cache.masks.shape, np.float32)
    curves, histories = {}, {}
    for fold, run_id in zip(trained_folds, fold_runs, strict=True):
        rows = np.flatnonzero(fold_table["fold"] == fold)
        with tempfile.TemporaryDirectory() as temporary:
            ensemble = Ensemble(*tracking.fetch_members(run_id, Path(temporary)))
        member = ensemble.members[0]
        probability[rows] = predict_rows(ensemble.models[0], cache, rows, member.spec.bands, device=ensemble.device)
        folds[fold], counts = score_fold(probability[rows], cache.masks[rows], member.threshold)
        label = f"fold {fold}"
        curves[label] = precision_recall(probability[rows], cache.masks[rows])
        histories[label] = tracking.epoch_records(client, run_id)
        tracking.log_scores(client, run_id, folds[fold])
        tracking.log_text(client, run_id, pd.DataFrame(counts).to_csv(index=False), "confusion_counts.csv")
        tracking.log_figures(
            client,
            run_id,
            {
                "predictions": _predictions(cache, fold_table, probability, rows, evaluation.overlays),
                "precision_recall": precision_recall_figure({label: curves[label]}),
                "learning_curves": learning_curves_figure({label: histories[label]}),
            },
        )
    mean = cross_validated(folds)
    tracking.log_scores(client, cross_validation_run, mean)
    scored = np.flatnonzero(fold_table["fold"].isin(trained_folds))
    pooled = precision_recall(probability[scored], cache.masks[scored])
    figures = {
        "predictions": _predictions(cache, fold_table, probability, scored, evaluation.overlays),
        "precision_recall": precision_recall_figure({**curves, "all scored patches, out of fold": pooled}),
        "learning_curves": learning_curves_figure(histories),
    }
    tracking.log_figures(client, cross_validation_run, figures)
    for name, text in (
        ("scores.csv", score_table(folds).to_csv(index_label="fold")),
        ("precision_recall.csv", pooled.to_csv(index=False)),
        ("learning_curves.csv", _learning_curves(histories).to_csv(index=False)),
    ):
        tracking.log_text(client, cross_validation_run, text, f"reports/{name}")
    tracking.set_tags(client, cross_validation_run, {"evaluated": datetime.now(UTC).isoformat()})
    tracking.finish(client, cross_validation_run)
    return {"folds": {str(fold): values for fold, values in folds.items()}, "mean": mean}


def _learning_curves(histories: dict[str, list[dict[str, float]]]) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(records).assign(fold=label) for label, records in histories.items()])


def _predictions(
    cache: BandCache, fold_table: pd.DataFrame, probability: np.ndarray, rows: np.ndarray, number: int
) -> Any:
    """Draw patches spread evenly over those with landslides, from few pixels to many."""
    landslides = cache.masks[rows].sum(axis=(1, 2))
    order = rows[np.argsort(landslides, kind="stable")]
    candidates = order[np.sort(landslides) > 0] if (landslides > 0).any() else order
    shown = candidates[np.linspace(0, len(candidates) - 1, min(number, len(candidates))).round().astype(int)]
    return prediction_figure(
        [
            (
                f"patch {fold_table['number'].iloc[row]}",
                rgb_composite(np.asarray(cache.bands[row], np.float32), cache.band_names),
                cache.masks[row],
                probability[row],
            )
            for row in shown
        ]
    )
