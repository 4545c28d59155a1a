"""Statistics of the stored bands of every patch, read from the files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from landslide.data.patches import read_stored


def patch_statistics(root: Path, images: Sequence[str], n_bands: int) -> npt.NDArray[np.float64]:
    """Return mean and standard deviation of every stored band over the pixels of each patch.

    Args:
        root: Folder of the data set.
        images: Paths of n images below it.
        n_bands: Number of stored bands.

    Returns:
        (n, 2, bands) means and population standard deviations, in the units of the file.

    Raises:
        DataError: If an image cannot be read.
    """
    statistics = np.empty((len(images), 2, n_bands))
    for place, image in enumerate(images):
        values = read_stored(root / image, n_bands).astype(np.float64)
        statistics[place] = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
    return statistics
