"""The command `landslide`, and `python -m landslide`."""

import os
import sys
from pathlib import Path

from landslide.extras import missing_extra
from landslide.paths import home
from landslide.termination import exit_on_sigterm


def main() -> None:
    """Run the command line; if the package of an extra is missing, exit with 1 and a message that names the extra."""
    try:
        from landslide.cli import main as command  # click, too, is missing from the bare library

        _ensure_user_home()
        with exit_on_sigterm():
            command(prog_name="landslide")
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        sys.exit(f"Error: {missing}")


def _ensure_user_home() -> None:
    """Take LANDSLIDE_HOME if the user has no home directory, as in containers: libraries ask for one when imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(home())


if __name__ == "__main__":
    main()
