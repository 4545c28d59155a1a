"""`landslide stack`: handed over to the checkout, because the library knows nothing of ZenML."""

import importlib
import os
import sys
from pathlib import Path

import click

from landslide.errors import ConfigurationError


@click.command("stack", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def stack_command(arguments: tuple[str, ...]) -> None:
    """Register the ZenML stacks on which the pipelines run."""
    checkout = Path(os.environ.get("LANDSLIDE_ROOT") or ".").resolve()
    if not (checkout / "stacks" / "commands.py").is_file():
        raise ConfigurationError(
            f"{checkout} is not the project's checkout, to which the stacks belong.",
            remedy="Run this in the checkout, or source its activate.sh first.",
        )
    sys.path.insert(0, str(checkout))
    commands = importlib.import_module("stacks.commands")
    commands.stack_group(list(arguments), prog_name="landslide stack", standalone_mode=False)
