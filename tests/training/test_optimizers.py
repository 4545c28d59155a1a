"""Optimizers compared with one update in closed form, and schedules with their formulas."""

import math

import pytest
import torch

from landslide.errors import ConfigurationError
from landslide.training.optimizers import OPTIMIZER_NAMES, CosineSchedule, StepSchedule, create_optimizer

RATE, EPSILON = 0.1, 1e-3
GRADIENT, START = 0.5, 2.0

# The first update of each, from Keras' documentation of its defaults.
FIRST_STEPS = {
    "adam": RATE * GRADIENT / (GRADIENT + EPSILON),
    "adamw": RATE * GRADIENT / (GRADIENT + EPSILON),
    "rmsprop": RATE * GRADIENT / (math.sqrt(0.1 * GRADIENT**2) + EPSILON),
    "adagrad": RATE * GRADIENT / (math.sqrt(0.1 + GRADIENT**2) + EPSILON),
    "sgd": RATE * GRADIENT,
}


def first_update(name: str, weight_decay: float = 0.0) -> float:
    weight = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = create_optimizer(name, [weight], rate=RATE, epsilon=EPSILON, weight_decay=weight_decay)
    weight.grad = torch.tensor(GRADIENT, dtype=torch.float64)
    optimizer.step()
    return START - weight.item()


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_the_first_update_equals_the_formula(name):
    assert first_update(name) == pytest.approx(FIRST_STEPS[name], rel=1e-6)


def test_nadam_uses_nesterov_momentum():
    momentum = [0.9 * (1 - 0.5 * 0.96 ** (step * 4e-3)) for step in (1, 2)]  # Dozat 2016, warming up
    now = (1 - momentum[0]) * GRADIENT / (1 - momentum[0])
    ahead = momentum[1] * 0.1 * GRADIENT / (1 - momentum[0] * momentum[1])
    assert first_update("nadam") == pytest.approx(RATE * (now + ahead) / (GRADIENT + EPSILON), rel=1e-6)


def test_weight_decay_is_decoupled_only_in_adamw():
    assert first_update("adamw", 0.01) - first_update("adamw") == pytest.approx(RATE * 0.01 * START, rel=1e-6)
    assert first_update("sgd", 0.01) - first_update("sgd") == pytest.approx(RATE * 0.01 * START, rel=1e-6)
    assert first_update("adam", 0.01) - first_update("adam") < RATE * 0.01 * START / 10


def test_every_optimizer_is_tested():
    assert {*FIRST_STEPS, "nadam"} == set(OPTIMIZER_NAMES)


def test_the_last_step_rate_holds_to_the_end():
    schedule = StepSchedule(rates=((2, 1e-3), (4, 1e-4)))
    assert [schedule.rate(epoch, 6) for epoch in range(6)] == [1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4]
    assert schedule.rate(1.99, 6) == 1e-3


def test_the_cosine_schedule_warms_up_peaks_and_ends_at_zero():
    def rate(progress):
        return CosineSchedule(peak=2.0, warmup_epochs=2).rate(progress, 10)

    assert [rate(p) for p in (0, 1, 2, 6, 10)] == pytest.approx([0.0, 1.0, 2.0, 1.0, 0.0])
    falling = [rate(2 + i / 10) for i in range(81)]
    assert falling == sorted(falling, reverse=True)
    assert CosineSchedule(peak=2.0, warmup_epochs=0).rate(0, 10) == 2.0


@pytest.mark.parametrize(
    "rates",
    [(), ((8, 1e-4), (65, -1e-5)), ((65, float("nan")),), ((65, 0.0),), ((8, 1e-4), (5, 1e-5)), ((8, 1e-4), (8, 1e-5))],
)
def test_invalid_learning_rates_are_a_configuration_error(rates):
    with pytest.raises(ConfigurationError, match=r"training\.schedule\.rates is "):
        StepSchedule(rates=rates)


@pytest.mark.parametrize(("name", "value"), [("peak", 0.0), ("peak", float("nan")), ("warmup_epochs", -1)])
def test_a_cosine_out_of_range_is_a_configuration_error(name, value):
    with pytest.raises(ConfigurationError, match=rf"training\.schedule\.{name} is "):
        CosineSchedule(**{name: value})
