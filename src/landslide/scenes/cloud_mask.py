"""Clouds and their shadows by the networks of ukis-csmask (DLR, Apache-2.0), for scenes without a mask of their own.

The networks are made for pixels of about 30 m, so that they get means of 3 x 3 pixels.
"""

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.windows import Window

from landslide.errors import ConfigurationError, DataError
from landslide.extras import missing_extra
from landslide.files import atomic_write
from landslide.scenes.rasters import writing
from landslide.scenes.reasons import Reason
from landslide.scenes.reflectance import ReflectanceReader
from landslide.scenes.scene import Scene

_FOUR = {"B2": "blue", "B3": "green", "B4": "red", "B8": "nir"}
_SIX = _FOUR | {"B11": "swir16", "B12": "swir22"}
_PIXELS = 3
_ROWS, _OVERLAP = 1024, 64  # of 30 m, computed at a time; the tiles of the network have 256
_CLOUD, _SHADOW = 1, 2


def write_cloud_mask(scene: Scene, path: Path) -> None:
    """Write the codes of `Reason` for clouds and shadows as a GeoTIFF, uint8, with pixels three times the scene's.

    Whatever lies within 4 of these pixels of a cloud or a shadow counts as cloud, as the package's `valid` mask does.

    Args:
        scene: A scene with B2, B3, B4 and B8; B11 and B12 make the result better.
        path: The file.

    Raises:
        ConfigurationError: The package is not installed, or the level of the scene is unknown.
        DataError: The scene lacks a band.
        OSError: The disk is full.
    """
    network = _network()
    if scene.level is None:
        raise ConfigurationError(
            f"{scene.source}: the clouds of a scene of unknown level cannot be found.",
            remedy="Give --level L1C or --level L2A.",
        )
    names = _SIX if set(_SIX) <= set(scene.bands) else _FOUR
    if missing := [name for name in names if name not in scene.bands]:
        raise DataError(
            f"{scene.source} has no band {', '.join(missing)}, which --clouds csmask needs.",
            remedy="Leave --clouds out, or give a cloud mask with --mask.",
        )
    height, width = -(-scene.grid.height // _PIXELS), -(-scene.grid.width // _PIXELS)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 1, "crs": scene.grid.crs, "height": height, "width": width,
        "transform": scene.grid.transform @ Affine.scale(_PIXELS), "compress": "deflate",
    }  # fmt: skip
    with atomic_write(path) as temporary, writing(temporary), ExitStack() as stack:
        reader = ReflectanceReader(scene, list(names), stack)
        dataset = stack.enter_context(rasterio.open(temporary, "w", **profile))
        for start in range(0, height, _ROWS):
            stop = min(start + _ROWS, height)
            first, last = max(start - _OVERLAP, 0), min(stop + _OVERLAP, height)
            image = _means(reader.read(first * _PIXELS, min(last * _PIXELS, scene.grid.height))[0])
            codes = _codes(network, image, list(names.values()), scene.level)
            dataset.write(codes[start - first : stop - first], 1, window=Window(0, start, width, stop - start))


def _network() -> Any:
    try:
        from ukis_csmask.mask import CSmask
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from error
    return CSmask


def _means(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return means (h, w, bands) of blocks, without the pixels that have no value; 0 if none has."""
    bands, height, width = values.shape
    rows, columns = -(-height // _PIXELS), -(-width // _PIXELS)
    padding = ((0, 0), (0, rows * _PIXELS - height), (0, columns * _PIXELS - width))
    padded = np.pad(values, padding, constant_values=np.nan).reshape(bands, rows, _PIXELS, columns, _PIXELS)
    number = np.isfinite(padded).sum(axis=(2, 4))
    means: npt.NDArray[np.float32] = (np.nansum(padded, axis=(2, 4)) / np.maximum(number, 1)).astype(np.float32)
    return np.moveaxis(means, 0, -1)


def _codes(network: Any, image: npt.NDArray[np.float32], bands: list[str], level: str) -> npt.NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # small scenes are below the size of the network's tiles
        found = network(image, bands, product_level=level.lower(), providers=["CPUExecutionProvider"])
    classes, valid = found.csm[..., 0], found.valid[..., 0]
    codes = np.where(valid == 0, Reason.CLOUD.value, Reason.ANALYSED.value).astype(np.uint8)
    codes[classes == _SHADOW] = Reason.CLOUD_SHADOW.value
    return codes
