"""What a training takes on a CPU: an estimate before it starts, and a refusal of what cannot end well."""

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.models import model_from_options, without_pretraining
from landslide.models.complexity import forward_gflop, without_memory
from landslide.schema import PATCH_SIZE
from landslide.training.losses import create_loss, multi_head_loss
from landslide.training.settings import TrainingSettings

MAX_HOURS_VARIABLE = "LANDSLIDE_MAX_CPU_HOURS"
MAX_HOURS = 24.0
# Billions of operations of a forward pass that a timed step may take at most; a whole step takes three times as many.
_TIMED_GFLOP = 40.0
_SMALL_SIDE = 32
# A training of fewer operations (three times those of its forward passes) takes about a minute: it is not measured.
_SMALL_GFLOP = 1200.0
# Share of a training step that predicting a patch takes.
_PREDICTION_SHARE = 1 / 3
# Weights, their gradients and two moments, float32.
_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class CpuBudget:
    """An estimate.

    Attributes:
        hours: Of all folds and epochs, with scoring.
        gigabytes: Memory of one fold beyond the process's own, at least.
    """

    hours: float
    gigabytes: float


def estimate(settings: TrainingSettings, n_bands: int, patches_by_fold: list[tuple[int, int]]) -> CpuBudget | None:
    """Estimate time and memory of a training on this machine's CPU.

    Time is that of one timed step, in proportion to the operations, if nothing else computes; the step has smaller maps
    if one of whole patches took longer than seconds. Memory is the maps that are kept for the gradient, and the weights
    with what belongs to them. Copies that layers make are not in it: the paper's network takes twice as much.

    Args:
        settings: Training settings.
        n_bands: Input bands.
        patches_by_fold: Patches of each trained fold's training part, and of the parts scored after an epoch.

    Returns:
        The estimate; None for a training of about a minute.
    """
    options = without_pretraining(settings.model_options)
    size = settings.crop or PATCH_SIZE
    hollow = without_memory(settings.model, n_bands, options)
    gflop = forward_gflop(hollow, n_bands, size)
    n_trained = sum(min(n, settings.max_patches or n) for n, _ in patches_by_fold)
    if 3 * gflop * n_trained * settings.epochs < _SMALL_GFLOP:
        return None
    whole = gflop * settings.batch_size <= _TIMED_GFLOP
    # Attention that was built for a size takes no other.
    side = size if whole or settings.model_options.get("attention") == "multi_head" else _SMALL_SIDE
    batch = settings.batch_size if whole else 2
    seconds = _seconds_of_a_step(settings, options, n_bands, batch, side)
    per_patch = seconds / batch * gflop / forward_gflop(hollow, n_bands, side)
    per_scored = per_patch * _PREDICTION_SHARE * (PATCH_SIZE / size) ** 2
    total = n_trained * per_patch + sum(scored for _, scored in patches_by_fold) * per_scored
    parameters = sum(parameter.numel() for parameter in hollow.parameters())
    kept = _bytes_kept_for_the_gradient(hollow, n_bands, size) * settings.batch_size
    if settings.precision in ("bf16-mixed", "16-mixed"):
        kept /= 2
    return CpuBudget(total * settings.epochs / 3600, (kept + _BYTES_PER_PARAMETER * parameters) / 1e9)


def refuse_beyond_limits(budget: CpuBudget) -> None:
    """Refuse a training that takes longer than `LANDSLIDE_MAX_CPU_HOURS`, 24 by default, or more memory than there is.

    Raises:
        ConfigurationError: With the estimate.
    """
    try:
        limit = float(os.environ.get(MAX_HOURS_VARIABLE, MAX_HOURS))
        if math.isnan(limit):
            raise ValueError
    except ValueError as error:
        raise ConfigurationError(
            f"{MAX_HOURS_VARIABLE} is {os.environ[MAX_HOURS_VARIABLE]!r}.", remedy="Set it to a number of hours."
        ) from error
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    elsewhere = "Train on a GPU, or train a smaller network (configs/best.yaml, configs/demo.yaml)"
    if budget.gigabytes > installed:
        raise ConfigurationError(
            f"The training takes at least {budget.gigabytes:.1f} GB of memory on this CPU, and the machine has "
            f"{installed:.1f} GB.",
            remedy=f"{elsewhere}; or lower training.batch_size.",
        )
    if budget.hours > limit:
        raise ConfigurationError(
            f"The training takes about {describe(budget)} on this CPU, and {limit:g} hours are allowed.",
            remedy=f"{elsewhere}. To train here all the same, set {MAX_HOURS_VARIABLE}.",
        )


def describe(budget: CpuBudget) -> str:
    """Return an estimate as text, such as "3 minutes and at least 0.4 GB of memory"."""
    minutes = budget.hours * 60
    duration = f"{budget.hours:,.0f} hours" if minutes > 180 else f"{max(2, minutes):.0f} minutes"
    return f"{duration} and at least {max(0.1, budget.gigabytes):.1f} GB of memory"


def _seconds_of_a_step(
    settings: TrainingSettings, options: dict[str, Any], n_bands: int, batch: int, side: int
) -> float:
    """Return the shorter time of two steps, of which the first also allocates its memory.

    It is the processor time over the threads, since other processes may hold the cores at the moment.
    """
    network = model_from_options(settings.model, n_bands, options).to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, n_bands, side, side).to(memory_format=torch.channels_last)
    masks, loss = (torch.rand(batch, side, side) < 0.1).long(), create_loss(settings.loss)
    bf16 = settings.precision == "bf16-mixed"
    times = []
    for _ in range(2):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images)
        multi_head_loss(logits, masks, loss, settings.head_weights).backward()
        times.append(time.process_time() - started)
    return min(times) / torch.get_num_threads()


def _bytes_kept_for_the_gradient(hollow: nn.Module, n_bands: int, size: int) -> float:
    """Return the bytes of the maps of one patch that a training step keeps, float32."""
    storages: dict[int, int] = {}
    weights = {parameter.untyped_storage()._cdata for parameter in hollow.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage.nbytes()
            held.append(tensor)  # or its address would be given to the next one
        return tensor

    held: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hollow.train()(torch.empty(2, n_bands, size, size, device="meta"))
    return sum(storages.values()) / 2
