"""The step `compare` and the decision after labels were changed by `landslide data apply`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from sklearn.metrics import f1_score

from landslide.bands.formulas import BandSettings
from landslide.data.digests import directory_digest
from landslide.data.patches import read_mask, read_stored
from landslide.data.table import patch_table
from landslide.inference.ensemble import Ensemble, load_ensemble
from landslide.labels.applying import write_changed
from landslide.labels.label_changes import plan_changes
from landslide.retraining import record
from landslide.retraining.promotion import PromotionSettings
from landslide.schema import ORIGINAL_BANDS
from landslide.tracking import metric_keys, registry, runs
from landslide.tracking.registry import Decision
from steps.data_access import PatchSource
from steps.settings import DataSettings
from tests.support import versions
from tests.support.audits import Judged, write_audit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

RELABELLED = (2, 5, 9)
MODELS = ("champion", "challenger")


@pytest.fixture
def client(stack, store, tmp_path, monkeypatch):
    """A new store, which the steps find through the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", store)
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path / "home"))
    return runs.connect(store)


def test_the_gain_on_unchanged_and_on_changed_labels_is_told(client, tiny_set, tmp_path):
    from steps.compare import compare
    from steps.decide import decide

    folds = [1, 2] * 5
    before = patch_table(tiny_set).assign(fold=folds)
    for seed in (0, 1):
        versions.add_version(client, tmp_path, seed=seed, table=before)
    registry.apply_decision(client, "1", Decision(registry.CHAMPION, "the first registered model"))
    judged = [Judged("missing", number, shapely.box(10, 20, 50, 60)) for number in RELABELLED]
    judged += [Judged("missing", 1, shapely.box(10, 20, 50, 60), verdict="right")]
    audit = write_audit(tmp_path / "audit", tiny_set, judged, stored=ORIGINAL_BANDS)
    changed = tmp_path / "changed"
    version = write_changed(plan_changes(audit), changed)
    assert version == directory_digest(changed)[0]
    table = patch_table(changed).assign(fold=folds)
    source = PatchSource(data=DataSettings(root=str(changed)), version=version, bands=BandSettings())
    evidence = compare.entrypoint(
        champion="1", model_version="2", fold_table=table, departed_patches=table.head(0), patches=source
    )
    assert evidence["number"][evidence["relabelled"]].tolist() == list(RELABELLED)
    assert not evidence["new"].any()
    retraining_run = record.open_record(client, "pipeline run")
    runs.set_tags(client, retraining_run, {"champion": "1"})
    decide.entrypoint(
        retraining_run=retraining_run, champion="1", model_version="2", evidence=evidence,
        cross_validation_run="run", promotion=PromotionSettings(min_blocks=2, resamples=100),
    )  # fmt: skip
    recorded = metric_keys.metrics(client.get_run(retraining_run))
    assert (recorded["relabelled_patches"], recorded["unchanged_patches"]) == (3, 7)
    report = Path(tmp_path / "home/reports/retraining.md").read_text()
    truth = {number: read_mask(changed / f"TrainData/mask/mask_{number}.h5") for number in table["number"]}
    unchanged = [number for number in truth if number not in RELABELLED]
    for part, numbers in (("relabelled", RELABELLED), ("unchanged", unchanged)):
        expected = {}
        for model, name in zip(MODELS, ("1", "2"), strict=True):
            found = _predict(load_ensemble(registry.fetch(name, tmp_path / f"{part} {name}")), table, numbers, changed)
            labels = np.concatenate([truth[number].ravel() for number in numbers])
            expected[model] = f1_score(labels, found)
            assert 0 < expected[model] < 1
            assert recorded[f"{part}_{model}_f1_landslide"] == pytest.approx(expected[model], abs=2e-4)
        gain = expected["challenger"] - expected["champion"]
        assert recorded[f"{part}_f1_landslide_difference"] == pytest.approx(gain, abs=4e-4)
        title = "patches whose labels " + ("changed" if part == "relabelled" else "did not change")
        assert f"| {title} | champion | challenger | difference |" in report


def _predict(ensemble: Ensemble, table: pd.DataFrame, numbers: Sequence[int], root: Path) -> np.ndarray:
    """Landslides of patches, each predicted from its file by the member that left out its fold."""
    members = {member.fold: Ensemble([member], ensemble.settings, ensemble.device) for member in ensemble.members}
    found = []
    for number in numbers:
        row = table[table["number"] == number].iloc[0]
        image = read_stored(root / row["image"]).transpose(2, 0, 1)
        probability, _ = members[row["fold"]].predict(image[None])
        found.append((probability[0] >= 0.5).ravel())
    return np.concatenate(found)
