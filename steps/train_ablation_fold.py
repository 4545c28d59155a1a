"""Train ablation fold: train one fold of a row of an ablation; a failure is recorded and the other rows continue."""

import logging
from contextlib import suppress
from typing import Annotated

import pandas as pd
from zenml import step
from zenml.exceptions import RunInterruptedException

from landslide.errors import LandslideError, RegistryError
from landslide.folds.parts import HoldOut
from landslide.tracking import runs
from landslide.training.fold import TrainingSettings
from steps.data_access import PatchSource
from steps.provenance import tracking_client
from steps.train_fold import train_fold

logger = logging.getLogger(__name__)


# Never cached, or a failure would be served again: a fold that is trained is found by its run in a moment.
@step(enable_cache=False)
def train_ablation_fold(
    fold: int,
    fold_table: pd.DataFrame,
    patches: PatchSource,
    cross_validation_run: str,
    training: TrainingSettings,
    start_from: str = "",
    hold_out: HoldOut = HoldOut(),  # noqa: B008 (frozen)
) -> Annotated[str, "fold_run"]:
    """Train a fold as `train_fold` does, whose arguments these are.

    Returns:
        The id of the fold's run; empty if the training failed: the tag `failure` of that run then holds the reason,
        unless the parent run was deleted.
    """
    try:
        run_id: str = train_fold.entrypoint(
            fold, fold_table, patches, cross_validation_run, training, start_from, hold_out
        )
        return run_id
    except RunInterruptedException:  # a pod is being stopped; the step has not failed, and is started again
        raise
    except Exception as error:
        logger.error(
            "Fold %d of MLflow run %s failed; the other rows continue. %s",
            fold,
            cross_validation_run,
            error,
            exc_info=not isinstance(error, LandslideError),
        )
        client = tracking_client()
        reason, *_ = [*filter(None, map(str.strip, str(error).splitlines())), type(error).__name__]
        with suppress(RegistryError):  # the run was deleted, and nothing can be recorded
            runs.refuse_deleted(client, cross_validation_run)
            failed = runs.open_fold(client, cross_validation_run, fold)
            runs.set_tags(client, failed, {"failure": reason[:500]})
        return ""
