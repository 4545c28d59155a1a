"""Names of metrics in MLflow: grouped, and the same when they are read again."""

from itertools import product

import pytest

from landslide.evaluation.scores import SCORES, SUFFIXES
from landslide.metrics.counts import METRIC_NAMES
from landslide.tracking import runs
from landslide.tracking.metric_keys import key, keys, metrics, name

pytestmark = pytest.mark.slow

_ENDINGS = [ending for ending in SUFFIXES if ending != "_std"]
NAMES = [
    *(f"{score}{ending}{std}" for score, ending, std in product(SCORES, ["", *_ENDINGS], ["", "_std"])),
    *(f"{part}_{half}{score}" for part, half, score in product(["validation", "test"], ["", "half_epoch_"], SCORES)),
    "train_loss", "train_augmented", "validation_loss", "test_loss", "learning_rate", "epoch_seconds",
    "epoch_processor_seconds", "patches", "new_patches", "f1_macro_difference", "f1_macro_difference_low",
    "champion_miou", "new_challenger_f1_landslide", "relabelled_patches",
    "unchanged_challenger_miou", "unchanged_f1_macro_difference", "unchanged_f1_macro_difference_low",
    "all_largest_shift", "f1_macro_tuned_in_scene", "f1_macro_tuned_in_scene_std", "f1_macro.1",
]  # fmt: skip


def test_every_name_is_read_as_it_was_written_and_none_twice():
    assert [name(key(one)) for one in NAMES] == NAMES
    assert len({key(one) for one in NAMES}) == len(NAMES)
    assert [name(one) for one in NAMES] == NAMES  # runs of before there were groups
    assert name("system/gpu_0_utilization_percentage") == "system/gpu_0_utilization_percentage"


def test_only_the_seven_scores_and_their_deviations_are_outside_of_groups():
    plain = {one for one in NAMES[: NAMES.index("train_loss")] if "/" not in key(one)}
    assert plain == {f"{score}{std}" for score in METRIC_NAMES for std in ("", "_std")}


def test_f1_and_miou_are_in_the_group_that_mlflow_shows_first():
    groups = {key(one).partition("/")[0] for one in NAMES if "/" in key(one)}
    assert keys("f1_macro") == ["f1_macro", "at 0.5/f1_macro"]
    assert keys("miou_std") == ["miou_std"]
    assert min({"at 0.5", *groups}) == "at 0.5"
    assert name("at 0.5/miou") == "miou"


@pytest.mark.parametrize(
    ("internal", "recorded"),
    [
        ("f1_macro_pooled", "pooled/f1_macro"),
        ("f1_macro_low", "pooled/f1_macro_low"),
        ("f1_macro_tuned_std", "tuned/f1_macro_std"),
        ("detection_f1_tuned", "detection/f1_tuned"),
        ("f1_macro_in_scene", "in_scene/f1_macro"),
        ("miou_tuned_in_scene_std", "in_scene/miou_tuned_std"),
        ("validation_half_epoch_miou", "validation/half_epoch_miou"),
        ("learning_rate", "train/learning_rate"),
        ("threshold_std", "calibration/threshold_std"),
        ("new_champion_f1_macro", "new/champion_f1_macro"),
        ("unchanged_champion_f1_macro", "unchanged/champion_f1_macro"),
        ("relabelled_f1_macro_difference_low", "relabelled/f1_macro_difference_low"),
    ],
)
def test_groups(internal, recorded):
    assert key(internal) == recorded


def test_score_that_was_recorded_again_in_a_group_is_the_newer_one(store):
    client = runs.connect(store)
    run_id = runs.create_run(client, "scored twice", {}, {})
    for recorded, value in (("calibration/threshold", 0.4), ("threshold", 0.7), ("other/one", 1.0)):
        client.log_metric(run_id, recorded, value)
    assert metrics(client.get_run(run_id)) == {"threshold": 0.4, "other/one": 1.0}
