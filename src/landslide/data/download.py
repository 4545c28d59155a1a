"""Downloads over HTTP that go on where they broke off, and count only when they are what was promised.

What has arrived of `name` lies in `name.part`; `name.part.json` beside it says which file on which server it is the
beginning of. Only a complete and verified file gets its name.
"""

import errno
import hashlib
import json
import logging
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

from landslide.data.dvc import without_credentials
from landslide.errors import AbsentError, DataError, RemoteError

logger = logging.getLogger(__name__)

# Seconds to connect, and without a single byte.
_TIMEOUT = (10.0, 60.0)
# Seconds before each new attempt; bytes that arrive in between start the series again. Seven minutes in all, because
# public hubs count requests in windows of five.
_PAUSES = (1, 4, 15, 60, 120, 240)
# How often a download may end with less than it had before: a server that ignores ranges would never be done with.
_SETBACKS = 5
_NO_ADDRESS = (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL)
# Answers that another attempt may change.
_PASSING = (408, 416, 425, 429, 500, 502, 503, 504)
# A chunk that is cut short by a break-off is lost.
_CHUNK = 1 << 16
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_T = TypeVar("_T")


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and what is known of it beforehand.

    Attributes:
        url: Its address.
        size: Its bytes, None if nobody said.
        checksum: `md5:`, `sha256:` or `git-sha1:` (of a git blob) and hexadecimal digits, None if nobody said.
    """

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class _Beginning:
    """Of which file a `.part` is the beginning."""

    url: str
    validator: str | None
    size: int | None


def download(
    session: requests.Session,
    file: RemoteFile,
    destination: Path,
    *,
    arrived: Callable[[int], object] = lambda n: None,
    stop: threading.Event | None = None,
) -> None:
    """Download a file, going on with what an earlier call left; nothing to do where it is there.

    Break-offs, stalls and answers that may pass are met with growing pauses and another attempt. A server that
    ignores the range asked for, or has another file by now, makes the download start again.

    Args:
        session: Connections to the server.
        file: What to download.
        destination: Its path; the folder exists.
        arrived: Called with the number of new bytes; a negative number takes back bytes that have to come again.
        stop: Set by another thread to end the pauses.

    Raises:
        RemoteError: If the server cannot be reached, breaks off again and again, or has no such file; what has
            arrived is kept.
        DataError: If the disk is full (what has arrived is kept), or if size or checksum are wrong (it is deleted).
    """
    if destination.exists():
        return
    part = part_of(destination)
    try:
        _persist(lambda: _receive(session, file, part, arrived), file.url, reached=lambda: size_of(part), stop=stop)
        _verify(file, part)
        part.rename(destination)
        _note_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise disk_error(part, error) from error


def get_json(session: requests.Session, url: str) -> tuple[Any, str | None]:
    """Get a JSON value and the address of the next page (header Link), if there is one; as patient as `download`.

    Raises:
        AbsentError: If the server has no such address.
        RemoteError: If it does not give it.
    """

    def attempt() -> tuple[Any, str | None]:
        response = session.get(url, timeout=_TIMEOUT)
        response.raise_for_status()
        return response.json(), response.links.get("next", {}).get("url")

    return _persist(attempt, url)


def part_of(destination: Path) -> Path:
    """Return where a file lies while it arrives."""
    return destination.with_name(f"{destination.name}.part")


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def disk_error(path: Path, error: OSError) -> DataError:
    """Return the error for a file that cannot be written."""
    what = f"{path} cannot be written: {error.strerror or error}"
    if error.errno in _OUT_OF_SPACE:
        return DataError(what, remedy="make room on the disk, then run this again: it goes on from what has arrived")
    return DataError(what, remedy="choose a folder that you may write to")


def gigabytes(n: float) -> str:
    """Return a number of bytes for people."""
    return f"{n / 1e9:,.1f} GB" if n >= 1e8 else f"{n / 1e6:,.1f} MB"


def _persist(
    attempt: Callable[[], _T],
    url: str,
    *,
    reached: Callable[[], int] = lambda: 0,
    stop: threading.Event | None = None,
) -> _T:
    """Try until it succeeds, until all pauses went by without getting any further, or after too many setbacks."""
    stop = stop or threading.Event()
    before, pauses, setbacks = reached(), iter(_PAUSES), 0
    while True:
        try:
            return attempt()
        except requests.RequestException as error:
            now = reached()
            if now > before:
                pauses = iter(_PAUSES)
            setbacks += now < before
            before = now
            again = _may_pass(error) and setbacks <= _SETBACKS
            pause = next(pauses, None) if again else None
            if pause is None:
                raise _not_to_be_had(url, error) from error
            wait = max(float(pause), _asked_to_wait(error))
            logger.warning("%s: %s; next attempt in %g s", without_credentials(url), _cause(error), wait)
            if stop.wait(wait):
                raise _not_to_be_had(url, error) from error


def _may_pass(error: requests.RequestException) -> bool:
    if isinstance(error, _NO_ADDRESS):
        return False
    return error.response is None or error.response.status_code in _PASSING


def _asked_to_wait(error: requests.RequestException) -> float:
    """Return the seconds that a busy server asks for, at most the longest pause of our own."""
    text = "" if error.response is None else error.response.headers.get("Retry-After", "")
    return min(float(text), max(_PAUSES)) if text.isdecimal() else 0.0


def _cause(error: requests.RequestException) -> str:
    if isinstance(error, _Broken):
        return str(error)
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.JSONDecodeError):
        return "it did not answer with JSON"
    if error.response is not None:
        return f"it answered {error.response.status_code}"
    return f"no answer ({type(error).__name__})"


def _not_to_be_had(url: str, error: requests.RequestException) -> RemoteError:
    what = f"{without_credentials(url)} cannot be downloaded: {_cause(error)}"
    if not _may_pass(error):
        kind = AbsentError if error.response is not None and error.response.status_code == 404 else RemoteError
        return kind(what, remedy="check the address of the server (--url or LANDSLIDE_DATA_URL)")
    return RemoteError(what, remedy="run this again later: it goes on from what has arrived")


class _Broken(requests.ConnectionError):
    """The answer is not what HTTP promises; another attempt may do."""


def _receive(session: requests.Session, file: RemoteFile, part: Path, arrived: Callable[[int], object]) -> None:
    """Append to a part until it is complete, asking the server for what is missing only."""
    known = _beginning(file, part)
    size = file.size if file.size is not None else known.size
    start = size_of(part)
    if start and size is not None and start >= size:
        if start == size:
            return
        arrived(-start)
        start = _discard(part)
    headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of a compression
    if start:
        headers["Range"] = f"bytes={start}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with session.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == 416:
            arrived(-start)
            _discard(part)
        response.raise_for_status()
        offset, total = _extent(response)
        if total is not None and file.size not in (None, total):
            raise _wrong(file, f"has {total:,} bytes; expected {file.size:,}")
        if offset not in (0, start) or (offset and size not in (None, total)):
            arrived(-start)
            _discard(part)
            raise _Broken("it sent another range than asked for")
        arrived(offset - start)
        _refuse_full_disk(part, offset, total)
        _note_of(part).write_text(json.dumps(asdict(_Beginning(file.url, _validator(response), total))))
        with part.open("ab") as output:
            output.truncate(offset)
            for chunk in response.iter_content(_CHUNK):
                output.write(chunk)
                output.flush()
                arrived(len(chunk))
    expected = total if total is not None else file.size
    if expected is not None and size_of(part) < expected:
        raise _Broken("the connection broke off")


def _extent(response: requests.Response) -> tuple[int, int | None]:
    """Return where the body of an answer begins in the file, and the size of the file if the server says so."""
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not found:
            return -1, None
        return int(found[1]), int(found[2]) if found[2] != "*" else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _beginning(file: RemoteFile, part: Path) -> _Beginning:
    """Return what is known of the part that is there; discard it if it may be of another file.

    With a known checksum, a part from another server may go on: a mix of two files would be noticed at the end.
    """
    try:
        known = _Beginning(**json.loads(_note_of(part).read_text()))
    except (OSError, ValueError, TypeError):
        known = _Beginning("", None, None)
    if known.url != file.url:
        if file.checksum is None:
            _discard(part)
        return _Beginning(file.url, None, None)
    return known


def _validator(response: requests.Response) -> str | None:
    """Return what If-Range wants to know the file by: its strong entity tag, or when it was changed."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _refuse_full_disk(part: Path, start: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise DataError(
            f"{part} needs another {gigabytes(total - start)}, and {gigabytes(free)} are free on that disk",
            remedy="make room on the disk, then run this again: it goes on from what has arrived",
        )


def _verify(file: RemoteFile, part: Path) -> None:
    """Compare what arrived with what was promised; delete it if it differs, so that the next run starts again."""
    size, finding = size_of(part), None
    if file.size not in (None, size):
        finding = f"has {size:,} bytes; expected {file.size:,}"
    elif file.checksum is not None:
        algorithm, expected = file.checksum.split(":")
        if (found := _digest(part, algorithm)) != expected:
            finding = f"has the {algorithm} {found}; expected {expected}"
    if finding:
        _discard(part)
        raise _wrong(file, f"{finding}. What arrived was deleted")


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm.removeprefix("git-"), usedforsecurity=False)
    if algorithm == "git-sha1":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def _wrong(file: RemoteFile, finding: str) -> DataError:
    return DataError(
        f"{without_credentials(file.url)} is not the published file: it {finding}",
        remedy="run this again to download it anew; if it comes out the same, name another server (--url)",
    )


def _discard(part: Path) -> int:
    for path in (part, _note_of(part)):
        with suppress(FileNotFoundError):
            path.unlink()
    return 0


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
