"""Reproduction of a registered version from its commit: printed commands, refusals, and one real training."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from pydantic import TypeAdapter

from landslide import cli
from landslide.errors import RegistryError
from landslide.schema import ORIGINAL_BANDS
from landslide.tracking import reproduction, runs
from steps.settings import FoldSettings
from tests.support import commands, pipeline_runs
from tests.support.versions import add_version, fold_table

pytestmark = pytest.mark.slow


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A git repository with the project's code, tiny data, and a configuration."""
    from landslide.data.demo import generate

    root = tmp_path_factory.mktemp("reproduce") / "project"
    pipeline_runs.copy_project(root, ".gitignore")
    generate(root / "data", scenes=((2, 2), (2, 2)))
    training = {"epochs": 1, "standardize": False}
    evaluation = {"test_time_augmentation": "rotations"}  # whose scores must be reproduced as well
    config = pipeline_runs.write_config(
        root / "config.yaml", Path("data"), training=training, folds={"n_folds": 2}, evaluation=evaluation
    )
    config.write_text(
        yaml.safe_dump({"parameters": {**yaml.safe_load(config.read_text())["parameters"], "start_from": "1"}})
    )
    git(root.parent, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "The state that is reproduced")
    return root


def environment(project: Path) -> dict[str, str]:
    return pipeline_runs.cli_environment(project / ".landslide", project)


def models(project: Path, variables: dict[str, str], *arguments: str) -> Result:
    """Run `landslide models ...` in a project; output of its child processes goes to this process's output."""
    before = Path.cwd()
    os.chdir(project)
    try:
        return CliRunner().invoke(cli.main, ["models", *arguments], env=variables)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def trained(project, new_home) -> Path:
    """Version 1 has random weights, version 2 was trained from them."""
    home = new_home().rename(project / ".landslide")
    client = runs.connect(f"sqlite:///{home / 'mlflow.db'}")
    elsewhere = fold_table().assign(number=range(1001, 1005), scene=99, row=range(4), column=0)
    add_version(client, home, bands=ORIGINAL_BANDS, table=elsewhere)
    command = ["zenml", "pipeline", "run", "pipelines.training.training_pipeline", "-c", "config.yaml"]
    done = commands.run(command, cwd=project, env=environment(project))
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.mark.soak
def test_warm_started_version_is_reproduced_with_identical_scores_and_weights(trained, tmp_path, capfd):
    into = tmp_path / "again"
    # later changes to the checkout do not matter
    (trained / "steps" / "split.py").write_text("broken")
    git(trained, "commit", "--quiet", "-am", "Another state")
    result = models(trained, environment(trained), "reproduce", "2", "--run", "--into", str(into))
    output = "".join(capfd.readouterr())
    assert result.exit_code == 0, output
    assert re.search(r"(\d+) of \1 scores are identical", output)
    assert "the weights are identical" in output
    assert "version 2 is reproduced" in output
    first = git(trained, "rev-list", "--max-parents=0", "HEAD")
    assert git(into, "rev-parse", "HEAD") == first
    assert git(into, "status", "--porcelain") == ""
    assert not (into / ".venv").exists()  # the lock is the same
    configuration = yaml.safe_load((into / ".landslide" / "recorded" / "configuration.yaml").read_text())
    assert configuration["parameters"]["start_from"] == "1"
    assert configuration["parameters"]["folds"]["table"].endswith("fold_table.csv")

    # version 1 is a different model: the comparison fails, and its exit code too
    other = models(trained, environment(trained), "verify", "1", f"sqlite:///{into}/.landslide/mlflow.db")
    assert other.exit_code == 1
    assert "the weights differ" in other.stdout
    assert "version 1 is NOT reproduced" in other.stdout


# ---- without training


@pytest.fixture(scope="module")
def store(tmp_path_factory, empty_store):
    """A client of a store, and its folder."""
    folder = Path(shutil.copy2(empty_store, tmp_path_factory.mktemp("store") / "mlflow.db")).parent
    return runs.connect(f"sqlite:///{folder / 'mlflow.db'}"), folder


def reproduce(client, project: Path, *arguments: str) -> Result:
    return models(project, {"MLFLOW_TRACKING_URI": client.tracking_uri}, "reproduce", *arguments)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"git_dirty": "true"}, "its code had changes that are not in commit cccccccccccc"),
        ({"git_commit": "unknown", "git_dirty": "unknown"}, "the commit of its code is not known"),
    ],
)
def test_uncommitted_or_unknown_code_is_refused_and_printing_warns(store, project, tmp_path, tags, reason):
    client, folder = store
    version = add_version(client, folder, **tags)
    refused = reproduce(client, project, version, "--run", "--into", str(tmp_path / "again"))
    assert refused.exit_code == 1
    assert reason in refused.stderr
    assert not (tmp_path / "again").exists()
    printed = reproduce(client, project, version, "--into", str(tmp_path / "again"))
    assert printed.exit_code == 0
    assert printed.stdout.startswith("# WARNING: ")
    assert reason in printed.stdout


def test_printed_commands_name_commit_data_and_folder(store, project, tmp_path):
    client, folder = store
    version = add_version(client, folder)
    text = reproduce(client, project, version, "--into", str(tmp_path / "a place")).stdout
    assert f"git worktree add --detach '{tmp_path}/a place' {'c' * 40}" in text
    assert f"landslide data pull {'a' * 32}.dir '{tmp_path}/a place/.landslide'/data" in text
    assert "make setup" in text  # a different lock needs a different environment
    assert "WARNING" not in text


def test_missing_commit_is_named(store, project, tmp_path):
    client, folder = store
    version = add_version(client, folder)
    result = reproduce(client, project, version, "--run", "--into", str(tmp_path / "again"))
    assert result.exit_code == 1
    assert "c" * 40 in result.stderr
    assert "git fetch" in result.stderr


def test_non_empty_folder_is_refused_and_unchanged(store, project, tmp_path):
    client, folder = store
    version = add_version(client, folder, git_commit=git(project, "rev-parse", "HEAD"))
    (tmp_path / "precious").touch()
    result = reproduce(client, project, version, "--run", "--into", str(tmp_path))
    assert result.exit_code == 1
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("recorded_folds", "kept"),
    [
        ({"scheme": "random"}, {}),
        ({"scheme": "scene_blocked"}, {"scheme": "scene_blocked"}),  # of before there was a gap
        (
            {"scheme": "scene_blocked", "gap": 2, "in_scene_fraction": 0.1},
            {"scheme": "scene_blocked", "gap": 2},
        ),
        (
            {"scheme": "cluster", "gap": 2, "in_scene_fraction": 0.2},
            {"scheme": "cluster", "gap": 2, "in_scene_fraction": 0.2, "seed": 4},
        ),
        ({"scheme": "cluster", "in_scene_fraction": 0.0}, {"scheme": "cluster", "in_scene_fraction": 0.0}),
    ],
)
def test_recorded_folds_replace_scheme_and_seed_unless_they_say_what_is_left_out(store, tmp_path, recorded_folds, kept):
    client, folder = store
    folds = {"n_folds": 3, "trained": [1], "seed": 4, "table": None, **recorded_folds}
    recorded = {"data": {"root": "data", "positions": "auto", "fetch": True}, "folds": folds, "training": {"epochs": 3}}
    texts = {"configuration.yaml": yaml.safe_dump({"parameters": recorded})}
    source = reproduction.origin(client, add_version(client, folder, texts=texts))
    configuration = yaml.safe_load(reproduction.download(client.tracking_uri, source, tmp_path).read_text())
    settings = TypeAdapter(FoldSettings).validate_python(configuration["parameters"]["folds"])
    table = str(tmp_path / "recorded" / "fold_table.csv")
    assert settings == FoldSettings(n_folds=3, trained=(1,), table=table, **kept)
    assert configuration["parameters"]["training"] == {"epochs": 3}


def test_missing_recorded_configuration_is_an_error(store, tmp_path):
    client, folder = store
    source = reproduction.origin(client, add_version(client, folder))
    with pytest.raises(RegistryError, match="no recorded configuration"):
        reproduction.download(client.tracking_uri, source, tmp_path)


def test_different_scores_or_data_are_not_a_reproduction(store, tmp_path):
    client, folder = store
    uri, other = client.tracking_uri, f"sqlite:///{tmp_path / 'mlflow.db'}"
    source = reproduction.origin(client, add_version(client, folder, seed=5, score=0.5))
    again = runs.connect(other)
    add_version(again, tmp_path, seed=5, score=0.51)
    agreement = reproduction.verify(uri, source, other)
    assert agreement.same_weights
    assert not agreement.holds(0.0)
    assert not agreement.holds(0.009)
    assert agreement.holds(0.011)
    assert "0.51" in agreement.render()
    runs.set_tags(again, runs.latest_cross_validation(again).info.run_id, {"data_version": "other"})
    assert not reproduction.verify(uri, source, other).holds(1.0)
    with pytest.raises(RegistryError, match=r"There is no MLflow store .*none\.db"):
        reproduction.verify(uri, source, f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()
