"""Rows that are computed in fixed blocks, so that they do not depend on which rows are asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class RowBlocks:
    """Rows of a layer; the last two computed blocks are kept.

    Args:
        compute: From the first row and the row after the last one to an array (..., rows, columns).
        height: Rows of the layer.
        block: Rows of a block.
    """

    def __init__(self, compute: Callable[[int, int], Array], height: int, block: int = 128) -> None:
        self._compute = compute
        self._height = height
        self._size = block
        self._kept: dict[int, Array] = {}

    def read(self, start: int, stop: int) -> Array:
        """Return rows `start` to `stop`, (..., stop - start, columns)."""
        parts = []
        for number in range(start // self._size, (stop - 1) // self._size + 1):
            top = number * self._size
            block = self._block(number)
            parts.append(block[..., max(start - top, 0) : stop - top, :])
        return np.concatenate(parts, axis=-2)

    def _block(self, number: int) -> Array:
        if number not in self._kept:
            if len(self._kept) == 2:
                del self._kept[next(iter(self._kept))]
            top = number * self._size
            self._kept[number] = self._compute(top, min(top + self._size, self._height))
        return self._kept[number]
