"""Confidence intervals of scores and of their differences, by a block bootstrap.

Neighbouring tiles resemble each other. Therefore blocks of neighbouring tiles, not single patches, are drawn with
replacement (Künsch, 1989); the counts are pooled over each draw, and the score is computed again from the pooled counts
(Efron and Tibshirani, 1993). Two models are scored on the same draws, so patches that are hard for both cancel out. An
interval covers the choice of these patches among others of their kind. It does not cover the random seed of the
training.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.folds.schemes import BLOCK_SIDE, tile_blocks
from landslide.folds.table import has_position
from landslide.metrics.counts import METRIC_NAMES, score_arrays, scores
from landslide.schema import POSITION_COLUMNS

RESAMPLES = 2000


def resampling_blocks(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number the blocks to resample: squares of 4 x 4 tiles; patches without position are blocks of one.

    Args:
        table: Patch table with columns scene, row and column, possibly missing.

    Returns:
        (n,) block numbers from 0.
    """
    placed = has_position(table)
    tiles = tile_blocks(table.loc[placed, list(POSITION_COLUMNS)].to_numpy(np.int64), BLOCK_SIDE)
    blocks = np.empty(len(table), np.int64)
    blocks[placed] = tiles
    blocks[~placed] = np.arange((~placed).sum()) + tiles.max(initial=-1) + 1
    return blocks


def score_draws(
    counts: npt.NDArray[np.int64], blocks: npt.NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Resample the blocks and return the scores of every draw.

    Args:
        counts: (n, 2, 2) confusion counts of every patch, rows truth, columns prediction.
        blocks: (n,) block of every patch, any integers.
        resamples: Number of draws.
        seed: Seed.

    Returns:
        One row per draw, one column per score of `METRIC_NAMES`.
    """
    (drawn,) = _drawn_counts([counts], blocks, resamples, seed)
    return pd.DataFrame(score_arrays(drawn))


def fold_mean(counts: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the mean over the folds of every score of `METRIC_NAMES`.

    Args:
        counts: (n, 2, 2) confusion counts of every patch; they are pooled fold by fold.
        folds: (n,) fold of every patch.
    """
    of_folds = [scores(counts[folds == fold].sum(axis=0)) for fold in np.unique(folds)]
    return {name: float(np.mean([of_fold[name] for of_fold in of_folds])) for name in METRIC_NAMES}


def fold_mean_draws(
    counts: npt.NDArray[np.int64],
    folds: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Resample the blocks of all folds and return the mean over the folds of the scores of every draw.

    The draws are those of `score_draws`. A fold without any drawn patch is left out of the mean of that draw.

    Args:
        counts: (n, 2, 2) confusion counts of every patch, rows truth, columns prediction.
        folds: (n,) fold of every patch.
        blocks: (n,) block of every patch, any integers.
        resamples: Number of draws.
        seed: Seed.

    Returns:
        One row per draw, one column per score of `METRIC_NAMES`.
    """
    of_folds = [counts * (folds == fold)[:, None, None] for fold in np.unique(folds)]
    drawn = np.stack(_drawn_counts(of_folds, blocks, resamples, seed))
    absent = drawn.sum(axis=(-2, -1)) == 0
    means = {
        name: np.ma.masked_array(values, absent).mean(axis=0).filled(np.nan)
        for name, values in score_arrays(drawn).items()
    }
    return pd.DataFrame(means)


def difference_draws(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Resample the blocks and return how much better the second model is, both scored on the same draws.

    Args:
        first: (n, 2, 2) counts of the first model.
        second: (n, 2, 2) counts of the second on the same patches.
        blocks: (n,) block of every patch.
        resamples: Number of draws.
        seed: Seed.

    Returns:
        One row per draw, one column per score of `METRIC_NAMES`: second minus first.
    """
    one, other = (pd.DataFrame(score_arrays(c)) for c in _drawn_counts([first, second], blocks, resamples, seed))
    return other - one


def score_intervals(
    counts: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return every score of the pooled counts with its confidence interval.

    Args:
        counts: (n, 2, 2) confusion counts of every patch, rows truth, columns prediction; n at least 1.
        blocks: (n,) block of every patch, see `resampling_blocks`.
        confidence: Share of the draws inside the interval (percentiles with equal tails).
        resamples: Number of draws.
        seed: Seed.

    Returns:
        Rows `METRIC_NAMES`; columns value, low, high. The ends are NaN if all patches are in one block, because
        nothing can be said about other blocks then.
    """
    draws = score_draws(counts, blocks, resamples=resamples, seed=seed)
    return _with_interval("value", scores(counts.sum(axis=0)), draws, blocks, confidence)


def paired_differences(
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the difference of every pooled score, second minus first, with its confidence interval.

    Args:
        first: (n, 2, 2) counts of the first model; n at least 1.
        second: (n, 2, 2) counts of the second on the same patches, in the same order.
        blocks: (n,) block of every patch.
        confidence: Share of the draws inside the interval.
        resamples: Number of draws.
        seed: Seed.

    Returns:
        Rows `METRIC_NAMES`; columns difference, low, high. The ends are NaN if all patches are in one block.

    Raises:
        ValueError: If the two models were not scored on the same patches.
    """
    if not np.array_equal(np.sum(first, axis=-1), np.sum(second, axis=-1)):
        raise ValueError("The two models were not scored on the same patches: their numbers of true pixels differ.")
    one, other = (scores(counts.sum(axis=0)) for counts in (first, second))
    draws = difference_draws(first, second, blocks, resamples=resamples, seed=seed)
    differences = {name: other[name] - one[name] for name in METRIC_NAMES}
    return _with_interval("difference", differences, draws, blocks, confidence)


def named_intervals(intervals: pd.DataFrame, names: Sequence[str]) -> dict[str, float]:
    """Return intervals as metrics.

    Args:
        intervals: What `score_intervals` returned.
        names: The scores to return.

    Returns:
        `<name>_pooled`, and `<name>_low` and `<name>_high` if there is an interval.
    """
    ends = {"value": "pooled", "low": "low", "high": "high"}
    rows = intervals.to_dict(orient="index")
    values = {f"{name}_{ending}": float(rows[name][column]) for name in names for column, ending in ends.items()}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _drawn_counts(
    counts: Sequence[npt.NDArray[np.int64]], blocks: npt.NDArray[np.int64], resamples: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Pool the counts (n, 2, 2) of one or more models over the same draws, to (resamples, 2, 2) each."""
    numbers, block_of_patch = np.unique(blocks, return_inverse=True)
    m = len(numbers)
    draws = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=resamples)
    pooled = []
    for model in counts:
        of_blocks = np.zeros((m, 4), np.int64)
        np.add.at(of_blocks, block_of_patch, np.reshape(model, (-1, 4)))
        pooled.append((draws @ of_blocks).reshape(-1, 2, 2))
    return pooled


def _with_interval(
    column: str, values: dict[str, float], draws: pd.DataFrame, blocks: npt.NDArray[np.int64], confidence: float
) -> pd.DataFrame:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(draws[list(METRIC_NAMES)], [tail, 100 - tail], axis=0)
    if len(np.unique(blocks)) < 2:
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    index = pd.Index(METRIC_NAMES, name="score")
    return pd.DataFrame({column: [values[name] for name in METRIC_NAMES], "low": low, "high": high}, index=index)
