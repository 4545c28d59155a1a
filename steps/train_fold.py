"""Train fold: train one fold of the cross-validation and record its model."""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from zenml import step

from landslide.bands.formulas import BandSettings, resolve_bands
from landslide.errors import ConfigurationError, TrainingError
from landslide.files import sha256
from landslide.folds.parts import inner_validation, touching
from landslide.inference.ensemble import Member
from landslide.locks import locked
from landslide.paths import checkpoints
from landslide.tracking import runs
from landslide.training.fold import TrainingSettings
from landslide.training.fold import train_fold as fit_fold
from steps.code_dependencies import depends_on_code_of
from steps.data_access import open_bands
from steps.provenance import tracking_client, tracking_uri
from steps.settings import DataSettings


@step(cache_policy=depends_on_code_of("steps.train_fold"))
def train_fold(
    fold: int,
    fold_table: pd.DataFrame,
    data_version: str,
    band_cache: str,
    cross_validation_run: str,
    data: DataSettings,
    bands: BandSettings,
    training: TrainingSettings,
    start_from: str = "",
    apart: bool = False,
) -> Annotated[str, "fold_run"]:
    """Train on all folds but one, going on from the last checkpoint if there is one.

    Where another process trains this fold already, wait for it and return its run.

    Args:
        fold: The fold that is left out for testing.
        fold_table: The patches with their folds.
        data_version: Digest of the data set.
        band_cache: Key of the band cache; it is rebuilt here if it is gone.
        cross_validation_run: Id of the parent run.
        data: Where the patches are.
        bands: Band settings.
        training: Training settings.
        start_from: Registered version whose member of the same fold, and no other, this fold starts from; empty to
            train from scratch.
        apart: Train on no tile that touches one of the test fold.

    Returns:
        The id of the fold's run, which holds its model and learning curves; empty without a parent run.
    """
    if not cross_validation_run:
        return ""
    client = tracking_client()
    # The checkpoints are of one process; another one that wants the same fold finds it finished afterwards.
    with locked(checkpoints() / f"{cross_validation_run}-fold-{fold}.lock"):
        run_id = runs.open_fold(client, cross_validation_run, fold)
        if runs.is_finished(client, run_id):
            return run_id
        band_names = resolve_bands(training.bands, bands.names)
        cache = open_bands(data, bands, fold_table, data_version)
        training_rows, selection_rows = _parts(fold_table, fold, training, apart)
        folder = checkpoints() / run_id
        with tempfile.TemporaryDirectory() as temporary, runs.recording(run_id, system_metrics=True):
            parent = client.get_run(cross_validation_run).data.tags
            start = _member(parent["start_run"], start_from, fold, bands, Path(temporary)) if start_from else None
            if start is not None:
                runs.set_tags(client, run_id, {"start_weights": sha256(start.weights)})
            result = fit_fold(
                cache,
                training_rows,
                selection_rows,
                training,
                band_names=band_names,
                checkpoints=folder,
                test_rows=np.flatnonzero(fold_table["fold"] == fold),
                start=(start.spec, start.weights) if start else None,
                on_epoch=partial(runs.log_epoch, tracking_uri(), run_id),
                label=f"fold {fold}",
            )
            runs.log_model(
                [
                    Member(
                        fold,
                        result.spec,
                        result.threshold,
                        result.weights,
                        prediction=training.prediction,
                        detection_threshold=result.detection_threshold,
                    )
                ],
                bands,
                cache.stored_dtype,
                {"fold": fold, "data_version": data_version, "selected_epoch": result.epoch},
            )
            runs.set_tags(client, run_id, {"selected_epoch": str(result.epoch)})
            runs.delete_tag(client, run_id, "failure")  # of an attempt before this one
        shutil.rmtree(folder, ignore_errors=True)
    return run_id


def _member(run_id: str, version: str, fold: int, bands: BandSettings, folder: Path) -> Member:
    """Fetch the member of a version, and of its run, that was not trained on this fold."""
    members, settings = runs.fetch_members(run_id, folder)
    if settings != bands:
        raise ConfigurationError(
            f"The bands of version {version} were computed otherwise: {settings}, and the settings say {bands}.",
            remedy="Start from scratch, or set `bands` to what that version has.",
        )
    found = [member for member in members if member.fold == fold]
    if not found:
        raise TrainingError(
            f"Version {version} has no member of fold {fold} to start from.",
            remedy="Start from scratch (retraining.start: scratch), or from a version with a member of every fold.",
        )
    return found[0]


def _parts(
    fold_table: pd.DataFrame, fold: int, training: TrainingSettings, apart: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the training part and of the part on which epoch and threshold are chosen."""
    rows = np.arange(len(fold_table))
    test = (fold_table["fold"] == fold).to_numpy()
    others = ~test & ~touching(fold_table, test) if apart else ~test
    if training.selection == "test_fold":
        return rows[others], rows[test]
    chosen = inner_validation(fold_table[others], fraction=training.validation_fraction, seed=training.seed)
    return rows[others][~chosen], rows[others][chosen]
