"""The project's own data folder: `./data`, pinned by `./data.dvc`.

No function here overwrites data that cannot be restored.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from landslide.data import demo
from landslide.data.check import check
from landslide.data.digests import IGNORED_NAMES, directory_digest, ignored_files
from landslide.data.dvc import cache_folder, damaged_objects, discard_damaged, is_cached, newest, pull
from landslide.data.dvc_command import run_dvc
from landslide.data.patches import Finding
from landslide.errors import DataError, first_few
from landslide.locks import locked
from landslide.paths import home
from landslide.schema import LABEL_CHANGES


def pinned_version(pointer: Path) -> str | None:
    """Return the version that a `.dvc` file pins, None if there is no such file.

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


def check_pin(root: Path, version: str) -> None:
    """Compare a data folder with its DVC pin.

    Args:
        root: The data folder.
        version: Its digest.

    Raises:
        DataError: If `<root>.dvc` exists and pins another version.
    """
    pin = root.with_name(f"{root.name}.dvc")
    pinned = pinned_version(pin)
    if pinned in (None, version):
        return
    what = f"{root} holds version {version}, and {pin.name} pins {pinned}."
    back = f"bring the pinned data back with `dvc checkout {pin.name}`"
    if damaged := damaged_objects(root.parent, pinned):
        what += (
            f" DVC's cache cannot restore that version, because {len(damaged)} of its objects no longer match their "
            f"digests: {first_few(sorted(damaged))}. Probably linked files were changed in place."
        )
        back = f"move {root} away and get the pinned data again with `landslide data pull {pinned} {root}`"
    raise DataError(what, remedy=f"Pin the new data with `dvc add {root.name}`, or {back}.")


def cache_warnings(folder: Path) -> list[Finding]:
    """Return a warning about damaged objects of a data folder in DVC's cache, if `<folder>.dvc` pins a version."""
    version = pinned_version(folder.with_name(f"{folder.name}.dvc"))
    damaged = damaged_objects(folder.parent, version) if version else {}
    if version is None or not damaged:
        return []
    message = (
        f"{len(damaged):,} objects of the pinned version in DVC's cache no longer match their digests "
        f"({first_few(sorted(damaged))}): `dvc checkout` would restore damaged files, and `dvc push` would send them"
    )
    remedy = f"`landslide data pull {version} DIR` deletes them and gets the version again"
    return [Finding(".", "damaged_cache", message, remedy)]


def prepare(project: Path) -> str:
    """Create `./data` with the version that `data.dvc` pins, if the folder is missing or empty.

    Args:
        project: Root of the project.

    Returns:
        A report in one line; of an existing folder, whether it holds the pinned version.

    Raises:
        DataError: If the pinned version is not the demo set, the only one that can be generated, or if the generated
            set differs from it.
    """
    folder = project / "data"
    if _is_missing(folder):
        with locked(home() / "prepare-data.lock"):  # two first runs in one checkout: the second waits
            if _is_missing(folder):
                return _create_pinned(project)
    found, version = directory_digest(folder)[0], pinned_version(project / "data.dvc")
    if found == version:
        return f"./data holds the version that data.dvc pins ({version})"
    if version is None:
        return f"./data holds {found}; it is not pinned"
    return f"./data holds {found}; data.dvc pins another version, {version}. Nothing was changed"


def _is_missing(folder: Path) -> bool:
    """Whether there is no folder, or an empty one."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _create_pinned(project: Path) -> str:
    folder, version = project / "data", pinned_version(project / "data.dvc")
    if version != demo.DEMO_VERSION:
        raise DataError(
            f"there is no data set in ./data, and data.dvc pins {version or 'nothing'}, which is not the demo set",
            remedy="run `dvc pull data.dvc`, or `landslide data fetch` if it is the official set, or use another set "
            "with `landslide data use DIR`",
        )
    _generate_demo(folder)
    if (project / ".git").exists():  # DVC works in a repository only
        discard_damaged(project, version)
        run_dvc(project, "commit", "--force", "data.dvc")  # into its cache; data.dvc stays as it is
    return f"generated the demo set in ./data ({version})"


def update_from_remote(
    project: Path, repository: str | None = None, *, revision: str = "main", name: str = "data"
) -> str:
    """Bring the data folder to the pinned version, from the DVC remote.

    If the folder already holds that version, the remote is not contacted. Otherwise the folder is replaced as a whole,
    after the new data set is complete next to it, and only if everything in it can be restored.

    Args:
        project: Folder that holds the data folder and its pin `<name>.dvc`; the remote is in its `.dvc/config`.
        repository: Without a checkout, for example in a container: git repository whose newest commit has the pin and
            the configuration of the remote. The pin is then written to the project.
        revision: Branch or tag of that repository.
        name: Name of the data folder.

    Returns:
        A report in one line.

    Raises:
        DataError: If nothing is pinned, the remote lacks the version, or local files would be lost.
    """
    pin = project / f"{name}.dvc"
    if repository is None:
        version = pinned_version(pin)
        if version is None:
            raise DataError(
                f"there is no {pin}", remedy=f"pin the data set with `dvc add {name}` and commit {pin.name}"
            )
        return _generate_or_pull(project, name, version, remote_of=project)
    if (project / ".git").exists():
        raise DataError(
            f"{project} is a git checkout, and data.repository would change its {pin.name}",
            remedy="take the newest pin with `git pull` and leave data.repository out",
        )
    with newest(repository, revision, name=name) as (clone, text):
        local = project / ".dvc" / "config.local"
        if local.is_file():  # credentials are never in git
            shutil.copy2(local, clone / ".dvc")
        version = pinned_version(clone / pin.name)
        assert version is not None
        done = _generate_or_pull(project, name, version, remote_of=clone)
    pin.write_text(text)
    return done


def create_version(version: str, destination: Path, *, project: Path) -> None:
    """Create a folder with a version: generate the demo set, pull any other version from the remote.

    Args:
        version: Digest of the data set.
        destination: Folder to create. It appears when it is complete; another process may create it meanwhile.
        project: Folder whose `.dvc/config` names the remote.

    Raises:
        DataError: If the remote lacks the version.
    """
    if version != demo.DEMO_VERSION:
        pull(version, destination, project=project)
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=destination.parent) as work_folder:
        _generate_demo(Path(work_folder, "data"))
        if not destination.exists():
            Path(work_folder, "data").rename(destination)


def copy_version(version: str, destination: Path, *, project: Path) -> str:
    """Create another folder with a version: a copy of `./data` if it holds that version, otherwise as `create_version`.

    Args:
        version: Digest of the data set.
        destination: Folder to create, or one that already holds that version.
        project: Root of the project.

    Returns:
        A report in one line.

    Raises:
        DataError: If the destination holds something else, or the version is unavailable.
    """
    if destination.is_dir() and any(destination.iterdir()):
        found = directory_digest(destination)[0]
        if found != version:
            raise DataError(f"{destination} holds {found}, not {version}", remedy="give another folder")
        return f"{destination} exists ({version})"
    data = project / "data"
    discard_damaged(project, version)
    if not data.is_dir() or directory_digest(data)[0] != version:
        create_version(version, destination, project=project)
        return f"{destination} is now {version}"
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _replaced(destination, data):
        return f"{destination} is now {version}, a copy of {data}"


def _generate_demo(folder: Path) -> None:
    demo.generate(folder)
    made = directory_digest(folder)[0]
    if made != demo.DEMO_VERSION:
        raise DataError(
            f"the generated demo set is {made}, and data.dvc pins {demo.DEMO_VERSION}",
            remedy="check that src/landslide/data/demo.py is unchanged, or pin the new set with `dvc add data`",
        )


def _generate_or_pull(project: Path, name: str, version: str, *, remote_of: Path) -> str:
    """Bring the data folder to this version."""
    folder = project / name
    if folder.is_dir() and directory_digest(folder)[0] == version:
        return f"{folder} exists ({version})"
    with tempfile.TemporaryDirectory(prefix=".data-", dir=project) as work_folder:
        copy = Path(work_folder, "copy")
        create_version(version, copy, project=remote_of)
        with replacing(project, wait=True):
            if folder.is_dir() and directory_digest(folder)[0] == version:  # another process was quicker
                return f"{folder} exists ({version})"
            _refuse_to_lose_files(project, folder, copy)
            with _swapped(folder, copy):
                pass
    return f"{folder} is now {version}"


def refuse_missing(folder: Path) -> None:
    """Raise if a data set's folder does not exist.

    Raises:
        DataError: With the path as it was given.
    """
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        remedy = "give the folder that holds TrainData/, or images/ and annotations/"
        raise DataError(f"{folder} does not exist", remedy=remedy) from error
    except OSError:
        return  # it is there, and what hides it is for the check to say


def check_and_install(
    project: Path, folder: Path, bands: Sequence[str] | None = None, *, report_to: Callable[[str], None]
) -> str:
    """Copy a data set to `./data` and pin it in `./data.dvc`.

    The data set is checked first and stays unchanged. `./data` is replaced only if its content can be restored: it must
    be the version that data.dvc pins, and must be in the DVC cache or be the demo set.

    Args:
        project: Root of the project.
        folder: The data set.
        bands: The bands of its images, if they are not the 14 of Landslide4Sense.
        report_to: Called with the report of the check.

    Returns:
        The version now pinned.

    Raises:
        DataError: If the data set has faults, or `./data` cannot be replaced safely.
        LockedError: If another process replaces it.
    """
    _refuse_unusable_place(folder, project)
    refuse_missing(folder)
    report = check(folder, bands=bands)
    report_to(report.render())
    if not report.ok:
        raise DataError(f"{folder} has {len(report.faults)} fault(s), see above", remedy="correct them first")
    with replacing(project):
        if note := forgotten_changes(project, folder):
            report_to(note)
        return install_and_pin(project, folder)


@contextmanager
def replacing(project: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from replacing `./data` while the block does.

    Args:
        project: Root of the project.
        wait: Wait for another process that replaces it.

    Raises:
        LockedError: Another process replaces it, unless `wait`.
    """
    with locked(project / ".data.lock", wait=wait):
        yield


def forgotten_changes(project: Path, folder: Path) -> str:
    """Return a note if labels of `./data` were changed after an audit, and those of its successor were not.

    Args:
        project: Root of the project.
        folder: The successor.

    Returns:
        The note; empty if nothing is forgotten.
    """
    now, then = (root / LABEL_CHANGES for root in (project / "data", folder))
    if not now.is_file() or (then.is_file() and then.read_bytes().startswith(now.read_bytes())):
        return ""
    return f"note: labels of ./data were changed after an audit, and {folder} does not have all these changes"


def install_and_pin(project: Path, folder: Path, *, keep: bool = True) -> str:
    """Install a checked data set as `./data` and pin it in `./data.dvc`; the caller holds `replacing`.

    Args:
        project: Root of the project.
        folder: The data set. Without `keep` it must be on the disk of the project, without a `previous` next to it.
        keep: If true, the folder is copied. If false, it is moved; if that fails, it stays.

    Returns:
        The version now pinned.

    Raises:
        DataError: If `./data` cannot be replaced safely.
    """
    refuse_unless_replaceable(project, folder)
    with (_replaced if keep else _swapped)(project / "data", folder):
        run_dvc(project, "add", "data")
    return directory_digest(project / "data")[0]


def refuse_unless_replaceable(project: Path, successor: Path) -> None:
    """Raise unless `./data` may be replaced by another folder.

    Args:
        project: Root of the project.
        successor: The folder that will replace it; it may not exist yet.

    Raises:
        DataError: If it may not be replaced, with the reason.
    """
    _refuse_unusable_place(successor, project)
    _refuse_to_lose(project)


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
            f"one of {folder} and {destination} is inside the other",
            remedy="give a folder elsewhere; to pin what ./data holds already, run `dvc add data`",
        )
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise DataError(f"{destination} is a link or a file, not a folder", remedy="move it away")


def _refuse_to_lose(project: Path) -> None:
    """Raise unless the whole content of ./data can be restored."""
    destination = project / "data"
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    version, digests = directory_digest(destination)
    remedy = "move ./data away, or keep this version with `dvc add data`; then run this again"
    if (pinned := pinned_version(project / "data.dvc")) is None:
        raise DataError("./data is not pinned in data.dvc; it is unchanged", remedy=remedy)
    if version != pinned:
        raise DataError("./data differs from the version that data.dvc pins; it is unchanged", remedy=remedy)
    if version != demo.DEMO_VERSION and not _in_cache(project, version, digests):
        raise DataError("./data is not (completely) in the DVC cache; it is unchanged", remedy=remedy)


def _refuse_to_lose_files(project: Path, folder: Path, successor: Path) -> None:
    """Raise unless every file of a data folder is in its successor, in DVC's cache, or can be restored otherwise."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    version, digests = directory_digest(folder)
    in_git = (project / ".git").exists()
    if version == demo.DEMO_VERSION or (not in_git and version == pinned_version(project / f"{folder.name}.dvc")):
        return  # without a checkout, the pinned version came from the remote
    kept = set(directory_digest(successor)[1].values())
    cache = cache_folder(project) if in_git else None
    lost = [path for path, md5 in digests.items() if md5 not in kept and not (cache and is_cached(cache, md5))]
    if lost:
        shown = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        raise DataError(
            f"{len(lost)} file(s) of {folder} exist nowhere else ({shown}); the folder is unchanged",
            remedy=f"pin them with `dvc add {folder.name}` and commit {folder.name}.dvc, or move them away; then run "
            "this again",
        )


def _in_cache(project: Path, version: str, digests: dict[str, str]) -> bool:
    """Whether the DVC cache holds the listing of a version and every file of it, undamaged."""
    cache = cache_folder(project)
    return all(is_cached(cache, md5) for md5 in (version, *digests.values()))


@contextmanager
def _replaced(destination: Path, source: Path) -> Iterator[None]:
    """Replace `destination` by a copy of `source`; if the body fails, everything is restored.

    The copy is made next to the destination and renamed when it is complete, so a full disk leaves no half-written
    folder.
    """
    with tempfile.TemporaryDirectory(prefix=".data-", dir=destination.parent) as work_folder:
        copy = Path(work_folder, "copy")
        try:
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns(*IGNORED_NAMES))
        except OSError as error:
            remedy = "make room on the disk, then run this again; ./data is unchanged"
            raise DataError(f"{source} could not be copied: {error}", remedy=remedy) from error
        with _swapped(destination, copy):
            yield


@contextmanager
def _swapped(destination: Path, copy: Path) -> Iterator[None]:
    """Rename a folder to its destination and the old one to `previous`; undo both if the body fails.

    Files of the old folder that are not part of the data set, because `.dvcignore` lists them, move to the new one.
    """
    previous = copy.with_name("previous")
    unpinned = ignored_files(destination) if destination.is_dir() else frozenset()
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
    for path in unpinned:
        if not os.path.lexists(destination / path):
            (destination / path).parent.mkdir(parents=True, exist_ok=True)
            (previous / path).rename(destination / path)
