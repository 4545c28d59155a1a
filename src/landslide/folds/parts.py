"""Which patches of a fold train, which select epoch and threshold, and which test."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.errors import DataError
from landslide.folds.schemes import neighbour_blocks


@dataclass(frozen=True)
class FoldRows:
    """Rows of the fold table, and of its band cache, by part.

    Attributes:
        training: (n,) rows that train; statistics and donors come from these only.
        selection: (m,) rows on which the epoch and the thresholds are chosen.
        test: (k,) rows of the test fold.
    """

    training: npt.NDArray[np.int64]
    selection: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def fold_rows(
    table: pd.DataFrame,
    fold: int,
    *,
    exclude_adjacent: bool = False,
    validation_fraction: float | None = 0.1,
    seed: int = 0,
) -> FoldRows:
    """Divide the patches for one fold of a cross-validation.

    Args:
        table: Fold table in natural order: columns fold, positive_pixels, scene, row, column.
        fold: The test fold.
        exclude_adjacent: Leave out the tiles that adjoin a tile of the test fold.
        validation_fraction: Share of the other folds in the inner validation part, on which epoch and threshold are
            chosen; if None, they are chosen on the test fold itself, which is the paper's protocol and optimistic.
        seed: Seed of the draw of the validation part.

    Raises:
        DataError: If fewer than two patches are left to divide.
    """
    rows = np.arange(len(table))
    test = (table["fold"] == fold).to_numpy()
    others = ~test & ~adjacent_to(table, test) if exclude_adjacent else ~test
    if exclude_adjacent and others.sum() < 2 <= (~test).sum():
        raise DataError(
            f"Fold {fold} has {others.sum()} training patches: all others adjoin a tile of the fold.",
            remedy="Use folds.scheme: contiguous, which trains on these too, more folds, or larger scenes.",
        )
    if validation_fraction is None:
        return FoldRows(rows[others], rows[test], rows[test])
    chosen = inner_validation(table[others], fraction=validation_fraction, seed=seed)
    return FoldRows(rows[others][~chosen], rows[others][chosen], rows[test])


def adjacent_to(table: pd.DataFrame, test: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Find the patches that adjoin a test patch, across an edge or a corner, and are not test patches themselves.

    Args:
        table: Patch table with columns scene, row and column; a patch without position adjoins none.
        test: (n,) which patches are test patches.

    Returns:
        (n,) boolean.
    """
    positions = table[["scene", "row", "column"]].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    around = {
        (scene, row + down, column + right)
        for scene, row, column in positions[test].tolist()
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
    }
    touches = np.array([tuple(position) in around for position in positions.tolist()], bool)
    return touches & ~test


def inner_validation(table: pd.DataFrame, *, fraction: float = 0.1, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Choose the inner validation part of a training set, on which epoch and threshold are selected.

    Blocks of neighbouring tiles are drawn at random until the part holds the fraction of the patches; the first
    block holds landslides if at least two blocks do, so that both parts have some.

    Args:
        table: Training patches in natural order: columns positive_pixels, scene, row, column.
        fraction: Share of the patches, between 0 and 1.
        seed: Seed of the draw.

    Returns:
        (n,) boolean, True for validation.

    Raises:
        DataError: If there are fewer than two patches.
    """
    n = len(table)
    if n < 2:
        raise DataError(
            f"The training folds hold {n} patch{'' if n == 1 else 'es'}, which cannot be divided into a training and a "
            "validation part.",
            remedy="Use more patches or more folds (folds.n_folds), or training.selection: test_fold.",
        )
    wanted = min(max(1, round(n * fraction)), n - 1)
    blocks = neighbour_blocks(table, parts=max(2, round(1 / fraction)))
    order = np.random.default_rng(seed).permutation(int(blocks.max()) + 1)
    positive = np.bincount(blocks, weights=table["positive_pixels"].to_numpy(np.float64)) > 0
    with_landslides = [b for b in order if positive[b]]
    if len(with_landslides) > 1:  # the first is drawn first, the last stays in training
        first, last = with_landslides[0], with_landslides[-1]
        order = np.array([first, *(b for b in order if b not in (first, last))])
    chosen = np.zeros(n, bool)
    for block in order:
        members = blocks == block
        if chosen.any() and chosen.sum() + members.sum() / 2 > wanted:
            break
        if chosen.sum() + members.sum() < n:
            chosen |= members
    return chosen
