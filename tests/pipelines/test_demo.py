"""Two folds of the demo, end to end: the pipeline of `make run` and its records in MLflow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from landslide.data.patches import find_patches, read_mask, read_stored
from landslide.metrics.counts import METRIC_NAMES, scores
from landslide.metrics.thresholds import threshold_counts
from landslide.paths import default_tracking_uri
from landslide.tracking import registry, runs
from landslide.tracking.metric_keys import metrics
from tests.support import pipeline_runs

pytestmark = pytest.mark.slow

RECORD = json.loads((pipeline_runs.ROOT / "docs" / "results" / "demo.json").read_text())
FOLDS = tuple(RECORD["short"]["changes"]["folds.trained"])


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory) -> Path:
    from landslide.data.demo import generate

    folder = tmp_path_factory.mktemp("demo") / "data"
    generate(folder)
    return folder


@pytest.fixture(scope="module")
def demo_config(demo_data, tmp_path_factory) -> Path:
    """configs/demo.yaml, with the generated data as its root, half the epochs and only some folds, as in the record."""
    content = yaml.safe_load((pipeline_runs.ROOT / "configs" / "demo.yaml").read_text())
    for key, value in {**RECORD["short"]["changes"], "data.root": str(demo_data)}.items():
        group = content["parameters"]
        *groups, last = key.split(".")
        for name in groups:
            group = group[name]
        group[last] = value
    path = tmp_path_factory.mktemp("config") / "demo.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def demo_run(stack, demo_config):
    """Run the pipeline once, with an empty registry; return the client and the parent run."""
    client = runs.connect(default_tracking_uri())
    if client.search_registered_models():
        client.delete_registered_model(registry.MODEL_NAME)
    outcome = pipeline_runs.run_pipeline(demo_config)
    assert outcome.executed == {
        "ingest", "build_bands", "split", "open_run", *(f"train_fold_{k}" for k in FOLDS), "evaluate", "register",
    }  # fmt: skip
    return client, runs.latest_cross_validation(client)


def _children(client, run):
    return {fold: client.get_run(run_id) for fold, run_id in runs.fold_runs(client, run.info.run_id).items()}


def test_demo_network_beats_the_baselines(demo_run, demo_data):
    """Cross-validated landslide F1 against a constant answer and the best threshold on NDVI, chosen in hindsight."""
    client, run = demo_run
    table = pd.read_csv(client.download_artifacts(run.info.run_id, "fold_table.csv"))
    scored = set(table.loc[table["fold"].isin(FOLDS), "number"])
    patches = [patch for patch in find_patches(demo_data) if patch.number in scored]
    masks = np.stack([read_mask(patch.mask) for patch in patches])
    stored = np.stack([read_stored(patch.image)[..., [3, 7]] for patch in patches])
    red, near_infrared = stored[..., 0], stored[..., 1]
    ndvi = (near_infrared - red) / (near_infrared + red)
    counts = threshold_counts((1 - ndvi) / 2, masks)[1]
    best_ndvi = max(scores(table)["f1_landslide"] for table in counts)
    share = masks.mean()
    constant = 2 * share / (1 + share)
    learned = metrics(run)["f1_landslide"]
    assert constant < 0.06
    assert best_ndvi < 0.45
    assert learned > best_ndvi + 0.12
    assert learned > constant + 0.4


def test_recorded_scores_of_the_documentation_are_those_of_this_code(demo_run):
    """If this fails, run `python experiments/demo.py train` and `write`. Other processors round otherwise."""
    _, run = demo_run
    for name in ("f1_macro", "miou", "f1_landslide"):
        assert metrics(run)[name] == pytest.approx(RECORD["short"]["mean"][name], abs=0.03)


def test_parent_and_child_runs_have_the_same_metric_names(demo_run):
    client, run = demo_run
    children = _children(client, run)
    assert sorted(children) == list(FOLDS)
    for child in children.values():
        assert child.info.status == "FINISHED"
        assert set(METRIC_NAMES) <= set(metrics(child))
        assert {f"{name}_tuned" for name in METRIC_NAMES} <= set(metrics(child))
        assert child.data.params == run.data.params
        assert any(name.startswith("system/") for name in metrics(child))
    assert {f"{name}_std" for name in METRIC_NAMES} <= set(metrics(run))
    assert run.info.status == "FINISHED"


def test_parent_run_has_mean_and_population_deviation_of_the_folds(demo_run):
    client, run = demo_run
    for name in METRIC_NAMES:
        values = [metrics(child)[name] for child in _children(client, run).values()]
        assert metrics(run)[name] == pytest.approx(np.mean(values))
        assert metrics(run)[f"{name}_std"] == pytest.approx(np.std(values))


def test_runs_have_curves_lineage_and_figures(demo_run, demo_data):
    from landslide.data.digests import directory_digest

    client, run = demo_run
    version = directory_digest(demo_data)[0]
    epochs = int(run.data.params["training.epochs"])
    for item in (run, *_children(client, run).values()):
        assert item.data.tags["data_version"] == version
        assert item.data.tags["selection"] == "inner_validation"
        assert len(item.data.tags["git_commit"]) in (40, len("unknown"))
        figures = {artifact.path for artifact in client.list_artifacts(item.info.run_id, "figures")}
        of_parent = ("thresholds", "calibration", "roc") if item is run else ()
        expected = ("predictions", "precision_recall", "learning_curves", *of_parent)
        assert figures == {f"figures/{name}.png" for name in expected}
    for child in _children(client, run).values():
        history = client.get_metric_history(child.info.run_id, "train/loss")
        assert [metric.step for metric in history] == list(range(1, epochs + 1))
    dataset = client.get_run(run.info.run_id).inputs.dataset_inputs[0].dataset
    assert dataset.digest == version


def test_fold_scores_follow_from_its_recorded_counts(demo_run):
    """The recorded counts are pooled over all pixels of the test fold."""
    client, run = demo_run
    for child in _children(client, run).values():
        path = client.download_artifacts(child.info.run_id, "confusion_counts.csv")
        counts = pd.read_csv(path).to_numpy()
        assert counts.sum() == 20 * 128 * 128
        for name, value in scores(counts).items():
            assert metrics(child)[name] == pytest.approx(value)


def test_parent_run_has_pooled_scores_with_intervals(demo_run, tmp_path):
    """Recomputed from the recorded table of patches."""
    from landslide.evaluation.scores import pooled_scores

    client, run = demo_run
    recorded = metrics(run)
    patches = pd.read_csv(client.download_artifacts(run.info.run_id, "reports/patches.csv", str(tmp_path)))
    assert {int(fold): n for fold, n in patches["fold"].value_counts().items()} == dict.fromkeys(FOLDS, 20)
    for name, value in pooled_scores(patches).items():
        assert recorded[name] == pytest.approx(value, abs=1e-9)
    for name in ("f1_macro", "miou", "f1_landslide", "detection_f1"):
        assert recorded[f"{name}_low"] < recorded[f"{name}_pooled"] < recorded[f"{name}_high"]
    counts = patches[["tn", "fp", "fn", "tp"]].sum().to_numpy().reshape(2, 2)
    assert recorded["f1_landslide_pooled"] == pytest.approx(scores(counts)["f1_landslide"])


def test_mean_of_heads_detection_and_calibration_are_scored(demo_run):
    client, run = demo_run
    for item in (run, *_children(client, run).values()):
        recorded = metrics(item)
        assert {f"{name}_head_average" for name in METRIC_NAMES} <= set(recorded)
        assert abs(recorded["f1_macro_head_average"] - recorded["f1_macro"]) < 0.1
        assert recorded["detection_f1"] > 0.5
        assert 0 < recorded["expected_calibration_error"] < 0.2
        assert 0 < recorded["brier_score"] < 0.1
        assert not [name for name in recorded if name.endswith("_tta")]


def test_first_model_becomes_champion_with_the_cross_validated_score(demo_run):
    client, run = demo_run
    version = client.get_model_version_by_alias(registry.MODEL_NAME, registry.CHAMPION)
    assert version.tags["run_id"] == run.info.run_id
    assert float(version.tags["f1_macro"]) == pytest.approx(metrics(run)["f1_macro"], abs=1e-6)
    assert version.tags["selection"] == "inner_validation"


_LOAD_ELSEWHERE = """
import importlib.util, sys
sys.path[:] = [p for p in sys.path if p and "main" not in p] + [{packages!r}]
assert importlib.util.find_spec("landslide") is None, "the repository must not be importable here"
import mlflow, numpy as np
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/landslide-segmentation@champion")
example = np.load({example!r})
answer = model.predict(example["images"])
for name in ("probability", "uncertainty"):
    assert answer[name].shape == (len(example["images"]), 128, 128), answer[name].shape
    assert answer[name].dtype == np.float32
    np.testing.assert_allclose(answer[name], example[name], atol=1e-5)
assert model.metadata.signature.inputs is None
print(model.metadata.metadata["input"])
"""


def test_champion_loads_without_the_repository_and_reproduces_recorded_predictions(demo_run, tmp_path):
    client, run = demo_run
    example = client.download_artifacts(run.info.run_id, "example/example.npz", str(tmp_path))
    packages = str(Path(np.__file__).parents[1])
    code = _LOAD_ELSEWHERE.format(packages=packages, uri=default_tracking_uri(), example=example)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # -S: no site, so the editable install of this checkout is unavailable
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "(N, 14, H, W), any real dtype" in done.stdout


def test_registered_model_is_described_for_catalogues(demo_run, tmp_path):
    client, run = demo_run
    item = json.loads(Path(client.download_artifacts(run.info.run_id, "model_item.json", str(tmp_path))).read_text())
    version = registry.champion(client)["version"]
    assert item["id"] == f"{registry.MODEL_NAME}-{version}"
    assert item["properties"]["mlm:tasks"] == ["semantic-segmentation"]
    members = [asset for asset in item["assets"].values() if "mlm:model" in asset["roles"]]
    assert len(members) == len(runs.fold_runs(client, run.info.run_id))


def test_report_has_a_printed_table_and_files_for_dvc(demo_run, tmp_path):
    from landslide.tracking.report import write_report

    _, run = demo_run
    text = write_report(tmp_path / "reports")
    for expected in ("fold 1", "fold 3", "mean", "std", "champion", "make ui", run.data.tags["data_version"]):
        assert expected in text
    assert f"{metrics(run)['f1_landslide'] * 100:.2f}" in text
    assert f"{metrics(run)['f1_macro_pooled'] * 100:.2f}" in text
    assert f"AUC {metrics(run)['detection_auc_pooled'] * 100:.2f}" in text
    shown = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert shown["f1_macro"] == metrics(run)["f1_macro"]
    assert {p.name for p in (tmp_path / "reports").glob("*.csv")} == {
        "scores.csv", "metrics.csv", "learning_curves.csv", "patches.csv", "thresholds.csv", "calibration.csv",
        "roc.csv",
    }  # fmt: skip


def test_unchanged_rerun_is_served_from_cache_and_records_no_run(demo_run, demo_config):
    client, _ = demo_run
    before = pipeline_runs.recorded(client)
    outcome = pipeline_runs.run_pipeline(demo_config)
    assert outcome.cached == {"build_bands", "split"}
    assert pipeline_runs.recorded(client) == before
    assert len(client.search_model_versions(f"name = '{registry.MODEL_NAME}'")) == 1


def test_no_module_is_imported_twice_under_different_names(demo_run):
    assert not [name for name in sys.modules if name == "src" or name.startswith("src.")]
