"""`landslide home`: the folder of all generated state."""

import click


@click.group("home", epilog="Example: landslide home relocate")
def home_group() -> None:
    """Look after LANDSLIDE_HOME, the folder of all generated state."""


@home_group.command(epilog="Example: landslide home relocate")
def relocate() -> None:
    """Repair LANDSLIDE_HOME after it was moved, renamed or copied.

    MLflow's and ZenML's databases name files by absolute path. End pipelines and servers that use them first.
    """
    from landslide.operations.relocation import relocate as change_paths
    from landslide.paths import home

    done = change_paths()
    click.echo("\n".join([*done, f"LANDSLIDE_HOME is {home()}"]) if done else f"{home()} was not moved; nothing to do.")
