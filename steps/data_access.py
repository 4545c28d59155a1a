"""Access to patches and bands, wherever a step runs.

In a checkout the patches lie in `data.root` and the band cache on a disk that all steps share. A pod has neither:
it brings exactly the version that it was told from the DVC remote, and the cache from the artifact store.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from zenml.artifact_stores import BaseArtifactStore
from zenml.client import Client

from landslide.bands.cache import BandCache, cache_family, cache_key, ensure_cache, open_cache
from landslide.bands.formulas import BandSettings
from landslide.data.dvc import newest
from landslide.data.project import obtain
from landslide.errors import CacheError
from landslide.paths import band_caches, pulled_data
from steps import shared_cache
from steps.settings import DataSettings

logger = logging.getLogger(__name__)


def patch_folder(data: DataSettings, data_version: str) -> Path:
    """Return the folder that holds the patches of a data version, bringing them where there is no such folder.

    Args:
        data: Where the patches are.
        data_version: Digest of the data set.

    Raises:
        DataError: If `data.root` is not there and the DVC remote does not give this version.
    """
    root = Path(data.root)
    if root.is_dir():
        return root
    folder = pulled_data() / data_version
    if not folder.is_dir():
        if data.repository:
            with newest(data.repository, data.revision, name=root.name) as (clone, _):
                obtain(data_version, folder, project=clone)
        else:
            obtain(data_version, folder, project=root.parent)
    return folder


def open_bands(
    data: DataSettings,
    bands: BandSettings,
    patches: pd.DataFrame,
    data_version: str,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> BandCache:
    """Open the band cache of these patches, building it where it is absent or damaged.

    Where the artifact store is not on this machine, the cache is looked for there first, and left there when it
    had to be built.

    Args:
        data: Where the patches are.
        bands: How the bands are computed.
        patches: Patch table or fold table; row i of the cache belongs to row i of it.
        data_version: Digest of the data set.
        progress: Called with (patches done, patches in all) while it is built.
    """

    def build() -> BandCache:
        folder = patch_folder(data, data_version)
        return ensure_cache(band_caches(), folder, patches, data_version, bands, progress=progress)

    store = Client().active_stack.artifact_store
    if store.config.is_local:
        return build()
    directory = band_caches() / cache_family(bands) / cache_key(data_version, bands)
    return _open_shared(store, directory, patches, build)


def _open_shared(
    store: BaseArtifactStore, directory: Path, patches: pd.DataFrame, build: Callable[[], BandCache]
) -> BandCache:
    try:
        shared_cache.fetch(store, directory)
        return open_cache(directory)
    except CacheError as error:
        logger.info("%s Building it.", error.what)
    try:
        shared_cache.fetch_relative(store, directory, patches)
    except CacheError as error:
        logger.warning("%s All bands are computed anew.", error.what)
    cache = build()
    shared_cache.publish(store, cache.directory)
    return cache
