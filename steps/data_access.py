"""Access to patches and bands on any machine that runs a step.

In a checkout the patches are in `data.root` and the band cache is on a disk that all steps share. A pod has neither:
it pulls the requested data version from the DVC remote, and the band cache from the artifact store.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel
from zenml.artifact_stores import BaseArtifactStore
from zenml.client import Client

from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache, cache_family, cache_key, open_cache
from landslide.bands.formulas import BandSettings
from landslide.data.band_statistics import patch_statistics
from landslide.data.dvc import newest
from landslide.data.project import create_version
from landslide.errors import CacheError
from landslide.paths import band_caches, pulled_data
from steps import shared_cache
from steps.settings import DataSettings

logger = logging.getLogger(__name__)


class PatchSource(BaseModel, frozen=True):
    """The patches of one data version and how their bands are computed: what steps pass on instead of patches.

    Attributes:
        data: Where the patches are.
        version: Digest of the data set.
        bands: How the bands are computed.
    """

    data: DataSettings
    version: str
    bands: BandSettings

    @property
    def cache_key(self) -> str:
        """The key of the band cache."""
        return cache_key(self.version, self.bands)

    def with_bands(self, bands: BandSettings) -> "PatchSource":
        """Return the same patches with other bands."""
        return self.model_copy(update={"bands": bands})

    def folder(self) -> Path:
        """Return the folder that holds the patches; bring them if there is no such folder.

        Raises:
            DataError: If `data.root` is missing and the DVC remote does not give this version.
        """
        root = Path(self.data.root)
        if root.is_dir() and any(root.iterdir()):
            return root
        folder = pulled_data() / self.version
        if not folder.is_dir():
            if self.data.repository:
                with newest(self.data.repository, self.data.revision, name=root.name) as (clone, _):
                    create_version(self.version, folder, project=clone)
            else:
                create_version(self.version, folder, project=root.parent)
        return folder

    def statistics(self, patches: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Return mean and standard deviation of every stored band of each patch, (n, 2, bands), from the files.

        Args:
            patches: Patch table.
        """
        return patch_statistics(self.folder(), patches["image"].tolist(), len(self.bands.stored))

    def open_bands(self, patches: pd.DataFrame, *, progress: Callable[[int, int], object] | None = None) -> BandCache:
        """Open the band cache, building it if it is missing or damaged.

        With a remote artifact store, the cache is downloaded from it. If it is missing there, it is built and
        uploaded.

        Args:
            patches: Patch table or fold table; row i of the cache belongs to row i of it.
            progress: Called with (patches done, patches in all) while the cache is built.
        """

        def build() -> BandCache:
            return ensure_cache(band_caches(), self.folder(), patches, self.version, self.bands, progress=progress)

        store = Client().active_stack.artifact_store
        if store.config.is_local:
            return build()
        directory = band_caches() / cache_family(self.bands) / self.cache_key
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
        shared_cache.fetch_most_similar(store, directory, patches)
    except CacheError as error:
        logger.warning("%s All bands are computed again.", error.what)
    cache = build()
    shared_cache.publish(store, cache.directory)
    return cache
