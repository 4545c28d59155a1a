"""The estimate of time and memory of a training on a CPU, and what is refused."""

from dataclasses import replace

import pytest
import torch

from landslide.errors import ConfigurationError
from landslide.training.augmentation import AugmentationSettings
from landslide.training.cpu_budget import CpuBudget, describe, estimate, refuse_beyond_limits
from landslide.training.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = TrainingSettings(
    bands=("B2", "B3", "B4", "slope"), model="unet", model_options={"width": 8}, epochs=10, batch_size=4, crop=32,
    augmentation=AugmentationSettings(plain_epochs=0),
)  # fmt: skip


def test_the_paper_on_a_cpu_takes_months_and_more_memory_than_a_laptop_has():
    budget = estimate(TrainingSettings(), 23, [(3040, 304)] * 5)
    assert budget.hours > 300  # 1.2e9 GFLOP, by a processor of 1,000 GFLOP a second
    assert budget.gigabytes > 8
    with pytest.raises(ConfigurationError, match=r"takes about [\d,]+ hours|takes at least .* GB of memory") as error:
        refuse_beyond_limits(budget)
    assert "GPU" in error.value.remedy


def test_time_is_proportional_to_epochs_folds_and_patches_used():
    torch.manual_seed(0)
    one = estimate(NARROW, 4, [(40_000, 0)]).hours
    assert one < 10
    several = estimate(NARROW, 4, [(40_000, 0)] * 5).hours
    assert 2 < several / one < 12  # two measurements of the same step


def test_a_training_of_a_minute_is_not_measured():
    assert estimate(NARROW, 4, [(100, 10)] * 2) is None


def test_memory_counts_each_map_that_is_kept_once():
    small, large = (estimate(replace(NARROW, crop=crop), 4, [(1_000_000, 0)]) for crop in (32, 64))
    weights = 16 * 487_370 / 1e9
    assert (large.gigabytes - weights) / (small.gigabytes - weights) == pytest.approx(4, rel=0.02)
    first_level = 4 * 4 * 32 * 32 * 8 / 1e9  # bytes of a map of the first level, for a batch of four
    assert 5 * first_level < small.gigabytes - weights < 60 * first_level


@pytest.mark.parametrize(
    ("budget", "limit", "message"),
    [
        (CpuBudget(24.1, 0.1), None, "takes about 24 hours and at least 0.1 GB of memory on this CPU, and 24 hours"),
        (CpuBudget(2.0, 0.1), "1.5", "takes about 120 minutes .* and 1.5 hours are allowed"),
        (CpuBudget(0.1, 1e6), None, "takes at least 1000000.0 GB of memory"),
        (CpuBudget(0.1, 0.1), "long", "LANDSLIDE_MAX_CPU_HOURS is 'long'"),
    ],
)
def test_more_than_the_limits_is_refused(monkeypatch, budget, limit, message):
    if limit is not None:
        monkeypatch.setenv("LANDSLIDE_MAX_CPU_HOURS", limit)
    with pytest.raises(ConfigurationError, match=message):
        refuse_beyond_limits(budget)


def test_what_is_allowed_passes(monkeypatch):
    refuse_beyond_limits(CpuBudget(23.9, 0.1))
    monkeypatch.setenv("LANDSLIDE_MAX_CPU_HOURS", "5000")
    refuse_beyond_limits(CpuBudget(4000, 0.1))
    assert describe(CpuBudget(0.001, 0.01)) == "2 minutes and at least 0.1 GB of memory"
    assert describe(CpuBudget(4000, 19.9)) == "4,000 hours and at least 19.9 GB of memory"


def test_a_limit_that_is_no_number_is_refused(monkeypatch):
    for text in ("nan", "many"):
        monkeypatch.setenv("LANDSLIDE_MAX_CPU_HOURS", text)
        with pytest.raises(ConfigurationError, match=f"LANDSLIDE_MAX_CPU_HOURS is '{text}'"):
            refuse_beyond_limits(CpuBudget(1, 0.1))
