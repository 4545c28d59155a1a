"""Scores of a fold and of a cross-validation."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.inference.prediction import PredictionSettings
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.metrics.bootstrap import named_intervals, resampling_blocks, score_intervals
from landslide.metrics.calibration import Calibration, calibration
from landslide.metrics.counts import METRIC_NAMES, mean_and_std, patch_counts, score_arrays, scores
from landslide.metrics.detection import detection_counts, detection_scores, patch_scores, ranking_scores
from landslide.metrics.selection import recorded_tests, selected_test
from landslide.metrics.thresholds import threshold_counts
from landslide.schema import POSITION_COLUMNS

SCORES: dict[str, str] = {
    "f1_macro": "Mean of the F1 of both classes: the paper's F1.",
    "miou": "Mean of the IoU of both classes: the paper's mIoU.",
    "f1_landslide": "F1 of the landslide class.",
    "iou_landslide": "IoU of the landslide class.",
    "precision_landslide": "Share of the predicted landslide pixels that are true.",
    "recall_landslide": "Share of the true landslide pixels that are predicted.",
    "accuracy": "Share of all pixels whose class is predicted.",
    "threshold": "Landslide probability from which a pixel is a landslide in `_tuned`.",
    "detection_f1": "F1 of patches that hold a landslide; a patch scores as its most probable pixel.",
    "detection_precision": "Share of the patches said to hold a landslide that do.",
    "detection_recall": "Share of the patches with a landslide that are found.",
    "detection_auc": "Area under the ROC curve of the patch scores.",
    "detection_average_precision": "Precision of the patch scores, averaged over the steps of recall.",
    "detection_threshold": "Score from which a patch is said to hold a landslide in `_tuned`.",
    "expected_calibration_error": "Mean distance of predicted probability and observed share, weighted by pixels.",
    "brier_score": "Mean squared distance of probability and truth.",
}
"""What each recorded score means (docs/reference/metrics.md)."""
SUFFIXES: dict[str, str] = {
    "_std": "Population standard deviation over the folds.",
    "_tuned": "At the threshold that was chosen on the selection part.",
    "_head_average": "Predicted by the average of all heads.",
    "_tta": "Predicted with the test-time augmentation of the evaluation.",
    "_pooled": "Of all scored patches together.",
    "_low": "Lower end of the 95 % interval of the pooled score.",
    "_high": "Upper end of the 95 % interval of the pooled score.",
    "_test_selected": "At the epoch that is best on the test fold.",
    "_in_scene": "Of the in-scene part, held-out ground like that of the training; also as `_tuned_in_scene`.",
    "_selection_gap": "By how much that exceeds the epoch that was chosen on inner validation.",
}
"""What the endings of a score's name mean."""
INTERVAL_NAMES = ("f1_macro", "miou", "f1_landslide")
"""The scores whose confidence intervals are recorded."""

_N_THRESHOLDS = 200


def prediction_variants(
    own: PredictionSettings, *, several_heads: bool, test_time_augmentation: TestTimeAugmentation = "none"
) -> dict[str, PredictionSettings]:
    """Return the prediction variants in which a network is scored, by suffix of the score names.

    Args:
        own: How the network predicts.
        several_heads: Whether it has more than one head.
        test_time_augmentation: A test-time augmentation to score as well.

    Returns:
        The network's own settings as "", and "_head_average" and "_tta" if they differ from these.
    """
    variants = {"": own}
    if several_heads:
        variants["_head_average"] = PredictionSettings(heads="average", augmentation=own.augmentation)
    if test_time_augmentation != "none":
        variants["_tta"] = PredictionSettings(heads=own.heads, augmentation=test_time_augmentation)
    return {name: variant for name, variant in variants.items() if not name or variant != own}


@dataclass(frozen=True)
class FoldEvaluation:
    """The evaluation of a test fold.

    Attributes:
        scores: Every score by its metric name.
        counts: (n, 2, 2) confusion counts of every patch at threshold 0.5, rows truth.
        patch_scores: (n,) detection score of every patch.
        threshold_counts: (thresholds, 2, 2) counts of the fold by threshold.
        calibration: Calibration sums of the fold.
    """

    scores: dict[str, float]
    counts: npt.NDArray[np.int64]
    patch_scores: npt.NDArray[np.float64]
    threshold_counts: npt.NDArray[np.int64]
    calibration: Calibration

    @property
    def truth(self) -> npt.NDArray[np.bool_]:
        """Which patches hold a landslide, (n,)."""
        return holds_landslide(self.counts)


def holds_landslide(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which patches have a landslide pixel, (n,) boolean, from their counts (n, 2, 2)."""
    return np.asarray(counts[:, 1].sum(axis=-1) > 0)


class FoldEvaluator:
    """Scores the predictions of a test fold batch by batch, and keeps only counts.

    Args:
        threshold: The tuned threshold, chosen on other patches (see `landslide.metrics.thresholds.select_threshold`).
        detection_threshold: The tuned threshold of detection, if one was chosen.
    """

    def __init__(self, *, threshold: float, detection_threshold: float | None = None) -> None:
        self._threshold, self._detection_threshold = threshold, detection_threshold
        self._totals: dict[str, npt.NDArray[np.int64]] = {}
        # Arrays that grow in place: many small allocations between those of the batches would fragment the memory.
        self._patch_counts, self._patch_scores = array("q"), array("d")
        self._swept: npt.NDArray[np.int64] = np.zeros((_N_THRESHOLDS, 2, 2), np.int64)
        self._calibration: Calibration | None = None

    def add(self, predicted: Mapping[str, Any], masks: Any) -> None:
        """Add a batch.

        Args:
            predicted: (B, H, W) landslide probabilities by variant (see `prediction_variants`), the same variants in
                every batch: arrays, or tensors, which are counted on their own device.
            masks: (B, H, W) masks 0 and 1 of the same kind.
        """
        probability = predicted[""]
        plain = patch_counts(probability, masks)
        self._patch_counts.frombytes(plain.tobytes())
        self._patch_scores.frombytes(patch_scores(probability).tobytes())
        totals = {"": plain, "_tuned": patch_counts(probability, masks, self._threshold)}
        totals |= {variant: patch_counts(answer, masks) for variant, answer in predicted.items() if variant}
        for variant, counts in totals.items():
            self._totals[variant] = self._totals.get(variant, 0) + counts.sum(axis=0)
        self._swept += threshold_counts(probability, masks, _N_THRESHOLDS)[1]
        calibrated = calibration(probability, masks)
        self._calibration = calibrated if self._calibration is None else self._calibration + calibrated

    def evaluation(self) -> FoldEvaluation:
        """Return the evaluation of all batches, in the order in which they were added.

        Scores: every one of `METRIC_NAMES` at the usual threshold 0.5, as `<name>_tuned` at the tuned one, and as
        `<name>_head_average` and `<name>_tta` at 0.5 in these variants of predicting; `threshold` itself; the scores of
        `landslide.metrics.detection` and `landslide.metrics.calibration`.
        """
        if self._calibration is None:
            raise ValueError("There is no patch to score.")
        counts = np.array(self._patch_counts, np.int64).reshape(-1, 2, 2)
        patch_score = np.array(self._patch_scores, np.float64)
        truth = holds_landslide(counts)
        values: dict[str, float] = {}
        for variant, total in self._totals.items():
            values |= _suffixed(scores(total), variant)
        values["threshold"] = self._threshold
        values |= detection_scores(patch_score, truth) | ranking_scores(patch_score, truth)
        if self._detection_threshold is not None:
            values |= _suffixed(detection_scores(patch_score, truth, self._detection_threshold), "_tuned")
            values["detection_threshold"] = self._detection_threshold
        values |= self._calibration.scores()
        return FoldEvaluation(values, counts, patch_score, self._swept, self._calibration)


def in_scene_scores(evaluation: FoldEvaluation) -> dict[str, float]:
    """Return the scores of a fold's in-scene part: `<name>_in_scene` and `<name>_tuned_in_scene` of `METRIC_NAMES`.

    Args:
        evaluation: The evaluation of its patches by the same network and thresholds as the test fold.
    """
    names = [f"{name}{ending}" for ending in ("", "_tuned") for name in METRIC_NAMES]
    return _suffixed({name: evaluation.scores[name] for name in names}, "_in_scene")


def _suffixed(values: Mapping[str, float], suffix: str) -> dict[str, float]:
    return {f"{name}{suffix}": value for name, value in values.items()}


def cross_validated(folds: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Aggregate the scores of the folds: `<name>` is the mean, `<name>_std` the population standard deviation.

    A score that is undefined in some fold is left out: for example the area under the ROC curve, if all patches of a
    fold hold a landslide.
    """
    defined = set.intersection(*(set(values) for values in folds.values()))
    first = folds[min(folds)]
    return mean_and_std(
        [{name: values[name] for name in first if name in defined} for _, values in sorted(folds.items())]
    )


def patch_report(table: pd.DataFrame, folds: Mapping[int, FoldEvaluation]) -> pd.DataFrame:
    """Return the counts and the detection score of every scored patch.

    Args:
        table: Fold table, all patches.
        folds: The evaluations by fold, each in the order of the table.

    Returns:
        One row per patch of these folds, in the order of the table: number, scene, row, column, fold, block (see
        `landslide.metrics.bootstrap.resampling_blocks`), positive_pixels, tn, fp, fn, tp (pixels at threshold 0.5) and
        detection_score.
    """
    scored = table[table["fold"].isin(folds)].reset_index(drop=True)
    report = scored[["number", *POSITION_COLUMNS, "fold"]].assign(block=resampling_blocks(scored))
    counts, patch_score = np.zeros((len(report), 2, 2), np.int64), np.zeros(len(report))
    for fold, evaluation in folds.items():
        rows = (scored["fold"] == fold).to_numpy()
        counts[rows], patch_score[rows] = evaluation.counts, evaluation.patch_scores
    report = report.assign(positive_pixels=counts[:, 1].sum(axis=-1))
    report[["tn", "fp", "fn", "tp"]] = counts.reshape(-1, 4)
    return report.assign(detection_score=patch_score)


def pooled_scores(report: pd.DataFrame, *, seed: int = 0) -> dict[str, float]:
    """Score all patches together, each predicted by the fold model that has not seen it.

    Args:
        report: The result of `patch_report`.
        seed: Seed of the bootstrap.

    Returns:
        `<name>_pooled` for `INTERVAL_NAMES` and `detection_f1`, and the ends of the 95 % interval, `<name>_low` and
        `<name>_high`, if there are at least two blocks; `detection_auc_pooled` and
        `detection_average_precision_pooled` if there are patches with and without landslides.
    """
    counts = report[["tn", "fp", "fn", "tp"]].to_numpy(np.int64).reshape(-1, 2, 2)
    blocks, patch_score = report["block"].to_numpy(), report["detection_score"].to_numpy()
    truth = holds_landslide(counts)
    values = named_intervals(score_intervals(counts, blocks, seed=seed), INTERVAL_NAMES)
    detected = score_intervals(detection_counts(patch_score, truth), blocks, seed=seed)
    values |= named_intervals(detected.rename({"f1_landslide": "detection_f1"}), ["detection_f1"])
    return values | _suffixed(ranking_scores(patch_score, truth), "_pooled")


def score_table(folds: Mapping[int, Mapping[str, float]]) -> pd.DataFrame:
    """Return a table of scores: one row per fold, then mean and std.

    The columns are `METRIC_NAMES`, and `<name>_in_scene` if all folds have an in-scene part.
    """
    in_scene = [f"{name}_in_scene" for name in METRIC_NAMES]
    names = [*METRIC_NAMES, *(name for name in in_scene if all(name in values for values in folds.values()))]
    table = pd.DataFrame(
        [[values[name] for name in names] for _, values in sorted(folds.items())],
        index=[f"fold {fold}" for fold in sorted(folds)],
        columns=names,
    )
    table.loc["mean"] = table.mean()
    table.loc["std"] = table.iloc[:-1].std(ddof=0)
    return table


def threshold_table(counts: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return the scores by threshold.

    Args:
        counts: (n, 2, 2) counts at n thresholds from 0 to below 1 (see
            `landslide.metrics.thresholds.threshold_counts`); counts of several folds can be added.

    Returns:
        Columns threshold, f1_macro, miou, f1_landslide, precision and recall (of the landslide class).
    """
    values = score_arrays(counts)
    return pd.DataFrame(
        {
            "threshold": np.arange(len(counts)) / len(counts),
            **{name: values[name] for name in ("f1_macro", "miou", "f1_landslide")},
            "precision": values["precision_landslide"],
            "recall": values["recall_landslide"],
        }
    )


def pooled_thresholds(folds: Mapping[int, FoldEvaluation]) -> pd.DataFrame:
    """Return the scores by threshold of all folds together, see `threshold_table`."""
    return threshold_table(np.sum([evaluation.threshold_counts for evaluation in folds.values()], axis=0))


def pooled_calibration(folds: Mapping[int, FoldEvaluation]) -> Calibration:
    """Return the calibration sums of all folds together."""
    return reduce(add, (evaluation.calibration for evaluation in folds.values()))


def selection_gap(
    history: Sequence[Mapping[str, float]], selected_epoch: float, select_by: str = "f1_macro"
) -> dict[str, float]:
    """Return what choosing the epoch on the test fold would have gained in the same training.

    Args:
        history: The epochs' records of `landslide.training.fold`, of a run that monitored its test fold.
        selected_epoch: The epoch that was chosen on the validation part; 36.5 at half of the 37th.
        select_by: The score by which the epoch is chosen, or several joined by " or ".

    Returns:
        For `INTERVAL_NAMES`: `<name>_test_selected`, the test score of the epoch that is best on the test fold (the
        paper's selection), and `<name>_selection_gap`, its difference to the test score of the epoch that was chosen.
        Empty if the test fold was not monitored. The paper also trains on the validation part; the gap does not
        include that.
    """
    test = recorded_tests(history, "test")
    if len(test) < len(recorded_tests(history, "validation")):
        return {}
    chosen = next((i for i, scores in enumerate(test) if scores["epoch"] == selected_epoch), None)
    best = selected_test(test, select_by)
    if chosen is None or best is None:
        return {}
    values: dict[str, float] = {}
    for name in INTERVAL_NAMES:
        values[f"{name}_test_selected"] = test[best][name]
        values[f"{name}_selection_gap"] = test[best][name] - test[chosen][name]
    return values
