"""What a full disk and a limit of file sizes look like: each library reports them in its own way."""

import errno

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
    seen: BaseException | None = error
    while seen is not None:
        if cause := explain_text(str(seen)):
            return cause
        if isinstance(seen, OSError) and seen.errno in _ERRNOS and seen.filename is None:
            return _error(f"A file cannot be written: {seen.strerror}.")
        seen = seen.__cause__ or seen.__context__
    return None


def explain_text(text: str) -> LandslideError | None:
    """Return the same error if a text, such as a traceback, has the words of SQLite for it."""
    words = next((words for words in _WORDS if words in text), None)
    return _error(f"The databases of ZenML or MLflow cannot be written: {words}.") if words else None


def _error(what: str) -> LandslideError:
    return LandslideError(
        f"{what} LANDSLIDE_HOME is {home()}.",
        remedy="Free space on its disk, or raise the limit of file sizes (`ulimit -f`). The same command resumes.",
    )
