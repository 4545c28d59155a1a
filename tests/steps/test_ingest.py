"""The step `ingest`: its result, the data that it refuses, and one read per file."""

import logging
from pathlib import Path

import pandas as pd
import pytest
import yaml

from landslide.bands.formulas import BandSettings
from landslide.data.digests import directory_digest
from landslide.data.table import patch_table
from landslide.errors import DataError
from steps.ingest import ingest
from steps.settings import DataSettings
from tests.support.commands import ROOT
from tests.support.patch_sets import image_path, mask_path, write_patch_set

pytestmark = pytest.mark.slow

PROCESS_IO = Path("/proc/self/io")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_patch_set(tmp_path / "data")
    (root / "scenes.csv").write_text("n,scene,row,column\n1,1,0,0\n2,1,0,1\n10,1,1,0\n")
    return root


def run(root: Path) -> tuple[pd.DataFrame, str]:
    return ingest.entrypoint(data=DataSettings(root=str(root)), bands=BandSettings())


def bytes_read() -> int:
    """The bytes that this process has read so far, from files on disk or in the page cache."""
    return int(PROCESS_IO.read_text().split()[1])


def test_table_and_version_match_the_files(root):
    table, version = run(root)
    assert version == directory_digest(root)[0]
    pd.testing.assert_frame_equal(table, patch_table(root))
    assert table["positive_pixels"].tolist() == [1, 2, 10]
    assert table["row"].tolist() == [0, 0, 1]


def test_undeclared_bands_are_one_fault_whose_remedy_works(tmp_path):
    root = write_patch_set(tmp_path / "rgb", bands=3)
    with pytest.raises(DataError) as error:
        run(root)
    assert "1 fault(s)" in error.value.what
    assert "bands.stored" in error.value.remedy
    assert "configs/own_rgb.yaml" in error.value.remedy
    bands = BandSettings(**yaml.safe_load((ROOT / "configs/own_rgb.yaml").read_text())["parameters"]["bands"])
    table, _ = ingest.entrypoint(data=DataSettings(root=str(root)), bands=bands)
    assert len(table) == 3


def test_undeclared_bands_among_other_faults_keep_their_remedy(tmp_path):
    root = write_patch_set(tmp_path / "rgb", bands=3)
    image_path(root, 1).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 fault\(s\)") as error:
        run(root)
    assert "bands.stored" in error.value.remedy
    assert "Mend or remove" in error.value.remedy


@pytest.mark.skipif(not PROCESS_IO.exists(), reason="this system does not count the bytes that a process reads")
def test_every_file_is_read_once(root):
    run(root)  # imports at the first call
    files = sum(path.stat().st_size for path in root.rglob("*.*"))
    before = bytes_read()
    run(root)
    # only scenes.csv is read twice; it is far smaller than a mask
    assert bytes_read() - before == pytest.approx(files, abs=5_000)


def test_data_that_differs_from_the_pin_is_refused(root):
    version = directory_digest(root)[0]
    root.with_name("data.dvc").write_text(f"outs:\n- md5: {version}\n  path: data\n")
    assert run(root)[1] == version
    mask_path(root, 1).write_bytes(mask_path(root, 2).read_bytes())
    with pytest.raises(DataError, match=rf"(?s)data\.dvc pins {version}.*dvc checkout"):
        run(root)


def test_all_faults_are_reported(root):
    image_path(root, 1).write_bytes(b"")
    mask_path(root, 2).unlink()
    (root / "broken.txt").symlink_to("gone")
    with pytest.raises(DataError, match=r"3 fault\(s\)") as error:
        run(root)
    for culprit in ("image_1.h5", "image_2.h5", "broken.txt", "landslide data check"):
        assert culprit in str(error.value)


def test_many_faults_are_listed_once(root, caplog):
    (root / "scenes.csv").unlink()
    for number in range(100, 300):
        image_path(root, number).touch()
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match=r"400 fault\(s\)") as error:
        run(root)
    assert caplog.text.count("image_250.h5: cannot be read") == 1
    assert len(str(error.value)) < 1000
    assert "unreadable (200): TrainData/img/image_100.h5, " in str(error.value)
    assert "and 195 more" in str(error.value)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"There is no data folder .*nowhere(.|\n)*landslide data demo"):
        run(tmp_path / "nowhere")
