"""From physical units to the bands, order and units of patch files."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from landslide.schema import STORED_DIVISORS

Units = Literal["landslide4sense", "digital_numbers", "reflectance"]

TERRAIN_BANDS = ("slope", "dem")
_DIGITAL_NUMBERS = 10_000.0  # of a reflectance of 1


def to_stored(
    values: npt.NDArray[np.float32], bands: Sequence[str], stored: Sequence[str], units: Units
) -> npt.NDArray[np.float64]:
    """Bring values of a scene to the bands, order and units of patch files.

    Args:
        values: (..., C, H, W), the bands of `bands`: reflectance from 0 to 1, degrees, metres.
        bands: Names of the C bands.
        stored: Names of the bands of a patch file, in its order.
        units: `BandSettings.units`.

    Returns:
        (..., stored bands, H, W) float64; 0 in stored bands that are not among `bands`.
    """
    result = np.zeros((*values.shape[:-3], len(stored), *values.shape[-2:]))
    for i, name in enumerate(bands):
        result[..., stored.index(name), :, :] = stored_values(name, values[..., i, :, :], units)
    return result


def stored_values(band: str, values: npt.ArrayLike, units: Units) -> npt.NDArray[np.float64]:
    """Bring values of one band, of any shape, to the units of patch files."""
    exact = np.array(values, np.float64)
    if band not in TERRAIN_BANDS:
        exact *= _DIGITAL_NUMBERS
        np.round(exact, 2, out=exact)  # the sensor's integers, which float32 holds to 1e-7 only
    if units == "landslide4sense":
        exact /= STORED_DIVISORS[band]
    elif units == "reflectance" and band not in TERRAIN_BANDS:
        exact /= _DIGITAL_NUMBERS
    return exact
