"""Data from a DVC remote: a fresh clone, newer data, a folder without checkout, and errors."""

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from landslide import cli
from landslide.bands.formulas import BandSettings
from landslide.data.check import check
from landslide.data.digests import directory_digest
from landslide.data.dvc import damaged_objects, newest, pull
from landslide.data.dvc_command import without_credentials
from landslide.data.project import check_pin, update_from_remote
from landslide.errors import ConfigurationError, DataError
from tests.support.patch_sets import write_patch_set

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MASKS = Path("data/TrainData/mask")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def set_remote(project: Path, address: Path | None) -> None:
    text = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {address}\n" if address else ""
    (project / ".dvc" / "config").write_text(text)


def write_rgb_patches(root: Path, *numbers: int) -> None:
    write_patch_set(root, numbers, bands=3, dtype="uint8")


def commit_data(project: Path) -> str:
    """Pin ./data, push it, commit the pin, and return the version."""
    dvc(project, "add", "data")
    dvc(project, "push")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "Data")
    return directory_digest(project / "data")[0]


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """The shared repository, with two versions of the data on its remote, the neighbouring folder `store`."""
    project = tmp_path_factory.mktemp("remotes") / "origin"
    git(project.parent, "init", "--quiet", "--initial-branch", "main", str(project))
    dvc(project, "init")
    dvc(project, "remote", "add", "--default", "store", str(project.parent / "store"))
    (project / ".gitignore").write_text("/data\n")
    write_rgb_patches(project / "data", 1, 2)
    commit_data(project)
    git(project, "tag", "first")
    write_rgb_patches(project / "data", 3)
    shutil.copy(project / MASKS / "mask_1.h5", project / MASKS / "mask_3.h5")
    commit_data(project)
    git(project, "checkout", "--quiet", "-b", "linked")
    with (project / ".dvc" / "config").open("a") as config:
        config.write("[cache]\n    type = symlink\n")
    git(project, "commit", "--quiet", "-am", "Links into the cache")
    git(project, "checkout", "--quiet", "main")
    return project


@pytest.fixture(scope="module")
def version(origin) -> str:
    return directory_digest(origin / "data")[0]


@pytest.fixture
def clone(origin, tmp_path) -> Path:
    """A fresh clone of the first version, without data."""
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    git(tmp_path / "clone", "checkout", "--quiet", "first")
    return tmp_path / "clone"


def test_a_fresh_clone_pulls_and_ingests_the_data_then_a_newer_version(origin, version, clone):
    from steps.ingest import ingest
    from steps.settings import DataSettings

    data, bands = DataSettings(root=str(clone / "data"), fetch=True), BandSettings(stored=("B4", "B3", "B2"))
    table, found = ingest.entrypoint(data=data, bands=bands)
    assert len(table) == 2
    assert found != version
    git(clone, "checkout", "--quiet", "main")
    table, found = ingest.entrypoint(data=data, bands=bands)
    assert len(table) == 3
    assert found == version
    assert git(clone, "status", "--porcelain") == ""
    assert sorted(path.name for path in clone.iterdir()) == [
        ".dvc",
        ".dvcignore",
        ".git",
        ".gitignore",
        "data",
        "data.dvc",
    ]
    assert not any(path.is_symlink() for path in (clone / "data").rglob("*"))


def test_files_that_dvcignore_lists_neither_block_an_update_nor_get_lost(origin, version, clone):
    from steps.ingest import ingest
    from steps.settings import DataSettings

    update_from_remote(clone)
    (clone / ".dvcignore").write_text("*.tmp\n")
    (clone / "data" / "notes").mkdir()
    (clone / "data" / "notes" / "my.tmp").write_text("a week of work")
    data, bands = DataSettings(root=str(clone / "data")), BandSettings(stored=("B4", "B3", "B2"))
    assert len(ingest.entrypoint(data=data, bands=bands)[0]) == 2
    git(clone, "checkout", "--quiet", "main")
    update_from_remote(clone)
    assert ingest.entrypoint(data=data, bands=bands)[1] == version
    assert (clone / "data" / "notes" / "my.tmp").read_text() == "a week of work"


def documented_pulls() -> set[str]:
    """Every `dvc pull` that a page, a unit, a workflow, a configuration or a message of the project names."""
    places = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "configs/*.yaml", "deploy/*", ".github/**/*.yml")
    places += ("src/**/*.py", "steps/*.py", "pipelines/*.py", "Makefile")
    texts = [path.read_text() for place in places for path in ROOT.glob(place) if path.is_file()]
    return {found for text in texts for found in re.findall(r"\bdvc pull\b(?: [\w{}.]+\.dvc)?", text)}


def test_the_documented_pull_brings_the_data_to_a_fresh_and_to_a_used_checkout(origin, version, clone):
    assert documented_pulls() == {"dvc pull data.dvc", "dvc pull {root.name}.dvc"}
    git(clone, "checkout", "--quiet", "main")
    shutil.copy(ROOT / "dvc.yaml", clone)
    dvc(clone, "pull", "data.dvc")
    assert directory_digest(clone / "data")[0] == version
    (clone / "reports").mkdir()  # of `make run`
    for name in ("check.json", "metrics.json", "scores.csv"):
        (clone / "reports" / name).write_text(name)
    git(clone, "checkout", "--quiet", "first", "--", "data.dvc")
    dvc(clone, "pull", "data.dvc")
    assert directory_digest(clone / "data")[0] != version
    assert (clone / "reports" / "metrics.json").read_text() == "metrics.json"


def test_existing_data_need_no_remote(origin, clone):
    shutil.copytree(origin / "data", clone / "data")
    git(clone, "checkout", "--quiet", "main")
    set_remote(clone, None)
    assert "exists" in update_from_remote(clone)


def test_a_missing_remote_is_an_error_that_explains_how_to_set_one(clone):
    set_remote(clone, None)
    with pytest.raises(DataError, match=r"no remote is configured(.|\n)*dvc remote add"):
        update_from_remote(clone)
    assert not (clone / "data").exists()


def test_an_unavailable_remote_is_named_and_the_data_stay(clone, tmp_path):
    update_from_remote(clone)
    before = directory_digest(clone / "data")
    git(clone, "checkout", "--quiet", "main")
    set_remote(clone, tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"remote store \({tmp_path}/nowhere\)(.|\n)*dvc push"):
        update_from_remote(clone)
    assert directory_digest(clone / "data") == before
    assert not list(clone.glob(".data-*"))


def test_an_incomplete_remote_gives_no_data(origin, clone, tmp_path):
    store = shutil.copytree(origin.parent / "store", tmp_path / "store")
    digest = directory_digest(origin / "data")[1]["TrainData/img/image_2.h5"]
    next(store.rglob(digest[2:])).unlink()
    set_remote(clone, store)
    with pytest.raises(DataError, match="could not be pulled"):
        update_from_remote(clone)
    assert not (clone / "data").exists()


@pytest.mark.soak
def test_unpinned_local_files_are_never_lost(clone):
    update_from_remote(clone)
    write_rgb_patches(clone / "data", 7)
    git(clone, "checkout", "--quiet", "main")
    before = directory_digest(clone / "data")
    with pytest.raises(DataError, match=r"2 file\(s\) of .*image_7\.h5(.|\n)*dvc add data"):
        update_from_remote(clone)
    assert directory_digest(clone / "data") == before
    dvc(clone, "add", "data")  # now they are in the cache
    git(clone, "checkout", "--quiet", "data.dvc")
    update_from_remote(clone)
    assert not (clone / "data" / "TrainData" / "img" / "image_7.h5").exists()


def test_a_missing_pin_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"no .*data\.dvc(.|\n)*dvc add data"):
        update_from_remote(tmp_path)


# ---- a folder without checkout


@pytest.fixture
def container(origin, tmp_path) -> Path:
    """The files of a container image: an old pin, no git, no data, no DVC configuration."""
    folder = tmp_path / "container"
    folder.mkdir()
    (folder / "data.dvc").write_text(git(origin, "show", "first:data.dvc") + "\n")
    return folder


def test_a_container_pulls_the_newest_pin_of_the_repository_each_time(origin, version, container):
    update_from_remote(container, str(origin), revision="first")
    assert len(list(container.rglob("image_*.h5"))) == 2
    update_from_remote(container, str(origin))
    assert directory_digest(container / "data")[0] == version
    assert (container / "data.dvc").read_text() == (origin / "data.dvc").read_text()
    assert sorted(path.name for path in container.iterdir()) == ["data", "data.dvc"]
    assert not any(path.is_symlink() for path in (container / "data").rglob("*"))
    assert "exists" in update_from_remote(container, str(origin))


def test_data_pulled_by_a_container_do_not_link_to_a_temporary_cache(origin, version, container):
    update_from_remote(container, str(origin), revision="linked")
    assert directory_digest(container / "data")[0] == version
    assert not any(path.is_symlink() for path in (container / "data").rglob("*"))


def test_a_container_keeps_data_that_did_not_come_from_the_remote(origin, container):
    write_rgb_patches(container / "data", 9)
    with pytest.raises(DataError, match="2 file"):
        update_from_remote(container, str(origin))
    assert len(list(container.rglob("image_*.h5"))) == 1


@pytest.mark.parametrize(
    ("repository", "revision", "expected"),
    [("origin", "no-such-branch", "no-such-branch"), ("nowhere", "main", "nowhere")],
)
def test_a_repository_that_cannot_be_cloned_is_named(origin, container, repository, revision, expected):
    with pytest.raises(DataError, match=rf"{expected}(.|\n)*data\.repository"):
        update_from_remote(container, str(origin.parent / repository), revision=revision)


def test_a_repository_without_pin_is_named(origin, container):
    with pytest.raises(DataError, match=r"has no other\.dvc"):
        update_from_remote(container, str(origin), name="other")


def test_a_repository_is_refused_in_a_git_checkout(origin, clone):
    with pytest.raises(DataError, match="git pull"):
        update_from_remote(clone, str(origin))


def test_a_repository_without_fetch_is_refused():
    from steps.settings import DataSettings

    with pytest.raises(ConfigurationError, match=r"data\.fetch"):
        DataSettings(repository="somewhere")


def test_messages_contain_no_credentials():
    address = "http://somebody:secret@127.0.0.1:1/repository.git"
    with pytest.raises(DataError) as caught, newest(address, "main"):
        pass
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1/repository.git" in str(caught.value)
    assert without_credentials("s3://bucket/x and ssh://a:b@host/y") == "s3://bucket/x and ssh://host/y"


# ---- by version


@pytest.mark.soak
def test_concurrent_pulls_of_one_version_succeed(origin, version, tmp_path):
    failures = []

    def pull_version():
        try:
            pull(version, tmp_path / "pulled" / version, project=origin)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=pull_version) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert directory_digest(tmp_path / "pulled" / version)[0] == version
    assert [path.name for path in (tmp_path / "pulled").iterdir()] == [version]


def test_credentials_of_the_remote_reach_dvc(origin, version, tmp_path):
    """A password may contain a comment sign; it survives when the DVC configuration is rewritten."""
    store = tmp_path / "store #1"
    shutil.copytree(origin.parent / "store", store)
    project = tmp_path / "project"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc" / "config").write_text(f'[core]\n remote = a.b\n[\'remote "a.b"\']\n url = "{store}"\n')
    pull(version, tmp_path / "pulled", project=project)
    assert directory_digest(tmp_path / "pulled")[0] == version


def test_the_command_copies_local_data_or_pulls_them(origin, version, clone, tmp_path, monkeypatch):
    def landslide(*arguments):
        return CliRunner().invoke(cli.main, ["data", "pull", *map(str, arguments)])

    monkeypatch.chdir(clone)
    assert landslide(version, tmp_path / "a").exit_code == 0
    assert directory_digest(tmp_path / "a")[0] == version
    assert "exists" in landslide(version, tmp_path / "a").stdout
    update_from_remote(clone)
    first = directory_digest(clone / "data")[0]
    assert "a copy of" in landslide(first, tmp_path / "b").stdout
    refused = landslide(first, tmp_path / "a")
    assert refused.exit_code == 1
    assert "give another folder" in refused.stderr
    assert landslide("0" * 32 + ".dir", tmp_path / "c").exit_code == 1
    assert not (tmp_path / "c").exists()


# ---- the cache


def write_patches_with_equal_masks(project: Path) -> None:
    write_rgb_patches(project / "data", 1, 2, 3)
    for number in (2, 3):
        shutil.copy(project / MASKS / "mask_1.h5", project / MASKS / f"mask_{number}.h5")


def edit_in_place(path: Path) -> None:
    """Change a byte as a program does that opens the file for writing; links and modes do not stop root."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(3000)
        file.write(b"edited")


def hard_linked(folder: Path) -> Path:
    """A project whose data are hard links to DVC's cache, as cache.type allowed before."""
    dvc(folder, "init", "--no-scm")
    dvc(folder, "config", "cache.type", "hardlink")
    write_patches_with_equal_masks(folder)
    dvc(folder, "add", "data")
    shutil.rmtree(folder / "data")
    dvc(folder, "checkout")
    return folder


def test_an_edited_file_changes_no_other_file_and_can_be_restored(tmp_path):
    """With the settings that this repository commits; files of equal content are one object in the cache."""
    git(tmp_path, "init", "--quiet")
    dvc(tmp_path, "init")
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    write_patches_with_equal_masks(tmp_path)
    dvc(tmp_path, "add", "data")
    shutil.rmtree(tmp_path / "data")
    dvc(tmp_path, "checkout")
    version, digests = directory_digest(tmp_path / "data")
    edit_in_place(tmp_path / MASKS / "mask_2.h5")
    edited = directory_digest(tmp_path / "data")[1]
    assert [path for path in digests if digests[path] != edited[path]] == ["TrainData/mask/mask_2.h5"]
    dvc(tmp_path, "checkout", "--force", "data.dvc")
    assert directory_digest(tmp_path / "data")[0] == version


def test_data_pulled_by_a_container_share_no_bytes(origin, container):
    update_from_remote(container, str(origin))
    assert {path.stat().st_nlink for path in (container / "data").rglob("*.h5")} == {1}


def test_linked_files_are_a_warning_and_unprotect_separates_them(tmp_path):
    project = hard_linked(tmp_path)
    report = check(project / "data", n_bands=3)
    assert [warning.code for warning in report.warnings] == ["linked_files"]
    assert "6 files" in report.warnings[0].message
    assert "dvc unprotect data" in report.warnings[0].remedy
    dvc(project, "unprotect", "data")
    assert check(project / "data", n_bands=3).warnings == []


@pytest.mark.soak
def test_damage_of_the_cache_by_an_edit_in_place_is_reported_and_mended(tmp_path, monkeypatch):
    project = hard_linked(tmp_path)
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "store"))
    dvc(project, "push")
    git(tmp_path, "init", "--quiet")  # pulled files go through the cache of a checkout only
    version = directory_digest(project / "data")[0]
    check_pin(project / "data", version)
    edit_in_place(project / MASKS / "mask_2.h5")
    edited = directory_digest(project / "data")[0]
    with pytest.raises(DataError, match=r"3 of its objects .*mask_1\.h5, (.|\n)*`landslide data pull") as refused:
        check_pin(project / "data", edited)
    assert "dvc checkout" not in refused.value.remedy
    monkeypatch.chdir(project)
    shown = CliRunner().invoke(cli.main, ["data", "check", "data", "--bands", "B4,B3,B2"]).stdout
    assert "3 objects of the pinned version in DVC's cache no longer match" in shown
    (project / "data").rename(project / "edited")
    pulled = CliRunner().invoke(cli.main, ["data", "pull", version, "data"])
    assert pulled.exit_code == 0, pulled.output
    assert directory_digest(project / "data")[0] == version
    assert damaged_objects(project, version) == {}
    shown = CliRunner().invoke(cli.main, ["data", "check", "data", "--bands", "B4,B3,B2"]).stdout
    assert "no longer match" not in shown


def test_a_damaged_listing_is_reported(tmp_path):
    project = hard_linked(tmp_path)
    version = directory_digest(project / "data")[0]
    assert damaged_objects(project, version) == {}
    listing = next((project / ".dvc" / "cache").rglob("*.dir"))
    listing.chmod(0o644)
    listing.write_text("[]")
    assert damaged_objects(project, version) == {".": listing}
