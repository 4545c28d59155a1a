"""Build bands: compute all bands of all patches into the cache on disk."""

from typing import Annotated

import pandas as pd
from tqdm.auto import tqdm
from zenml import step

from landslide.bands.formulas import BandSettings
from steps.code_dependencies import depends_on_code_of
from steps.data_access import PatchSource
from steps.settings import DataSettings


@step(cache_policy=depends_on_code_of("steps.build_bands"))
def build_bands(
    patch_table: pd.DataFrame, data_version: str, data: DataSettings, bands: BandSettings
) -> Annotated[PatchSource, "patches"]:
    """Build the band cache.

    Args:
        patch_table: The patches, in the order of the cache's rows.
        data_version: Digest of the data set.
        data: Where the patches are.
        bands: How the bands are computed.

    Returns:
        What opens the cache, and rebuilds it if it is gone.
    """
    patches = PatchSource(data=data, version=data_version, bands=bands)
    with tqdm(total=len(patch_table), desc="bands", unit="patch", disable=None) as bar:
        patches.open_bands(patch_table, progress=lambda done, _: bar.update())
    return patches
