"""`landslide data audit` with a registered version."""

import json
import shutil

import pytest
from click.testing import CliRunner

from landslide import cli
from landslide.data.digests import directory_digest
from landslide.data.table import patch_table
from landslide.labels.candidates import read_candidates
from landslide.tracking import registry, runs
from tests.support.versions import add_version

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def client(tmp_path_factory, empty_store, root):
    """Version 1 in service: random weights, trained on the first five of six patches; fold 3 has no member."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy2(empty_store, folder / "mlflow.db")
    client = runs.connect(f"sqlite:///{folder / 'mlflow.db'}")
    table = patch_table(root).assign(fold=[1, 1, 2, 2, 3, 1]).iloc[:5]
    version = add_version(client, folder, table=table)
    registry.apply_decision(client, version, registry.Decision(registry.CHAMPION, "first"))
    return client


def audit(client, *arguments):
    return CliRunner().invoke(
        cli.main,
        ["data", "audit", *map(str, arguments), "--augmentation", "none"],
        env={"MLFLOW_TRACKING_URI": client.tracking_uri},
    )


def test_an_audit_lists_labels_and_changes_nothing(client, root, tmp_path):
    before = directory_digest(root)[0]
    result = audit(client, root, "-o", tmp_path / "audit", "-n", 7)
    assert result.exit_code == 0, result.output
    assert "left out: 1 patches" in result.output
    assert "1 patches are new to version 1" in result.output
    assert "5 patches with" in result.output
    assert len(read_candidates(tmp_path / "audit")) == 7
    record = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert (record["model_version"], record["data"], record["data_version"]) == ("1", str(root.resolve()), before)
    assert directory_digest(root)[0] == before
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == [
        "audit.html", "audit.json", "candidates.csv", "candidates.gpkg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}", "-o", "{root}/audit"], "lies in the data set"),
        (["{root}/nowhere"], "does not exist"),
        (["{root}", "--model", "7"], "has no version 7"),
    ],
)
def test_wrong_arguments_are_refused(client, root, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = audit(client, *(argument.format(root=root) for argument in arguments))
    assert result.exit_code != 0
    assert message in (result.output + str(result.exception))
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_has_seen_everything_says_so(client, root, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(root, folder)
    for number in (1, 2, 3, 4, 6):
        for kind, name in (("img", "image"), ("mask", "mask")):
            (folder / "TrainData" / kind / f"{name}_{number}.h5").unlink()
    result = audit(client, folder, "-o", tmp_path / "audit")
    assert "has seen all 1 patches" in result.output
    assert not (tmp_path / "audit").exists()
