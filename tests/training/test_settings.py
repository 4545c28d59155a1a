"""Training settings: valid configurations, and settings without effect."""

import pytest
import yaml
from pydantic import TypeAdapter

from landslide.errors import ConfigurationError
from landslide.inference.prediction import PredictionSettings
from landslide.training.losses import HEAD_WEIGHTS
from landslide.training.optimizers import CosineSchedule, StepSchedule
from landslide.training.settings import TrainingSettings, refuse_head_settings_without_effect

ADAPTER = TypeAdapter(TrainingSettings)


# ---- the schedule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", StepSchedule()),
        ("schedule: {kind: steps}", StepSchedule()),
        ("schedule: {kind: steps, rates: [[2, 1.0e-3], [4, 1.0e-4]]}", StepSchedule(rates=((2, 1e-3), (4, 1e-4)))),
        ("schedule: {kind: cosine}", CosineSchedule(peak=1e-3, warmup_epochs=1)),
        ("schedule: {kind: cosine, peak: 0.1, warmup_epochs: 0}", CosineSchedule(peak=0.1, warmup_epochs=0)),
    ],
)
def test_a_configuration_names_the_kind_of_schedule(text, expected):
    settings = ADAPTER.validate_python(yaml.safe_load(text))
    assert settings.schedule == expected
    assert ADAPTER.validate_json(ADAPTER.dump_json(settings)) == settings, "as a step of a pipeline gets it"


@pytest.mark.parametrize(
    "former",
    [
        {"schedule": "steps"},
        {"schedule": "cosine", "learning_rate": 1e-3},
        {"learning_rates": [[8, 1e-3]]},
        {"learning_rate": 1e-3},
        {"warmup_epochs": 1, "schedule": {"kind": "cosine"}},
    ],
)
def test_former_schedule_fields_are_refused_with_their_replacement(former):
    with pytest.raises(ConfigurationError, match=rf"training\.{next(iter(former))} is ") as error:
        ADAPTER.validate_python(former)
    for schedule in ("schedule: {kind: steps, rates:", "schedule: {kind: cosine, peak: 1.0e-3, warmup_epochs: 1}"):
        assert schedule in error.value.remedy


# ---- settings without effect


@pytest.mark.parametrize(
    ("text", "named", "reason"),
    [
        ("{optimizer: sgd, optimizer_epsilon: 1.0e-8}", "optimizer_epsilon", "training.optimizer is sgd"),
        ("{selection: test_fold, validation_fraction: 0.2}", "validation_fraction", "selection is test_fold"),
        ("{selection: test_fold, monitor_test_fold: true}", "monitor_test_fold", "selection is test_fold"),
        ("augmentation: {mode: none, rotation_probability: 0.5}", "augmentation.rotation_probability", "mode is none"),
        ("augmentation: {mode: none, max_pastes: 0}", "augmentation.max_pastes", "mode is none"),
        ("augmentation: {mode: none, flips: true}", "augmentation.flips", "mode is none"),
        ("augmentation: {mode: none, illumination: 0.4}", "augmentation.illumination", "mode is none"),
        ("augmentation: {mode: none, plain_epochs: 1}", "augmentation.plain_epochs", "mode is none"),
        ("{epochs: 4, augmentation: {flips: true}}", "augmentation", "last 4 epochs are not augmented"),
        ("{epochs: 1, augmentation: {plain_epochs: 1}}", "augmentation", "last 1 epochs are not augmented"),
    ],
)
def test_a_setting_without_effect_is_refused_with_the_reason(text, named, reason):
    with pytest.raises(ConfigurationError, match=rf"training\.{named}.* has no effect: .*{reason}") as error:
        ADAPTER.validate_python(yaml.safe_load(text))
    assert f"training.{named}" in error.value.remedy
    assert "out." in error.value.remedy


@pytest.mark.parametrize(
    "text",
    [
        "{optimizer: sgd, optimizer_epsilon: 1.0e-7}",
        "{selection: test_fold, validation_fraction: 0.1, monitor_test_fold: false}",
        "augmentation: {mode: none, rotation_probability: 0.7, plain_epochs: 4}",
        "{epochs: 2, augmentation: {mode: none}}",
        "{epochs: 2}",
        "{epochs: 2, augmentation: {flips: true, plain_epochs: 1}}",
    ],
)
def test_explicit_defaults_are_accepted(text):
    ADAPTER.validate_python(yaml.safe_load(text))


@pytest.mark.parametrize(
    ("changes", "heads", "named"),
    [
        ({"prediction": PredictionSettings(heads="average")}, ["128"], r"training\.prediction\.heads is 'average'"),
        ({"head_weights": {"128": 0.5}}, ["128"], "weight of 128 .*one head"),
        (
            {"head_weights": {**HEAD_WEIGHTS, "32": 1.0}},
            ["256", "128", "64"],
            "weight of 32 .*256, 128, 64 for patches",
        ),
        ({"head_weights": {**HEAD_WEIGHTS, "32": 1.0}, "crop": 64}, ["128", "64", "32"], "weight of 32 .*64 pixels"),
    ],
)
def test_settings_of_missing_heads_are_refused(changes, heads, named):
    with pytest.raises(ConfigurationError, match=named):
        refuse_head_settings_without_effect(TrainingSettings(**changes), heads)


@pytest.mark.parametrize(
    ("changes", "heads"),
    [
        ({}, ["128"]),
        ({}, ["256", "128", "64"]),
        ({"crop": 64, "head_weights": {"256": 1, "128": 1, "64": 2}}, ["128", "64", "32"]),
        ({"prediction": PredictionSettings(heads="average")}, ["256", "128", "64"]),
    ],
)
def test_settings_of_existing_heads_are_accepted(changes, heads):
    refuse_head_settings_without_effect(TrainingSettings(**changes), heads)


@pytest.mark.parametrize(
    ("bands", "text"),
    [("23", "23"), ("all", "all"), (("B4", "B3", "B2"), "B4,B3,B2"), (("B1", "B2", "B3", "B4", "slope"), "5 bands")],
)
def test_bands_have_a_name_for_titles(bands, text):
    assert TrainingSettings(bands=bands).bands_text == text


def test_settings_that_need_more_epochs_are_refused_all_at_once():
    settings = {
        "epochs": 1,
        "schedule": {"kind": "cosine", "warmup_epochs": 1},
        "test_schedule": {"first_epoch": 2, "half_epochs_from": 3},
        "augmentation": {"flips": True, "plain_epochs": 1},
        "frozen_batch_norm_epochs": 1,
    }
    names = (
        "schedule.warmup_epochs", "test_schedule.first_epoch", "test_schedule.half_epochs_from",
        "frozen_batch_norm_epochs",
    )  # fmt: skip
    with pytest.raises(ConfigurationError) as error:
        ADAPTER.validate_python(settings)
    for name in (*names, "augmentation.plain_epochs"):
        assert f"Set training.{name} " in error.value.remedy
    settings["schedule"]["warmup_epochs"] = 0
    settings["test_schedule"] = {}
    settings["augmentation"]["plain_epochs"] = 0
    ADAPTER.validate_python(settings)
