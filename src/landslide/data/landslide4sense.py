"""The official Landslide4Sense data set: facts of the release, and its download into a folder.

Two copies are public: single files on Hugging Face, at a pinned revision, and three archives on Zenodo (record
10463239, CC BY 4.0). The patches are the same, the layouts are not. Either copy is downloaded, verified and checked in
`.<destination>-fetch` next to the destination, on the same disk, and moved into place once it is complete:

    from_<source>/               the patches that have arrived, in the layout of that copy
    <name>.zip, <name>.zip.part  an archive, and the beginning of one
    unpacking/                   the part of an archive that is unpacked so far
    verified                     a mark: the data set is complete; it is being moved and pinned
    previous/                    what ./data held, until the new data set is pinned
"""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal, get_args

from landslide.data.check import check
from landslide.data.downloads import download_archive, download_snapshot, unpack
from landslide.data.dvc_command import run_dvc
from landslide.data.patches import numbered_files
from landslide.data.project import install_and_pin, pinned_version, refuse_unless_replaceable, replacing
from landslide.errors import DataError
from landslide.locks import locked
from landslide.schema import LAYOUTS, Split

Source = Literal["huggingface", "zenodo"]
SPLITS: tuple[Split, ...] = get_args(Split)

PATCH_BYTES = 1_837_056 + 18_432
"""Size of a patch on disk: image and mask."""

_ZENODO = "https://zenodo.org"
_FICLONE = 0x40049409  # from linux/fs.h
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Archive:
    """An archive on Zenodo.

    Attributes:
        name: Its file name.
        size: Its size in bytes, possibly rounded.
        checksum: `md5:` and 32 hexadecimal digits, None if it is unknown.
    """

    name: str
    size: int
    checksum: str | None = None


@dataclass(frozen=True)
class Release:
    """A published data set.

    Attributes:
        patches: Number of patches of each split.
        archives: The archive of each split, in the Zenodo record.
        record: Number of that record.
        dataset: Name of the data set on Hugging Face.
        revision: Its commit.
    """

    patches: dict[Split, int]
    archives: dict[Split, Archive]
    record: str
    dataset: str
    revision: str


LANDSLIDE4SENSE = Release(
    patches={"train": 3799, "validation": 245, "test": 800},
    archives={
        "train": Archive("TrainData.zip", 2_484_071_934, "md5:408f09247e3dd256458bc2f6e9edbffb"),
        "validation": Archive("ValidData.zip", 143_423_314),
        "test": Archive("TestData.zip", 470_900_000),
    },
    record="10463239",
    dataset="ibm-nasa-geospatial/Landslide4sense",
    revision="4b291891badf301b5c75c2153f0f8fe00eeb1435",
)


def fetch(
    destination: Path,
    *,
    pin_in: Path | None = None,
    splits: Collection[Split] = SPLITS,
    source: Source = "huggingface",
    server: str | None = None,
    release: Release = LANDSLIDE4SENSE,
    report_to: Callable[[str], object] = lambda text: None,
) -> str:
    """Bring the official data set to a folder. The same call resumes an interrupted one.

    Args:
        destination: Absent, an empty folder, or (if pinned) a folder that
            `project.refuse_unless_replaceable` accepts.
        pin_in: Root of the project whose `./data` the destination is, to be pinned in `data.dvc`; None pins nothing.
        splits: Which splits.
        source: Which of the public copies.
        server: Address of a mirror with the same paths; None is the public server, or `HF_ENDPOINT`.
        release: What was published.
        report_to: Called with the report of the check.

    Returns:
        What was done, as one line.

    Raises:
        RemoteError: If the server does not answer, or lacks the files.
        DataError: If the disk is too small, a file is not the published one, the data set has faults, or the
            destination is occupied.
        LockedError: If another process fetches to the same destination.
    """
    work_folder = destination.with_name(f".{destination.name}-fetch")
    staged, verified = work_folder / f"from_{source}", work_folder / "verified"
    if not _incomplete(destination, splits, release):
        return _pin_existing(destination, pin_in, verified)
    _refuse_occupied(destination, pin_in, splits, staged)
    with _disk_errors(work_folder), locked(work_folder / ".lock", wait=False):
        if not verified.exists() or _incomplete(staged, splits, release):
            verified.unlink(missing_ok=True)
            staged.mkdir(exist_ok=True)
            copies = 2 if pin_in is not None and not _shares_bytes(staged) else 1
            (_from_huggingface if source == "huggingface" else _from_zenodo)(staged, splits, server, release, copies)
        _remove_the_rest(staged, splits)
        if not verified.exists():
            _refuse_faults(staged, splits, release, report_to)
            verified.touch()
        done = f"{destination} is now the official data set ({', '.join(splits)})"
        if pin_in is None:
            staged.rename(destination)
        else:
            shutil.rmtree(work_folder / "previous", ignore_errors=True)  # of a run that was killed
            with replacing(pin_in, wait=True):  # do not fail after a long download
                done += f", version {install_and_pin(pin_in, staged, keep=False)}"
        shutil.rmtree(work_folder)
        return done


def _incomplete(root: Path, splits: Collection[Split], release: Release) -> list[str]:
    """Return faults in the number of images in a folder; the content of the files is not checked."""
    found = {split: sum(len(numbered_files(root / at[split][0], "image")) for at in LAYOUTS) for split in splits}
    return [
        f"{n:,} {split} patches of {release.patches[split]:,}"
        for split, n in found.items()
        if n != release.patches[split]
    ]


def _pin_existing(destination: Path, pin_in: Path | None, verified: Path) -> str:
    """Report that the data set exists; pin it if the run that moved it was killed before pinning."""
    there = f"{destination} holds the official data set already"
    if pin_in is None:
        return f"{there}: its patches were counted; `landslide data check {destination}` reads them"
    if _is_pinned(pin_in):
        return f"{there}, as data.dvc pins it"
    if not verified.exists():
        remedy = "pin it with `dvc add data`"
        raise DataError(f"{there}, but that is not what data.dvc pins", remedy=remedy)
    with locked(verified.with_name(".lock"), wait=False):
        run_dvc(pin_in, "add", "data")
        shutil.rmtree(verified.parent)
    return f"{there}; data.dvc pins it now"


def _is_pinned(project: Path) -> bool:
    """Whether DVC finds ./data as data.dvc pins it; DVC remembers files that did not change."""
    if pinned_version(project / "data.dvc") is None:
        return False
    return bool(json.loads(run_dvc(project, "status", "--json", "data.dvc")) == {})


def _refuse_occupied(destination: Path, pin_in: Path | None, splits: Collection[Split], staged: Path) -> None:
    """Raise before the download unless the data set can be put in place afterwards."""
    if pin_in is not None:
        if "train" not in splits:
            raise DataError(
                "./data is what models are trained on, and the training split is not asked for",
                remedy="give a folder for the other splits: landslide data fetch DIR --split test",
            )
        refuse_unless_replaceable(pin_in, staged)
    elif os.path.lexists(destination) and not (destination.is_dir() and not any(destination.iterdir())):
        raise DataError(
            f"{destination} exists and is not an empty folder", remedy="choose a new folder, or move it away"
        )


def _from_huggingface(
    staged: Path, splits: Collection[Split], server: str | None, release: Release, copies: int
) -> None:
    arrived = sum(path.stat().st_size for path in staged.rglob("*.h5"))
    _refuse_small_disk(staged, copies * sum(release.patches[split] * PATCH_BYTES for split in splits) - arrived)
    folders = [LAYOUTS[1][split] for split in splits]
    # annotations/train also holds five stray files image_*.h5 of 800 bytes: the patterns leave them out.
    patterns = [f"{images}/image_*.h5" for images, _ in folders] + [f"{masks}/mask_*.h5" for _, masks in folders]
    download_snapshot(staged, release.dataset, release.revision, patterns, server)


def _from_zenodo(staged: Path, splits: Collection[Split], server: str | None, release: Release, copies: int) -> None:
    """Download and unpack one archive after another, so that the disk holds only one at a time."""
    folders = {split: (staged / LAYOUTS[0][split][0]).parent for split in SPLITS if split in splits}
    missing = [split for split, folder in folders.items() if not folder.exists()]
    unpacked = accumulate(release.patches[split] * PATCH_BYTES for split in missing)
    largest = max((n + release.archives[split].size for split, n in zip(missing, unpacked, strict=True)), default=0)
    if copies > 1:
        largest = max(largest, sum(release.patches[s] * PATCH_BYTES * (copies - (s not in missing)) for s in splits))
    _refuse_small_disk(staged, largest - sum(path.stat().st_size for path in staged.parent.glob("*.zip*")))
    for split in missing:
        archive = release.archives[split]
        path = staged.with_name(archive.name)
        url = f"{(server or _ZENODO).rstrip('/')}/records/{release.record}/files/{archive.name}"
        download_archive(url, path, archive.checksum)
        unpack(path, folders[split], release.patches[split])


def _remove_the_rest(staged: Path, splits: Collection[Split]) -> None:
    """Delete the notes of huggingface_hub, and splits that only an earlier run was asked for."""
    shutil.rmtree(staged / ".cache", ignore_errors=True)
    for layout in LAYOUTS:
        for folder in (folder for split in layout.keys() - set(splits) for folder in layout[split]):
            shutil.rmtree(staged / folder, ignore_errors=True)
            with suppress(OSError):
                (staged / folder).parent.rmdir()  # if it is empty now


def _refuse_faults(
    staged: Path, splits: Collection[Split], release: Release, report_to: Callable[[str], object]
) -> None:
    report = check(staged, required=splits)
    report_to(report.render())
    faults = _incomplete(staged, splits, release)
    if not report.ok:
        faults.append(f"{len(report.faults)} fault(s), see above")
    if faults:
        raise DataError(
            f"{staged} has {' and '.join(faults)}",
            remedy=f"delete {staged.parent} and run this again to download everything again, or take another --source",
        )


def _shares_bytes(folder: Path) -> bool:
    """Whether a copy on this disk takes no space until one of the two files changes (a reflink)."""
    with tempfile.NamedTemporaryFile(dir=folder) as original, tempfile.NamedTemporaryFile(dir=folder) as copy:
        original.write(bytes(1 << 16))
        original.flush()
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
        except OSError:
            return False
        return True


def _refuse_small_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"fetching needs {needed / 1e9:,.1f} GB on the disk of {folder}, and {free / 1e9:,.1f} GB are free",
            remedy="make room, fetch fewer splits (--split train), or choose a folder on a larger disk",
        )


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Explain a full disk, and a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename or folder} cannot be written: {error.strerror or error}"
        if error.errno in _OUT_OF_SPACE:
            raise DataError(what, remedy="make room on the disk, then run this again: it resumes") from error
        raise DataError(what, remedy="choose a folder that you may write to") from error
