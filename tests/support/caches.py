"""Band caches without files."""

from pathlib import Path

import numpy as np

from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings


def build_band_cache(n: int, names: tuple[str, ...] = ("slope", "B4"), dtype: str = "float32") -> BandCache:
    """A band cache in memory: noise, and a landslide in the corner of every patch."""
    rng = np.random.default_rng(0)
    masks = np.zeros((n, 128, 128), np.uint8)
    masks[:, :16, :16] = 1
    bands = rng.normal(size=(n, len(names), 128, 128)).astype(dtype)
    return BandCache(Path("nowhere"), names, bands, masks, np.dtype("float64"), BandSettings())
