"""Plan: decide whether there is something to train, extend the fold table, name the champion to compare with."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated

import pandas as pd
from zenml import step

from landslide.bands.formulas import BandSettings
from landslide.errors import ConfigurationError
from landslide.folds.table import extend_fold_table, refuse_shared_images, removed_patches
from landslide.retraining import record
from landslide.tracking import registry, runs
from landslide.training.fold import TrainingSettings
from steps.code_dependencies import code_digest
from steps.data_access import PatchSource
from steps.measure_bands import measure_bands
from steps.provenance import tracking_client
from steps.settings import DataSettings, FoldSettings, RetrainingSettings
from steps.split import split
from steps.table_materializer import TableMaterializer

logger = logging.getLogger(__name__)

_TABLES = {"fold_table": TableMaterializer, "departed_patches": TableMaterializer}


@step(enable_cache=False, output_materializers=_TABLES)
def plan(
    retraining_run: str,
    patch_table: pd.DataFrame,
    data_version: str,
    data: DataSettings,
    bands: BandSettings,
    folds: FoldSettings,
    training: TrainingSettings,
    retraining: RetrainingSettings,
) -> tuple[
    Annotated[pd.DataFrame, "fold_table"],
    Annotated[pd.DataFrame, "departed_patches"],
    Annotated[str, "champion"],
    Annotated[str, "start_from"],
    Annotated[bool, "should_train"],
]:
    """Plan the retraining.

    Args:
        retraining_run: Its record.
        patch_table: The patches.
        data_version: Digest of the data set.
        data: Where the patches are.
        bands: Band settings.
        folds: How to split the first time; later the same settings, because patches keep the champion's folds.
        training: Training settings.
        retraining: Where to start, and whether to continue although nothing changed.

    Returns:
        The champion's fold table, extended by the new patches; the removed patches of older fold tables; the champion's
        version and the version to start from (empty: none); and whether there is something to do.

    Raises:
        ConfigurationError: If the settings, or the champion to start from, choose epochs on the test folds, if some
            folds are not to be trained, or if `folds` says something else than the champion's run.
        DataError: If an image is in several folds, unless `folds` allows it.
        ComparisonError: If it is not known which patches the champion has seen.
    """
    if training.selection == "test_fold":
        raise ConfigurationError(
            "training.selection is 'test_fold': such a model cannot be compared on the patches of its test folds.",
            remedy="Set training.selection: inner_validation.",
        )
    if len(folds.trained_folds) < folds.n_folds:
        raise ConfigurationError(
            f"folds.trained is {folds.trained_folds}: such a model cannot be compared on the patches of other folds.",
            remedy="Leave folds.trained out of the configuration of the retraining.",
        )
    client = tracking_client()
    current = registry.champion(client)
    if current and retraining.start == "champion" and current.get("selection") == "test_fold":
        raise ConfigurationError(
            f"retraining.start is 'champion', and the epochs of version {current['version']} were chosen on its test "
            "folds: what starts from it has been chosen on them too.",
            remedy="Set retraining.start: scratch, once.",
        )
    version = current["version"] if current else ""
    request = {"bands": asdict(bands), "folds": asdict(folds), "training": asdict(training), "start": retraining.start}
    digest = _digest(request, data_version)
    tags = {"data_version": data_version, "request": digest, "champion": version or "none"}
    runs.set_tags(client, retraining_run, tags)
    patches = PatchSource(data=data, version=data_version, bands=bands)
    if current is None:
        statistics = measure_bands.entrypoint(patch_table=patch_table, patches=patches) if folds.reads_images else None
        fold_table = split.entrypoint(patch_table=patch_table, folds=folds, band_statistics=statistics)
        gone = patch_table.head(0).assign(fold=0)
    else:
        previous = registry.seen_patches(client, current)
        _refuse_other_folds(folds, registry.cross_validation(client, current).data.params, version)
        by_images = folds.scheme == "cluster" and not patch_table["image_md5"].isin(previous["image_md5"]).all()
        fold_table = extend_fold_table(
            patch_table,
            previous,
            n_folds=folds.n_folds,
            whole_scenes=folds.scheme == "scene",
            statistics=patches.statistics(patch_table) if by_images else None,
        )
        if not folds.allow_duplicates:
            refuse_shared_images(fold_table)
        gone = removed_patches(fold_table, previous)
    reason = record.reason_to_stop(client, data_version, digest)
    if reason and current is None:
        reason += "; no model is in service (`landslide models promote` puts one into service)"
    if reason and not (retraining.force or os.environ.get("LANDSLIDE_FORCE") == "1"):
        logger.info("Nothing to do: %s.", reason)
        record.close_record(client, retraining_run, record.UNCHANGED, reason)
        return fold_table, gone, version, "", False
    return fold_table, gone, version, version if retraining.start == "champion" else "", True


def _refuse_other_folds(folds: FoldSettings, recorded: Mapping[str, str], version: str) -> None:
    """Refuse fold settings that differ from those of the champion's run, because patches keep the champion's folds.

    The number of folds is compared when the table grows. `folds.table` is needed only once: afterwards the folds come
    from the champion's run.
    """
    drawn = folds.scheme != "contiguous" and recorded.get("folds.table") == "None"
    names = ["scheme", *(["seed"] if drawn else []), *(["table"] if folds.table is not None else [])]
    for name in names:
        value, of_champion = getattr(folds, name), recorded.get(f"folds.{name}", str(getattr(folds, name)))
        if str(value) != of_champion:
            instead = f"Leave folds.{name} out" if of_champion == "None" else f"Set folds.{name}: {of_champion}"
            raise ConfigurationError(
                f"folds.{name} is {value!r} and has no effect: patches keep the folds of the champion, version "
                f"{version}, which was trained with {of_champion!r}.",
                remedy=f"{instead}. For other folds, train with pipelines.training.training_pipeline and promote that "
                "version (`landslide models promote`).",
            )


def _digest(request: Mapping[str, object], data_version: str) -> str:
    """Return the digest of data, settings and code: equal requests need no second training."""
    text = json.dumps([request, data_version, code_digest("steps.train_fold")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
