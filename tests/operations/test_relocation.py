"""A moved store is refused with a remedy that works; paths with unusual characters keep their meaning."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner

from landslide.cli import main
from landslide.errors import ConfigurationError, RegistryError
from landslide.operations.relocation import check_location, relocate
from landslide.tracking import runs

pytestmark = pytest.mark.slow


@pytest.fixture
def moved(empty_store, tmp_path, monkeypatch) -> Path:
    """A home with a run that has an artifact, renamed after that run."""
    before, now = tmp_path / "be#fore, 100% it's", tmp_path / "now"
    before.mkdir()
    uri = f"sqlite:///{shutil.copy2(empty_store, before / 'mlflow.db')}"
    run_id = runs.create_run(runs.connect(uri), "before", {}, {})
    with runs.recording(run_id):
        mlflow.log_text("content", "note.txt")
    before.rename(now)
    monkeypatch.setenv("LANDSLIDE_HOME", str(now))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{now}/mlflow.db")
    return now


def note(home: Path, name: str = "before") -> str:
    client = runs.connect(f"sqlite:///{home}/mlflow.db")
    (run,) = client.search_runs(["1"], f"run_name = '{name}'")
    return Path(client.download_artifacts(run.info.run_id, "note.txt")).read_text()


def test_artifacts_of_a_store_with_a_relative_address_lie_beside_it(empty_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy2(empty_store, "mlflow.db")
    for _ in range(2):  # the second time, the experiment exists
        client = runs.connect("sqlite:///mlflow.db")
        (experiment,) = client.search_experiments(filter_string=f"name = '{runs.EXPERIMENT}'")
        assert experiment.artifact_location == (tmp_path / "mlartifacts").as_uri()


def test_moved_store_is_refused_until_it_is_relocated(moved):
    with pytest.raises(RegistryError, match=r"was moved or copied from .*be#fore, 100% it's") as error:
        runs.connect(f"sqlite:///{moved}/mlflow.db")
    assert error.value.remedy == "Run `landslide home relocate`."
    with pytest.raises(ConfigurationError, match="was moved or copied from"):
        check_location()
    done = CliRunner().invoke(main, ["home", "relocate"])
    assert (done.exit_code, f"to {moved}" in done.output) == (0, True)
    assert note(moved) == "content"
    check_location()
    assert relocate() == []


def test_artifacts_that_went_to_the_former_place_come_along(moved, tmp_path):
    with closing(sqlite3.connect(moved / "mlflow.db")) as database:
        ((uri,),) = database.execute("SELECT artifact_uri FROM runs").fetchall()
    folder = moved / Path(uri).relative_to(Path(uri).parents[2])
    former = tmp_path / "be#fore, 100% it's" / folder.relative_to(moved)
    former.parent.mkdir(parents=True)
    folder.rename(former)
    relocate()
    assert note(moved) == "content"


def test_store_in_use_is_left_as_it_was(moved, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **_: connect(path, timeout=0.1))
    with closing(connect(moved / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConfigurationError, match="database is locked") as error:
            relocate()
        assert "End the pipelines" in error.value.remedy
    relocate()
    assert note(moved) == "content"


def test_home_that_was_reached_by_a_link_was_not_moved(moved, tmp_path, monkeypatch):
    relocate()
    (tmp_path / "link").symlink_to(moved)
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path / "link"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/link/mlflow.db")
    check_location()
    assert note(tmp_path / "link") == "content"
