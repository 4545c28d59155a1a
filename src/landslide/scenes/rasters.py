"""Opening, reading and writing rasters; what GDAL says about a damaged one is in our message."""

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Interleaving, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from landslide.errors import DataError, RemoteError
from landslide.scenes.grid import Grid

# Bytes that GDAL keeps of files; rasterio passes this option on as such, unlike GDAL's own.
_CACHE = 256 * 2**20
_CACHE_BESIDE = 32 * 2**20  # for masks and warped rasters beside the bands
_OWN_TILES = ("GTiff", "JP2OpenJPEG")  # drivers that decode the tiles that they say; a VRT is made of others

TOLERANCE = 1e-3
"""Pixels by which a warped raster may be off. GDAL then interpolates coordinates, and depends on the rows that are read
at once: whoever needs the same bits reads the same rows at once. (With 0, rasterio 1.4 cannot open a `WarpedVRT`.)"""


def interpolation_only(scale: float) -> dict[str, float]:
    """Return options of a `WarpedVRT` that let GDAL interpolate between neighbours only.

    GDAL otherwise averages as soon as the target's pixels are a little larger, with weights that do not keep a plane
    a plane, and over widths that depend on the rows that are read at once. If the target's pixels are more than twice
    as large, it averages over the same width everywhere.

    Args:
        scale: Size of the source's pixels divided by the size of the target's.
    """
    scale = scale if scale < 0.5 else 1.0
    return {"XSCALE": scale, "YSCALE": scale}


def warped(dataset: DatasetReader, grid: Grid, resampling: Resampling, **options: Any) -> WarpedVRT:
    """Return a raster as it is on another grid; a context manager.

    Args:
        dataset: The raster, open.
        grid: The grid.
        resampling: How values between pixels are found.
        **options: Further options of `WarpedVRT`.
    """
    return WarpedVRT(
        dataset, crs=grid.crs, transform=grid.transform, width=grid.width, height=grid.height, resampling=resampling,
        tolerance=TOLERANCE, **options,
    )  # fmt: skip


STRICT = {"GDAL_ERROR_ON_LIBJPEG_WARNING": True, "GDAL_PNG_WHOLE_IMAGE_OPTIM": False}
"""Options of GDAL with which a PNG or JPEG that is cut off is an error, and not noise or gray."""


@contextmanager
def gdal_environment(*, remote: bool = False) -> Iterator[None]:
    """Limit what GDAL keeps of the files in memory, so that memory does not grow with the size of a scene.

    Args:
        remote: Whether files are read over HTTP. GDAL then does not ask the server for files beside them.
    """
    options: dict[str, object] = dict(STRICT)
    if remote:
        options |= {
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "GDAL_HTTP_CONNECTTIMEOUT": 30,
            "GDAL_HTTP_MAX_RETRY": 3,
            "GDAL_HTTP_RETRY_DELAY": 2,
        }
    with rasterio.Env(GDAL_CACHEMAX=_CACHE, **options):
        yield


def cache_for_rows(tiles: int) -> rasterio.Env:
    """Return an environment in which GDAL keeps no more than it needs to decode every tile once.

    Args:
        tiles: Bytes of the tiles that are read side by side, see `tiles_of_rows`.
    """
    return rasterio.Env(GDAL_CACHEMAX=min(tiles + _CACHE_BESIDE, _CACHE))


def alpha_band(dataset: DatasetReader) -> int | None:
    """Return the number of the band that is 0 where pixels are transparent; None if there is none.

    GDAL makes a mask of it only beside one or three other bands.
    """
    colours = zip(dataset.indexes, dataset.colorinterp, strict=True)
    return next((index for index, colour in colours if colour == ColorInterp.alpha), None)


def tiles_of_rows(dataset: DatasetReader, bands: Iterable[int], rows: int) -> int:
    """Return the bytes of the tiles that some rows touch; as much as there may be if the tiles are not known.

    Args:
        dataset: The raster.
        bands: Numbers of the bands that are read, from 1.
        rows: How many rows are read at a time, at multiples of this number.
    """
    if dataset.driver not in _OWN_TILES:
        return _CACHE
    if dataset.interleaving == Interleaving.pixel:  # a tile is decoded for all bands
        bands = dataset.indexes
    sizes: list[int] = []
    for band in bands:
        height, width = dataset.block_shapes[band - 1]
        touched = max(1, rows // height) if max(rows, height) % min(rows, height) == 0 else rows // height + 2
        pixels = touched * height * math.ceil(dataset.width / width) * width
        sizes.append(pixels * np.dtype(dataset.dtypes[band - 1]).itemsize)
    masked = alpha_band(dataset) is not None or MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    return sum(sizes) + (max(sizes) if masked else 0)  # the mask of all bands is not larger than one of them


def gdal_path(address: str) -> str:
    """Return how GDAL opens a path or an address."""
    for prefix, handler in (("https://", "/vsicurl/"), ("http://", "/vsicurl/")):
        if address.startswith(prefix):
            return handler + address
    return "/vsis3/" + address.removeprefix("s3://") if address.startswith("s3://") else address


def open_raster(path: str) -> DatasetReader:
    """Open a raster for reading.

    Raises:
        DataError: It is missing, damaged, no raster, or of complex numbers.
    """
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(path)
    if any(kind.startswith("complex") for kind in dataset.dtypes):
        dataset.close()
        raise DataError(f"{path} has complex numbers.", remedy="Give a raster of real numbers.")
    return dataset


def refuse_without_place(dataset: DatasetReader) -> None:
    """Refuse a raster that does not say where it lies.

    Raises:
        DataError: It has no reference system, or its pixels have no coordinates.
    """
    if dataset.transform.is_identity:
        raise DataError(
            f"{dataset.name} is not georeferenced: nothing says where its pixels lie.",
            remedy="Download the file again, or give a GeoTIFF its place: rio edit-info --crs EPSG:32633 --transform "
            '"[WIDTH, 0, LEFT, 0, -HEIGHT, TOP]" FILE, with the size of a pixel and the upper left corner.',
        )
    if dataset.crs is None:
        raise DataError(
            f"{dataset.name} has no coordinate reference system.",
            remedy="Download the file again, or assign the right one to a GeoTIFF: rio edit-info --crs EPSG:32633 "
            "FILE.",
        )


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn an error of GDAL within the block into one that names the file.

    Raises:
        DataError: The raster cannot be read.
        RemoteError: Likewise over a network.
    """
    try:
        yield
    except RasterioError as error:
        said = f"{path} cannot be read: {gdal_message(error)}"
        if path.startswith("/vsis3/"):
            raise RemoteError(
                said,
                remedy="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or AWS_NO_SIGN_REQUEST=YES "
                "for a public bucket; then check the address and the network.",
            ) from error
        if path.startswith("/vsicurl/"):
            raise RemoteError(
                said,
                remedy="Check the address and the network; an item of the Planetary Computer has to be signed.",
            ) from error
        raise DataError(
            said, remedy="Check that the file is there and complete; download or copy it again if it is damaged."
        ) from error


def refuse_several_bands(dataset: DatasetReader, remedy: str) -> None:
    """Refuse a mask that has other bands than one and its opacity, such as a picture of it.

    Raises:
        DataError: It has.
    """
    if (bands := sum(meaning != ColorInterp.alpha for meaning in dataset.colorinterp)) != 1:
        raise DataError(f"{dataset.name} has {bands} bands.", remedy=remedy)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of GDAL while the block writes a GeoTIFF into an `OSError`, and check that the file is complete.

    GDAL says that the disk is full by errors of several kinds, and by none if it notices it as it closes the file. So
    the file is read. An older file is deleted first: GDAL does not replace one that is cut off.

    Raises:
        OSError: The file is not complete.
    """
    path.unlink(missing_ok=True)
    with gdal_as_os_error(path):
        yield
        with rasterio.open(path) as raster:
            _read_all(raster)
            levels = range(len(raster.overviews(1)))
        for level in levels:
            with rasterio.open(path, overview_level=level) as overview:
                _read_all(overview)


@contextmanager
def gdal_as_os_error(path: Path) -> Iterator[None]:
    """Turn an error of GDAL while the block writes a file into an `OSError` that names it."""
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        said = gdal_message(error)
        raise OSError(said if path.name in said else f"{path.name}: {said}") from error


def _read_all(raster: DatasetReader) -> None:
    tiles = [(f"BLOCK_OFFSET_{column}_{row}", window) for (row, column), window in raster.block_windows(1)]
    for offset, window in tiles:
        if raster.get_tag_item(offset, "TIFF", bidx=1) is None:  # it would be read as empty
            raise OSError(f"{Path(raster.name).name} is cut off")
        raster.read(window=window)


def gdal_message(error: BaseException) -> str:
    """Return what GDAL said; rasterio's own message often only points to it."""
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause).strip().rstrip(".")
        if text and "previous exception" not in text and text not in messages:
            messages.append(text)
        cause = cause.__cause__ or cause.__context__
    return "; ".join(messages) or type(error).__name__
