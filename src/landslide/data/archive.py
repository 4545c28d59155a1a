"""Unpacking a published archive: its patches and nothing else, whole or not at all."""

import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from landslide.data.download import disk_error
from landslide.errors import DataError
from landslide.schema import LAYOUTS, Split

# Folder and file name of a patch; what stands before them differs between copies of the data set.
_PATCH = re.compile(r"(?:.*/)?(?:img/(image_\d+\.h5)|mask/(mask_\d+\.h5))")
# What zipfile raises beside BadZipFile; RuntimeError is an encrypted file or, as a subclass, an unknown compression.
_DAMAGE = (zlib.error, struct.error, EOFError, RuntimeError, UnicodeError)


def unpack(
    archive: Path,
    split: Split,
    destination: Path,
    *,
    n_patches: int,
    unpacked: Callable[[int], object] = lambda n: None,
) -> list[str]:
    """Unpack the patches of a split to the folders of the Zenodo layout.

    Every file is compared with its checksum in the archive.

    Args:
        archive: A zip file with `img/image_N.h5` and `mask/mask_N.h5` in it, at any depth.
        split: Which split it holds.
        destination: Folder that gets `TrainData/`, `ValidData/` or `TestData/`, not there before.
        n_patches: How many patches it must hold.
        unpacked: Called with the number of bytes written.

    Returns:
        What the archive holds beside patches; it is left out.

    Raises:
        DataError: If the archive is damaged, holds another number of patches, or names files outside of its own folder
            (it is then deleted), or if the disk is full. Nothing is left of what was unpacked.
    """
    folder = PurePosixPath(LAYOUTS[0][split][0]).parent.name
    destination.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f"{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with _reading():
            opened = zipfile.ZipFile(archive)
        with opened:
            patches, others = _members(opened)
            _refuse_other_number(patches, n_patches)
            for path, member in patches.items():
                _extract(opened, member, partial / path)
                unpacked(member.file_size)
        partial.rename(destination / folder)
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise DataError(
            f"{archive.name} is damaged, or is not the published archive: {error}. It was deleted",
            remedy="run this again to download it anew; if it comes out the same, name another server (--url)",
        ) from error
    except OSError as error:
        raise disk_error(Path(error.filename or partial), error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return others


def _members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Return the patches by where they go, and the names of all other files."""
    patches: dict[str, zipfile.ZipInfo] = {}
    others = []
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            raise zipfile.BadZipFile(f"it would write {member.filename!r}, outside of its own folder")
        if member.is_dir():
            continue
        if not _PATCH.fullmatch(path.as_posix()):
            others.append(member.filename)
            continue
        target = f"{path.parent.name}/{path.name}"
        if target in patches:
            raise zipfile.BadZipFile(f"it holds {target} twice")
        patches[target] = member
    return patches, others


def _refuse_other_number(patches: Iterable[str], expected: int) -> None:
    images = sum(path.startswith("img/") for path in patches)
    if images != expected:
        raise zipfile.BadZipFile(f"it holds {images} files img/image_N.h5, and {expected} are expected")


@contextmanager
def _reading() -> Iterator[None]:
    """Call everything that zipfile raises at a damaged archive by one name."""
    try:
        yield
    except _DAMAGE as error:
        raise zipfile.BadZipFile(str(error)) from error


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _reading(), archive.open(member) as source, target.open("xb") as output:
        shutil.copyfileobj(source, output, 1 << 20)  # to the end, where the checksum is compared
