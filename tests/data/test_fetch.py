"""`landslide data fetch` against a real server on loopback: from archives as published to a pinned ./data."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from landslide import cli
from landslide.data import archive, demo, fetch, landslide4sense
from landslide.data import download as downloading
from landslide.data import project as project_data
from landslide.data.check import check
from landslide.data.digests import directory_digest
from landslide.data.landslide4sense import Archive, Release
from landslide.data.patches import find_patches
from landslide.errors import DataError
from tests.support.file_server import Fault, FileServer, file_server

ROOT = Path(__file__).resolve().parents[2]
PATCHES = {"train": 2, "validation": 1, "test": 1}
FOLDERS = {"train": "TrainData", "validation": "ValidData", "test": "TestData"}
RECORD = "/records/1/files"
TRAIN_ZIP = f"{RECORD}/TrainData.zip"
RESOLVE = "/datasets/someone/landslides/resolve/abc"
TREE = "/api/datasets/someone/landslides/tree/abc"


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Four generated patches as the official data set has them: three splits, numbered from 1 each."""
    folder = tmp_path_factory.mktemp("published")
    demo.generate(folder / "demo", scenes=((1, 4),))
    patches = iter(find_patches(folder / "demo"))
    for split, n_patches in PATCHES.items():
        for number in range(1, n_patches + 1):
            patch = next(patches)
            for kind, path in (("img/image", patch.image), ("mask/mask", patch.mask)):
                target = folder / "set" / FOLDERS[split] / f"{kind}_{number}.h5"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    return folder / "set"


@pytest.fixture(scope="module")
def zips(published) -> dict[str, bytes]:
    return {f"{folder}.zip": zipped(published / folder, f"{folder}/") for folder in FOLDERS.values()}


def zipped(folder: Path, prefix: str, extra: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


@pytest.fixture
def release(zips, monkeypatch) -> Release:
    """The release that the command fetches: as in the real one, the checksum of one archive and two sizes are known."""
    train, validation = zips["TrainData.zip"], zips["ValidData.zip"]
    release = Release(
        patches=PATCHES,
        archives=(
            Archive("TrainData.zip", "train", len(train), md5(train)),
            Archive("ValidData.zip", "validation", len(validation)),
            Archive("TestData.zip", "test", 1_000_000, exact_size=False),
        ),
        record="1",
        dataset="someone/landslides",
        revision="abc",
    )
    monkeypatch.setattr(landslide4sense, "LANDSLIDE4SENSE", release)
    return release


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloading, "_PAUSES", (0.01, 0.02, 0.04))
    monkeypatch.setattr(downloading, "_TIMEOUT", (1.0, 0.3))


@pytest.fixture
def server(zips, release, monkeypatch):
    with file_server() as server:
        server.files |= {f"{RECORD}/{name}": content for name, content in zips.items()}
        monkeypatch.setenv("LANDSLIDE_DATA_URL", server.url)
        yield server


@pytest.fixture(scope="session")
def dvc_repository(tmp_path_factory) -> Path:
    """A DVC repository with this project's configuration."""
    repository = tmp_path_factory.mktemp("dvc_repository")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=repository, check=True)
    config = (ROOT / ".dvc" / "config").read_text().replace("[core]", "[core]\n    no_scm = true")
    (repository / ".dvc" / "config").write_text(config)
    return repository


@pytest.fixture
def project(dvc_repository, tmp_path, monkeypatch) -> Path:
    project = Path(shutil.copytree(dvc_repository, tmp_path / "project"))
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder to fetch to, of no project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "somewhere" / "official"


def data(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["data", *map(str, arguments)])


def pinned(project: Path) -> str:
    return yaml.safe_load((project / "data.dvc").read_text())["outs"][0]["md5"]


def version_of(folder: Path) -> str:
    return directory_digest(folder)[0]


def in_a_process(release: Release, *arguments: str, first: str = "") -> list[str]:
    """The command as a process of its own, for this release."""
    code = f"""
from landslide.data import landslide4sense
from landslide.data import project as project_data
from landslide.data import download as downloading
from landslide.data.landslide4sense import Archive, Release
landslide4sense.LANDSLIDE4SENSE = {release!r}
downloading._TIMEOUT = (5.0, 30.0)
{first}
from landslide.cli import main
main(["data", "fetch", *{list(arguments)!r}])
"""
    return [sys.executable, "-c", code]


# ---- into the project


def test_fetch_pins_the_official_set_and_a_second_run_has_nothing_to_do(project, server, published, monkeypatch):
    result = data("fetch", "--keep-archives")
    assert result.exit_code == 0, result.output
    assert version_of(project / "data") == pinned(project) == version_of(published)
    assert "2 train, 1 validation, 1 test" in result.stdout
    assert "no faults" in result.stdout
    assert "git add data.dvc" in result.stdout
    assert data("check", "data").exit_code == 0
    archives = sorted(project.glob(".data-*/*/*"))
    assert [path.name for path in archives] == ["TestData.zip", "TrainData.zip", "ValidData.zip"]
    # Every byte is on the disk once: moved into place, and linked to DVC's cache.
    files = [path for path in project.rglob("*") if path.is_file() and path not in archives]
    inodes = {path.stat().st_ino: path.stat().st_size for path in files}
    assert sum(inodes.values()) < 1.05 * sum(path.stat().st_size for path in published.rglob("*.h5"))

    server.asked.clear()
    again = data("fetch")
    assert again.exit_code == 0
    assert "holds the official data set already" in again.stdout
    assert server.asked == []
    assert sorted(project.glob(".data-*/*/*")) == archives

    (project / "data/TrainData/mask/mask_1.h5").unlink()
    shutil.copy2(published / "TrainData/mask/mask_2.h5", project / "data/TrainData/mask/mask_1.h5")
    edited = data("fetch")
    assert edited.exit_code == 1
    assert "that is not what data.dvc pins" in edited.stderr
    assert pinned(project) == version_of(published)


def test_fetch_replaces_the_demo_set_alone(project, server, published, monkeypatch):
    (project / "data/TrainData/img").mkdir(parents=True)
    (project / "data/my_labels.txt").write_text("a week of work")
    refused = data("fetch")
    assert refused.exit_code == 1
    assert "something else than data.dvc pins" in refused.stderr
    assert server.asked == []
    version = version_of(project / "data")
    monkeypatch.setattr(demo, "DEMO_VERSION", version)
    (project / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": version, "path": "data"}]}))
    result = data("fetch", "data")
    assert result.exit_code == 0, result.output
    assert version_of(project / "data") == pinned(project) == version_of(published)
    assert not list(project.glob(".data-*"))


def test_when_dvc_fails_nothing_is_downloaded_again(project, server, published, monkeypatch):
    def failing(*arguments):
        raise DataError("dvc add failed: No space left on device", remedy="mend it")

    with monkeypatch.context() as patched:
        patched.setattr(project_data, "run_dvc", failing)
        result = data("fetch")
    assert result.exit_code == 1
    assert "dvc add failed" in result.stderr
    assert not (project / "data").exists()
    server.asked.clear()
    assert data("fetch").exit_code == 0
    assert [path for path, _ in server.asked if path.endswith(".zip")] == []
    assert version_of(project / "data") == pinned(project) == version_of(published)


def test_a_process_killed_before_dvc_was_done_is_taken_up(project, server, release, published):
    killing = "import os, signal; project_data.run_dvc = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)"
    command = in_a_process(release, first=killing)
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert (project / "data").is_dir()
    server.asked.clear()
    result = data("fetch")
    assert result.exit_code == 0, result.output
    assert "data.dvc pins it now" in result.stdout
    assert server.asked == []
    assert version_of(project / "data") == pinned(project) == version_of(published)
    assert not list(project.glob(".data-*"))


def test_the_project_needs_the_training_split(project, server):
    result = data("fetch", "--split", "test")
    assert result.exit_code == 1
    assert "landslide data fetch DIR --split test" in result.stderr
    assert server.asked == []


def test_outside_of_a_project_nothing_is_downloaded(folder, server):
    result = data("fetch")
    assert result.exit_code == 1
    assert "no .dvc folder" in result.stderr
    assert server.asked == []


# ---- to any folder


def test_a_folder_gets_the_set_unpinned(folder, server, published):
    result = data("fetch", folder)
    assert result.exit_code == 0, result.output
    assert version_of(folder) == version_of(published)
    assert [path.name for path in folder.parent.iterdir()] == ["official"]
    assert "data.dvc" not in result.stdout
    server.asked.clear()
    assert data("fetch", folder, "--split", "train").exit_code == 0
    assert server.asked == []


def test_single_splits_are_fetched_and_checked_alone(folder, server, published):
    result = data("fetch", folder, "--split", "test", "--split", "validation")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["TestData", "ValidData"]
    assert server.ranges(TRAIN_ZIP) == []
    assert check(folder, required=("test", "validation")).ok
    assert [fault.code for fault in check(folder).faults] == ["missing_folder"]


def test_splits_that_an_earlier_run_brought_are_left_out(folder, server, zips):
    server.files[f"{RECORD}/TestData.zip"] = b"damaged"
    assert data("fetch", folder).exit_code == 1
    assert data("fetch", folder, "--split", "train").exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["TrainData"]
    assert len(server.ranges(TRAIN_ZIP)) == 1


def test_a_folder_that_holds_something_is_left_alone(folder, server):
    folder.mkdir(parents=True)
    assert data("fetch", folder, "--split", "test").exit_code == 0  # an empty one will do
    server.asked.clear()
    other = folder.with_name("other")
    other.mkdir()
    (other / "mine").touch()
    result = data("fetch", other)
    assert result.exit_code == 1
    assert "is not an empty folder" in result.stderr
    assert server.asked == []


def test_archives_are_kept_on_request_and_used_again(folder, server, zips):
    result = data("fetch", folder, "--keep-archives")
    work_folder = folder.parent / ".official-fetch/zenodo"
    assert f"the archives are in {work_folder}" in result.stdout
    assert {path.name: path.read_bytes() for path in work_folder.iterdir()} == zips
    shutil.rmtree(folder)
    server.asked.clear()
    assert data("fetch", folder, "--keep-archives").exit_code == 0
    assert [path for path, _ in server.asked if path.endswith(".zip")] == []
    assert len(list(work_folder.iterdir())) == 3


def test_without_that_request_an_archive_goes_before_the_next_comes(folder, server, monkeypatch):
    seen = []

    def download(session, file, destination, **options):
        seen.append(sorted(path.name for path in destination.parent.glob("*.zip")))
        downloading.download(session, file, destination, **options)

    monkeypatch.setattr(fetch, "download", download)
    assert data("fetch", folder).exit_code == 0
    assert seen == [[], [], []]


def test_two_processes_do_not_fetch_to_one_place(folder, server):
    work_folder = folder.parent / ".official-fetch/zenodo"
    work_folder.mkdir(parents=True)
    handle = os.open(work_folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    result = data("fetch", folder)
    assert result.exit_code == 1
    assert "another process is fetching" in result.stderr
    os.close(handle)
    assert data("fetch", folder).exit_code == 0


# ---- what goes wrong on the way


def test_a_break_off_is_resumed_and_the_progress_bar_ends_at_the_size(folder, server, release, monkeypatch, published):
    bars = []

    class Bar:
        def __init__(self, *, desc, total, initial, **options):
            self.name, self.total, self.n = desc, total, initial
            bars.append(self)

        def update(self, n):
            self.n += n

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

    monkeypatch.setattr(fetch, "tqdm", Bar)
    server.faults[TRAIN_ZIP] = [Fault(after=700_000), *[Fault(status=503)] * 3]
    gone = data("fetch", folder)
    assert gone.exit_code == 1
    assert "goes on from what has arrived" in gone.stderr
    server.knows_ranges = False  # the bar goes back
    assert data("fetch", folder).exit_code == 0
    assert version_of(folder) == version_of(published)
    downloads = [bar for bar in bars if bar.name == "TrainData.zip"]
    assert 600_000 < downloads[0].n < 800_000
    assert downloads[1].n == downloads[1].total == release.archives[0].size
    unpacking = next(bar for bar in bars if bar.name == "unpacking TrainData.zip")
    assert unpacking.n == sum(path.stat().st_size for path in published.glob("TrainData/*/*"))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_ended_leaves_what_arrived_to_the_next(folder, server, release, published, ending):
    server.faults[TRAIN_ZIP] = [Fault(after=900_000, stall=True)]
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's `&` has it ignored
    command = in_a_process(release, str(folder), first=heed)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stalled.wait(60)
    part = folder.parent / ".official-fetch/zenodo/TrainData.zip.part"
    while downloading.size_of(part) < 800_000:
        time.sleep(0.01)
    process.send_signal(ending)
    error = process.communicate()[1]
    if ending == signal.SIGINT:
        assert process.returncode == 1
        assert "goes on from what has arrived" in error
        assert "Traceback" not in error
    kept = part.stat().st_size
    assert data("fetch", folder).exit_code == 0
    assert server.ranges(TRAIN_ZIP) == ["", f"bytes={kept}-"]
    assert version_of(folder) == version_of(published)


def test_a_wrong_archive_is_deleted_and_named(folder, server, zips):
    server.files[TRAIN_ZIP] = zips["TrainData.zip"][::-1]
    result = data("fetch", folder)
    assert result.exit_code == 1
    assert "TrainData.zip is not the published file: it has the md5" in result.stderr
    assert "Traceback" not in result.output
    assert not list(folder.parent.rglob("*.zip*"))
    assert len(server.ranges(TRAIN_ZIP)) == 1
    server.files[TRAIN_ZIP] = zips["TrainData.zip"]
    assert data("fetch", folder).exit_code == 0


def test_an_archive_of_another_size_is_refused_without_a_checksum_too(folder, server, zips):
    server.files[f"{RECORD}/ValidData.zip"] = zips["TestData.zip"]  # a sound archive, but the wrong one
    result = data("fetch", folder, "--split", "validation")
    assert result.exit_code == 1
    assert f"ValidData.zip is not the published file: it has {len(zips['TestData.zip']):,} bytes" in result.stderr


def test_an_address_without_the_archives_is_named(folder, server):
    result = data("fetch", folder, "--url", f"{server.url}/mirror/")
    assert result.exit_code == 1
    assert f"{server.url}/mirror{TRAIN_ZIP} cannot be downloaded: it answered 404" in result.stderr
    assert "LANDSLIDE_DATA_URL" in result.stderr


def record(zips: dict[str, bytes], **changes: object) -> bytes:
    files = [
        {"key": name, "size": len(content), "checksum": md5(content), "links": {}} for name, content in zips.items()
    ]
    return json.dumps({"files": [{**file, **changes.get(file["key"], {})} for file in files]}).encode()


def test_the_list_of_the_record_says_what_is_not_known_beforehand(folder, server, zips):
    server.files["/api/records/1"] = record(zips)
    server.files[f"{RECORD}/TestData.zip"] = zips["ValidData.zip"]  # a sound archive, but the wrong one
    result = data("fetch", folder)
    assert result.exit_code == 1
    assert "TestData.zip is not the published file" in result.stderr
    server.files[f"{RECORD}/TestData.zip"] = zips["TestData.zip"]
    assert data("fetch", folder).exit_code == 0


@pytest.mark.parametrize(
    "listed",
    [b"<html>", b"{}", b'{"files": [{"key": "TrainData.zip"}]}', None],
    ids=["no JSON", "no files", "no size", "absent"],
)
def test_a_record_without_a_useful_list_will_do(folder, server, listed, published):
    if listed is not None:
        server.files["/api/records/1"] = listed
    assert data("fetch", folder).exit_code == 0
    assert version_of(folder) == version_of(published)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("TrainData.zip", {"checksum": "md5:" + "0" * 32}), ("ValidData.zip", {"size": 1})],
    ids=["checksum", "size"],
)
def test_a_list_that_contradicts_what_is_known_is_not_used(folder, server, zips, caplog, name, wrong):
    server.files["/api/records/1"] = record(zips, **{name: wrong, "TestData.zip": {"checksum": "md5:" + "0" * 32}})
    assert data("fetch", folder).exit_code == 0
    assert f"says something else of {name}" in caplog.text


# ---- damaged and hostile archives


def hostile(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("TestData/img/image_1.h5", b"x")
        file.writestr(name, b"x")
    return buffer.getvalue()


def truncated(content: bytes) -> bytes:
    """As long as it should be, but the end never came."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def damaged(content: bytes) -> bytes:
    """One byte of the packed data is another."""
    return content[:5000] + bytes([content[5000] ^ 255]) + content[5001:]


def encrypted(content: bytes) -> bytes:
    """The archive says so of each of its files, in the list at its end."""
    spoiled, place = bytearray(content), 0
    while (place := content.find(b"PK\x01\x02", place) + 1) > 0:
        spoiled[place + 7] |= 1
    return bytes(spoiled)


def unknown_compression(content: bytes) -> bytes:
    return content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63")


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (truncated, "not a zip file"),
        (damaged, ""),
        (encrypted, "encrypted"),
        (unknown_compression, "compression"),
        (lambda content: hostile("../../evil.h5"), "outside of its own folder"),
        (lambda content: hostile("/tmp/evil.h5"), "outside of its own folder"),
        (lambda content: hostile("..\\evil.h5"), "outside of its own folder"),
        (lambda content: hostile("TestData/img/image_2.h5"), "2 files img/image_N.h5, and 1 are expected"),
        (lambda content: hostile("img/image_1.h5"), "twice"),
    ],
    ids=[
        "truncated",
        "damaged",
        "encrypted",
        "compression",
        "parent folder",
        "absolute",
        "backslash",
        "too many",
        "twice",
    ],
)
def test_a_bad_archive_leaves_nothing_and_the_next_run_starts_anew(folder, server, zips, spoil, finding):
    server.files[f"{RECORD}/TestData.zip"] = spoil(zips["TestData.zip"])
    result = data("fetch", folder, "--split", "test")
    assert result.exit_code == 1
    assert "TestData.zip is damaged, or is not the published archive" in result.stderr
    assert finding in result.stderr
    assert not list(folder.parent.rglob("*.h5"))
    assert not list(folder.parent.rglob("*.zip*"))
    assert not list(folder.parent.parent.rglob("evil*"))
    server.files[f"{RECORD}/TestData.zip"] = zips["TestData.zip"]
    assert data("fetch", folder, "--split", "test").exit_code == 0


def test_only_patches_are_unpacked_whatever_folder_they_are_in(folder, server, published):
    extra = {"__MACOSX/img/._image_1.h5": b"x", "TestData/.DS_Store": b"x", "TestData/img/run.sh": b"x"}
    server.files[f"{RECORD}/TestData.zip"] = zipped(published / "TestData", "deep/down/", extra)
    result = data("fetch", folder, "--split", "test")
    assert result.exit_code == 0, result.output
    assert "left out 3 file(s) that are no patches" in result.stdout
    assert sorted(path.name for path in folder.rglob("*.*")) == ["image_1.h5", "mask_1.h5"]


def test_faults_of_the_data_are_reported_and_nothing_is_put_in_place(folder, server, published, tmp_path):
    spoiled = Path(shutil.copytree(published / "TestData", tmp_path / "spoiled"))
    (spoiled / "img/image_1.h5").write_bytes(b"no HDF5")
    server.files[f"{RECORD}/TestData.zip"] = zipped(spoiled, "TestData/")
    result = data("fetch", folder, "--split", "test")
    assert result.exit_code == 1
    assert "image_1.h5: cannot be read" in result.stdout
    assert "1 fault(s)" in result.stderr
    assert not folder.exists()


# ---- the disk


def test_a_small_disk_is_refused_before_anything_is_downloaded(folder, server, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=6_000_000))
    result = data("fetch", folder)
    assert result.exit_code == 1
    assert "free" in result.stderr
    assert "--split train" in result.stderr
    assert server.ranges(TRAIN_ZIP) == []


@pytest.mark.parametrize(
    ("keep", "there", "megabytes"),
    [
        (False, 0, 7049 + 2484),  # the largest archive beside what it holds; the others come later
        (True, 0, 7049 + 455 + 1484 + 2484 + 143 + 471),
        (False, 2000, 7049 + 484),
        (True, 2000, 7049 + 455 + 1484 + 484 + 143 + 471),
    ],
)
def test_what_the_full_data_set_needs(tmp_path, keep, there, megabytes):
    release = landslide4sense.LANDSLIDE4SENSE
    files = {one: downloading.RemoteFile("", one.size) for one in release.archives}
    with (tmp_path / "TrainData.zip.part").open("wb") as part:
        part.truncate(there * 1_000_000)
    needed = fetch._needed_for_archives(files, tmp_path / "set", release, keep)
    assert needed / 1e6 == pytest.approx(megabytes, abs=2)


def test_a_disk_that_fills_up_while_unpacking_leaves_the_archive_alone(folder, server, release, zips, published):
    """A limit on the size of files stands for the full disk; the archive is smaller than an image."""
    work_folder = folder.parent / ".official-fetch/zenodo"
    work_folder.mkdir(parents=True)
    (work_folder / "TestData.zip").write_bytes(zips["TestData.zip"])
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))"
    command = in_a_process(release, str(folder), "--split", "test", first=limit)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "make room on the disk" in done.stderr
    assert [path.name for path in work_folder.rglob("*") if path.is_file()] == ["TestData.zip"]
    assert data("fetch", folder, "--split", "test").exit_code == 0
    assert server.ranges(f"{RECORD}/TestData.zip") == []
    assert version_of(folder / "TestData") == version_of(published / "TestData")


# ---- the Hugging Face layout


@pytest.fixture
def hub(server: FileServer, published) -> FileServer:
    """The same patches as single files, with lists of two entries a page and the stray files of the real copy."""
    kinds = {"images": ("img", "image"), "annotations": ("mask", "mask")}
    for split, folder in FOLDERS.items():
        for top, (old, kind) in kinds.items():
            entries = []
            for path in sorted((published / folder / old).iterdir()):
                content = path.read_bytes()
                name = f"{top}/{split}/{path.name}"
                server.files[f"{RESOLVE}/{name}"] = content
                entries.append(listed(name, content, large=kind == "image"))
            if (top, split) == ("annotations", "train"):
                entries.append(listed(f"{top}/{split}/image_9.h5", b"stray" * 160, large=True))
            entries.append({"type": "directory", "oid": "0", "size": 0, "path": f"{top}/{split}/more"})
            first = f"{TREE}/{top}/{split}?recursive=true"
            second = f"{first}&cursor=abc"
            server.files[first] = json.dumps(entries[:2]).encode()
            server.files[second] = json.dumps(entries[2:]).encode()
            server.headers[first] = {"Link": f'<{server.url}{second}>; rel="next"'}
    return server


def listed(name: str, content: bytes, *, large: bool) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry = {"type": "file", "oid": blob, "size": len(content), "path": name}
    if large:
        digest = hashlib.sha256(content).hexdigest()
        entry |= {"oid": "of the pointer", "lfs": {"oid": digest, "size": len(content), "pointerSize": 132}}
    return entry


def from_hub(*arguments: object) -> Result:
    return data("fetch", *arguments, "--source", "huggingface")


def test_the_hub_gives_the_same_patches_in_the_other_layout(project, hub, published):
    hub.faults[f"{TREE}/images/train?recursive=true"] = [Fault(status=503)]
    hub.faults[f"{RESOLVE}/images/train/image_2.h5"] = [Fault(after=500_000)]
    result = from_hub()
    assert result.exit_code == 0, result.output
    assert pinned(project) == version_of(project / "data")
    for split in PATCHES:
        theirs, ours = find_patches(published, split), find_patches(project / "data", split)
        assert [p.number for p in theirs] == [p.number for p in ours]
        assert [p.image.read_bytes() for p in theirs] == [p.image.read_bytes() for p in ours]
        assert [p.mask.read_bytes() for p in theirs] == [p.mask.read_bytes() for p in ours]
    assert not list((project / "data").rglob("image_9.h5"))
    assert [fault for fault in hub.asked if "image_9" in fault[0]] == []
    assert hub.ranges(f"{RESOLVE}/images/train/image_2.h5")[1].startswith("bytes=4")
    hub.asked.clear()
    assert from_hub().exit_code == 0
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "algorithm"), [("images/train/image_1.h5", "sha256"), ("annotations/train/mask_2.h5", "git-sha1")]
)
def test_a_wrong_file_of_the_hub_is_named_and_the_others_are_kept(folder, hub, name, algorithm):
    content = hub.files[f"{RESOLVE}/{name}"]
    hub.files[f"{RESOLVE}/{name}"] = content[::-1]
    result = from_hub(folder)
    assert result.exit_code == 1
    assert f"{name} is not the published file: it has the {algorithm}" in result.stderr
    hub.files[f"{RESOLVE}/{name}"] = content
    there = {f"{RESOLVE}/{'/'.join(path.parts[-3:])}" for path in folder.parent.rglob("*.h5")}
    assert f"{RESOLVE}/{name}" not in there
    hub.asked.clear()
    assert from_hub(folder).exit_code == 0
    again = {path for path, _ in hub.asked if path.startswith(RESOLVE)}
    assert f"{RESOLVE}/{name}" in again
    assert again | there == {path for path in hub.files if path.startswith(RESOLVE) and "image_9" not in path}
    assert not again & there


def test_masks_that_the_hub_lacks_are_no_error_outside_of_training(folder, hub):
    del hub.files[f"{TREE}/annotations/test?recursive=true"]
    result = from_hub(folder, "--split", "test")
    assert result.exit_code == 0, result.output
    assert [patch.mask for patch in find_patches(folder, "test")] == [None]
    del hub.files[f"{TREE}/annotations/train?recursive=true"]
    hub.asked.clear()
    assert from_hub(folder.with_name("other"), "--split", "train").exit_code == 1
    assert [path for path, _ in hub.asked if path.startswith(RESOLVE)] == []


def test_a_hub_that_lists_another_number_of_images_is_refused(folder, hub, monkeypatch, release):
    other = replace(release, patches={**PATCHES, "train": 3})
    monkeypatch.setattr(landslide4sense, "LANDSLIDE4SENSE", other)
    result = from_hub(folder)
    assert result.exit_code == 1
    assert "lists 2 files in images/train, and 3 were published" in result.stderr
    assert [path for path, _ in hub.asked if path.startswith(RESOLVE)] == []


def test_a_hub_without_the_data_set_is_named(folder, server):
    result = from_hub(folder)
    assert result.exit_code == 1
    assert "it answered 404" in result.stderr


# ---- the facts


def test_the_published_release():
    release = landslide4sense.LANDSLIDE4SENSE
    train = release.archives[0]
    assert (train.name, train.size) == ("TrainData.zip", 2_484_071_934)
    assert train.checksum == "md5:408f09247e3dd256458bc2f6e9edbffb"
    assert [(one.size, one.exact_size) for one in release.archives[1:]] == [(143_423_314, True), (470_900_000, False)]
    assert release.patches == {"train": 3799, "validation": 245, "test": 800}
    assert {one.split for one in release.archives} == set(landslide4sense.SPLITS)


def test_patches_of_an_archive_come_whole_or_not_at_all(tmp_path, zips, monkeypatch):
    path = tmp_path / "TrainData.zip"
    path.write_bytes(zips["TrainData.zip"])
    extract = archive._extract

    def interrupted(*arguments):
        extract(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(archive, "_extract", interrupted)
        with pytest.raises(KeyboardInterrupt):
            archive.unpack(path, "train", tmp_path / "set", n_patches=2)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["TrainData.zip"]
    assert archive.unpack(path, "train", tmp_path / "set", n_patches=2) == []


# zipfile raises the first two itself: for an encrypted file, and for a compression that it does not know
@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, ValueError])
def test_an_error_of_the_caller_is_not_taken_for_damage(tmp_path, zips, error):
    path = tmp_path / "TrainData.zip"
    path.write_bytes(zips["TrainData.zip"])

    def progress(n: int) -> None:
        raise error("the terminal is gone")

    with pytest.raises(error, match="the terminal is gone"):
        archive.unpack(path, "train", tmp_path / "set", n_patches=2, unpacked=progress)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["TrainData.zip"]
