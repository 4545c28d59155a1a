"""Data sets of a few small patches on disk."""

from pathlib import Path

import h5py
import numpy as np

from landslide.schema import LAYOUTS

ZENODO, HUGGING_FACE = LAYOUTS


def write_h5(path: Path, key: str, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = values
    return path


def build_image(seed: int = 0, bands: int = 14, dtype: str = "float64") -> np.ndarray:
    """An image (128, 128, bands) of numbers from 0.01 to 1.99 as Landslide4Sense has them; whole from 1 if integers."""
    values = np.random.default_rng(seed).integers(1, 200, (128, 128, bands))
    return values.astype(dtype) if np.dtype(dtype).kind in "iu" else (values / 100).astype(dtype)


def build_mask(positive: int = 10) -> np.ndarray:
    """A mask (128, 128), uint8, with this many landslide pixels."""
    mask = np.zeros((128, 128), np.uint8)
    mask.flat[:positive] = 1
    return mask


def write_patch_set(root: Path, numbers=(1, 2, 10), *, layout=ZENODO, split="train", bands=14, dtype="float64") -> Path:
    """Write patches; patch n has n landslide pixels."""
    images, masks = layout[split]
    for number in numbers:
        write_h5(root / images / f"image_{number}.h5", "img", build_image(number, bands, dtype))
        write_h5(root / masks / f"mask_{number}.h5", "mask", build_mask(number))
    return root


def image_path(root: Path, number: int) -> Path:
    """The path of the training image with this number in the Zenodo layout."""
    return root / f"TrainData/img/image_{number}.h5"


def mask_path(root: Path, number: int) -> Path:
    """The path of the training mask with this number in the Zenodo layout."""
    return root / f"TrainData/mask/mask_{number}.h5"
