"""Building band caches: patches in, a folder as `landslide.bands.cache` describes it out.

A new cache copies the rows that an older one of its family already has (by the digests of the patch's files), so that
a hundred new patches cost a hundred patches. One process at a time builds in a family; another one waits and opens what
the first has built.

Files are written sequentially to a temporary folder, which is renamed when it is whole. Nothing is written through a
memory map, because a full disk would then end the process by a signal instead of an error. Nothing waits for the disk
either: after a power failure, the checksums tell which rows were lost.
"""

import errno
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.bands.cache import (
    MANIFEST,
    BandCache,
    cache_family,
    cache_key,
    checksum,
    formula_version,
    load_cache,
    open_cache,
)
from landslide.bands.formulas import BandSettings, engineer_each
from landslide.bands.rounding import rounded
from landslide.data.patches import read_mask, read_stored
from landslide.errors import CacheError
from landslide.locks import locked
from landslide.schema import PATCH_SIZE

logger = logging.getLogger(__name__)

_CHUNK = 64  # patches that a thread takes at a time: enough for the fast way to their medians
_MAX_THREADS = 8  # bounds memory: 64 patches of 26 bands are 56 MB in float16, and one more such chunk is in memory
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Row = tuple[npt.NDArray[Any], npt.NDArray[np.uint8], int]  # bands, mask, checksum
KnownRow = tuple[BandCache, int, int]  # a cache, a row of it, and the checksum of that row


def ensure_cache(
    cache_root: Path,
    data_root: Path,
    table: pd.DataFrame,
    data_version: str,
    settings: BandSettings,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> BandCache:
    """Open the cache of these patches; build it if it is absent or damaged.

    Several processes may call it at once: one builds, the others wait for it.

    Args:
        cache_root: Folder of all caches.
        data_root: Folder of the patches.
        table: Patch table (see `landslide.data.table.patch_table`) in the order of the rows.
        data_version: Digest of the data set, as `data.dvc` pins it.
        settings: Band settings.
        progress: Called with (patches done, patches in all).

    Returns:
        The open cache, verified unless it was written just now.

    Raises:
        CacheError: If the disk is full, the folder is not writable, or a value does not fit the number format.
        DataError: If a patch cannot be read.
    """
    family = cache_root / cache_family(settings)
    directory = family / cache_key(data_version, settings)
    with suppress(CacheError):
        return _reopen(directory)
    try:
        with locked(family / ".build.lock"):
            try:
                return _reopen(directory)  # another process has built it in the meantime
            except CacheError as error:
                if directory.is_dir():
                    logger.warning("%s Rebuilding it.", error.what)
            for leftover in family.glob(".*.tmp"):  # of a process that was killed: nobody else builds here now
                shutil.rmtree(leftover, ignore_errors=True)
            _check_space(family, len(table), settings)
            _build(directory, data_root, table, data_version, settings, progress)
    except OSError as error:
        raise CacheError(
            f"The band cache in {family} cannot be written: {error.strerror or error}.",
            remedy="Free some space or set LANDSLIDE_HOME to a writable folder on a larger disk."
            if error.errno in _OUT_OF_SPACE
            else "Set LANDSLIDE_HOME to a folder that you may write to.",
        ) from error
    return open_cache(directory, verify=False)


def _reopen(directory: Path) -> BandCache:
    cache = open_cache(directory)
    with suppress(OSError):
        os.utime(directory)  # marks it as used: `disk_budget` deletes the least recently used cache
    return cache


def _build(
    directory: Path,
    data_root: Path,
    table: pd.DataFrame,
    data_version: str,
    settings: BandSettings,
    progress: Callable[[int, int], object] | None,
) -> None:
    temporary = directory.with_name(f".{directory.name}.tmp")
    temporary.mkdir()
    try:
        names, rows = settings.names, []
        with (temporary / "bands.npy").open("wb") as bands_file, (temporary / "masks.npy").open("wb") as masks_file:
            _write_header(bands_file, (len(table), len(names), PATCH_SIZE, PATCH_SIZE), settings.dtype)
            _write_header(masks_file, (len(table), PATCH_SIZE, PATCH_SIZE), "uint8")
            digests = zip(table["image_md5"], table["mask_md5"], strict=True)
            computed = _rows(directory.parent, data_root, table, settings)
            for (image_md5, mask_md5), (bands, mask, crc) in zip(digests, computed, strict=True):
                bands_file.write(bands.data)
                masks_file.write(mask.data)
                rows.append({"image_md5": image_md5, "mask_md5": mask_md5, "crc32": crc})
                if progress is not None:
                    progress(len(rows), len(table))
        manifest = {
            "data_version": data_version,
            "settings": settings.to_dict(),
            "formulas": formula_version(),
            "band_names": names,
            "stored_dtype": read_stored(data_root / table["image"].iloc[0], len(settings.stored)).dtype.str,
            "rows": rows,
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest))
        if directory.exists():  # a damaged one, whose sound rows were copied
            shutil.rmtree(directory)
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _rows(family: Path, data_root: Path, table: pd.DataFrame, settings: BandSettings) -> Iterator[Row]:
    """Yield bands, mask and checksum of every patch in order: copied from an older cache, or computed."""
    known = _known_rows(family)
    computed: list[int] = []

    def copy_or_compute(patches: list[Any]) -> list[Row]:
        rows = [_copied(known.get((patch.image_md5, patch.mask_md5))) for patch in patches]
        files = [(patch.image, patch.mask) for patch, row in zip(patches, rows, strict=True) if row is None]
        computed.append(len(files))
        new = iter(compute_rows(data_root, files, settings))
        return [row if row is not None else next(new) for row in rows]

    patches = list(table.itertuples(index=False))
    threads = min(os.cpu_count() or 1, _MAX_THREADS)
    waiting: deque[Future[list[Row]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(patches), _CHUNK):
                waiting.append(pool.submit(copy_or_compute, patches[start : start + _CHUNK]))
                if len(waiting) == threads:  # no queue: it would gain little time and cost memory
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
    rows = list(engineer_each(images, settings, partial(rounded, dtype=settings.dtype)))
    masks = [read_mask(data_root / mask) for _, mask in files]
    return [(row, mask, checksum(row, mask)) for row, mask in zip(rows, masks, strict=True)]


def _read_image(path: Path, settings: BandSettings) -> npt.NDArray[Any]:
    """Read a patch whose bands fit the number format: no engineered band exceeds the largest stored value or 2."""
    image, limit = read_stored(path, len(settings.stored)), float(np.finfo(settings.dtype).max)
    if max(float(image.max()), -float(image.min())) > limit:
        raise CacheError(
            f"{path} holds values above {limit:g}, too large for a {settings.dtype} cache.",
            remedy="Set bands.dtype: float32.",
        )
    return image


def _copied(source: KnownRow | None) -> Row | None:
    """Return a copy of a row of another cache, or None if there is none or it is damaged."""
    if source is None:
        return None
    cache, row, crc = source
    bands, mask = np.array(cache.bands[row]), np.array(cache.masks[row])
    return (bands, mask, crc) if checksum(bands, mask) == crc else None


def _known_rows(family: Path) -> dict[tuple[str, str], KnownRow]:
    """Index the rows of the family's caches by the digests of image and mask."""
    known: dict[tuple[str, str], KnownRow] = {}
    for directory in sorted(family.glob("[!.]*/")):
        with suppress(CacheError):  # damaged, or being removed: its rows are computed again
            cache, rows = load_cache(directory)
            known |= {(image_md5, mask_md5): (cache, i, crc) for i, (image_md5, mask_md5, crc) in enumerate(rows)}
    return known


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: str) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _check_space(family: Path, n: int, settings: BandSettings) -> None:
    per_pixel = len(settings.names) * np.dtype(settings.dtype).itemsize + 1
    needed = n * PATCH_SIZE**2 * per_pixel
    free = shutil.disk_usage(family).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free")
