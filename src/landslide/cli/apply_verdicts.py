"""`landslide data apply`."""

import shlex
from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command("apply", epilog="Example: landslide data apply audit --verdicts verdicts.csv")
@click.argument("audit", metavar="AUDIT", type=_PATH)
@click.argument("folder", metavar="[DIR]", type=_PATH, required=False)
@click.option(
    "--verdicts",
    type=_PATH,
    metavar="FILE.csv",
    help="Verdicts that audit.html saved  [default: those in candidates.gpkg]",
)
@click.option("-o", "--output", type=_PATH, help="Folder of the new data set  [default: replace ./data]")
@click.option("--dry-run", is_flag=True, help="Only say what would change; write nothing.")
def apply_command(audit: Path, folder: Path | None, verdicts: Path | None, output: Path | None, dry_run: bool) -> None:
    """Change the labels that people found to be wrong.

    AUDIT is the folder that `landslide data audit` wrote, with verdicts; DIR is the data set, by default the one that
    was audited. The changes are added to label_changes.csv. Without -o, DIR must be ./data: the new set is pinned in
    data.dvc, and DVC keeps the old one.
    """
    from landslide.labels.applying import describe_changes, install_changed, refuse_place, write_changed
    from landslide.labels.label_changes import plan_changes
    from landslide.schema import ORIGINAL_BANDS

    plan = plan_changes(audit, folder, verdicts)
    refuse_place(plan, output, Path.cwd())
    click.echo(describe_changes(plan))
    if dry_run or not plan.masks:
        click.echo("nothing was written: " + ("a dry run" if dry_run else "no label changes"))
        return
    version = install_changed(plan, Path.cwd()) if output is None else write_changed(plan, output)
    click.echo(f"data version: {plan.version}, then {version}")
    if output is None:
        click.echo("./data is now that version. To record it:")
        click.echo('  git add data.dvc && git commit -m "Change labels after an audit"')
        return
    declared = "" if plan.stored == ORIGINAL_BANDS else f" --bands {','.join(plan.stored)}"
    click.echo(f"take it into use: landslide data use {shlex.quote(str(output))}{declared}")
