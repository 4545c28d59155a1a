"""One file of a data set, read once: its digest, its faults, and the landslide pixels of a mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from landslide.data.digests import content_digest, file_digest
from landslide.data.patches import Finding, load_stored, never_written, unreadable
from landslide.data.read_errors import refuse_pipe
from landslide.data.scale import HIGHEST, LOWEST, OTHER_SCALE, typical_values
from landslide.errors import DataError, first_few
from landslide.schema import PATCH_SIZE

_TERRAIN = ("slope", "dem")  # may be the same everywhere
_BLACK_SHARE = 0.01  # of the pixels; fewer that are 0 in every band may be shadow, in 8-bit images for example
_MOVE = "move the patch away: image, mask and its line in scenes.csv"
_FILL = (
    "fill these pixels, for example with the median of the others of the same band and image (networks would take 0 or "
    f"-9999 for measurements), or {_MOVE}; no setting leaves single pixels out"
)
_NO_DATA = -9000.0  # below this in bands without a name: -9999, -32768, -3.4e38


@dataclass(frozen=True)
class FileContent:
    """What `read_content` found.

    Attributes:
        digest: MD5 of the bytes; None if the file cannot be read.
        positive_pixels: Landslide pixels of a sound mask; None for any other file.
        faults: What makes the file unusable.
        warnings: What is worth knowing.
        typical: (C,) the median of the positive values of each band of a sound image, NaN if there are none; None for
            any other file.
    """

    digest: str | None
    positive_pixels: int | None = None
    faults: Sequence[Finding] = ()
    warnings: Sequence[Finding] = ()
    typical: NDArray[np.float64] | None = None


def read_content(path: Path, key: Literal["img", "mask"] | None, bands: Sequence[str]) -> FileContent:
    """Open a file once; digest and findings are of the same bytes. Bad data never raises.

    Args:
        path: The file.
        key: The data set that it must hold if it belongs to a patch; None for any other file.
        bands: Names of the bands that an image must have.
    """
    try:
        refuse_pipe(path)
        if key is None:  # it may be large, so it is not held in memory
            return FileContent(file_digest(path))
        content = path.read_bytes()
    except DataError as error:
        message = error.what.removeprefix(f"{path} ")
        return FileContent(None, faults=[Finding(str(path), "unreadable", message, error.remedy)])
    except OSError as error:
        return FileContent(None, faults=[unreadable(path, error)])
    digest = content_digest(content)
    shape = (PATCH_SIZE, PATCH_SIZE) if key == "mask" else (PATCH_SIZE, PATCH_SIZE, len(bands))
    stored, faults = load_stored(path, key, shape, content)
    if stored is None:
        return FileContent(digest, faults=faults)
    if key == "mask":
        positive = int(np.count_nonzero(stored))
        return FileContent(digest, positive, warnings=[] if positive else _unwritten_mask(path, content))
    # Training reads float32, so a float64 beyond its range counts as infinite.
    with np.errstate(over="ignore"):
        image = stored.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        message = "; ".join(_not_finite(image, bands))
        return FileContent(digest, faults=[Finding(str(path), "not_finite", message, _FILL)])
    return FileContent(digest, warnings=_image_warnings(path, image, bands, content), typical=typical_values(image))


def _unwritten_mask(path: Path, content: bytes) -> list[Finding]:
    if not never_written(content, "mask"):
        return []
    message = "the mask was never written, so every pixel counts as background"
    return [Finding(str(path), "blank_mask", message, "write the mask, with zeros if there is no landslide")]


def _image_warnings(path: Path, image: NDArray[np.float32], bands: Sequence[str], content: bytes) -> list[Finding]:
    """Return warnings about the values of an image (H, W, C), all finite."""
    warnings = []
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    constant = dict(zip(bands, low == high, strict=True))
    if all(constant.values()):
        value = f"{low[0]:g}" if (low == low[0]).all() else "constant"
        message = f"every pixel is {value}" + (": the image was never written" if never_written(content, "img") else "")
        remedy = f"store the values, or {_MOVE}"
        return [Finding(str(path), "blank_image", message, remedy)]
    if empty := [_label(bands, index) for index, name in enumerate(bands) if constant[name] and name not in _TERRAIN]:
        message = f"no variation in {', '.join(empty)}"
        remedy = f"make sure that the band was read; otherwise {_MOVE}"
        warnings.append(Finding(str(path), "blank_band", message, remedy))
    if constant.get("dem"):
        message = f"the elevation is {low[bands.index('dem')]:g} everywhere"
        remedy = "known of 114 official patches; nothing need be done"
        warnings.append(Finding(str(path), "constant_dem", message, remedy))
    if message := _without_measurement(image, bands, low):
        warnings.append(Finding(str(path), "no_data", message, _FILL))
    highest = np.array([HIGHEST.get(name, np.inf) for name in bands], np.float32)
    if above := [f"{high[i]:g} in {_label(bands, i)}" for i in np.flatnonzero(high > highest).tolist()]:
        message = f"values that Landslide4Sense cannot have: up to {first_few(above)}"
        warnings.append(Finding(str(path), "out_of_range", message, OTHER_SCALE))
    return warnings


def _without_measurement(image: NDArray[np.float32], bands: Sequence[str], low: NDArray[np.float32]) -> str:
    """Describe pixels with an impossible value in some band, or zero in every band; empty if there are none."""
    lowest = np.array([LOWEST.get(name, _NO_DATA) for name in bands], np.float32)
    zero = (image == 0).all(axis=2) if (low <= 0).all() else np.zeros(image.shape[:2], bool)
    if zero.mean() < _BLACK_SHARE:
        zero[:] = False
    missing = (image < lowest).any(axis=2) | zero
    n = int(missing.sum())
    if n == 0:
        return ""
    found = [f"{low[index]:g} in {_label(bands, index)}" for index in np.flatnonzero(low < lowest).tolist()]
    if zero.any():
        found.append(f"0 in {'every band' if len(bands) > 1 else _label(bands, 0)}")
    return f"{n:,} pixels ({100 * n / missing.size:.2f} %) hold no measurement: {first_few(found)}"


def _label(bands: Sequence[str], index: int) -> str:
    name = bands[index]
    return name if name.startswith("band") else f"band {index + 1} ({name})"


def _not_finite(image: NDArray[np.float32], bands: Sequence[str]) -> list[str]:
    """What is not finite in an image (H, W, C), band by band; at once if it is the same in all bands."""
    kinds = {"NaN": np.isnan(image).sum(axis=(0, 1)), "infinite": np.isinf(image).sum(axis=(0, 1))}
    messages = []
    for what, counts in kinds.items():
        if len(bands) > 1 and counts[0] > 0 and (counts == counts[0]).all():
            messages.append(f"{counts[0]} {what} in each of the {len(bands)} bands")
        else:
            messages += [f"{counts[i]} {what} in {_label(bands, i)}" for i in np.flatnonzero(counts).tolist()]
    return messages
