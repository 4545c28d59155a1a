"""`landslide health`, as a container's health check calls it."""

import os
import socket
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from landslide.cli import main
from landslide.tracking import runs
from tests.support.versions import add_version

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):  # the command sets them
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)


def test_healthy_installation_passes_every_check(home, store):
    done = CliRunner().invoke(main, ["health"], env={"MLFLOW_TRACKING_URI": store})
    assert done.exit_code == 0, done.output
    found = [line.split(":")[0].split() for line in done.output.splitlines() if line.startswith(("ok", "FAILED"))]
    assert found == [["ok", "torch"], ["ok", "state"], ["ok", "tracking"], ["ok", "zenml"]]
    assert str(home) in done.output


def test_versions_of_which_none_is_in_service_are_named(store, tmp_path):
    client = runs.connect(store)
    add_version(client, tmp_path)
    done = CliRunner().invoke(main, ["health"], env={"MLFLOW_TRACKING_URI": store})
    assert done.exit_code == 1
    assert "has versions of the model, and none is in service" in done.output
    assert "landslide models promote" in done.output


def test_every_failure_is_reported_within_30_seconds(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path / "file"))
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("LANDSLIDE_TRACKING_URI", server)
        begin = time.monotonic()
        done = CliRunner().invoke(main, ["health"])
    assert done.exit_code == 1
    state, tracking = [line for line in done.output.splitlines() if line.startswith("FAILED")]
    assert "state" in state
    assert str(tmp_path / "file") in state
    assert "tracking" in tracking
    assert server in tracking
    assert time.monotonic() - begin < 30


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_required_but_missing_gpu_fails():
    done = CliRunner().invoke(main, ["health", "--gpu"])
    assert done.exit_code == 1
    assert "FAILED  torch" in done.output
    assert "nvidia-smi" in done.output


def test_health_works_for_a_user_without_a_home_directory(store, tmp_path):
    code = """
import os, pwd, sys
def no_entry(_):
    raise KeyError
pwd.getpwuid = no_entry  # as for a number that docker run --user names
os.environ.pop("HOME", None)
sys.argv[1:] = ["health"]
from landslide.__main__ import main
main()
"""
    environment = {**os.environ, "LANDSLIDE_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": store}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
