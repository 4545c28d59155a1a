"""Vector files that another program has open."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest
import shapely

from landslide.errors import DataError
from landslide.scenes.vector_files import opened_vector_file, read_features


@pytest.fixture
def polygons(tmp_path) -> Path:
    folder = tmp_path / "labels"
    folder.mkdir()
    path = folder / "labels.gpkg"
    gpd.GeoDataFrame({"kind": ["old"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(path)
    return path


def test_a_file_that_is_being_written_is_named(polygons):
    code = f"""
import sqlite3, sys
with sqlite3.connect({str(polygons)!r}) as writer:
    writer.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    sys.stdin.read()
    writer.rollback()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(DataError, match=r"Another program is writing .*labels\.gpkg"), opened_vector_file(polygons):
            read_features(polygons)
        writer.communicate()
    with opened_vector_file(polygons):
        assert read_features(polygons)["kind"].tolist() == ["old"]


def test_changes_that_cannot_be_read_are_not_passed_over(polygons, tmp_path):
    """They are in a file beside it, as long as QGIS has it open."""
    writer = sqlite3.connect(polygons)
    writer.execute("PRAGMA journal_mode = WAL")
    for (name,) in writer.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        writer.execute(f"DROP TRIGGER {name}")  # they call functions of GDAL
    writer.execute("UPDATE labels SET kind = 'new'")
    writer.commit()
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in ("labels.gpkg", "labels.gpkg-wal"):
        shutil.copy(polygons.with_name(name), copies)
    writer.close()
    path = copies / "labels.gpkg"
    code = f"""
from landslide.scenes.vector_files import opened_vector_file, read_features
with opened_vector_file({str(path)!r}):
    print(read_features({str(path)!r})["kind"].tolist())
"""
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    copies.chmod(0o555)
    try:
        done = subprocess.run([*without, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        copies.chmod(0o755)
    assert done.returncode == 1, done.stdout
    assert "The newest changes of" in done.stderr
    assert "labels.gpkg-wal" in done.stderr
    with opened_vector_file(path):
        assert read_features(path)["kind"].tolist() == ["new"]
