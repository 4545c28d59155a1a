"""One retraining at a time: the second one says who works, leaves with exit code 75, and comes in after a kill."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipelines.configured import BusyError, _lock
from pipelines.retraining import retraining_pipeline
from tests.support.pipeline_runs import ROOT

HOLDER = """
import sys, time
from pipelines.configured import _lock

with _lock("retraining_pipeline"):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def holder(home):
    """Another process that holds the lock of the retraining."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@click.command()
def retrain() -> None:
    """What the command line calls in the end."""
    retraining_pipeline()


def test_a_second_retraining_leaves_and_the_next_comes_in_when_the_first_was_killed(holder, home):
    left = CliRunner().invoke(retrain)
    assert left.exit_code == 75
    assert f"retraining_pipeline runs already (process {holder.pid} on " in left.output
    assert str(home / "retraining_pipeline.lock") in left.output
    with _lock("another_pipeline"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with _lock("retraining_pipeline"):
        assert f"process {os.getpid()} on " in (home / "retraining_pipeline.lock").read_text()


def test_the_lock_holds_within_a_process_and_ends_with_its_block_even_by_an_error(home):
    def fail() -> None:
        with _lock("p"):
            with pytest.raises(BusyError, match=f"process {os.getpid()}"), _lock("p"):
                pytest.fail("two at once")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with _lock("p"):
        assert len((home / "p.lock").read_text().splitlines()) == 1
