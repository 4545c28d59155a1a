"""What two pipelines on one machine must not do at once, such as training the same fold in the same folder."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landslide.paths import checkpoints

logger = logging.getLogger(__name__)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold a lock under a name while the block runs, waiting for another process that holds it.

    The lock is an empty file beside the checkpoints. The system releases it when a process ends, however it ends; what
    a killed one leaves is taken over by the next. Machines that share no disk do not wait for each other.

    Args:
        name: What is done, as part of a file name.
    """
    path = checkpoints() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _wait_for(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        fcntl.flock(handle, fcntl.LOCK_UN)  # closing would not do while a worker process lives that has inherited it
        os.close(handle)


def _wait_for(path: Path) -> int:
    """Return the open lock file when it is ours."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another process works on %s; waiting for it.", path.stem)
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_file(handle, path):
            return handle
        os.close(handle)  # deleted by the one that had it: others would lock a new file


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
