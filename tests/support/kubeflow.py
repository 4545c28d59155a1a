"""A cluster for the tests: the API of Kubeflow Pipelines on loopback, and pods that are processes.

The real kfp SDK submits to the API. A pod runs the compiled command of a task with the compiled environment and
that of the image, without the environment of the tests: like a real pod, it has its own working folder,
LANDSLIDE_HOME and ZenML configuration.
"""

import json
import os
import re
import shlex
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import commands

_API = "/apis/v2beta1"
_JOB_NAME = "{{$.pipeline_job_name}}"


def image_environment() -> dict[str, str]:
    """Return the environment that the Dockerfile sets, without values from build arguments."""
    text = (Path(__file__).resolve().parents[2] / "Dockerfile").read_text()
    found: dict[str, str] = {}
    for instruction in re.findall(r"^ENV ((?:.*\\\n)*.*)", text, re.MULTILINE):
        words = shlex.split(instruction.replace("\\\n", " "))
        found.update(word.split("=", 1) for word in words if "$" not in word)  # type: ignore[misc]
    return found


class PipelinesAPI:
    """The part of the Kubeflow Pipelines API that a submission needs; it stores the requests."""

    def __init__(self) -> None:
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: list[dict[str, Any]] = []
        self.recurring_runs: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*api._get(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*api._post(self.path.partition("?")[0], body))

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        if path == f"{_API}/healthz":
            return 200, {"multi_user": False}
        if path == f"{_API}/experiments":
            return 200, {"experiments": list(self.experiments.values()), "total_size": len(self.experiments)}
        return 404, {"error": f"no {path}"}

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        identity = str(uuid.uuid4())
        if path == f"{_API}/experiments":
            self.experiments[identity] = {**body, "experiment_id": identity}
            return 200, self.experiments[identity]
        for name, key, received in (
            ("runs", "run_id", self.runs),
            ("recurringruns", "recurring_run_id", self.recurring_runs),
        ):
            if path == f"{_API}/{name}":
                received.append({**body, key: identity})
                return 200, received[-1]
        return 404, {"error": f"no {path}"}


@dataclass
class Attempt:
    """One pod: a started task with its result."""

    task: str
    number: int
    process: Any
    log: Path
    started: float
    ended: float | None = None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Cluster:
    """Runs compiled pipelines: every task as a process, as soon as its dependencies are done.

    Attributes:
        folder: Parent of the folders of the pods.
        image: The folder that is /app in the image.
        environment: Environment of every pod, in addition to those of the Dockerfile and of the task.
        attempts: All pods so far.
        watch: Called with every pod that starts, in a separate thread.
        lost: Tasks whose first pod is lost when its command has ended, before Kubeflow has seen it succeed.
    """

    folder: Path
    image: Path
    environment: dict[str, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    watch: Callable[[Attempt], None] = lambda attempt: None
    lost: frozenset[str] = frozenset()

    def run(self, spec: dict[str, Any]) -> None:
        """Trigger one run of a compiled pipeline and wait for it.

        Raises:
            AssertionError: If a task fails more often than its retry policy allows.
        """
        run_id = f"{spec['pipelineInfo']['name']}-{uuid.uuid4().hex[:5]}"
        tasks = spec["root"]["dag"]["tasks"]
        done: set[str] = set()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(len(tasks)) as pool:
            while len(done) < len(tasks):
                for name, task in tasks.items():
                    if name not in {*done, *running.values()} and done.issuperset(task.get("dependentTasks", [])):
                        running[pool.submit(self._task, spec, name, task, run_id)] = name
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    done.add(running.pop(future))
                    future.result()

    def _task(self, spec: dict[str, Any], name: str, task: dict[str, Any], run_id: str) -> None:
        executor = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        container = spec["deploymentSpec"]["executors"][executor]["container"]
        attempts = 1 + int(task.get("retryPolicy", {}).get("maxRetryCount", 0))
        for number in range(1, attempts + 1):
            attempt = self._start(container, name, number, run_id)
            attempt.process.join()
            attempt.ended = time.monotonic()
            if attempt.process.exitcode == 0 and not (number == 1 and name in self.lost):
                return
        raise AssertionError(
            f"{name} failed {attempts} times, at last with {attempt.process.exitcode}:\n{attempt.output}"
        )

    def _start(self, container: dict[str, Any], name: str, number: int, run_id: str) -> Attempt:
        pod = self.folder / run_id / f"{name}-{number}"
        shutil.copytree(self.image, pod / "app")
        of_image = {
            name: re.sub(r"^/var/lib/landslide", f"{pod}/home", re.sub(r"^/app", f"{pod}/app", value))
            for name, value in image_environment().items()
        }
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "PYTHONPATH": f"{pod}/app/src",  # in the image the project is installed
            "HOME": str(pod),
            **of_image,
            **self.environment,
            **{entry["name"]: entry["value"].replace(_JOB_NAME, run_id) for entry in container["env"]},
        }
        command = [*container["command"], *container["args"]]
        log = pod / "log.txt"
        log.touch()
        process = commands.FORKS.Process(target=run_pod, args=(command, environment, pod / "app", log))
        process.start()
        attempt = Attempt(name, number, process, log, time.monotonic())
        self.attempts.append(attempt)
        threading.Thread(target=self.watch, args=(attempt,), daemon=True).start()
        return attempt

    def close(self) -> None:
        """Kill the pods that are still running."""
        for attempt in self.attempts:
            if attempt.process.is_alive():
                attempt.process.kill()
                attempt.process.join()


def run_pod(command: list[str], environment: dict[str, str], app: Path, log: Path) -> None:
    """Become a pod: in a process forked from one that has imported the packages, but nothing of the project.

    Args:
        command: `python -m MODULE ARGUMENTS`.
        environment: All environment variables.
        app: The folder that is /app in the container.
        log: File for its output.
    """
    commands.enter(environment, log, log)
    os.makedirs, os.chdir = _own(os.makedirs, app), _own(os.chdir, app)
    os.chdir("/app")
    commands.become(command)


def _own(function: Callable[..., Any], app: Path) -> Callable[..., Any]:
    """Make a function of `os` use the pod's own folder instead of /app, which every container has separately."""
    return lambda path, *args, **kwargs: function(app if path == "/app" else path, *args, **kwargs)
