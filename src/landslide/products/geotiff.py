"""The rasters of a map: Cloud-Optimised GeoTIFFs of probability, uncertainty and mask."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from landslide.products.colours import REASON_COLOURS
from landslide.products.raw_files import NO_DATA, SCALE, read_rows, row_slices
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import writing
from landslide.scenes.reasons import Reason

NO_LANDSLIDE, LANDSLIDE, NOT_ANALYSED = 0, 1, 255
"""Codes of `mask.tif`."""
Colours = dict[int, tuple[int, ...]]
MASK_COLOURS: Colours = {NO_LANDSLIDE: (255, 255, 255), LANDSLIDE: (215, 25, 28), NOT_ANALYSED: (127, 127, 127)}
_TILE = 512


def stored_threshold(threshold: float) -> int:
    """Return the smallest stored probability that counts as a landslide."""
    return max(1, math.ceil(round(threshold / SCALE, 6)))


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
    lowest = stored_threshold(threshold)
    probabilities, deviations, codes = (
        partial(read_rows, work, name, width=grid.width) for name in ("probability", "uncertainty", "reasons")
    )

    def mask(rows: slice) -> npt.NDArray[np.uint8]:
        probability = probabilities(rows)
        return np.where(probability == NO_DATA, NOT_ANALYSED, probability >= lowest).astype(np.uint8)

    landslide = "0 no landslide, 1 landslide, 255 not analysed"
    reasons = ", ".join(f"{reason.value} {reason.text}" for reason in Reason)
    for name, values, layer, nodata, colours in (
        ("probability", probabilities, "landslide probability", NO_DATA, None),
        ("uncertainty", deviations, "standard deviation of the probability", NO_DATA, None),
        ("mask", mask, landslide, NOT_ANALYSED, MASK_COLOURS),
        ("reasons", codes, reasons, None, _reason_colours()),
    ):
        tags = {**description, "LAYER": layer}
        write_raster(work / f"{name}.tiled.tif", destination / f"{name}.tif", grid, values, tags, nodata, colours)


def _reason_colours() -> Colours:
    colours = {reason.value: tuple(bytes.fromhex(colour[1:])) for reason, colour in REASON_COLOURS.items()}
    return {Reason.ANALYSED.value: (255, 255, 255), **colours}


def write_raster(
    temporary: Path,
    path: Path,
    grid: Grid,
    values: Callable[[slice], npt.NDArray[Any]],
    tags: dict[str, str],
    nodata: int | None,
    colours: Colours | None,
) -> None:
    """Write codes with colours, or scaled values without: tiled by blocks of rows, and from that Cloud-Optimised.

    Args:
        temporary: Where the tiled raster is meanwhile.
        path: The raster.
        grid: Its grid.
        values: From rows to their codes, uint8, or stored values, uint16 in steps of `SCALE`; called more than once.
        tags: Metadata.
        nodata: The value of pixels without data.
        colours: Colours of codes, red, green, blue; None for scaled values.

    Raises:
        OSError: If the disk is full.
    """
    kind = {"dtype": "uint8", "photometric": "palette"} if colours else {"dtype": "uint16"}
    with writing(temporary), rasterio.open(
        temporary, "w", driver="GTiff", width=grid.width, height=grid.height, count=1, crs=grid.crs, nodata=nodata,
        transform=grid.transform, tiled=True, blockxsize=_TILE, blockysize=_TILE, BIGTIFF="IF_SAFER", **kind,
    ) as target:  # fmt: skip
        if colours:  # GDAL cannot add them once pixels are written
            target.write_colormap(1, colours)
        for rows in row_slices(grid.height):
            window = Window(0, rows.start, grid.width, rows.stop - rows.start)
            target.write(np.ascontiguousarray(values(rows)), 1, window=window)
        target.update_tags(**tags)
        target.set_band_description(1, path.stem)
        if not colours:
            target.scales, target.offsets = (SCALE,), (0.0,)
    predictor, resampling = ("NO", "nearest") if colours else ("YES", "average")
    with writing(path):
        _compare(temporary, values)
        rasterio.shutil.copy(
            temporary, path, driver="COG", compress="DEFLATE", predictor=predictor, blocksize=_TILE,
            overview_resampling=resampling, BIGTIFF="IF_SAFER",
        )  # fmt: skip
    temporary.unlink()


def _compare(path: Path, values: Callable[[slice], npt.NDArray[Any]]) -> None:
    """Compare an uncompressed raster with its values: a block that is missing from it is read as zeros."""
    with rasterio.open(path) as raster:
        for rows in row_slices(raster.height):
            window = Window(0, rows.start, raster.width, rows.stop - rows.start)
            if not np.array_equal(raster.read(1, window=window), values(rows)):
                raise OSError(f"{path.name} is not what was written")
