"""Champion and challenger on patches that neither has seen: which patches, their predictions, their counts."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from landslide.bands.cache import BandCache
from landslide.data.patches import read_stored
from landslide.errors import ComparisonError
from landslide.folds.table import previous_folds, previous_rows
from landslide.inference.batches import predict_batches
from landslide.inference.ensemble import Ensemble
from landslide.metrics.bootstrap import resampling_blocks
from landslide.metrics.counts import scores
from landslide.schema import POSITION_COLUMNS

CHAMPION_AND_CHALLENGER = ("champion", "challenger")

_BATCH = 12
_CELLS = ("true_negatives", "false_positives", "false_negatives", "true_positives")


def select_unseen(
    table: pd.DataFrame,
    previous: pd.DataFrame,
    *,
    member_folds: Collection[int],
    selected_on_test_fold: bool,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Find the patches on which the two models can be compared: those that the champion has not seen.

    A patch that kept its fold k is unseen by the champion's member k. This does not hold if member k is missing, or if
    its epoch was chosen on fold k. A patch that is missing in the champion's table is new to all members. An image that
    occurs in several folds is left out.

    Args:
        table: Fold table of the challenger.
        previous: Fold table of the champion, including removed patches; columns as in
            `landslide.folds.table.extend_fold_table`.
        member_folds: Folds of which the champion has a member.
        selected_on_test_fold: Whether its epochs were chosen on the test folds (the paper's protocol).

    Returns:
        Two (n,) arrays: which patches can be compared, and which of all patches are new since the champion.
    """
    old = previous_folds(table, previous)
    new = old == 0
    fold = table["fold"].to_numpy()
    held_out = (old == fold) & np.isin(fold, list(member_folds)) & (not selected_on_test_fold)
    return (new | held_out) & ~_in_several_folds(table, previous), new


def relabelled_patches(table: pd.DataFrame, previous: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Find the patches whose labels changed since the champion: it was trained with another mask file.

    Args:
        table: Fold table of the challenger.
        previous: Fold table of the champion, including removed patches, both with the column mask_md5.

    Returns:
        (n,); false for patches that are new since the champion.
    """
    rows = previous_rows(table, previous)
    changed = rows >= 0
    before, now = previous["mask_md5"].to_numpy(object), table["mask_md5"].to_numpy(object)
    changed[changed] = before[rows[changed]] != now[changed]
    return changed


def _in_several_folds(table: pd.DataFrame, previous: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for which patches the image or the position is also in another fold of either table."""
    everything = pd.concat([previous, table])
    several = np.zeros(len(table), bool)
    for key in (["image_md5"], list(POSITION_COLUMNS)):
        folds = everything.dropna(subset=key).groupby(key)["fold"].nunique()
        ambiguous = set(folds[folds > 1].index)
        several |= np.array([row in ambiguous for row in _keys(table, key)], bool)
    return several


def _keys(table: pd.DataFrame, columns: list[str]) -> list[Any]:
    rows = list(table[columns].itertuples(index=False, name=None))
    return [row[0] for row in rows] if len(columns) == 1 else rows


def check_unseen(
    table: pd.DataFrame, rows: npt.NDArray[np.int64], fold: int, previous: pd.DataFrame, model: str
) -> None:
    """Check that no compared patch was in the training part of the member that predicts it.

    Args:
        table: Fold table of the compared patches.
        rows: (n,) rows of it that the member predicts.
        fold: The member's fold; 0 for all members together, which have seen everything in `previous`.
        previous: Every patch that the model, or one that it started from, was trained on or tested on, with its fold.
        model: Name of the model for the message.

    Raises:
        ComparisonError: If the image or the position of a patch was in that training part.
    """
    trained = previous[previous["fold"] != fold]
    seen = table.iloc[rows]["image_md5"].isin(trained["image_md5"]).to_numpy()
    columns = list(POSITION_COLUMNS)
    positions = set(_keys(trained[columns].dropna(), columns))
    seen = seen | np.array([position in positions for position in _keys(table.iloc[rows], columns)], bool)
    if seen.any():
        numbers = table.iloc[rows[seen]]["number"].tolist()
        raise ComparisonError(
            f"The {model} was trained on {len(numbers)} of the patches to compare (fold {fold}): patch {numbers[0]}"
            + (" and others." if len(numbers) > 1 else "."),
            remedy="Look for images that occur twice (`landslide data check`), or compare on new patches only.",
        )


def evidence_table(
    table: pd.DataFrame,
    new: npt.NDArray[np.bool_],
    relabelled: npt.NDArray[np.bool_],
    counts: Mapping[str, npt.NDArray[np.int64]],
) -> pd.DataFrame:
    """Return the counts of both models for every patch: the decision is computed from these only.

    Args:
        table: Fold table of the compared patches.
        new: (n,) whether a patch is new since the champion.
        relabelled: (n,) whether its labels changed since the champion, see `relabelled_patches`.
        counts: (n, 2, 2) counts of `champion` and `challenger`.

    Returns:
        One row per patch: number, image_md5, scene, row, column, fold, new, relabelled, block, and `<model>_<cell>`.
    """
    evidence = table[["number", "image_md5", *POSITION_COLUMNS, "fold"]].reset_index(drop=True)
    evidence = evidence.assign(new=new, relabelled=relabelled, block=resampling_blocks(table))
    cells = {
        f"{model}_{cell}": counts[model].reshape(-1, 4)[:, i]
        for model in CHAMPION_AND_CHALLENGER
        for i, cell in enumerate(_CELLS)
    }
    return evidence.assign(**cells)


def model_scores(evidence: pd.DataFrame, model: str) -> dict[str, float]:
    """Return every score of a model from its counts pooled over the patches of the evidence."""
    return scores(evidence[count_columns(model)].sum().to_numpy().reshape(2, 2))


def count_columns(model: str) -> list[str]:
    """Return the columns of the evidence that hold the confusion counts of a model."""
    return [f"{model}_{cell}" for cell in _CELLS]


def predict_unseen(
    ensemble: Ensemble,
    cache: BandCache,
    table: pd.DataFrame,
    rows: npt.NDArray[np.int64],
    previous: pd.DataFrame,
    *,
    model: str,
    root: Path | None = None,
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor, Tensor]]:
    """Predict patches out of fold, batch by batch: a patch of fold k is predicted by the member that left out fold k.

    If the ensemble has no such member, all members predict together; then none of them may have seen the patch.

    Args:
        ensemble: The fold models.
        cache: The bands of the patches of `table`.
        table: Fold table.
        rows: (n,) rows of it to predict, ascending.
        previous: Every patch that the members, or the members that they started from, have seen, with its fold.
        model: Name of the model for messages.
        root: Folder of the patches, for an ensemble of other code (see `landslide.inference.ensemble.load_ensemble`):
            it computes the bands itself, and only the masks are those of the cache.

    Yields:
        Positions in `rows`, the landslide probabilities (B, 128, 128) of these patches on the ensemble's device, and
        their masks (B, 128, 128).

    Raises:
        ComparisonError: If one of the patches was in the training part of the member that predicts it.
    """
    members = {m.fold: (m, network) for m, network in zip(ensemble.members, ensemble.models, strict=True)}
    fold_of_row = table["fold"].to_numpy()[rows]
    for fold in np.unique(fold_of_row):
        chosen = np.flatnonzero(fold_of_row == fold)
        predicting = [members[fold]] if fold in members else list(members.values())
        check_unseen(table, rows[chosen], int(fold) if fold in members else 0, previous, model)
        predictions = [
            predict_batches(
                network, cache, rows[chosen], member.spec.bands, {"": member.prediction}, device=ensemble.device
            )
            if root is None
            else _predict_stored(
                type(ensemble)([member], ensemble.settings, ensemble.device), cache, table["image"], rows[chosen], root
            )
            for member, network in predicting
        ]
        for batch in zip(*predictions, strict=True):
            part, _, masks = batch[0]
            yield chosen[part], torch.stack([found[""] for _, found, _ in batch]).mean(dim=0), masks


def _predict_stored(
    ensemble: Ensemble, cache: BandCache, images: "pd.Series[str]", rows: npt.NDArray[np.int64], root: Path
) -> Iterator[tuple[slice, dict[str, Tensor], Tensor]]:
    """Predict patches from their files, and yield what `predict_batches` yields."""
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        stored = [read_stored(root / image, len(ensemble.settings.stored)) for image in images.iloc[rows[part]]]
        probability, _ = ensemble.predict(np.stack(stored).transpose(0, 3, 1, 2))
        yield part, {"": torch.from_numpy(probability)}, torch.from_numpy(cache.masks[rows[part]]).long()


def check_unseen_folds(fold_table: pd.DataFrame, previous: pd.DataFrame, start: dict[str, str]) -> None:
    """Check that a version has not seen the patches of the test folds of the trainings that start from it.

    Args:
        fold_table: The patches with their folds.
        previous: The result of `landslide.tracking.registry.seen_patches` for the version.
        start: Tags of the version.

    Raises:
        ComparisonError: If a patch had another fold in that version, or its epochs were chosen on the test folds.
    """
    old = previous_folds(fold_table, previous)
    moved = fold_table[(old != 0) & (old != fold_table["fold"].to_numpy())]
    if start.get("selection") == "test_fold" or len(moved):
        reason = f"patch {moved['number'].iloc[0]} was in another fold" if len(moved) else "it chose its epochs on them"
        raise ComparisonError(
            f"Version {start['version']} has seen patches of the test folds: {reason}.",
            remedy="Use its fold table (folds.table) or the retraining pipeline, or train from scratch.",
        )
