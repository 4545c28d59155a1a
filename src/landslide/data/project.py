"""The project's own data folder: `./data`, pinned by `./data.dvc`.

No function here overwrites data that cannot be restored.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from landslide.data import demo
from landslide.data.check import check
from landslide.data.digests import IGNORED_NAMES, directory_digest, file_digest
from landslide.data.dvc import newest, pull, run_dvc
from landslide.errors import DataError


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


def prepare(project: Path) -> str:
    """Create `./data` with the version that `data.dvc` pins, if the folder is missing.

    Args:
        project: Root of the project.

    Returns:
        A report in one line.

    Raises:
        DataError: If the pinned version is not the demo set, the only one that can be generated, or if the generated
            set differs from it.
    """
    folder, version = project / "data", pinned_version(project / "data.dvc")
    if folder.exists():
        return f"./data exists ({version or 'not pinned'})"
    if version != demo.DEMO_VERSION:
        raise DataError(
            f"./data is absent and data.dvc pins {version or 'nothing'}, which is not the demo set",
            remedy="run `dvc pull data.dvc`, or `landslide data fetch` if it is the official set, or use another set "
            "with `landslide data use DIR`",
        )
    _generate_demo(folder)
    if (project / ".git").exists():  # DVC works in a repository only
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
        _refuse_to_lose_files(project, folder, copy)
        with _swapped(folder, copy):
            pass
    return f"{folder} is now {version}"


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
    """
    _refuse_unusable_place(folder, project)
    report = check(folder, bands=bands)
    report_to(report.render())
    if not report.ok:
        raise DataError(f"{folder} has {len(report.faults)} fault(s), see above", remedy="correct them first")
    return install_and_pin(project, folder)


def install_and_pin(project: Path, folder: Path, *, keep: bool = True) -> str:
    """Install a checked data set as `./data` and pin it in `./data.dvc`.

    Args:
        project: Root of the project.
        folder: The data set. Without `keep` it must be on the disk of the project, without a `previous` next to it.
        keep: If true, the folder is copied. If false, it is moved and its files are hard-linked to DVC's cache, which
            saves disk; if that fails, the folder stays.

    Returns:
        The version now pinned.

    Raises:
        DataError: If `./data` cannot be replaced safely.
    """
    refuse_unless_replaceable(project, folder)
    with (_replaced if keep else _swapped)(project / "data", folder):
        pin(project, link=not keep)
    return directory_digest(project / "data")[0]


def pin(project: Path, *, link: bool = False) -> None:
    """Pin the content of `./data` in `data.dvc`.

    Args:
        project: Root of the project.
        link: Link the files to DVC's cache instead of leaving that to DVC.
    """
    if link:
        _link_to_cache(project)
    run_dvc(project, "add", "data")


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
    if version != pinned_version(project / "data.dvc"):
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
    cache = _cache(project) if in_git else None
    lost = [path for path, md5 in digests.items() if md5 not in kept and not (cache and _is_cached(cache, md5))]
    if lost:
        shown = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        raise DataError(
            f"{len(lost)} file(s) of {folder} exist nowhere else ({shown}); the folder is unchanged",
            remedy=f"pin them with `dvc add {folder.name}` and commit {folder.name}.dvc, or move them away; then run "
            "this again",
        )


def _cache(project: Path) -> Path:
    return Path(run_dvc(project, "cache", "dir").strip()) / "files" / "md5"


def _is_cached(cache: Path, md5: str) -> bool:
    """Whether DVC's cache holds a file undamaged."""
    path = cache / md5[:2] / md5[2:]
    return path.is_file() and file_digest(path) == md5.removesuffix(".dir")


def _in_cache(project: Path, version: str, digests: dict[str, str]) -> bool:
    """Whether the DVC cache holds the listing of a version and every file of it, undamaged."""
    cache = _cache(project)
    return all(_is_cached(cache, md5) for md5 in (version, *digests.values()))


def _link_to_cache(project: Path) -> None:
    """Add the files of ./data to DVC's cache by hard links, if both are on one disk.

    `dvc add` would copy them if the file system has no reflinks. Linked files are read-only.
    """
    cache = _cache(project)
    for path, md5 in directory_digest(project / "data")[1].items():
        cached = cache / md5[:2] / md5[2:]
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            try:
                cached.hardlink_to(project / "data" / path)
            except OSError:  # another disk, or a file system without links: then `dvc add` copies
                return
            cached.chmod(0o444)


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
    """Rename a folder to its destination and the old one to `previous`; undo both if the body fails."""
    previous = copy.with_name("previous")
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
