"""The band cache in the artifact store: two machines that share nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from landslide.bands.build import ensure_cache
from landslide.bands.cache import cache_family, cache_key, open_cache
from landslide.bands.formulas import BandSettings
from landslide.data.digests import directory_digest
from landslide.data.table import patch_table
from landslide.errors import CacheError
from steps import shared_cache

pytestmark = pytest.mark.slow

SETTINGS = BandSettings()


@pytest.fixture
def store(stack):
    """The artifact store of the embedded stack, without bands."""
    from zenml.client import Client

    store = Client().active_stack.artifact_store
    shutil.rmtree(Path(store.path, "bands"), ignore_errors=True)
    return store


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    from landslide.data.demo import generate

    folder = tmp_path_factory.mktemp("shared") / "data"
    generate(folder, scenes=((2, 3),))
    return folder


def _build(machine: Path, data: Path):
    version, digests = directory_digest(data)
    table = patch_table(data, digests=digests)
    return ensure_cache(machine, data, table, version, SETTINGS), table, version


def _place(machine: Path, version: str) -> Path:
    return machine / cache_family(SETTINGS) / cache_key(version, SETTINGS)


def test_second_machine_fetches_the_published_cache(store, data, tmp_path):
    built, _, version = _build(tmp_path / "one", data)
    shared_cache.publish(store, built.directory)
    elsewhere = _place(tmp_path / "two", version)
    shared_cache.fetch(store, elsewhere)
    np.testing.assert_array_equal(open_cache(elsewhere).bands, built.bands)


def test_cache_without_manifest_counts_as_missing(store, data, tmp_path):
    built, _, version = _build(tmp_path / "one", data)
    shared_cache.publish(store, built.directory)
    next(Path(store.path, "bands").rglob("manifest.json")).unlink()
    with pytest.raises(CacheError, match="no band cache"):
        shared_cache.fetch(store, _place(tmp_path / "two", version))
    assert not list((tmp_path / "two").rglob("*.npy"))


def test_second_machine_computes_only_new_patches(store, data, tmp_path, caplog):
    small = Path(shutil.copytree(data, tmp_path / "data"))
    for name in ("img/image_6", "mask/mask_6"):
        (small / "TrainData" / f"{name}.h5").unlink()
    built, _, _ = _build(tmp_path / "one", small)
    shared_cache.publish(store, built.directory)

    version, digests = directory_digest(data)
    table = patch_table(data, digests=digests)
    shared_cache.fetch_most_similar(store, _place(tmp_path / "two", version), table)
    with caplog.at_level("INFO", logger="landslide.bands.build"):
        _build(tmp_path / "two", data)
    assert "Bands of 1 patches computed, 5 taken from older caches." in caplog.text


def test_fetch_relative_from_an_empty_store_does_nothing(store, data, tmp_path):
    _, table, version = _build(tmp_path / "one", data)
    shared_cache.fetch_most_similar(store, _place(tmp_path / "two", version), table)
    assert not (tmp_path / "two").exists()
