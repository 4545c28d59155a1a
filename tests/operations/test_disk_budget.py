"""The disk budget: the least recently used folders are deleted first, and nothing irreplaceable ever is."""

import os
import time
from pathlib import Path

import pytest

from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings
from landslide.data import demo
from landslide.data.table import patch_table
from landslide.operations.disk_budget import prune, size_of

KB = 1000


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path))
    return tmp_path


def folder(home: Path, name: str, hours: float, kilobytes: int = 10) -> Path:
    """A folder with one file in a subfolder, last written `hours` ago."""
    path = home / name
    (path / "below").mkdir(parents=True)
    (path / "below" / "file").write_bytes(b"x" * kilobytes * KB)
    age(path, hours)
    return path


def age(path: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    for one in (*path.rglob("*"), path):
        os.utime(one, (then, then), follow_symlinks=False)


def test_oldest_folders_are_deleted_first_and_only_as_many_as_needed(home):
    caches = [folder(home, f"cache/bands/family{i % 2}/{i}", hours=10 + i) for i in range(4)]
    checkpoint = folder(home, "checkpoints/run", hours=15 * 24)
    data = folder(home, "data/version", hours=12.5)
    assert size_of(home) == 60 * KB
    assert prune(60 * KB) == []
    assert prune(60 * KB - 1) == [checkpoint]
    assert prune(25 * KB) == [caches[3], data, caches[2]]
    assert [path.exists() for path in (*caches, checkpoint, data)] == [True, True, False, False, False, False]
    assert size_of(home) == 20 * KB


def test_newest_cache_and_mlflow_and_zenml_files_are_kept(home):
    kept = [folder(home, name, hours=1000) for name in ("mlartifacts/1/model", "zenml/store", "venv", "reports")]
    (home / "mlflow.db").write_bytes(b"x" * KB)
    caches = [folder(home, f"cache/bands/family/{i}", hours=100 - i) for i in range(3)]
    assert prune(0) == caches[:2]
    assert all(path.is_dir() for path in (*kept, caches[2]))
    assert (home / "mlflow.db").stat().st_size == KB
    assert prune(0) == []


def test_folders_used_within_the_last_hour_are_kept(home):
    recent = [folder(home, "checkpoints/now", hours=0.9), folder(home, "data/now", hours=0.5)]
    deep = folder(home, "data/half pulled", hours=5)
    (deep / "below" / "next").write_bytes(b"x")  # only this subfolder shows a recent write
    caches = [folder(home, f"cache/bands/family/{i}", hours=0.1 * i) for i in range(3)]
    old = folder(home, "data/old", hours=1.1)
    assert prune(0) == [old]
    assert all(path.exists() for path in (*recent, deep, *caches))


def test_checkpoints_of_an_interrupted_run_are_kept_for_two_weeks(home):
    cut_off = folder(home, "checkpoints/cut off", hours=13 * 24)
    abandoned = folder(home, "checkpoints/abandoned", hours=15 * 24)
    assert prune(0) == [abandoned]
    assert cut_off.exists()


def test_fold_lock_is_not_deleted_as_a_checkpoint(home):
    abandoned = folder(home, "checkpoints/abandoned", hours=15 * 24)
    lock = home / "checkpoints" / "run-fold-1.lock"
    lock.touch()
    age(lock, hours=15 * 24)
    assert prune(0) == [abandoned]
    assert lock.exists()


def test_opening_a_cache_counts_as_use(home):
    demo.generate(home / "patches", scenes=((1, 2),))
    table = patch_table(home / "patches")
    open_cache = [ensure_cache(home / "cache" / "bands", home / "patches", table, v, BandSettings()) for v in "ab"]
    for cache in open_cache:
        age(cache.directory, hours=48)
    age(open_cache[1].directory, hours=24)
    ensure_cache(home / "cache" / "bands", home / "patches", table, "a", BandSettings())
    assert prune(0) == [open_cache[1].directory]


def test_links_are_neither_counted_nor_followed(home, tmp_path_factory):
    elsewhere = folder(tmp_path_factory.mktemp("elsewhere"), "data", hours=50, kilobytes=500)
    checkpoint = folder(home, "checkpoints/run", hours=15 * 24)
    (checkpoint / "link").symlink_to(elsewhere)
    (checkpoint / "below" / "link").symlink_to(elsewhere / "below" / "file")
    age(checkpoint, hours=15 * 24)
    assert size_of(home) == 10 * KB
    assert prune(0) == [checkpoint]
    assert (elsewhere / "below" / "file").exists()


def test_files_that_disappear_during_pruning_are_ignored(home, monkeypatch):
    """Other processes write here: databases have journals, and caches are renamed."""
    folder(home, "mlartifacts", hours=1)
    original = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        path.unlink() if path.is_file() else None
        return original(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert size_of(home) == 0


def test_missing_home_is_empty(home, monkeypatch):
    monkeypatch.setenv("LANDSLIDE_HOME", str(home / "absent"))
    assert prune(0) == []
