"""Locks between the processes of one machine: two of them must not train the same fold in the same folder.

The system releases a lock when its process ends, however it ends. Machines that share no disk do not wait for each
other.
"""

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from landslide.errors import LockedError

logger = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: The lock file; its folder is created if needed. A file `<name>.holder` next to it names the holder.
        wait: Wait for another process that holds the lock.

    Raises:
        LockedError: If another process holds the lock, unless `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = _holder_file(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise LockedError(
                f"{path} is locked by {_read(holder)}.",
                remedy="Wait until that process ends, or end it.",
            ) from None
        logger.warning("%s is locked by %s; waiting for it.", path, _read(holder))
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # while it is locked: filelock tries again when the file it locked is gone
        lock.release()


def holder_of(path: Path) -> str | None:
    """Return which process holds a lock, in words; None if none does. No file is changed.

    It shares the lock for a moment; a process that asks for it just then without waiting is refused.

    Args:
        path: The lock file. It is left over if the process that made it was killed.
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(_holder_file(path))
    except OSError:  # there is none, or it cannot be one
        return None
    return None


def _holder_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _read(holder: Path) -> str:
    with suppress(OSError):
        return holder.read_text(errors="replace") or "another process"
    return "another process"
