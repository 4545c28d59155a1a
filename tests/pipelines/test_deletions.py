"""Objects that a person can delete in MLflow's UI, while ZenML's cache has the answers of all steps still."""

import os
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner

from landslide.cli import main
from landslide.errors import RegistryError
from landslide.inference.ensemble import load_ensemble
from landslide.tracking import registry, runs
from landslide.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME
from tests.support import commands, pipeline_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(stack, tiny_set, empty_store, tmp_path_factory):
    """A configuration that was trained in a store of its own: its file, and the store's folder with a copy."""
    folder, config = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("config") / "config.yaml"
    training = {"epochs": 1, "schedule": {"kind": "steps", "rates": [[1, 0.003]]}, "seed": 77}
    pipeline_runs.write_config(config, tiny_set, folds={"n_folds": 2}, training=training)
    shutil.copy2(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        _use(patch, folder / "mlflow.db")
        pipeline_runs.run_pipeline(config)
    shutil.copytree(folder, folder / "copy")
    return config, folder


def _use(patch, database: Path) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        patch.setenv(name, f"sqlite:///{database}")


@pytest.fixture
def store(trained, monkeypatch, tmp_path):
    """The store as after the training, with another database file, because MLflow keeps the other one open."""
    config, folder = trained
    shutil.rmtree(folder / "mlartifacts")
    shutil.copytree(folder / "copy" / "mlartifacts", folder / "mlartifacts")
    database = Path(shutil.copy2(folder / "copy" / "mlflow.db", folder / f"{tmp_path.name}.db"))
    _use(monkeypatch, database)
    return config, runs.connect(f"sqlite:///{database}")


def _parent(client):
    return runs.latest_cross_validation(client).info.run_id


def _delete_version_and_a_fold(client):
    client.delete_run(runs.fold_runs(client, _parent(client))[1])
    client.delete_model_version(MODEL_NAME, "1")


def _delete_model_a_folds_model_and_a_tag(client):
    parent = _parent(client)
    client.delete_registered_model(MODEL_NAME)
    client.delete_tag(parent, "evaluation")
    client.delete_tag(parent, "evaluated")
    _delete_logged_model(client, runs.fold_runs(client, parent)[2])


def _delete_parent_run(client):
    client.delete_run(_parent(client))


def _delete_all_runs(client):
    for run in runs.search(client, ""):
        client.delete_run(run.info.run_id)


def _delete_model_of_version(client):
    _delete_logged_model(client, _parent(client))


def _delete_logged_model(client, run_id):
    experiment = client.get_experiment_by_name(runs.EXPERIMENT).experiment_id
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    client.delete_logged_model(model.model_id)


def _mlflow(client, *arguments):
    """Run MLflow's command in a process of its own, because it changes the store of its process."""
    done = commands.run(
        ["mlflow", *arguments], cwd=pipeline_runs.ROOT, env={**os.environ, "MLFLOW_TRACKING_URI": client.tracking_uri}
    )
    assert done.returncode == 0, done.stderr


def _collect_garbage(client):
    _mlflow(client, "gc", "--backend-store-uri", client.tracking_uri)


@pytest.mark.parametrize(
    ("delete", "gc"),
    [
        (_delete_version_and_a_fold, False),
        pytest.param(_delete_version_and_a_fold, True, marks=pytest.mark.soak),
        (_delete_model_a_folds_model_and_a_tag, False),
        pytest.param(_delete_parent_run, False, marks=pytest.mark.soak),
        (_delete_all_runs, True),
        pytest.param(_delete_model_of_version, True, marks=pytest.mark.soak),
    ],
)
def test_what_was_deleted_is_created_again(store, delete, gc, tmp_path):
    config, client = store
    scores = client.get_run(_parent(client)).data.metrics
    delete(client)
    if gc:
        _collect_garbage(client)
    pipeline_runs.run_pipeline(config)
    parent = client.get_run(_parent(client))
    assert parent.data.metrics == scores
    assert sorted(runs.fold_runs(client, parent.info.run_id)) == [1, 2]
    for run_id in runs.fold_runs(client, parent.info.run_id).values():
        assert runs.fetch_members(run_id, tmp_path / run_id)
    number = parent.data.tags["model_version"]
    assert len(load_ensemble(registry.fetch(number, tmp_path / "version")).members) == 2
    assert {CHAMPION, CHALLENGER} & set(client.get_model_version(MODEL_NAME, number).aliases)
    model = mlflow.pyfunc.load_model(registry.address(number))
    assert np.isfinite(model.predict(np.ones((1, 14, 128, 128)))["probability"]).all()
    if (delete, gc) == (_delete_all_runs, True):  # the version in service has lost its run
        done = CliRunner().invoke(main, ["health"])
        assert done.exit_code == 1
        assert "The run of version 1 is gone" in done.output
        promote = ["models", "promote", number, "--reason", "the run of version 1 is gone"]
        assert CliRunner().invoke(main, promote).exit_code == 0
    for command in (["report", "--out", str(tmp_path / "reports")], ["models", "list"], ["health"]):
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output


def test_deleted_experiment_is_restored_by_the_command_of_the_message(store, monkeypatch):
    from pipelines.configured import PipelineError

    config, client = store
    runs_before = len(runs.search(client, ""))
    client.delete_experiment(client.get_experiment_by_name(runs.EXPERIMENT).experiment_id)
    with pytest.raises(PipelineError, match="was deleted, and its runs with it"):
        pipeline_runs.run_pipeline(config)
    health = CliRunner().invoke(main, ["health"])
    assert health.exit_code == 1
    assert "FAILED  tracking: The experiment landslide-segmentation" in health.output
    with pytest.raises(RegistryError) as error:
        runs.connect(client.tracking_uri)
    command = error.value.remedy.rpartition(" mlflow ")[2]
    _mlflow(client, *command.split())
    pipeline_runs.run_pipeline(config)
    assert len(runs.search(client, "")) == runs_before


def test_experiment_deleted_for_good_is_created_again(store):
    config, client = store
    client.delete_experiment(client.get_experiment_by_name(runs.EXPERIMENT).experiment_id)
    _collect_garbage(client)
    pipeline_runs.run_pipeline(config)
    parent = client.get_run(_parent(client))
    assert mlflow.pyfunc.load_model(registry.address(parent.data.tags["model_version"]))


def test_champion_whose_model_is_gone_is_unhealthy(store):
    _, client = store
    _delete_model_of_version(client)
    _collect_garbage(client)
    done = CliRunner().invoke(main, ["health"])
    assert done.exit_code == 1
    assert "Version 1 is in service, and its model was deleted" in done.output


def test_report_without_its_version_says_so(store, tmp_path):
    _, client = store
    client.delete_model_version(MODEL_NAME, "1")
    done = CliRunner().invoke(main, ["report", "--out", str(tmp_path / "reports")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "version 1, which was deleted" in done.output


def test_rollback_to_a_deleted_version_names_the_choice(store):
    _, client = store
    found = client.get_model_version(MODEL_NAME, "1")
    client.create_model_version(MODEL_NAME, found.source, found.run_id, tags=found.tags)
    registry.apply_decision(client, "2", registry.Decision(CHAMPION, "better"))
    client.delete_model_version(MODEL_NAME, "1")
    with pytest.raises(RegistryError, match=r"Version 1, to which .* was deleted(.|\n)*landslide models promote"):
        registry.rollback(client)
    assert registry.champion(client)["version"] == "2"
