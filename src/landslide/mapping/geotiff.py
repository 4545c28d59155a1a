"""The rasters of a map: Cloud-Optimised GeoTIFFs of probability, uncertainty and mask."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from landslide.mapping.colours import REASON_COLOURS
from landslide.mapping.grid import Grid
from landslide.mapping.mosaic import NO_DATA, RAW_TYPES, SCALE, read_raw
from landslide.mapping.reasons import Reason

NO_LANDSLIDE, LANDSLIDE, NOT_ANALYSED = 0, 1, 255
"""Codes of `mask.tif`."""
_COLOURS = {NO_LANDSLIDE: (255, 255, 255), LANDSLIDE: (215, 25, 28), NOT_ANALYSED: (127, 127, 127)}
_TILE = 512
_BLOCK_ROWS = 512


def stored_threshold(threshold: float) -> int:
    """Return the smallest stored probability that counts as a landslide."""
    return math.ceil(round(threshold / SCALE, 6))


def write_rasters(work: Path, destination: Path, grid: Grid, threshold: float, description: dict[str, str]) -> None:
    """Write `probability.tif`, `uncertainty.tif`, `mask.tif` and `reasons.tif`, why pixels are not analysed.

    Args:
        work: Folder of the raw files of a finished `Mosaic`.
        destination: Folder of the rasters.
        grid: The grid of the scene.
        threshold: Landslide probability from which a pixel is a landslide.
        description: Metadata of the files.

    Raises:
        OSError: If the disk is full.
    """
    raw = {name: read_raw(work, name, grid.height, grid.width) for name in RAW_TYPES}
    lowest = stored_threshold(threshold)

    def mask(rows: slice) -> npt.NDArray[np.uint8]:
        probability = raw["probability"][rows]
        return np.where(probability == NO_DATA, NOT_ANALYSED, probability >= lowest).astype(np.uint8)

    scaled = {"dtype": "uint16", "nodata": NO_DATA}
    for name in ("probability", "uncertainty"):
        _write(
            work, destination / f"{name}.tif", grid, lambda rows, name=name: raw[name][rows], scaled,
            {**description, "LAYER": f"landslide {name}"}, "average",
        )  # fmt: skip
    plain = {"dtype": "uint8", "nodata": NOT_ANALYSED, "photometric": "palette"}
    codes = {"LAYER": "0 no landslide, 1 landslide, 255 not analysed"}
    _write(work, destination / "mask.tif", grid, mask, plain, {**description, **codes}, "nearest")
    reasons = {"dtype": "uint8", "photometric": "palette"}
    codes = {"LAYER": ", ".join(f"{reason.value} {reason.text}" for reason in Reason)}
    path = destination / "reasons.tif"
    _write(work, path, grid, lambda rows: raw["reasons"][rows], reasons, {**description, **codes}, "nearest")


def _reason_colours() -> dict[int, tuple[int, ...]]:
    colours = {reason.value: tuple(bytes.fromhex(colour[1:])) for reason, colour in REASON_COLOURS.items()}
    return {Reason.ANALYSED.value: (255, 255, 255), **colours}


def _write(
    work: Path,
    path: Path,
    grid: Grid,
    values: Any,
    profile: dict[str, Any],
    tags: dict[str, str],
    resampling: str,
) -> None:
    """Write one raster: tiled first, by blocks of rows, and from that as a Cloud-Optimised GeoTIFF with overviews."""
    temporary, scaled = work / f"{path.stem}.tiled.tif", profile["dtype"] == "uint16"
    with rasterio.open(
        temporary, "w", driver="GTiff", width=grid.width, height=grid.height, count=1, crs=grid.crs,
        transform=grid.transform, tiled=True, blockxsize=_TILE, blockysize=_TILE, BIGTIFF="IF_SAFER", **profile,
    ) as target:  # fmt: skip
        if not scaled:  # GDAL cannot add colours once pixels are written
            target.write_colormap(1, _COLOURS if path.stem == "mask" else _reason_colours())
        for start in range(0, grid.height, _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, grid.height))
            window = Window(0, start, grid.width, rows.stop - start)
            target.write(np.ascontiguousarray(values(rows)), 1, window=window)
        target.update_tags(**tags)
        target.set_band_description(1, path.stem)
        if scaled:
            target.scales, target.offsets = (SCALE,), (0.0,)
    rasterio.shutil.copy(
        temporary, path, driver="COG", compress="DEFLATE", predictor="YES" if scaled else "NO", blocksize=_TILE,
        overview_resampling=resampling, BIGTIFF="IF_SAFER",
    )  # fmt: skip
    temporary.unlink()
