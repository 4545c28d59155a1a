"""Locks between the processes of one machine: two of them must not train the same fold in the same folder.

The system releases a lock when its process ends, however it ends. Machines that share no disk do not wait for each
other.
"""

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
    holder = path.with_name(f"{path.name}.holder")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise LockedError(
                f"{path} is locked by {_read(holder) or 'another process'}.",
                remedy="Wait until that process ends, or end it.",
            ) from None
        logger.info("%s is locked by %s; waiting for it.", path, _read(holder) or "another process")
        lock.acquire()
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # while it is locked: filelock tries again when the file it locked is gone
        lock.release()


def _read(holder: Path) -> str:
    with suppress(OSError):
        return holder.read_text()
    return ""
