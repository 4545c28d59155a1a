"""Command lines in processes forked from one that has imported the libraries: most of a command's time is imports.

The process has the working folder, the environment and the module search path of the command, and has imported
nothing of the project.
"""

import atexit
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Not `zenml_cli`, which redirects the output of the process that imports it.
_PRELOADED = [
    "tests.support.quicker_libraries", "tests.support.installed_packages",
    "zenml.cli.cli", "zenml.entrypoints.step_entrypoint_configuration", "zenml.integrations.registry",
    "zenml.integrations.mlflow.experiment_trackers", "zenml.integrations.kubeflow.orchestrators",
    "zenml.integrations.s3.artifact_stores", "zenml.stack.stack", "zenml.zen_stores.sql_zen_store", "matplotlib.pyplot",
    "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "torch",
    "lightning_fabric", "cv2", "h5py", "segmentation_models_pytorch",
    "sklearn.metrics", "dvc.cli", "dvc.repo", "dvc_s3",
    "zenml.log_stores.otel.otel_log_store", "zenml.orchestrators.local.local_orchestrator", "uvicorn",
]  # fmt: skip
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(_PRELOADED)


def prepare() -> None:
    """Start importing the libraries in the background."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for the import of tests.support
        forkserver.ensure_running()


def run(command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does.

    Args:
        command: A script of the Python environment such as `zenml`, `python -m MODULE` or `python -c CODE`, with
            arguments; or `git`, which is as quick to start as to fork.
        cwd: The working folder.
        env: All environment variables.
    """
    if command[0] == "git":
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(command, cwd=cwd, env=env, stdout=outputs[0], stderr=outputs[1])
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in outputs))


def start(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: Path, stderr: Path) -> BaseProcess:
    """Start a command, the leader of a new process group, and return its process."""
    prepare()
    process = FORKS.Process(target=_run_in, args=(list(command), cwd, dict(env), stdout, stderr))
    process.start()
    return process


def _run_in(command: list[str], cwd: Path, environment: dict[str, str], stdout: Path, stderr: Path) -> None:
    enter(environment, stdout, stderr)
    os.chdir(cwd)
    become(command)


def enter(environment: Mapping[str, str], stdout: Path, stderr: Path) -> None:
    """Give this process its own group, output, environment and module search path."""
    assert not {"landslide", "steps", "pipelines", "stacks"}.intersection(sys.modules)
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.environ.clear()
    os.environ.update(environment)
    libraries = [path for path in sys.path if "site-packages" in path or not Path(path).resolve().is_relative_to(ROOT)]
    sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *libraries]
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(environment.get("ZENML_CUSTOM_SOURCE_ROOT"))  # ZenML read it on import


def become(command: Sequence[str]) -> None:
    """Run a command in this process, then its exit handlers."""
    try:
        if command[:2] == ["python", "-m"]:
            sys.path.insert(0, str(Path.cwd()))
            sys.argv[:] = command[2:]
            runpy.run_module(command[2], run_name="__main__", alter_sys=True)
        elif command[:2] == ["python", "-c"]:
            sys.argv[:] = ["-c", *command[3:]]
            exec(compile(command[2], "<string>", "exec"), {"__name__": "__main__"})
        else:
            script = shutil.which(command[0])
            assert script is not None, f"no {command[0]} in {os.environ['PATH']}"
            sys.argv[:] = [script, *command[1:]]
            main = ModuleType("__main__")
            main.__file__ = script  # `inspect.stack`, which kfp calls often, is slow if it cannot find a file's module
            sys.modules["__main__"] = main
            exec(compile(Path(script).read_text(), script, "exec"), main.__dict__)
    finally:
        atexit._run_exitfuncs()  # multiprocessing children do not run these
