"""Runs that a process of this machine works on, so that those of a killed process do not stay RUNNING for good.

Each process holds a lock for every run that it works on. The system releases it when the process ends, however it ends;
the next pipeline finds the lock free and closes the run.
"""

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mlflow.exceptions import MlflowException

from landslide.locks import locked
from landslide.paths import home
from landslide.tracking import runs
from landslide.tracking.runs import ABSENT, MlflowClient

logger = logging.getLogger(__name__)

_held: dict[Path, tuple[TextIO, MlflowClient]] = {}


def hold(client: MlflowClient, run_id: str) -> None:
    """Say that this process works on a run, until the block of `closing` ends or the process does.

    A run that was closed before its end runs again. Several processes may hold the same one.

    Args:
        client: The tracking client.
        run_id: The run.
    """
    path = _folder() / run_id
    with locked(_folder() / "lock"):
        if path not in _held:
            file = path.open("a")
            fcntl.flock(file, fcntl.LOCK_SH)
            _held[path] = file, client
    if client.get_run(run_id).info.status in ("FAILED", "KILLED"):
        client.update_run(run_id, status="RUNNING")
        runs.delete_tag(client, run_id, "failure")


def close_interrupted(client: MlflowClient) -> None:
    """Close the runs that no process holds any more, with their folds, as killed.

    Args:
        client: The tracking client; runs of other stores stay as they are.
    """
    with locked(_folder() / "lock"):
        for path in sorted(path for path in _folder().iterdir() if not path.name.startswith("lock")):
            if path not in _held:
                with path.open() as file:
                    _close(file, path, client, "KILLED", "Its process was killed or its machine stopped.")


@contextmanager
def closing() -> Iterator[None]:
    """Close the runs that were held in the block: as failed if it ends by an error, as killed if it was stopped."""
    try:
        yield
    except Exception:
        _release("FAILED")
        raise
    except BaseException:
        _release("KILLED", "It was stopped.")
        raise
    _release("FAILED")  # if one is not finished


def _release(status: str, reason: str = "") -> None:
    if not _held:
        return
    with locked(_folder() / "lock"):
        for path, (file, client) in list(_held.items()):
            with file:
                try:
                    _close(file, path, client, status, reason)
                except MlflowException as error:
                    logger.warning("MLflow run %s cannot be closed; the next pipeline does it. %s", path.name, error)
            del _held[path]


def _close(file: TextIO, path: Path, client: MlflowClient, status: str, reason: str) -> None:
    """Close a run and its folds where they are not closed, unless another process holds the run."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    try:
        family = [path.name, *runs.fold_runs(client, path.name).values()]
        for run in [client.get_run(run_id) for run_id in family]:
            if run.info.status == "RUNNING" and run.info.lifecycle_stage == "active":
                if reason:
                    runs.set_tags(client, run.info.run_id, {"failure": f"{reason} The same command resumes."})
                client.set_terminated(run.info.run_id, status)
        path.unlink()
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise


def _folder() -> Path:
    return home() / "open_runs"
