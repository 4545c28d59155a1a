"""The band cache: content, key, growth, damage, and concurrent processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pandas as pd
import pytest

from landslide.bands import build as building
from landslide.bands import cache, formulas
from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache, cache_family, cache_key, formula_version, open_cache
from landslide.bands.formulas import BandSettings, available_bands, engineer
from landslide.bands.rounding import rounded
from landslide.data import demo
from landslide.data.patches import read_mask, read_stored
from landslide.data.table import patch_table
from landslide.errors import CacheError

SETTINGS = BandSettings()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six generated patches. No test changes them."""
    root = tmp_path_factory.mktemp("cache") / "data"
    demo.generate(root, scenes=((2, 3),))
    return root


@pytest.fixture(scope="module")
def table(data):
    return patch_table(data)


@pytest.fixture
def build(data, table, tmp_path):
    """Build or open the cache of the first n patches in a folder of this test."""

    def build(n: int = 3, settings: BandSettings = SETTINGS, **options) -> BandCache:
        return ensure_cache(tmp_path / "caches", data, table[:n], f"version of {n}", settings, **options)

    return build


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """The images for which `compute_rows` is called, in any order."""
    calls: list[str] = []
    original = building.compute_rows

    def counted(data_root, files, settings):
        calls.extend(image for image, _ in files)
        return original(data_root, files, settings)

    monkeypatch.setattr(building, "compute_rows", counted)
    return calls


def assert_holds(opened: BandCache, root: Path, table, settings: BandSettings = SETTINGS) -> None:
    assert opened.band_names == available_bands(settings.stored)
    assert opened.bands.dtype == settings.dtype
    assert opened.masks.dtype == np.uint8
    assert len(opened.bands) == len(opened.masks) == len(table)
    for row, patch in enumerate(table.itertuples()):
        expected = engineer(read_stored(root / patch.image, len(settings.stored)), settings).astype(settings.dtype)
        np.testing.assert_array_equal(opened.bands[row], expected)
        np.testing.assert_array_equal(opened.masks[row], read_mask(root / patch.mask))


def temporary_entries(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


def flip_a_byte(path: Path, offset_from_end: int) -> None:
    content = bytearray(path.read_bytes())
    content[-offset_from_end] ^= 0x01
    path.chmod(0o644)
    path.write_bytes(content)


# ---- content and key


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_cache_holds_the_engineered_bands_and_masks(build, data, table, tmp_path, dtype):
    settings = BandSettings(dtype=dtype)
    opened = build(3, settings)
    assert_holds(opened, data, table[:3], settings)
    assert opened.columns(("B4", "canny", "B1")) == [3, 25, 0]
    assert opened.directory == tmp_path / "caches" / cache_family(settings) / cache_key("version of 3", settings)
    assert not opened.bands.flags.writeable
    assert not temporary_entries(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_copied_and_computed_rows_of_many_patches_are_in_order(data, table, tmp_path, computed, dtype):
    settings, root = BandSettings(dtype=dtype), tmp_path / "caches"
    ensure_cache(root, data, table[:1], "old", settings)
    many = pd.concat([table] * 24, ignore_index=True)[:140]  # chunks of 64, 64 and 12 rows; about 53 of 64 are computed
    opened = ensure_cache(root, data, many, "new", settings)
    assert_holds(opened, data, many, settings)
    assert len(computed) == 1 + sum(many["number"] != table["number"][0])


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("together", [1, 2, 6])
def test_rows_are_in_order_for_any_number_computed_at_once(build, data, table, monkeypatch, together, threads):
    monkeypatch.setattr(building, "_CHUNK", together)
    monkeypatch.setattr(building, "_MAX_THREADS", threads)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert_holds(build(6), data, table)


def test_at_most_one_chunk_per_thread_waits_for_the_writer(data, table, tmp_path, computed, monkeypatch):
    monkeypatch.setattr(building, "_CHUNK", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    many, ahead = pd.concat([table] * 5, ignore_index=True), []

    def progress(done: int, _: int) -> None:
        time.sleep(0.02)  # the threads compute as far ahead as they can
        ahead.append(len(computed) - done)

    ensure_cache(tmp_path / "caches", data, many, "v", SETTINGS, progress=progress)
    assert len(computed) == len(many)
    assert max(ahead) < 2 * 2


def test_medians_of_a_large_chunk_are_computed_together(data, table, tmp_path, monkeypatch):
    many, sizes = pd.concat([table] * 11, ignore_index=True)[:64], []
    median = cv2.medianBlur
    monkeypatch.setattr(cv2, "medianBlur", lambda image, kernel: sizes.append(image.size) or median(image, kernel))
    opened = ensure_cache(tmp_path / "caches", data, many, "v", SETTINGS)
    assert sizes == [64 * 128 * (128 + 14)]
    monkeypatch.undo()
    assert_holds(opened, data, many)


def test_the_key_depends_on_data_settings_and_formulas(monkeypatch):
    key = cache_key("a", SETTINGS)
    assert cache_key("a", BandSettings()) == key
    others = [BandSettings(**{k: v}) for k, v in (("reflectance", True), ("median_kernel", 5), ("dtype", "float32"))]
    others.append(BandSettings(stored=SETTINGS.stored[:12]))
    keys = {key, cache_key("b", SETTINGS), *(cache_key("a", settings) for settings in others)}
    assert len(keys) == 6
    monkeypatch.setattr(cache, "formula_version", lambda: "other formulas")
    assert cache_key("a", SETTINGS) not in keys


def test_the_formula_version_depends_on_the_source(monkeypatch, tmp_path):
    before = formula_version()
    changed = tmp_path / "bands.py"
    changed.write_text(Path(formulas.__file__).read_text().replace("27.32", "27.33"))
    monkeypatch.setattr(formulas, "__file__", str(changed))
    assert formula_version() != before


def test_a_cache_of_other_formulas_shares_no_rows(build, computed, monkeypatch):
    build(2)
    monkeypatch.setattr(cache, "formula_version", lambda: "other formulas")
    build(2)
    assert len(computed) == 4


def test_a_cache_is_opened_again_without_computing(build, computed):
    first = build(3)
    written = (first.directory / "bands.npy").stat().st_mtime_ns
    computed.clear()
    again = build(3)
    assert computed == []
    assert (again.directory / "bands.npy").stat().st_mtime_ns == written
    np.testing.assert_array_equal(again.bands, first.bands)


def test_progress_counts_every_patch(build):
    seen = []
    build(3, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---- verification


@pytest.fixture
def verified(monkeypatch) -> list[int]:
    """The checksums that opening a cache computes."""
    found: list[int] = []
    original = cache.checksum

    def counted(bands, mask):
        found.append(original(bands, mask))
        return found[-1]

    monkeypatch.setattr(cache, "checksum", counted)
    return found


def test_a_process_verifies_a_cache_once(build, verified):
    directory = build(3).directory
    for _ in range(3):
        open_cache(directory)
        build(3)
    assert len(verified) == 3


def test_a_cache_that_was_written_again_is_verified_again(build, verified):
    directory = build(3).directory
    open_cache(directory)
    copy = shutil.copytree(directory, directory.with_name("copy"))
    shutil.rmtree(directory)
    copy.rename(directory)
    open_cache(directory)
    assert len(verified) == 6


@pytest.mark.parametrize("name", ["bands.npy", "masks.npy"])
def test_damage_after_verification_is_found_if_the_file_status_changed(build, name):
    directory = build(3).directory
    open_cache(directory)
    flip_a_byte(directory / name, 1)
    os.utime(directory / name)
    with pytest.raises(CacheError, match="damaged in row 2"):
        open_cache(directory)


def test_settings_come_from_the_manifest(build):
    settings = BandSettings(stored=SETTINGS.stored, median_kernel=9, dtype="float32")
    assert open_cache(build(1, settings).directory).settings == settings


# ---- growth


def test_only_new_patches_are_computed(build, computed, data, table):
    four = build(4)
    assert len(computed) == 4
    computed.clear()
    six = build(6)
    assert sorted(computed) == sorted(table["image"][4:6])
    np.testing.assert_array_equal(six.bands[:4], four.bands)
    assert_holds(six, data, table)


def test_old_rows_are_copied_by_identity_and_not_by_position(build, computed, data, table, tmp_path):
    build(4)
    computed.clear()
    mixed = table.iloc[[5, 3, 0]]
    opened = ensure_cache(tmp_path / "caches", data, mixed, "mixed", SETTINGS)
    assert computed == [table["image"][5]]
    assert_holds(opened, data, mixed)


def test_a_corrected_mask_gives_a_new_row(build, computed, data, table, tmp_path):
    build(2)
    computed.clear()
    corrected = tmp_path / "corrected"
    shutil.copytree(data, corrected)
    with h5py.File(corrected / table["mask"][1], "r+") as file:
        file["mask"][0, 0] = 1 - file["mask"][0, 0]
    new = patch_table(corrected)[:2]
    opened = ensure_cache(tmp_path / "caches", corrected, new, "corrected", SETTINGS)
    assert computed == [table["image"][1]]
    assert_holds(opened, corrected, new)


# ---- damage


@pytest.mark.parametrize("name", ["bands.npy", "masks.npy"])
def test_only_the_row_of_a_flipped_byte_is_computed_again(build, computed, data, table, caplog, name):
    opened = build(3)
    flip_a_byte(opened.directory / name, 1 + opened.bands[0].nbytes if name == "bands.npy" else 1 + 128 * 128)
    with pytest.raises(CacheError, match="damaged in row 1"):
        open_cache(opened.directory)
    computed.clear()
    again = build(3)
    assert computed == [table["image"][1]]
    assert "damaged in row 1" in caplog.text
    assert_holds(again, data, table[:3])
    assert not temporary_entries(again.directory.parent)


@pytest.mark.parametrize("name", ["bands.npy", "masks.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "emptied"])
def test_an_incomplete_cache_is_built_again(build, data, table, name, damage):
    path = build(2).directory / name
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if damage == "truncated" else 0)
    with pytest.raises(CacheError):
        open_cache(path.parent)
    again = build(2)
    assert_holds(again, data, table[:2])
    assert not temporary_entries(again.directory.parent)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        '{"rows": 3, "band_names": []}',
        '{"rows": [{}], "band_names": []}',
        '{"rows": [], "band_names": [], "settings": {"stored": ["B8A"]}, "stored_dtype": "<f8"}',
    ],
)
def test_a_cache_with_an_invalid_manifest_is_built_again(build, data, table, content):
    directory = build(1).directory
    (directory / "manifest.json").write_text(content)
    with pytest.raises(CacheError):
        open_cache(directory)
    assert_holds(build(1), data, table[:1])


def test_a_truncated_related_cache_does_not_prevent_a_build(build, data, table):
    bands_file = build(2).directory / "bands.npy"
    os.truncate(bands_file, bands_file.stat().st_size - 4096)
    assert_holds(build(3), data, table[:3])


def test_a_related_cache_with_a_wrong_manifest_does_not_prevent_a_build(build, data, table):
    path = build(2).directory / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "rows": manifest["rows"] * 2}))
    assert_holds(build(3), data, table[:3])


# ---- concurrent processes, full disks, temporary files

BUILD = """
import os, resource, signal, sys
from pathlib import Path
from landslide.bands import BandSettings, build
from landslide.bands.build import ensure_cache
from landslide.errors import CacheError
from landslide.data.table import patch_table

data, caches, limit, fatal = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
table = patch_table(data)[:3]
computed, original = [], build.compute_rows

def compute_rows(data_root, files, settings):
    computed.extend(files)
    return original(data_root, files, settings)

def progress(done, of):
    if done == fatal:
        os.kill(os.getpid(), signal.SIGKILL)

build.compute_rows = compute_rows
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
sys.stdin.readline()
try:
    ensure_cache(caches, data, table, "version of 3", BandSettings(), progress=progress)
except CacheError as error:
    sys.exit(f"CacheError: {error}")
print(len(computed))
"""


def start_building(data: Path, caches: Path, *, limit: int = 0, fatal: int = 0) -> subprocess.Popen:
    """Build three patches in a process that waits for a line first.

    It can write `limit` bytes per file (0: no limit) and is killed after `fatal` patches (0: never).
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", BUILD, str(data), str(caches), str(limit), str(fatal)]
    return subprocess.Popen(command, text=True, **pipes)


@pytest.mark.slow
def test_only_one_of_two_processes_builds_the_cache(build, computed, data, table, tmp_path):
    processes = [start_building(data, tmp_path / "caches") for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    (waited, said), built = sorted(answers)
    assert (waited, built) == ("0\n", ("3\n", ""))
    assert not said or re.fullmatch(r"\S+\.build\.lock is locked by .+; waiting for it\.\n", said)
    assert not temporary_entries(tmp_path / "caches")
    assert_holds(build(3), data, table[:3])
    assert computed == []


@pytest.mark.slow
def test_a_killed_build_leaves_no_cache_and_the_next_build_removes_its_files(build, data, table, tmp_path):
    process = start_building(data, tmp_path / "caches", fatal=2)
    process.communicate("go\n", timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert temporary_entries(tmp_path / "caches")
    with pytest.raises(CacheError, match="incomplete"):
        open_cache(tmp_path / "caches" / cache_family(SETTINGS) / cache_key("version of 3", SETTINGS))
    assert_holds(build(2), data, table[:2])
    assert not temporary_entries(tmp_path / "caches")


@pytest.mark.slow
def test_a_full_disk_is_an_error_with_a_remedy_and_leaves_no_files(data, tmp_path):
    process = start_building(data, tmp_path / "caches", limit=1_000_000)  # bytes per file; three patches need 2.5 MB
    _, errors = process.communicate("go\n", timeout=60)
    assert process.returncode == 1, errors
    assert errors.startswith(f"CacheError: The band cache in {tmp_path / 'caches' / cache_family(SETTINGS)}")
    assert "Free some space or set LANDSLIDE_HOME" in errors
    assert [path for path in (tmp_path / "caches").rglob("*") if path.is_file()] == []
    assert not temporary_entries(tmp_path / "caches")


def test_too_little_space_is_an_error_before_the_first_write(build, computed, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(CacheError, match=r"0\.00 GB are free") as error:
        build(3)
    assert "Free some space" in error.value.remedy
    assert computed == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_a_cache_error(build, tmp_path):
    (tmp_path / "caches").mkdir(mode=0o500)
    with pytest.raises(CacheError, match="cannot be written") as error:
        build(1)
    assert "you may write to" in error.value.remedy


def test_a_file_in_the_place_of_the_cache_folder_is_a_cache_error(build, tmp_path):
    (tmp_path / "caches").write_text("")
    with pytest.raises(CacheError, match="cannot be written") as error:
        build(1)
    assert "LANDSLIDE_HOME" in error.value.remedy


def test_a_failed_build_leaves_no_files(build, monkeypatch, tmp_path):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "compute_rows", fail)
    with pytest.raises(KeyboardInterrupt):
        build(2)
    assert [path for path in (tmp_path / "caches").rglob("*") if path.is_file()] == []
    assert not temporary_entries(tmp_path / "caches")


# ---- other data sets


def write_patch(root: Path, image: np.ndarray) -> None:
    for kind, name, key, values in (
        ("img", "image_1.h5", "img", image),
        ("mask", "mask_1.h5", "mask", np.eye(128, dtype=np.uint8)),
    ):
        (root / "TrainData" / kind).mkdir(parents=True)
        with h5py.File(root / "TrainData" / kind / name, "w") as file:
            file[key] = values


def test_float16_is_rounded_as_numpy_rounds():
    exact = np.arange(2**15 - 2**10, dtype=np.uint16).view(np.float16).astype(np.float32)  # from zero to 65504
    halfway = (exact[:-1] + exact[1:]) / 2
    values = np.concatenate([exact, halfway, halfway * np.float32(1.0001)])
    values = np.stack([values, -values])[..., None]
    found = rounded(values, "float16")
    np.testing.assert_array_equal(found.view(np.uint16), values.astype(np.float16).view(np.uint16))


def test_a_value_too_large_for_float16_names_file_and_setting(tmp_path):
    image = np.ones((128, 128, 14))
    image[5, 5, 13] = 70_000.0
    write_patch(tmp_path / "data", image)
    table = patch_table(tmp_path / "data")
    with pytest.raises(CacheError, match=r"image_1\.h5 holds values above 65504") as error:
        ensure_cache(tmp_path / "caches", tmp_path / "data", table, "v", SETTINGS)
    assert error.value.remedy == "Set bands.dtype: float32."
    assert not temporary_entries(tmp_path / "caches")
    float32 = BandSettings(dtype="float32")
    opened = ensure_cache(tmp_path / "caches", tmp_path / "data", table, "v", float32)
    assert opened.bands[0, 13, 5, 5] == 70_000.0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_cache_of_three_stored_bands(tmp_path, dtype):
    settings = BandSettings(stored=("B4", "B3", "B2"))
    write_patch(tmp_path / "data", np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(dtype))
    table = patch_table(tmp_path / "data")
    opened = ensure_cache(tmp_path / "caches", tmp_path / "data", table, "v", settings)
    assert_holds(opened, tmp_path / "data", table, settings)
    assert {"gray", "canny", "blue_normalized"} < set(opened.band_names)
    assert not {"ndvi", "ndmi", "nbr"} & set(opened.band_names)


def test_the_real_sample(real_data, tmp_path):
    root = real_data / "landslide4sense-sample"
    if not root.is_dir():
        pytest.skip(f"no landslide4sense-sample in {real_data} (set LANDSLIDE_REAL_DATA)")
    table = patch_table(root)
    opened = ensure_cache(tmp_path, root, table, "sample", SETTINGS)
    assert opened.bands.shape == (27, 26, 128, 128)
    assert np.isfinite(opened.bands).all()
    assert opened.masks.sum(axis=(1, 2)).tolist() == table["positive_pixels"].tolist()
    assert_holds(opened, root, table)
