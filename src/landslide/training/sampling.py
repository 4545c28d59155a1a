"""Which training patches are used, and in which order they come."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def evenly_spaced(rows: npt.NDArray[np.int64], n: int | None) -> npt.NDArray[np.int64]:
    """Return at most n of the rows, evenly spaced and in their order; all if n is None."""
    if n is None or n >= len(rows):
        return rows
    return rows[np.arange(n) * len(rows) // n]


def epoch_order(positive: Tensor, share: float | None, generator: torch.Generator, *, shuffled: bool = True) -> Tensor:
    """Return the patches of an epoch, as many as there are, in random or in natural order.

    Args:
        positive: (n,) boolean: which training patches hold landslides.
        share: Share of those with landslides in the epoch; each patch comes once if None, or if all or none have
            landslides. Else the patches of either kind come equally often, up to one.
        generator: Source of the random numbers.
        shuffled: Draw the order at random. If False, each patch comes once, in its place, and share has no effect.

    Returns:
        (n,) int64 indices.
    """
    n = len(positive)
    if not shuffled:
        return torch.arange(n)
    if share is None or bool(positive.all()) or not bool(positive.any()):
        return torch.randperm(n, generator=generator)
    wanted = min(max(round(share * n), 1), n)
    kinds = ((torch.nonzero(positive).squeeze(1), wanted), (torch.nonzero(~positive).squeeze(1), n - wanted))
    drawn = torch.cat([_draw(members, number, generator) for members, number in kinds])
    return drawn[torch.randperm(n, generator=generator)]


def _draw(members: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Draw a number of the members, none again before all have come."""
    rounds = -(-number // len(members))
    drawn = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
    return torch.cat(drawn)[:number] if drawn else members[:0]
