"""What a full disk and a limit of file sizes look like: each library reports them in its own way."""

import errno
import os
from collections.abc import Iterator

from landslide.errors import LandslideError
from landslide.paths import home

_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What SQLite says, which SQLAlchemy, ZenML and MLflow pass on in errors of their own.
_WORDS = ("database or disk is full", "disk I/O error")


def explain(error: BaseException) -> LandslideError | None:
    """Return an error that says that the disk is full, if this one or one that led to it is of that kind.

    Args:
        error: What a library raised.
    """
    for seen in _chain(error):
        if cause := explain_text(str(seen)):
            return cause
        if isinstance(seen, OSError) and seen.errno in _ERRNOS and seen.filename is None:
            return _error(f"A file cannot be written: {seen.strerror}.")
    return None


def is_cause(error: BaseException) -> bool:
    """Whether an error, or one that led to it, quotes the system's words for a full disk or a limit of file sizes."""
    return any(os.strerror(number) in str(seen) for seen in _chain(error) for number in _ERRNOS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def explain_text(text: str) -> LandslideError | None:
    """Return the same error if a text, such as a traceback, has the words of SQLite for it."""
    words = next((words for words in _WORDS if words in text), None)
    return _error(f"The databases of ZenML or MLflow cannot be written: {words}.") if words else None


def _error(what: str) -> LandslideError:
    return LandslideError(
        f"{what} LANDSLIDE_HOME is {home()}.",
        remedy="Free space on its disk, or raise the limit of file sizes (`ulimit -f`). The same command resumes.",
    )
