"""`landslide data fetch` against a real server on loopback, from the published files to a pinned ./data."""

import hashlib
import io
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from landslide import cli
from landslide.data import demo, downloads, landslide4sense
from landslide.data import project as project_data
from landslide.data.check import check
from landslide.data.digests import directory_digest
from landslide.data.landslide4sense import Archive, Release
from landslide.data.patches import find_patches
from landslide.data.project import replacing
from landslide.errors import DataError
from tests.support.file_server import Fault, FileServer, file_server
from tests.support.hub import serve_dataset

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATCHES = {"train": 2, "validation": 1, "test": 1}
FOLDERS = {"train": "TrainData", "validation": "ValidData", "test": "TestData"}
REVISION = "ab" * 20
DATASET = "someone/landslides"
ZENODO = "/records/1/files"
HUB = f"/datasets/{DATASET}/resolve/{REVISION}"
LARGE_FILE = {"zenodo": f"{ZENODO}/TrainData.zip", "huggingface": f"{HUB}/images/train/image_2.h5"}
SOURCES = pytest.mark.parametrize("source", ["huggingface", "zenodo"])
# Of tests that take seconds.
MOSTLY_ONE = pytest.mark.parametrize("source", ["huggingface", pytest.param("zenodo", marks=pytest.mark.soak)])


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Four generated patches in the layout of Zenodo: three splits, each numbered from 1."""
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


@pytest.fixture(scope="module")
def hub_files(published) -> dict[str, bytes]:
    """The same patches in the layout of Hugging Face, with a stray file and a README as in the real copy."""
    files = {"README.md": b"landslides", "annotations/train/image_9.h5": b"stray" * 160}
    for split, folder in FOLDERS.items():
        for top, kind in (("images", "img"), ("annotations", "mask")):
            files |= {f"{top}/{split}/{path.name}": path.read_bytes() for path in (published / folder / kind).iterdir()}
    return files


@pytest.fixture
def release(zips, monkeypatch) -> Release:
    """The release that the command fetches. As in the real one, one archive has a known checksum."""
    train = zips["TrainData.zip"]
    release = Release(
        patches=PATCHES,
        archives={
            "train": Archive("TrainData.zip", len(train), f"md5:{hashlib.md5(train).hexdigest()}"),
            "validation": Archive("ValidData.zip", len(zips["ValidData.zip"])),
            "test": Archive("TestData.zip", 1_000_000),
        },
        record="1",
        dataset=DATASET,
        revision=REVISION,
    )
    monkeypatch.setattr(landslide4sense, "fetch", partial(landslide4sense.fetch, release=release))
    return release


@pytest.fixture
def server(zips, hub_files, release, monkeypatch):
    with file_server() as server:
        server.files |= {f"{ZENODO}/{name}": content for name, content in zips.items()}
        serve_dataset(server, DATASET, REVISION, hub_files)
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
    """A folder to fetch into, outside any project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "somewhere" / "official"


def zipped(folder: Path, prefix: str, extra: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return buffer.getvalue()


def fetch(*arguments: object, source: str = "huggingface") -> Result:
    return CliRunner().invoke(cli.main, ["data", "fetch", "--source", source, *map(str, arguments)])


def fetch_process(release: Release, *arguments: object, source: str, first: str = "") -> list[str]:
    """Return the command line that runs the command in a separate process."""
    code = f"""
from functools import partial
from landslide.data import landslide4sense
from landslide.data import project as project_data
from landslide.data.landslide4sense import Archive, Release
landslide4sense.fetch = partial(landslide4sense.fetch, release={release!r})
{first}
from landslide.cli import main
main(["data", "fetch", "--source", {source!r}, *{[str(argument) for argument in arguments]!r}])
"""
    return [sys.executable, "-c", code]


def pinned(project: Path) -> str:
    return yaml.safe_load((project / "data.dvc").read_text())["outs"][0]["md5"]


def version_of(folder: Path) -> str:
    return directory_digest(folder)[0]


def holds_the_published_patches(folder: Path, published: Path) -> bool:
    """Whether a folder holds the patches of all splits, in either layout, and no other files."""
    for split in PATCHES:
        for theirs, ours in zip(find_patches(published, split), find_patches(folder, split), strict=True):
            assert theirs.number == ours.number
            assert theirs.image.read_bytes() == ours.image.read_bytes()
            assert theirs.mask.read_bytes() == ours.mask.read_bytes()
    return sum(path.is_file() for path in folder.rglob("*")) == 2 * sum(PATCHES.values())


def requested_files(server: FileServer) -> set[str]:
    """The files that were requested from the server, without listings."""
    return {path for path, _ in server.asked if path.startswith((ZENODO, HUB))}


# ---- into the project


@MOSTLY_ONE
def test_fetch_pins_the_official_set_and_the_next_run_downloads_nothing(project, server, published, source):
    result = fetch(source=source)
    assert result.exit_code == 0, result.output
    assert holds_the_published_patches(project / "data", published)
    assert version_of(project / "data") == pinned(project)
    assert "2 train, 1 validation, 1 test" in result.stdout
    assert "no faults" in result.stdout
    assert "git add data.dvc" in result.stdout
    assert sorted(path.name for path in project.iterdir()) == [".dvc", ".dvcignore", "data", "data.dvc"]
    assert {path.stat().st_nlink for path in (project / "data").rglob("*.h5")} == {1}

    server.asked.clear()
    again = fetch(source=source)
    assert again.exit_code == 0
    assert "holds the official data set already" in again.stdout
    assert server.asked == []


def test_stray_files_of_the_hub_are_not_downloaded(folder, server):
    assert fetch(folder).exit_code == 0
    assert [path for path in requested_files(server) if "image_9" in path or "README" in path] == []


def test_edited_data_is_not_pinned(project, server, published):
    assert fetch(source="zenodo").exit_code == 0
    mask = project / "data/TrainData/mask/mask_1.h5"
    mask.unlink()
    shutil.copy2(published / "TrainData/mask/mask_2.h5", mask)
    edited = fetch()
    assert edited.exit_code == 1
    assert "that is not what data.dvc pins" in edited.stderr
    assert pinned(project) == version_of(published)


def test_fetch_replaces_only_recoverable_data(project, server, published, monkeypatch):
    (project / "data/TrainData/img").mkdir(parents=True)
    (project / "data/my_labels.txt").write_text("a week of work")
    refused = fetch()
    assert refused.exit_code == 1
    assert "is not pinned in data.dvc" in refused.stderr
    assert server.asked == []
    version = version_of(project / "data")
    monkeypatch.setattr(demo, "DEMO_VERSION", version)
    (project / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": version, "path": "data"}]}))
    result = fetch("data")
    assert result.exit_code == 0, result.output
    assert holds_the_published_patches(project / "data", published)
    assert version_of(project / "data") == pinned(project)
    assert not list(project.glob(".data-*"))


@MOSTLY_ONE
def test_nothing_is_downloaded_again_if_dvc_fails(project, server, published, monkeypatch, source):
    def failing(*arguments):
        raise DataError("dvc add failed: No space left on device", remedy="mend it")

    with monkeypatch.context() as patched:
        patched.setattr(project_data, "run_dvc", failing)
        result = fetch(source=source)
    assert result.exit_code == 1
    assert "dvc add failed" in result.stderr
    assert not (project / "data").exists()
    server.asked.clear()
    assert fetch(source=source).exit_code == 0
    assert server.asked == []
    assert holds_the_published_patches(project / "data", published)
    assert version_of(project / "data") == pinned(project)


def test_the_next_run_pins_data_moved_by_a_killed_run(project, server, release, published):
    killing = "import os, signal; project_data.run_dvc = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)"
    command = fetch_process(release, source="zenodo", first=killing)
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert (project / "data").is_dir()
    server.asked.clear()
    result = fetch(source="zenodo")
    assert result.exit_code == 0, result.output
    assert "data.dvc pins it now" in result.stdout
    assert server.asked == []
    assert version_of(project / "data") == pinned(project) == version_of(published)
    assert not list(project.glob(".data-*"))


def test_the_project_needs_the_training_split(project, server):
    result = fetch("--split", "test")
    assert result.exit_code == 1
    assert "landslide data fetch DIR --split test" in result.stderr
    assert server.asked == []


def test_nothing_is_downloaded_outside_a_project(folder, server):
    result = fetch()
    assert result.exit_code == 1
    assert "no .dvc folder" in result.stderr
    assert server.asked == []


# ---- to any folder


def test_single_splits_are_fetched_and_checked(folder, server):
    folder.mkdir(parents=True)  # an empty folder is accepted
    result = fetch(folder, "--split", "test", "--split", "validation", source="zenodo")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["TestData", "ValidData"]
    assert [path.name for path in folder.parent.iterdir()] == ["official"]
    assert "data.dvc" not in result.stdout
    assert server.ranges(LARGE_FILE["zenodo"]) == []
    assert check(folder, required=("test", "validation")).ok
    server.asked.clear()
    assert fetch(folder, "--split", "test").exit_code == 0
    assert server.asked == []


@SOURCES
def test_unrequested_splits_of_an_earlier_run_are_left_out(folder, server, hub_files, source):
    server.files[f"{ZENODO}/TestData.zip"] = server.files[f"{HUB}/images/test/image_1.h5"] = b"damaged"
    assert fetch(folder, source=source).exit_code == 1
    server.asked.clear()
    assert fetch(folder, "--split", "train", source=source).exit_code == 0
    assert check(folder).ok
    assert len(list(folder.rglob("*.h5"))) == 4
    assert {path.name for path in folder.iterdir()} <= {"TrainData", "images", "annotations"}
    if source == "zenodo":
        assert server.asked == []


def test_masks_are_optional_outside_the_training_split(folder, server, hub_files):
    without = {path: content for path, content in hub_files.items() if "annotations/test" not in path}
    serve_dataset(server, DATASET, REVISION, without)
    assert fetch(folder, "--split", "test").exit_code == 0
    assert [patch.mask for patch in find_patches(folder, "test")] == [None]


def test_a_non_empty_destination_is_refused_before_the_download(folder, server):
    folder.mkdir(parents=True)
    (folder / "mine").touch()
    result = fetch(folder)
    assert result.exit_code == 1
    assert "is not an empty folder" in result.stderr
    assert server.asked == []
    assert [path.name for path in folder.rglob("*")] == ["mine"]


# ---- interrupted downloads


@SOURCES
def test_an_interrupted_download_resumes(folder, server, published, source):
    server.faults[LARGE_FILE[source]] = [Fault(after=700_000)]
    result = fetch(folder, source=source)
    assert result.exit_code == 0, result.output
    assert holds_the_published_patches(folder, published)
    assert len(server.ranges(LARGE_FILE[source])) == 2


@SOURCES
def test_the_next_run_downloads_only_missing_files(folder, server, published, source):
    server.faults[LARGE_FILE[source]] = [Fault(after=700_000), Fault(status=500)]
    result = fetch(folder, source=source)
    assert result.exit_code == 1
    assert f"{server.url}" in result.stderr
    assert "run this again: it resumes" in result.stderr
    assert "Traceback" not in result.output
    assert not folder.exists()
    arrived = {f"{HUB}/{'/'.join(path.parts[-3:])}" for path in folder.parent.rglob("*.h5")}
    server.asked.clear()
    assert fetch(folder, source=source).exit_code == 0
    assert holds_the_published_patches(folder, published)
    assert not requested_files(server) & arrived
    if source == "zenodo":
        (resumed,) = server.ranges(LARGE_FILE[source])
        assert 600_000 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= 700_000


def test_a_server_without_range_support_sends_the_whole_archive_again(folder, server, published):
    server.knows_ranges = False
    server.faults[LARGE_FILE["zenodo"]] = [Fault(after=600_000)]
    assert fetch(folder, source="zenodo").exit_code == 0
    assert holds_the_published_patches(folder, published)


def test_repeated_interruptions_at_the_same_byte_are_an_error(folder, server):
    server.knows_ranges = False
    server.faults[LARGE_FILE["zenodo"]] = [Fault(after=600_000)] * 50
    result = fetch(folder, source="zenodo")
    assert result.exit_code == 1
    assert f"the download from {server.url}{LARGE_FILE['zenodo']} failed" in result.stderr
    assert len(server.ranges(LARGE_FILE["zenodo"])) == 2


@pytest.mark.parametrize("excess", [0, 10], ids=["complete", "too long"])
def test_a_complete_partial_file_is_verified_and_a_longer_one_discarded(folder, server, zips, published, excess):
    part = folder.parent / ".official-fetch" / "TrainData.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(zips["TrainData.zip"] + bytes(excess))
    result = fetch(folder, source="zenodo")
    if excess:
        assert "TrainData.zip is not the published file" in result.stderr
        result = fetch(folder, source="zenodo")
    assert result.exit_code == 0, result.output
    assert holds_the_published_patches(folder, published)


@MOSTLY_ONE
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_the_next_run_resumes_after_the_process_was_ended(folder, server, release, published, source, ending):
    server.faults[LARGE_FILE[source]] = [Fault(after=900_000, stall=True)]
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's `&` ignores it
    command = fetch_process(release, folder, source=source, first=heed)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stalled.wait(60)
    work_folder = folder.parent / ".official-fetch"
    part = work_folder / "TrainData.zip.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 800_000 if source == "zenodo" else complete(work_folder))
    process.send_signal(ending)
    server.ended.set()
    error = process.communicate()[1]
    if ending == signal.SIGINT:
        assert process.returncode == 1
        assert "the same command resumes" in error
        assert "Traceback" not in error
    server.asked.clear()
    result = fetch(folder, source=source)
    assert result.exit_code == 0, result.output
    assert holds_the_published_patches(folder, published)
    assert [path.name for path in folder.parent.iterdir()] == ["official"]
    if source == "zenodo":
        assert server.ranges(LARGE_FILE[source])[0].startswith("bytes=8")
    else:  # after Ctrl-C, running downloads may still complete
        assert requested_files(server) <= {LARGE_FILE[source]}


def complete(work_folder: Path) -> bool:
    """Whether everything but one image has arrived from the Hub, and its library has noted that."""
    notes = [path for path in work_folder.rglob("*.h5.metadata") if path.stat().st_size]
    return len(list(work_folder.rglob("*.h5"))) == len(notes) == 2 * sum(PATCHES.values()) - 1


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_process_is_told_which_process_is_fetching(folder, server, release, published):
    server.faults[LARGE_FILE["zenodo"]] = [Fault(after=900_000, stall=True)]
    process = subprocess.Popen(fetch_process(release, folder, source="zenodo"))
    assert server.stalled.wait(60)
    server.asked.clear()
    for source in ("zenodo", "huggingface"):
        result = fetch(folder, source=source)
        assert result.exit_code == 1
        assert f"is locked by process {process.pid}" in result.stderr
    assert server.asked == []
    server.ended.set()
    assert process.wait(60) == 0
    assert holds_the_published_patches(folder, published)


def test_after_the_download_it_waits_for_a_process_that_replaces_the_data(project, server, published):
    held, release_it = threading.Event(), threading.Event()

    def replace() -> None:
        with replacing(project):
            held.set()
            release_it.wait(60)

    other = threading.Thread(target=replace)
    other.start()
    assert held.wait(60)
    threading.Thread(target=lambda: (wait_until((project / ".data-fetch/verified").exists), release_it.set())).start()
    result = fetch()
    release_it.set()
    other.join()
    assert result.exit_code == 0, result.output
    assert holds_the_published_patches(project / "data", published)
    assert version_of(project / "data") == pinned(project)


# ---- servers without the files


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid"])
@SOURCES
def test_a_connection_that_fails_at_once_ends_soon_and_names_the_server(folder, release, source, address):
    before = time.monotonic()
    result = fetch(folder, "--url", f"http://user:secret@{address}", source=source)
    assert time.monotonic() - before < 60
    assert result.exit_code == 1
    assert f"http://{address}" in result.stderr
    assert "ConnectError" in result.stderr or "ConnectionError" in result.stderr
    assert "secret" not in result.output
    assert not folder.exists()


@SOURCES
def test_a_server_that_does_not_answer_times_out(folder, server, monkeypatch, source):
    asked = {"zenodo": LARGE_FILE["zenodo"], "huggingface": f"/api/datasets/{DATASET}/revision/{REVISION}?expand=sha"}
    monkeypatch.setattr(downloads, "_HUB_TIMEOUT", 0.5)
    monkeypatch.setattr(downloads, "_TIMEOUT", (0.5, 0.5))
    server.faults[asked[source]] = [Fault(stall=True)] * 9
    before = time.monotonic()
    result = fetch(folder, source=source)
    assert time.monotonic() - before < 10
    assert result.exit_code == 1
    assert server.url in result.stderr
    assert "imeout" in result.stderr or "timed out" in result.stderr


@SOURCES
def test_a_server_without_the_data_set_is_named(folder, server, source):
    result = fetch(folder, "--url", f"{server.url}/mirror", source=source)
    assert result.exit_code == 1
    assert f"{server.url}/mirror" in result.stderr
    assert "404" in result.stderr
    assert "LANDSLIDE_DATA_URL" in result.stderr


def test_a_hub_with_fewer_patches_is_refused(folder, server, hub_files):
    fewer = {path: content for path, content in hub_files.items() if not path.endswith("_2.h5")}
    serve_dataset(server, DATASET, REVISION, fewer)
    result = fetch(folder)
    assert result.exit_code == 1
    assert "has 1 train patches of 2" in result.stderr
    assert not folder.exists()


# ---- wrong files


@pytest.mark.parametrize(
    ("source", "name", "other"),
    [
        ("zenodo", "TrainData.zip", "a sound archive"),
        ("huggingface", "images/train/image_1.h5", "images/train/image_2.h5"),
        ("huggingface", "annotations/train/mask_2.h5", "annotations/train/mask_1.h5"),
    ],
    ids=["md5", "sha256", "git-sha1"],
)
def test_a_wrong_file_is_named_and_deleted(folder, server, published, hub_files, source, name, other):
    path = f"{ZENODO if source == 'zenodo' else HUB}/{name}"
    right = server.files[path]
    wrong = hub_files.get(other) or zipped(published / "TrainData", "another folder/")
    server.files[path] = wrong
    result = fetch(folder, source=source)
    assert result.exit_code == 1
    assert name in result.stderr
    assert "deleted" in result.stderr
    assert "Traceback" not in result.output
    assert not folder.exists()
    left = [file for file in folder.parent.rglob("*") if file.is_file() and file.read_bytes() == wrong]
    assert [file.name for file in left] == [Path(other).name] * (source == "huggingface")
    assert len(server.ranges(path)) == 1
    server.files[path] = right
    server.asked.clear()
    assert fetch(folder, source=source).exit_code == 0
    assert holds_the_published_patches(folder, published)
    if source == "huggingface":
        assert requested_files(server) == {path}


def test_a_hub_file_of_unexpected_size_is_refused(folder, server):
    path = LARGE_FILE["huggingface"]
    server.files[path] = server.files[path][:-1]
    result = fetch(folder)
    assert result.exit_code == 1
    assert server.url in result.stderr
    assert not folder.exists()


def test_the_hub_token_is_not_sent_to_a_mirror(folder, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(folder).exit_code == 0
    assert server.asked
    assert server.tokens == []


def outside_files(content: bytes) -> bytes:
    """An archive whose only patch would be unpacked outside of its folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("../../evil.h5", content[:100])
    return buffer.getvalue()


def truncated(content: bytes) -> bytes:
    """The expected length, but the end is missing."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def damaged(content: bytes) -> bytes:
    """One byte of the packed data differs."""
    return content[:5000] + bytes([content[5000] ^ 255]) + content[5001:]


def encrypted(content: bytes) -> bytes:
    """The directory at the end marks every file of the archive as encrypted."""
    spoiled, place = bytearray(content), 0
    while (place := content.find(b"PK\x01\x02", place) + 1) > 0:
        spoiled[place + 7] |= 1
    return bytes(spoiled)


def misplaced(content: bytes) -> bytes:
    """The directory at the end places the files ten bytes earlier, before the beginning of the archive."""
    place = int.from_bytes(content[-6:-2], "little")
    return content[:-6] + (place + 10).to_bytes(4, "little") + content[-2:]


def unknown_compression(content: bytes) -> bytes:
    return content.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (truncated, "not a zip file"),
        (damaged, ""),
        (encrypted, "encrypted"),
        (unknown_compression, "compression"),
        (misplaced, ""),
        (outside_files, "it holds 0 images; expected 1"),
    ],
)
def test_a_damaged_archive_is_deleted(folder, server, zips, damage, finding):
    server.files[f"{ZENODO}/TestData.zip"] = damage(zips["TestData.zip"])
    result = fetch(folder, "--split", "test", source="zenodo")
    assert result.exit_code == 1
    assert "TestData.zip is not the published file" in result.stderr
    assert finding in result.stderr
    assert not folder.exists()
    assert not list(folder.parent.rglob("*.zip*"))
    assert not list(folder.parent.parent.rglob("evil*"))
    server.files[f"{ZENODO}/TestData.zip"] = zips["TestData.zip"]
    assert fetch(folder, "--split", "test", source="zenodo").exit_code == 0
    assert len(list(folder.rglob("*.h5"))) == 2


def test_only_patches_are_unpacked_from_any_folder(folder, server, published):
    extra = {
        "__MACOSX/img/._image_1.h5": b"x",
        "TestData/.DS_Store": b"x",
        "TestData/img/run.sh": b"x",
        "../../evil.h5": b"x",
    }
    server.files[f"{ZENODO}/TestData.zip"] = zipped(published / "TestData", "deep/down/", extra)
    result = fetch(folder, "--split", "test", source="zenodo")
    assert result.exit_code == 0, result.output
    assert version_of(folder / "TestData") == version_of(published / "TestData")
    assert not list(folder.parent.parent.rglob("evil*"))


def test_invalid_data_are_reported_and_not_moved_into_place(folder, server, published, tmp_path):
    spoiled = Path(shutil.copytree(published / "TestData", tmp_path / "spoiled"))
    (spoiled / "img/image_1.h5").write_bytes(b"no HDF5")
    server.files[f"{ZENODO}/TestData.zip"] = zipped(spoiled, "TestData/")
    result = fetch(folder, "--split", "test", source="zenodo")
    assert result.exit_code == 1
    assert "image_1.h5: cannot be read" in result.stdout
    assert "1 fault(s)" in result.stderr
    assert not folder.exists()


# ---- the disk


@pytest.mark.parametrize(
    ("source", "splits", "arrived", "gigabytes"),
    [
        ("huggingface", ["train", "validation", "test"], None, 9.0),
        ("huggingface", ["train", "validation", "test"], "from_huggingface/images/train/image_1.h5", 7.0),
        ("zenodo", ["train", "validation", "test"], None, 9.5),  # the largest archive and its unpacked files
        ("zenodo", ["train", "validation", "test"], "TrainData.zip.part", 7.5),
        ("zenodo", ["validation", "test"], None, 2.4),
    ],
)
def test_too_little_disk_space_is_an_error_before_the_download(
    tmp_path, monkeypatch, source, splits, arrived, gigabytes
):
    if arrived:
        path = tmp_path / ".official-fetch" / arrived
        path.parent.mkdir(parents=True)
        with path.open("wb") as part:
            part.truncate(2_000_000_000)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000_000))
    with pytest.raises(DataError, match=rf"needs {gigabytes} GB .* 2.0 GB are free") as raised:
        landslide4sense.fetch(tmp_path / "official", source=source, splits=splits, server="http://127.0.0.1:9")
    assert "--split train" in raised.value.remedy


@pytest.mark.parametrize(("shares", "gigabytes"), [(False, "14.1"), (True, "7.0")])
def test_the_copy_in_the_cache_counts_unless_the_disk_shares_bytes(project, monkeypatch, shares, gigabytes):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000_000))
    monkeypatch.setattr(landslide4sense, "_shares_bytes", lambda folder: shares)
    with pytest.raises(DataError, match=rf"needs {gigabytes} GB"):
        landslide4sense.fetch(project / "data", pin_in=project, splits=["train"], server="http://127.0.0.1:9")


@MOSTLY_ONE
def test_a_full_disk_is_explained_and_the_next_run_resumes(folder, server, release, published, source):
    """A limit on the size of files simulates the full disk: the same call fails."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))"
    done = subprocess.run(
        fetch_process(release, folder, source=source, first=limit), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "make room on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()
    assert not list(folder.parent.rglob("image_*.h5"))
    server.asked.clear()
    assert fetch(folder, source=source).exit_code == 0
    assert holds_the_published_patches(folder, published)
    if source == "zenodo":
        assert server.ranges(LARGE_FILE["zenodo"]) == ["bytes=500000-"]


def test_a_full_disk_while_unpacking_keeps_the_archive(folder, server, release, published):
    """An image is larger than its archive."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))"
    command = fetch_process(release, folder, "--split", "test", source="zenodo", first=limit)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "make room on the disk" in done.stderr
    server.asked.clear()
    assert fetch(folder, "--split", "test", source="zenodo").exit_code == 0
    assert server.asked == []
    assert version_of(folder / "TestData") == version_of(published / "TestData")


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = fetch(tmp_path / "file" / "official")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert "choose a folder that you may write to" in result.stderr


# ---- progress bar, and the published release


@pytest.mark.parametrize(
    ("source", "variable", "bars"),
    [
        ("huggingface", "HF_ENDPOINT", ["Fetching 8 files"]),
        ("zenodo", "LANDSLIDE_DATA_URL", ["TrainData.zip", "unpacking TrainData.zip"]),
    ],
)
def test_a_progress_bar_is_shown_on_a_terminal(folder, server, release, source, variable, bars):
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    environment = {name: value for name, value in os.environ.items() if name != "LANDSLIDE_DATA_URL"}
    process = subprocess.Popen(
        fetch_process(release, folder, source=source),
        env={**environment, variable: server.url},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    seen = b""
    try:
        while data := os.read(controller, 1 << 16):
            seen += data
    except OSError:  # the end of a terminal
        pass
    os.close(controller)
    stdout = process.communicate()[0]
    assert process.returncode == 0, stdout
    for bar in bars:
        assert f"\r{bar}: 100%" in seen.decode()
    assert "known_hash" not in seen.decode()


def test_the_published_release():
    release = landslide4sense.LANDSLIDE4SENSE
    assert release.patches == {"train": 3799, "validation": 245, "test": 800}
    assert release.archives["train"].size == 2_484_071_934
    assert release.archives["train"].checksum == "md5:408f09247e3dd256458bc2f6e9edbffb"
    assert release.dataset == "ibm-nasa-geospatial/Landslide4sense"
    assert release.revision == "4b291891badf301b5c75c2153f0f8fe00eeb1435"
    assert set(release.archives) == set(release.patches) == set(landslide4sense.SPLITS)
