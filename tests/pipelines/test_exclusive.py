"""One retraining at a time: a second one names the first and exits with code 75; a kill releases the lock."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from landslide.locks import locked
from pipelines.retraining import retraining_pipeline
from tests.support.pipeline_runs import ROOT

pytestmark = pytest.mark.slow

HOLDER = """
import sys, time
from pathlib import Path
from landslide.locks import locked

with locked(Path(sys.argv[1])):
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
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home / "retraining_pipeline.lock")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@click.command()
def retrain() -> None:
    """Call the pipeline, as the command line does."""
    retraining_pipeline()


def test_second_retraining_exits_and_a_killed_one_releases_the_lock(holder, home):
    left = CliRunner().invoke(retrain)
    assert left.exit_code == 75
    assert "retraining_pipeline runs already" in left.output
    assert f"is locked by process {holder.pid} on " in left.output
    lock = home / "retraining_pipeline.lock"
    assert str(lock) in left.output
    with locked(home / "another_pipeline.lock", wait=False):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(lock, wait=False):
        assert f"process {os.getpid()} on " in lock.with_name("retraining_pipeline.lock.holder").read_text()
