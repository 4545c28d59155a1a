"""The team's tracking server with real PostgreSQL, S3-compatible storage and the entry script of mlflow/.

A training started by command line logs to it over HTTP, as a user that an administrator added.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import mlflow
import numpy as np
import pytest
import requests

from landslide.errors import RegistryError
from landslide.tracking import registry, runs
from tests.support import commands, pipeline_runs

pytestmark = pytest.mark.slow

FOLDER = pipeline_runs.ROOT / "mlflow"
RUNNER = {"MLFLOW_TRACKING_USERNAME": "runner", "MLFLOW_TRACKING_PASSWORD": "password-of-the-runner"}
STORAGE = {
    "AWS_ACCESS_KEY_ID": "storage",
    "AWS_SECRET_ACCESS_KEY": "password-of-storage",
    "AWS_DEFAULT_REGION": "us-east-1",
}
REQUIRED_PASSWORDS = {
    "PGPASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "AWS_SECRET_ACCESS_KEY",
}


@dataclass(frozen=True)
class Server:
    """A running tracking server: its address, the address of the storage, and the environment that it started with."""

    uri: str
    storage: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The tracking server, started by mlflow/serve.py."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "/nowhere/").parent]
    if not (binaries[-1] / "initdb").is_file():
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="landslide-server-", dir="/tmp"))
    database, storage, port = _free_port(), _free_port(), _free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PG", "AWS_"))},
        **STORAGE,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(database),
        "PGUSER": "mlflow",
        "PGPASSWORD": "pass/word@of:postgres",  # would have to be quoted in an address
        "PGDATABASE": "postgres",
        "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{storage}",
        "MLFLOW_AUTH_ADMIN_PASSWORD": "password-of-admin",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "signs-the-sessions",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost:*,127.0.0.1:*",  # as in compose.yaml
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "",
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    processes = []
    try:
        processes.append(_start_postgres(binaries[-1], folder, environment))
        moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(storage)]
        processes.append(_start(moto, folder / "storage.log", environment))
        _wait_until(lambda: _answers(database) and _answers(storage), processes, folder)
        serve = [sys.executable, str(FOLDER / "serve.py")]
        processes.append(_start(serve, folder / "mlflow.log", environment, cwd=folder))
        _wait_until(lambda: _status(f"http://127.0.0.1:{port}/health") == 200, processes, folder)
        yield Server(f"http://127.0.0.1:{port}", environment["MLFLOW_S3_ENDPOINT_URL"], environment)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def runner(server) -> dict[str, str]:
    """Credentials of a user with write permission, added by mlflow/add_user.py."""
    environment = {**server.environment, "MLFLOW_NEW_PASSWORD": RUNNER["MLFLOW_TRACKING_PASSWORD"]}
    command = [sys.executable, str(FOLDER / "add_user.py"), RUNNER["MLFLOW_TRACKING_USERNAME"], "--write"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return RUNNER


@pytest.fixture
def logged_in(server, runner, monkeypatch) -> None:
    """Log this process in as that user."""
    for name, value in runner.items():
        monkeypatch.setenv(name, value)


def test_command_line_training_is_recorded_registered_and_loadable_over_http(
    server, logged_in, tiny_set, new_home, tmp_path
):
    config = pipeline_runs.write_config(
        tmp_path / "config.yaml", tiny_set, training={"epochs": 1}, folds={"n_folds": 2}
    )
    home = new_home()
    (home / "mlflow.db").unlink()
    environment = pipeline_runs.cli_environment(home, LANDSLIDE_TRACKING_URI=server.uri) | RUNNER
    training = f"zenml pipeline run pipelines.training.training_pipeline -c {config}"
    for command in ("python -m stacks.local", training):
        done = commands.run(command.split(), cwd=pipeline_runs.ROOT, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not (home / "mlflow.db").exists()

    client = runs.connect(server.uri)
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    assert experiment.artifact_location.startswith("mlflow-artifacts:/")
    recorded = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in recorded if run.data.tags["role"] == "cross_validation"]
    children = [run for run in recorded if run.data.tags["role"] == "fold"]
    assert sorted(run.data.tags["fold"] for run in children) == ["1", "2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in recorded} == {"FINISHED"}

    example = np.load(client.download_artifacts(parent.info.run_id, "example/example.npz", str(tmp_path)))
    model = mlflow.pyfunc.load_model(f"models:/{registry.MODEL_NAME}@{registry.CHAMPION}")
    np.testing.assert_allclose(model.predict(example["images"])["probability"], example["probability"], atol=1e-5)

    storage = boto3.client(
        "s3",
        endpoint_url=server.storage,
        aws_access_key_id=STORAGE["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=STORAGE["AWS_SECRET_ACCESS_KEY"],
        region_name=STORAGE["AWS_DEFAULT_REGION"],
    )
    keys = [entry["Key"] for entry in storage.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert any(key.endswith(".safetensors") for key in keys)


@pytest.mark.parametrize("password", ["a-wrong-password", None])
def test_invalid_password_error_names_the_variables_to_set(password, server, logged_in, monkeypatch):
    if password is None:
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(RegistryError, match=r"refuses access(.|\n)*MLFLOW_TRACKING_USERNAME") as caught:
        runs.connect(server.uri)
    assert str(password) not in str(caught.value)


def test_read_only_user_cannot_change_anything(server, logged_in, monkeypatch):
    runs.connect(server.uri)  # as the runner, makes sure that the experiment exists
    reader = {"username": "reader", "password": "password-of-the-reader"}
    admin = ("admin", server.environment["MLFLOW_AUTH_ADMIN_PASSWORD"])
    requests.post(f"{server.uri}/api/2.0/mlflow/users/create", json=reader, auth=admin, timeout=10).raise_for_status()
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", reader["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", reader["password"])
    client = runs.connect(server.uri)
    experiment = client.get_experiment_by_name(runs.EXPERIMENT)
    with pytest.raises(mlflow.MlflowException, match=r"PERMISSION_DENIED|[Pp]ermission denied"):
        client.create_run(experiment.experiment_id)


def test_pages_and_runs_require_a_login(server):
    assert _status(f"{server.uri}/") == 401
    assert _status(f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=1") == 401
    assert requests.get(server.uri, headers={"Host": "elsewhere.example.org"}, timeout=10).status_code == 403


@pytest.mark.parametrize("missing", sorted(REQUIRED_PASSWORDS))
@pytest.mark.parametrize("value", [None, ""])
def test_server_does_not_start_without_a_password(missing, value):
    names = REQUIRED_PASSWORDS | {"PGHOST", "PGUSER", "PGDATABASE", "MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"}
    environment = dict.fromkeys(names, "set") | {"MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow", "PATH": "/nowhere"}
    del environment[missing]
    environment |= {missing: value} if value is not None else {}
    command = [sys.executable, str(FOLDER / "serve.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"without {missing}." in done.stderr


def _start_postgres(binaries: Path, folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Make a database with a password and start PostgreSQL; as another user if this one is root, which it refuses."""
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    place = folder / "postgres"
    place.mkdir()
    (folder / "password").write_text(environment["PGPASSWORD"])
    if user:
        folder.chmod(0o755)
        shutil.chown(place, "postgres", "postgres")
        shutil.chown(folder / "password", "postgres", "postgres")
    data = str(place / "data")
    make = [str(binaries / "initdb"), "-D", data, "-U", "mlflow", "--auth=scram-sha-256", "--no-sync"]
    made = subprocess.run(
        [*make, f"--pwfile={folder / 'password'}"], cwd="/", env=environment, capture_output=True, text=True, **user
    )
    assert made.returncode == 0, made.stderr
    settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
    serve = [str(binaries / "postgres"), "-D", data, "-p", environment["PGPORT"]]
    serve += [part for setting in settings for part in ("-c", setting)]
    return _start(serve, folder / "postgres.log", environment, cwd=Path("/"), **user)


def _start(command: list[str], log: Path, environment: dict[str, str], **options) -> subprocess.Popen:
    with log.open("w") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, **options)


def _wait_until(ready: Callable[[], bool], processes: list[subprocess.Popen], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        logs = "\n".join(path.read_text() for path in folder.glob("*.log"))
        assert all(process.poll() is None for process in processes), logs
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _status(address: str) -> int:
    try:
        return requests.get(address, timeout=10).status_code
    except requests.ConnectionError:
        return 0
