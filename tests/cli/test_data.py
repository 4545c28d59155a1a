"""`landslide data demo | check | digest | use`: output, exit codes, and protection of existing data."""

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

import landslide
from landslide import cli
from landslide.data import demo
from landslide.data import project as project_data
from landslide.data.digests import directory_digest
from landslide.errors import DataError

pytestmark = pytest.mark.slow


def write_set(root: Path, numbers=(1, 2), bands: int = 3) -> Path:
    for kind, key, shape in (("image", "img", (128, 128, bands)), ("mask", "mask", (128, 128))):
        folder = root / "TrainData" / key
        folder.mkdir(parents=True)
        for number in numbers:
            with h5py.File(folder / f"{kind}_{number}.h5", "w") as file:
                lowest = 1 if key == "img" else 0
                file[key] = np.random.default_rng(number).integers(lowest, 2 + lowest, shape, dtype=np.uint8)
    return root


def landslide_data(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["data", *map(str, arguments)])


@pytest.fixture
def rgb_set(tmp_path: Path) -> Path:
    return write_set(tmp_path / "rgb")


@pytest.fixture
def broken_set(tmp_path: Path) -> Path:
    root = write_set(tmp_path / "broken")
    os.truncate(root / "TrainData/img/image_1.h5", 10_000)
    (root / "TrainData/mask/mask_2.h5").unlink()
    (root / "stray.bin").touch()
    return root


# ---- the whole command line


@pytest.mark.parametrize("command", [["-m", "landslide"], ["-c", "from landslide.cli import main; main()"]])
def test_help_lists_the_data_group(command):
    done = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, check=True)
    assert "data" in done.stdout


def test_help_loads_no_heavy_library():
    code = "import sys, landslide.cli; print({'numpy', 'h5py', 'pandas', 'torch', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_error_is_one_message_without_traceback(tmp_path):
    result = landslide_data("digest", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "-> " in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_usage_error_exits_with_2():
    assert landslide_data("check").exit_code == 2
    assert landslide_data("nonsense").exit_code == 2


def test_version_is_the_package_version():
    assert landslide.__version__ in CliRunner().invoke(cli.main, ["--version"]).output


# ---- demo


def test_demo_writes_the_set_of_the_given_seed_and_country(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "generate", partial(demo.generate, scenes=((1, 1),)))
    assert landslide_data("demo", tmp_path / "default").exit_code == 0
    assert landslide_data("demo", tmp_path / "other", "--seed", 7, "--country", 2).exit_code == 0
    demo.generate(tmp_path / "expected default", seed=0, country=1)
    demo.generate(tmp_path / "expected other", seed=7, country=2)
    for name in ("default", "other"):
        assert version_of(tmp_path / name) == version_of(tmp_path / f"expected {name}")


@pytest.mark.parametrize("country", ["0", "3", "-1"])
def test_demo_refuses_an_unknown_country(tmp_path, country):
    result = landslide_data("demo", tmp_path / "data", "--country", country)
    assert result.exit_code == 1
    assert f"country = {country}" in result.stderr
    assert "Choose one of 1, 2." in result.stderr
    assert not list(tmp_path.iterdir())


def test_demo_refuses_a_non_empty_folder(rgb_set):
    before = directory_digest(rgb_set)
    result = landslide_data("demo", rgb_set)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert directory_digest(rgb_set) == before


# ---- check


def test_check_passes_a_valid_set(rgb_set):
    result = landslide_data("check", rgb_set, "--bands", "B4,B3,B2")
    assert result.exit_code == 0
    assert "2 patches (2 train" in result.stdout
    assert "no faults" in result.stdout


def test_check_reports_all_faults_and_exits_with_1(broken_set):
    result = landslide_data("check", broken_set, "--bands", "B4, B3, B2")
    assert result.exit_code == 1
    assert "2 faults:" in result.stdout
    assert "TrainData/img/image_1.h5: cannot be read" in result.stdout
    assert "TrainData/img/image_2.h5: no mask_2.h5" in result.stdout
    assert "1 warning:" in result.stdout


def test_check_exits_with_0_if_there_are_only_warnings(rgb_set):
    (rgb_set / "stray.bin").touch()
    result = landslide_data("check", rgb_set, "--bands", "B4,B3,B2")
    assert result.exit_code == 0
    assert "stray.bin" in result.stdout


def test_check_without_bands_expects_all_fourteen(rgb_set):
    result = landslide_data("check", rgb_set)
    assert result.exit_code == 1
    assert "shape (128, 128, 3); expected (128, 128, 14)" in result.stdout


def test_check_json_prints_only_json_with_the_documented_keys(broken_set):
    result = landslide_data("check", broken_set, "--json", "--bands", "B4,B3,B2")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert result.stderr == ""
    assert set(report) == {"ok", "counts", "faults", "warnings"}
    assert report["ok"] is False
    assert report["counts"]["patches"] == 2
    assert {frozenset(finding) for finding in report["faults"] + report["warnings"]} == {
        frozenset({"path", "code", "message", "remedy"})
    }
    assert {finding["code"] for finding in report["faults"]} == {"unreadable", "missing_mask"}
    assert str(broken_set) not in json.dumps([finding["path"] for finding in report["faults"]])


@pytest.mark.parametrize("bands", ["B4,B8A", "B4,B4", "", "b4"])
def test_check_of_unknown_bands_is_a_usage_error(rgb_set, bands):
    result = landslide_data("check", rgb_set, "--bands", bands)
    assert result.exit_code == 2
    assert "--bands" in result.stderr


def test_check_of_missing_folder_is_a_fault(tmp_path):
    result = landslide_data("check", tmp_path / "nowhere", "--json")
    assert result.exit_code == 1
    assert [fault["code"] for fault in json.loads(result.stdout)["faults"]] == ["missing_folder"]


@pytest.mark.parametrize("command", ["check", "use"])
def test_missing_folder_is_named_as_given_and_nothing_else(command, tmp_path, monkeypatch):
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    result = landslide_data(command, "dat")
    assert result.exit_code == 1
    remedy = "give the folder that holds TrainData/, or images/ and annotations/"
    assert result.output == f"Error: dat does not exist\n  -> {remedy}\n"


# ---- digest


def test_digest_prints_only_the_version(rgb_set):
    result = landslide_data("digest", rgb_set)
    assert result.exit_code == 0
    assert result.stdout == directory_digest(rgb_set)[0] + "\n"


# ---- prepare


def test_prepare_says_only_what_it_has_compared(project, rgb_set):
    def prepare() -> str:
        result = landslide_data("prepare")
        assert result.exit_code == 0, result.output
        return result.stdout

    shutil.copytree(rgb_set, project / "data")
    assert "it is not pinned" in prepare()
    version = pin(project)
    assert f"holds the version that data.dvc pins ({version})" in prepare()
    (project / "data/TrainData/mask/mask_1.h5").unlink()
    assert f"holds {version_of(project / 'data')}; data.dvc pins another version, {version}" in prepare()


def test_prepare_creates_the_demo_set_in_an_empty_folder(project, monkeypatch):
    monkeypatch.setattr(demo, "generate", partial(demo.generate, scenes=((1, 1),)))
    demo.generate(project / "data")
    monkeypatch.setattr(demo, "DEMO_VERSION", pin(project))
    shutil.rmtree(project / "data")
    (project / "data").mkdir()
    assert "generated the demo set" in landslide_data("prepare").stdout
    assert version_of(project / "data") == pinned(project)


# ---- use


@pytest.fixture(scope="session")
def dvc_repository(tmp_path_factory) -> Path:
    repository = tmp_path_factory.mktemp("dvc_repository")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=repository, check=True)
    return repository


@pytest.fixture
def project(dvc_repository, tmp_path, monkeypatch) -> Path:
    """A new project for each test, as the working folder."""
    project = Path(shutil.copytree(dvc_repository, tmp_path / "project"))
    monkeypatch.chdir(project)
    monkeypatch.setattr(demo, "DEMO_VERSION", "another set")
    return project


@pytest.fixture
def project_with_demo(project, monkeypatch) -> Path:
    """A project whose ./data is the demo set, pinned but not in the cache: a fresh machine after `make run`."""
    write_set(project / "data", (1, 2, 3))
    version = pin(project)
    monkeypatch.setattr(demo, "DEMO_VERSION", version)
    return project


def use(folder: object) -> Result:
    return landslide_data("use", folder, "--bands", "B4,B3,B2")


def pin(project: Path) -> str:
    version = directory_digest(project / "data")[0]
    (project / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": version, "path": "data"}]}))
    return version


def pinned(project: Path) -> str:
    return yaml.safe_load((project / "data.dvc").read_text())["outs"][0]["md5"]


def version_of(folder: Path) -> str:
    return directory_digest(folder)[0]


def leftovers(project: Path) -> list[str]:
    return [path.name for path in project.iterdir() if path.name.startswith(".data-")]


def test_use_copies_and_pins_and_replaces_only_cached_data(project, rgb_set, tmp_path):
    other = write_set(tmp_path / "other", (5, 6))
    (other / ".git").mkdir()
    (other / ".git/config").touch()

    first = use(rgb_set)
    assert first.exit_code == 0, first.output
    assert version_of(project / "data") == pinned(project) == version_of(rgb_set)
    assert "git add data.dvc" in first.stdout
    assert pinned(project) in first.stdout

    second = use(other)
    assert second.exit_code == 0, second.output
    assert version_of(project / "data") == pinned(project) == version_of(other)
    assert not (project / "data/.git").exists()
    assert leftovers(project) == []

    listing = pinned(project)
    cached = project / ".dvc/cache/files/md5" / listing[:2] / listing[2:]
    a_file = json.loads(cached.read_text())[0]["md5"]
    spoiled = cached.parent.parent / a_file[:2] / a_file[2:]
    spoiled.chmod(0o644)
    os.truncate(spoiled, 100)
    third = use(rgb_set)
    assert third.exit_code == 1
    assert "not (completely) in the DVC cache" in third.stderr
    assert version_of(project / "data") == pinned(project) == version_of(other)


def test_use_blocks_a_set_with_faults_and_shows_the_report(project_with_demo, broken_set):
    before = version_of(project_with_demo / "data")
    result = use(broken_set)
    assert result.exit_code == 1
    assert "image_1.h5: cannot be read" in result.stdout
    assert "2 fault(s)" in result.stderr
    assert version_of(project_with_demo / "data") == before


def test_use_replaces_an_uncached_demo_set(project_with_demo, rgb_set):
    result = use(rgb_set)
    assert result.exit_code == 0, result.output
    assert version_of(project_with_demo / "data") == pinned(project_with_demo) == version_of(rgb_set)


def test_use_never_overwrites_unpinned_changes(project_with_demo, rgb_set):
    (project_with_demo / "data/my_labels.txt").write_text("a week of work")
    result = use(rgb_set)
    assert result.exit_code == 1
    assert "differs from the version that data.dvc pins" in result.stderr
    assert "move ./data away" in result.stderr
    assert (project_with_demo / "data/my_labels.txt").read_text() == "a week of work"
    assert len(list((project_with_demo / "data/TrainData/img").iterdir())) == 3


def test_use_never_overwrites_data_without_a_pin(project, rgb_set):
    (project / "data").mkdir()
    (project / "data/my_labels.txt").write_text("a week of work")
    assert use(rgb_set).exit_code == 1
    assert [path.name for path in (project / "data").iterdir()] == ["my_labels.txt"]


def test_use_with_unreadable_pin_is_an_error(project_with_demo, rgb_set):
    (project_with_demo / "data.dvc").write_text("<<<<<<< HEAD")
    result = use(rgb_set)
    assert result.exit_code == 1
    assert "not a DVC pointer" in result.stderr


def test_use_changes_nothing_if_the_disk_is_full(project_with_demo, rgb_set, monkeypatch):
    def full_disk(source, destination, **options):
        Path(destination).mkdir()
        (Path(destination) / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = version_of(project_with_demo / "data"), pinned(project_with_demo)
    monkeypatch.setattr(shutil, "copytree", full_disk)
    result = use(rgb_set)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert (version_of(project_with_demo / "data"), pinned(project_with_demo)) == before
    assert leftovers(project_with_demo) == []


@pytest.mark.parametrize("failure", [DataError("dvc add failed", remedy="mend it"), KeyboardInterrupt()])
def test_use_restores_the_previous_data_if_dvc_fails(project_with_demo, rgb_set, monkeypatch, failure):
    def failing(*arguments):
        raise failure

    before = version_of(project_with_demo / "data"), pinned(project_with_demo)
    monkeypatch.setattr(project_data, "run_dvc", failing)
    assert use(rgb_set).exit_code == 1
    assert (version_of(project_with_demo / "data"), pinned(project_with_demo)) == before
    assert leftovers(project_with_demo) == []


def test_use_leaves_no_data_if_dvc_fails_and_there_was_none(project, rgb_set):
    (project / "data.dvc").write_text("not yaml: [")
    result = use(rgb_set)
    assert result.exit_code == 1
    assert "`dvc add data` failed" in result.stderr
    assert not (project / "data").exists()
    assert leftovers(project) == []


def test_use_needs_the_root_of_a_dvc_repository(rgb_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = use(rgb_set)
    assert result.exit_code == 1
    assert "no .dvc folder" in result.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("folder", ["data", ".", "data/TrainData", ".."])
def test_use_refuses_a_folder_that_overlaps_the_data_folder(project_with_demo, folder):
    before = version_of(project_with_demo / "data")
    result = use(folder)
    assert result.exit_code == 1
    assert "is inside the other" in result.stderr
    assert version_of(project_with_demo / "data") == before


def test_use_refuses_a_linked_data_folder(project, rgb_set, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (project / "data").symlink_to(tmp_path / "elsewhere")
    result = use(rgb_set)
    assert result.exit_code == 1
    assert "is a link or a file" in result.stderr
    assert (project / "data").is_symlink()


@pytest.mark.parametrize("command", ["demo", "scene", "fetch", "check"])
def test_a_link_that_leads_to_itself_is_named_without_a_traceback(tmp_path, command):
    (tmp_path / "loop").symlink_to("loop")
    result = landslide_data(command, tmp_path / "loop")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "loop" in result.stderr
    assert "\n  -> " in result.stderr
