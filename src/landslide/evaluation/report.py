"""Tables and figures of the folds and of the cross-validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from landslide.bands.cache import BandCache
from landslide.evaluation.figures import (
    calibration_figure,
    learning_curves_figure,
    precision_recall_figure,
    prediction_figure,
    rgb_composite,
    roc_figure,
    thresholds_figure,
)
from landslide.evaluation.scores import (
    FoldEvaluation,
    patch_report,
    pooled_calibration,
    pooled_thresholds,
    score_table,
    threshold_table,
)
from landslide.metrics.detection import roc_curve

History = Sequence[Mapping[str, float]]

_TOGETHER = "all scored patches, out of fold"


def report_tables(
    fold_table: pd.DataFrame, folds: Mapping[int, FoldEvaluation], histories: Mapping[int, History]
) -> dict[str, pd.DataFrame]:
    """Return the tables of a cross-validation.

    Args:
        fold_table: The patches with their folds.
        folds: The evaluations of the folds that were trained.
        histories: The epochs' records of `landslide.training.fold` by fold.

    Returns:
        `scores` by fold, `learning_curves` by fold and epoch, `patches` (see
        `landslide.evaluation.scores.patch_report`), `thresholds` (`threshold_table`), `calibration` and `roc` of all
        patches together.
    """
    patches = patch_report(fold_table, folds)
    truth = (patches["positive_pixels"] > 0).to_numpy()
    return {
        "scores": score_table({fold: one.scores for fold, one in folds.items()}).reset_index(names="fold"),
        "learning_curves": pd.concat(
            [pd.DataFrame(records).assign(fold=f"fold {fold}") for fold, records in histories.items()]
        ),
        "patches": patches,
        "thresholds": pooled_thresholds(folds),
        "calibration": pooled_calibration(folds).table(),
        "roc": roc_curve(patches["detection_score"].to_numpy(), truth),
    }


def report_figures(
    tables: Mapping[str, pd.DataFrame], folds: Mapping[int, FoldEvaluation], histories: Mapping[int, History]
) -> dict[str, Figure]:
    """Draw the tables of a cross-validation.

    Args:
        tables: The result of `report_tables`.
        folds: The evaluations by fold.
        histories: The epochs' records by fold.

    Returns:
        Figures by name: precision_recall, learning_curves, thresholds, calibration, and roc if that table has rows.
    """
    curves = {f"fold {fold}": threshold_table(one.threshold_counts) for fold, one in folds.items()}
    figures = {
        "precision_recall": precision_recall_figure({**curves, _TOGETHER: tables["thresholds"]}),
        "learning_curves": learning_curves_figure({f"fold {fold}": records for fold, records in histories.items()}),
        "thresholds": thresholds_figure(tables["thresholds"], [one.scores["threshold"] for one in folds.values()]),
        "calibration": calibration_figure({_TOGETHER: tables["calibration"]}),
    }
    return figures | {"roc": roc_figure({_TOGETHER: tables["roc"]})} if len(tables["roc"]) else figures


def fold_figures(fold: int, evaluation: FoldEvaluation, history: History) -> dict[str, Figure]:
    """Draw precision_recall and learning_curves of one fold."""
    label = f"fold {fold}"
    return {
        "precision_recall": precision_recall_figure({label: threshold_table(evaluation.threshold_counts)}),
        "learning_curves": learning_curves_figure({label: history}),
    }


def example_rows(pixels: npt.ArrayLike, number: int) -> npt.NDArray[np.int64]:
    """Choose patches to draw: evenly spaced among those with landslides, from few landslide pixels to many.

    If no patch has landslides, all patches are candidates.

    Args:
        pixels: (n,) landslide pixels of the patches.
        number: Maximum number of patches.
    """
    pixels = np.asarray(pixels)
    order = np.argsort(pixels, kind="stable")
    candidates = order[pixels[order] > 0] if pixels.any() else order
    chosen = np.linspace(0, len(candidates) - 1, min(number, len(candidates))).round().astype(int)
    return np.asarray(candidates[chosen])


def overlays_figure(
    cache: BandCache,
    fold_table: pd.DataFrame,
    probability: Mapping[int, npt.NDArray[Any]],
    rows: Sequence[int],
) -> Figure:
    """Draw predictions of patches.

    Args:
        cache: Bands and masks of all patches.
        fold_table: The patches.
        probability: Landslide probabilities (H, W) by row, for all drawn rows at least.
        rows: The rows to draw, see `example_rows`.
    """
    return prediction_figure(
        [
            (
                f"patch {fold_table['number'].iloc[row]}",
                rgb_composite(np.asarray(cache.bands[row], np.float32), cache.band_names),
                cache.masks[row],
                probability[row],
            )
            for row in rows
        ]
    )
