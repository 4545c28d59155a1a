"""What cannot be read: the cause is named, each with its own remedy."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from landslide import cli
from landslide.data.check import check, survey
from landslide.data.digests import directory_digest
from landslide.data.patches import read_stored
from landslide.data.positions import read_positions
from landslide.errors import DataError
from tests.support.patch_sets import image_path, mask_path, write_patch_set

NOBODY = 65534


@pytest.fixture
def open_root() -> Iterator[Path]:
    """Three patches in a folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="landslide-"))
    folder.chmod(0o755)
    yield write_patch_set(folder / "set")
    shutil.rmtree(folder)


@contextmanager
def another_user() -> Iterator[None]:
    """Give up the rights of root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        with another_user():
            yield
    finally:
        path.chmod(before)


def compress_by_unknown_filter(path: Path) -> None:
    """An image as a program with the Zstandard filter writes it."""
    path.unlink()
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((128, 128, 14))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((128, 128, 14))
    with h5py.File(path, "w") as file:
        dataset = h5py.h5d.create(file.id, b"img", h5py.h5t.IEEE_F64LE, space, properties)
        dataset.write_direct_chunk((0, 0, 0), b"compressed" * 10, 0)


def test_a_file_without_permission(open_root):
    with mode(image_path(open_root, 2), 0o000):
        (fault,) = check(open_root).faults
        with pytest.raises(DataError, match="no permission") as of_digest:
            directory_digest(open_root)
        with pytest.raises(DataError, match="no permission"):
            read_stored(image_path(open_root, 2))
    assert (fault.path, fault.code) == ("TrainData/img/image_2.h5", "unreadable")
    assert "no permission" in fault.message
    assert "truncated" not in fault.message
    assert "chmod" in fault.remedy
    assert "chmod" in of_digest.value.remedy


@pytest.mark.parametrize("bits", [0o000, 0o444, 0o111])
@pytest.mark.parametrize("folder", [".", "TrainData", "TrainData/img"])
def test_a_folder_without_permission(open_root, folder, bits):
    with mode(open_root / folder, bits):
        found = survey(open_root)
        with pytest.raises(DataError, match="no permission"):
            directory_digest(open_root)
        shown = CliRunner().invoke(cli.main, ["data", "check", str(open_root)])
    assert found.version is None
    assert [(fault.path, fault.code) for fault in found.report.faults] == [(folder, "unreadable_folder")]
    assert "chmod" in found.report.faults[0].remedy
    assert shown.exit_code == 1
    assert "unreadable_folder (1)" in shown.stdout


def test_a_folder_above_without_permission(open_root):
    with mode(open_root.parent, 0o000):
        shown = CliRunner().invoke(cli.main, ["data", "check", str(open_root)])
    assert shown.exit_code == 1
    assert isinstance(shown.exception, SystemExit)
    assert "Permission denied" in shown.output


def test_scenes_without_permission(open_root):
    scenes = open_root / "scenes.csv"
    scenes.write_text("n,scene,row,column\n")
    with mode(scenes, 0o000), pytest.raises(DataError, match="no permission") as raised:
        read_positions(open_root, [1])
    assert "chmod" in raised.value.remedy


def test_a_missing_filter(root):
    compress_by_unknown_filter(image_path(root, 1))
    (fault,) = check(root).faults
    assert fault.code == "missing_filter"
    assert "filter 32015" in fault.message
    assert "gzip" in fault.remedy
    with pytest.raises(DataError, match="filter 32015"):
        read_stored(image_path(root, 1))


@pytest.mark.slow
def test_a_file_that_another_program_is_writing(root):
    code = (
        "import h5py, sys; file = h5py.File(sys.argv[1], 'w'); file.create_dataset('img', (128, 128, 14)); "
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(image_path(root, 1))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        (fault,) = check(root).faults
        with pytest.raises(DataError, match="open for writing"):
            read_stored(image_path(root, 1))
        writer.communicate()
    assert "open for writing" in fault.message
    assert "wait" in fault.remedy


def test_causes_have_their_own_remedies_in_one_report(root):
    os.truncate(image_path(root, 1), 10_000)
    image_path(root, 2).unlink()
    image_path(root, 2).symlink_to("gone")
    compress_by_unknown_filter(image_path(root, 10))
    mask_path(root, 10).unlink()
    mask_path(root, 10).mkdir()
    report = check(root)
    causes = {fault.path.rpartition("/")[2]: (fault.message, fault.remedy) for fault in report.faults}
    for name, cause in (
        ("image_1", "truncated"),
        ("image_2", "missing"),
        ("image_10", "filter"),
        ("mask_10", "folder"),
    ):
        assert cause in causes[f"{name}.h5"][0]
    assert len({remedy for _, remedy in causes.values()}) == 4
