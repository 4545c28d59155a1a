"""Open run: find or create the MLflow run of this cross-validation, once, before the folds fan out."""

import hashlib
import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from zenml import step
from zenml.client import Client

from landslide.bands.formulas import BandSettings, resolve_bands
from landslide.bands.statistics import describe
from landslide.folds.parts import FoldRows, fold_rows
from landslide.folds.table import removed_patches
from landslide.locks import locked
from landslide.paths import checkpoints
from landslide.retraining.out_of_fold import check_unseen_folds
from landslide.tracking import open_runs, registry, runs
from landslide.training import cpu_budget
from landslide.training.fold import TrainingSettings, device_of
from steps.code_dependencies import code_digest
from steps.data_access import PatchSource
from steps.provenance import configuration_text, lineage_tags, tracking_client
from steps.settings import FoldSettings
from steps.table_materializer import table_digest

logger = logging.getLogger(__name__)


@step(enable_cache=False)
def open_run(
    fold_table: pd.DataFrame,
    patches: PatchSource,
    folds: FoldSettings,
    training: TrainingSettings,
    departed_patches: pd.DataFrame | None = None,
    start_from: str = "",
    should_train: bool = True,
    labels: dict[str, str] | None = None,
) -> Annotated[str, "cross_validation_run"]:
    """Find the parent run of these inputs, or create it.

    The run is identified by the digest of data, folds, settings and training code, so a pipeline that starts
    again continues in its existing run. Never cached: a run that was deleted in MLflow is created again, and
    with it the folds.

    Args:
        fold_table: The patches with their folds.
        patches: The patches and their bands.
        folds: Fold settings.
        training: Training settings.
        departed_patches: Patches of older fold tables that are gone; kept with the run for the next one.
        start_from: Registered version whose members the folds start from, empty to train from scratch.
        should_train: Whether there is something to train.
        labels: Further tags, such as the tables that the run belongs to; they do not distinguish runs.

    Returns:
        The id of the parent run, empty if nothing is to be trained.

    Raises:
        ConfigurationError: If a new training takes longer on the CPU of this machine than is allowed.
        DataError: If a fold leaves too few patches to train on.
    """
    if not should_train:
        return ""
    client = tracking_client()
    divided = [  # a fold that cannot be divided is an error before the others train
        fold_rows(
            fold_table,
            fold,
            folds.hold_out,
            validation_fraction=training.inner_fraction,
            seed=training.seed,
        )
        for fold in folds.trained_folds
    ]
    settings = {"bands": asdict(patches.bands), "folds": asdict(folds), "training": asdict(training)}
    code = code_digest("steps.train_fold")
    fold_digest = table_digest(fold_table)
    origin = ""
    if start_from:
        start = registry.version(client, start_from)
        origin = start["run_id"]
        if "role" not in start:  # else a copy for a reproduction, whose original was looked at
            previous = registry.seen_patches(client, start)
            check_unseen_folds(fold_table, previous, start)
            departed_patches = removed_patches(fold_table, previous)
    lineage = lineage_tags()
    lock = lineage["requirements_lock"]  # folds trained under different versions of torch are no one cross-validation
    parts = [settings, patches.version, patches.cache_key, fold_digest, code, lock, origin]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    tags = {
        **lineage,
        "selection": training.selection,
        "fold_table": fold_digest,
        "fold_scheme": "table" if folds.table else folds.scheme,
        "folds_trained": folds.trained_text,
        "left_out": str(folds.hold_out),
        **({"tested_on": folds.tested_on} if folds.tested_on else {}),
        "training_code": code,
        "band_cache": patches.cache_key,
        "start_from": start_from,
        "start_run": origin,  # of that version, so that the folds need not ask the registry
    }
    here = Client().active_stack.orchestrator.flavor == "local"  # elsewhere, folds are trained on other machines
    if here:
        open_runs.close_interrupted(client)
    if here and runs.find_cross_validation(client, key) is None:
        _check_budget(divided, training, patches.bands)
    with locked(checkpoints() / f"{key}.lock"):  # or two pipelines that start together would both find no run
        run_id = runs.open_cross_validation(
            client,
            key,
            name=f"{training.model} {training.bands_text} {training.loss}",
            params=settings,
            tags=tags,
            data_version=patches.version,
            data_source=str(Path(patches.data.root)),
        )
    if here:
        open_runs.hold(client, run_id)
    runs.set_tags(client, run_id, {"requested": datetime.now(UTC).isoformat(), **(labels or {})})
    runs.log_text(client, run_id, fold_table.to_csv(index=False), "fold_table.csv")
    configuration = configuration_text(
        data=patches.data, bands=patches.bands, folds=folds, training=training, start_from=start_from
    )
    runs.log_text(client, run_id, configuration, "configuration.yaml")
    if departed_patches is not None and len(departed_patches):
        runs.log_text(client, run_id, departed_patches.to_csv(index=False), "departed_patches.csv")
    if not runs.has_artifact(client, run_id, "data_statistics.json"):
        cache = patches.open_bands(fold_table)
        statistics = describe(cache, np.arange(len(fold_table)))
        runs.log_text(client, run_id, json.dumps(statistics, indent=2), "data_statistics.json")
    return run_id


def _check_budget(folds: list[FoldRows], training: TrainingSettings, bands: BandSettings) -> None:
    """Log what the training takes on the CPU of this machine, if it has no GPU, and refuse too much."""
    if device_of(training).type != "cpu":
        return
    monitored = training.monitor_test_fold
    by_fold = [(len(rows.training), len(rows.selection) + (len(rows.test) if monitored else 0)) for rows in folds]
    budget = cpu_budget.estimate(training, len(resolve_bands(training.bands, bands.names)), by_fold)
    if budget is None:
        return
    logger.info("No GPU is used: the training takes about %s.", cpu_budget.describe(budget))
    cpu_budget.refuse_beyond_limits(budget)
