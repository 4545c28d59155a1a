"""Pipelines started side by side on one machine: what only one of them may do at a time, and what a failure leaves."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pandas as pd
import pytest

from landslide.bands.formulas import BandSettings
from landslide.errors import TrainingError
from landslide.paths import checkpoints, default_tracking_uri
from landslide.tracking import runs
from landslide.training.fold import TrainingSettings
from steps.locks import alone
from steps.settings import DataSettings, FoldSettings
from tests.support import pipeline_runs

HOLD = "from steps.locks import alone\nwith alone('a'):\n    print('held', flush=True)\n    input()"


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path))


@pytest.fixture
def holder(own_home):
    """Another process that holds the lock `a` until it reads a line or is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=pipeline_runs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_only_one_is_inside_at_a_time(own_home):
    inside, most = [], []

    def enter(number: int) -> None:
        for _ in range(20):
            with alone("a"):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, range(6)))
    assert (len(most), max(most)) == (120, 1)
    assert list(checkpoints().iterdir()) == []


def test_other_names_do_not_wait(holder):
    def enter() -> bool:
        with alone("b"):
            return (checkpoints() / "a.lock").exists()

    with ThreadPoolExecutor(1) as pool:
        entered = pool.submit(enter)
        try:
            assert entered.result(timeout=30)
        finally:
            holder.kill()  # or a thread that waits after all would never end


def test_it_is_said_that_another_process_is_waited_for(holder, caplog):
    order = []
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(1) as pool:

        def enter() -> None:
            with alone("a"):
                order.append("entered")

        waiting = pool.submit(enter)
        deadline = time.monotonic() + 30
        while "waiting" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "waiting" in caplog.text
        order.append("released")
        holder.communicate("\n")
        waiting.result(timeout=30)
    assert order == ["released", "entered"]


def test_what_a_killed_process_leaves_stops_nobody(holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (checkpoints() / "a.lock").exists()
    with alone("a"):
        pass
    assert list(checkpoints().iterdir()) == []


# ---- folds


@pytest.fixture
def client(stack):
    return runs.connect(default_tracking_uri())


@pytest.fixture
def fold(client, monkeypatch, request):
    """Arguments of `train_fold` for a run of the test's own; what reads bands or writes a model does nothing."""
    import steps.train_fold as step

    monkeypatch.setattr(step, "open_bands", lambda *_: SimpleNamespace(stored_dtype="float32"))
    monkeypatch.setattr(step, "_parts", lambda *_: (None, None))
    monkeypatch.setattr(step.tracking, "log_model", lambda *_: None)
    parent = runs.open_cross_validation(
        client, request.node.name, name="r", params={}, tags={}, data_version="v", data_source="d"
    )
    table = pd.DataFrame({"fold": [1, 2]})
    return (1, table, "v", "c", parent, DataSettings(), BandSettings(), TrainingSettings())


RESULT = SimpleNamespace(spec=None, weights=None, epoch=3, threshold=0.5, detection_threshold=0.5)


def test_a_fold_that_two_pipelines_want_is_trained_by_one_of_them(client, fold, monkeypatch):
    import steps.train_fold as step

    trained, both_here = [], threading.Barrier(2)

    def fit(*_, label, **__):
        trained.append(label)
        time.sleep(1)  # the other one comes meanwhile
        return RESULT

    def train(_) -> str:
        both_here.wait()
        return step.train_fold.entrypoint(*fold)

    monkeypatch.setattr(step, "fit_fold", fit)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(train, range(2))
    assert trained == ["fold 1"]
    assert first == second == runs.fold_runs(client, fold[4])[1]
    assert runs.is_finished(client, first)
    assert not list(checkpoints().glob("*.lock"))


def test_two_pipelines_that_start_together_share_one_run(client, monkeypatch):
    import steps.open_run as step

    create = runs.create_run

    def create_slowly(*arguments):
        time.sleep(1)  # the other one has looked for the run meanwhile
        return create(*arguments)

    monkeypatch.setattr(runs, "create_run", create_slowly)
    monkeypatch.setattr(runs, "has_artifact", lambda *_: True)  # so that no bands are described
    table = pd.DataFrame({"number": [1, 2], "fold": [1, 2]})
    arguments = (table, "together", "c", DataSettings(), BandSettings(), FoldSettings(n_folds=2), TrainingSettings())
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
def test_why_a_fold_failed_is_written_down_until_it_is_trained(error, expected, client, fold, monkeypatch):
    import steps.train_fold as step
    from steps.train_row import train_row

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(step, "fit_fold", fails)
    assert train_row.entrypoint(*fold) == ""
    run = client.get_run(runs.fold_runs(client, fold[4])[1])
    assert (run.data.tags["failure"], run.info.status) == (expected, "FAILED")

    monkeypatch.setattr(step, "fit_fold", lambda *_, **__: RESULT)
    assert train_row.entrypoint(*fold) == run.info.run_id
    run = client.get_run(run.info.run_id)
    assert "failure" not in run.data.tags
    assert (run.data.tags["selected_epoch"], run.info.status) == ("3", "FINISHED")
