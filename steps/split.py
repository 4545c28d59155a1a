"""Split: give every patch its fold."""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
from zenml import step

from landslide.errors import ConfigurationError, DataError, first_few
from landslide.folds.schemes import assign
from landslide.folds.table import read_folds, refuse_shared_images
from steps.code_dependencies import depends_on_code_of
from steps.settings import FoldSettings
from steps.table_materializer import TableMaterializer


@step(cache_policy=depends_on_code_of("steps.split"), output_materializers={"fold_table": TableMaterializer})
def split(
    patch_table: pd.DataFrame, folds: FoldSettings, band_statistics: pd.DataFrame | None = None
) -> Annotated[pd.DataFrame, "fold_table"]:
    """Assign the folds, by a scheme or as a recorded table has them.

    Args:
        patch_table: The patches in natural order.
        folds: How to split.
        band_statistics: What `measure_bands` returns, for a scheme that needs it (`FoldSettings.reads_images`).

    Returns:
        The patch table with a column `fold` (1..n_folds).

    Raises:
        ConfigurationError: If the folds cannot be made so, or a recorded table divides scenes that are to be whole.
        DataError: If an image is in several folds, unless `folds` allows it, or if no patch has a landslide.
    """
    if not patch_table["positive_pixels"].any():
        raise DataError(
            f"None of the {len(patch_table)} masks has a landslide: there is nothing to learn.",
            remedy="See that the masks are 1 on landslides and 0 elsewhere.",
        )
    table = patch_table.assign(fold=_folds(patch_table, folds, band_statistics))
    if not folds.allow_duplicates:
        refuse_shared_images(table)
    return table


def _folds(
    patch_table: pd.DataFrame, folds: FoldSettings, band_statistics: pd.DataFrame | None
) -> npt.NDArray[np.int64]:
    if folds.table is not None:
        recorded = read_folds(Path(folds.table), patch_table, n_folds=folds.n_folds)
        if folds.scheme == "scene":
            _refuse_divided_scenes(patch_table["scene"], recorded, folds.table)
        return recorded
    positions = patch_table[["scene", "row", "column"]]
    return assign(
        patch_table["number"].tolist(),
        scheme=folds.scheme,
        n_folds=folds.n_folds,
        seed=folds.seed,
        positive_pixels=patch_table["positive_pixels"].to_numpy(),
        scenes=None if positions.isna().any(axis=None) else positions.to_numpy("float64"),
        statistics=None if band_statistics is None else band_statistics.to_numpy().reshape(len(patch_table), 2, -1),
    )


def _refuse_divided_scenes(scenes: pd.Series, fold: npt.NDArray[np.int64], path: str) -> None:
    """Raise if a scene is in several folds: none of them is tested on another scene than it trains on."""
    folds_of_scene = pd.Series(fold).groupby(scenes.to_numpy()).nunique()
    divided = [str(scene) for scene in folds_of_scene.index[folds_of_scene > 1]]
    if divided:
        raise ConfigurationError(
            f"folds.scheme is scene, and in {path} {len(divided)} scenes are in several folds: {first_few(divided)}.",
            remedy="Give the table of a run with whole scenes, or leave folds.scheme out.",
        )
