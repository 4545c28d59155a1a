"""`landslide data demo | fetch | check | digest | prepare | use | pull`."""

import json
from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(path_type=Path)


def _band_list(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Validate `--bands B4,B3,B2` against the names of the stored bands."""
    from landslide.schema import ORIGINAL_BANDS

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in ORIGINAL_BANDS]:
        raise click.BadParameter(f"unknown band {unknown[0]!r}; there are {', '.join(ORIGINAL_BANDS)}")
    if len(set(names)) < len(names):
        raise click.BadParameter(f"a band occurs twice in {text}")
    return names


_bands_option = click.option(
    "--bands",
    metavar="B4,B3,B2",
    callback=_band_list,
    help="The bands of the images in stored order, where they are not the 14 of Landslide4Sense.",
)


@click.group("data")
def data_group() -> None:
    """Make, check, identify and hand over data sets."""


@data_group.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--seed", default=0, show_default=True, help="Another seed is another terrain.")
def demo(folder: Path, seed: int) -> None:
    """Generate a small data set in DIR, which must be empty or not there yet."""
    from landslide.data.demo import generate

    generate(folder, seed=seed)
    click.echo(f"generated a demo data set in {folder}")


@data_group.command()
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
    """Download the official Landslide4Sense set, check it, and pin it as ./data; or put it to DIR, unpinned.

    If it is interrupted, the same command resumes.
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


@data_group.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@_bands_option
def check(folder: Path, as_json: bool, bands: tuple[str, ...] | None) -> None:
    """Check every file of the data set in DIR and report every fault.

    The exit code is 1 when there is a fault; warnings alone leave it 0.
    """
    from landslide.data.check import check as check_patches

    report = check_patches(folder, bands=bands)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.render())
    if not report.ok:
        raise click.exceptions.Exit(1)


@data_group.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
def digest(folder: Path) -> None:
    """Print the version of DIR, as data.dvc would pin it."""
    from landslide.data.digests import directory_digest

    click.echo(directory_digest(folder)[0])


@data_group.command()
def prepare() -> None:
    """Bring what data.dvc pins to ./data: nothing to do where it is, generated where it is the demo set."""
    from landslide.data import project

    click.echo(project.prepare(Path.cwd()))


@data_group.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@_bands_option
def use(folder: Path, bands: tuple[str, ...] | None) -> None:
    """Make the data set in DIR the project's own: copy it to ./data and pin it in ./data.dvc.

    DIR is checked first and stays as it is. What ./data holds is replaced only where it can be had again:
    where it is what data.dvc pins, and is in the DVC cache or is the demo set.
    """
    from landslide.data import project

    version = project.replace(Path.cwd(), folder, bands, report_to=click.echo)
    click.echo(f"\n./data is now {version}. To record it:")
    click.echo('  git add data.dvc && git commit -m "Use another data set"')


@data_group.command()
@click.argument("version")
@click.argument("folder", metavar="DIR", type=_FOLDER)
def pull(version: str, folder: Path) -> None:
    """Bring the data set of exactly this VERSION (its digest) to DIR: from ./data, or from the DVC remote."""
    from landslide.data import project

    click.echo(project.copy_version(version, folder.resolve(), project=Path.cwd()))
