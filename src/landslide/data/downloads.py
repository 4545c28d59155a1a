"""Downloads from Hugging Face and from plain web servers: resumed, verified, with clear errors.

huggingface_hub and pooch do the work. This module adds the checksums of a snapshot, resuming of a large archive, and
errors that name the server.
"""

import errno
import logging
import re
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import huggingface_hub
import pooch
import requests
from tqdm.auto import tqdm

from landslide import __version__
from landslide.data.dvc_command import without_credentials
from landslide.errors import DataError, LandslideError, RemoteError, first_few

# Seconds for the first answer of the Hub; to connect to a web server, and without a single byte from it.
_HUB_TIMEOUT = 10.0
_TIMEOUT = (10.0, 30.0)
_MEMBER = re.compile(r"(?:^|/)((?:img/image|mask/mask)_\d+\.h5)$")
_WRONG_FILE = "run this again to download it again; if it is wrong again, take another --source or --url"
# What zipfile raises for damaged archives; RuntimeError is an encrypted file or, as a subclass, an unknown compression.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, UnicodeError)


def download_snapshot(folder: Path, dataset: str, revision: str, patterns: Sequence[str], server: str | None) -> None:
    """Download files of a data set on Hugging Face and compare them with their checksums.

    Args:
        folder: Destination. Complete files of an earlier run stay; `.cache` holds notes of huggingface_hub.
        dataset: Name of the data set.
        revision: Its commit.
        patterns: Which files.
        server: Address of a mirror, which does not get the user's token; None is `HF_ENDPOINT` or huggingface.co.

    Raises:
        RemoteError: If the server does not answer, or lacks the files.
        DataError: If a file differs from its checksum; it is deleted.
    """
    api = huggingface_hub.HfApi(
        server, token=False if server else None, library_name="landslide", library_version=__version__
    )
    with _server_errors(api.endpoint):
        # Fails soon if there is no network or no such data set; the calls below retry for minutes.
        api.dataset_info(dataset, revision=revision, expand=["sha"], timeout=_HUB_TIMEOUT)
        api.snapshot_download(
            dataset, repo_type="dataset", revision=revision, local_dir=folder, allow_patterns=list(patterns)
        )
        compared = api.verify_repo_checksums(dataset, repo_type="dataset", revision=revision, local_dir=folder)
    if wrong := [file["path"] for file in compared.mismatches]:
        for path in wrong:
            (folder / path).unlink()
        raise DataError(
            f"{len(wrong)} file(s) from {without_credentials(api.endpoint)} differ from their checksums in "
            f"{dataset} and were deleted: {first_few(wrong)}",
            remedy=_WRONG_FILE,
        )


def download_archive(url: str, path: Path, checksum: str | None) -> None:
    """Download a file; an interrupted download (`<name>.part`) is resumed.

    Args:
        url: Its address.
        path: Destination; nothing is done if it exists.
        checksum: `md5:` and hexadecimal digits, None if it is unknown.

    Raises:
        RemoteError: If the server does not answer, breaks off, or lacks the file; what has arrived is kept.
        DataError: If the checksum is another; the file is deleted.
    """
    pooch.get_logger().setLevel(logging.WARNING)  # it advises to write unknown checksums down
    download = partial(_resume, part=path.with_name(f"{path.name}.part"))
    with _server_errors(url):
        try:
            pooch.retrieve(url, known_hash=checksum, fname=path.name, path=path.parent, downloader=download)
        except ValueError as error:
            if isinstance(error, requests.RequestException):  # an invalid address
                raise
            raise _not_published(url, str(error).split(". ")[0]) from error


def _resume(url: str, output_file: str, _: object, *, part: Path) -> None:
    """Receive a file, in as many attempts as it takes while each of them brings something."""
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, before)
            break
        except requests.RequestException:
            if not part.exists() or part.stat().st_size <= before:
                raise
            time.sleep(1)
    part.replace(output_file)


def _receive(url: str, part: Path, start: int) -> None:
    headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of a compression
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == 416:  # nothing is missing
            return
        response.raise_for_status()
        start = start if response.status_code == 206 else 0
        total = start + int(response.headers.get("Content-Length", 0)) or None
        bar = tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, disable=None)
        with part.open("ab") as output, bar:
            output.truncate(start)
            for chunk in response.iter_content(1 << 16):
                output.write(chunk)
                bar.update(len(chunk))


def unpack(archive: Path, destination: Path, n_patches: int) -> None:
    """Unpack the patches of an archive, compare each file with its checksum there, and delete the archive.

    Args:
        archive: A zip file with `img/image_N.h5` and `mask/mask_N.h5` at any depth; other files are left out.
        destination: A new folder that gets `img/` and `mask/`, complete or not at all.
        n_patches: How many images it must hold.

    Raises:
        DataError: If the archive is damaged, or holds another number of images; it is deleted.
    """
    unpacking = archive.with_name("unpacking")
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            members = {match[1]: one for one in opened.infolist() if (match := _MEMBER.search(one.filename))}
            n_images = sum(name.startswith("img/") for name in members)
            if n_images != n_patches:
                raise zipfile.BadZipFile(f"it holds {n_images:,} images; expected {n_patches:,}")
            for name, member in tqdm(members.items(), desc=f"unpacking {archive.name}", unit="file", disable=None):
                (unpacking / name).parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as packed, (unpacking / name).open("wb") as output:
                    shutil.copyfileobj(packed, output, 1 << 20)
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: an offset before the beginning
            raise
        archive.unlink()
        raise _not_published(archive.name, str(error)) from error
    unpacking.rename(destination)
    archive.unlink()


def _not_published(name: str, finding: str) -> DataError:
    return DataError(
        f"{without_credentials(name)} is not the published file, and was deleted: {finding}", remedy=_WRONG_FILE
    )


@contextmanager
def _server_errors(server: str) -> Iterator[None]:
    """Name the server in the errors of a download. Errors of the disk are not changed."""
    try:
        yield
    except LandslideError:
        raise
    except Exception as error:  # huggingface_hub, hf_xet, httpx2 and requests share no base class
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or [""])[0]
        raise RemoteError(
            without_credentials(f"the download from {server} failed: {type(cause).__name__}: {reason}"),
            remedy="check the connection and the address (--url, LANDSLIDE_DATA_URL), then run this again: it resumes",
        ) from error
