"""The folder of a map: it gets its name when the map is complete, and another map is replaced only on demand."""

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from landslide.errors import DataError, LandslideError, first_few
from landslide.files import sha256
from landslide.mapping.plan import digest

SUMMARY = "summary.json"
PRODUCTS, REPLACED = "products", "replaced"
"""Folders in a work folder: the new map, and the one before it."""
KEPT = "kept"
"""Folder in a map: what people added to maps that it replaced, or edited in them."""
KEPT_NOTE = "note: {} keeps what was edited in the previous map, or added to it"
_EDITED_BY_PEOPLE = (".gpkg", ".geojson")  # who set `reviewed`, for example
REPLACE = "with --overwrite (in a pipeline: overwrite: true)"
_ELSEWHERE = "choose another folder with --output (output)"


class MapExistsError(LandslideError):
    """The folder holds another map."""


@dataclass(frozen=True)
class FinishedMap:
    """A map on the disk.

    Attributes:
        folder: Its folder.
        summary: The content of `summary.json`.
        new: Whether it was made now; otherwise the same map was there already.
    """

    folder: Path
    summary: dict[str, Any]
    new: bool


def finish(work: Path, done: Path, final: Path) -> Path | None:
    """Give a complete map its place. If this is interrupted, `recover` brings it to its end.

    Args:
        work: The work folder, which holds the map in `PRODUCTS`.
        done: The name that it bears meanwhile.
        final: The folder of the map; the previous map is deleted in the end.

    Returns:
        The folder in `final` that keeps what people added to the previous map or edited in it; None if it has nothing.
    """
    work.rename(done)
    if os.path.lexists(final):
        final.rename(done / REPLACED)
    (done / PRODUCTS).rename(final)
    return _discard(done, final)


def recover(work: Path, done: Path, final: Path) -> Path | None:
    """Bring to its end what an interrupted `finish` began, and return what that would have returned."""
    products = done / PRODUCTS
    if products.exists() and os.path.lexists(final):  # another map is still there: whoever began may go on
        done.rename(work)
    elif products.exists():
        products.rename(final)
    return _discard(done, final) if done.exists() else None


def _discard(done: Path, final: Path) -> Path | None:
    """Delete a work folder after its map has its place, but keep what is of people in the previous map."""
    previous, kept = done / REPLACED, None
    with suppress(MapExistsError):  # if its summary is gone, what is of people has been moved already
        summary = read_summary(previous)
        if _is_folder(previous / KEPT) and not (final / KEPT).exists():
            shutil.move(previous / KEPT, final / KEPT)
        if of_people := _of_people(previous, summary["digests"]):
            kept = _unused(final / KEPT / _date_of(summary))
            kept.mkdir(parents=True)
            for path in of_people:
                shutil.move(path, kept / path.name)
    shutil.rmtree(done, ignore_errors=True)
    return kept


def _of_people(folder: Path, digests: dict[str, str]) -> list[Path]:
    """Return what people added to a map, or edited in it; not what GDAL writes beside a raster."""

    def is_product(path: Path) -> bool:
        if path.is_symlink() or not path.is_file():
            return False
        if path.suffix not in _EDITED_BY_PEOPLE or path.stat().st_size == 0:
            return True
        return sha256(path) == digests[path.name] and not path.with_name(f"{path.name}-wal").exists()

    beside = {f"{name}.aux.xml" for name in digests}
    return [
        path
        for path in sorted(folder.iterdir())
        if not (path.name == KEPT and _is_folder(path))
        and path.name != SUMMARY
        and not (is_product(path) if path.name in digests else path.name in beside)
    ]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _date_of(summary: dict[str, Any]) -> str:
    """Return when a map was made, as the name of a folder."""
    try:
        return datetime.fromisoformat(summary["created"]).strftime("%Y-%m-%dT%H%M%S")
    except (KeyError, TypeError, ValueError):
        return "earlier"


def _unused(path: Path) -> Path:
    """Return a path that does not exist: this one, or the first with a number."""
    numbered = (path.with_name(f"{path.name} {number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([path], numbered) if not os.path.lexists(one))


def existing_map(
    final: Path, identity: dict[str, Any], *, overwrite: bool, parts: Sequence[str] = ()
) -> FinishedMap | None:
    """Return the map that a folder holds, if it is the one that is wanted.

    Args:
        final: The folder of the map.
        identity: What the wanted map depends on, as plain values by their names for people.
        overwrite: Whether another map may be replaced.
        parts: Names of which other values make no other map.

    Returns:
        None if there is no map, or one that may be replaced.

    Raises:
        MapExistsError: If the folder holds a map of another identity or a damaged one, unless `overwrite`; or no map.
    """
    if not os.path.lexists(final):
        return None
    summary = read_summary(final)
    try:
        refuse_another(identity, summary["identity"], f"{final} holds a map", f"Replace it {REPLACE}", parts=parts)
        refuse_damaged(final, summary["digests"])
    except MapExistsError:
        if not overwrite:
            raise
        return None
    return FinishedMap(final, summary, new=False)


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the summary of a finished map.

    Raises:
        MapExistsError: If the folder holds anything else, which is never overwritten.
    """
    try:
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
        if isinstance(summary["identity"], dict) and isinstance(summary["digests"], dict):
            return summary
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise MapExistsError(f"{folder} exists and holds no finished map.", remedy=f"Move it away, or {_ELSEWHERE}.")


def refuse_another(
    identity: dict[str, Any],
    before: dict[str, Any],
    what: str,
    remedy: str,
    *,
    settings: Sequence[str] = (),
    parts: Sequence[str] = (),
) -> None:
    """Refuse what was made from something else, and name what differs.

    Args:
        identity: What the wanted map depends on, as plain values by their names for people.
        before: The same of what is there.
        what: What is there, as the beginning of a sentence.
        remedy: What can be done about it, as the beginning of a sentence.
        settings: Settings that may differ.
        parts: Parts that may differ.

    Raises:
        MapExistsError: If something else differs.
    """
    now = json.loads(json.dumps(identity, default=str))
    for name in settings:
        before, now = ({**one, "settings": {**one["settings"], name: None}} for one in (before, now))
    other = [part for part in now if part not in parts and digest(now[part]) != digest(before.get(part))]
    if other:
        raise MapExistsError(
            f"{what} that differs in {' and '.join(other)}.",
            remedy=f"{remedy}, or {_ELSEWHERE}.",
        )


def refuse_damaged(folder: Path, digests: dict[str, str]) -> None:
    """Check the files of a finished map against their digests.

    Raises:
        MapExistsError: If some are missing or have lost some of their content.
    """

    def damaged(path: Path) -> bool:
        if path.suffix in _EDITED_BY_PEOPLE:
            return not path.is_file() or path.stat().st_size == 0
        return not path.is_file() or sha256(path) != digests[path.name]

    if found := [name for name in digests if damaged(folder / name)]:
        raise MapExistsError(
            f"{folder} holds this map, but these of its files are missing or damaged: {first_few(found)}.",
            remedy=f"Make it again {REPLACE}, or {_ELSEWHERE}.",
        )


@contextmanager
def writing_map(name: str, output: Path) -> Iterator[None]:
    """Turn an `OSError` within the block into an error that names the map.

    Raises:
        DataError: Something cannot be written.
    """
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataError(
            f"The map of {name} in {output} cannot be written: {where}{error.strerror or error}.",
            remedy=_remedy(error),
        ) from error


def _remedy(error: OSError) -> str:
    match error.errno:
        case errno.EEXIST | errno.ENOTDIR | errno.EISDIR | errno.ENOTEMPTY | errno.ELOOP:
            return f"Move away what is in the way, or {_ELSEWHERE}."
        case errno.ENAMETOOLONG:
            return "Give the scene a shorter name: rename its file or folder, or shorten the id in its STAC Item."
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"See that you may write there, or {_ELSEWHERE}."
    return "Free some space there, or see that the disk works; the same command continues."
