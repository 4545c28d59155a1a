"""The raw files of a prediction, from which the products are made: rows of pixels from north to south."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landslide.errors import DataError
from landslide.scenes.reasons import Reason

SCALE = 0.0001
"""Step of the stored probabilities and deviations."""
NO_DATA = 65535
"""Stored where a pixel is not analysed."""
_BLOCK_ROWS = 512
RAW_TYPES: dict[str, np.dtype[Any]] = {
    "probability": np.dtype(np.uint16),
    "uncertainty": np.dtype(np.uint16),
    "reasons": np.dtype(np.uint8),
}
"""The raw files, `<name>.raw`, with their dtypes."""


def row_slices(height: int) -> Iterator[slice]:
    """Divide the rows of a map into blocks that are read or written at a time."""
    for start in range(0, height, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, height))


def read_rows(folder: Path, name: str, rows: slice, width: int) -> npt.NDArray[Any]:
    """Return rows of a raw file as an array (rows, width).

    The file is not mapped into memory, where what was read would count as the process's own.

    Raises:
        OSError: The file cannot be read.
        DataError: It is too short.
    """
    dtype: np.dtype[Any] = RAW_TYPES[name]
    start, stop = (row * width for row in (rows.start, rows.stop))
    values = np.fromfile(folder / f"{name}.raw", dtype, count=stop - start, offset=start * dtype.itemsize)
    if len(values) < stop - start:
        raise _damaged(folder, name, "has lost rows")
    return values.reshape(-1, width)


def count_reasons(folder: Path, height: int, width: int) -> tuple[dict[str, int], int]:
    """Count the pixels of the area of interest that are not analysed, by reason in words, and all of its pixels.

    Raises:
        OSError: The file of the reasons cannot be read.
        DataError: It is damaged.
    """
    counts = np.zeros(len(Reason), np.int64)
    for rows in row_slices(height):
        codes = read_rows(folder, "reasons", rows, width)
        if codes.max() >= len(counts):
            raise _damaged(folder, "reasons", "has codes that are no reasons")
        counts += np.bincount(codes.ravel(), minlength=len(counts))
    outside = int(counts[Reason.OUTSIDE_AREA])
    inside = [reason for reason in Reason if reason not in (Reason.ANALYSED, Reason.OUTSIDE_AREA) and counts[reason]]
    return {reason.text: int(counts[reason]) for reason in inside}, width * height - outside


def _damaged(folder: Path, name: str, how: str) -> DataError:
    return DataError(
        f"{folder / name}.raw is damaged: it {how}.",
        remedy=f"Delete the folder {folder} and call again; the map is then begun anew.",
    )
