"""The band cache in the artifact store, for steps that share no disk: `<store>/bands/<family>/<key>/`.

It is left there once, the manifest last, so that a cache with a manifest is whole. Whoever fetches it verifies it
by its own checksums.
"""

import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
from zenml.artifact_stores import BaseArtifactStore

from landslide.errors import CacheError

_MANIFEST = "manifest.json"
_FILES = ("bands.npy", "masks.npy", _MANIFEST)
_BLOCK = 1 << 24  # bytes copied at once


def fetch(store: BaseArtifactStore, directory: Path) -> None:
    """Copy a cache from the store to this machine, unless it is here already.

    Args:
        store: The artifact store.
        directory: Folder of the cache; it appears when it is complete.

    Raises:
        CacheError: If the store does not hold it, or not all of it.
    """
    if directory.is_dir():
        return
    shared = _address(store, directory)
    try:
        if not store.exists(f"{shared}/{_MANIFEST}"):
            raise CacheError(f"There is no band cache {shared}.", remedy="It is built when it is needed.")
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=directory.parent) as temporary:
            folder = Path(temporary, "cache")
            folder.mkdir()
            for name in _FILES:
                with store.open(f"{shared}/{name}", "rb") as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
            folder.rename(directory)
    except OSError as error:
        raise CacheError(
            f"The band cache {shared} cannot be fetched: {error}.", remedy="Check that the artifact store answers."
        ) from error


def fetch_most_similar(store: BaseArtifactStore, directory: Path, patches: pd.DataFrame) -> None:
    """Copy the older cache that holds most of these patches to this machine, so that the new one copies their rows.

    Args:
        store: The artifact store.
        directory: Folder of the new cache; caches of the same family are next to it.
        patches: Patch table of the new cache.

    Raises:
        CacheError: If that cache cannot be fetched.
    """
    family = _family(store, directory)
    wanted = set(zip(patches["image_md5"], patches["mask_md5"], strict=True))
    held = {}
    for key in map(str, store.listdir(family) if store.exists(family) else []):
        if store.exists(f"{family}/{key}/{_MANIFEST}"):
            with store.open(f"{family}/{key}/{_MANIFEST}", "r") as file:
                rows = json.load(file)["rows"]
            held[key] = len(wanted & {(row["image_md5"], row["mask_md5"]) for row in rows})
    if any(held.values()):
        fetch(store, directory.with_name(max(held, key=lambda key: held[key])))


def publish(store: BaseArtifactStore, directory: Path) -> None:
    """Copy a cache from this machine to the store, in place of one that is absent or damaged.

    Args:
        store: The artifact store.
        directory: The cache.
    """
    shared = _address(store, directory)
    store.makedirs(shared)
    for name in _FILES:
        with (directory / name).open("rb") as source, store.open(f"{shared}/{name}", "wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)


def _address(store: BaseArtifactStore, directory: Path) -> str:
    return f"{_family(store, directory)}/{directory.name}"


def _family(store: BaseArtifactStore, directory: Path) -> str:
    return f"{store.path.rstrip('/')}/bands/{directory.parent.name}"
