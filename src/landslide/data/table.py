"""The patch table: one line per patch."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from landslide.data.digests import file_digests
from landslide.data.patches import find_patches, read_mask
from landslide.data.positions import read_positions
from landslide.errors import DataError, first_few
from landslide.schema import Positions, Split


def patch_table(
    root: Path,
    split: Split = "train",
    digests: Mapping[str, str] | None = None,
    *,
    positive_pixels: Mapping[str, int] | None = None,
    positions: Positions = "auto",
) -> pd.DataFrame:
    """Return one row per patch, in natural order: the input of the fold assignment and of the band cache.

    Args:
        root: Folder of the data set.
        split: Which part of it.
        digests: MD5 of each file by relative path, from `directory_digest` or `survey`; computed if not given.
        positive_pixels: Landslide pixels of each mask by relative path, from `survey`; counted if not given.
        positions: Where positions come from, see `read_positions`. Other splits than training have none.

    Returns:
        Columns number (int64), image and mask (paths relative to `root`), image_md5, mask_md5,
        positive_pixels (int64, landslide pixels of the mask), scene, row, column (Int64). Where a validation
        or test patch has no mask, its mask, mask_md5 and positive_pixels (then Int64) are missing values.

    Raises:
        DataError: As `find_patches`, `read_mask` and `read_positions`; or `digests` or `positive_pixels` lacks a file.
    """
    patches = find_patches(root, split)
    numbers = [patch.number for patch in patches]
    images = [patch.image.relative_to(root).as_posix() for patch in patches]
    masks = [patch.mask.relative_to(root).as_posix() if patch.mask else None for patch in patches]
    files = images + [mask for mask in masks if mask]
    if digests is None:
        digests = dict(zip(files, file_digests(root / file for file in files), strict=True))
    if positive_pixels is None:
        positive_pixels = {mask: int(read_mask(root / mask).sum()) for mask in masks if mask}
    lacking = [file for file in files if file not in digests]
    lacking += [mask for mask in masks if mask and mask not in positive_pixels]
    if lacking:
        raise DataError(
            f"the digests or landslide pixels given for {root} lack {first_few(lacking)}",
            remedy="compute them from the same folder, without faults, after it was last changed",
        )
    pixels = pd.Series([positive_pixels[mask] if mask else None for mask in masks], dtype="Int64")
    table = pd.DataFrame(
        {
            "number": pd.Series(numbers, dtype="int64"),
            "image": images,
            "mask": masks,
            "image_md5": [digests[image] for image in images],
            "mask_md5": [digests[mask] if mask else None for mask in masks],
            "positive_pixels": pixels if pixels.hasnans else pixels.astype("int64"),
        }
    )
    where = read_positions(root, numbers, positions=positions if split == "train" else "none")
    return pd.concat([table, where], axis=1)
