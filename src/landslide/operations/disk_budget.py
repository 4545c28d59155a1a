"""A disk budget: when it is exceeded, old band caches, old pulled data and abandoned checkpoints are deleted.

All of them can be restored by computing, pulling or training. Runs and models of MLflow are never deleted.
"""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from landslide.paths import band_caches, checkpoints, home, pulled_data

# A folder that was written or opened within this time may be in use by another process.
_IN_USE_SECONDS = 3600
# A later retraining resumes from the checkpoints of an interrupted one.
_ABANDONED_SECONDS = 14 * 24 * 3600


def prune(budget: int) -> list[Path]:
    """Delete the least recently used folders until everything under `LANDSLIDE_HOME` fits the budget.

    The most recently used band cache always stays: the next one copies its rows. Checkpoints stay for two weeks.

    Args:
        budget: Bytes.

    Returns:
        The folders that were deleted.
    """
    excess = size_of(home()) - budget
    caches = sorted(band_caches().glob("*/[!.]*"), key=_last_used)
    kept_for = dict.fromkeys([*caches[:-1], *pulled_data().glob("*")], _IN_USE_SECONDS)
    kept_for |= dict.fromkeys(checkpoints().glob("*/"), _ABANDONED_SECONDS)  # not the lock files next to them
    deleted = []
    for folder in sorted(kept_for, key=_last_used):
        if excess <= 0:
            break
        if time.time() - _last_used(folder) < kept_for[folder]:
            continue
        excess -= size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        deleted.append(folder)
    return deleted


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(status.st_size for status in _statuses(folder) if stat.S_ISREG(status.st_mode))


def _last_used(folder: Path) -> float:
    """Return when anything in a folder was last written, in seconds since 1970. Opening a cache counts as writing."""
    return max((status.st_mtime for status in _statuses(folder)), default=0.0)


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """Yield the status of every folder and file. Other processes may delete files meanwhile."""
    for directory, _, files in os.walk(folder):
        for path in (Path(directory), *(Path(directory, name) for name in files)):
            try:
                yield path.lstat()
            except FileNotFoundError:
                continue
