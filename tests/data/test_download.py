"""Downloads from a real server on loopback that misbehaves as real ones do."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests

from landslide.data import download as downloading
from landslide.data.download import RemoteFile, download, get_json, part_of
from landslide.errors import AbsentError, DataError, RemoteError
from tests.support.file_server import Fault, file_server

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
N = len(CONTENT)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloading, "_PAUSES", (0.01, 0.02, 0.04))
    monkeypatch.setattr(downloading, "_TIMEOUT", (1.0, 0.2))


@pytest.fixture
def server():
    with file_server() as server:
        server.files["/file"] = CONTENT
        yield server


@pytest.fixture
def session():
    with requests.Session() as session:
        yield session


@pytest.fixture
def fetch(server, session, tmp_path):
    """Download `/file` with what is known of it; returns the bytes reported as arrived."""

    def fetch(size: int | None = N, checksum: str | None = MD5, url: str | None = None) -> int:
        arrived: list[int] = []
        download(
            session, RemoteFile(url or f"{server.url}/file", size, checksum), tmp_path / "file", arrived=arrived.append
        )
        return sum(arrived)

    return fetch


def whole(folder: Path) -> bool:
    """Whether the file is there, and nothing else."""
    return [path.name for path in folder.iterdir()] == ["file"] and (folder / "file").read_bytes() == CONTENT


def begin(server, session, folder: Path, n: int, **known) -> None:
    """Leave the first n bytes, as a process does that was ended then."""
    server.faults["/file"] = [Fault(after=n), *[Fault(status=503)] * 3]
    with pytest.raises(RemoteError):
        download(session, RemoteFile(f"{server.url}/file", **known), folder / "file")
    server.faults.clear()
    server.asked.clear()


def test_a_file_arrives_whole_and_verified(fetch, server, tmp_path):
    assert fetch() == N
    assert whole(tmp_path)
    assert fetch() == 0
    assert len(server.asked) == 1


def test_a_break_off_is_resumed_with_what_is_missing_only(fetch, server, tmp_path, caplog):
    server.faults["/file"] = [Fault(after=300_000), Fault(after=200_000)]
    assert fetch() == N
    assert whole(tmp_path)
    first, *later = server.ranges("/file")
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in later]
    assert first == ""
    # A chunk that is cut short is lost, no more.
    assert 300_000 - downloading._CHUNK < starts[0] <= 300_000
    assert starts[0] + 200_000 - downloading._CHUNK < starts[1] <= starts[0] + 200_000
    assert "next attempt in" in caplog.text


def test_break_offs_that_each_bring_something_never_end_it(fetch, server, tmp_path):
    server.faults["/file"] = [Fault(after=90_000)] * 10
    assert fetch() == N
    assert whole(tmp_path)


def test_a_server_that_stalls_is_asked_again(fetch, server, tmp_path):
    server.faults["/file"] = [Fault(after=400_000, stall=True)]
    before = time.monotonic()
    assert fetch() == N
    assert 0.2 <= time.monotonic() - before < 5
    assert whole(tmp_path)
    assert len(server.asked) == 2


def test_a_slow_server_is_waited_for_while_something_arrives(fetch, server, tmp_path):
    server.pause = 0.05  # ten of them are longer than the time in which something has to arrive
    before = time.monotonic()
    assert fetch() == N
    assert time.monotonic() - before > downloading._TIMEOUT[1]
    assert whole(tmp_path)
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again_with_growing_pauses(server, session, tmp_path, monkeypatch):
    waited = []

    class Clock(threading.Event):
        def wait(self, timeout=None):
            waited.append(timeout)
            return False

    monkeypatch.setattr(downloading, "_PAUSES", (1, 2, 30))
    server.faults["/file"] = [Fault(status=503), Fault(status=429, headers={"Retry-After": "7"}), Fault(status=500)]
    download(session, RemoteFile(f"{server.url}/file", N, MD5), tmp_path / "file", stop=Clock())
    assert waited == [1, 7, 30]
    assert whole(tmp_path)


def test_a_server_that_stays_down_is_given_up_and_what_arrived_is_kept(fetch, server, session, tmp_path):
    server.faults["/file"] = [Fault(after=500_000), *[Fault(status=503)] * 50]
    with pytest.raises(RemoteError, match="it answered 503") as raised:
        fetch()
    assert "goes on from what has arrived" in raised.value.remedy
    assert len(server.asked) == 4  # the break-off, and one attempt after each pause
    assert part_of(tmp_path / "file").stat().st_size > 400_000
    server.faults.clear()
    assert fetch() < 600_000
    assert whole(tmp_path)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_answer_that_will_not_change_ends_it_at_once(fetch, server, tmp_path, status):
    server.faults["/file"] = [Fault(status=status)] * 5
    with pytest.raises(RemoteError, match=f"it answered {status}") as raised:
        fetch()
    assert len(server.asked) == 1
    assert isinstance(raised.value, AbsentError) == (status == 404)
    assert "--url" in raised.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/file", "http://"])
def test_an_address_that_is_none_ends_it_at_once(fetch, url):
    with pytest.raises(RemoteError, match="cannot be downloaded"):
        fetch(url=url)


def test_nobody_listens(fetch, caplog):
    with pytest.raises(RemoteError, match="no answer"):
        fetch(url="http://user:secret@127.0.0.1:9/file")
    assert "secret" not in caplog.text


def test_the_password_of_a_mirror_is_not_told(server, fetch):
    with pytest.raises(RemoteError) as raised:
        fetch(url=server.url.replace("//", "//user:secret@") + "/absent")
    assert "secret" not in str(raised.value)


def test_a_server_that_ignores_ranges_starts_again(fetch, server, session, tmp_path):
    begin(server, session, tmp_path, 600_000, size=N, checksum=MD5)
    server.knows_ranges = False
    assert fetch() < N  # what has come before is taken back
    assert whole(tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_ignores_ranges_and_breaks_off_at_one_place_is_given_up(fetch, server):
    server.knows_ranges = False
    server.faults["/file"] = [Fault(after=600_000)] * 50
    with pytest.raises(RemoteError, match="broke off"):
        fetch()
    assert len(server.asked) == 4


def test_what_arrives_after_a_start_from_zero_counts_as_getting_further(fetch, server, session, tmp_path):
    """Many break-offs, all of them before the place that was reached of the file's earlier content."""
    server.files["/file"] = CONTENT[::-1]
    begin(server, session, tmp_path, 900_000)
    server.files["/file"] = CONTENT
    server.faults["/file"] = [Fault(after=90_000)] * 9
    fetch()
    assert whole(tmp_path)
    assert len(server.asked) == 10


def test_a_server_that_ignores_ranges_and_breaks_off_here_and_there_is_given_up(fetch, server):
    server.knows_ranges = False
    server.faults["/file"] = [Fault(after=600_000), Fault(after=400_000)] * 50
    with pytest.raises(RemoteError, match="broke off"):
        fetch()
    assert len(server.asked) == 2 * (downloading._SETBACKS + 1)


@pytest.mark.parametrize("known", [{}, {"size": N}, {"size": N, "checksum": MD5}], ids=["nothing", "size", "checksum"])
def test_a_file_that_changed_meanwhile_is_downloaded_anew(fetch, server, session, tmp_path, known):
    server.files["/file"] = CONTENT[::-1]
    begin(server, session, tmp_path, 500_000, **known)
    server.files["/file"] = CONTENT
    fetch(**{"size": None, "checksum": None, **known})
    assert whole(tmp_path)


def test_without_tags_a_changed_size_is_noticed(fetch, server, session, tmp_path):
    server.knows_tags = False
    server.files["/file"] = CONTENT[:-1]
    begin(server, session, tmp_path, 500_000)
    server.files["/file"] = CONTENT
    fetch(size=None, checksum=None)
    assert whole(tmp_path)
    assert len(server.asked) == 2  # the range of another file, then all of it


def test_a_part_from_another_server_goes_on_only_where_a_checksum_will_tell(fetch, server, session, tmp_path):
    server.files["/mirror"] = CONTENT
    begin(server, session, tmp_path, 500_000, size=N)
    fetch(checksum=None, url=f"{server.url}/mirror")
    assert server.ranges("/mirror") == [""]
    (tmp_path / "file").unlink()
    begin(server, session, tmp_path, 500_000, size=N, checksum=MD5)
    fetch(url=f"{server.url}/mirror")
    assert server.ranges("/mirror")[-1].startswith("bytes=4")
    assert whole(tmp_path)


@pytest.mark.parametrize("wrong", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"x"], ids=["content", "short", "long"])
def test_a_wrong_file_is_never_taken_and_never_kept(fetch, server, tmp_path, wrong):
    server.files["/file"] = wrong
    with pytest.raises(DataError, match="is not the published file") as raised:
        fetch()
    assert "download it anew" in raised.value.remedy
    assert list(tmp_path.iterdir()) == []
    assert len(server.asked) == 1
    server.files["/file"] = CONTENT
    fetch()
    assert whole(tmp_path)


def test_a_wrong_mirror_does_not_spoil_what_arrived_from_the_right_one(fetch, server, session, tmp_path):
    begin(server, session, tmp_path, 700_000, size=N, checksum=MD5)
    server.files["/mirror"] = CONTENT[:-5]
    with pytest.raises(DataError, match="is not the published file"):
        fetch(url=f"{server.url}/mirror")
    assert fetch() < 400_000


def test_a_part_that_was_damaged_on_disk_is_noticed(fetch, server, session, tmp_path):
    begin(server, session, tmp_path, 700_000, size=N, checksum=MD5)
    with part_of(tmp_path / "file").open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(DataError, match="has the md5"):
        fetch()
    fetch()
    assert whole(tmp_path)


@pytest.mark.parametrize("length", [N, N + 10], ids=["all of it", "too much"])
def test_a_part_of_the_whole_size_is_verified_without_another_request_and_a_longer_one_is_dropped(
    fetch, server, tmp_path, length
):
    part_of(tmp_path / "file").write_bytes((CONTENT + bytes(10))[:length])
    fetch()
    assert whole(tmp_path)
    assert len(server.asked) == (0 if length == N else 1)


def test_without_a_known_size_a_complete_part_is_recognized(fetch, server, session, tmp_path):
    begin(server, session, tmp_path, 500_000)
    note = tmp_path / "file.part.json"
    assert json.loads(note.read_text())["size"] == N
    part_of(tmp_path / "file").write_bytes(CONTENT)
    fetch(size=None, checksum=None)
    assert server.asked == []
    assert whole(tmp_path)


def test_a_range_beyond_the_end_starts_again(fetch, server, session, tmp_path):
    server.knows_tags = False
    begin(server, session, tmp_path, 800_000)
    server.files["/file"] = CONTENT[:100]
    fetch(size=None, checksum=None)
    assert (tmp_path / "file").read_bytes() == CONTENT[:100]


@pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
def test_checksums_of_git_and_its_large_files(fetch, tmp_path, algorithm):
    if algorithm == "git-sha1":
        done = subprocess.run(["git", "hash-object", "--stdin"], input=CONTENT, capture_output=True, check=True)
        digest = done.stdout.decode().strip()
    else:
        digest = hashlib.sha256(CONTENT).hexdigest()
    fetch(checksum=f"{algorithm}:{digest}")
    assert whole(tmp_path)
    (tmp_path / "file").unlink()
    with pytest.raises(DataError, match=f"has the {algorithm}"):
        fetch(checksum=f"{algorithm}:{digest[::-1]}")


# ---- the disk


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(fetch, server, tmp_path):
    server.claims["/file"] = 10**16
    with pytest.raises(DataError, match=r"needs another 10,000,000\.0 GB, and .* are free"):
        fetch(size=None, checksum=None)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_arrived(fetch, server, tmp_path):
    """A limit on the size of files stands for the full disk: it fails in the same call."""
    code = f"""
import requests, resource
from pathlib import Path
from landslide.download import RemoteFile, download
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
download(requests.Session(), RemoteFile({f"{server.url}/file"!r}, {N}, {MD5!r}), Path({str(tmp_path / "file")!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DataError" in done.stderr
    assert "make room on the disk" in done.stderr
    assert part_of(tmp_path / "file").stat().st_size == 300_000
    assert fetch() == N - 300_000
    assert whole(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_full_file_system_keeps_what_arrived(server, session, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        file = RemoteFile(f"{server.url}/file", N, MD5)
        with pytest.raises(DataError, match="needs another"):
            download(session, file, small / "file")
        monkeypatch.setattr(downloading, "_refuse_full_disk", lambda *arguments: None)
        with pytest.raises(DataError, match="No space left on device") as raised:
            download(session, file, small / "file")
        assert "make room" in raised.value.remedy
        assert 300_000 < part_of(small / "file").stat().st_size <= 512 * 1024
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_folder_that_cannot_be_written(session, server, tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        download(session, RemoteFile(f"{server.url}/file"), tmp_path / "absent" / "file")


# ---- processes that end


def test_a_killed_process_leaves_what_arrived_to_the_next(fetch, server, tmp_path):
    server.faults["/file"] = [Fault(after=640_000, stall=True)]
    code = f"""
import requests
from pathlib import Path
from landslide.download import RemoteFile, download
download(requests.Session(), RemoteFile({f"{server.url}/file"!r}, {N}, {MD5!r}), Path({str(tmp_path / "file")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    assert server.stalled.wait(60)
    part = part_of(tmp_path / "file")
    while downloading.size_of(part) < 500_000:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    assert fetch() == N - kept
    assert server.ranges("/file") == ["", f"bytes={kept}-"]
    assert whole(tmp_path)


def test_a_pause_ends_when_another_thread_says_so(server, session, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "_PAUSES", (60,))
    server.faults["/file"] = [Fault(status=503)]
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    before = time.monotonic()
    with pytest.raises(RemoteError):
        download(session, RemoteFile(f"{server.url}/file"), tmp_path / "file", stop=stop)
    assert time.monotonic() - before < 10


# ---- lists


def test_json_comes_with_the_address_of_the_next_page_after_some_attempts(server, session):
    server.files["/list"] = b"[1, 2]"
    server.faults["/list"] = [Fault(status=502), Fault(after=3)]
    assert get_json(session, f"{server.url}/list") == ([1, 2], None)
    server.headers["/list"] = {"Link": f'<{server.url}/list?page=2>; rel="next"'}
    assert get_json(session, f"{server.url}/list") == ([1, 2], f"{server.url}/list?page=2")


def test_no_json_is_an_error(server, session):
    server.files["/list"] = b"<html>sorry</html>"
    with pytest.raises(RemoteError, match="did not answer with JSON"):
        get_json(session, f"{server.url}/list")
    with pytest.raises(AbsentError):
        get_json(session, f"{server.url}/none")
