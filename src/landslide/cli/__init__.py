"""The command line, `landslide ...`: one module per group of commands.

Commands import their modules when they run, so that `landslide --help` is quick.
"""

import errno
import os
import sys
import traceback
from typing import Any

import click

from landslide import full_disk
from landslide.cli.completion import completion_command
from landslide.cli.data import data_group
from landslide.cli.health import health_command
from landslide.cli.home import home_group
from landslide.cli.map import map_command
from landslide.cli.models import models_group
from landslide.cli.networks import networks_command
from landslide.cli.report import report_command
from landslide.cli.stack import stack_command
from landslide.cli.train import train_command
from landslide.errors import LandslideError

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class _Group(click.Group):
    """A group whose commands show errors that a user can act on as one message, without traceback (exit code 1)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LandslideError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            reason = error.__context__ if _is_link_loop(error.__context__) else error
            if isinstance(reason, OSError) and reason.filename is not None:
                raise click.ClickException(
                    f"{reason.filename}: {reason.strerror}.\n"
                    "  -> Check the path, its permissions and the space on its disk."
                ) from error
            if not _is_of_output(error) and (explained := full_disk.explain(error)):
                raise click.ClickException(str(explained)) from error
            raise

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # click ends quietly if a reader has gone
            if not _is_of_output(error):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again at its end
            sys.exit(f"Error: standard output: {error.strerror}.\n  -> Free space, or write to another place.")


def _is_link_loop(error: BaseException | None) -> bool:
    """Return whether an error is of a link that leads to itself, for which `Path.resolve` raises another."""
    return isinstance(error, OSError) and error.errno == errno.ELOOP


def _is_of_output(error: BaseException) -> bool:
    """Return whether an error was raised where click prints."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, OSError) and frame.f_globals["__name__"] == "click.utils"


@click.group(cls=_Group, context_settings=HELP_OPTIONS, epilog="Example: landslide data check data")
@click.version_option(package_name="landslide")
def main() -> None:
    """Landslide segmentation from Sentinel-2 patches."""


main.add_command(completion_command)
main.add_command(data_group)
main.add_command(health_command)
main.add_command(home_group)
main.add_command(map_command)
main.add_command(models_group)
main.add_command(networks_command)
main.add_command(report_command)
main.add_command(stack_command)
main.add_command(train_command)
