"""One file of a data set, read once: its digest, its faults, and the landslide pixels of a mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from landslide.data.digests import content_digest, file_digest
from landslide.data.patches import Finding, load_stored, unreadable
from landslide.errors import DataError
from landslide.schema import PATCH_SIZE


@dataclass(frozen=True)
class FileContent:
    """What `read_content` found.

    Attributes:
        digest: MD5 of the bytes; None if the file cannot be read.
        positive_pixels: Landslide pixels of a sound mask; None for any other file.
        faults: What makes the file unusable.
        warnings: What is worth knowing.
    """

    digest: str | None
    positive_pixels: int | None = None
    faults: Sequence[Finding] = ()
    warnings: Sequence[Finding] = ()


def read_content(path: Path, key: Literal["img", "mask"] | None, bands: Sequence[str]) -> FileContent:
    """Open a file once; digest and findings are of the same bytes. Bad data never raises.

    Args:
        path: The file.
        key: The data set that it must hold if it belongs to a patch; None for any other file.
        bands: Names of the bands that an image must have.
    """
    try:
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
        return FileContent(digest, int(np.count_nonzero(stored)))
    faults, warnings = _image_findings(path, stored, bands)
    return FileContent(digest, faults=faults, warnings=warnings)


def _image_findings(path: Path, stored: NDArray[Any], bands: Sequence[str]) -> tuple[list[Finding], list[Finding]]:
    """Return faults and warnings about the values of an image (H, W, C)."""
    faults, warnings = [], []
    # Training reads float32, so a float64 beyond its range counts as infinite.
    with np.errstate(over="ignore"):
        image = stored.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        message = "; ".join(_not_finite(image, bands))
        faults.append(Finding(str(path), "not_finite", message, "fill the gaps, or move the patch away with its mask"))
    if "dem" in bands:
        elevation = image[:, :, bands.index("dem")]
        if elevation.min() == elevation.max():
            message = f"the elevation is {elevation[0, 0]:g} everywhere"
            remedy = "known of 114 official patches; nothing need be done"
            warnings.append(Finding(str(path), "constant_dem", message, remedy))
    return faults, warnings


def _not_finite(image: NDArray[np.float32], bands: Sequence[str]) -> list[str]:
    """What is not finite in an image (H, W, C), band by band."""
    messages = []
    for index, name in enumerate(bands):
        label = name if name.startswith("band") else f"band {index + 1} ({name})"
        for what, where in (("NaN", np.isnan(image[..., index])), ("infinite", np.isinf(image[..., index]))):
            if where.any():
                messages.append(f"{np.count_nonzero(where)} {what} in {label}")
    return messages
