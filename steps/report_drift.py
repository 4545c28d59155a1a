"""Report drift: how the new data differ from the champion's training data."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from zenml import step

from landslide.bands.statistics import describe, describe_drift, drift
from landslide.folds.table import previous_folds
from landslide.tracking import registry, runs
from steps.data_access import PatchSource
from steps.provenance import tracking_client
from steps.settings import RetrainingSettings

logger = logging.getLogger(__name__)


@step(enable_cache=False)
def report_drift(
    retraining_run: str,
    champion: str,
    should_train: bool,
    fold_table: pd.DataFrame,
    patches: PatchSource,
    retraining: RetrainingSettings,
) -> Annotated[list[str], "drifting"]:
    """Compare band statistics and class balance with those of the champion's training data.

    Args:
        retraining_run: Where it is recorded.
        champion: The champion's version, empty if there is none.
        should_train: Whether there is something to do.
        fold_table: The patch table.
        patches: The patches and their bands.
        retraining: The shift from which a difference counts as drift.

    Returns:
        The quantities that drift: of all patches, and with `new ` in front, of the new patches only.
    """
    if not (champion and should_train):
        return []
    client = tracking_client()
    version = registry.version(client, champion)
    cache = patches.open_bands(fold_table)
    new = np.flatnonzero(previous_folds(fold_table, registry.seen_patches(client, version)) == 0)
    with tempfile.TemporaryDirectory() as temporary:
        path = runs.fetch_artifact(client, version["run_id"], "data_statistics.json", Path(temporary))
        if path is None:
            logger.warning("Version %s has no statistics of its data; drift is not known.", champion)
            return []
        reference = json.loads(path.read_text())
    drifting, sentences, tables = [], [], []
    for prefix, rows in (("", np.arange(len(fold_table))), ("new ", new)):
        if len(rows):
            table = drift(reference, describe(cache, rows))
            beyond = table[table["shift"].abs() > retraining.drift_limit]
            drifting += [prefix + name for name in beyond["quantity"]]
            sentences.append(describe_drift(beyond, f"{'the' if prefix else 'all'} {prefix}patches"))
            tables.append(table.assign(patches=f"{prefix or 'all '}patches"))
            largest = table["shift"].abs().max()
            runs.log_scores(client, retraining_run, {f"{prefix.strip() or 'all'}_largest_shift": float(largest)})
    runs.log_text(client, retraining_run, pd.concat(tables).to_csv(index=False), "drift.csv")
    told = " ".join(filter(None, sentences))
    runs.set_tags(client, retraining_run, {"drift": told[:5000] or "none"})
    if told:
        logger.warning(told)
    return drifting
