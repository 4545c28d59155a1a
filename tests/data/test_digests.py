"""Digests of files and folders compared with those of the real DVC."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from landslide.data.check import survey
from landslide.data.digests import directory_digest, file_digest
from landslide.data.patches import find_patches
from landslide.errors import DataError
from tests.support.patch_sets import image_path, mask_path, write_patch_set


@pytest.fixture(scope="module")
def dvc_pinned(tmp_path_factory) -> tuple[Path, dict]:
    """A folder pinned by the real `dvc add`, and the content of its data.dvc."""
    import yaml

    repository = tmp_path_factory.mktemp("dvc")
    write_patch_set(repository / "data", (1, 2, 10), bands=3, dtype="uint8")
    for name in (
        "scenes.csv",
        "TrainData.txt",
        "TrainData/img2",
        "TrainData/a/b/c",
        'Ünï çode/"quoted".txt',
        "Z",
        ".hg",
        "repository/.dvc/config",
        "repository/file",
    ):
        path = repository / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (repository / "data/empty").touch()
    (repository / "data/empty_folder").mkdir()
    (repository / "data/link").symlink_to("scenes.csv")
    (repository / "elsewhere").mkdir()
    (repository / "elsewhere/file").write_text("not pinned")
    (repository / "data/link_to_folder").symlink_to("../elsewhere", target_is_directory=True)
    (repository / "data/.git").mkdir()
    (repository / "data/.git/config").write_text("not pinned")
    for arguments in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=repository, check=True)
    return repository, yaml.safe_load((repository / "data.dvc").read_text())["outs"][0]


@pytest.mark.slow
def test_folder_digest_equals_the_one_pinned_by_dvc(dvc_pinned):
    repository, pinned = dvc_pinned
    digest, files = directory_digest(repository / "data")
    assert digest == pinned["md5"]
    assert len(digest) == 36
    assert len(files) == pinned["nfiles"]


def test_file_digests_equal_those_in_the_dvc_cache(dvc_pinned):
    repository, pinned = dvc_pinned
    cache = repository / ".dvc/cache/files/md5"
    listing = json.loads((cache / pinned["md5"][:2] / pinned["md5"][2:]).read_text())
    files = directory_digest(repository / "data")[1]
    assert files == {entry["relpath"]: entry["md5"] for entry in listing}
    assert file_digest(repository / "data/scenes.csv") == files["scenes.csv"]


def test_the_digest_depends_on_content_and_names_but_not_times(root):
    before = directory_digest(root)[0]
    os.utime(image_path(root, 1), (0, 0))
    assert directory_digest(root)[0] == before
    image_path(root, 1).rename(image_path(root, 3))
    renamed = directory_digest(root)[0]
    assert renamed != before
    os.truncate(mask_path(root, 1), 18_000)
    assert directory_digest(root)[0] not in (before, renamed)


def test_digest_of_a_missing_folder_or_link_target_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="not a folder"):
        directory_digest(tmp_path / "nowhere")
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(DataError, match="broken cannot be read"):
        directory_digest(tmp_path)


@pytest.mark.slow
def test_dvcignore_decides_what_a_data_set_holds(tmp_path):
    import yaml

    write_patch_set(tmp_path / "data", (1, 2, 3), bands=3, dtype="uint8")
    for name in (".DS_Store", "a b.tmp", "ü.tmp", "kept.tmp", "notes/n", "TrainData/notes/n"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    rules = ".DS_Store\n*.tmp\n!kept.tmp\n# a comment\n/data/notes/\ndata/TrainData/*/*_2.h5\n"
    for arguments in (["init", "--no-scm", "-q"], ["add", "-q", "data"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=tmp_path, check=True)
        (tmp_path / ".dvcignore").write_text(rules)
    pinned = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"][0]
    digest, found = directory_digest(tmp_path / "data")
    assert len(found) == pinned["nfiles"]
    assert digest == pinned["md5"]
    assert {"kept.tmp", "TrainData/notes/n"} <= set(found)
    assert [patch.number for patch in find_patches(tmp_path / "data")] == [1, 3]
    found = survey(tmp_path / "data", bands=("B4", "B3", "B2"))
    assert found.version == digest
    assert found.report.faults == []
    assert found.report.counts["patches"] == 2
    ignored = [warning.path for warning in found.report.warnings if warning.code == "ignored_patch"]
    assert ignored == ["TrainData/img/image_2.h5", "TrainData/mask/mask_2.h5"]
    assert not {".DS_Store", "notes/n"} & {warning.path for warning in found.report.warnings}
