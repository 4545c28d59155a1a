"""Train fold: train one fold of the cross-validation and record its model."""

import logging
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from landslide.bands.formulas import BandSettings, resolve_bands
from landslide.errors import ConfigurationError, TrainingError
from landslide.files import sha256
from landslide.folds.parts import HoldOut, fold_rows
from landslide.inference.ensemble import Member, load_members, recorded_code
from landslide.inference.own_code import CODE
from landslide.locks import locked
from landslide.paths import checkpoints
from landslide.tracking import registry, runs
from landslide.training.fold import FoldTask, TrainingSettings
from landslide.training.fold import train_fold as fit_fold
from steps.data_access import PatchSource
from steps.provenance import tracking_client, tracking_uri

logger = logging.getLogger(__name__)


# Never cached: only MLflow knows which folds it has. The parent run is that of this code, see `open_run`.
@step(enable_cache=False)
def train_fold(
    fold: int,
    fold_table: pd.DataFrame,
    patches: PatchSource,
    cross_validation_run: str,
    training: TrainingSettings,
    start_from: str = "",
    hold_out: HoldOut = HoldOut(),  # noqa: B008 (frozen)
) -> Annotated[str, "fold_run"]:
    """Train on all folds but one, resuming from the last checkpoint if there is one.

    A fold whose run or model was deleted in MLflow is trained again. If another process already trains this fold, wait
    for it and return its run.

    Args:
        fold: The fold that is left out for testing.
        fold_table: The patches with their folds.
        patches: The patches; their band cache is rebuilt here if it is gone.
        cross_validation_run: Id of the parent run.
        training: Training settings.
        start_from: Registered version whose member of the same fold this fold starts from; empty to train from
            scratch.
        hold_out: What is not trained on beside the test fold.

    Returns:
        The id of the fold's run, which holds its model and learning curves; empty without a parent run.

    Raises:
        RegistryError: If the parent run was deleted, or the fold's run while it trains.
    """
    if not cross_validation_run:
        return ""
    client = tracking_client()
    runs.refuse_deleted(client, cross_validation_run)  # otherwise all folds would train before anybody noticed
    # The checkpoints are of one process; another one that wants the same fold finds it finished afterwards.
    with locked(checkpoints() / f"{cross_validation_run}-fold-{fold}.lock"):
        run_id = runs.open_fold(client, cross_validation_run, fold)
        if runs.is_finished(client, run_id):
            if runs.has_model(f"runs:/{run_id}/model"):
                shutil.rmtree(checkpoints() / run_id, ignore_errors=True)  # of a process that was killed at its end
                logger.info("Fold %d is trained already: MLflow run %s.", fold, run_id)
                return run_id
            logger.warning("The model of fold %d was deleted from MLflow run %s. Training it again.", fold, run_id)
            client.delete_run(run_id)
            run_id = runs.open_fold(client, cross_validation_run, fold)
        with (
            tempfile.TemporaryDirectory() as temporary,
            runs.explaining_deletion(client, run_id),
            runs.recording(run_id, system_metrics=True),
        ):
            start = None
            if start_from:
                start = _member(start_from, fold, patches.bands, Path(temporary))
                runs.set_tags(client, run_id, {"start_weights": sha256(start.weights)})
            task = FoldTask(
                cache=patches.open_bands(fold_table),
                rows=fold_rows(
                    fold_table,
                    fold,
                    hold_out,
                    validation_fraction=training.inner_fraction,
                    seed=training.seed,
                ),
                bands=resolve_bands(training.bands, patches.bands.names),
                settings=training,
                checkpoints=checkpoints() / run_id,
                start=(start.spec, start.weights) if start else None,
                label=f"fold {fold}",
            )
            result = fit_fold(task, on_epoch=partial(runs.log_epoch, tracking_uri(), run_id))
            member = Member(
                fold,
                result.spec,
                result.threshold,
                result.weights,
                prediction=training.prediction,
                detection_threshold=result.detection_threshold,
            )
            metadata = {"fold": fold, "data_version": patches.version, "selected_epoch": result.epoch}
            runs.log_model([member], patches.bands, task.cache.stored_dtype, metadata, with_code=False)
            runs.set_tags(client, run_id, {"selected_epoch": str(result.epoch)})
            runs.delete_tag(client, run_id, "failure")  # of an earlier attempt
        shutil.rmtree(task.checkpoints, ignore_errors=True)
    return run_id


def _member(version: str, fold: int, bands: BandSettings, folder: Path) -> Member:
    """Fetch the member of a version that was not trained on this fold."""
    model = registry.fetch(version, folder)
    if recorded_code(model) != CODE:
        raise ConfigurationError(
            f"Version {version} was trained with other formulas or networks than this code has.",
            remedy="Start from scratch (start_from: '', retraining.start: scratch), or use a checkout of its commit.",
        )
    members, settings = load_members(model)
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
