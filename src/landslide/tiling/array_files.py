"""Images and masks in PNG, JPEG, TIFF, NumPy and HDF5 files, read as arrays."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from landslide.data.read_errors import DAMAGED, explain
from landslide.scenes.rasters import STRICT, gdal_message
from landslide.schema import ORIGINAL_BANDS

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NumPy", ".npz": "NumPy",
    ".h5": "HDF5", ".hdf5": "HDF5", ".he5": "HDF5", ".hdf": "HDF5",
}  # fmt: skip
"""The formats that are read, by the end of a file's name."""

Array = npt.NDArray[Any]
Valid = npt.NDArray[np.bool_]


class UnusableFileError(Exception):
    """A file that cannot be used.

    Args:
        code: The kind of fault.
        message: What is wrong with the file, as a clause.
        remedy: What to do about it.
    """

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


@dataclass(frozen=True)
class StoredArray:
    """What a file holds.

    Attributes:
        values: (H, W, C), in the stored type; booleans, integers or real numbers.
        order: Which axis of the file is that of the channels, `first` or `last`; empty if its format leaves no choice.
        valid: (H, W) which pixels are data, where the file says so.
        no_data: The value that says so, if a value does.
        has_alpha: Whether the last channel is the opacity.
        palette: (256, 3) uint8, the colours of the values, if the file has them.
        place: Reference system and transform, if the file has them.
    """

    values: Array
    order: str = ""
    valid: Valid | None = None
    has_alpha: bool = False
    palette: npt.NDArray[np.uint8] | None = None
    place: tuple[str, tuple[float, ...]] | None = None
    no_data: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]

    def without_alpha(self) -> "StoredArray":
        """Return the array without its opacity; pixels that are not opaque are then not valid."""
        if not self.has_alpha:
            return self
        alpha = self.values[..., -1]
        # The format's own range: a PNG with 16 bits has 65,535 where it is opaque.
        opaque = alpha == (np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1)
        valid = opaque if self.valid is None else opaque & self.valid
        return StoredArray(self.values[..., :-1], self.order, valid, False, self.palette, self.place)


def read_array_file(path: Path, key: str | None, option: str) -> StoredArray:
    """Read the array of a file.

    Args:
        path: The file, one of `FORMATS`.
        key: Name of the array in an HDF5 or .npz file; None for the only one with two axes or more.
        option: The option that gives the name, for messages.

    Raises:
        UnusableFileError: The file cannot be read, or does not hold one array of that form.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UnusableFileError(
            "unknown_format", f"files *{path.suffix} are not read", f"give {', '.join('*' + end for end in FORMATS)}"
        )
    try:
        if kind in ("NumPy", "HDF5"):
            return _arranged(_numpy(path, key, option) if kind == "NumPy" else _hdf5(path, key, option))
        with rasterio.Env(**STRICT), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return _raster(path)
    except UnusableFileError:
        raise
    except RasterioError as error:
        raise UnusableFileError("unreadable", f"cannot be read: {gdal_message(error)}", DAMAGED) from error
    except Exception as error:  # HDF5 and NumPy report damage as OSError, ValueError, BadZipFile, ...
        cause, remedy = explain(error)
        raise UnusableFileError("unreadable", f"cannot be read: {cause}", remedy) from error


def _numpy(path: Path, key: str | None, option: str) -> Array:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            _refuse_objects(_npy_header(file)[1])
        return np.asarray(np.load(path))
    with path.open("rb") as archive, np.load(archive) as arrays:
        headers = {}
        for name in arrays.files:
            with arrays.zip.open(f"{name}.npy") as file:
                headers[name] = _npy_header(file)
        name = _key({name: shape for name, (shape, _) in headers.items()}, key, option)
        _refuse_objects(headers[name][1])
        return np.asarray(arrays[name])


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _refuse_objects(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:  # NumPy would have to run code of the file
        raise _wrong_type("Python objects")


def _hdf5(path: Path, key: str | None, option: str) -> Array:
    with h5py.File(path, "r") as file:
        shapes: dict[str, tuple[int, ...]] = {}

        def take_down(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                shapes[name] = item.shape or ()

        file.visititems(take_down)
        return np.asarray(file[_key(shapes, key and key.strip("/"), option)][()])


def _key(shapes: dict[str, tuple[int, ...]], key: str | None, option: str) -> str:
    """Return which array of a file is meant."""
    found = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
    if key is not None:
        if key not in shapes:
            raise UnusableFileError("wrong_key", f"has no array {key}; it holds {found}", f"name another with {option}")
        return key
    arrays = [name for name, shape in shapes.items() if len(shape) > 1]
    if not arrays:
        raise UnusableFileError("no_array", f"holds {found}", "store the values in it, (rows, columns, channels)")
    if len(arrays) > 1:
        raise UnusableFileError("wrong_key", f"holds {found}", f"name the array with {option}")
    return arrays[0]


def _arranged(values: Array) -> StoredArray:
    """Find the channels of an array of which only the shape is known."""
    _require_numbers(values)
    shape = values.shape
    while values.ndim > 3 and len(values) == 1:
        values = values[0]
    if values.ndim == 2:
        return StoredArray(values[..., None])
    if values.ndim != 3:
        raise UnusableFileError(
            "wrong_shape", f"shape {shape}", "store one image per file: (rows, columns) or (rows, columns, channels)"
        )
    limit = len(ORIGINAL_BANDS)
    few = [axis for axis in (0, 2) if values.shape[axis] <= limit]
    if len(few) == 1:
        return StoredArray(np.moveaxis(values, few[0], -1), "first" if few == [0] else "last")
    which = "both of them could be" if few else "neither of them can be"
    raise UnusableFileError(
        "wrong_shape",
        f"shape {shape}: the first or the last axis is that of the channels, and {which}",
        f"store (rows, columns, channels), with 1 to {limit} channels",
    )


def _raster(path: Path) -> StoredArray:
    with rasterio.open(path) as dataset:
        if pages := dataset.subdatasets:
            return _arranged(_pages(pages))
        values = np.moveaxis(dataset.read(), 0, -1)
        _require_numbers(values)
        place = None if dataset.crs is None else (dataset.crs.to_string(), tuple(dataset.transform)[:6])
        has_alpha = dataset.colorinterp[-1] == ColorInterp.alpha
        palette = None
        if dataset.colorinterp[0] == ColorInterp.palette:
            palette = np.zeros((256, 3), np.uint8)
            for value, colour in dataset.colormap(1).items():
                palette[value] = colour[:3]
        valid = None if has_alpha else _valid(dataset)
        return StoredArray(values, "", valid, has_alpha, palette, place, dataset.nodata)


def _pages(pages: list[str]) -> Array:
    """Return the pages of a TIFF file as one array, as other programs write (channels, rows, columns)."""
    found = []
    for page in pages:
        with rasterio.open(page) as dataset:
            found.append(dataset.read().squeeze(axis=0) if dataset.count == 1 else dataset.read())
    if len({page.shape for page in found}) > 1:
        raise UnusableFileError("wrong_shape", f"has {len(found)} pages of different sizes", "store one image per file")
    return np.stack(found)


def _valid(dataset: DatasetReader) -> Valid | None:
    """Return which pixels of a raster are data; None if it does not say."""
    if all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums):
        return None
    bands = dataset.read_masks() != 0
    # A dark pixel has 0 in some band.
    return np.asarray(bands.any(axis=0) if dataset.nodata == 0 else bands.all(axis=0))


def _require_numbers(values: Array) -> None:
    if values.dtype.kind not in "biuf":
        raise _wrong_type({"c": "complex numbers"}.get(values.dtype.kind, f"type {values.dtype}"))


def _wrong_type(found: str) -> UnusableFileError:
    return UnusableFileError("wrong_dtype", f"{found}; expected integers or real numbers", "store real numbers")
