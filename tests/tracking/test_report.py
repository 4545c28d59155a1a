"""The report's lines on pooled scores: with intervals, without a curve, and for older runs."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from landslide.cli import main
from landslide.evaluation.scores import score_table
from landslide.metrics.counts import METRIC_NAMES
from landslide.tracking import registry, runs
from landslide.tracking.report import write_report
from tests.support import commands
from tests.support.predictions import evaluate_fold, random_predictions
from tests.support.versions import add_version

pytestmark = pytest.mark.slow

POOLED = {
    "f1_macro_pooled": 0.84, "f1_macro_low": 0.812, "f1_macro_high": 0.86543,
    "f1_landslide_pooled": 0.7, "detection_f1_pooled": 0.9, "detection_auc_pooled": 0.955,
}  # fmt: skip


@pytest.fixture
def report(store, tmp_path):
    """Writes the report of a run with these metrics and tags in addition to those of every run."""

    def write(metrics: dict[str, float], **tags: str) -> str:
        client = runs.connect(store)
        scores = evaluate_fold({"": random_predictions(4)[0]}, np.ones((4, 16, 16)), threshold=0.4).scores
        tables = {"reports/scores.csv": score_table({1: scores}).to_csv(index_label="fold")}
        add_version(client, tmp_path, texts=tables, fold_scheme="contiguous", **tags)
        run = runs.latest_cross_validation(client)
        runs.log_scores(client, run.info.run_id, scores | metrics)
        return write_report(tmp_path / "reports", store)

    return write


def test_pooled_scores_are_shown_with_intervals(report):
    text = report(POOLED)
    assert "(95 % interval): F1 84.00 (81.20 to 86.54), landslide F1 70.00." in text
    assert "Does a patch hold a landslide? F1 90.00, AUC 95.50." in text


def test_one_fold_has_no_deviation_and_no_interval(report):
    text = report({"f1_macro_pooled": 0.84, "f1_landslide_pooled": 0.7, "detection_f1_pooled": 0.9})
    assert "\nstd " not in text
    assert "All patches together: F1 84.00, landslide F1 70.00." in text


def test_report_names_the_registered_version_and_its_decision(report, store):
    client = runs.connect(store)
    report({})
    assert "model  " not in report({}, model_version="")
    assert "version 3, without an alias (no decision yet)" in report({}, model_version="3")
    assert "in service     no version, until `landslide models promote 3`" in report({}, model_version="3")
    registry.apply_decision(client, "3", registry.Decision("challenger", "not better"))
    assert "version 3, @challenger (not better)" in report({}, model_version="3")
    registry.apply_decision(client, "1", registry.Decision("champion", "the first registered model"))
    assert "version 1, @champion (the first registered model)" in report({}, model_version="1")
    text = report({}, model_version="3")
    assert "in service     version 1, until `landslide models promote 3`" in text
    client.delete_model_version(registry.MODEL_NAME, "2")
    assert "version 2, which was deleted; the same pipeline registers it again" in report({}, model_version="2")


def test_a_folder_that_cannot_be_written_is_an_error_without_a_traceback(report, store, tmp_path):
    report({})
    (tmp_path / "file").touch()
    result = CliRunner().invoke(
        main, ["report", "--out", str(tmp_path / "file" / "reports")], env={"MLFLOW_TRACKING_URI": store}
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/file/reports: Not a directory.")
    assert "Check the path" in result.stderr


def test_dvc_shows_eight_scores_and_a_csv_holds_the_rest(report, tmp_path):
    report({**POOLED, "f1_macro_std": 0.01})
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "metrics", "show", "reports/metrics.json"]):
        done = commands.run(command, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    heading = done.stdout.splitlines()[0].split()
    assert heading[1:] == sorted([*METRIC_NAMES, "f1_landslide_tuned"])
    assert max(map(len, done.stdout.splitlines())) <= 160
    table = pd.read_csv(tmp_path / "reports" / "metrics.csv", index_col="metric")["value"]
    assert table["f1_macro_std"] == 0.01
    assert table["f1_macro_high"] == 0.86543
    assert table["f1_macro"] == json.loads((tmp_path / "reports" / "metrics.json").read_text())["f1_macro"]


def test_scores_in_scene_are_shown_beside_those_of_the_test_folds(store, tmp_path):
    client = runs.connect(store)
    one = dict.fromkeys(METRIC_NAMES, 0.5) | {f"{name}_in_scene": 0.75 for name in METRIC_NAMES}
    tables = {"reports/scores.csv": score_table({1: one, 2: one}).to_csv(index_label="fold")}
    add_version(client, tmp_path, texts=tables, fold_scheme="cluster", tested_on="another cluster")
    run = runs.latest_cross_validation(client)
    runs.log_scores(client, run.info.run_id, one | {"threshold": 0.4, "f1_macro_tuned": 0.5, "f1_landslide_tuned": 0.5})
    text = write_report(tmp_path / "reports", store)
    assert "F1 in the cluster 75.00, in another cluster 50.00; landslide F1 in the cluster 75.00" in text
    assert re.search(r"in the cluster +in another cluster +in the cluster(.|\n)*fold 2 +75\.00 +50\.00 +75\.00", text)


def test_report_explains_a_missing_area_under_the_curve(report):
    metrics = {name: value for name, value in POOLED.items() if name != "detection_auc_pooled"}
    text = report(metrics, detection_undefined="every patch holds a landslide")
    assert "F1 90.00, no AUC, every patch holds a landslide." in text


def test_report_names_the_folds_without_landslides(report):
    assert "Without any landslide: fold 2, 3." in report(POOLED, folds_without_landslides="2, 3")
    assert "Without any landslide" not in report(POOLED, folds_without_landslides="none")


def test_report_of_an_older_run_omits_pooled_scores(report):
    text = report({})
    assert "together" not in text
    assert "Does a patch" not in text
    assert "At the tuned thresholds" in text
