"""Patch tables without files."""

import io
from collections.abc import Iterable

import numpy as np
import pandas as pd


def build_patch_table(images, positions=None, numbers=None, pixels=None, folds=None) -> pd.DataFrame:
    """A patch table as `patch_table` gives it, or with `folds` a fold table.

    Args:
        images: Digests of the images, or how many patches there are.
        positions: (scene, row, column) or None of every patch; None if no position is known.
        numbers: Numbers of the patches; 1, 2, ... if None.
        pixels: Landslide pixels of the patches; 100 each if None.
        folds: Fold numbers of the patches.
    """
    images = digests(range(1, images + 1)) if isinstance(images, int) else list(images)
    n = len(images)
    rows = [p if p is not None else (None, None, None) for p in (positions if positions is not None else [None] * n)]
    table = pd.DataFrame(
        {
            "number": pd.Series(range(1, n + 1) if numbers is None else numbers, dtype="int64"),
            "image_md5": pd.Series(images, dtype=object),
            "positive_pixels": pd.Series(np.full(n, 100) if pixels is None else pixels, dtype="int64"),
        }
    ).join(pd.DataFrame(rows, columns=["scene", "row", "column"]).astype("Int64"))
    return table if folds is None else table.assign(fold=folds)


def digests(numbers: Iterable[int]) -> list[str]:
    """Strings of the form of an md5, one per number."""
    return [f"{number:032x}" for number in numbers]


def grid_positions(rows: int, columns: int, scene: int = 1) -> list[tuple[int, int, int]]:
    return [(scene, row, column) for row in range(rows) for column in range(columns)]


def image_names(positions, prefix: str = "image") -> list[str]:
    return [f"{prefix} {scene} {row} {column}" for scene, row, column in positions]


def as_recorded(table: pd.DataFrame) -> pd.DataFrame:
    """A table after a round trip through CSV, as an artifact of a run."""
    return pd.read_csv(io.StringIO(table.to_csv(index=False)))
