"""Descriptions for MLflow: the scores by fold, the decision, the picture."""

import pytest

from landslide.metrics.counts import METRIC_NAMES
from landslide.tracking import descriptions, runs

pytestmark = pytest.mark.slow


def scores() -> dict:
    folds = {str(fold): dict.fromkeys(METRIC_NAMES, 0.5 + fold / 10) for fold in (1, 2)}
    mean = dict.fromkeys(METRIC_NAMES, 0.65) | {f"{name}_std": 0.05 for name in METRIC_NAMES}
    return {"folds": folds, "mean": mean}


def test_cross_validation_has_its_scores_decision_and_picture():
    tags = {"selection": "inner_validation", "fold_scheme": "contiguous", "model_version": "3", "decision": "better"}
    text = descriptions.cross_validation("abc", scores(), tags, picture=True)
    lines = text.splitlines()
    assert lines[0] == "| fold | F1 | mIoU | landslide F1 | IoU | precision | recall | accuracy |"
    assert lines[2].startswith("| 1 | 60.00 % | ")
    assert lines[4].startswith("| mean | 65.00 % | ")
    assert lines[5].startswith("| ± | 5.00 | ")
    assert "an inner validation part" in text
    assert "**Model:** version 3, better." in text
    assert "(get-artifact?path=figures%2Fpredictions.png&run_uuid=abc)" in text


def test_scores_in_the_scene_and_in_another_are_side_by_side():
    both = scores()
    for one in (both["mean"], *both["folds"].values()):
        one |= {f"{name}_in_scene": one[name] + 0.2 for name in METRIC_NAMES}
    tags = {"selection": "inner_validation", "fold_scheme": "scene", "tested_on": "another scene"}
    lines = descriptions.cross_validation("abc", both, tags, picture=False).splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("| fold | F1, in the scene |"))
    assert lines[heading].startswith("| fold | F1, in the scene | F1, in another scene | landslide F1, in the scene |")
    assert lines[heading + 2].startswith("| 1 | 80.00 % | 60.00 % | 80.00 % |")
    assert lines[heading + 4].startswith("| mean | 85.00 % | 65.00 % | 85.00 % |")
    version = {"version": "3", "tested_on": "another cluster"} | {name: str(one) for name, one in both["mean"].items()}
    assert "F1 in the cluster 85.00, in another cluster 65.00; landslide F1 in the" in descriptions.model(version)
    without = descriptions.cross_validation("abc", scores(), tags, picture=False)
    assert "in the scene" not in without + descriptions.model({"version": "3", "f1_macro": "0.5"})


def test_choice_on_the_test_fold_is_said_and_what_is_missing_is_left_out():
    text = descriptions.cross_validation("abc", scores(), {"selection": "test_fold"}, picture=False)
    assert "the paper's protocol; optimistic" in text
    assert "**Model" not in text
    assert "![" not in text


def test_experiment_is_described(store):
    client = runs.connect(store)
    assert "tags.role" in client.get_experiment_by_name(runs.EXPERIMENT).tags[descriptions.NOTE]


def test_model_without_a_champion_says_so():
    assert "No version is in service" in descriptions.model(None)
