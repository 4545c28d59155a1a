"""`mlflow models serve`: patches over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests

from landslide.bands.formulas import BandSettings
from landslide.inference.ensemble import Ensemble
from landslide.tracking import registry
from tests.support import versions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The address of a served version, and its ensemble."""
    from landslide.tracking import runs

    folder = tmp_path_factory.mktemp("service")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("LANDSLIDE_HOME", str(folder))
        client = runs.connect(os.environ["MLFLOW_TRACKING_URI"])
        version = versions.add_version(client, folder, with_code=True)
        model = mlflow.artifacts.download_artifacts(registry.address(version), dst_path=str(folder / "model"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(Path(sys.executable).parent / "mlflow", "models", "serve", "-m", model, "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    log = (folder / "log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{address}/ping", timeout=5).ok:
                    break
            except requests.ConnectionError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield address, Ensemble(versions.members(folder / "weights"), BandSettings())
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def ask(service, body: object) -> requests.Response:
    text = body if isinstance(body, str) else json.dumps(body)
    return requests.post(f"{service[0]}/invocations", text, headers={"Content-Type": "application/json"}, timeout=60)


def test_patches_over_http_get_the_probabilities_of_the_ensemble(service):
    patches = np.random.default_rng(0).uniform(0, 2, (2, 14, 32, 32)).astype(np.float32)
    answer = ask(service, {"inputs": patches.tolist()})
    assert answer.status_code == 200
    for name, expected in zip(("probability", "uncertainty"), service[1].predict(patches), strict=True):
        np.testing.assert_allclose(answer.json()["predictions"][name], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"inputs": np.zeros((1, 13, 32, 32)).tolist()}, "(N, 14, H, W) are needed, not (1, 13, 32, 32)"),
        ({"inputs": np.zeros((1, 14, 30, 32)).tolist()}, "multiples of 16 pixels are needed, not of 30 x 32"),
        ({"inputs": "B4"}, "Patches of shape (N, 14, H, W) are needed"),
        ({"inputs": [[1, 2], [3]]}, "inhomogeneous"),
        ({"inputs": np.full((1, 14, 32, 32), 1e38).tolist()}, "largest value among them"),
        ({"dataframe_split": {"columns": ["B4"], "data": [[1]]}}, "Patches of shape (N, 14, H, W) are needed"),
        ("{not json", "valid JSON"),
        ({}, "must be a JSON dictionary"),
    ],
)
def test_malformed_requests_get_status_400_with_a_short_reason(service, body, expected):
    answer = ask(service, body)
    assert answer.status_code == 400
    assert expected in answer.json()["message"]
    assert "stack_trace" not in answer.json()
    assert len(answer.json()["message"]) < 1000
