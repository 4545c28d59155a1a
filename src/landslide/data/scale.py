"""The scale of stored bands: that of Landslide4Sense, whose bands are divided by their means, or another one."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from landslide.data.patches import Finding
from landslide.errors import first_few
from landslide.schema import ORIGINAL_BANDS, STORED_DIVISORS

LOWEST = {name: -1000 / divisor for name, divisor in STORED_DIVISORS.items()}
"""The lowest value that each band can have. Reflectance can be slightly below 0 after the correction of the atmosphere:
digital numbers of Sentinel-2 have an offset of -1000. No land is below -500 m."""
LOWEST |= {"slope": 0.0, "dem": -500 / STORED_DIVISORS["dem"]}

HIGHEST = {name: 65535 / divisor for name, divisor in STORED_DIVISORS.items()}
"""The highest value: digital numbers have 16 bits, a slope 90 degrees at most, Mount Everest 8,849 m."""
HIGHEST |= {"slope": 90 / STORED_DIVISORS["slope"], "dem": 8900 / STORED_DIVISORS["dem"]}

OTHER_SCALE = (
    "set training.standardize: true, as for images of 8 bits; or, if these are digital numbers (reflectance x 10,000) "
    "and a model is to be shared with Landslide4Sense data, divide each band by its number in docs/reference/bands.md"
)
"""The remedy for a data set of another scale."""

MIXED_SCALE = (
    "bring all images to one scale: if some are digital numbers (reflectance x 10,000), divide each of their bands by "
    "its number in docs/reference/bands.md, or store all images as digital numbers"
)
"""The remedy for images of different scales."""

_SET_FACTOR = 8.0  # by which the typical value of a band in a set may differ from 1
_IMAGE_FACTOR = 100.0  # between images that no scene explains; digital numbers are 445 to 1,960 times the values


def typical_values(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the median of the positive values of each band of an image (H, W, C), NaN if there are none: (C,).

    Every 16th pixel is enough.
    """
    values = image[::4, ::4].reshape(-1, image.shape[2])
    return np.array([np.median(band[band > 0]) if (band > 0).any() else np.nan for band in values.T])


def images_of_another_scale(typical: Mapping[str, NDArray[np.float64]], bands: Sequence[str]) -> list[Finding]:
    """Return a fault for each image whose scale is quite another than that of most images, in half of its bands.

    Args:
        typical: The result of `typical_values` of each image, by path.
        bands: Names of the bands.
    """
    of_set = _middle(typical, len(bands))
    found = []
    for path, of_image in typical.items():
        ratio = of_image / of_set
        known = np.isfinite(ratio)
        far = known & (np.abs(np.log(np.where(known, ratio, 1.0))) > np.log(_IMAGE_FACTOR))
        if far.any() and 2 * far.sum() >= known.sum():
            shown = [f"{bands[i]} {of_image[i]:.4g} instead of {of_set[i]:.4g}" for i in np.flatnonzero(far).tolist()]
            message = f"another scale than most images; typical values are {first_few(shown, limit=3)}"
            found.append(Finding(path, "mixed_scale", message, MIXED_SCALE))
    return found


def set_of_another_scale(typical: Mapping[str, NDArray[np.float64]], bands: Sequence[str]) -> Finding | None:
    """Return a warning if bands of a set have another scale than in Landslide4Sense; bands without a name do not count.

    Args:
        typical: The result of `typical_values` of each image, by path.
        bands: Names of the bands.
    """
    off = [
        f"{name} {value:.4g}"
        for name, value in zip(bands, _middle(typical, len(bands)).tolist(), strict=True)
        if name in ORIGINAL_BANDS and (value > _SET_FACTOR or (_is_spectral(name) and value < 1 / _SET_FACTOR))
    ]
    if not off:
        return None
    message = f"bands of another scale than in Landslide4Sense, where typical values are about 1: {', '.join(off)}"
    return Finding(".", "other_scale", message, OTHER_SCALE)


def _is_spectral(name: str) -> bool:
    return name not in ("slope", "dem")  # plains and coasts are far below the mean


def _middle(typical: Mapping[str, NDArray[np.float64]], n_bands: int) -> NDArray[np.float64]:
    """Return the median of each band over the images: the lower one, so that it is the value of an image."""
    values = np.array([*typical.values(), np.full(n_bands, np.nan)])
    return np.array([np.sort(column)[max(np.isfinite(column).sum() - 1, 0) // 2] for column in values.T])
