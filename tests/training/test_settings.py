"""Settings of a training: what a configuration may say, and what it says in vain."""

import pytest
import yaml
from pydantic import TypeAdapter

from landslide.errors import ConfigurationError
from landslide.training.optimizers import CosineSchedule, StepSchedule
from landslide.training.settings import TrainingSettings

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
def test_the_former_fields_of_a_schedule_are_refused_with_what_to_write(former):
    with pytest.raises(ConfigurationError, match=rf"training\.{next(iter(former))} is ") as error:
        ADAPTER.validate_python(former)
    for schedule in ("schedule: {kind: steps, rates:", "schedule: {kind: cosine, peak: 1.0e-3, warmup_epochs: 1}"):
        assert schedule in error.value.remedy
