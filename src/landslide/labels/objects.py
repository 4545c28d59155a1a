"""Landslides of a mask as objects: connected pixels."""

import re
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt


def label_objects(mask: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Number the landslides of a mask.

    Args:
        mask: (H, W), not 0 on landslides. Pixels that touch at an edge or a corner are one landslide.

    Returns:
        (H, W) int32: 0 where there is none, otherwise the number of the landslide from 1, in reading order of their
        first pixels.
    """
    n, found = cv2.connectedComponents((np.asarray(mask) != 0).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    numbers, first = np.unique(found, return_index=True)
    order = numbers[np.argsort(first)]
    rank = np.zeros(n, np.int32)
    rank[order[order != 0]] = np.arange(1, n)
    return np.asarray(rank[found], np.int32)


def parse_objects(text: str) -> list[int]:
    """Read numbers of landslides, such as `1, 3`.

    Raises:
        ValueError: If there is anything else than whole numbers from 1.
    """
    numbers = [int(part) for part in re.split(r"[,;\s]+", text.strip()) if part]
    if any(number < 1 for number in numbers):
        raise ValueError(text)
    return numbers
