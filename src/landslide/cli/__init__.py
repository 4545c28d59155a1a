"""The command line, `landslide ...`: one module per group of commands.

Commands import their modules when they run, so that `landslide --help` is quick.
"""

from typing import Any

import click

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
        except OSError as error:
            if error.filename is None:  # not about a file: the traceback is what there is to say
                raise
            raise click.ClickException(
                f"{error.filename}: {error.strerror}.\n  -> Check the path, its permissions and the space on its disk."
            ) from error


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
