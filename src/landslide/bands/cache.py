"""The band cache: all bands of all patches in one memory-mapped array, with a manifest.

A cache is addressed by its content: the data version, the band settings and the formulas (the source of
`landslide.bands.formulas`). Caches of equal settings and formulas are a family. `landslide.bands.build` writes them.

    <root>/<family>/<key>/bands.npy      (n, bands, H, W) float16 or float32
                          masks.npy      (n, H, W) uint8
                          manifest.json  names, settings, and digests and a CRC-32 of every row
"""

import hashlib
import json
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landslide.bands import formulas
from landslide.bands.formulas import BandSettings
from landslide.errors import CacheError, ConfigurationError

MANIFEST = "manifest.json"
_REMEDY = "Delete the folder; it is built again when it is needed."
# The errors that a damaged file of a cache can raise.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, ConfigurationError)
_verified: set[tuple[object, ...]] = set()  # the caches that this process compared with their checksums

RowRecord = tuple[str, str, int]  # digest of the image file, digest of the mask file, CRC-32 of bands and mask


@dataclass(frozen=True)
class BandCache:
    """An open band cache. Row i belongs to row i of the patch table that it was built from.

    Attributes:
        directory: Its folder.
        band_names: Names of the bands, N of them.
        bands: (n, N, 128, 128) read-only memory map, float16 or float32.
        masks: (n, 128, 128) read-only memory map, uint8, 0 or 1.
        stored_dtype: Number format of the raw patches.
        settings: How the bands were computed.
    """

    directory: Path
    band_names: tuple[str, ...]
    bands: npt.NDArray[Any]
    masks: npt.NDArray[np.uint8]
    stored_dtype: np.dtype[Any]
    settings: BandSettings

    def __reduce__(self) -> tuple[Any, ...]:
        """Reopen the cache in the other process, instead of copying it there."""
        return partial(open_cache, verify=False), (self.directory,)

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Return the positions of the named bands along axis 1 of `bands`."""
        return [self.band_names.index(name) for name in names]


def formula_version() -> str:
    """Return the digest of the source of the formulas: any change to a formula makes new caches."""
    return hashlib.sha256(Path(formulas.__file__).read_bytes()).hexdigest()[:16]


def cache_family(settings: BandSettings) -> str:
    """Return the digest of band settings and formulas: caches of one family share rows."""
    text = json.dumps([settings.to_dict(), formula_version()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_key(data_version: str, settings: BandSettings) -> str:
    """Return the key of a cache: digest of data version, band settings and formulas."""
    return hashlib.sha256(f"{data_version} {cache_family(settings)}".encode()).hexdigest()[:32]


def open_cache(directory: Path, *, verify: bool = True) -> BandCache:
    """Open a cache.

    Args:
        directory: Its folder.
        verify: Compare every row with its checksum, unless this process has done so and the files are the same still.

    Raises:
        CacheError: If it is missing, incomplete or damaged; the message names the row.
    """
    try:
        files = [(directory / name).stat() for name in ("bands.npy", "masks.npy", MANIFEST)]
    except OSError as error:
        raise CacheError(f"The band cache {directory} is incomplete: {error}.", remedy=_REMEDY) from error
    version = (directory.resolve(), *((file.st_ino, file.st_size, file.st_mtime_ns) for file in files))
    cache, rows = load_cache(directory)
    if verify and version not in _verified:
        for i, (_, _, crc) in enumerate(rows):
            if checksum(cache.bands[i], cache.masks[i]) != crc:
                raise CacheError(f"The band cache {directory} is damaged in row {i}.", remedy=_REMEDY)
        _verified.add(version)
    return cache


def load_cache(directory: Path) -> tuple[BandCache, list[RowRecord]]:
    """Open a cache without verifying its rows; return it and what its manifest says of each row.

    Args:
        directory: Its folder.

    Raises:
        CacheError: If it is absent or incomplete, or its parts do not belong together.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        bands = np.load(directory / "bands.npy", mmap_mode="r", allow_pickle=False)
        masks = np.load(directory / "masks.npy", mmap_mode="r", allow_pickle=False)
        rows = [(row["image_md5"], row["mask_md5"], row["crc32"]) for row in manifest["rows"]]
        names, settings = tuple(manifest["band_names"]), BandSettings.from_dict(manifest["settings"])
        stored_dtype = np.dtype(manifest["stored_dtype"])
    except _DAMAGE as error:
        raise CacheError(f"The band cache {directory} is incomplete: {error}.", remedy=_REMEDY) from error
    if bands.shape[:2] != (len(rows), len(names)) or len(masks) != len(rows):
        raise CacheError(f"The band cache {directory} does not match its manifest.", remedy=_REMEDY)
    return BandCache(directory, names, bands, masks, stored_dtype, settings), rows


def checksum(bands: npt.NDArray[Any], mask: npt.NDArray[Any]) -> int:
    """Return the CRC-32 of a row: of its bands (N, H, W), then of its mask (H, W)."""
    return zlib.crc32(np.ascontiguousarray(mask).data, zlib.crc32(np.ascontiguousarray(bands).data))
