"""`landslide completion`."""

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", epilog='Example: eval "$(landslide completion bash)"')
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print a script by which SHELL completes commands and options.

    bash and zsh run it as in the example, fish with `landslide completion fish | source`. Put that line into the
    start-up file of the shell, after the one that activates the environment.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # of every shell in the choice
    click.echo(kind(ctx.find_root().command, {}, "landslide", "_LANDSLIDE_COMPLETE").source())
