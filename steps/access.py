"""Access to patches and bands, wherever a step runs."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from landslide.bands import BandSettings
from landslide.cache import BandCache, ensure_cache
from landslide.home import band_caches
from steps.settings import DataSettings


def patch_folder(data: DataSettings, data_version: str) -> Path:
    """Return the folder that holds the patches of a data version.

    Args:
        data: Where the patches are.
        data_version: Digest of the data set.
    """
    return Path(data.root)


def open_bands(
    data: DataSettings,
    bands: BandSettings,
    patches: pd.DataFrame,
    data_version: str,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> BandCache:
    """Open the band cache of these patches, building it where it is absent or damaged.

    Args:
        data: Where the patches are.
        bands: How the bands are computed.
        patches: Patch table or fold table; row i of the cache belongs to row i of it.
        data_version: Digest of the data set.
        progress: Called with (patches done, patches in all) while it is built.
    """
    folder = patch_folder(data, data_version)
    return ensure_cache(band_caches(), folder, patches, data_version, bands, progress=progress)
