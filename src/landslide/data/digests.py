"""Digests of files and folders, as DVC computes them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from landslide.data.dvc_command import repository_of, run_dvc
from landslide.data.read_errors import explain, refuse_pipe, unreadable_folders
from landslide.errors import DataError

# Folders that DVC leaves out of a folder that it pins.
IGNORED_NAMES = frozenset({".git", ".hg", ".dvc"})
# MD5 releases the interpreter's lock, so that every core computes.
N_THREADS = min(8, os.cpu_count() or 1)


def file_digest(path: Path) -> str:
    """MD5 of a file's bytes, 32 hexadecimal characters, as DVC counts it.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        refuse_pipe(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        cause, remedy = explain(error)
        raise DataError(f"{path} cannot be read: {cause}", remedy=remedy) from error


def content_digest(content: bytes) -> str:
    """MD5 of bytes, 32 hexadecimal characters."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def directory_digest(root: Path) -> tuple[str, dict[str, str]]:
    """The version of a folder exactly as DVC 3 pins it in a `.dvc` file.

    That is the MD5 of the JSON list of {"md5", "relpath"} of all files, sorted by relative path, with
    ".dir" appended. As in DVC, empty folders and links to folders do not count.

    Returns:
        The digest (36 characters) and the MD5 of each file by its relative path (with forward slashes).

    Raises:
        DataError: The folder does not exist, or a file cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", remedy="give the folder that holds the data set")
    paths = files_below(root)
    digests = dict(zip(paths, file_digests(root / path for path in paths), strict=True))
    return listing_digest(digests), digests


def listing_digest(digests: Mapping[str, str]) -> str:
    """The version of a folder that holds these files, by the MD5 of each by relative path."""
    listing = [{"md5": md5, "relpath": relpath} for relpath, md5 in sorted(digests.items())]
    return content_digest(json.dumps(listing).encode()) + ".dir"


def files_below(root: Path) -> list[str]:
    """Relative paths (forward slashes, sorted) of all files that DVC would pin in a folder.

    Raises:
        DataError: A folder cannot be read, or DVC fails.
    """
    found = _walk(root)
    return sorted(set(found) - ignored_files(root, found))


def ignored_files(root: Path, paths: Sequence[str] | None = None) -> frozenset[str]:
    """Return the files of a folder that are not part of the data set, because `.dvcignore` lists them.

    DVC itself is asked, if the folder is in a DVC repository with such rules.

    Args:
        root: The folder.
        paths: Relative paths (forward slashes) of the files in question; all files if None.

    Raises:
        DataError: If DVC fails.
        ModuleNotFoundError: If there are rules, and DVC is not installed.
    """
    repository = repository_of(root.resolve().parent)
    if repository is None:
        return frozenset()
    folder = root.resolve().relative_to(repository)
    rules = tuple(_rules(repository / parent / ".dvcignore") for parent in folder.parents)
    if not any(rules):
        return frozenset()
    return _ask_dvc(repository, rules, folder.as_posix(), tuple(_walk(root) if paths is None else paths))


def _rules(path: Path) -> str:
    """Return the text of a `.dvcignore`, empty if it has no rules."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text if any(line.strip() and not line.strip().startswith("#") for line in text.splitlines()) else ""


@lru_cache(maxsize=4)  # a command identifies the same folder several times, and DVC needs a second
def _ask_dvc(repository: Path, rules: tuple[str, ...], folder: str, paths: tuple[str, ...]) -> frozenset[str]:
    lines = "".join(f"{folder}/{path}\n" for path in paths)
    ignored = run_dvc(repository, "check-ignore", "--stdin", stdin=lines, success=(0, 1))  # 1: none is ignored
    return frozenset(line.removeprefix(f"{folder}/") for line in ignored.splitlines())


def _walk(root: Path) -> list[str]:
    """Return the relative paths of all files that DVC pins in a folder if there are no rules."""
    for unreadable, (cause, remedy) in unreadable_folders(root).items():
        raise DataError(f"{unreadable} cannot be read: {cause}", remedy=remedy)
    found = []
    for folder, subfolders, names in os.walk(root):
        if Path(folder) != root and ".dvc" in (*subfolders, *names):  # DVC leaves out a repository within its own
            subfolders.clear()
            continue
        subfolders[:] = [name for name in subfolders if name not in IGNORED_NAMES]
        found += [Path(folder, name).relative_to(root).as_posix() for name in names if name != ".git"]
    return sorted(found)


def file_digests(paths: Iterable[Path]) -> list[str]:
    """Return the MD5 of files, in their order; see `file_digest`."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(file_digest, paths))
