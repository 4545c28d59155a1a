"""Trials by command line, each in a copy of the checkout with its own LANDSLIDE_HOME."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support import commands, pipeline_runs

pytestmark = pytest.mark.slow

COMMAND = ["zenml", "pipeline", "run", "pipelines.training.training_pipeline", "-c", "config.yaml"]
FOLDS = [1, 2, 3]


@pytest.fixture(scope="module")
def checkout(tiny_set, tmp_path_factory) -> Path:
    """The project as a source archive without .git, with a small data set and a tiny configuration."""
    root = tmp_path_factory.mktemp("archive") / "landslide"
    pipeline_runs.copy_project(root)
    shutil.copytree(tiny_set, root / "data")
    training = {"epochs": 3, "batch_size": 1, "crop": 48}
    pipeline_runs.write_config(root / "config.yaml", Path("data"), training=training, folds={"n_folds": 3})
    return root


def _run(checkout: Path, home: Path) -> str:
    done = commands.run(COMMAND, cwd=checkout, env=pipeline_runs.cli_environment(home, checkout))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _start(checkout: Path, home: Path, log: Path) -> BaseProcess:
    return commands.start(
        COMMAND, cwd=checkout, env=pipeline_runs.cli_environment(home, checkout), stdout=log, stderr=log
    )


def _client(home: Path):
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def _runs(home: Path) -> tuple[list, dict]:
    """Return the parent runs and the child runs by fold."""
    client = _client(home)
    runs = client.search_runs([client.get_experiment_by_name("landslide-segmentation").experiment_id])
    parents = [run for run in runs if run.data.tags["role"] == "cross_validation"]
    children = [run for run in runs if run.data.tags["role"] == "fold"]
    assert len({run.data.tags["fold"] for run in children}) == len(children)
    return parents, {int(run.data.tags["fold"]): run for run in children}


def _weights(home: Path) -> dict[int, dict[str, torch.Tensor]]:
    """Return the weights of the members of the registered ensemble, by fold."""
    found = (home / "mlartifacts").rglob("ensemble.json")
    ensemble = next(path for path in found if len(json.loads(path.read_text())["members"]) == len(FOLDS))
    members = json.loads(ensemble.read_text())["members"]
    return {member["fold"]: load_file(ensemble.parent / member["weights"]) for member in members}


@pytest.fixture(scope="module")
def undisturbed(checkout, new_home) -> Path:
    """The LANDSLIDE_HOME of a run without interruption."""
    home = new_home()
    _run(checkout, home)
    return home


@pytest.fixture(scope="module")
def rerun(checkout, undisturbed, tmp_path_factory) -> tuple[Path, Path]:
    """A copy of the checkout, for edits, and the LANDSLIDE_HOME in which it has run; used by the last tests."""
    return Path(shutil.copytree(checkout, tmp_path_factory.mktemp("rerun") / "landslide")), undisturbed


def test_source_archive_records_an_unknown_commit(undisturbed):
    (parent,), children = _runs(undisturbed)
    assert parent.data.tags["git_commit"] == "unknown"
    assert sorted(children) == FOLDS


@pytest.mark.parametrize(
    ("number", "exit_code", "status"),
    [pytest.param(signal.SIGKILL, -9, "RUNNING", marks=pytest.mark.soak), (signal.SIGTERM, 143, "KILLED")],
)
def test_run_stopped_during_a_fold_resumes_to_identical_weights(
    number, exit_code, status, checkout, undisturbed, new_home, tmp_path
):
    home = new_home()
    log = tmp_path / "log.txt"
    log.touch()
    process = _start(checkout, home, log)
    deadline = time.monotonic() + 120
    while "fold 2  epoch 2/3" not in log.read_text():  # checkpoints of two epochs are on disk
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.join()
    assert process.exitcode == exit_code
    (parent,), children = _runs(home)
    assert sorted(children) == [1, 2]  # no further fold was started
    assert [parent.info.status, children[2].info.status] == [status, status]
    other = _client(home).create_run(parent.info.experiment_id, tags={"role": "other"}).info.run_id
    (home / "open_runs" / other).touch()  # as of a process that was killed

    output = _run(checkout, home)
    assert "Fold 1 is trained already" in _plain(output)
    assert "fold 2: resuming after epoch" in output
    assert "fold 2  epoch 1/3" not in output

    _assert_like_undisturbed(home, undisturbed)
    assert _client(home).get_run(other).info.status == "KILLED"
    assert _client(home).get_run(parent.info.run_id).info.status == "FINISHED"


def test_failure_is_said_once_without_traceback_and_escapes(checkout, new_home, tmp_path):
    config = pipeline_runs.write_config(tmp_path / "config.yaml", tmp_path / "nowhere")
    command = [*COMMAND[:-1], str(config)]
    environment = {**pipeline_runs.cli_environment(new_home(), checkout), "ZENML_LOGGING_COLORS_DISABLED": "true"}
    done = commands.run(command, cwd=checkout, env=environment)
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert output.count("There is no data folder") == 1, output
    assert "\nError: step ingest: There is" in output
    for unwanted in ("Traceback", "Skipping step", "zenml login", "\x1b"):
        assert unwanted not in output


@pytest.mark.soak
def test_run_killed_repeatedly_at_random_ends_with_identical_weights(checkout, undisturbed, new_home, tmp_path):
    home, moments = new_home(), random.Random(0)
    for _ in range(8):
        process = _start(checkout, home, tmp_path / "log.txt")
        time.sleep(moments.uniform(0.5, 6))
        with contextlib.suppress(ProcessLookupError):  # it had already ended
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    _run(checkout, home)
    _assert_like_undisturbed(home, undisturbed)


def test_second_checkout_with_the_same_home_is_served_from_cache(rerun, tmp_path):
    checkout, home = rerun
    other = Path(shutil.copytree(checkout, tmp_path / "other"))
    before = pipeline_runs.recorded(_client(home))
    assert not _executed(_run(other, home)) & {"build_bands", "split"}
    assert pipeline_runs.recorded(_client(home)) == before


def test_moved_home_trains_nothing_again_and_leaves_nothing_at_the_former_place(rerun, tmp_path):
    checkout, home = rerun
    moved = Path(shutil.copytree(home, tmp_path / "moved home"))
    environment = pipeline_runs.cli_environment(moved, checkout)
    away = home.rename(home.with_name("away"))
    try:
        refused = commands.run(["python", "-m", "stacks.local"], cwd=checkout, env=environment)
        assert "Run `landslide home relocate`." in refused.stderr
        done = commands.run(["landslide", "home", "relocate"], cwd=checkout, env=environment)
        assert done.returncode == 0, done.stderr
        assert re.findall(r"^(\w+): \d+ paths changed", done.stdout, re.MULTILINE) == ["MLflow", "ZenML"]
        output = _run(checkout, moved)
        assert "resuming" not in output
        assert "fold 1  epoch" not in output
        _assert_like_undisturbed(moved, away)
        assert not home.exists()
    finally:
        away.rename(home)


def test_edited_module_reruns_exactly_the_steps_that_use_it(rerun):
    checkout, home = rerun
    figures = checkout / "src" / "landslide" / "evaluation" / "figures.py"
    figures.write_text(figures.read_text() + "\n# an edit\n")
    before = pipeline_runs.recorded(_client(home))
    assert not _executed(_run(checkout, home)) & {"build_bands", "split"}
    after = pipeline_runs.recorded(_client(home))
    assert after.keys() == before.keys()
    assert {run_id for run_id in after if after[run_id] != before[run_id]} == {_runs(home)[0][0].info.run_id}

    losses = checkout / "src" / "landslide" / "training" / "losses.py"
    losses.write_text(losses.read_text() + "\n# an edit\n")
    assert not _executed(_run(checkout, home)) & {"build_bands", "split"}
    trained = pipeline_runs.recorded(_client(home)).items() - after.items()
    assert len(trained) == 1 + len(FOLDS)


def test_bad_input_exits_with_1_and_a_message(rerun, tmp_path):
    checkout, home = rerun
    broken = Path(shutil.copytree(checkout, tmp_path / "broken"))
    (broken / "data" / "TrainData" / "img" / "image_2.h5").write_bytes(b"no HDF5")
    done = commands.run(COMMAND, cwd=broken, env=pipeline_runs.cli_environment(home, broken))
    assert done.returncode == 1
    # On Python 3.12, a logging thread of ZenML prints an error after that, when the interpreter exits.
    last = done.stderr.split("\nError: ")[1].split("Exception ignored in")[0]
    assert "image_2.h5" in last
    assert "landslide data check" in last
    assert "Traceback" not in last


def _assert_like_undisturbed(home: Path, undisturbed: Path) -> None:
    """Finished children under one parent, complete curves, and the weights of the undisturbed run."""
    (parent,), children = _runs(home)
    assert sorted(children) == FOLDS
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {run.info.status for run in children.values()} == {"FINISHED"}
    for child in children.values():
        history = _client(home).get_metric_history(child.info.run_id, "train/loss")
        assert [metric.step for metric in history] == [1, 2, 3]
    expected, resumed = _weights(undisturbed), _weights(home)
    for fold, weights in expected.items():
        assert weights.keys() == resumed[fold].keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, resumed[fold][name]), (fold, name)
    assert not list((home / "checkpoints").glob("*"))


def _plain(output: str) -> str:
    """Remove the colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output)


def _executed(output: str) -> set[str]:
    """Return the steps that ran and were not served from cache."""
    return set(re.findall(r"Step (\w+) has finished", _plain(output)))
