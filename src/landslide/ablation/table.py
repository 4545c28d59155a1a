"""The table of an ablation: cross-validations that differ in a few settings, compared with published figures.

A score is the mean over the scored folds, as in the paper. A row may be trained with several seeds: then its score is
the mean over the seeds, and `_spread` is their population standard deviation.

The intervals come from a two-level bootstrap. Every draw takes blocks of neighbouring tiles with replacement (see
`landslide.metrics.bootstrap`), and seeds of the row with replacement. Each drawn seed is scored on the drawn blocks,
fold by fold; the value of the draw is the mean over the folds and the drawn seeds. So an interval covers other patches
of the same kind and, as far as a few seeds can show it, other seeds. For a difference, both rows are scored on the same
blocks; their seeds are drawn independently, because equal seeds do not pair two different networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.metrics.bootstrap import RESAMPLES, fold_mean, fold_mean_draws

SCORES = ("f1_macro", "miou", "f1_landslide")
"""The scores of the table."""
VARIANTS = ("_head_average", "_tta", "_in_scene")
"""Other prediction variants, and the in-scene part. Their scores are shown as well if the evaluation has them."""

_OF_A_SCORE = (
    "{}", "{}_low", "{}_high", "{}_spread", "paper_{}", "{}_minus_paper", "{}_gain", "{}_gain_low", "{}_gain_high",
)  # fmt: skip
_COLUMNS = (
    "row", "seeds", "folds", "scheme", "selection", "patches", "common_patches",
    *(column.format(score) for score in SCORES for column in _OF_A_SCORE),
    *(f"{score}{variant}" for variant in VARIANTS for score in SCORES),
    "parameters", "paper_parameters", "gflop", "seconds", "runs", "failure",
)  # fmt: skip
UNKNOWN = float("nan")
CELLS = ["tn", "fp", "fn", "tp"]


@dataclass(frozen=True)
class TrainedRow:
    """One cross-validation of a row: the row trained with one seed.

    Attributes:
        seed: The seed.
        run_id: Its parent run.
        tags: Tags of that run.
        patches: One row per scored patch, ordered by number: number, fold, block, tn, fp, fn, tp.
        seconds: Training time of all folds and epochs, NaN if not recorded.
        failure: Why it could not be trained or scored; empty otherwise.
        variants: Mean over the folds of `<score><way>`, for those of `VARIANTS` that were evaluated.
        tests: Scores of the test fold during the training, with `epoch`, by fold; empty if it was not scored then.
    """

    seed: int
    run_id: str
    tags: Mapping[str, str]
    patches: pd.DataFrame
    seconds: float
    failure: str
    variants: Mapping[str, float] = field(default_factory=dict)
    tests: Mapping[int, Sequence[Mapping[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class AblationRow:
    """A row of the table.

    Attributes:
        name: Its name.
        paper: Published figures: scores in percent, `parameters` in millions.
        parameters: Trainable parameters of the network.
        gflop: 10^9 operations of its forward pass for one patch.
        trained: Its cross-validations, one per seed.
        recorded: Tests of a published training by fold, see `landslide.ablation.record.read_recorded_tests`.
    """

    name: str
    paper: Mapping[str, float]
    parameters: int
    gflop: float
    trained: tuple[TrainedRow, ...]
    recorded: Mapping[int, Sequence[Sequence[float]]] = field(default_factory=dict)

    @property
    def finished(self) -> list[TrainedRow]:
        """The cross-validations that were trained and scored."""
        return [one for one in self.trained if not one.failure]

    @property
    def failure(self) -> str:
        """Why seeds are missing; empty if none is missing."""
        return "; ".join(f"seed {one.seed}: {one.failure}" for one in self.trained if one.failure)


def ablation_table(rows: Sequence[AblationRow], *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Return the table; scores in percent, differences in points.

    Args:
        rows: The rows; gains are over the first.
        resamples: Number of bootstrap draws.
        seed: Seed of the draws.

    Returns:
        One line per row. For each score of `SCORES`: `<score>` (mean over folds and seeds) with its 95 % interval
        `<score>_low` and `_high`, `<score>_spread` (over the seeds), `paper_<score>`, `<score>_minus_paper`, and
        `<score>_gain`: the score minus that of the first row on their `common_patches`, with `<score>_gain_low` and
        `_gain_high`; `<score>_head_average` and `<score>_tta`, the same patches predicted by these variants, and
        `<score>_in_scene`, the in-scene parts of the folds. Also row,
        seeds, folds, scheme, selection, patches, parameters, paper_parameters (millions),
        gflop, seconds (of training, mean over the seeds), runs, failure. Unknown values are NaN or empty.
    """
    described = [_described(rows[0], row, resamples, (seed, number)) for number, row in enumerate(rows)]
    return pd.DataFrame(described, columns=list(_COLUMNS))


def _described(first: AblationRow, row: AblationRow, resamples: int, seed: tuple[int, int]) -> dict[str, Any]:
    finished, tags = row.finished, row.trained[0].tags
    described: dict[str, Any] = {
        "row": row.name,
        "seeds": " ".join(str(one.seed) for one in finished),
        "folds": tags.get("folds_trained", ""),
        "scheme": tags.get("fold_scheme", ""),
        "selection": tags.get("selection", ""),
        "patches": len(finished[0].patches) if finished else 0,
        **{f"paper_{name}": row.paper.get(name, UNKNOWN) for name in SCORES},
    }
    if finished:
        described |= _scored(row, resamples, seed)
    if row is not first and finished and first.finished:
        described |= _gain(first.finished, finished, resamples, seed)
    return described | {
        "parameters": row.parameters,
        "paper_parameters": row.paper.get("parameters", UNKNOWN),
        "gflop": row.gflop,
        "seconds": float(np.mean([one.seconds for one in finished])) if finished else UNKNOWN,
        "runs": " ".join(one.run_id for one in row.trained),
        "failure": row.failure,
    }


def _scored(row: AblationRow, resamples: int, seed: tuple[int, int]) -> dict[str, float]:
    numbers = _common_numbers(row.finished)
    of_seeds = [_fold_means(one, numbers) for one in row.finished]
    described = _with_interval(average_over_seeds(row.finished, numbers, resamples=resamples, seed=seed), "")
    for name in SCORES:
        if len(of_seeds) > 1:
            described[f"{name}_spread"] = float(np.std([100 * scores[name] for scores in of_seeds]))
        described[f"{name}_minus_paper"] = described[name] - row.paper.get(name, UNKNOWN)
        for variant in VARIANTS:
            of_variant = [one.variants.get(f"{name}{variant}", UNKNOWN) for one in row.finished]
            described[f"{name}{variant}"] = float(100 * np.mean(of_variant))
    return described


def _gain(
    first: Sequence[TrainedRow], others: Sequence[TrainedRow], resamples: int, seed: tuple[int, int]
) -> dict[str, float]:
    common = _common_numbers([*first, *others])
    if len(common) == 0:
        return {"common_patches": 0}
    # The number of the row, which differs, chooses the draws of seeds; the first row has 0.
    one = average_over_seeds(first, common, resamples=resamples, seed=(seed[0], 0))
    other = average_over_seeds(others, common, resamples=resamples, seed=seed)
    return {"common_patches": len(common)} | _with_interval(other - one, "_gain")


def average_over_seeds(
    trained: Sequence[TrainedRow], numbers: npt.NDArray[np.int64], *, resamples: int, seed: tuple[int, int]
) -> pd.DataFrame:
    """Return the scores of some patches, averaged over the folds and the seeds, and the same for bootstrap draws.

    Args:
        trained: The seeds of a row.
        numbers: (n,) the patches to score, ascending.
        resamples: Number of draws.
        seed: Seed of the draws of blocks, and a number that distinguishes the draws of training seeds.

    Returns:
        (resamples + 1) rows, the first without resampling; columns `SCORES`, in percent. A single block of tiles
        says nothing about others: the draws are NaN then.
    """
    averaged = pd.DataFrame(0.0, index=range(resamples + 1), columns=list(SCORES))
    k = len(trained)
    # A spawned generator: seeded by a tuple that ends in zeros it would repeat the draws of the blocks.
    generator = np.random.default_rng(np.random.SeedSequence(seed[0], spawn_key=seed[1:]))
    drawn_seeds = generator.multinomial(k, np.full(k, 1 / k), size=resamples) / k
    blocks = _rows_of(trained[0], numbers)["block"].to_numpy()
    for position, one in enumerate(trained):
        point = pd.DataFrame([_fold_means(one, numbers)])[list(SCORES)] / k
        draws = fold_mean_draws(*_counts(one, numbers), blocks, resamples=resamples, seed=seed[0])[list(SCORES)]
        weighted = draws.mul(drawn_seeds[:, position], axis=0)
        averaged += pd.concat([point, weighted], ignore_index=True)
    if len(np.unique(blocks)) < 2:
        averaged.iloc[1:] = UNKNOWN
    return 100 * averaged


def _with_interval(values: pd.DataFrame, suffix: str) -> dict[str, float]:
    """Return `<score><suffix>` with its 95 % interval from what `average_over_seeds` returned."""
    named = {}
    for name in SCORES:
        low, high = np.percentile(values[name].iloc[1:], [2.5, 97.5])
        named[f"{name}{suffix}"] = float(values[name].iloc[0])
        named |= {f"{name}{suffix}_low": float(low), f"{name}{suffix}_high": float(high)}
    return named


def _common_numbers(trained: Sequence[TrainedRow]) -> npt.NDArray[np.int64]:
    """Return the numbers of the patches that all have scored, ascending."""
    common = set.intersection(*(set(one.patches["number"]) for one in trained))
    return np.array(sorted(common), np.int64)


def _rows_of(one: TrainedRow, numbers: npt.NDArray[np.int64]) -> pd.DataFrame:
    return one.patches.set_index("number").loc[numbers]


def _counts(one: TrainedRow, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the counts (n, 2, 2) of some patches and their folds (n,)."""
    rows = _rows_of(one, numbers)
    return rows[CELLS].to_numpy(np.int64).reshape(-1, 2, 2), rows["fold"].to_numpy(np.int64)


def _fold_means(one: TrainedRow, numbers: npt.NDArray[np.int64]) -> dict[str, float]:
    return fold_mean(*_counts(one, numbers))
