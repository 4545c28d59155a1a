"""Measure bands: the statistics of every patch's stored bands, for folds that are split by them."""

from typing import Annotated

import pandas as pd
from zenml import step

from steps.code_dependencies import depends_on_code_of
from steps.data_access import PatchSource
from steps.table_materializer import TableMaterializer


@step(
    cache_policy=depends_on_code_of("steps.measure_bands"), output_materializers={"band_statistics": TableMaterializer}
)
def measure_bands(patch_table: pd.DataFrame, patches: PatchSource) -> Annotated[pd.DataFrame, "band_statistics"]:
    """Read every image and measure its stored bands.

    Args:
        patch_table: The patches.
        patches: Where they are.

    Returns:
        One row per patch: the means of all bands, then their standard deviations (see `patch_statistics`).
    """
    names = [f"{measure} {band}" for measure in ("mean", "deviation") for band in patches.bands.stored]
    return pd.DataFrame(patches.statistics(patch_table).reshape(len(patch_table), -1), columns=names)
