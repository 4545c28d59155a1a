"""Optimizers and learning-rate schedules.

The optimizers are those of the authors' comparison, with the defaults of the framework in which it was made where
PyTorch's differ: RMSprop forgets with 0.9, Adagrad's accumulator starts at 0.1, SGD has no momentum.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from torch import nn, optim

from landslide.errors import ConfigurationError

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


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """A learning rate that changes between epochs."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["steps"] = "steps"
    """Says that this is a schedule of steps."""
    rates: tuple[tuple[int, float], ...] = (
        (8, 1e-4), (15, 5e-5), (20, 2e-5), (25, 1e-5), (30, 5e-6), (35, 2e-6), (42, 1e-6), (50, 5e-7), (65, 1e-7),
    )  # fmt: skip
    """Pairs of the first epoch at which a rate ends, counted from 0 and ascending, and the rate, above 0. The last rate
    holds to the end. The default is the authors'."""

    def __post_init__(self) -> None:
        ends = [end for end, _ in self.rates]
        if not ends or ends != sorted(set(ends)) or not all(rate > 0 for _, rate in self.rates):
            raise ConfigurationError(
                f"training.schedule.rates is {self.rates!r}.",
                remedy="Set it to at least one (epoch, rate) pair, with ascending epochs and rates above 0.",
            )

    def rate(self, progress: float, epochs: int) -> float:
        """Return the learning rate after `progress` of `epochs` epochs."""
        return next((rate for end, rate in self.rates if int(progress) < end), self.rates[-1][1])


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """A learning rate that rises linearly to its peak, then falls by half a cosine to zero with the last batch.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["cosine"] = "cosine"
    """Says that this is a cosine."""
    peak: float = 1e-3
    """The highest rate, above 0."""
    warmup_epochs: float = 1.0
    """Epochs of linear rise from zero: 0 or more, and fewer than the training has."""

    def __post_init__(self) -> None:
        for name, ok, needed in (
            ("peak", self.peak > 0, "above 0"),
            ("warmup_epochs", self.warmup_epochs >= 0, "0 or more"),
        ):
            if not ok:
                raise ConfigurationError(
                    f"training.schedule.{name} is {getattr(self, name)!r}.", remedy=f"Set it to {needed}."
                )

    def rate(self, progress: float, epochs: int) -> float:
        """Return the learning rate after `progress` of `epochs` epochs, a fraction within an epoch."""
        if progress < self.warmup_epochs:
            return self.peak * progress / self.warmup_epochs
        angle = math.pi * (progress - self.warmup_epochs) / (epochs - self.warmup_epochs)
        return self.peak * 0.5 * (1.0 + math.cos(angle))


class _ByKind:
    """Lets pydantic, if it validates the settings, choose the schedule by its `kind`; nothing else needs pydantic."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Field

        return handler(Annotated[source, Field(discriminator="kind")])


Schedule: TypeAlias = Annotated[StepSchedule | CosineSchedule, _ByKind()]
