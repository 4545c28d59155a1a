"""The band cache: all bands of all patches in one memory-mapped array, with a manifest.

A cache is addressed by what it holds: the data version, the band settings and the formulas (the source of
bands.py). Caches of equal settings and formulas lie side by side, and a new one copies the rows that an older
one already has (by the digests of the patch's files), so that a hundred new patches cost a hundred patches.

    <root>/<family>/<key>/bands.npy      (n, bands, H, W) float16 or float32
                          masks.npy      (n, H, W) uint8
                          manifest.json  names, digests and a CRC-32 of every row

Files are written sequentially to a temporary folder, which is renamed when it is whole. Nothing is written
through a memory map, because a full disk would then end the process by a signal instead of an error.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from landslide.bands import formulas
from landslide.bands.formulas import BandSettings, engineer_each
from landslide.data.patches import read_mask, read_stored
from landslide.errors import CacheError
from landslide.schema import PATCH_SIZE

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_TOGETHER = 64  # patches that a thread takes at a time: enough for the fast way to their medians
_MOST_THREADS = 8  # bounds memory: a thread holds the bands of so many patches in float32, 109 MB if there are 26
_FLUSHED = 256  # patches after which the system is told to begin writing
# What a damaged file of a cache raises, depending on where the damage is.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, IndexError, TypeError)
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Row = tuple[npt.NDArray[Any], npt.NDArray[np.uint8], int]  # bands, mask, checksum
KnownRow = tuple[npt.NDArray[Any], npt.NDArray[Any], int, int]  # all bands and masks of a cache, row, checksum


@dataclass(frozen=True)
class BandCache:
    """An open band cache. Row i belongs to row i of the patch table that it was built from.

    Attributes:
        directory: Where it lies.
        band_names: Names of the bands, N of them.
        bands: (n, N, 128, 128) read-only memory map, float16 or float32.
        masks: (n, 128, 128) read-only memory map, uint8, 0 or 1.
        stored_dtype: Number format of the raw patches.
    """

    directory: Path
    band_names: tuple[str, ...]
    bands: npt.NDArray[Any]
    masks: npt.NDArray[np.uint8]
    stored_dtype: np.dtype[Any]

    def __reduce__(self) -> tuple[Any, ...]:
        """Reopen the cache in the other process, instead of copying it there."""
        return partial(open_cache, verify=False), (self.directory,)

    def columns(self, names: tuple[str, ...]) -> list[int]:
        """Return the positions of the named bands along axis 1 of `bands`."""
        return [self.band_names.index(name) for name in names]


def formula_version() -> str:
    """Return the digest of the source of bands.py: any change to a formula makes new caches."""
    return hashlib.sha256(Path(formulas.__file__).read_bytes()).hexdigest()[:16]


def cache_family(settings: BandSettings) -> str:
    """Return the digest of band settings and formulas: caches of one family share rows."""
    text = json.dumps([settings.to_dict(), formula_version()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cache_key(data_version: str, settings: BandSettings) -> str:
    """Return the key of a cache: digest of data version, band settings and formulas."""
    return hashlib.sha256(f"{data_version} {cache_family(settings)}".encode()).hexdigest()[:32]


def ensure_cache(
    cache_root: Path,
    data_root: Path,
    table: pd.DataFrame,
    data_version: str,
    settings: BandSettings,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> BandCache:
    """Open the cache of these patches, building it where it is absent or damaged.

    Safe when several processes call it at once: each builds under a name of its own, and the first to finish
    wins.

    Args:
        cache_root: Folder of all caches.
        data_root: Folder of the patches.
        table: Patch table (see `landslide.data.table.patch_table`) in the order of the rows.
        data_version: Digest of the data set, as `data.dvc` pins it.
        settings: Band settings.
        progress: Called with (patches done, patches in all).

    Returns:
        The open cache; every row of one that was there was held against its checksum.

    Raises:
        CacheError: If the disk is full, the folder is not writable, or a value does not fit the number format.
        DataError: If a patch cannot be read.
    """
    family = cache_root / cache_family(settings)
    directory = family / cache_key(data_version, settings)
    if directory.is_dir():
        try:
            cache = open_cache(directory)
        except CacheError as error:
            logger.warning("%s Rebuilding it.", error.what)
        else:
            with suppress(OSError):
                os.utime(directory)  # used now: `disk_budget` deletes what was not used for longest
            return cache
    try:
        family.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(family)
        _check_space(family, len(table), settings)
        ours = _build(directory, data_root, table, data_version, settings, progress)
    except OSError as error:
        raise CacheError(
            f"The band cache in {family} cannot be written: {error.strerror or error}.",
            remedy="Free some space or set LANDSLIDE_HOME to a writable folder on a larger disk."
            if error.errno in _OUT_OF_SPACE
            else "Set LANDSLIDE_HOME to a folder that you may write to.",
        ) from error
    return open_cache(directory, verify=not ours)  # what was just written is not read once more


def open_cache(directory: Path, *, verify: bool = True) -> BandCache:
    """Open a cache.

    Args:
        directory: Where it lies.
        verify: Hold every row against its checksum.

    Raises:
        CacheError: If it is absent, incomplete or damaged; the message says which row.
    """
    remedy = "Delete the folder; it is built again when it is needed."
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        band_array = np.load(directory / "bands.npy", mmap_mode="r", allow_pickle=False)
        mask_array = np.load(directory / "masks.npy", mmap_mode="r", allow_pickle=False)
        checksums = [row["crc32"] for row in manifest["rows"]]
        names = tuple(manifest["band_names"])
        stored_dtype = np.dtype(manifest["stored_dtype"])
    except _DAMAGE as error:
        raise CacheError(f"The band cache {directory} is incomplete: {error}.", remedy=remedy) from error
    if band_array.shape[:2] != (len(checksums), len(names)) or len(mask_array) != len(checksums):
        raise CacheError(f"The band cache {directory} does not match its manifest.", remedy=remedy)
    for i, checksum in enumerate(checksums if verify else ()):
        if _checksum(band_array[i], mask_array[i]) != checksum:
            raise CacheError(f"The band cache {directory} is damaged in row {i}.", remedy=remedy)
    return BandCache(directory, names, band_array, mask_array, stored_dtype)


def _build(
    directory: Path,
    data_root: Path,
    table: pd.DataFrame,
    data_version: str,
    settings: BandSettings,
    progress: Callable[[int, int], object] | None,
) -> bool:
    """Build a cache; return False if another process was faster, whose cache is then in place."""
    temporary = directory.parent / f".{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        names = settings.names
        rows = []
        with (
            (temporary / "bands.npy").open("wb") as bands_file,
            (temporary / "masks.npy").open("wb") as masks_file,
            ThreadPoolExecutor(max_workers=1) as flusher,  # the disk works while bands are computed
        ):
            flushed: Future[None] = flusher.submit(lambda: None)
            _write_header(bands_file, (len(table), len(names), PATCH_SIZE, PATCH_SIZE), settings.dtype)
            _write_header(masks_file, (len(table), PATCH_SIZE, PATCH_SIZE), "uint8")
            computed = _rows(directory.parent, data_root, table, settings)
            digests = zip(table["image_md5"], table["mask_md5"], strict=True)
            for i, ((image_md5, mask_md5), (image_bands, mask, crc)) in enumerate(zip(digests, computed, strict=True)):
                bands_file.write(image_bands.data)
                masks_file.write(mask.data)
                rows.append({"image_md5": image_md5, "mask_md5": mask_md5, "crc32": crc})
                if i % _FLUSHED == _FLUSHED - 1 and flushed.done():
                    flushed.result()  # the system tells of a failed write once, here or never
                    flushed = flusher.submit(os.fsync, bands_file.fileno())
                if progress is not None:
                    progress(i + 1, len(table))
            flushed.result()
            for file in (bands_file, masks_file):
                file.flush()
                os.fsync(file.fileno())
        manifest = {
            "data_version": data_version,
            "settings": settings.to_dict(),
            "formulas": formula_version(),
            "band_names": names,
            "stored_dtype": read_stored(data_root / table["image"].iloc[0], len(settings.stored)).dtype.str,
            "rows": rows,
        }
        (temporary / _MANIFEST).write_text(json.dumps(manifest))
        return _publish(temporary, directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _publish(temporary: Path, directory: Path) -> bool:
    """Rename a whole cache to its final name; a damaged one is moved out of the way, a good one wins.

    Returns whether it is the one that is now in place.
    """
    if directory.is_dir():
        try:
            open_cache(directory)
        except CacheError:
            condemned = temporary.with_suffix(".condemned.tmp")
            directory.rename(condemned)
            shutil.rmtree(condemned, ignore_errors=True)
        else:
            shutil.rmtree(temporary)
            return False
    try:
        temporary.rename(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(temporary)  # another process was faster
        return False
    return True


def _rows(family: Path, data_root: Path, table: pd.DataFrame, settings: BandSettings) -> Iterator[Row]:
    """Yield bands, mask and checksum of every patch in order: copied from an older cache, or computed."""
    known = _known_rows(family)
    computed: list[int] = []

    def several(patches: list[Any]) -> list[Row]:
        rows = [_copied(known.get((patch.image_md5, patch.mask_md5))) for patch in patches]
        files = [(patch.image, patch.mask) for patch, row in zip(patches, rows, strict=True) if row is None]
        computed.append(len(files))
        new = iter(compute_rows(data_root, files, settings))
        return [row if row is not None else next(new) for row in rows]

    patches = list(table.itertuples(index=False))
    threads = min(os.cpu_count() or 1, _MOST_THREADS)
    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(patches), _TOGETHER):
                waiting.append(pool.submit(several, patches[start : start + _TOGETHER]))
                if len(waiting) == threads:  # none is queued, which would be quicker by little and take its memory
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:  # of a failed patch or a full disk: the others are not waited for
            for future in waiting:
                future.cancel()
    n_computed = sum(computed)
    logger.info("Bands of %d patches computed, %d taken from older caches.", n_computed, len(table) - n_computed)


def compute_rows(data_root: Path, files: Sequence[tuple[str, str]], settings: BandSettings) -> list[Row]:
    """Read patches and compute their bands in the number format of the cache.

    Args:
        data_root: Folder of the patches.
        files: Paths of image and mask file of each patch, relative to it.
        settings: Band settings.

    Returns:
        For each patch its bands (N, 128, 128) of `settings.dtype`, its mask (128, 128) uint8, and their CRC-32.

    Raises:
        DataError: If a file cannot be read.
        CacheError: If a value is too large for the number format.
    """
    images = (_read_image(data_root / image, settings) for image, _ in files)
    rows = [_converted(bands, settings.dtype) for bands in engineer_each(images, settings)]
    masks = [read_mask(data_root / mask) for _, mask in files]
    return [(row, mask, _checksum(row, mask)) for row, mask in zip(rows, masks, strict=True)]


def _read_image(path: Path, settings: BandSettings) -> npt.NDArray[Any]:
    """Read a patch whose bands fit the number format: no engineered band exceeds the largest stored value or 2."""
    image, limit = read_stored(path, len(settings.stored)), float(np.finfo(settings.dtype).max)
    if max(float(image.max()), -float(image.min())) > limit:
        raise CacheError(
            f"{path} holds values above {limit:g}, too large for a {settings.dtype} cache.",
            remedy="Set bands.dtype: float32.",
        )
    return image


def _converted(image_bands: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """Return bands (N, H, W) in the number format of the cache.

    PyTorch rounds to float16 with the processor's own instruction, NumPy without it, ten times as slowly. A single
    band is too small for PyTorch to start threads of its own.
    """
    if dtype == "float32":
        return image_bands
    result = np.empty(image_bands.shape, dtype)
    for converted, band in zip(torch.from_numpy(result), torch.from_numpy(image_bands), strict=True):
        converted.copy_(band)
    return result


def _copied(source: KnownRow | None) -> Row | None:
    """Return a copy of a row of another cache, or None if there is none or it is damaged."""
    if source is None:
        return None
    all_bands, all_masks, row, crc = source
    image_bands, mask = np.array(all_bands[row]), np.array(all_masks[row])
    return (image_bands, mask, crc) if _checksum(image_bands, mask) == crc else None


def _known_rows(family: Path) -> dict[tuple[str, str], KnownRow]:
    """Index the rows of the family's caches by the digests of image and mask."""
    known = {}
    for manifest_path in sorted(family.glob(f"[!.]*/{_MANIFEST}")):
        try:
            rows = json.loads(manifest_path.read_text())["rows"]
            arrays = [np.load(manifest_path.parent / f"{name}.npy", mmap_mode="r") for name in ("bands", "masks")]
            for i, row in enumerate(rows[: min(map(len, arrays))]):
                known[row["image_md5"], row["mask_md5"]] = (arrays[0], arrays[1], i, row["crc32"])
        except _DAMAGE:
            continue  # damaged, or being removed: its rows are computed again
    return known


def _checksum(image_bands: npt.NDArray[Any], mask: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(mask).data, zlib.crc32(np.ascontiguousarray(image_bands).data))


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _check_space(family: Path, n: int, settings: BandSettings) -> None:
    per_pixel = len(settings.names) * np.dtype(settings.dtype).itemsize + 1
    needed = n * PATCH_SIZE**2 * per_pixel
    free = shutil.disk_usage(family).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free")


def _remove_leftovers(family: Path) -> None:
    """Delete the temporary folders of processes of this machine that are gone."""
    for folder in family.glob(f".{socket.gethostname()}.*.tmp"):
        pid = folder.name.removeprefix(f".{socket.gethostname()}.").split(".")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
