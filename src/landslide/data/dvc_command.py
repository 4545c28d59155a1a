"""The command `dvc`, run in a process of its own; the library does not import DVC."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from landslide.errors import DataError

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_N_LINES = 8  # shown of the output of a failing DVC, which may list every file


def run_dvc(folder: Path, *arguments: str, stdin: str | None = None, success: Collection[int] = (0,)) -> str:
    """Run DVC in a folder and return its output.

    Args:
        folder: The working folder.
        *arguments: The arguments.
        stdin: Text for its standard input.
        success: The exit codes that are no failure.

    Raises:
        DataError: If it fails; the message contains no credentials.
        ModuleNotFoundError: If DVC is not installed.
    """
    if not is_installed():
        raise ModuleNotFoundError("No module named 'dvc'", name="dvc")
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, input=stdin, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode not in success:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        text = "\n".join([*lines[:_N_LINES], *(["..."] if len(lines) > _N_LINES else [])])
        what = f"`dvc {' '.join(arguments)}` failed: {without_credentials(text)}"
        raise DataError(what, remedy="correct the problem that DVC reports, then run this again")
    return done.stdout


def is_installed() -> bool:
    """Return whether DVC is installed."""
    return importlib.util.find_spec("dvc") is not None


def repository_of(folder: Path) -> Path | None:
    """Return the root of the DVC repository that a folder is in, None outside one."""
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), None)


def without_credentials(text: str) -> str:
    """Remove the user and password of every address in a text."""
    return _CREDENTIALS.sub("", text)
