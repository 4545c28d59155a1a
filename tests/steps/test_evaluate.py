"""The step `evaluate`: what it says about folds whose scores are a convention."""

import logging

import pytest

from landslide.folds.table import folds_without_landslides
from landslide.tracking import runs
from steps.evaluate import _note_empty_folds
from tests.support.patch_tables import build_patch_table

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("scored", "named"), [([1, 2, 3], "2, 3"), ([1, 2], "2"), ([1], "none")])
def test_scored_folds_without_landslides_are_named(store, caplog, scored, named):
    table = build_patch_table(6, pixels=[5, 0, 0, 0, 0, 0], folds=[1, 1, 2, 2, 3, 3])
    assert folds_without_landslides(table) == [2, 3]
    client = runs.connect(store)
    run_id = client.create_run(client.create_experiment("folds")).info.run_id
    with caplog.at_level(logging.WARNING):
        _note_empty_folds(client, run_id, table, scored)
    assert client.get_run(run_id).data.tags["folds_without_landslides"] == named
    assert (f"fold {named}" in caplog.text) == (named != "none")
