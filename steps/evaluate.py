"""Evaluate: predict every patch with the model that has not seen it, score, draw, record."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from torch import Tensor
from zenml import step

from landslide.bands.cache import BandCache
from landslide.evaluation.report import example_rows, fold_figures, overlays_figure, report_figures, report_tables
from landslide.evaluation.scores import (
    FoldEvaluation,
    FoldEvaluator,
    cross_validated,
    in_scene_scores,
    patch_report,
    pooled_scores,
    prediction_variants,
    selection_gap,
)
from landslide.folds.parts import HoldOut, fold_parts
from landslide.folds.table import folds_without_landslides
from landslide.inference.batches import predict_batches
from landslide.inference.ensemble import Ensemble
from landslide.inference.prediction import number_of_heads
from landslide.metrics.detection import undefined_reason
from landslide.tracking import runs
from steps.code_dependencies import code_digest
from steps.data_access import PatchSource
from steps.provenance import configuration_text, tracking_client
from steps.settings import EvaluationSettings

logger = logging.getLogger(__name__)

_SCORES = "scores.json"


# Never cached: only MLflow knows what it has. The tag `evaluation` says of what its scores are.
@step(enable_cache=False)
def evaluate(
    fold_runs: list[str],
    trained_folds: list[int],
    fold_table: pd.DataFrame,
    patches: PatchSource,
    cross_validation_run: str,
    evaluation: EvaluationSettings,
    hold_out: HoldOut = HoldOut(),  # noqa: B008 (frozen)
) -> Annotated[dict[str, Any], "scores"]:
    """Score the cross-validation, unless its run has the scores of these folds, settings and code.

    Args:
        fold_runs: Ids of the runs of the trained folds; empty for one that could not be trained.
        trained_folds: Their numbers, in the same order; patches of other folds are neither predicted nor scored.
        fold_table: The patches with their folds.
        patches: The patches and their bands.
        cross_validation_run: Id of the parent run.
        evaluation: What is drawn, and in which variants is predicted.
        hold_out: What was held out beside the test folds: an in-scene part is scored too.

    Returns:
        `folds`: scores by fold number (as text); `mean`: cross-validated scores with `_std`; `pooled`: scores of all
        patches together with their intervals. Empty without a run, or if a fold could not be trained.

    Raises:
        RegistryError: If a run was deleted.
    """
    if not cross_validation_run or not all(fold_runs):
        return {}
    client = tracking_client()
    runs.refuse_deleted(client, cross_validation_run)
    inputs = [fold_runs, trained_folds, asdict(evaluation), code_digest("steps.evaluate")]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    if client.get_run(cross_validation_run).data.tags.get("evaluation") == key:
        logger.info("The scores are those of MLflow run %s.", cross_validation_run)
        recorded: dict[str, Any] = runs.fetch_json(cross_validation_run, _SCORES)
        return recorded
    cache = patches.open_bands(fold_table)
    folds: dict[int, FoldEvaluation] = {}
    histories: dict[int, list[dict[str, float]]] = {}
    scored = np.flatnonzero(fold_table["fold"].isin(trained_folds))
    probability: dict[int, np.ndarray] = {}  # of the patches that are drawn
    for fold, run_id in zip(trained_folds, fold_runs, strict=True):
        rows = np.flatnonzero(fold_table["fold"] == fold)
        with tempfile.TemporaryDirectory() as temporary:
            ensemble = Ensemble(*runs.fetch_members(run_id, Path(temporary)))
        member = ensemble.members[0]
        in_scene = np.flatnonzero(fold_parts(fold_table, fold, hold_out).in_scene)
        drawn = {*_drawn(fold_table, scored, evaluation), *_drawn(fold_table, rows, evaluation)}
        evaluator = FoldEvaluator(threshold=member.threshold, detection_threshold=member.detection_threshold)
        for part, predicted, masks in _predict(ensemble, cache, rows, evaluation):
            evaluator.add(predicted, masks)
            answers = zip(rows[part].tolist(), predicted[""], strict=True)
            probability |= {row: answer.cpu().numpy() for row, answer in answers if row in drawn}
        folds[fold] = evaluator.evaluation()
        histories[fold] = runs.epoch_records(client, run_id)
        run = client.get_run(run_id).data
        selected = float(run.tags["selected_epoch"])
        folds[fold].scores.update(selection_gap(histories[fold], selected, run.params["training.select_by"]))
        if len(in_scene):
            folds[fold].scores.update(_score_in_scene(client, run_id, ensemble, cache, fold_table, in_scene))
        runs.log_scores(client, run_id, folds[fold].scores)
        _note_undefined(client, run_id, folds[fold].truth)
        counts = pd.DataFrame(folds[fold].counts.sum(axis=0))
        runs.log_text(client, run_id, counts.to_csv(index=False), "confusion_counts.csv")
        if evaluation.figures:
            overlays = overlays_figure(cache, fold_table, probability, _drawn(fold_table, rows, evaluation))
            figures = {"predictions": overlays, **fold_figures(fold, folds[fold], histories[fold])}
            runs.log_figures(client, run_id, figures)
    tables = report_tables(fold_table, folds, histories)
    _note_empty_folds(client, cross_validation_run, fold_table, trained_folds)
    mean, pooled = cross_validated({fold: one.scores for fold, one in folds.items()}), pooled_scores(tables["patches"])
    runs.log_scores(client, cross_validation_run, mean | pooled)
    _note_undefined(client, cross_validation_run, (tables["patches"]["positive_pixels"] > 0).to_numpy())
    if evaluation.figures:
        overlays = overlays_figure(cache, fold_table, probability, _drawn(fold_table, scored, evaluation))
        figures = {"predictions": overlays, **report_figures(tables, folds, histories)}
        runs.log_figures(client, cross_validation_run, figures)
    for name, table in tables.items():
        runs.log_text(client, cross_validation_run, table.to_csv(index=False), f"reports/{name}.csv")
    # Beside the recorded configuration, which a changed evaluation does not change.
    runs.log_text(client, cross_validation_run, configuration_text(evaluation=evaluation), "evaluation.yaml")
    scores = {"folds": {str(fold): one.scores for fold, one in folds.items()}, "mean": mean, "pooled": pooled}
    runs.log_text(client, cross_validation_run, json.dumps(scores, indent=2), _SCORES)
    runs.describe(client, cross_validation_run, scores)
    runs.finish(client, cross_validation_run)
    evaluated = {"evaluated": datetime.now(UTC).isoformat(), "evaluation": key}
    runs.set_tags(client, cross_validation_run, evaluated)
    return scores


def _predict(
    ensemble: Ensemble, cache: BandCache, rows: np.ndarray, evaluation: EvaluationSettings
) -> Iterator[tuple[slice, dict[str, Tensor], Tensor]]:
    """Predict the test fold batch by batch with the fold's network, in all variants that are scored."""
    member, network = ensemble.members[0], ensemble.models[0]
    variants = prediction_variants(
        member.prediction,
        several_heads=number_of_heads(network, len(member.spec.bands), ensemble.device) > 1,
        test_time_augmentation=evaluation.test_time_augmentation,
    )
    return predict_batches(network, cache, rows, member.spec.bands, variants, device=ensemble.device)


def _score_in_scene(
    client: runs.MlflowClient,
    run_id: str,
    ensemble: Ensemble,
    cache: BandCache,
    fold_table: pd.DataFrame,
    rows: np.ndarray,
) -> dict[str, float]:
    """Score the in-scene part with the fold's network and thresholds, and record the counts of its patches."""
    member, network = ensemble.members[0], ensemble.models[0]
    evaluator = FoldEvaluator(threshold=member.threshold)
    own_way = {"": member.prediction}
    for _, predicted, masks in predict_batches(
        network, cache, rows, member.spec.bands, own_way, device=ensemble.device
    ):
        evaluator.add(predicted, masks)
    evaluated = evaluator.evaluation()
    counts = patch_report(fold_table.iloc[rows].assign(fold=member.fold), {member.fold: evaluated})
    runs.log_text(client, run_id, counts.to_csv(index=False), "in_scene_patches.csv")
    return in_scene_scores(evaluated)


def _drawn(fold_table: pd.DataFrame, rows: np.ndarray, evaluation: EvaluationSettings) -> list[int]:
    """Return the rows of the patches that are drawn."""
    if not evaluation.figures:
        return []
    chosen = example_rows(fold_table["positive_pixels"].iloc[rows].to_numpy(), evaluation.overlays)
    return [int(row) for row in rows[chosen]]


def _note_undefined(client: runs.MlflowClient, run_id: str, truth: np.ndarray) -> None:
    """Say in a tag why a run has no area under the ROC curve."""
    if reason := undefined_reason(truth):
        runs.set_tags(client, run_id, {"detection_undefined": reason})


def _note_empty_folds(client: runs.MlflowClient, run_id: str, fold_table: pd.DataFrame, scored: list[int]) -> None:
    """Name the scored folds without landslides: their scores of the landslide class are a convention."""
    empty = [str(fold) for fold in folds_without_landslides(fold_table) if fold in scored]
    runs.set_tags(client, run_id, {"folds_without_landslides": ", ".join(empty) or "none"})
    if empty:
        logger.warning(
            "Without any landslide: fold %s. F1 and IoU of the landslide class are 1 there if nothing is predicted, 0 "
            "otherwise, and enter the means.",
            ", ".join(empty),
        )
