"""The command `landslide`, and `python -m landslide`."""

import sys

from landslide.extras import missing_extra


def main() -> None:
    """Run the command line; if the package of an extra is missing, exit with 1 and a message that names the extra."""
    try:
        from landslide.cli import main as command  # click, too, is missing from the bare library

        command(prog_name="landslide")
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        sys.exit(f"Error: {missing}")


if __name__ == "__main__":
    main()
