"""Fetching the official data set: download, unpack, check, put in place.

Everything happens in `.<destination>-fetch/<source>` beside the destination, on the same disk, so that nothing is
copied: an archive is deleted once it is unpacked, and the data set is moved into its place when it is whole.

    <archive>.zip.part      what has arrived of an archive
    set/                    what is unpacked (Zenodo) or has arrived (Hugging Face) so far
    pinning                 a mark: the set is being moved to ./data and pinned
    previous/               what was in ./data before, until then
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from tqdm.auto import tqdm

from landslide import __version__
from landslide.data.archive import unpack
from landslide.data.check import check
from landslide.data.download import RemoteFile, disk_error, download, gigabytes, part_of, size_of
from landslide.data.dvc import run_dvc, without_credentials
from landslide.data.landslide4sense import (
    LANDSLIDE4SENSE,
    PATCH_BYTES,
    SERVERS,
    SPLITS,
    Archive,
    Release,
    Source,
    holds,
    huggingface_files,
    zenodo_files,
)
from landslide.data.project import hand_over, pin, pinned_version, refuse_unless_replaceable
from landslide.errors import DataError, LockedError
from landslide.locks import locked
from landslide.schema import LAYOUTS, Split

# Connections at once where the data set is ten thousand small files.
_CONNECTIONS = 8


def fetch(
    destination: Path,
    *,
    pin_in: Path | None = None,
    splits: Collection[Split] = SPLITS,
    source: Source = "zenodo",
    server: str | None = None,
    keep_archives: bool = False,
    release: Release = LANDSLIDE4SENSE,
    report_to: Callable[[str], object] = lambda text: None,
) -> str:
    """Bring the official data set to a folder; started again, it goes on where it was stopped.

    Args:
        destination: Where it goes; absent, empty, or (when pinned) replaceable as `data_folder.replace` says.
        pin_in: Root of the project whose `./data` the destination is, to be pinned in `data.dvc`; None pins nothing.
        splits: Which splits.
        source: Which of the public copies.
        server: Address of a mirror with the same paths.
        keep_archives: Keep the archives beside the destination.
        release: What was published.
        report_to: Called with what is worth telling, and with the report of the check.

    Returns:
        What was done, as one line.

    Raises:
        RemoteError: If the server does not give the files.
        DataError: If the disk is too small, a file is not the published one, the data set has faults, or something
            is in the way at the destination.
    """
    work_folder = destination.with_name(f".{destination.name}-fetch") / source
    if holds(destination, splits, release):
        return _finish(destination, pin_in, work_folder)
    staged = work_folder / "set"
    _refuse_occupied(destination, pin_in, splits, staged)
    server = (server or SERVERS[source]).rstrip("/")
    try:
        staged.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(staged, error) from error
    with _alone(work_folder), _session() as session:
        if source == "zenodo":
            _fetch_archives(zenodo_files(session, server, splits, release), staged, release, keep_archives, report_to)
        else:
            _fetch_files(huggingface_files(session, server, splits, release), staged)
        _leave_out_other_splits(staged, splits)
        _refuse_faults(staged, splits, report_to)
        done = f"{destination} is now the official data set ({', '.join(splits)})"
        if pin_in is None:
            staged.rename(destination)
        else:
            shutil.rmtree(work_folder / "previous", ignore_errors=True)  # of a run that was killed
            (work_folder / "pinning").touch()
            done += f", version {hand_over(pin_in, staged, keep=False)}"
        return done + _tidy(work_folder, keep_archives)


def _finish(destination: Path, pin_in: Path | None, work_folder: Path) -> str:
    """Say that the data set is there; pin it if a run was killed before it had done so."""
    there = f"{destination} holds the official data set already"
    if pin_in is None or _is_pinned(pin_in):
        return there
    if not (work_folder / "pinning").exists() or (work_folder / "set").exists():
        remedy = "pin what is there with `dvc add data`"
        raise DataError(f"{there}, but that is not what data.dvc pins", remedy=remedy)
    with _alone(work_folder):
        pin(pin_in, link=True)
        return f"{there}; data.dvc pins it now" + _tidy(work_folder, keep_archives=True)


def _is_pinned(project: Path) -> bool:
    """Whether DVC finds ./data as data.dvc pins it; it remembers files that did not change."""
    if pinned_version(project / "data.dvc") is None:
        return False
    return bool(json.loads(run_dvc(project, "status", "--json", "data.dvc")) == {})


def _refuse_occupied(destination: Path, pin_in: Path | None, splits: Collection[Split], staged: Path) -> None:
    """Raise before anything is downloaded unless it can be put in place afterwards."""
    if pin_in is not None:
        if "train" not in splits:
            raise DataError(
                "./data is what models are trained on, and the training split is not asked for",
                remedy="give a folder for the other splits: landslide data fetch DIR --split test",
            )
        refuse_unless_replaceable(pin_in, staged)
    elif os.path.lexists(destination) and not (destination.is_dir() and not any(destination.iterdir())):
        raise DataError(
            f"{destination} is there already and is not an empty folder", remedy="choose a new folder, or move it away"
        )


@contextmanager
def _alone(work_folder: Path) -> Iterator[None]:
    """Keep other processes out of the work folder."""
    try:
        with locked(work_folder / ".lock", wait=False):
            yield
    except LockedError as error:
        raise DataError(f"another process is fetching to {work_folder}", remedy=error.remedy) from error


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = f"landslide/{__version__}"
    return session


def _bar(name: str, total: int | None, initial: int = 0) -> "tqdm[Any]":
    return tqdm(desc=name, total=total, initial=initial, unit="B", unit_scale=True, disable=None)


def _fetch_archives(
    files: Mapping[Archive, RemoteFile],
    staged: Path,
    release: Release,
    keep: bool,
    report_to: Callable[[str], object],
) -> None:
    """Download and unpack one archive after another, so that no two of them lie beside what they hold."""
    missing = {one: file for one, file in files.items() if not (staged / LAYOUTS[0][one.split][0]).is_dir()}
    _refuse_small_disk(staged, _needed_for_archives(missing, staged, release, keep))
    for one, file in missing.items():
        path = staged.with_name(one.name)
        report_to(f"{one.name} ({gigabytes(file.size or one.size)}) from {without_credentials(file.url)}")
        with _session() as session, _bar(one.name, file.size, size_of(part_of(path))) as bar:
            download(session, file, path, arrived=bar.update)
        with _bar(f"unpacking {one.name}", release.patches[one.split] * PATCH_BYTES) as bar:
            others = unpack(path, one.split, staged, n_patches=release.patches[one.split], unpacked=bar.update)
        if others:
            report_to(f"{one.name}: left out {len(others)} file(s) that are no patches, such as {others[0]}")
        if not keep:
            path.unlink()


def _needed_for_archives(files: Mapping[Archive, RemoteFile], staged: Path, release: Release, keep: bool) -> int:
    """Return the bytes that the disk needs at the worst moment."""
    used = worst = 0
    for one, file in files.items():
        path = staged.with_name(one.name)
        there = max(size_of(path), size_of(part_of(path)))
        arriving = max((file.size or one.size) - there, 0)
        unpacked = release.patches[one.split] * PATCH_BYTES
        worst = max(worst, used + arriving + unpacked)
        used += unpacked + (arriving if keep else -there)
    return worst


def _refuse_small_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"fetching needs {gigabytes(needed)} on the disk of {folder}, and {gigabytes(free)} are free",
            remedy="make room, fetch fewer splits (--split train), or choose a folder on a larger disk",
        )


def _fetch_files(files: Mapping[str, RemoteFile], staged: Path) -> None:
    """Download many small files over several connections."""
    missing = [(staged / path, file) for path, file in files.items() if not (staged / path).exists()]
    total = sum(file.size or 0 for file in files.values())
    left = sum((file.size or 0) - size_of(part_of(path)) for path, file in missing)
    _refuse_small_disk(staged, left)
    for folder in {path.parent for path, _ in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    lock, stop = threading.Lock(), threading.Event()
    with _bar("patches", total, total - left) as bar:

        def arrived(n: int) -> None:
            with lock:
                bar.update(n)

        def fetch_share(share: list[tuple[Path, RemoteFile]]) -> None:
            with _session() as session:
                for path, file in share:
                    if not stop.is_set():
                        download(session, file, path, arrived=arrived, stop=stop)

        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            shares = [pool.submit(fetch_share, missing[i::_CONNECTIONS]) for i in range(_CONNECTIONS)]
            try:
                for share in as_completed(shares):
                    share.result()
            finally:
                stop.set()


def _leave_out_other_splits(staged: Path, splits: Collection[Split]) -> None:
    """Delete what an earlier run, asked for more, has brought."""
    for layout in LAYOUTS:
        for split in layout.keys() - set(splits):
            for folder in layout[split]:
                shutil.rmtree(staged / folder, ignore_errors=True)
                with suppress(OSError):
                    (staged / folder).parent.rmdir()  # where it is empty now


def _refuse_faults(staged: Path, splits: Collection[Split], report_to: Callable[[str], object]) -> None:
    report = check(staged, required=splits)
    report_to(report.render())
    if not report.ok:
        raise DataError(
            f"{staged} has {len(report.faults)} fault(s), see above",
            remedy=f"delete {staged.parent} and run this again to download everything anew",
        )


def _tidy(work_folder: Path, keep_archives: bool) -> str:
    """Delete the work folder, all but archives that are to be kept; say where those are."""
    archives = sorted(work_folder.glob("*.zip")) if keep_archives else []
    for path in work_folder.iterdir() if work_folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path not in archives:
            path.unlink()
    if archives:
        return f"; the archives are in {work_folder}"
    if work_folder.is_dir():
        work_folder.rmdir()
        if not any(work_folder.parent.iterdir()):
            work_folder.parent.rmdir()
    return ""
