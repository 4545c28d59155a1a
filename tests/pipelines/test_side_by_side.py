"""Pipelines that run concurrently on one machine: work that only one may do at a time, and records of failures."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pandas as pd
import pytest

from landslide.bands.formulas import BandSettings
from landslide.errors import TrainingError
from landslide.metrics.counts import METRIC_NAMES
from landslide.paths import checkpoints, default_tracking_uri
from landslide.tracking import runs
from landslide.tracking.registry import MODEL_NAME
from landslide.training.fold import TrainingSettings
from steps.data_access import PatchSource
from steps.settings import DataSettings, FoldSettings, RegistrationSettings
from tests.support.patch_tables import build_patch_table
from tests.support.versions import add_version

pytestmark = pytest.mark.slow


@pytest.fixture
def client(stack):
    return runs.connect(default_tracking_uri())


@pytest.fixture
def fold(client, monkeypatch, request):
    """Arguments of `train_fold` for a new run; reading bands and writing the model are replaced by no-ops."""
    import steps.train_fold as step

    monkeypatch.setattr(PatchSource, "open_bands", lambda *_: SimpleNamespace(stored_dtype="float32"))
    monkeypatch.setattr(step, "fold_rows", lambda *_, **__: None)
    monkeypatch.setattr(step.runs, "log_model", lambda *_, **__: None)
    monkeypatch.setattr(step.runs, "has_model", lambda _: True)
    parent = runs.open_cross_validation(
        client, request.node.name, name="r", params={}, tags={}, data_version="v", data_source="d"
    )
    table = pd.DataFrame({"fold": [1, 2]})
    return (1, table, PatchSource(data=DataSettings(), version="v", bands=BandSettings()), parent, TrainingSettings())


RESULT = SimpleNamespace(spec=None, weights=None, epoch=3, threshold=0.5, detection_threshold=0.5)


def test_fold_requested_by_two_pipelines_is_trained_once(client, fold, monkeypatch):
    import steps.train_fold as step

    trained, both_here = [], threading.Barrier(2)

    def fit(task, **__):
        trained.append(task.label)
        time.sleep(1)  # the other pipeline arrives in the meantime
        return RESULT

    def train(_) -> str:
        both_here.wait()
        return step.train_fold.entrypoint(*fold)

    monkeypatch.setattr(step, "fit_fold", fit)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(train, range(2))
    assert trained == ["fold 1"]
    assert first == second == runs.fold_runs(client, fold[3])[1]
    assert runs.is_finished(client, first)
    assert not list(checkpoints().glob("*.lock"))


def test_concurrent_pipelines_share_one_run(client, monkeypatch):
    import steps.open_run as step

    create = runs.create_run

    def create_slowly(*arguments):
        time.sleep(1)  # the other pipeline has searched for the run in the meantime
        return create(*arguments)

    monkeypatch.setattr(runs, "create_run", create_slowly)
    monkeypatch.setattr(runs, "has_artifact", lambda *_: True)  # so that no bands are described
    table = build_patch_table(6, folds=[1, 1, 1, 2, 2, 2])
    patches = PatchSource(data=DataSettings(), version="together", bands=BandSettings())
    arguments = (table, patches, FoldSettings(n_folds=2), TrainingSettings(model="unet", model_options={"width": 4}))
    both_here = threading.Barrier(2)

    def open_run(_) -> str:
        both_here.wait()
        return step.open_run.entrypoint(*arguments)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(open_run, range(2))
    assert first == second
    assert len(runs.search(client, "tags.role = 'cross_validation' and tags.data_version = 'together'")) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("\n  \n"), "RuntimeError"),
        (RuntimeError("\n the second line\nthe third"), "the second line"),
        (TrainingError("the loss is nan.", remedy="Lower the learning rate."), "the loss is nan."),
        (RuntimeError("x" * 600), "x" * 500),
    ],
)
def test_failure_of_a_fold_is_recorded_until_it_is_trained(error, expected, client, fold, monkeypatch):
    import steps.train_fold as step
    from steps.train_ablation_fold import train_ablation_fold

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(step, "fit_fold", fails)
    assert train_ablation_fold.entrypoint(*fold) == ""
    run = client.get_run(runs.fold_runs(client, fold[3])[1])
    assert (run.data.tags["failure"], run.info.status) == (expected, "FAILED")

    monkeypatch.setattr(step, "fit_fold", lambda *_, **__: RESULT)
    assert train_ablation_fold.entrypoint(*fold) == run.info.run_id
    run = client.get_run(run.info.run_id)
    assert "failure" not in run.data.tags
    assert (run.data.tags["selected_epoch"], run.info.status) == ("3", "FINISHED")


def test_model_of_one_cross_validation_is_registered_once(client, monkeypatch, request, tmp_path):
    import steps.register as step

    logged = client.get_model_version(MODEL_NAME, add_version(client, tmp_path)).source
    lineage = {"git_commit": "c", "git_dirty": "false", "requirements_lock": "l", "fold_table": "f", "start_from": ""}
    parent = runs.open_cross_validation(
        client,
        request.node.name,
        name="r",
        params={},
        tags={**lineage, "fold_scheme": "contiguous", "folds_trained": "all", "selection": "inner_validation"},
        data_version="v",
        data_source="d",
    )
    both_here = threading.Barrier(2, timeout=20)
    mean = dict.fromkeys(METRIC_NAMES, 0.5) | {f"{name}_std": 0.0 for name in METRIC_NAMES}

    def log(*_) -> str:
        time.sleep(1)
        return logged

    def register(_) -> str:
        both_here.wait()
        patches = PatchSource(data=DataSettings(), version="v", bands=BandSettings())
        return step.register.entrypoint(
            ["a"],
            pd.DataFrame(),
            {"mean": mean, "folds": {}},
            patches,
            parent,
            TrainingSettings(),
            RegistrationSettings(),
        )

    monkeypatch.setattr(step, "_log_model", log)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(register, range(2))
    assert first == second
