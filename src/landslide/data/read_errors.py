"""Why a file or folder cannot be read, and what to do about it."""

import errno
import os
from pathlib import Path

_PERMISSION = (
    "there is no permission to read it",
    "give the user who runs this permission to read it (`chmod -R u+rX` by its owner)",
)
_DISK = ("the disk or the network drive fails", "check the disk, then run this again")
_CAUSES = {
    errno.ENOENT: (
        "it is missing, or a link that leads nowhere",
        "copy or download the file again (`dvc checkout` restores links into DVC's cache)",
    ),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EAGAIN: ("another program has it open for writing", "wait until that program has finished, or end it"),
    errno.ENOLCK: ("its file system has no locks", "set HDF5_USE_FILE_LOCKING=FALSE, then run this again"),
    errno.EISDIR: ("it is a folder", "move it away"),
    errno.ESPIPE: ("it is a pipe, a socket or a device", "move it away"),
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.EMFILE: ("too many files are open", "raise the limit with `ulimit -n`, then run this again"),
}
_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR)
DAMAGED = "copy or download the file again"
"""The remedy for a damaged file."""


def explain(error: Exception) -> tuple[str, str]:
    """Return the cause of an error of reading, as a clause, and its remedy.

    Args:
        error: What the system or HDF5 raised. Errors of HDF5 without a number of the system are damage of the file.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return f"it is truncated or damaged ({str(error) or type(error).__name__})", DAMAGED
    reason = os.strerror(number)
    cause, remedy = _CAUSES.get(number, ("the system reports an error", "correct this, then run this again"))
    return f"{cause} ({reason})", remedy


def refuse_pipe(path: Path) -> None:
    """Refuse what would be waited for without end: a pipe, a socket or a device.

    Raises:
        OSError: If the path is one of these.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.ESPIPE, "")


def unreadable_folders(root: Path) -> dict[Path, tuple[str, str]]:
    """Return the folders, from `root` downwards, whose content cannot be seen, each with cause and remedy.

    Folders inside them are not named.
    """
    effective = os.access in os.supports_effective_ids
    errors: list[OSError] = []
    found = {}
    for folder, _, _ in os.walk(root, onerror=errors.append):
        if not os.access(folder, os.R_OK | os.X_OK, effective_ids=effective):
            found[Path(folder)] = explain(PermissionError(errno.EACCES, ""))
    found |= {Path(error.filename): explain(error) for error in errors if error.errno not in _NO_FOLDER}
    return {folder: cause for folder, cause in found.items() if not found.keys() & set(folder.parents)}
