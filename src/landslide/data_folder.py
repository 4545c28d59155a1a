"""The project's own data folder: `./data`, pinned by `./data.dvc`.

Nothing here ever writes over data that cannot be had again.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from landslide import demo
from landslide.errors import DataError
from landslide.patch_check import check
from landslide.patches import IGNORED_NAMES, directory_digest, file_digest


def pinned_version(pointer: Path) -> str | None:
    """Return the version that a `.dvc` file pins, None where there is no such file.

    Raises:
        DataError: If the file is no DVC pointer.
    """
    if not pointer.is_file():
        return None
    try:
        return str(yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        remedy = f"restore it with `git checkout {pointer.name}`"
        raise DataError(f"{pointer} is not a DVC pointer to a folder", remedy=remedy) from error


def prepare(project: Path) -> str:
    """Bring what `data.dvc` pins to `./data` where that folder is absent.

    Args:
        project: Root of the project.

    Returns:
        What was done, as one line.

    Raises:
        DataError: If the pinned data is not the demo set, which alone can be generated, or comes out different.
    """
    folder, version = project / "data", pinned_version(project / "data.dvc")
    if folder.exists():
        return f"./data is there ({version or 'not pinned'})"
    if version != demo.DEMO_VERSION:
        raise DataError(
            f"./data is absent and data.dvc pins {version or 'nothing'}, which is not the demo set",
            remedy="fetch it with `dvc pull`, or hand over a data set with `landslide data use DIR`",
        )
    demo.generate(folder)
    made = directory_digest(folder)[0]
    if made != version:
        raise DataError(
            f"the generated demo set is {made}, and data.dvc pins {version}",
            remedy="check that src/landslide/demo.py is unchanged, or pin the new set with `dvc add data`",
        )
    if (project / ".git").exists():  # DVC works in a repository only
        _dvc(project, "commit", "--force", "data.dvc")  # into its cache; data.dvc stays as it is
    return f"generated the demo set in ./data ({version})"


def replace(
    project: Path, folder: Path, bands: Sequence[str] | None = None, *, report_to: Callable[[str], None]
) -> str:
    """Copy a data set to `./data` and pin it in `./data.dvc`.

    The data set is checked first and stays as it is. What `./data` holds is replaced only where it can be had
    again: where it is what data.dvc pins, and is in the DVC cache or is the demo set.

    Args:
        project: Root of the project.
        folder: The data set.
        bands: The bands that its images store, where they are not the 14 of Landslide4Sense.
        report_to: Called with the report of the check.

    Returns:
        The version now pinned.

    Raises:
        DataError: If the data set has faults, or `./data` cannot be replaced safely.
    """
    _refuse_unusable_place(folder, project)
    report = check(folder, bands=bands)
    report_to(report.render())
    if not report.ok:
        raise DataError(f"{folder} has {len(report.faults)} fault(s), see above", remedy="mend them first")
    _refuse_to_lose(project)
    with _replaced(project / "data", folder):
        _dvc(project, "add", "data")
    return directory_digest(project / "data")[0]


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
    destination = project / "data"
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    version, digests = directory_digest(destination)
    remedy = "move ./data away, or keep this version with `dvc add data`; then run this again"
    if version != pinned_version(project / "data.dvc"):
        raise DataError("./data holds something else than data.dvc pins; it is left as it is", remedy=remedy)
    if version != demo.DEMO_VERSION and not _in_cache(project, version, digests):
        raise DataError("./data is not (wholly) in the DVC cache; it is left as it is", remedy=remedy)


def _in_cache(project: Path, version: str, digests: dict[str, str]) -> bool:
    """Whether the DVC cache holds the listing of a version and every file of it, undamaged."""
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
