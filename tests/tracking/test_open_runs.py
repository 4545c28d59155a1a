"""Runs of processes that are gone are closed; those of living ones stay."""

import shutil
import subprocess
import sys

import pytest

from landslide.termination import Terminated
from landslide.tracking import open_runs, runs

pytestmark = pytest.mark.slow

HOLD = """
import sys
from landslide.tracking import open_runs, runs
with open_runs.closing():
    open_runs.hold(runs.connect(sys.argv[1]), sys.argv[2])
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def family(store, monkeypatch, tmp_path):
    """A client, and a parent run with a running fold and a finished one."""
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path))
    client = runs.connect(store)
    parent = runs.open_cross_validation(
        client, "key", name="parent", params={}, tags={}, data_version="v", data_source="d"
    )
    running, finished = runs.open_fold(client, parent, 1), runs.open_fold(client, parent, 2)
    runs.finish(client, finished)
    return client, parent, running, finished


def holder(client, run_id) -> subprocess.Popen[str]:
    """Another process that holds a run until its input ends."""
    command = [sys.executable, "-c", HOLD, client.tracking_uri, run_id]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def hold_and_raise(client, run_id, error) -> None:
    with open_runs.closing():
        open_runs.hold(client, run_id)
        raise error


def statuses(client, run_ids) -> list[str]:
    return [client.get_run(run_id).info.status for run_id in run_ids]


def test_run_of_a_killed_process_is_closed_and_that_of_a_living_one_is_not(family):
    client, *run_ids = family
    with holder(client, run_ids[0]) as process:
        open_runs.close_interrupted(client)
        assert statuses(client, run_ids) == ["RUNNING", "RUNNING", "FINISHED"]
        process.kill()
    open_runs.close_interrupted(client)
    assert statuses(client, run_ids) == ["KILLED", "KILLED", "FINISHED"]
    assert client.get_run(run_ids[0]).data.tags["failure"].endswith("The same command resumes.")
    with open_runs.closing():
        open_runs.hold(client, run_ids[0])
        assert statuses(client, run_ids) == ["RUNNING", "KILLED", "FINISHED"]
        assert "failure" not in client.get_run(run_ids[0]).data.tags
        runs.finish(client, run_ids[0])
    assert statuses(client, run_ids) == ["FINISHED", "KILLED", "FINISHED"]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (Terminated, "KILLED")]
)
def test_end_by_an_error_closes_at_once(error, status, family):
    client, *run_ids = family
    with pytest.raises(error):
        hold_and_raise(client, run_ids[0], error)
    assert statuses(client, run_ids) == [status, status, "FINISHED"]


def test_run_that_another_process_works_on_stays_open(family):
    client, *run_ids = family
    with holder(client, run_ids[0]) as process:
        with pytest.raises(ValueError, match="here"):
            hold_and_raise(client, run_ids[0], ValueError("here"))
        assert statuses(client, run_ids)[0] == "RUNNING"
        process.communicate("")  # ends
    assert statuses(client, run_ids)[0] == "FAILED"


def test_run_of_another_store_is_left_to_it(family, empty_store, tmp_path):
    client, *run_ids = family
    with holder(client, run_ids[0]) as process:
        process.kill()
    other = runs.connect(f"sqlite:///{shutil.copy2(empty_store, tmp_path / 'other.db')}")
    open_runs.close_interrupted(other)
    assert statuses(client, run_ids)[0] == "RUNNING"
    open_runs.close_interrupted(client)
    assert statuses(client, run_ids)[0] == "KILLED"


def test_recording_that_is_stopped_is_marked_as_killed(family):
    client, _, running, _ = family
    with pytest.raises(KeyboardInterrupt), runs.recording(running):
        raise KeyboardInterrupt
    assert statuses(client, [running]) == ["KILLED"]
