"""Scores of a fold and of a cross-validation: names, conventions, pooling, and tables that agree."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from landslide.evaluation.report import example_rows, fold_figures, overlays_figure, report_figures, report_tables
from landslide.evaluation.scores import (
    INTERVAL_NAMES,
    SCORES,
    SUFFIXES,
    FoldEvaluator,
    cross_validated,
    in_scene_scores,
    patch_report,
    pooled_calibration,
    pooled_scores,
    pooled_thresholds,
    prediction_variants,
    score_table,
    selection_gap,
    threshold_table,
)
from landslide.inference.prediction import PredictionSettings
from landslide.metrics.counts import METRIC_NAMES, confusion_counts, scores
from tests.support.caches import build_band_cache
from tests.support.patch_tables import build_patch_table, grid_positions
from tests.support.predictions import evaluate_fold, random_predictions

HISTORY = [
    {"epoch": e + 1, "train_loss": 1.0, "validation_f1_macro": v, "validation_f1_landslide": v}
    for e, v in enumerate((0.5, 0.7, 0.6))
]


@pytest.fixture
def case():
    """Fold table of 30 patches in two scenes, folds 1 to 3, and the evaluations of folds 1 and 3."""
    table = build_patch_table([str(i) for i in range(30)], [*grid_positions(4, 5, 1), *grid_positions(2, 5, 2)])
    table = table.assign(fold=[1, 2, 3] * 10)
    probability, masks = random_predictions(30)
    folds = {}
    for fold in (1, 3):
        rows = (table["fold"] == fold).to_numpy()
        folds[fold] = evaluate_fold({"": probability[rows]}, masks[rows], threshold=0.4)
    scored = (table["fold"] != 2).to_numpy()
    return table, folds, probability[scored], masks[scored]


# ---- a fold


def test_in_scene_part_is_scored_at_both_thresholds_and_shown_by_fold_if_all_have_one():
    probability, masks = random_predictions(12)
    fold = evaluate_fold({"": probability}, masks, threshold=0.3)
    in_scene = in_scene_scores(fold)
    for ending, threshold in (("", 0.5), ("_tuned", 0.3)):
        expected = scores(confusion_counts(probability >= threshold, masks))
        for name in METRIC_NAMES:
            assert in_scene[f"{name}{ending}_in_scene"] == pytest.approx(expected[name])
    assert len(in_scene) == 2 * len(METRIC_NAMES)
    both = {1: fold.scores | in_scene, 2: fold.scores | dict.fromkeys(in_scene, 1.0)}
    assert cross_validated(both)["miou_in_scene"] == pytest.approx((in_scene["miou_in_scene"] + 1) / 2)
    assert score_table(both).loc["mean", "miou_in_scene"] == pytest.approx((in_scene["miou_in_scene"] + 1) / 2)
    one = {**both, 2: fold.scores}
    assert score_table(one).columns.tolist() == list(METRIC_NAMES)
    assert "miou_in_scene" not in cross_validated(one)


def test_a_fold_is_scored_at_both_thresholds_and_for_every_variant():
    probability, masks = random_predictions(12)
    other = probability * 0.9
    variants = {"": probability, "_head_average": other, "_tta": probability**2}
    fold = evaluate_fold(variants, masks, threshold=0.3, detection_threshold=0.7)
    for suffix, answer in {
        "": probability >= 0.5,
        "_tuned": probability >= 0.3,
        "_head_average": other >= 0.5,
        "_tta": probability**2 >= 0.5,
    }.items():
        expected = scores(confusion_counts(answer, masks))
        assert {name: fold.scores[f"{name}{suffix}"] for name in METRIC_NAMES} == expected
    truth, highest = masks.any(axis=(1, 2)), probability.max(axis=(1, 2))
    assert fold.scores["threshold"] == 0.3
    assert fold.scores["detection_threshold"] == 0.7
    assert fold.scores["detection_f1"] == f1_score(truth, highest >= 0.5)
    assert fold.scores["detection_f1_tuned"] == f1_score(truth, highest >= 0.7)
    assert fold.scores["detection_auc"] == pytest.approx(roc_auc_score(truth, highest))
    assert fold.scores["brier_score"] == pytest.approx(((probability.astype(float) - masks) ** 2).mean())
    np.testing.assert_array_equal(fold.truth, truth)
    np.testing.assert_array_equal(fold.counts.sum(axis=0), confusion_counts(probability >= 0.5, masks))
    assert all(np.isfinite(value) for value in fold.scores.values())


def test_without_a_tuned_detection_threshold_tuned_detection_is_not_scored():
    probability, masks = random_predictions(12)
    names = set(evaluate_fold({"": probability}, masks, threshold=0.3).scores)
    assert not [name for name in names if name.startswith("detection") and name.endswith(("_tuned", "_threshold"))]


def test_a_fold_of_only_positive_patches_has_no_roc_auc_and_finite_scores():
    probability, masks = random_predictions(12, empty=0.0)
    fold = evaluate_fold({"": probability}, masks, threshold=0.3)
    assert fold.truth.all()
    assert "detection_f1" in fold.scores
    assert not {"detection_auc", "detection_average_precision"} & set(fold.scores)
    assert all(np.isfinite(value) for value in fold.scores.values())


def test_only_different_prediction_variants_are_scored():
    own, average = PredictionSettings(), PredictionSettings(heads="average")
    assert prediction_variants(own, several_heads=False) == {"": own}
    assert prediction_variants(own, several_heads=True) == {"": own, "_head_average": average}
    assert prediction_variants(average, several_heads=True) == {"": average}
    variants = prediction_variants(average, several_heads=True, test_time_augmentation="rotations")
    assert variants == {"": average, "_tta": PredictionSettings(heads="average", augmentation="rotations")}


# ---- the cross-validation


def test_a_score_missing_in_a_fold_has_no_mean():
    mean = cross_validated({2: {"miou": 0.5, "detection_auc": 0.9}, 1: {"miou": 0.7}})
    assert mean == pytest.approx({"miou": 0.6, "miou_std": 0.1})


def test_the_patch_report_has_one_row_per_scored_patch(case):
    table, folds, probability, masks = case
    report = patch_report(table, folds)
    assert report["number"].tolist() == table.loc[table["fold"] != 2, "number"].tolist()
    assert list(report) == [
        "number", "scene", "row", "column", "fold", "block", "positive_pixels", "tn", "fp", "fn", "tp",
        "detection_score",
    ]  # fmt: skip
    np.testing.assert_array_equal(report["positive_pixels"], masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(report["tp"], ((probability >= 0.5) & (masks == 1)).sum(axis=(1, 2)))
    np.testing.assert_array_equal(report["fp"], ((probability >= 0.5) & (masks == 0)).sum(axis=(1, 2)))
    np.testing.assert_array_equal(report[["tn", "fp", "fn", "tp"]].sum(axis=1), 256)
    np.testing.assert_array_equal(report["detection_score"], probability.max(axis=(1, 2)).astype(np.float64))
    assert report["block"].nunique() == 4  # in each of two scenes: 4 x 4 tiles and the next column


def test_pooled_scores_cover_all_patches_and_are_within_their_intervals(case):
    table, folds, probability, masks = case
    found = pooled_scores(patch_report(table, folds))
    expected = scores(confusion_counts(probability >= 0.5, masks))
    for name in INTERVAL_NAMES:
        assert found[f"{name}_pooled"] == expected[name]
        assert found[f"{name}_low"] < expected[name] < found[f"{name}_high"]
    truth, highest = masks.any(axis=(1, 2)), probability.max(axis=(1, 2))
    assert found["detection_f1_pooled"] == f1_score(truth, highest >= 0.5)
    assert found["detection_f1_low"] <= found["detection_f1_pooled"] <= found["detection_f1_high"]
    assert found["detection_auc_pooled"] == pytest.approx(roc_auc_score(truth, highest))


def test_pooled_scores_are_unchanged_by_a_csv_round_trip(case, tmp_path):
    table, folds, *_ = case
    report = patch_report(table, folds)
    report.to_csv(tmp_path / "patches.csv", index=False)
    assert pooled_scores(pd.read_csv(tmp_path / "patches.csv")) == pytest.approx(pooled_scores(report), abs=1e-12)


def test_the_threshold_table_covers_all_pixels(case):
    _, folds, probability, masks = case
    table = pooled_thresholds(folds)
    assert list(table) == ["threshold", "f1_macro", "miou", "f1_landslide", "precision", "recall"]
    for i in (0, 37, 100, 199):
        expected = scores(confusion_counts(probability.astype(np.float64) >= i / 200, masks))
        assert table["threshold"][i] == i / 200
        assert table["miou"][i] == pytest.approx(expected["miou"])
        assert table["f1_macro"][i] == pytest.approx(expected["f1_macro"])
        assert table["f1_landslide"][i] == pytest.approx(expected["f1_landslide"])
        assert table["precision"][i] == pytest.approx(expected["precision_landslide"])
        assert table["recall"][i] == pytest.approx(expected["recall_landslide"])
    pd.testing.assert_frame_equal(threshold_table(folds[1].threshold_counts + folds[3].threshold_counts), table)
    assert pooled_calibration(folds).pixels.sum() == masks.size


# ---- the gap from choosing the epoch on the test fold


def test_the_selection_gap_compares_the_epoch_that_is_best_on_the_test_fold_with_the_chosen_one():
    history = [
        {"epoch": epoch, "test_f1_macro": f1, "test_miou": f1 / 2, "test_f1_landslide": 1 - f1}
        for epoch, f1 in enumerate((0.75, 0.5, 0.25, 0.625), start=1)
    ]
    assert selection_gap(history, 2) == {
        "f1_macro_test_selected": 0.75, "f1_macro_selection_gap": 0.25,
        "miou_test_selected": 0.375, "miou_selection_gap": 0.125,
        "f1_landslide_test_selected": 0.25, "f1_landslide_selection_gap": -0.25,
    }  # fmt: skip


def test_without_a_monitored_test_fold_there_is_no_selection_gap():
    assert selection_gap(HISTORY, 2) == {}
    assert selection_gap([], 1) == {}
    assert selection_gap([{**HISTORY[0], "test_f1_macro": 0.5}, HISTORY[1]], 1) == {}


def test_every_recorded_score_is_described(case):
    table, folds, probability, masks = case
    variants = {"": probability, "_head_average": probability, "_tta": probability}
    fold = evaluate_fold(variants, masks, threshold=0.3, detection_threshold=0.7).scores
    epoch = {f"{part}_{name}": 0.5 for part in ("validation", "test") for name in INTERVAL_NAMES}
    in_scene = in_scene_scores(evaluate_fold(variants, masks, threshold=0.3))
    fold = fold | selection_gap([{"epoch": 1, **epoch}], 1) | in_scene
    recorded = {**fold, **cross_validated({1: fold, 2: fold}), **pooled_scores(patch_report(table, folds))}
    endings = sorted(SUFFIXES, key=len, reverse=True)
    used = set()
    for name in recorded:
        base = name.removesuffix("_std")
        used |= {"_std"} if base != name else set()
        base = base.replace("_tuned_in_scene", "_in_scene")
        ending = next((e for e in endings if base.endswith(e)), "") if base not in SCORES else ""
        used.add(ending)
        assert base.removesuffix(ending) in SCORES, name
    assert used == {"", *SUFFIXES}
    assert set(SCORES) <= set(recorded)


# ---- tables and figures


def test_a_cross_validation_writes_its_tables_and_figures(case):
    table, folds, *_ = case
    histories = {1: HISTORY, 3: HISTORY}
    tables = report_tables(table, folds, histories)
    assert set(tables) == {"scores", "learning_curves", "patches", "thresholds", "calibration", "roc"}
    assert tables["scores"]["fold"].tolist() == ["fold 1", "fold 3", "mean", "std"]
    assert tables["learning_curves"]["fold"].tolist() == ["fold 1"] * 3 + ["fold 3"] * 3
    assert len(tables["roc"]) > 2
    figures = report_figures(tables, folds, histories)
    assert set(figures) == {"precision_recall", "learning_curves", "thresholds", "calibration", "roc"}
    assert set(fold_figures(1, folds[1], HISTORY)) == {"precision_recall", "learning_curves"}


def test_patches_of_one_class_give_no_roc_curve(case):
    table, *_ = case
    probability, masks = random_predictions(10, empty=0.0)
    folds = {1: evaluate_fold({"": probability}, masks, threshold=0.5)}
    tables = report_tables(table, folds, {1: HISTORY})
    assert len(tables["roc"]) == 0
    assert tables["roc"].to_csv(index=False) == "threshold,false_positive_rate,true_positive_rate,precision\n"
    assert "roc" not in report_figures(tables, folds, {1: HISTORY})


@pytest.mark.parametrize("sizes", [(9,), (1, 3, 5), (4, 4, 1)])
@pytest.mark.parametrize("as_tensors", [False, True])
def test_scores_do_not_depend_on_the_batches(sizes, as_tensors):
    probability, masks = random_predictions(9)
    variants = {"": probability, "_tta": probability[::-1].copy()}
    whole = evaluate_fold(variants, masks, threshold=0.3, detection_threshold=0.7)
    evaluator, start = FoldEvaluator(threshold=0.3, detection_threshold=0.7), 0
    for size in sizes:
        part = slice(start, start := start + size)
        batch, truth = {variant: answer[part] for variant, answer in variants.items()}, masks[part]
        if as_tensors:
            batch, truth = (
                {variant: torch.from_numpy(answer) for variant, answer in batch.items()},
                torch.from_numpy(truth),
            )
        evaluator.add(batch, truth)
    found = evaluator.evaluation()
    assert found.scores == pytest.approx(whole.scores, nan_ok=True)
    for name in ("counts", "patch_scores", "threshold_counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    np.testing.assert_array_equal(found.calibration.pixels, whole.calibration.pixels)


@pytest.mark.parametrize("landslides", [(0, 7, 3, 900, 0), (0, 0, 0, 0, 0)])
def test_overlays_show_patches_from_few_to_many_landslide_pixels(landslides):
    cache = build_band_cache(5)
    for mask, n in zip(cache.masks, landslides, strict=True):
        mask[:] = 0
        mask.reshape(-1)[:n] = 1
    table = build_patch_table("abcde")
    rows = example_rows(landslides, 3).tolist()
    figure = overlays_figure(cache, table, {row: np.zeros((128, 128), np.float32) for row in rows}, rows)
    titles = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    expected = [2, 1, 3] if any(landslides) else [0, 2, 4]
    assert titles == [f"patch {table['number'].iloc[row]}" for row in expected]
