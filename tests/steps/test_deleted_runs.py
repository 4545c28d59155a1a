"""A run that is deleted in MLflow while a pipeline works on it ends the pipeline with the way to go on."""

import os
import re
import shlex

import pytest

from landslide.errors import RegistryError
from landslide.tracking import open_runs, runs
from landslide.training.settings import TrainingSettings
from steps.evaluate import evaluate
from steps.register import register
from steps.settings import EvaluationSettings, RegistrationSettings
from steps.train_ablation_fold import train_ablation_fold
from steps.train_fold import train_fold
from tests.support import commands, pipeline_runs

pytestmark = pytest.mark.slow


@pytest.fixture
def client(stack, store, monkeypatch, tmp_path):
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(name, store)
    return runs.connect(store)


@pytest.fixture
def parent(client):
    return runs.open_cross_validation(
        client, "key", name="parent", params={}, tags={}, data_version="v", data_source="d"
    )


# Before they look at patches: None would be an error of another kind.
STEPS = {
    "train_fold": lambda parent: train_fold.entrypoint(1, None, None, parent, TrainingSettings()),
    "evaluate": lambda parent: evaluate.entrypoint([parent], [1], None, None, parent, EvaluationSettings()),
    "register": lambda parent: register.entrypoint(
        [parent], None, {}, None, parent, TrainingSettings(), RegistrationSettings()
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_steps_refuse_a_deleted_parent_run(step, client, parent):
    client.delete_run(parent)
    with pytest.raises(RegistryError, match=rf"MLflow run {parent} \(parent\) was deleted(.|\n)*begins a new run"):
        STEPS[step](parent)


def test_the_command_of_the_message_restores_the_run(client, parent):
    client.delete_run(parent)
    with pytest.raises(RegistryError) as error:
        runs.refuse_deleted(client, parent)
    variable, command = re.search(r"(MLFLOW_TRACKING_URI=\S+) (mlflow .*)", error.value.remedy).groups()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": shlex.split(variable)[0].partition("=")[2]}
    done = commands.run(shlex.split(command), cwd=pipeline_runs.ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    runs.refuse_deleted(client, parent)
    assert runs.find_cross_validation(client, "key") == parent


def test_run_that_is_gone_for_good_is_refused(client):
    with pytest.raises(RegistryError, match="deleted for good"):
        runs.refuse_deleted(client, "0" * 32)


def test_a_run_deleted_while_it_is_recorded_is_named(client, parent):
    fold = runs.open_fold(client, parent, 1)

    def record() -> None:
        with runs.explaining_deletion(client, fold), runs.recording(fold):
            client.delete_run(fold)
            runs.log_epoch(client.tracking_uri, fold, {"epoch": 1, "train_loss": 0.5})

    with pytest.raises(RegistryError, match=rf"MLflow run {fold} .*was deleted"):
        record()
    with pytest.raises(RegistryError, match="was deleted"):
        runs.set_tags(client, fold, {"a": "b"})
    with pytest.raises(RegistryError, match="was deleted"):
        runs.log_scores(client, fold, {"f1_macro": 0.5})


def test_other_rows_of_an_ablation_continue(client, parent):
    client.delete_run(parent)
    assert train_ablation_fold.entrypoint(1, None, None, parent, TrainingSettings()) == ""
    assert runs.fold_runs(client, parent) == {}


def test_folds_of_a_deleted_run_are_closed(client, parent):
    fold = runs.open_fold(client, parent, 1)

    def fail() -> None:
        with open_runs.closing():
            open_runs.hold(client, parent)
            client.delete_run(parent)
            runs.refuse_deleted(client, parent)

    with pytest.raises(RegistryError, match="was deleted"):
        fail()
    assert client.get_run(fold).info.status == "FAILED"
    assert list((open_runs._folder()).glob(parent)) == []
