"""Data sets by version from the DVC remote, for fresh clones, runners and pods.

A folder is pulled next to its destination, verified, and renamed, so the destination never holds half a data set.
"""

import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from landslide.data.digests import directory_digest, file_digest
from landslide.data.dvc_command import is_installed, repository_of, run_dvc, without_credentials
from landslide.errors import DataError, RemoteError, first_few

logger = logging.getLogger(__name__)


def pull(version: str, destination: Path, *, project: Path) -> None:
    """Pull the data set of a version.

    In a git checkout the files also go through the project's DVC cache, whose damaged objects are discarded and fetched
    again; elsewhere no other copy is kept.

    Args:
        version: Digest of the folder as `data.dvc` pins it.
        destination: Folder to create; missing or empty. If another process creates it meanwhile, that copy stays.
        project: Folder whose `.dvc/config` (and `config.local`) names the remote.

    Raises:
        RemoteError: If there is no remote, it does not answer, or it lacks a file; the message names the remote.
    """
    settings = _settings(project)
    if (project / ".git").exists():
        discard_damaged(project, version)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=destination.parent) as temporary:
        workspace = Path(temporary)
        _write_workspace(workspace, settings, version, project)
        remote = settings.get("core.remote")
        try:
            run_dvc(workspace, "pull" if remote else "checkout", "data.dvc")
        except DataError as error:
            raise _not_pulled(version, settings, error) from error
        found = directory_digest(workspace / "data")[0]
        if found != version:
            raise DataError(
                f"the remote {_describe(settings)} gave {found} for {version}",
                remedy="push the data set again with `dvc push`",
            )
        try:
            (workspace / "data").rename(destination)
        except OSError:
            if not destination.is_dir() or directory_digest(destination)[0] != version:
                raise


def cache_folder(project: Path) -> Path:
    """Return the folder of the objects in the DVC cache of a project."""
    return Path(run_dvc(project, "cache", "dir").strip()) / "files" / "md5"


def is_cached(cache: Path, md5: str) -> bool:
    """Return whether a cache holds an object undamaged."""
    path = _object(cache, md5)
    return path.is_file() and file_digest(path) == md5.removesuffix(".dir")


def damaged_objects(project: Path, version: str) -> dict[str, Path]:
    """Find the objects of a version in the DVC cache whose content has changed.

    DVC itself trusts its objects. One that is linked to a file changes with it, and DVC then restores the change.

    Args:
        project: A folder in a DVC repository; without one, or without DVC, there is no cache.
        version: Digest of a data set.

    Returns:
        The objects by the path of their file in the data set; the listing of the files is ".".
    """
    if repository_of(project) is None or not is_installed():
        return {}
    cache = cache_folder(project)
    listing = _object(cache, version)
    if not listing.is_file():
        return {}
    if not is_cached(cache, version):
        return {".": listing}
    files = {entry["relpath"]: entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8"))}
    sound = {md5: is_cached(cache, md5) or not _object(cache, md5).exists() for md5 in set(files.values())}
    return {path: _object(cache, md5) for path, md5 in files.items() if not sound[md5]}


def discard_damaged(project: Path, version: str) -> None:
    """Delete the objects that `damaged_objects` finds, so that DVC fetches or stores them again."""
    damaged = damaged_objects(project, version)
    for path in set(damaged.values()):
        path.unlink()
    if damaged:
        logger.warning(
            "Deleted from DVC's cache, because they no longer match their digests: the objects of %s.",
            first_few(sorted(damaged)),
        )


def _object(cache: Path, md5: str) -> Path:
    return cache / md5[:2] / md5[2:]


@contextmanager
def newest(repository: str, revision: str, *, name: str = "data") -> Iterator[tuple[Path, str]]:
    """Look up the data version that the newest commit of a git repository pins.

    Args:
        repository: Address or path of the repository.
        revision: Branch or tag.
        name: Name of the pinned folder; the pin is `<name>.dvc` in the root.

    Yields:
        A temporary folder with the files of the commit, including the configuration of the remote, and the text of
        the pin.

    Raises:
        RemoteError: If the repository cannot be read.
        DataError: If it has no pin.
    """
    shown = without_credentials(repository)
    with tempfile.TemporaryDirectory(prefix="landslide-pin-") as temporary:
        address = Path(repository).resolve().as_uri() if Path(repository).is_dir() else repository
        command = ["git", "clone", "--quiet", "--depth", "1", "--branch", revision, "--", address, temporary]
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RemoteError(
                f"{revision} of {shown} cannot be cloned: {without_credentials(done.stderr.strip())}",
                remedy="check data.repository and data.revision, and that this machine may read the repository",
            )
        pin = Path(temporary, f"{name}.dvc")
        if not pin.is_file():
            raise DataError(
                f"{revision} of {shown} has no {name}.dvc",
                remedy=f"pin the data set there with `dvc add {name}`, and commit {name}.dvc",
            )
        # Without .git it is no checkout: pulled files must not link into a cache that is deleted with this folder.
        shutil.rmtree(Path(temporary, ".git"))
        yield Path(temporary), pin.read_text()


def _settings(project: Path) -> dict[str, str]:
    """Return the effective DVC settings of a project, with absolute paths: value by dotted name."""
    lines = run_dvc(project, "config", "--list").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _write_workspace(workspace: Path, settings: Mapping[str, str], version: str, project: Path) -> None:
    """Make a DVC repository without git that pins one version, with the remotes and the cache of the project."""
    sections: dict[str, dict[str, str]] = {"core": {"no_scm": "true", "analytics": "false", "check_update": "false"}}
    if remote := settings.get("core.remote"):
        sections["core"]["remote"] = remote
    if (project / ".git").exists():
        cache = settings.get("cache.dir") or str((project / ".dvc" / "cache").resolve())
        sections["cache"] = {"dir": cache, "type": settings.get("cache.type", "reflink,copy")}
    else:  # the cache is deleted with the workspace, and files of equal content must not share an inode
        sections["cache"] = {"type": "reflink,copy"}
    for name, value in settings.items():
        if name.startswith("remote."):
            section, key = name.removeprefix("remote.").rsplit(".", 1)
            sections.setdefault(f"'remote \"{section}\"'", {})[key] = value
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"    {key} = {_quoted(value)}" for key, value in values.items())]
    (workspace / ".dvc").mkdir()
    (workspace / ".dvc" / "config").write_text("\n".join(lines) + "\n")
    pin = {"outs": [{"md5": version, "hash": "md5", "path": "data"}]}
    (workspace / "data.dvc").write_text(yaml.safe_dump(pin))


def _quoted(value: str) -> str:
    """Quote a value for DVC's configuration, which has no escapes."""
    return f"'{value}'" if '"' in value else f'"{value}"'


def _describe(settings: Mapping[str, str]) -> str:
    name = settings.get("core.remote", "")
    return f"{name} ({without_credentials(settings.get(f'remote.{name}.url', 'no such remote'))})"


def _not_pulled(version: str, settings: Mapping[str, str], error: DataError) -> RemoteError:
    if "core.remote" not in settings:
        return RemoteError(
            f"version {version} is not in DVC's cache, and no remote is configured",
            remedy="name the remote with `dvc remote add --default NAME URL` and commit .dvc/config "
            "(docs/how-to/share-data-with-dvc.md)",
        )
    return RemoteError(
        f"version {version} could not be pulled from the remote {_describe(settings)}: {error.what}",
        remedy="check that the remote answers, that its credentials are set, and that whoever committed this "
        "version also ran `dvc push` (docs/how-to/share-data-with-dvc.md)",
    )
