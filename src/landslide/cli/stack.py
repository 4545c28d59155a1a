"""`landslide stack`: handed over to the checkout, because the library knows nothing of ZenML."""

import click

from landslide.cli.checkout import module_of_checkout


@click.command("stack", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def stack_command(arguments: tuple[str, ...]) -> None:
    """Register the ZenML stacks on which the pipelines run."""
    commands = module_of_checkout("stacks.commands")
    commands.stack_group(list(arguments), prog_name="landslide stack", standalone_mode=False)
