"""Build bands: compute all bands of all patches into the cache on disk."""

from typing import Annotated

import pandas as pd
from tqdm.auto import tqdm
from zenml import step

from landslide.bands.cache import cache_key
from landslide.bands.formulas import BandSettings
from steps.code_dependencies import depends_on_code_of
from steps.data_access import open_bands
from steps.settings import DataSettings


@step(cache_policy=depends_on_code_of("steps.build_bands"))
def build_bands(
    patch_table: pd.DataFrame, data_version: str, data: DataSettings, bands: BandSettings
) -> Annotated[str, "band_cache"]:
    """Build the band cache.

    Args:
        patch_table: The patches, in the order of the cache's rows.
        data_version: Digest of the data set.
        data: Where the patches are.
        bands: How the bands are computed.

    Returns:
        The key of the cache. Whoever needs the cache opens it by key and rebuilds it if it is gone.
    """
    with tqdm(total=len(patch_table), desc="bands", unit="patch", disable=None) as bar:
        open_bands(data, bands, patch_table, data_version, progress=lambda done, _: bar.update())
    return cache_key(data_version, bands)
