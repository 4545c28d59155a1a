"""Comparison of two cross-validated models on patches that neither has seen, and the decision between them.

Both models predict a patch of fold k with their member of fold k only; a model without such a member predicts with all
members, if none has seen the patch. A paired block bootstrap (see `landslide.metrics.bootstrap`) judges the difference
of their scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from landslide.errors import ConfigurationError
from landslide.metrics.bootstrap import RESAMPLES, difference_draws
from landslide.retraining.out_of_fold import CHAMPION_AND_CHALLENGER, count_columns, model_scores
from landslide.schema import SEEDS

DECIDING = ("f1_landslide", "f1_macro")
"""Both of these scores must be better."""


@dataclass(frozen=True, kw_only=True)
class PromotionSettings:
    """When a challenger replaces the champion."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    margin: float = 0.0
    """The landslide-class F1 and the macro F1 must each be better by more than this margin, in units of F1 (0.01 is one
    point): 0 or more, below 1."""
    confidence: float = 0.95
    """Share of the bootstrap resamples in which each score must be better by more than the margin: at least 0.5, below
    1."""
    resamples: int = RESAMPLES
    """Number of bootstrap resamples, 100 or more."""
    seed: int = 0
    """Seed of the resampling, 0 to 4,294,967,295."""
    min_blocks: int = 5
    """Fewest blocks of neighbouring tiles on which a challenger can be promoted, 2 or more."""

    def __post_init__(self) -> None:
        for name, ok, needed in (
            ("margin", 0 <= self.margin < 1, "0 or more, and below 1"),
            ("confidence", 0.5 <= self.confidence < 1, "at least 0.5 and below 1"),
            ("resamples", self.resamples >= 100, "100 or more"),
            ("seed", self.seed in SEEDS, f"0 to {SEEDS[-1]:,}"),
            ("min_blocks", self.min_blocks >= 2, "2 or more"),
        ):
            if not ok:
                raise ConfigurationError(f"promotion.{name} is {getattr(self, name)!r}.", remedy=f"Set it to {needed}.")


@dataclass(frozen=True)
class Verdict:
    """The result of a comparison.

    Attributes:
        better: Whether the challenger replaces the champion.
        reason: Why, as one sentence.
    """

    better: bool
    reason: str


def bootstrap(evidence: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Resample the blocks and return the differences, challenger minus champion.

    Args:
        evidence: The result of `evidence_table`.
        resamples: Number of resamples.
        seed: Seed.

    Returns:
        One row per resample, one column per score of `DECIDING`.
    """
    first, second = (evidence[count_columns(model)].to_numpy().reshape(-1, 2, 2) for model in CHAMPION_AND_CHALLENGER)
    draws = difference_draws(first, second, evidence["block"].to_numpy(), resamples=resamples, seed=seed)
    return draws[list(DECIDING)]


def judge(evidence: pd.DataFrame, differences: pd.DataFrame, settings: PromotionSettings) -> Verdict:
    """Decide whether the challenger replaces the champion.

    Args:
        evidence: The result of `evidence_table`.
        differences: The result of `bootstrap`.
        settings: Margin, confidence and minimum number of blocks.
    """
    n_blocks = evidence["block"].nunique()
    if n_blocks < settings.min_blocks:
        return Verdict(
            False,
            f"only {n_blocks} blocks of tiles ({len(evidence)} patches) can be compared, and "
            f"promotion.min_blocks is {settings.min_blocks}",
        )
    champion, challenger = (model_scores(evidence, model) for model in CHAMPION_AND_CHALLENGER)
    shares = [float((differences[name] > settings.margin).mean()) for name in DECIDING]
    better = all(share >= settings.confidence for share in shares)
    scores = [f"{name} {100 * challenger[name]:.2f} % against {100 * champion[name]:.2f} %" for name in DECIDING]
    return Verdict(
        better,
        f"{'better' if better else 'not better'}: {', '.join(scores)}; better by more than {100 * settings.margin:g} "
        f"points in {' and '.join(f'{100 * share:.2f} %' for share in shares)} of the resamples "
        f"({100 * settings.confidence:g} % needed of both)",
    )


def summary(evidence: pd.DataFrame, differences: pd.DataFrame, settings: PromotionSettings) -> dict[str, float]:
    """Return the comparison as numbers.

    Args:
        evidence: The result of `evidence_table`; without the column relabelled, nothing is said of changed labels.
        differences: The result of `bootstrap` for it.
        settings: Resamples and seed of the intervals of parts of the patches.

    Returns:
        patches, new_patches, blocks; `<model>_<score>` for both models, `<score>_difference` and its 95 % interval
        (`_low`, `_high`) for the deciding scores; the same scores of the new patches only as `new_<model>_<score>`.
        If labels changed since the champion, also relabelled_patches and unchanged_patches, and scores, differences
        and intervals of these two parts as `relabelled_...` and `unchanged_...`. New patches are in neither.
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
    values |= _differences(values, differences)
    if "relabelled" in evidence and evidence["relabelled"].any():
        for name, chosen in (
            ("relabelled", evidence["relabelled"]),
            ("unchanged", ~(evidence["relabelled"] | evidence["new"])),
        ):
            values |= {f"{name}_{key}": value for key, value in _part_summary(evidence[chosen], settings).items()}
    return values


def _part_summary(part: pd.DataFrame, settings: PromotionSettings) -> dict[str, float]:
    """Return number of patches, scores of both models and their differences; there is no interval of a single block."""
    values: dict[str, float] = {"patches": len(part)}
    if len(part):
        for model in CHAMPION_AND_CHALLENGER:
            values |= {f"{model}_{name}": value for name, value in model_scores(part, model).items()}
        values |= _differences(values, bootstrap(part, resamples=settings.resamples, seed=settings.seed))
        if part["block"].nunique() < 2:
            values = {name: value for name, value in values.items() if not name.endswith(("_low", "_high"))}
    return values


def _differences(values: Mapping[str, float], differences: pd.DataFrame) -> dict[str, float]:
    """Return `<score>_difference` and its 95 % interval for the deciding scores."""
    found = {}
    for name in DECIDING:
        low, high = np.percentile(differences[name], [2.5, 97.5])
        found[f"{name}_difference"] = values[f"challenger_{name}"] - values[f"champion_{name}"]
        found |= {f"{name}_difference_low": float(low), f"{name}_difference_high": float(high)}
    return found
