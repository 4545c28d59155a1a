"""Comparison of two cross-validated models on patches that neither has seen, and the decision between them.

Both predict a patch of fold k by their fold-k member alone. The difference of their scores is judged by a paired
block bootstrap (see `landslide.metrics.bootstrap`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.data.patches import POSITION_COLUMNS
from landslide.errors import ComparisonError, ConfigurationError
from landslide.folds.table import known_folds
from landslide.metrics.bootstrap import RESAMPLES, difference_draws, resampling_blocks
from landslide.metrics.counts import scores

DECIDING = ("f1_landslide", "f1_macro")
"""The scores of which both have to be better."""

CHAMPION_AND_CHALLENGER = ("champion", "challenger")
_CELLS = ("true_negatives", "false_positives", "false_negatives", "true_positives")


@dataclass(frozen=True, kw_only=True)
class PromotionSettings:
    """When a challenger replaces the champion.

    Attributes:
        margin: How much better landslide-class F1 and macro F1 each have to be, in units of F1 (0.01 is one point).
        confidence: Share of the bootstrap resamples in which each has to be better by more than the margin.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.
        min_blocks: Fewest blocks of neighbouring tiles on which a decision is made at all.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    margin: float = 0.0
    confidence: float = 0.95
    resamples: int = RESAMPLES
    seed: int = 0
    min_blocks: int = 5

    def __post_init__(self) -> None:
        for name, ok, needed in (
            ("margin", 0 <= self.margin < 1, "0 or more, and below 1"),
            ("confidence", 0.5 <= self.confidence < 1, "at least 0.5 and below 1"),
            ("resamples", self.resamples >= 100, "100 or more"),
            ("min_blocks", self.min_blocks >= 2, "2 or more"),
        ):
            if not ok:
                raise ConfigurationError(f"promotion.{name} is {getattr(self, name)!r}.", remedy=f"Set it to {needed}.")


@dataclass(frozen=True)
class Verdict:
    """What the evidence says.

    Attributes:
        better: Whether the challenger is to replace the champion.
        reason: Why, as one sentence.
    """

    better: bool
    reason: str


def comparable(
    table: pd.DataFrame,
    known: pd.DataFrame,
    *,
    member_folds: Collection[int],
    selected_on_test_fold: bool,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Say which patches the champion has not seen, so that they can be compared.

    A patch that the champion's table has under the same fold was kept from the member of that fold, if there is such
    a member and if the epoch was not chosen on it. A patch that no table knows is new to all members. An image that
    occurs in several folds is left out.

    Args:
        table: Fold table of the challenger.
        known: Fold table of the champion, with patches that left earlier; columns as in `landslide.folds.table.grow`.
        member_folds: Folds of which the champion has a member.
        selected_on_test_fold: Whether its epochs were chosen on the test folds (the paper's protocol).

    Returns:
        Two (n,) arrays: which patches can be compared, and which of all patches are new since the champion.
    """
    old = known_folds(table, known)
    new = old == 0
    fold = table["fold"].to_numpy()
    held_out = (old == fold) & np.isin(fold, list(member_folds)) & (not selected_on_test_fold)
    return (new | held_out) & ~_in_several_folds(table, known), new


def _in_several_folds(table: pd.DataFrame, known: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether the image of a patch, or its ground, is also in another fold of either table."""
    everything = pd.concat([known, table])
    several = np.zeros(len(table), bool)
    for key in (["image_md5"], list(POSITION_COLUMNS)):
        folds = everything.dropna(subset=key).groupby(key)["fold"].nunique()
        ambiguous = set(folds[folds > 1].index)
        several |= np.array([row in ambiguous for row in _keys(table, key)], bool)
    return several


def _keys(table: pd.DataFrame, columns: list[str]) -> list[Any]:
    rows = list(table[columns].itertuples(index=False, name=None))
    return [row[0] for row in rows] if len(columns) == 1 else rows


def refuse_seen(table: pd.DataFrame, rows: npt.NDArray[np.int64], fold: int, known: pd.DataFrame, model: str) -> None:
    """Make sure that no compared patch was in the training part of the member that predicts it.

    Args:
        table: Fold table of the compared patches.
        rows: (n,) rows of it that the member predicts.
        fold: The member's fold, 0 for all members together (which have seen everything in `known`).
        known: Every patch that the model, or one that it started from, was trained on or tested on, with its fold.
        model: Name of the model for the message.

    Raises:
        ComparisonError: If an image, or the ground of a patch, was in that training part.
    """
    trained = known[known["fold"] != fold]
    seen = table.iloc[rows]["image_md5"].isin(trained["image_md5"]).to_numpy()
    columns = list(POSITION_COLUMNS)
    ground = set(_keys(trained[columns].dropna(), columns))
    seen = seen | np.array([position in ground for position in _keys(table.iloc[rows], columns)], bool)
    if seen.any():
        numbers = table.iloc[rows[seen]]["number"].tolist()
        raise ComparisonError(
            f"The {model} was trained on {len(numbers)} of the patches to compare (fold {fold}): patch {numbers[0]}"
            + (" and others." if len(numbers) > 1 else "."),
            remedy="Look for images that occur twice (`landslide data check`), or compare on new patches alone.",
        )


def evidence_table(
    table: pd.DataFrame,
    new: npt.NDArray[np.bool_],
    counts: Mapping[str, npt.NDArray[np.int64]],
) -> pd.DataFrame:
    """Return the counts of both models patch by patch: all that the decision is computed from.

    Args:
        table: Fold table of the compared patches.
        new: (n,) whether a patch is new since the champion.
        counts: (n, 2, 2) counts of `champion` and `challenger`.

    Returns:
        One row a patch: number, image_md5, scene, row, column, fold, new, block, and `<model>_<cell>`.
    """
    evidence = table[["number", "image_md5", *POSITION_COLUMNS, "fold"]].reset_index(drop=True)
    evidence = evidence.assign(new=new, block=resampling_blocks(table))
    cells = {
        f"{model}_{cell}": counts[model].reshape(-1, 4)[:, i]
        for model in CHAMPION_AND_CHALLENGER
        for i, cell in enumerate(_CELLS)
    }
    return evidence.assign(**cells)


def model_scores(evidence: pd.DataFrame, model: str) -> dict[str, float]:
    """Return every score of a model from its counts pooled over the patches of the evidence."""
    return scores(evidence[_columns(model)].sum().to_numpy().reshape(2, 2))


def bootstrap(evidence: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Resample the blocks and return the differences, challenger minus champion.

    Args:
        evidence: What `evidence_table` returned.
        resamples: Number of resamples.
        seed: Seed.

    Returns:
        One row a resample, one column a score of `DECIDING`.
    """
    first, second = (evidence[_columns(model)].to_numpy().reshape(-1, 2, 2) for model in CHAMPION_AND_CHALLENGER)
    draws = difference_draws(first, second, evidence["block"].to_numpy(), resamples=resamples, seed=seed)
    return draws[list(DECIDING)]


def judge(evidence: pd.DataFrame, differences: pd.DataFrame, settings: PromotionSettings) -> Verdict:
    """Decide whether the challenger is to replace the champion.

    Args:
        evidence: What `evidence_table` returned.
        differences: What `bootstrap` returned.
        settings: Margin, confidence and the fewest blocks.
    """
    n_blocks = evidence["block"].nunique()
    if n_blocks < settings.min_blocks:
        return Verdict(
            False,
            f"only {n_blocks} blocks of tiles ({len(evidence)} patches) can be compared, and "
            f"promotion.min_blocks is {settings.min_blocks}",
        )
    parts, better = [], True
    champion, challenger = (model_scores(evidence, model) for model in CHAMPION_AND_CHALLENGER)
    for name in DECIDING:
        share = float((differences[name] > settings.margin).mean())
        better &= share >= settings.confidence
        parts.append(
            f"{name} {challenger[name]:.4f} against {champion[name]:.4f}, better by more than {settings.margin:g} in "
            f"{share:.1%} of the resamples"
        )
    needed = f"{settings.confidence:.0%} needed of both"
    return Verdict(better, f"{'; '.join(parts)} ({needed})")


def summary(evidence: pd.DataFrame, differences: pd.DataFrame) -> dict[str, float]:
    """Return the comparison as numbers.

    Returns:
        patches, new_patches, blocks; `<model>_<score>` for both models, `<score>_difference` and its 95 % interval
        (`_low`, `_high`) for the deciding scores; the same scores of the new patches alone as `new_<model>_<score>`.
    """
    values: dict[str, float] = {
        "patches": len(evidence),
        "new_patches": int(evidence["new"].sum()),
        "blocks": int(evidence["block"].nunique()),
    }
    for prefix, part in (("", evidence), ("new_", evidence[evidence["new"]])):
        if len(part):
            for model in CHAMPION_AND_CHALLENGER:
                values |= {f"{prefix}{model}_{name}": value for name, value in model_scores(part, model).items()}
    for name in DECIDING:
        values[f"{name}_difference"] = values[f"challenger_{name}"] - values[f"champion_{name}"]
        values[f"{name}_difference_low"], values[f"{name}_difference_high"] = (
            float(v) for v in np.percentile(differences[name], [2.5, 97.5])
        )
    return values


def _columns(model: str) -> list[str]:
    return [f"{model}_{cell}" for cell in _CELLS]
