"""Windows over a scene, and the taper by which their overlapping predictions are blended."""

import numpy as np
import numpy.typing as npt

from landslide.errors import ConfigurationError, DataError
from landslide.schema import PATCH_SIZE

_MULTIPLE = 16  # the networks halve a window up to four times


def window_side(height: int, width: int) -> int:
    """Return the side of the square windows of a scene: that of the training patches, or less in a small scene.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.

    Returns:
        128, or the largest multiple of 16 that fits into the scene. Windows are never padded.

    Raises:
        DataError: If the scene is smaller than 16 pixels.
    """
    side = min(PATCH_SIZE, height, width) // _MULTIPLE * _MULTIPLE
    if not side:
        raise DataError(
            f"The scene has {height} x {width} pixels; the networks need {_MULTIPLE} x {_MULTIPLE} at least.",
            remedy="Give a larger scene; 128 x 128 pixels and more are as in training.",
        )
    return side


def window_starts(length: int, side: int, overlap: float) -> tuple[int, ...]:
    """Return where windows start along an axis: at equal steps, the last one shifted inward to end at the edge.

    Args:
        length: Pixels along the axis.
        side: Pixels of a window.
        overlap: Share of a window that the next one covers again, at least 0 and less than 1.

    Raises:
        ConfigurationError: If the overlap is out of range.
    """
    if not 0 <= overlap < 1:
        raise ConfigurationError(
            f"The overlap of windows is {overlap}.", remedy="Give a share of at least 0 and less than 1, such as 0.5."
        )
    step = max(1, round(side * (1 - overlap)))
    last = length - side
    return (*range(0, last, step), last)


def taper(side: int) -> npt.NDArray[np.float32]:
    """Return the weights of a window along one axis: a squared sine, largest in the middle, nowhere 0. (side,)."""
    return np.square(np.sin(np.pi * (np.arange(side) + 0.5) / side)).astype(np.float32)


def blending_weights(starts: tuple[int, ...], side: int) -> npt.NDArray[np.float32]:
    """Return the weights of all windows along an axis, which sum to one in every pixel.

    Args:
        starts: What `window_starts` returned.
        side: Pixels of a window.

    Returns:
        (windows, side). The weight of a pixel in a window is the product of those along both axes.
    """
    total = np.zeros(starts[-1] + side, np.float64)
    for start in starts:
        total[start : start + side] += taper(side)
    return np.stack([taper(side) / total[start : start + side] for start in starts]).astype(np.float32)
