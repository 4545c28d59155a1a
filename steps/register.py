"""Register: make the fold models one ensemble, register it, and decide its alias."""

import json
import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from zenml import step

from landslide.data.patches import read_stored
from landslide.inference.ensemble import Ensemble
from landslide.locks import locked
from landslide.metrics.counts import METRIC_NAMES
from landslide.paths import checkpoints
from landslide.products.model_item import model_item
from landslide.tracking import registry, runs
from landslide.training.fold import TrainingSettings
from steps.data_access import PatchSource
from steps.provenance import tracking_client
from steps.settings import RegistrationSettings

logger = logging.getLogger(__name__)

# Patches whose predictions are recorded with the model, so that anyone can check a loaded copy.
_N_EXAMPLES = 2
_ITEM = "model_item.json"


# Never cached: only the registry knows which versions it has.
@step(enable_cache=False)
def register(
    fold_runs: list[str],
    fold_table: pd.DataFrame,
    scores: dict[str, Any],
    patches: PatchSource,
    cross_validation_run: str,
    training: TrainingSettings,
    registration: RegistrationSettings,
    give_alias: bool = True,
) -> Annotated[str, "model_version"]:
    """Register the ensemble of the fold models with the cross-validated scores, unless it is registered already.

    Args:
        fold_runs: Ids of the runs of the trained folds.
        fold_table: The patches with their folds.
        scores: What `evaluate` returned.
        patches: The patches and their bands.
        cross_validation_run: Id of the parent run.
        training: Training settings.
        registration: Which score decides.
        give_alias: Whether to decide about the version's alias here, on the recorded scores.

    Returns:
        The version's number; empty without a run.

    Raises:
        RegistryError: If a run was deleted.
    """
    if not cross_validation_run:
        return ""
    client = tracking_client()
    runs.refuse_deleted(client, cross_validation_run)
    run_tags = registry.with_older_defaults(client.get_run(cross_validation_run).data.tags)
    mean = scores["mean"]
    lineage = (
        "git_commit", "git_dirty", "requirements_lock", "fold_table", "fold_scheme", "folds_trained", "selection",
        "start_from", "left_out",
    )  # fmt: skip
    tags = {
        "run_id": cross_validation_run,
        "data_version": patches.version,
        **{name: run_tags[name] for name in lineage},
        **{name: run_tags[name] for name in ("tested_on",) if name in run_tags},
        **{name: f"{mean[name]:.6f}" for name in (*METRIC_NAMES, *registry.IN_SCENE_SCORES) if name in mean},
    }
    # Two pipelines that train the same folds at once would both find no version, or both decide about it.
    with locked(checkpoints() / f"{cross_validation_run}-register.lock"):
        version = registry.registered(client, tags)
        if version is None:
            metadata = {"data_version": patches.version, "selection": training.selection, "scores": scores["mean"]}
            model_uri = _log_model(client, fold_runs, fold_table, patches, cross_validation_run, metadata)
            version = registry.register(client, model_uri, tags)
        else:
            logger.info("The model is registered already: version %s.", version)
        runs.set_tags(client, cross_validation_run, {"model_version": version})
        _describe_for_catalogues(client, cross_validation_run, version)
        if give_alias:
            decision = registry.decide_once(client, version, registration.metric)
            runs.set_tags(client, cross_validation_run, {"decision": decision.reason})
    runs.describe(client, cross_validation_run, scores)
    return version


def _describe_for_catalogues(client: runs.MlflowClient, run_id: str, version: str) -> None:
    """Record the STAC Item of a version, with the MLM extension, as `model_item.json` of its run."""
    if runs.has_artifact(client, run_id, _ITEM):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = registry.fetch(version, Path(temporary))
        item = model_item(
            folder, name=registry.MODEL_NAME, version=version, address=registry.address(version),
            created=datetime.now(UTC),
        )  # fmt: skip
    runs.log_text(client, run_id, json.dumps(item.to_dict(), indent=2), _ITEM)


def _log_model(
    client: runs.MlflowClient,
    fold_runs: list[str],
    fold_table: pd.DataFrame,
    patches: PatchSource,
    cross_validation_run: str,
    metadata: dict[str, Any],
) -> str:
    """Log the ensemble, and its predictions of a few patches as an example; return its address."""
    with tempfile.TemporaryDirectory() as temporary, runs.recording(cross_validation_run):
        folder = Path(temporary)
        fetched = [runs.fetch_members(run_id, folder / run_id) for run_id in fold_runs]
        members = [member for fold_members, _ in fetched for member in fold_members]
        positive = fold_table.sort_values("positive_pixels", ascending=False, kind="stable").head(_N_EXAMPLES)
        files = [patches.folder() / image for image in positive["image"]]
        stored = [read_stored(file, len(patches.bands.stored)) for file in files]
        images = np.stack(stored).transpose(0, 3, 1, 2)
        probability, uncertainty = Ensemble(members, patches.bands).predict(images)
        example = folder / "example.npz"
        np.savez_compressed(example, images=images, probability=probability, uncertainty=uncertainty)
        client.log_artifact(cross_validation_run, str(example), "example")
        return runs.log_model(members, patches.bands, images.dtype, metadata, with_code=True)
