"""Rasters of a finished scene, as inference leaves them, with landslides of known shape."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from landslide.products.map_info import MapInfo
from landslide.scenes.grid import Grid


def utm_grid(width: int, height: int, zone: str = "EPSG:32633", pixel: float = 10.0) -> Grid:
    """A grid of square pixels in the middle of a UTM zone, north of the equator or south of it."""
    return Grid(CRS.from_string(zone), Affine(pixel, 0, 430_000, 0, -pixel, 5_300_000), width, height)


def degree_grid(width: int, height: int) -> Grid:
    """A grid in longitude and latitude, at 42.7 degrees north; a pixel is about 7.4 m wide and 10 m high."""
    return Grid(CRS.from_epsg(4326), Affine(0.00009, 0, 141.9, 0, -0.00009, 42.7), width, height)


def map_info(**changes) -> MapInfo:
    """What the products of a map quote."""
    values = {
        "scene": "S2A_MSIL1C_20170216T102101_N0204_R065_T33UUU",
        "source": "/data/S2A_MSIL1C_20170216T102101_N0204_R065_T33UUU.SAFE",
        "sensor": "Sentinel-2A",
        "level": "L1C",
        "image_datetime": datetime(2017, 2, 16, 10, 21, 1, tzinfo=UTC),
        "processing_baseline": "02.04",
        "model": "landslide-lite_unet",
        "model_version": "3",
        "model_address": "models:/landslide-lite_unet/3",
        "threshold": 0.5,
        "minimum_area": 0.0,
        "blending": "windows of 128 pixels, half overlapping, raised cosine",
        "augmentation": "none",
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "landslide_version": "0.1.0",
    }
    return MapInfo(**(values | changes))


def write_map(folder: Path, grid: Grid, mask, probability=0.9, uncertainty=0.1, reasons=None) -> Path:
    """Write mask.tif, probability.tif, uncertainty.tif and reasons.tif; 255 in the mask is not analysed."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.asarray(mask, np.uint8)
    if reasons is None:
        reasons = np.where(mask == 255, 5, 0)
    _write(folder / "mask.tif", grid, mask, nodata=255)
    _write(folder / "reasons.tif", grid, np.asarray(reasons, np.uint8))
    for name, values in (("probability", probability), ("uncertainty", uncertainty)):
        stored = np.where(mask == 255, 65535, np.round(np.broadcast_to(values, mask.shape) / 0.0001))
        _write(folder / f"{name}.tif", grid, stored.astype(np.uint16), nodata=65535, scale=0.0001)
    return folder


def write_terrain(path: Path, grid: Grid, elevation, gradient_east, gradient_north) -> Path:
    """Write terrain.tif with a slope in degrees that belongs to the gradients."""
    shape = (grid.height, grid.width)
    bands = np.stack([np.broadcast_to(band, shape) for band in (elevation, 0.0, gradient_east, gradient_north)])
    bands = bands.astype(np.float32)
    bands[1] = np.degrees(np.arctan(np.hypot(bands[2], bands[3])))
    with rasterio.open(
        path, "w", driver="GTiff", width=grid.width, height=grid.height, count=4, dtype="float32",
        crs=grid.crs, transform=grid.transform, nodata=np.nan,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
    return path


def _write(path: Path, grid: Grid, values: np.ndarray, nodata: int | None = None, scale: float = 1.0) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", width=grid.width, height=grid.height, count=1, dtype=values.dtype,
        crs=grid.crs, transform=grid.transform, nodata=nodata, tiled=True, compress="deflate",
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
        dataset.scales = (scale,)
