"""The command line: `landslide data demo | check | digest | use`.

Commands import what they need when they run, so that `landslide --help` is quick. Each group of commands is
one `@main.group()` under a heading of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from landslide.errors import DataError, LandslideError

_FOLDER = click.Path(path_type=Path)


class _Group(click.Group):
    """A group whose commands show a LandslideError as one message, without traceback (exit code 1)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LandslideError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.version_option(package_name="landslide")
def main() -> None:
    """Landslide segmentation from Sentinel-2 patches."""


def _band_list(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Validate `--bands B4,B3,B2` against the names of the stored bands."""
    from landslide.patches import ORIGINAL_BANDS

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


# ---- landslide data


@main.group()
def data() -> None:
    """Make, check, identify and hand over data sets."""


@data.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--seed", default=0, show_default=True, help="Another seed is another terrain.")
def demo(folder: Path, seed: int) -> None:
    """Generate a small data set in DIR, which must be empty or not there yet."""
    from landslide.demo import generate

    generate(folder, seed=seed)
    click.echo(f"generated a demo data set in {folder}")


@data.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@_bands_option
def check(folder: Path, as_json: bool, bands: tuple[str, ...] | None) -> None:
    """Check every file of the data set in DIR and report every fault.

    The exit code is 1 when there is a fault; warnings alone leave it 0.
    """
    from landslide.patch_check import check as check_patches

    report = check_patches(folder, bands=bands)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else report.render())
    if not report.ok:
        raise click.exceptions.Exit(1)


@data.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
def digest(folder: Path) -> None:
    """Print the version of DIR, as data.dvc would pin it."""
    from landslide.patches import directory_digest

    click.echo(directory_digest(folder)[0])


@data.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@_bands_option
def use(folder: Path, bands: tuple[str, ...] | None) -> None:
    """Make the data set in DIR the project's own: copy it to ./data and pin it in ./data.dvc.

    DIR is checked first and stays as it is. What ./data holds is replaced only where it can be had again:
    where it is what data.dvc pins, and is in the DVC cache or is the demo set.
    """
    from landslide.patch_check import check as check_patches
    from landslide.patches import directory_digest

    project = Path.cwd()
    _refuse_unusable_place(folder, project)
    report = check_patches(folder, bands=bands)
    click.echo(report.render())
    if not report.ok:
        raise DataError(f"{folder} has {len(report.faults)} fault(s), see above", remedy="mend them first")
    _refuse_to_lose(project)
    with _replaced(project / "data", folder):
        _dvc(project, "add", "data")
    click.echo(f"\n./data is now {directory_digest(project / 'data')[0]}. To record it:")
    click.echo('  git add data.dvc && git commit -m "Use another data set"')


def _refuse_unusable_place(folder: Path, project: Path) -> None:
    destination = project / "data"
    if not (project / ".dvc").is_dir():
        raise DataError(
            f"{project} is not the root of a DVC repository (it has no .dvc folder)",
            remedy="run this in the root of the project",
        )
    source, target = folder.resolve(), destination.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise DataError(
            f"{folder} and {destination} contain one another",
            remedy="give a folder elsewhere; to pin what ./data holds already, run `dvc add data`",
        )
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise DataError(f"{destination} is a link or a file, not a folder", remedy="move it away")


def _refuse_to_lose(project: Path) -> None:
    """Raise unless everything that ./data holds can be had again."""
    from landslide import demo
    from landslide.patches import directory_digest

    destination = project / "data"
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    version, digests = directory_digest(destination)
    remedy = "move ./data away, or keep this version with `dvc add data`; then run this again"
    if version != _pinned_version(project / "data.dvc"):
        raise DataError("./data holds something else than data.dvc pins; it is left as it is", remedy=remedy)
    if version != getattr(demo, "DEMO_VERSION", None) and not _in_cache(project, version, digests):
        raise DataError("./data is not (wholly) in the DVC cache; it is left as it is", remedy=remedy)


def _pinned_version(pointer: Path) -> str | None:
    import yaml

    if not pointer.is_file():
        return None
    try:
        return str(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        remedy = "restore it with `git checkout data.dvc`"
        raise DataError(f"{pointer} is not a DVC pointer to a folder", remedy=remedy) from error


def _in_cache(project: Path, version: str, digests: dict[str, str]) -> bool:
    """Whether the DVC cache holds the listing of a version and every file of it, undamaged."""
    from landslide.patches import file_digest

    cache = Path(_dvc(project, "cache", "dir").strip()) / "files" / "md5"
    objects = {md5: cache / md5[:2] / md5[2:] for md5 in (version.removesuffix(".dir"), *digests.values())}
    listing = version.removesuffix(".dir")
    objects[listing] = objects[listing].with_name(objects[listing].name + ".dir")
    return all(path.is_file() and file_digest(path) == md5 for md5, path in objects.items())


@contextmanager
def _replaced(destination: Path, source: Path) -> Iterator[None]:
    """Put a copy of `source` in the place of `destination`; if the body fails, all is as it was before.

    The copy is made beside the destination and renamed when it is complete, so that a full disk leaves no
    half-written folder.
    """
    from landslide.patches import IGNORED_NAMES

    with tempfile.TemporaryDirectory(prefix=".data-", dir=destination.parent) as workplace:
        copy, previous = Path(workplace, "copy"), Path(workplace, "previous")
        try:
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*IGNORED_NAMES))
        except OSError as error:
            remedy = "make room on the disk, then run this again; ./data is as it was"
            raise DataError(f"{source} could not be copied: {error}", remedy=remedy) from error
        if destination.exists():
            destination.rename(previous)
        try:
            copy.rename(destination)
            yield
        except BaseException:
            if destination.exists():
                destination.rename(copy)
            if previous.exists():
                previous.rename(destination)
            raise


def _dvc(project: Path, *arguments: str) -> str:
    """Run DVC in the project and return what it prints."""
    command = [sys.executable, "-m", "dvc", *arguments]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        what = f"`dvc {' '.join(arguments)}` failed: {done.stderr.strip() or done.stdout.strip()}"
        raise DataError(what, remedy="mend what DVC complains about, then run this again")
    return done.stdout
