"""The data set on disk: its two layouts, pairing by number, reading, digests and positions.

A patch is `image_N.h5` (data set `img`, stored H x W x C) and `mask_N.h5` (data set `mask`, H x W, 0 or 1).
Image and mask belong together by their number N, never by their place in two listings: some published copies
hold stray files beside the masks. Checking a whole data set is next door, in `patch_check`.
"""

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landslide.data import direct_read
from landslide.errors import DataError

ORIGINAL_BANDS: tuple[str, ...] = (
    *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12"),
    *("slope", "dem"),
)
"""The stored bands in file order. B8A is absent, so index 7 is B8 and index 8 is B9."""

PATCH_SIZE = 128
"""Height and width of a patch in pixels of 10 m."""

Split = Literal["train", "validation", "test"]
Positions = Literal["auto", "landslide4sense", "none"]

# Image folder and mask folder of each split, in the layouts of Zenodo and of Hugging Face.
LAYOUTS: tuple[dict[Split, tuple[str, str]], ...] = (
    {
        "train": ("TrainData/img", "TrainData/mask"),
        "validation": ("ValidData/img", "ValidData/mask"),
        "test": ("TestData/img", "TestData/mask"),
    },
    {
        "train": ("images/train", "annotations/train"),
        "validation": ("images/validation", "annotations/validation"),
        "test": ("images/test", "annotations/test"),
    },
)

# What DVC leaves out of a folder that it pins.
IGNORED_NAMES = frozenset({".git", ".hg", ".dvc"})

POSITION_COLUMNS = ("scene", "row", "column")
_OFFICIAL_PATCHES = 3799
# Patches and row stride of each scene, in file order; the last patch is a scene of its own.
_OFFICIAL_SCENES = ((3033, 41), (150, 15), (121, 11), (494, 26), (1, 1))


@dataclass(frozen=True)
class PatchFiles:
    """The files of one patch; `mask` is None where validation or test patches have none."""

    number: int
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Finding:
    """One fault or warning: which file, what kind (`code`), what was found and expected, what to do."""

    path: str
    code: str
    message: str
    remedy: str


# ---- finding and pairing


def numbered_files(folder: Path, kind: Literal["image", "mask"]) -> dict[int, list[Path]]:
    """Files `<kind>_N.h5` of a folder by number N, in ascending order of N; empty where there is no folder.

    A number has more than one file where `image_1.h5` stands beside `image_01.h5`.
    """
    name = re.compile(rf"{kind}_([0-9]{{1,18}})\.h5")
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := name.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append(path)
    return dict(sorted(found.items()))


def find_patches(root: Path, split: Split = "train") -> list[PatchFiles]:
    """Find the patches of one split, in either published layout, and pair images with masks by number.

    Args:
        root: Folder that holds `TrainData/` (and `ValidData/`, `TestData/`), or `images/` and `annotations/`.
        split: Which part of the data set.

    Returns:
        The patches in natural order (`image_2` before `image_10`).

    Raises:
        DataError: The folder is missing, holds no patch, holds two files of one number, is there in both
            layouts, or (training split only) an image has no mask.
    """
    image_folder, mask_folder = _split_folders(root, split)
    images = _one_file_each(numbered_files(image_folder, "image"))
    masks = _one_file_each(numbered_files(mask_folder, "mask"))
    if not images:
        raise DataError(
            f"{image_folder} holds no patch: there is no file named image_<number>.h5 in it",
            remedy="unpack the images there, or give the folder that holds them",
        )
    without = [path.name for number, path in images.items() if number not in masks]
    if without and split == "train":
        raise DataError(
            f"{image_folder}: {len(without)} training image(s) have no mask in {mask_folder}: {_few(without)}",
            remedy="add the masks, or move the images away; `landslide data check` lists all of them",
        )
    return [PatchFiles(number, image, masks.get(number)) for number, image in images.items()]


def _split_folders(root: Path, split: Split) -> tuple[Path, Path]:
    candidates = [(root / layout[split][0], root / layout[split][1]) for layout in LAYOUTS]
    present = [folders for folders in candidates if folders[0].is_dir()]
    if not present:
        expected = " nor ".join(str(images) for images, _ in candidates)
        reason = "it does not exist" if not root.is_dir() else f"there is neither {expected}"
        raise DataError(
            f"{root} holds no {split} images: {reason}",
            remedy="give the folder that holds TrainData/ (or images/ and annotations/), "
            "or make a data set with `landslide data demo`",
        )
    if len(present) > 1:
        raise DataError(
            f"{root} holds the {split} split twice, in {present[0][0]} and in {present[1][0]}",
            remedy="keep one of the two layouts",
        )
    return present[0]


def _one_file_each(files: dict[int, list[Path]]) -> dict[int, Path]:
    for number, paths in files.items():
        if len(paths) > 1:
            raise DataError(
                f"number {number} occurs twice: {paths[0]} and {paths[1].name}",
                remedy="keep one file of each number",
            )
    return {number: paths[0] for number, paths in files.items()}


def _few(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


# ---- reading


def read_stored(path: Path, n_bands: int = 14) -> NDArray[Any]:
    """Read the bands of one patch exactly as stored.

    Args:
        path: An HDF5 file with a data set `img` of shape (128, 128, n_bands) and any real type.
        n_bands: How many bands the data set declares: 14, or fewer for Sentinel-2 or RGB sets.

    Returns:
        (H, W, C) in the stored type and units (Landslide4Sense: float64, divided by the per-band means).

    Raises:
        DataError: The file is unreadable or truncated, has no `img`, or has another shape or type.
    """
    return _sound(*load_stored(path, "img", (PATCH_SIZE, PATCH_SIZE, n_bands)))


def read_image(path: Path, n_bands: int = 14) -> NDArray[np.float32]:
    """Read the bands of one patch as float32 (C, H, W), contiguous; see `read_stored`."""
    return np.ascontiguousarray(read_stored(path, n_bands).transpose(2, 0, 1), dtype=np.float32)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read the mask of one patch.

    Args:
        path: An HDF5 file with a data set `mask` of shape (128, 128); any real or boolean type will do.

    Returns:
        uint8 (H, W), 1 where there is a landslide and 0 elsewhere.

    Raises:
        DataError: The file is unreadable or truncated, has no `mask`, has another shape or type, or holds
            values other than 0 and 1.
    """
    stored, faults = load_stored(path, "mask", (PATCH_SIZE, PATCH_SIZE))
    return _sound(stored, faults).astype(np.uint8)


def load_stored(
    path: Path, key: Literal["img", "mask"], shape: tuple[int, ...]
) -> tuple[NDArray[Any] | None, list[Finding]]:
    """Load a data set as stored, or say everything that is wrong with it.

    Returns:
        The array and no finding, or None and at least one. Values are looked at (masks: 0 and 1 only)
        where shape and type are as expected.
    """
    faults: list[Finding] = []
    try:
        stored = direct_read.read(path, key)
        if stored is None or stored.shape != shape:
            with h5py.File(path, "r") as file:
                dataset = file.get(key)
                if not isinstance(dataset, h5py.Dataset):
                    return None, [_wrong_key(path, key, list(file))]
                faults = _wrong_form(path, dataset, shape)
                stored = None if faults else dataset[()]
                if not faults:
                    direct_read.learn(path, dataset)
    except Exception as error:  # HDF5 reports damage as OSError, RuntimeError, KeyError, ValueError, ...
        return None, [_unreadable(path, error)]
    if stored is not None and key == "mask" and not ((stored == 0) | (stored == 1)).all():
        faults = [_wrong_values(path, stored)]
    return (None if faults else stored), faults


def _sound(stored: NDArray[Any] | None, faults: list[Finding]) -> NDArray[Any]:
    if stored is None:
        raise DataError(f"{faults[0].path}: " + "; ".join(fault.message for fault in faults), remedy=faults[0].remedy)
    return stored


def _unreadable(path: Path, error: Exception) -> Finding:
    return Finding(
        str(path),
        "unreadable",
        f"cannot be read as HDF5, it is truncated, damaged or missing ({str(error) or type(error).__name__})",
        "copy or download the file again",
    )


def _wrong_key(path: Path, key: str, found: list[str]) -> Finding:
    keys = ", ".join(f"`{name}`" for name in found) or "nothing"
    return Finding(
        str(path), "wrong_key", f"holds {keys}; expected a data set `{key}`", f"store the array under `{key}`"
    )


def _wrong_form(path: Path, dataset: h5py.Dataset, shape: tuple[int, ...]) -> list[Finding]:
    faults = []
    if dataset.shape != shape:
        message = f"shape {dataset.shape}; expected {shape}"
        remedy = "store height x width x bands, and declare as many bands as there are (`--bands`)"
        faults.append(Finding(str(path), "wrong_shape", message, remedy))
    kinds = "iuf" if len(shape) == 3 else "biuf"
    if dataset.dtype.kind not in kinds:
        message = f"type {dataset.dtype}; expected integers or real numbers"
        faults.append(Finding(str(path), "wrong_dtype", message, "store real numbers"))
    return faults


def _wrong_values(path: Path, mask: NDArray[Any]) -> Finding:
    values, pixels = np.unique(mask, return_counts=True)
    others = [f"{v:g} ({n} pixels)" for v, n in zip(values, pixels, strict=True) if v not in (0, 1)]
    return Finding(
        str(path),
        "mask_values",
        f"values other than 0 and 1: {_few(others)}",
        "store 1 where there is a landslide and 0 elsewhere",
    )


# ---- digests


def file_digest(path: Path) -> str:
    """MD5 of a file's bytes, 32 hexadecimal characters, as DVC counts it.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            remedy="fetch the file again (`dvc checkout` mends links into a DVC cache)",
        ) from error


def directory_digest(root: Path) -> tuple[str, dict[str, str]]:
    """The version of a folder exactly as DVC 3 pins it in a `.dvc` file.

    That is the MD5 of the JSON list of {"md5", "relpath"} of all files, sorted by relative path, with
    ".dir" behind it. As in DVC, empty folders and links to folders do not count.

    Returns:
        The digest (36 characters) and the MD5 of each file by its relative path (with forward slashes).

    Raises:
        DataError: The folder does not exist, or a file cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder", remedy="give the folder that holds the data set")
    paths = files_below(root)
    digests = dict(zip(paths, _digests(root / path for path in paths), strict=True))
    return listing_digest(digests), digests


def listing_digest(digests: Mapping[str, str]) -> str:
    """The version of a folder that holds these files, by the MD5 of each by relative path."""
    listing = [{"md5": md5, "relpath": relpath} for relpath, md5 in sorted(digests.items())]
    return hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest() + ".dir"


def files_below(root: Path) -> list[str]:
    """Relative paths (forward slashes, sorted) of all files that DVC would pin in a folder."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in IGNORED_NAMES]
        found += [Path(folder, name).relative_to(root).as_posix() for name in names if name not in IGNORED_NAMES]
    return sorted(found)


def _digests(paths: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(file_digest, paths))


# ---- tables


def patch_table(
    root: Path,
    split: Split = "train",
    digests: Mapping[str, str] | None = None,
    *,
    positions: Positions = "auto",
) -> pd.DataFrame:
    """One row a patch, in natural order: what fold assignment and the band cache need to know.

    Args:
        root: Folder of the data set.
        split: Which part of it.
        digests: MD5 of each file by relative path, from `directory_digest`; computed where it is not given.
        positions: Where positions come from, see `read_positions`. Other splits than training have none.

    Returns:
        Columns number (int64), image and mask (paths relative to `root`), image_md5, mask_md5,
        positive_pixels (int64, landslide pixels of the mask), scene, row, column (Int64). Where a validation
        or test patch has no mask, its mask, mask_md5 and positive_pixels (then Int64) are missing values.

    Raises:
        DataError: As `find_patches`, `read_mask` and `read_positions`; or `digests` lacks a file.
    """
    patches = find_patches(root, split)
    numbers = [patch.number for patch in patches]
    images = [patch.image.relative_to(root).as_posix() for patch in patches]
    masks = [patch.mask.relative_to(root).as_posix() if patch.mask else None for patch in patches]
    files = images + [mask for mask in masks if mask]
    if digests is None:
        digests = dict(zip(files, _digests(root / file for file in files), strict=True))
    elif lacking := [file for file in files if file not in digests]:
        raise DataError(
            f"the digests given for {root} lack {_few(lacking)}",
            remedy="compute them with directory_digest from the same folder, after it was last changed",
        )
    pixels = pd.Series([int(read_mask(p.mask).sum()) if p.mask else None for p in patches], dtype="Int64")
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


def read_positions(root: Path, numbers: Sequence[int], *, positions: Positions = "auto") -> pd.DataFrame:
    """Scene, row and column of training patches; the patch files themselves carry no position.

    They come from `scenes.csv` in `root` (header `n,scene,row,column`, whole numbers) if it is there, else
    from the built-in table of the official Landslide4Sense training set, if this is that set.

    Args:
        root: Folder of the data set.
        numbers: Patch numbers, in the order of the result's rows.
        positions: "auto" takes a set for the official one when it holds exactly the numbers 1 to 3799;
            "landslide4sense" says that it is (a part of) that set; "none" knows no positions.

    Returns:
        Columns scene, row, column (Int64), one row a number; <NA> where nothing is known.

    Raises:
        DataError: `scenes.csv` is malformed, or lists a number twice or not at all; or the set is declared
            official and has a number above 3799.
    """
    path = root / "scenes.csv"
    if positions == "none":
        table = None
    elif path.exists():
        table = _read_scenes(path)
    elif positions == "landslide4sense" or _is_official(root, numbers):
        path = Path("the built-in Landslide4Sense table")
        table = landslide4sense_positions()
    else:
        table = None
    if table is None:
        return pd.DataFrame({name: pd.array([pd.NA] * len(numbers), "Int64") for name in POSITION_COLUMNS})
    if lacking := [str(number) for number in numbers if number not in table.index]:
        raise DataError(
            f"{path} has no position for patch {_few(lacking)}",
            remedy="list every training patch in scenes.csv, or set positions to none",
        )
    return table.loc[list(numbers)].reset_index(drop=True)


def landslide4sense_positions() -> pd.DataFrame:
    """Positions of the 3,799 official training patches, which are contiguous tiles of four scenes.

    Returns:
        Columns scene (from 1), row, column (from 0), Int64, indexed by patch number. The one patch that no
        scene claims is scene 5.
    """
    rows = [
        (scene, tile // stride, tile % stride)
        for scene, (patches, stride) in enumerate(_OFFICIAL_SCENES, start=1)
        for tile in range(patches)
    ]
    index = pd.RangeIndex(1, _OFFICIAL_PATCHES + 1, name="n")
    return pd.DataFrame(rows, columns=list(POSITION_COLUMNS), index=index, dtype="Int64")


def _is_official(root: Path, numbers: Sequence[int]) -> bool:
    official = set(range(1, _OFFICIAL_PATCHES + 1))
    held = [set(numbers_of) for numbers_of in (numbers, *_numbers_on_disk(root))]
    return set(numbers) <= official and official in held


def _numbers_on_disk(root: Path) -> list[Iterable[int]]:
    return [numbered_files(root / layout["train"][0], "image") for layout in LAYOUTS]


def _read_scenes(path: Path) -> pd.DataFrame:
    header = ["n", *POSITION_COLUMNS]
    remedy = f"write it as `{','.join(header)}`, whole numbers, one line a training patch"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(reader_line, line) for reader_line, line in enumerate(csv.reader(file), start=1) if line]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", remedy=remedy) from error
    if not lines or [name.strip() for name in lines[0][1]] != header:
        found = ",".join(lines[0][1]) if lines else "an empty file"
        raise DataError(f"{path}: the header is {found}; expected {','.join(header)}", remedy=remedy)
    rows: dict[int, tuple[int, int, int]] = {}
    for line_number, line in lines[1:]:
        try:
            number, scene, row, column = map(int, line)
        except ValueError:
            what = f"{path}, line {line_number}: found {','.join(line)!r}, expected four whole numbers"
            raise DataError(what, remedy=remedy) from None
        if number in rows:
            raise DataError(f"{path}, line {line_number}: patch {number} occurs twice", remedy=remedy)
        rows[number] = (scene, row, column)
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(POSITION_COLUMNS), dtype="Int64")
