"""Real Sentinel-2 material, and changed copies of rasters."""

from pathlib import Path
from typing import Any

import pytest
import rasterio


def sentinel2_folder(real_data: Path) -> Path:
    """Return the folder of real Sentinel-2 material; the test skips if it is missing."""
    folder = real_data / "sentinel2"
    if not folder.is_dir():
        pytest.skip(f"no Sentinel-2 material in {folder}")
    return folder


def rewrite(path: Path, values: Any = None, **changes: Any) -> Path:
    """Write a GeoTIFF again with other values or another profile; scale, offset and names stay."""
    with rasterio.open(path) as dataset:
        profile, scales, offsets, names = dataset.profile, dataset.scales, dataset.offsets, dataset.descriptions
        if values is None:
            values = dataset.read()
    profile |= {"height": values.shape[1], "width": values.shape[2], "count": len(values), "dtype": values.dtype}
    path.unlink()
    with rasterio.open(path, "w", **(profile | changes)) as dataset:
        dataset.write(values)
        if len(values) == len(scales):
            dataset.scales, dataset.offsets, dataset.descriptions = scales, offsets, names
    return path
