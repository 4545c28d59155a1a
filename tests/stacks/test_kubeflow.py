"""The retraining on Kubeflow, without a cluster: compiled and submitted by the real kfp SDK, run as processes.

A ZenML server, an MLflow server with a password and S3-compatible storage run on loopback; pods share
nothing else.
"""

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import matplotlib
import pytest
import yaml

from tests.support import commands, pipeline_runs
from tests.support.kubeflow import Attempt, Cluster, PipelinesAPI

pytestmark = pytest.mark.slow

CONFIG = pipeline_runs.ROOT / "configs" / "kubeflow.yaml"
PIPELINE = "pipelines.retraining.retraining_pipeline"
PASSWORD = "a-password-of-the-tests"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BUCKET = "landslide"
EPOCHS = 2
FOLDS = (1, 2)
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}
# `zenml secret create` and `landslide stack register` in one process; prints the results.
SET_UP = """
import json, sys
from click.testing import CliRunner
from zenml.client import Client
from landslide.cli import main

client, keys, password, options = Client(), *json.loads(sys.argv[1])
register = lambda: CliRunner().invoke(main, ["stack", "register", "kubeflow", *options]).output
outputs = [register()]
client.create_secret("s3", {"access_key": keys["AWS_ACCESS_KEY_ID"]})
client.create_secret("mlflow", {"username": "admin", "password": password})
client.create_secret("dvc", keys)
outputs.append(register())
client.update_secret("s3", add_or_update_values={"secret_key": keys["AWS_SECRET_ACCESS_KEY"]})
outputs += [register(), register()]
stack = client.active_stack_model
parts = {kind.value: part[0].configuration for kind, part in stack.components.items()}
flavors = {kind.value: part[0].flavor_name for kind, part in stack.components.items()}
print(json.dumps({"outputs": outputs, "stack": stack.name, "configuration": parts, "flavors": flavors}))
"""


@dataclass
class Server:
    """A process that serves HTTP and can be stopped and started again."""

    command: list[str]
    environment: dict[str, str]
    folder: Path
    url: str
    process: BaseProcess | None = None

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def start(self) -> None:
        environment = {**os.environ, **self.environment}
        self.process = commands.start(self.command, cwd=self.folder, env=environment, stdout=self.log, stderr=self.log)

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            assert self.process is not None
            assert self.process.is_alive(), self.log.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None and self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join()


@dataclass
class Site:
    """All servers, the data and a shell that is connected to the ZenML server with the stack active."""

    api: PipelinesAPI
    zenml: Server
    mlflow: Server
    image: Path
    shell: dict[str, str]
    repository: Path
    registered: dict[str, Any]

    def client(self):
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.mlflow.url, self.mlflow.url)

    def submit(self, folder: Path, **parameters: dict[str, Any]) -> dict[str, Any]:
        """Submit configs/kubeflow.yaml with a tiny network and fewer folds; return the recurring run as received."""
        config = yaml.safe_load(CONFIG.read_text())
        tiny = {
            "data": {"repository": str(self.repository)},
            "folds": {"n_folds": len(FOLDS)},
            "training": {"epochs": EPOCHS},
            "evaluation": {"figures": False},
        }
        config["parameters"]["training"] = dict(pipeline_runs.TINY_TRAINING)
        for fold in range(len(FOLDS) + 1, 6):
            del config["steps"][f"train_fold_{fold}"]
        for changes in (tiny, parameters):
            for group, values in changes.items():
                config["parameters"][group] = {**config["parameters"].get(group, {}), **values}
        path = folder / "kubeflow.yaml"
        path.write_text(yaml.safe_dump(config))
        before = len(self.api.recurring_runs)
        command = ["zenml", "pipeline", "run", PIPELINE, "-c", str(path)]
        done = commands.run(command, cwd=pipeline_runs.ROOT, env=self.shell)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(self.api.recurring_runs) == before + 1, done.stdout + done.stderr
        return self.api.recurring_runs[-1]

    def cluster(self, folder: Path) -> Cluster:
        self.mlflow.wait()
        environment = {
            "OMP_NUM_THREADS": "1",
            "LANDSLIDE_GIT_COMMIT": COMMIT,
            "MPLCONFIGDIR": matplotlib.get_cachedir(),  # generated once, as in an image
            "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        }
        return Cluster(folder, self.image, environment)

    def lose_tracking_server(self, seconds: float) -> None:
        """Kill the MLflow server and start it again later."""
        self.mlflow.stop()
        time.sleep(seconds)
        self.mlflow.start()

    def zenml_items(self, what: str) -> list[dict[str, Any]]:
        """Return runs or steps from the ZenML server."""
        form = urlencode({"username": "default", "password": PASSWORD}).encode()
        with urllib.request.urlopen(f"{self.zenml.url}/api/v1/login", form) as answer:
            token = json.load(answer)["access_token"]
        request = urllib.request.Request(
            f"{self.zenml.url}/api/v1/{what}?size=1000", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request) as answer:
            return list(json.load(answer)["items"])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _zenml_server(folder: Path) -> Server:
    folder.mkdir()
    port = _free_port()
    command = ["python", "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--port", str(port)]
    environment = {
        "ZENML_CONFIG_PATH": str(folder / "zenml"),
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
        "ZENML_DEFAULT_USER_NAME": "default",
        "ZENML_DEFAULT_USER_PASSWORD": PASSWORD,
    }
    return Server(command, environment, folder, f"http://127.0.0.1:{port}")


def _mlflow_server(folder: Path) -> Server:
    folder.mkdir()
    port = _free_port()
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"admin_password = {PASSWORD}\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        "auth_cache_max_size = 10\nauth_cache_ttl_seconds = 300\n"  # a password takes 0.1 s to check
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command = [
        "python", "-m", "mlflow", "server", "--port", str(port), "--workers", "1", "--app-name", "basic-auth",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return Server(command, environment, folder, f"http://127.0.0.1:{port}")


def _push_data(data: Path, folder: Path, s3: str) -> Path:
    """Make a git repository that pins a data set, with the files in S3."""
    shutil.copytree(data, folder / "data")
    for command in (
        "git init --quiet --initial-branch main",
        "dvc init --quiet",
        f"dvc remote add --quiet --default store s3://{BUCKET}/dvc",
        f"dvc remote modify --quiet store endpointurl {s3}",
        "dvc add --quiet data",
        "dvc push --quiet",
        "git add .",
        "git -c user.name=test -c user.email=test@example.com commit --quiet -m data",
    ):
        done = commands.run(command.split(), cwd=folder, env={**os.environ, **KEYS})
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tiny_set, tmp_path_factory) -> Iterator[Site]:
    import boto3
    from moto.server import ThreadedMotoServer

    commands.prepare()
    folder = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as stack:
        zenml, mlflow = _zenml_server(folder / "zenml"), _mlflow_server(folder / "mlflow")
        for server in (zenml, mlflow):
            stack.callback(server.stop)
        zenml.start()
        api = PipelinesAPI()
        stack.callback(api.close)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        s3 = f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
        boto3.client(
            "s3", endpoint_url=s3, region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket=BUCKET)  # fmt: skip
        image = folder / "image"
        for name in ("src", "steps", "pipelines", "stacks"):
            shutil.copytree(pipeline_runs.ROOT / name, image / name, ignore=shutil.ignore_patterns("*.egg-info"))
        shutil.copy2(pipeline_runs.ROOT / "requirements.lock", image)
        repository = _push_data(tiny_set, folder / "repository", s3)
        zenml.wait()
        mlflow.start()
        shell = {
            **pipeline_runs.cli_environment(folder / "home"),
            "ZENML_STORE_URL": zenml.url,
            "ZENML_STORE_USERNAME": "default",
            "ZENML_STORE_PASSWORD": PASSWORD,
        }
        options = (
            f"--kubeflow-url {api.url} --bucket s3://{BUCKET}/zenml --s3-endpoint {s3} --s3-secret s3 --registry "
            f"registry.example.com/mapping --mlflow-url {mlflow.url} --mlflow-secret mlflow --secret dvc --activate"
        )
        set_up = commands.run(
            ["python", "-c", SET_UP, json.dumps([KEYS, PASSWORD, options.split()])], cwd=pipeline_runs.ROOT, env=shell
        )
        assert set_up.returncode == 0, set_up.stderr
        registered = json.loads(set_up.stdout.splitlines()[-1])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
            patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
            yield Site(api, zenml, mlflow, image, shell, repository, registered)


@pytest.fixture(scope="module")
def recurring(site, tmp_path_factory) -> dict[str, Any]:
    """What Kubeflow Pipelines received for configs/kubeflow.yaml."""
    return site.submit(tmp_path_factory.mktemp("submitted"))


def _spec(recurring: dict[str, Any]) -> dict[str, Any]:
    spec = recurring["pipeline_spec"]
    return spec.get("pipeline_spec", spec)


def _container(spec: dict[str, Any], task: str) -> dict[str, Any]:
    label = spec["components"][spec["root"]["dag"]["tasks"][task]["componentRef"]["name"]]["executorLabel"]
    return spec["deploymentSpec"]["executors"][label]["container"]


def _wait_for(attempt: Attempt, text: str) -> None:
    while text not in attempt.output and attempt.process.is_alive():
        time.sleep(0.02)
    assert attempt.process.is_alive(), f"{attempt.task} ended too early to be disturbed:\n{attempt.output}"


def _runs(site: Site, role: str) -> list[Any]:
    client = site.client()
    experiment = client.get_experiment_by_name("landslide-segmentation")
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], f"tags.role = '{role}'", max_results=1000))


def _assert_whole(site: Site, n: int) -> None:
    """After n runs: n parents with a child per fold, n versions, no duplicates, no epoch lost."""
    client = site.client()
    parents, children = _runs(site, "cross_validation"), _runs(site, "fold")
    assert len(parents) == len(_runs(site, "retraining")) == n
    places = sorted((run.data.tags["mlflow.parentRunId"], int(run.data.tags["fold"])) for run in children)
    assert places == sorted((run.info.run_id, fold) for run in parents for fold in FOLDS)
    assert {run.info.status for run in parents + children} == {"FINISHED"}
    for run in children:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.step for metric in history] == list(range(1, EPOCHS + 1))
    versions = client.search_model_versions("name = 'landslide-segmentation'")
    assert sorted(version.tags["run_id"] for version in versions) == sorted(run.info.run_id for run in parents)
    assert {version.tags["git_commit"] for version in versions} == {COMMIT}
    pipeline_runs = site.zenml_items("runs")
    assert len(pipeline_runs) == n
    assert {run["body"]["status"] for run in pipeline_runs} == {"completed"}


def test_stack_is_registered_once_with_secrets_by_reference(site):
    no_secret, half_a_secret, registered, repeated = site.registered["outputs"]
    assert "no secret 's3'" in no_secret
    assert "zenml secret create s3 --access_key=... --secret_key=..." in no_secret
    assert "'s3' lacks secret_key" in half_a_secret
    assert registered == "stack landslide-kubeflow: registered\n"
    assert repeated == "stack landslide-kubeflow: unchanged\n"
    configuration = site.registered["configuration"]
    assert site.registered["stack"] == "landslide-kubeflow"
    assert site.registered["flavors"]["orchestrator"] == "landslide_kubeflow"
    assert configuration["artifact_store"]["key"] == "{{s3.access_key}}"
    assert configuration["artifact_store"]["secret"] == "{{s3.secret_key}}"
    assert configuration["experiment_tracker"]["tracking_password"] == "{{mlflow.password}}"
    assert not any(secret in json.dumps(configuration) for secret in (PASSWORD, KEYS["AWS_SECRET_ACCESS_KEY"]))


def test_recurring_run_matches_the_configuration(recurring):
    config = yaml.safe_load(CONFIG.read_text())
    spec = _spec(recurring)
    assert recurring["trigger"]["cron_schedule"]["cron"] == config["schedule"]["cron_expression"]
    assert len(recurring["trigger"]["cron_schedule"]["cron"].split()) == 6  # Kubeflow's first field is seconds
    assert recurring["mode"] == "ENABLE"
    assert recurring["max_concurrency"] == 1
    assert recurring["no_catchup"] is True
    folds = {f"train-fold-{fold}" for fold in FOLDS}
    tasks = spec["root"]["dag"]["tasks"]
    assert folds < set(tasks)
    for task in folds:
        container = _container(spec, task)
        assert container["image"] == config["settings"]["docker"]["parent_image"]
        resources = container["resources"]
        assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
        assert resources["accelerator"]["resourceCount"] == "1"
        assert resources["resourceMemoryLimit"] == "24G"
        assert resources["resourceCpuLimit"] == "4"
        assert not folds & set(tasks[task]["dependentTasks"])
    ingest = _container(spec, "ingest")["resources"]
    assert ingest["resourceMemoryLimit"] == "8G"
    assert "accelerator" not in ingest
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks.values()} == {config["retry"]["max_retries"]}
    assert {task["retryPolicy"]["backoffDuration"] for task in tasks.values()} == {"60s"}
    assert not any(secret in json.dumps(recurring) for secret in (PASSWORD, KEYS["AWS_SECRET_ACCESS_KEY"]))


@pytest.mark.soak
def test_killed_fold_and_lost_tracking_server_end_in_one_registered_model(site, recurring, tmp_path):
    def disturb(attempt: Attempt) -> None:
        if (attempt.task, attempt.number) == ("train-fold-2", 1):
            _wait_for(attempt, "fold 2  epoch 1/")
            attempt.process.kill()
        elif (attempt.task, attempt.number) == ("train-fold-1", 1):
            _wait_for(attempt, "fold 1  epoch 1/")
            site.lose_tracking_server(1)

    cluster = site.cluster(tmp_path)
    cluster.watch = disturb
    cluster.lost = frozenset({"build-bands", "register"})
    try:
        cluster.run(_spec(recurring))
    finally:
        cluster.close()
    _assert_whole(site, 1)
    folds = [attempt for attempt in cluster.attempts if attempt.task.startswith("train-fold")]
    again = [(a.task, a.number) for a in cluster.attempts if a.number > 1]
    assert ("train-fold-2", 2) in again
    assert {("build-bands", 2), ("register", 2)} < set(again)
    # Rarely a fold more: MLflow refuses to repeat a request that the lost server had carried out but not answered.
    assert len(again) <= 4, again
    assert max(a.started for a in folds if a.number == 1) < min(a.ended for a in folds)  # concurrently
    second = [step["body"]["status"] for step in site.zenml_items("steps") if step["name"] == "train_fold_2"]
    assert sorted(second) == ["completed", "retried"]
    for attempt in folds:
        assert "Building it" not in attempt.output  # the cache came through the artifact store
        assert not (attempt.log.parent / "home" / "data").exists()
    champion = site.client().get_model_version_by_alias("landslide-segmentation", "champion")
    assert str(champion.version) == "1"


@pytest.mark.soak
def test_ten_nights_of_killed_pods_and_lost_servers_lose_or_duplicate_nothing(site, tmp_path):
    moments = random.Random(0)
    before = len(_runs(site, "retraining"))
    for night in range(10):
        folder = tmp_path / str(night)
        folder.mkdir()
        spec = _spec(site.submit(folder, training={"seed": 100 + night}, retraining={"force": True}))
        victims = set(moments.sample(sorted(spec["root"]["dag"]["tasks"]), 3))
        delays = {victim: moments.uniform(0, 6) for victim in victims}
        outage = moments.uniform(5, 40)

        def disturb(attempt: Attempt, delays: dict[str, float] = delays) -> None:
            if attempt.number == 1 and attempt.task in delays:
                time.sleep(delays[attempt.task])
                attempt.process.kill()

        cluster = site.cluster(folder)
        cluster.watch = disturb
        timer = threading.Timer(outage, site.lose_tracking_server, [moments.uniform(0, 5)])
        timer.start()
        try:
            cluster.run(spec)
        finally:
            timer.join()
            cluster.close()
        site.mlflow.wait()
        _assert_whole(site, before + night + 1)
        print(f"night {night + 1}: killed {', '.join(sorted(victims))}; server lost after {outage:.0f} s")


REQUIRED = {
    "kubeflow_url": "https://k.example.com/pipeline",
    "bucket": "s3://bucket/folder",
    "registry": "r.example.com/m",
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"kubeflow_url": ""}, "--kubernetes-context"),
        ({"kubernetes_context": "prod"}, "one of them"),
        ({"kubeflow_url": "kubeflow.example.com"}, "--kubeflow-url is 'kubeflow.example.com'"),
        ({"mlflow_url": "sqlite:///mlflow.db"}, "--mlflow-url"),
        ({"mlflow_url": "https://me:hunter2@m.example.com"}, "--mlflow-secret"),
        ({"s3_endpoint": "minio:9000"}, "--s3-endpoint"),
        ({"bucket": "/var/artifacts"}, "s3://BUCKET/FOLDER"),
        ({"registry": "https://r.example.com"}, "without a scheme"),
    ],
)
def test_invalid_option_error_names_valid_values(changed, expected):
    from landslide.errors import ConfigurationError
    from stacks.kubeflow import KubeflowStack

    with pytest.raises(ConfigurationError) as caught:
        KubeflowStack(**{**REQUIRED, "mlflow_url": "https://m.example.com", **changed})
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_missing_zenml_server_error_explains_how_to_connect(stack):
    from click.testing import CliRunner

    from landslide.cli import main

    options = [text for name, value in REQUIRED.items() for text in (f"--{name.replace('_', '-')}", value)]
    done = CliRunner().invoke(
        main, ["stack", "register", "kubeflow", *options, "--mlflow-url", "https://m.example.com"]
    )
    assert done.exit_code == 1
    assert "zenml login" in done.output
