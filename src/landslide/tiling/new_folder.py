"""Folders of results that appear when they are complete."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from landslide.errors import DataError
from landslide.locks import locked


def refuse_output(folder: Path) -> None:
    """Refuse a folder that is not new or empty.

    Raises:
        DataError: It is not.
    """
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise DataError(f"{folder} exists and is not an empty folder.", remedy="Choose a new folder.")


@contextmanager
def new_folder(folder: Path, refuse: Callable[[Path], object] = refuse_output) -> Iterator[Path]:
    """Yield an empty folder beside a new one, and give it its name when the block has filled it.

    Args:
        folder: The new folder. What it holds is deleted if `refuse` accepts it.
        refuse: Called with the folder; it raises an error if the folder may not be replaced.

    Raises:
        DataError: The folder is refused, or cannot be written.
        LockedError: Another process writes it.
    """
    folder = folder.absolute()
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock"), wait=False):
            refuse(folder)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                yield partial
                shutil.rmtree(folder, ignore_errors=True)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error}.",
            remedy="Make room on its disk, or choose another folder.",
        ) from error
