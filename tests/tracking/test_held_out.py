"""`landslide models score`: a registered ensemble on validation and test patches that it has never seen."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import f1_score, jaccard_score

from landslide import cli
from landslide.data import demo
from landslide.data.check import check
from landslide.data.digests import directory_digest
from landslide.data.patches import find_patches, read_mask, read_stored
from landslide.data.table import patch_table
from landslide.errors import ComparisonError, DataError
from landslide.inference.ensemble import Ensemble, load_ensemble
from landslide.metrics.counts import METRIC_NAMES
from landslide.tracking import held_out, runs
from tests.support.versions import add_version, fold_table

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Generated patches in the official layout: two for training, two without masks, four for testing."""
    root = tmp_path_factory.mktemp("official") / "data"
    demo.generate(root, scenes=((2, 4),))
    (root / "scenes.csv").unlink()
    for folder, numbers in (("ValidData", (3, 4)), ("TestData", (5, 6, 7, 8))):
        for kind, name in (("img", "image"), ("mask", "mask")):
            (root / folder / kind).mkdir(parents=True)
            for new, old in enumerate(numbers, start=1):
                target = root / folder / kind / f"{name}_{new}.h5"
                (root / "TrainData" / kind / f"{name}_{old}.h5").rename(target)
    for mask in (root / "ValidData/mask").iterdir():
        mask.unlink()
    return root


@pytest.fixture(scope="module")
def training_table(root) -> pd.DataFrame:
    table = fold_table((1, 2))
    return table.assign(image_md5=patch_table(root)["image_md5"])


@pytest.fixture(scope="module")
def client(tmp_path_factory, empty_store, training_table):
    """Version 1: two networks with random weights, recorded as trained on the two training patches."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy2(empty_store, folder / "mlflow.db")
    client = runs.connect(f"sqlite:///{folder / 'mlflow.db'}")
    add_version(client, folder, table=training_table)
    return client


@pytest.fixture(scope="module")
def found(client, root) -> held_out.HeldOutScores:
    return held_out.score(client, "1", root, "test")


@pytest.fixture(autouse=True)
def without_figures(found, monkeypatch):
    """Skip figures, which take longer than everything else; `found` has them."""
    monkeypatch.setattr(held_out, "_figures", lambda *arguments: {})


def models(client, *arguments: object) -> Result:
    return CliRunner().invoke(
        cli.main,
        ["models", *map(str, arguments)],
        env={"MLFLOW_TRACKING_URI": client.tracking_uri},
        catch_exceptions=False,
    )


def row(found: held_out.HeldOutScores, model: str, *, tuned: bool) -> pd.Series:
    table = found.table
    return table[(table["model"] == model) & (table["tuned"] == tuned)].iloc[0]


def test_ensemble_and_each_member_are_scored(client, root, found, tmp_path):
    """Compares with scikit-learn on the predictions of the served model."""
    run_id = client.get_run(found.run_id).data.tags["cross_validation_run"]
    runs.fetch_members(run_id, tmp_path)
    ensemble = load_ensemble(next(tmp_path.rglob("ensemble.json")).parent)
    patches = find_patches(root, "test")
    images = np.stack([read_stored(patch.image) for patch in patches]).transpose(0, 3, 1, 2)
    masks = np.stack([read_mask(patch.mask) for patch in patches]).ravel()
    mean = ensemble.predict(images)[0].ravel()
    models_alone = {f"fold {m.fold}": type(ensemble)([m], ensemble.settings) for m in ensemble.members}
    answers = {"ensemble": mean} | {name: one.predict(images)[0].ravel() for name, one in models_alone.items()}
    assert list(found.table["model"].unique()) == ["ensemble", "fold 1", "fold 2"]
    for name, probability in answers.items():
        predicted = probability >= 0.5
        assert row(found, name, tuned=False)["f1_macro"] == pytest.approx(f1_score(masks, predicted, average="macro"))
        assert row(found, name, tuned=False)["iou_landslide"] == pytest.approx(jaccard_score(masks, predicted))
    assert found.table["f1_macro"].nunique() >= 3  # members differ from each other and from their mean
    assert found.patches == 4
    assert found.positive_patches == sum(read_mask(patch.mask).any() for patch in patches)


def test_members_use_their_tuned_threshold_and_the_ensemble_the_mean(client, root, monkeypatch):
    def with_thresholds(folder, device):
        ensemble = load_ensemble(folder, device)
        pairs = zip(ensemble.members, (0.3, 0.6), (0.2, 0.9), strict=True)
        changed = [
            type(m)(**{**vars(m), "threshold": threshold, "detection_threshold": detection})
            for m, threshold, detection in pairs
        ]
        return Ensemble(changed, ensemble.settings, device)

    monkeypatch.setattr(held_out, "load_ensemble", with_thresholds)
    found = held_out.score(client, "1", root, "test")
    tuned = found.table[found.table["tuned"]]
    assert tuned["threshold"].tolist() == pytest.approx([0.45, 0.3, 0.6])
    assert found.ensemble["threshold"] == pytest.approx(0.45)
    assert found.ensemble["detection_threshold"] == pytest.approx(0.55)
    assert row(found, "ensemble", tuned=True)["f1_macro"] == found.ensemble["f1_macro_tuned"]
    assert row(found, "ensemble", tuned=False)["f1_macro"] == found.ensemble["f1_macro"]
    assert found.ensemble["f1_macro_tuned"] != found.ensemble["f1_macro"]


def test_scores_are_recorded_once_on_a_separate_run(client, root, found):
    recorded = runs.search(client, "tags.role = 'held_out_evaluation'")
    assert [run.info.run_id for run in recorded] == [found.run_id]
    run = recorded[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_version"] == "1"
    assert run.data.tags["split"] == "test"
    assert run.data.tags["data_version"] == found.data_version
    assert run.inputs.dataset_inputs[0].dataset.digest == found.data_version
    assert run.data.metrics["f1_landslide"] == pytest.approx(found.ensemble["f1_landslide"])
    assert set(METRIC_NAMES) <= set(run.data.metrics)
    reports = {Path(one.path).name for one in client.list_artifacts(found.run_id, "reports")}
    assert reports == {"scores.csv", "patches.csv", "thresholds.csv", "calibration.csv"}
    figures = {Path(one.path).stem for one in client.list_artifacts(found.run_id, "figures")}
    assert {"predictions", "uncertainty", "precision_recall", "calibration"} <= figures
    held_out.score(client, "1", root, "test")
    assert len(runs.search(client, "tags.role = 'held_out_evaluation'")) == 1
    assert runs.search(client, "tags.role = 'cross_validation'")[0].info.run_id != found.run_id


def test_data_version_covers_only_the_scored_split(root, found, tmp_path):
    shutil.copytree(root / "TestData", tmp_path / "TestData")
    assert found.data_version == directory_digest(tmp_path)[0]
    other = tmp_path / "TestData/mask/mask_1.h5"
    with h5py.File(other, "r+") as file:
        file["mask"][0, 0] = 1 - file["mask"][0, 0]
    assert held_out.split_digest(patch_table(tmp_path, "test")) != found.data_version


def test_missing_masks_are_counted(client, root):
    with pytest.raises(DataError, match=r"2 of the 2 validation patches in .* have no mask, patch 1 among them"):
        held_out.score(client, "1", root, "validation")
    result = models(client, "score", "1", root, "--split", "validation")
    assert result.exit_code == 1
    assert "2 of the 2 validation patches" in result.stderr


def test_patch_seen_by_the_version_is_refused(client, root, tmp_path):
    leaky = Path(shutil.copytree(root, tmp_path / "leaky"))
    shutil.copy2(leaky / "TrainData/img/image_2.h5", leaky / "TestData/img/image_3.h5")
    before = len(runs.search(client, "tags.role = 'held_out_evaluation'"))
    with pytest.raises(ComparisonError, match=r"trained on 1 of the 4 test patches: patch 3\."):
        held_out.score(client, "1", leaky, "test")
    assert len(runs.search(client, "tags.role = 'held_out_evaluation'")) == before


def test_departed_training_patch_counts_as_seen(client, root, training_table, tmp_path):
    gone = patch_table(root, "test").head(1).assign(fold=1, mask_md5="")
    columns = list(training_table.columns)
    version = add_version(
        client,
        tmp_path,
        seed=3,
        table=training_table,
        texts={"departed_patches.csv": gone[columns].to_csv(index=False)},
    )
    with pytest.raises(ComparisonError, match="patch 1"):
        held_out.score(client, version, root, "test")


def test_bands_that_differ_from_the_version_are_an_error(client, root, tmp_path):
    other = Path(shutil.copytree(root / "TestData", tmp_path / "TestData")).parent
    for path in (other / "TestData/img").iterdir():
        with h5py.File(path, "r+") as file:
            image = file["img"][:, :, :3]
            del file["img"]
            file["img"] = image
    with pytest.raises(DataError, match=r"shape \(128, 128, 3\)"):
        held_out.score(client, "1", other, "test")


def test_score_command_prints_a_table_and_writes_json_and_csv(client, root, found, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out, "_CHUNK", 3)  # fewer than the patches, so they are read in two parts
    result = models(client, "score", "1", root, "--split", "test", "--output", tmp_path / "new" / "scores.json")
    assert result.exit_code == 0
    assert "Version 1 on the test split: 4 patches" in result.stdout
    assert "fold 2" in result.stdout
    assert "0.50 tuned" in result.stdout
    assert f"{100 * found.ensemble['f1_macro']:.2f}" in result.stdout
    written = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert written["ensemble"]["f1_macro"] == pytest.approx(found.ensemble["f1_macro"])
    assert written["data_version"] == found.data_version
    assert len(written["table"]) == 6
    shown = models(client, "score", "1", root, "--split", "test", "--json", "--output", tmp_path / "scores.csv")
    assert json.loads(shown.stdout) == written
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table.columns.tolist() == ["model", "threshold", "tuned", *METRIC_NAMES]
    pd.testing.assert_frame_equal(table, found.table)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("99", "--split", "test"), 1, "no version 99"),
        (("1", "--split", "train"), 2, "--split"),
        (("1",), 2, "--split"),
        (("1", "--split", "test", "--output", "scores.txt"), 2, "neither in .json nor in .csv"),
    ],
)
def test_invalid_arguments_exit_with_a_message(client, root, arguments, code, message):
    result = models(client, "score", arguments[0], root, *arguments[1:])
    assert result.exit_code == code
    assert message in result.stderr


def test_held_out_splits_are_checked_and_not_trained_on(root):
    report = check(root)
    assert report.ok
    assert report.counts["patches"] == 8
    assert report.counts["test_patches"] == 4
    assert patch_table(root, digests=directory_digest(root)[1])["number"].tolist() == [1, 2]


def test_patch_with_pixels_without_a_value_is_named(client, root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "data")
    with h5py.File(copy / "TestData/img/image_3.h5", "r+") as file:
        file["img"][5, 5, 3] = np.nan
    done = models(client, "score", "1", copy, "--split", "test")
    assert done.exit_code == 1
    assert "Patch 3 of the test split" in done.stderr
    assert "landslide data check" in done.stderr
