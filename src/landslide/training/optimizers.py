"""Optimizers and learning-rate schedules.

The optimizers are those of the authors' comparison, with the defaults of the framework in which it was made where
PyTorch's differ: RMSprop forgets with 0.9, Adagrad's accumulator starts at 0.1, SGD has no momentum.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import nn, optim

OptimizerName = Literal["adam", "adamw", "nadam", "rmsprop", "adagrad", "sgd"]
OPTIMIZER_NAMES: tuple[str, ...] = get_args(OptimizerName)

_OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
    "rmsprop": partial(optim.RMSprop, alpha=0.9),
    "adagrad": partial(optim.Adagrad, initial_accumulator_value=0.1),
    "sgd": optim.SGD,
}
# Updated by one kernel for all weights, on GPUs and CPUs alike.
_FUSED = ("adam", "adamw", "sgd")


def create_optimizer(
    name: OptimizerName, parameters: Iterable[nn.Parameter], *, rate: float, epsilon: float, weight_decay: float
) -> optim.Optimizer:
    """Create an optimizer.

    Args:
        name: One of `OPTIMIZER_NAMES`.
        parameters: What it updates.
        rate: Learning rate to begin with.
        epsilon: Term in the denominator of the update; SGD has none.
        weight_decay: Weight decay, decoupled for `adamw`, else added to the gradient.
    """
    options: dict[str, Any] = {"lr": rate, "weight_decay": weight_decay}
    if name != "sgd":
        options["eps"] = epsilon
    if name in _FUSED:
        options["fused"] = True
    return _OPTIMIZERS[name](parameters, **options)


def step_rate(rates: Sequence[tuple[int, float]], epoch: int) -> float:
    """Return the rate of an epoch, counted from 0, from pairs (first epoch at which this rate ends, rate)."""
    return next((rate for end, rate in rates if epoch < end), rates[-1][1])


def cosine_rate(progress: float, *, peak: float, warmup: float, epochs: int) -> float:
    """Return the rate after `progress` epochs: a linear rise to the peak, then half a cosine to zero.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    """
    if progress < warmup:
        return peak * progress / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (epochs - warmup)))
