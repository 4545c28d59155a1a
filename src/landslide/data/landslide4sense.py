"""The official Landslide4Sense data set: what was published, and what the servers that hold it say about it.

Two copies are public: three archives on Zenodo (record 10463239, CC BY 4.0), and single files in the other layout on
Hugging Face.
"""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import requests

from landslide.data.download import RemoteFile, get_json
from landslide.data.patches import find_patches
from landslide.errors import AbsentError, DataError
from landslide.schema import LAYOUTS, Split

logger = logging.getLogger(__name__)

Source = Literal["zenodo", "huggingface"]
SPLITS: tuple[Split, ...] = get_args(Split)

PATCH_BYTES = 1_837_056 + 18_432
"""Size of a patch on disk: image and mask."""

# Seconds to connect and to be answered; the download itself does not depend on this list.
_LISTING_TIMEOUT = (5.0, 10.0)


@dataclass(frozen=True)
class Archive:
    """An archive of one split on Zenodo.

    Attributes:
        name: Its file name.
        split: What it holds.
        size: Its bytes.
        checksum: `md5:` and 32 hexadecimal digits, None where it was never written down.
        exact_size: Whether it has just so many bytes, rather than about so many.
    """

    name: str
    split: Split
    size: int
    checksum: str | None = None
    exact_size: bool = True

    def at(self, url: str) -> RemoteFile:
        """Return the archive at an address, with what is known for certain."""
        return RemoteFile(url, self.size if self.exact_size else None, self.checksum)

    def promises(self, file: RemoteFile) -> bool:
        """Whether a server's statement about this archive agrees with what is known of it."""
        known = self.at(file.url)
        return known.size in (None, file.size) and known.checksum in (None, file.checksum)


@dataclass(frozen=True)
class Release:
    """A published data set.

    Attributes:
        patches: Number of patches of each split.
        archives: The archives on Zenodo.
        record: Number of the Zenodo record.
        dataset: Name of the data set on Hugging Face.
        revision: Its commit.
    """

    patches: dict[Split, int]
    archives: tuple[Archive, ...]
    record: str
    dataset: str
    revision: str


LANDSLIDE4SENSE = Release(
    patches={"train": 3799, "validation": 245, "test": 800},
    archives=(
        Archive("TrainData.zip", "train", 2_484_071_934, "md5:408f09247e3dd256458bc2f6e9edbffb"),
        Archive("ValidData.zip", "validation", 143_423_314),
        Archive("TestData.zip", "test", 470_900_000, exact_size=False),
    ),
    record="10463239",
    dataset="ibm-nasa-geospatial/Landslide4sense",
    revision="4b291891badf301b5c75c2153f0f8fe00eeb1435",
)

SERVERS: dict[Source, str] = {"zenodo": "https://zenodo.org", "huggingface": "https://huggingface.co"}


def holds(root: Path, splits: Collection[Split], release: Release) -> bool:
    """Whether a folder holds as many patches of these splits as were published; their content is not looked at."""
    try:
        return all(len(find_patches(root, split)) == release.patches[split] for split in splits)
    except DataError:
        return False


def zenodo_files(
    session: requests.Session, server: str, splits: Collection[Split], release: Release
) -> dict[Archive, RemoteFile]:
    """Return the archives of these splits, with size and checksum where they are known.

    What is not known beforehand comes from the record's own list of files. A server that has no such list (a mirror)
    will do; a list that contradicts what is known is not used.

    Args:
        session: Connections to the server.
        server: Its address, in front of `/records/...`.
        splits: Which splits.
        release: What was published.
    """
    listed = _record_files(session, f"{server}/api/records/{release.record}")
    if wrong := [one.name for one in release.archives if one.name in listed and not one.promises(listed[one.name])]:
        logger.warning(
            "The list of files of record %s says something else of %s than is known; it is not used.",
            release.record,
            ", ".join(wrong),
        )
        listed = {}
    files = {}
    for archive in release.archives:
        if archive.split in splits:
            url = f"{server}/records/{release.record}/files/{archive.name}"
            found = listed.get(archive.name, archive.at(url))
            files[archive] = RemoteFile(url, found.size, found.checksum)
    return files


def _record_files(session: requests.Session, url: str) -> dict[str, RemoteFile]:
    """Return what Zenodo says of a record's files, by name; nothing if it does not say anything useful."""
    try:
        response = session.get(url, timeout=_LISTING_TIMEOUT)
        response.raise_for_status()
        return {
            file["key"]: RemoteFile(url, int(file["size"]), str(file["checksum"])) for file in response.json()["files"]
        }
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        logger.info("There is no list of files at %s: %s", url, type(error).__name__)
        return {}


def huggingface_files(
    session: requests.Session, server: str, splits: Collection[Split], release: Release
) -> dict[str, RemoteFile]:
    """Return the patches of these splits by their path in the data set, with size and checksum.

    Args:
        session: Connections to the server.
        server: Its address, in front of `/api/datasets/...` and `/datasets/...`.
        splits: Which splits.
        release: What was published.

    Raises:
        RemoteError: If the server does not list the files.
        DataError: If another number of images is listed than was published.
    """
    files: dict[str, RemoteFile] = {}
    resolve = f"{server}/datasets/{release.dataset}/resolve/{release.revision}"
    for split in splits:
        image_folder, mask_folder = LAYOUTS[1][split]
        images = _listed(session, server, release, image_folder, "image", resolve)
        if len(images) != release.patches[split]:
            raise DataError(
                f"{server} lists {len(images)} files in {image_folder}, and {release.patches[split]} were published",
                remedy="name another server (--url), or take the archives (--source zenodo)",
            )
        files |= images
        try:
            files |= _listed(session, server, release, mask_folder, "mask", resolve)
        except AbsentError:
            if split == "train":
                raise
            logger.warning("There are no masks of the %s split on %s.", split, server)
    return files


def _listed(
    session: requests.Session, server: str, release: Release, folder: str, kind: str, resolve: str
) -> dict[str, RemoteFile]:
    """List the numbered files of a folder, page by page."""
    url: str | None = f"{server}/api/datasets/{release.dataset}/tree/{release.revision}/{folder}?recursive=true"
    name = re.compile(rf"{folder}/{kind}_\d+\.h5")
    files = {}
    while url:
        entries, url = get_json(session, url)
        for entry in entries:
            if entry["type"] == "file" and name.fullmatch(entry["path"]):
                files[entry["path"]] = RemoteFile(f"{resolve}/{entry['path']}", *_promise(entry))
    return files


def _promise(entry: dict[str, Any]) -> tuple[int, str]:
    """Return size and checksum of a file: of its content where it is in large file storage, else of its git blob."""
    large = entry.get("lfs")
    return (large["size"], f"sha256:{large['oid']}") if large else (entry["size"], f"git-sha1:{entry['oid']}")
