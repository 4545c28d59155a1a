"""`make clean` deletes what comes back by itself, `make clean-all` the rest, and neither deletes anything else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.pipeline_runs import ROOT

pytestmark = pytest.mark.slow

VERSION = "9a493a1e846b2972c9b743be42a110f5.dir"
CACHES = {"cache", f"data/{VERSION}", "data/.pull-x1", "dvc"}
RECORDS = {"checkpoints", "mlartifacts", "mlflow.db", "reports", "zenml"}
FOREIGN = {"notes.txt", "thesis"}
TOP = {"cache", "data", "dvc"} | RECORDS | FOREIGN | {"training_pipeline.lock"}


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with an environment and with data of its own, in a folder whose name has blanks and quotes."""
    root = tmp_path / "it's a checkout"
    for folder in (".venv/bin", "data/TrainData", "stacks"):
        (root / folder).mkdir(parents=True)
    for name in ("Makefile", "activate.sh", "stacks/clean.sh"):
        shutil.copy2(ROOT / name, root / name)
    return root


def fill(home: Path) -> Path:
    """Create a home with something in each of its folders, and with files of somebody else."""
    for name in (CACHES | RECORDS | FOREIGN) - {"mlflow.db", "notes.txt"}:
        (home / name).mkdir(parents=True, exist_ok=True)
        (home / name / "file").write_text("x")
    for name in ("mlflow.db", "notes.txt", "zenml/.stack-registered", "training_pipeline.lock"):
        (home / name).write_text("x")
    return home


def make(checkout: Path, target: str, home: Path | None, answer: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LANDSLIDE_HOME"}
    if home is not None:
        environment["LANDSLIDE_HOME"] = str(home)
    command = ["make", "--no-print-directory", target]
    return subprocess.run(command, cwd=checkout, env=environment, input=answer, capture_output=True, text=True)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("default", [True, False])
def test_clean_keeps_runs_models_unfinished_trainings_and_foreign_files(default, checkout, tmp_path):
    home = fill(checkout / ".landslide" if default else tmp_path / "state of the group")
    done = make(checkout, "clean", None if default else home)
    assert done.returncode == 0, done.stderr
    assert not (checkout / ".venv").exists()
    assert (checkout / "data").exists()
    assert names(home) == RECORDS | FOREIGN | {"training_pipeline.lock"}
    assert "mlflow.db" in done.stdout


def test_clean_all_asks_and_keeps_only_foreign_files(checkout, tmp_path):
    home = fill(tmp_path / "home")
    for answer in ("", "no\n", "y\n"):
        refused = make(checkout, "clean-all", home, answer)
        assert refused.returncode != 0
        assert "mlartifacts" in refused.stdout
        assert "Nothing is deleted" in refused.stderr
        assert (checkout / ".venv").exists()
        assert names(home) == TOP
    done = make(checkout, "clean-all", home, "yes\n")
    assert done.returncode == 0, done.stderr
    assert names(home) == FOREIGN
    assert names(checkout) == {"Makefile", "activate.sh", "data", "stacks"}


def test_clean_all_removes_a_home_without_foreign_files(checkout, tmp_path):
    home = fill(tmp_path / "home")
    for name in FOREIGN:
        shutil.rmtree(home / name) if (home / name).is_dir() else (home / name).unlink()
    assert make(checkout, "clean-all", home, "yes\n").returncode == 0
    assert not home.exists()


@pytest.mark.parametrize("target", ["clean", "clean-all"])
def test_folder_that_is_no_home_is_refused(target, checkout, tmp_path):
    home = fill(tmp_path / "home")
    (home / "zenml" / ".stack-registered").unlink()
    before = names(home)
    refused = make(checkout, target, home, "yes\n")
    assert refused.returncode != 0
    assert str(home) in refused.stderr
    assert names(home) == before
    assert (checkout / ".venv").exists()


@pytest.mark.parametrize("target", ["clean", "clean-all"])
def test_checkout_as_home_and_data_that_nobody_pulled_are_kept(target, checkout, tmp_path):
    fill(checkout)
    assert make(checkout, target, checkout, "yes\n").returncode != 0
    home = fill(tmp_path / "home")
    (home / "data" / "TrainData").mkdir()
    assert make(checkout, target, home, "yes\n").returncode == 0
    for folder in (checkout, home):
        assert (folder / "data" / "TrainData").exists()
    assert names(home / "data") == {"TrainData"}


def test_clean_without_a_home_deletes_the_environment(checkout, tmp_path):
    assert make(checkout, "clean", tmp_path / "missing").returncode == 0
    assert not (checkout / ".venv").exists()
    assert not (tmp_path / "missing").exists()
