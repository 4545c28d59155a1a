"""Small pictures of the rasters of a map, for the quicklook and the page."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import Resampling

from landslide.products.colours import REASON_COLOURS


def probability_overview(folder: Path, shape: tuple[int, int]) -> Any:
    """Return the mean landslide probability of the scene at another size.

    Args:
        folder: The folder with probability.tif.
        shape: Rows and columns of the result.

    Returns:
        A masked array of float, masked where nothing was analysed.
    """
    with rasterio.open(folder / "probability.tif") as dataset:
        return dataset.read(1, out_shape=shape, resampling=Resampling.average, masked=True) * dataset.scales[0]


def not_analysed_overlay(folder: Path, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Draw what was not analysed as stripes in the colours of the reasons, transparent elsewhere.

    Args:
        folder: The folder with reasons.tif.
        shape: Rows and columns of the result.

    Returns:
        (rows, columns, 4) uint8: red, green, blue, opacity.
    """
    with rasterio.open(folder / "reasons.tif") as dataset:
        reasons = dataset.read(1, out_shape=shape, resampling=Resampling.nearest)
    rows, columns = np.indices(shape)
    stripe = (rows + columns) % 8 < 3
    picture = np.zeros((*shape, 4), np.uint8)
    for reason, colour in REASON_COLOURS.items():
        picture[(reasons == reason) & stripe] = *bytes.fromhex(colour.removeprefix("#")), 230
        picture[(reasons == reason) & ~stripe] = 255, 255, 255, 110
    return picture
