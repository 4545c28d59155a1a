"""Which patches of a fold train, which select epoch and threshold, and which test."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.errors import ConfigurationError, DataError
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


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """What else is kept out of training and selection with a test fold.

    Attributes:
        gap: Width in tiles of the ring around the test fold and around the in-scene part that is not used.
        in_scene_fraction: Share of the other folds in the in-scene part: ground like that of the training, on which the
            same network is tested as well. 0 for none.
        seed: Seed of the draw of the in-scene part.

    Raises:
        ConfigurationError: If the gap is no number of tiles, or the fraction is not within 0 and 0.5.
    """

    gap: int = 0
    in_scene_fraction: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.gap, int) or self.gap < 0 or not 0 <= self.in_scene_fraction <= 0.5:
            raise ConfigurationError(
                f"folds.gap is {self.gap} and folds.in_scene_fraction {self.in_scene_fraction}.",
                remedy="Set folds.gap to 0 or more, in whole tiles, and folds.in_scene_fraction to 0 to 0.5.",
            )

    def __str__(self) -> str:
        ring = f"a ring of {self.gap} tile{'' if self.gap == 1 else 's'}" if self.gap else ""
        part = f"{100 * self.in_scene_fraction:g} % in scene (seed {self.seed})" if self.in_scene_fraction else ""
        return ", ".join(filter(None, [ring, part])) or "nothing"


@dataclass(frozen=True)
class FoldParts:
    """Which patches of a fold are tested, and which are left to train and select; the others are in the gap.

    Attributes:
        test: (n,) boolean, the test fold.
        in_scene: (n,) boolean, the in-scene part.
        remaining: (n,) boolean, what trains and selects.
    """

    test: npt.NDArray[np.bool_]
    in_scene: npt.NDArray[np.bool_]
    remaining: npt.NDArray[np.bool_]


def fold_rows(
    table: pd.DataFrame,
    fold: int,
    hold_out: HoldOut = HoldOut(),
    *,
    validation_fraction: float | None = 0.1,
    seed: int = 0,
) -> FoldRows:
    """Divide the patches for one fold of a cross-validation.

    Args:
        table: Fold table in natural order: columns fold, positive_pixels, scene, row, column.
        fold: The test fold.
        hold_out: What else is not trained on.
        validation_fraction: Share of what remains in the inner validation part, on which epoch and threshold are
            chosen; if None, they are chosen on the test fold itself, which is the paper's protocol and optimistic.
        seed: Seed of the draw of the validation part.

    Raises:
        DataError: If fewer than two patches are left to divide.
    """
    rows = np.arange(len(table))
    parts = fold_parts(table, fold, hold_out)
    others = parts.remaining
    if validation_fraction is None:
        return FoldRows(rows[others], rows[parts.test], rows[parts.test])
    chosen = inner_validation(table[others], fraction=validation_fraction, seed=seed)
    return FoldRows(rows[others][~chosen], rows[others][chosen], rows[parts.test])


def fold_parts(table: pd.DataFrame, fold: int, hold_out: HoldOut = HoldOut()) -> FoldParts:
    """Find what a fold tests on, and what it may train on.

    The in-scene part is drawn as the inner validation part is: blocks of neighbouring tiles of the other folds.

    Args:
        table: Fold table in natural order: columns fold, positive_pixels, scene, row, column.
        fold: The test fold.
        hold_out: What is held out beside it.

    Raises:
        DataError: If the gap or the in-scene part leaves fewer than two patches.
    """
    test = (table["fold"] == fold).to_numpy()
    in_scene = np.zeros(len(table), bool)
    others = ~test & ~adjacent_to(table, test, hold_out.gap)
    if hold_out.in_scene_fraction and others.sum() >= 2:
        in_scene[others] = inner_validation(table[others], fraction=hold_out.in_scene_fraction, seed=hold_out.seed)
        others &= ~in_scene & ~adjacent_to(table, in_scene, hold_out.gap)
    if others.sum() < 2 <= (~test).sum():
        width = f"{hold_out.gap} tile{'' if hold_out.gap == 1 else 's'}"
        within = [f"within {width} of the test fold"] if hold_out.gap else []
        part = [f"{'in or near' if hold_out.gap else 'in'} the in-scene part"] if hold_out.in_scene_fraction else []
        remedies = ["a smaller folds.gap"] if hold_out.gap else []
        remedies += ["folds.in_scene_fraction: 0"] if hold_out.in_scene_fraction else []
        raise DataError(
            f"Fold {fold} has {others.sum()} training patches: all others are {' or '.join(within + part)}.",
            remedy=f"Use {', '.join(remedies)}, folds.scheme: contiguous, which trains on all of them, more folds, or "
            "larger scenes.",
        )
    return FoldParts(test, in_scene, others)


def adjacent_to(table: pd.DataFrame, test: npt.NDArray[np.bool_], width: int = 1) -> npt.NDArray[np.bool_]:
    """Find the patches in the ring around the test patches, across edges and corners, that are none themselves.

    Args:
        table: Patch table with columns scene, row and column; a patch without position has no neighbours.
        test: (n,) which patches are test patches.
        width: Width of the ring in tiles: 1 for the patches that adjoin a test patch, 0 for none.

    Returns:
        (n,) boolean.
    """
    if not width:
        return np.zeros(len(table), bool)
    positions = table[["scene", "row", "column"]].astype("Float64").to_numpy(np.float64, na_value=np.nan)
    near = np.zeros(len(table), bool)
    for scene in np.unique(positions[test, 0]):
        here = np.flatnonzero(positions[:, 0] == scene)
        places = positions[here, 1:]
        for place in places[test[here]]:
            near[here] |= (np.abs(places - place) <= width).all(axis=1)
    return near & ~test


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
