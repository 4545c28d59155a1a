"""Out-of-fold predictions of a data set by a registered model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from landslide.data.project import refuse_missing
from landslide.data.table import patch_table
from landslide.errors import ComparisonError
from landslide.folds.table import previous_folds
from landslide.inference.ensemble import Ensemble, load_ensemble
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.labels.predictions import Predictions, predict_out_of_fold
from landslide.retraining.out_of_fold import check_unseen, select_unseen
from landslide.schema import Positions
from landslide.tracking import registry
from landslide.tracking.runs import MlflowClient


@dataclass(frozen=True)
class Unseen:
    """What a registered version can predict of a data set out of fold.

    Attributes:
        root: Folder of the data set.
        ensemble: The fold models of the version.
        tags: Its tags, with its `version`.
        every: The patches (columns of `landslide.data.table.patch_table`, and fold: 0 if the version does not know
            the patch).
        table: Those of them that a member predicts unseen.
        notes: What people should know about them, as lines.
    """

    root: Path
    ensemble: Ensemble
    tags: dict[str, str]
    every: pd.DataFrame
    table: pd.DataFrame
    notes: tuple[str, ...]


def unseen_patches(
    client: MlflowClient, version: str, root: Path, folder: Path, *, positions: Positions = "auto"
) -> Unseen:
    """Find the training patches of a data set that a version can predict without having seen them.

    Args:
        client: The tracking client.
        version: Number or alias.
        root: Folder of the data set: that of the version, perhaps with other masks, or with more or fewer patches.
        folder: Folder for the downloaded model, which is needed as long as it predicts.
        positions: Where positions come from, see `landslide.data.positions.read_positions`.

    Raises:
        RegistryError: If there is no such version, or its model is gone.
        ComparisonError: If every patch was seen by the member that would predict it, or nobody knows.
        DataError: If a file is missing or damaged.
    """
    refuse_missing(root)
    tags = registry.version(client, version)
    previous = registry.seen_patches(client, tags)
    ensemble = load_ensemble(registry.fetch(tags["version"], folder))
    table = patch_table(root, positions=positions)
    table = table.assign(fold=previous_folds(table, previous))
    members = [member.fold for member in ensemble.members]
    chosen, new = select_unseen(table, previous, member_folds=members, selected_on_test_fold=False)
    if not chosen.any():
        raise ComparisonError(
            f"Version {tags['version']} has seen all {len(table)} patches of {root}.",
            remedy="Train a cross-validation with all folds on them (make run), or choose another version.",
        )
    kept = table[chosen].reset_index(drop=True)
    for fold in np.unique(kept["fold"]):
        check_unseen(kept, np.flatnonzero(kept["fold"] == fold), int(fold), previous, f"version {tags['version']}")
    notes = []
    if left_out := int((~chosen).sum()):
        notes.append(
            f"left out: {left_out} patches that no member predicts unseen (equal images, or folds without a member)"
        )
    if new.any():
        notes.append(
            f"{int(new[chosen].sum())} patches are new to version {tags['version']}: all its members predict them"
        )
    if tags.get("selection") == "test_fold":
        notes.append(
            "its epochs were chosen on these labels (the paper's protocol): wrong labels may look a little better"
        )
    return Unseen(root, ensemble, tags, table, kept, tuple(notes))


def predict_registered(
    client: MlflowClient,
    version: str,
    root: Path,
    *,
    positions: Positions = "auto",
    augmentation: TestTimeAugmentation = "flips_and_rotations",
    say: Callable[[str], object] = lambda text: None,
    start: Callable[[int], Callable[[int], object]] = lambda total: lambda n: None,
) -> tuple[Predictions, str]:
    """Predict the training patches of a data set by a version that has not seen them.

    Args:
        client: The tracking client.
        version: Number or alias.
        root: Folder of the data set: that of the version, perhaps with other masks, or with more or fewer patches.
        positions: Where positions come from, see `landslide.data.positions.read_positions`.
        augmentation: See `predict_out_of_fold`.
        say: Called with lines for people.
        start: Called with the number of patches; what it returns is called with the number just predicted.

    Returns:
        The predictions and the number of the version.

    Raises:
        RegistryError: If there is no such version, or its model is gone.
        ComparisonError: If every patch was seen by the member that would predict it, or nobody knows.
        DataError: If a file is missing or damaged, or has other bands than the version.
    """
    with TemporaryDirectory() as folder:
        unseen = unseen_patches(client, version, root, Path(folder), positions=positions)
        for note in unseen.notes:
            say(note)
        progress = start(len(unseen.table))
        found = predict_out_of_fold(unseen.ensemble, root, unseen.table, augmentation=augmentation, progress=progress)
    return found, unseen.tags["version"]
