"""Stores of another release of MLflow or ZenML: named, with a backup first and the command that migrates them."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base

from landslide.cli import main
from landslide.errors import RegistryError
from landslide.operations import zenml_store
from landslide.tracking import registry, runs
from tests.support import commands, pipeline_runs

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


def _set_schema(database: Path, schema: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute("UPDATE alembic_version SET version_num = ?", (schema,))
    connection.commit()
    connection.close()


def _health(monkeypatch, uri: str) -> str:
    monkeypatch.setenv("LANDSLIDE_TRACKING_URI", uri)
    done = CliRunner().invoke(main, ["health"])
    assert done.exit_code == 1
    return done.output


def test_older_mlflow_store_is_migrated_by_the_command_of_the_message(monkeypatch, tmp_path):
    file = tmp_path / "a store" / "mlflow.db"
    file.parent.mkdir()
    uri = f"sqlite:///{file}"
    configuration = _get_alembic_config(uri)
    older = ScriptDirectory.from_config(configuration).get_revision("head").down_revision
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, older)
        columns, values = "experiment_id, name, lifecycle_stage, workspace", "0, 'Default', 'active', 'default'"
        connection.execute(sqlalchemy.text(f"INSERT INTO experiments ({columns}) VALUES ({values})"))
    engine.dispose()
    with pytest.raises(RegistryError, match=f"has the schema {older} of an older release") as error:
        runs.connect(uri)
    assert f"FAILED  tracking: {error.value.what}" in _health(monkeypatch, uri)
    backup, migration = error.value.remedy.split(". Then migrate it: ")
    for text in (backup.partition("back it up: ")[2], migration):
        assert os.system(f"PATH={Path(os.sys.executable).parent}:$PATH {text} > {tmp_path}/log 2>&1") == 0
    assert (file.parent / f"mlflow.db.{older}").is_file()
    assert registry.champion(runs.connect(uri)) is None


def test_newer_mlflow_store_is_named(monkeypatch, store):
    _set_schema(Path(store.removeprefix("sqlite:///")), "ffffffffffff")
    with pytest.raises(RegistryError, match=r"does not know: a newer one wrote it(.|\n)*restore a backup"):
        runs.connect(store)
    assert "a newer one wrote it" in _health(monkeypatch, store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    done = CliRunner().invoke(main, ["models", "list"])
    assert done.exit_code == 1
    assert "a newer one wrote it" in done.output


def test_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(RegistryError, match=r"cannot be opened: .*not a database(.|\n)*restore a backup"):
        runs.connect(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.fixture
def zenml(empty_zenml, tmp_path, monkeypatch) -> Path:
    """The database of a ZenML store."""
    folder = Path(shutil.copytree(empty_zenml, tmp_path / "zenml"))
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(folder))
    return folder / "local_stores" / "default_zen_store" / "zenml.db"


def test_newer_zenml_store_is_moved_aside_by_the_command_of_the_message(zenml, tmp_path):
    _set_schema(zenml, "99.0.0")
    with pytest.raises(RegistryError, match=r"'99.0.0', which the installed ZenML .* does not know"):
        zenml_store.check()
    environment = pipeline_runs.cli_environment(tmp_path)
    register = ["python", "-m", "stacks.local"]
    refused = commands.run(register, cwd=pipeline_runs.ROOT, env=environment)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    move = refused.stderr.partition("new one: ")[2].partition(" && ")[0]
    assert os.system(move) == 0
    done = commands.run(register, cwd=pipeline_runs.ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "has the schema of the installed ZenML" in zenml_store.check()


def test_older_zenml_store_is_to_be_backed_up_before_zenml_migrates_it(zenml):
    _set_schema(zenml, "0.94.0")
    found = zenml_store.check()
    assert "has the schema 0.94.0" in found
    assert os.system(found.partition("Back it up before: ")[2]) == 0
    assert zenml.with_name("zenml.db.0.94.0").read_bytes() == zenml.read_bytes()


def test_damaged_zenml_store_is_named(zenml):
    zenml.write_bytes(b"no database" * 100)
    with pytest.raises(RegistryError, match=r"cannot be read: .*not a database(.|\n)*Move it aside"):
        zenml_store.check()
