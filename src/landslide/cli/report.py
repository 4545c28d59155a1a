"""`landslide report`."""

from pathlib import Path

import click


@click.command("report", epilog="Example: landslide report --out /tmp/reports")
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder to write to.",
)
def report_command(folder: Path) -> None:
    """Show the scores of the last cross-validation.

    They are also written to files that DVC reads.
    """
    from landslide.tracking.report import write_report

    click.echo(write_report(folder))
