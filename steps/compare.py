"""Compare: predict every patch that neither model has seen, by champion and challenger."""

import logging
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from zenml import step

from landslide.inference.ensemble import Ensemble, load_ensemble
from landslide.metrics.counts import patch_counts
from landslide.retraining.out_of_fold import (
    CHAMPION_AND_CHALLENGER,
    evidence_table,
    predict_unseen,
    relabelled_patches,
    select_unseen,
)
from landslide.tracking import registry
from steps.data_access import PatchSource
from steps.provenance import tracking_client
from steps.table_materializer import TableMaterializer

logger = logging.getLogger(__name__)

NO_COUNTS = np.zeros((0, 2, 2), np.int64)


# Never cached: version numbers identify models in one registry only.
@step(enable_cache=False, output_materializers={"evidence": TableMaterializer})
def compare(
    champion: str,
    model_version: str,
    fold_table: pd.DataFrame,
    departed_patches: pd.DataFrame,
    patches: PatchSource,
) -> Annotated[pd.DataFrame, "evidence"]:
    """Count hits and errors of both models patch by patch, out of fold.

    Args:
        champion: The champion's version, empty if there is none.
        model_version: The challenger's version, empty if there is nothing to do; the champion's own if nothing changed.
        fold_table: The patches with their folds.
        departed_patches: Patches of older fold tables that are gone.
        patches: The patches, with the bands of the challenger.

    Returns:
        What `landslide.retraining.out_of_fold.evidence_table` returns; no row if there is nothing to compare.
    """
    none = np.zeros(0, bool)
    nothing = evidence_table(fold_table.head(0), none, none, dict.fromkeys(CHAMPION_AND_CHALLENGER, NO_COUNTS))
    if not (champion and model_version) or champion == model_version:
        return nothing
    client = tracking_client()
    versions = [registry.version(client, version) for version in (champion, model_version)]
    previous = registry.seen_patches(client, versions[0])
    with tempfile.TemporaryDirectory() as temporary:
        ensembles = [
            load_ensemble(registry.fetch(version["version"], Path(temporary, version["version"])))
            for version in versions
        ]
    chosen, new = select_unseen(
        fold_table,
        previous,
        member_folds=[member.fold for member in ensembles[0].members],
        selected_on_test_fold=versions[0].get("selection") == "test_fold",
    )
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        return nothing
    seen = (previous, pd.concat([fold_table, departed_patches]))
    counts = {}
    for model, ensemble, seen_by in zip(CHAMPION_AND_CHALLENGER, ensembles, seen, strict=True):
        # A version of other code computes its bands itself; of the cache, only the masks are used then.
        own_code = not isinstance(ensemble, Ensemble)
        cache = (patches if own_code else patches.with_bands(ensemble.settings)).open_bands(fold_table)
        root = patches.folder() if own_code else None
        if own_code:
            logger.info("The %s was trained with other code than this, and predicts by its own.", model)
        counts[model] = np.zeros((len(rows), 2, 2), np.int64)
        for part, probability, masks in predict_unseen(
            ensemble, cache, fold_table, rows, seen_by, model=model, root=root
        ):
            counts[model][part] = patch_counts(probability, masks)
    relabelled = relabelled_patches(fold_table, previous)
    return evidence_table(fold_table.iloc[rows], new[rows], relabelled[rows], counts)
