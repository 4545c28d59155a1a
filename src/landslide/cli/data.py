"""`landslide data ...`: generate, cut, import, check, audit and install data sets."""

import json
from pathlib import Path
from typing import Any

import click

from landslide.cli.apply_verdicts import apply_command
from landslide.cli.audit import audit_command
from landslide.cli.band_option import bands_option
from landslide.cli.import_patches import import_command
from landslide.cli.next import next_command
from landslide.cli.tile import tile_command

_FOLDER = click.Path(path_type=Path)


@click.group("data", epilog="Example: landslide data check data")
def data_group() -> None:
    """Generate, download, check, identify and install data sets."""


data_group.add_command(audit_command)
data_group.add_command(apply_command)
data_group.add_command(import_command)
data_group.add_command(tile_command)
data_group.add_command(next_command)


@data_group.command(epilog="Example: landslide data demo /tmp/valley --seed 1")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--seed", default=0, show_default=True, help="Seed of the terrain.")
@click.option("--country", default=1, show_default=True, help="1, or 2 for other spectra on the same terrain.")
def demo(folder: Path, seed: int, country: int) -> None:
    """Generate a small data set in DIR, which must be empty or missing."""
    from landslide.data.demo import generate

    generate(folder, seed=seed, country=country)
    click.echo(f"generated a demo data set in {folder}")


@data_group.command(epilog="Example: landslide data scene /tmp/scene --seed 1")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--seed", default=0, show_default=True, help="Seed of the terrain.")
@click.option(
    "--layout",
    type=click.Choice(["SAFE", "bands", "stack", "STAC item"]),
    default="SAFE",
    show_default=True,
    help="The form of the scene.",
)
@click.option("--clouds", is_flag=True, help="With clouds, a shadow and snow.")
def scene(folder: Path, seed: int, layout: Any, clouds: bool) -> None:
    """Generate a Sentinel-2 scene in DIR, which must be empty or missing.

    Beside the scene are dem.tif, its elevation model, and landslides.gpkg, the true landslides. The ground is that of
    the demo data set.
    """
    from landslide.scenes.demo_scene import write_demo_scene
    from landslide.tiling.new_folder import new_folder

    with new_folder(folder) as partial:
        source = write_demo_scene(partial, layout=layout, rows=3, columns=4, seed=seed, clouds=clouds)
    click.echo(f"generated the scene {folder / source.relative_to(partial)}")


@data_group.command(epilog="Example: landslide data fetch --split train")
@click.argument("folder", metavar="[DIR]", type=_FOLDER, required=False)
@click.option(
    "--split",
    "splits",
    multiple=True,
    type=click.Choice(["train", "validation", "test"]),
    help="Only this split; may be repeated.  [default: all]",
)
@click.option("--source", type=click.Choice(["huggingface", "zenodo"]), default="huggingface", show_default=True)
@click.option(
    "--url", envvar="LANDSLIDE_DATA_URL", show_envvar=True, help="Address of a mirror with the same paths below it."
)
def fetch(folder: Path | None, splits: tuple[Any, ...], source: Any, url: str | None) -> None:
    """Download the official Landslide4Sense set and check it.

    It is pinned as ./data, or stored in DIR without a pin. If it is interrupted, the same command resumes.
    """
    from landslide.data import landslide4sense

    project = Path.cwd()
    pinned = folder is None or folder.resolve() == project / "data"
    try:
        done = landslide4sense.fetch(
            project / "data" if folder is None else folder.resolve(),
            pin_in=project if pinned else None,
            splits=tuple(dict.fromkeys(splits)) or landslide4sense.SPLITS,
            source=source,
            server=url,
            report_to=click.echo,
        )
    except KeyboardInterrupt:
        click.echo("\nStopped; the same command resumes.", err=True)
        raise
    click.echo(f"\n{done}")
    if pinned:
        click.echo('  git add data.dvc && git commit -m "Use the official data set"')


@data_group.command(epilog="Example: landslide data check DIR --bands B4,B3,B2")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@bands_option
def check(folder: Path, as_json: bool, bands: tuple[str, ...] | None) -> None:
    """Check every file of the data set in DIR and report every fault.

    If DVC pins DIR, the objects of that version in DVC's cache are checked too. The exit code is 1 when there is a
    fault; warnings do not change it.
    """
    from landslide.data.check import check as check_patches
    from landslide.data.project import cache_warnings, refuse_missing

    if not as_json:
        refuse_missing(folder)
    report = check_patches(folder, bands=bands)
    report.warnings += cache_warnings(folder.resolve())
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.render())
    if not report.ok:
        raise click.exceptions.Exit(1)


def _numbers(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Read `--number 3,17`."""
    try:
        return tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise click.BadParameter(f"{text!r} are no whole numbers, separated by commas") from error


@data_group.command(epilog="Example: landslide data show data -o sheet.png")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("-o", "--output", type=_FOLDER, default="sheet.png", show_default=True, help="The picture, a PNG file.")
@click.option(
    "--number",
    "numbers",
    metavar="N,...",
    callback=_numbers,
    help="These patches.  [default: those with most landslides, and some without]",
)
@bands_option
def show(folder: Path, output: Path, numbers: tuple[int, ...], bands: tuple[str, ...] | None) -> None:
    """Draw patches of DIR with the outlines of their landslides.

    Above each training patch are its number and the share of its landslides. The patches are in true colours if B4, B3
    and B2 are stored, otherwise the first band is in gray. Nothing in DIR changes.
    """
    from landslide.tiling.contact_sheet import draw_contact_sheet

    click.echo(f"{output}: {draw_contact_sheet(folder, output, bands=bands, numbers=numbers)}")


@data_group.command(epilog="Example: landslide data digest data")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def digest(folder: Path) -> None:
    """Print the version of DIR, as data.dvc would pin it."""
    from landslide.data.digests import directory_digest

    click.echo(directory_digest(folder)[0])


@data_group.command(epilog="Example: landslide data prepare")
def prepare() -> None:
    """Generate ./data if data.dvc pins the demo set and it is missing.

    If ./data exists, say whether it holds the version that data.dvc pins.
    """
    from landslide.data import project

    click.echo(project.prepare(Path.cwd()))


@data_group.command(epilog="Example: landslide data use DIR --bands B4,B3,B2")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@bands_option
def use(folder: Path, bands: tuple[str, ...] | None) -> None:
    """Copy the data set in DIR to ./data and pin it in data.dvc.

    DIR is checked first and stays unchanged. ./data is replaced only if its content can be restored: it must be the
    version that data.dvc pins, and must be in the DVC cache or be the demo set.
    """
    from landslide.data import project

    version = project.check_and_install(Path.cwd(), folder, bands, report_to=click.echo)
    click.echo(f"\n./data is now {version}. To record it:")
    click.echo('  git add data.dvc && git commit -m "Use another data set"')
    if bands is not None:
        click.echo("Name its bands in your configurations, as configs/own_rgb.yaml does:")
        click.echo(f"  bands: {{stored: [{', '.join(bands)}]}}")


@data_group.command(epilog="Example: landslide data pull 9a493a1e846b2972c9b743be42a110f5.dir /tmp/old")
@click.argument("version")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def pull(version: str, folder: Path) -> None:
    """Store the data set of VERSION, a digest, in DIR.

    It comes from ./data, or from the DVC remote.
    """
    from landslide.data import project

    click.echo(project.copy_version(version, folder.resolve(), project=Path.cwd()))
