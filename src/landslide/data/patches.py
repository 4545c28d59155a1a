"""The data set on disk: its two layouts, pairing by number, and reading.

A patch is `image_N.h5` (data set `img`, stored H x W x C) and `mask_N.h5` (data set `mask`, H x W, 0 or 1).
Image and mask belong together by their number N, never by their place in two listings: some published copies
hold stray files among the masks. `landslide.data.check` checks a whole data set.
"""

import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from landslide.data.digests import ignored_files
from landslide.data.read_errors import DAMAGED, explain
from landslide.errors import DataError, first_few
from landslide.schema import LAYOUTS, ORIGINAL_BANDS, PATCH_SIZE, Split

_COMMON_BANDS = {3: ("B4", "B3", "B2"), 4: ("B2", "B3", "B4", "B8")}  # examples, by the number of bands


@dataclass(frozen=True)
class PatchFiles:
    """The files of one patch; `mask` is None for validation or test patches without mask."""

    number: int
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Finding:
    """One fault or warning: the file, its kind (`code`), the finding and the expectation, the remedy."""

    path: str
    code: str
    message: str
    remedy: str


def declare_bands(n_bands: int) -> str:
    """Return the remedy for images with this number of bands, which is not the number that is declared."""
    if n_bands == len(ORIGINAL_BANDS):
        return "these are the 14 of Landslide4Sense: leave out --bands and, in the configuration, bands.stored"
    if not 0 < n_bands < len(ORIGINAL_BANDS):
        return "store 1 to 14 of the bands that docs/reference/bands.md lists"
    names = _COMMON_BANDS.get(n_bands, ORIGINAL_BANDS[:n_bands])
    return (
        f"name the stored bands in their order, for example on the command line with --bands {','.join(names)}, and in "
        f"the configuration as bands.stored: `bands: {{stored: [{', '.join(names)}]}}`, see configs/own_rgb.yaml"
    )


# ---- finding and pairing


def holds_patches(folder: Path) -> bool:
    """Whether a folder is a data set of training patches, in either layout."""
    return any((folder / layout["train"][0]).is_dir() for layout in LAYOUTS)


def numbered_files(
    folder: Path, kind: Literal["image", "mask"], ignored: Collection[Path] = ()
) -> dict[int, list[Path]]:
    """Files `<kind>_N.h5` of a folder by number N, in ascending order of N; empty if there is no folder.

    A number has more than one file if a folder holds both `image_1.h5` and `image_01.h5`.

    Args:
        folder: The folder.
        kind: Images or masks.
        ignored: Files that do not belong to the data set, see `landslide.data.digests.ignored_files`.
    """
    name = re.compile(rf"{kind}_([0-9]{{1,18}})\.h5")
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := name.fullmatch(path.name)) and path not in ignored:
            found.setdefault(int(match[1]), []).append(path)
    return dict(sorted(found.items()))


def find_patches(root: Path, split: Split = "train") -> list[PatchFiles]:
    """Find the patches of one split, in either published layout, and pair images with masks by number.

    Args:
        root: Folder that holds `TrainData/` (and `ValidData/`, `TestData/`), or `images/` and `annotations/`.
        split: Which part of the data set.

    Returns:
        The patches in natural order (`image_2` before `image_10`), without those that `.dvcignore` lists.

    Raises:
        DataError: The folder is missing, holds no patch, holds two files of one number, exists in both
            layouts, or (training split only) an image has no mask.
    """
    image_folder, mask_folder = _split_folders(root, split)
    ignored = {root / path for path in ignored_files(root)}
    images = _one_file_each(numbered_files(image_folder, "image", ignored))
    masks = _one_file_each(numbered_files(mask_folder, "mask", ignored))
    if not images:
        raise DataError(
            f"{image_folder} holds no patch: there is no file named image_<number>.h5 in it",
            remedy="unpack the images there, or give the folder that holds them",
        )
    without = [path.name for number, path in images.items() if number not in masks]
    if without and split == "train":
        raise DataError(
            f"{image_folder}: {len(without)} training image(s) have no mask in {mask_folder}: {first_few(without)}",
            remedy="add the masks, or move the images away; `landslide data check` lists all of them",
        )
    return [PatchFiles(number, image, masks.get(number)) for number, image in images.items()]


def _split_folders(root: Path, split: Split) -> tuple[Path, Path]:
    candidates = [(root / layout[split][0], root / layout[split][1]) for layout in LAYOUTS]
    present = [folders for folders in candidates if folders[0].is_dir()]
    if not present:
        expected = " nor ".join(str(images) for images, _ in candidates)
        reason = "it does not exist" if not root.is_dir() else f"there is neither {expected}"
        remedy = other_folder(root) or (
            "give the folder that holds TrainData/ (or images/ and annotations/), or make a data set with "
            "`landslide data demo`"
        )
        raise DataError(f"{root} holds no {split} images: {reason}", remedy=remedy)
    if len(present) > 1:
        raise DataError(
            f"{root} holds the {split} split twice, in {present[0][0]} and in {present[1][0]}",
            remedy="keep one of the two layouts",
        )
    return present[0]


def other_folder(root: Path) -> str | None:
    """Return a remedy if a folder above or below is the data set, such as for `DIR/TrainData` or `DIR/img`."""
    path = root.resolve()
    folders = [Path(folder) for layout in LAYOUTS for pair in layout.values() for folder in pair]
    for folder in folders:
        for depth in range(1, len(folder.parts) + 1):
            if path.parts[-depth:] == folder.parts[:depth] and path.joinpath(*folder.parts[depth:]).is_dir():
                return f"give the folder above: {path.parents[depth - 1]}"
    below = [child for child in sorted(path.iterdir()) if child.is_dir()] if path.is_dir() else []
    for child in below:
        if any((child / folder).is_dir() for folder in folders):
            return f"give the folder below: {child}"
    if {"img", "mask"} <= {child.name for child in below}:
        return f"rename {path.name} to TrainData, and give the folder above: {path.parent}"
    return None


def _one_file_each(files: dict[int, list[Path]]) -> dict[int, Path]:
    for number, paths in files.items():
        if len(paths) > 1:
            raise DataError(
                f"number {number} occurs twice: {paths[0]} and {paths[1].name}",
                remedy="keep one file of each number",
            )
    return {number: paths[0] for number, paths in files.items()}


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


def write_array(path: Path, key: str, values: NDArray[Any]) -> None:
    """Write the HDF5 file of an image or a mask: equal values give equal bytes.

    Args:
        path: The file; its folder must exist.
        key: Name of the data set in it: `img` or `mask`.
        values: (H, W, C) or (H, W).
    """
    with h5py.File(path, "w", libver="earliest") as file:  # without times
        file.create_dataset(key, data=np.ascontiguousarray(values), track_times=False)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Read the mask of one patch.

    Args:
        path: An HDF5 file with a data set `mask` of shape (128, 128); any real or boolean type will do.

    Returns:
        uint8 (H, W), 1 for landslide and 0 elsewhere.

    Raises:
        DataError: The file is unreadable or truncated, has no `mask`, has another shape or type, or holds
            values other than 0 and 1.
    """
    stored, faults = load_stored(path, "mask", (PATCH_SIZE, PATCH_SIZE))
    return _sound(stored, faults).astype(np.uint8)


def load_stored(
    path: Path, key: Literal["img", "mask"], shape: tuple[int, ...], content: bytes | None = None
) -> tuple[NDArray[Any] | None, list[Finding]]:
    """Load a data set as stored, or say everything that is wrong with it.

    Args:
        path: An HDF5 file.
        key: Name of the data set in it.
        shape: The shape that it must have.
        content: The bytes of the file, if they have been read already; else the file is opened.

    Returns:
        The array and no finding, or None and at least one. Values are looked at (masks: 0 and 1 only)
        where shape and type are as expected.
    """
    try:
        with h5py.File(path if content is None else io.BytesIO(content), "r") as file:
            dataset = file.get(key)
            if sources := _sources(file, key, dataset if isinstance(dataset, h5py.Dataset) else None):
                return None, [_values_elsewhere(path, key, sources)]
            if not isinstance(dataset, h5py.Dataset):
                return None, [_wrong_key(path, key, list(file))]
            faults = _wrong_form(path, dataset, shape) + _missing_filters(path, dataset)
            stored = None if faults else dataset[()]
    except Exception as error:  # HDF5 reports damage as OSError, RuntimeError, KeyError, ValueError, ...
        return None, [unreadable(path, error if content is None else _cause_on_disk(path, error))]
    if stored is not None and key == "mask" and not ((stored == 0) | (stored == 1)).all():
        faults = [_wrong_values(path, stored)]
    return (None if faults else stored), faults


def _sound(stored: NDArray[Any] | None, faults: list[Finding]) -> NDArray[Any]:
    if stored is None:
        raise DataError(f"{faults[0].path}: " + "; ".join(fault.message for fault in faults), remedy=faults[0].remedy)
    return stored


def unreadable(path: Path, error: Exception) -> Finding:
    """The finding for a patch file that could not be opened or read."""
    cause, remedy = explain(error)
    if remedy == DAMAGED:
        remedy += ", or move the patch away: image, mask and its line in scenes.csv"
    return Finding(str(path), "unreadable", f"cannot be read: {cause}", remedy)


def _cause_on_disk(path: Path, error: Exception) -> Exception:
    """Why bytes are no HDF5 file: a program that is writing the file, for example, locks it."""
    try:
        with h5py.File(path, "r"):
            return error
    except OSError as on_disk:
        return on_disk


def _missing_filters(path: Path, dataset: h5py.Dataset) -> list[Finding]:
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(index) for index in range(properties.get_nfilters())]
    missing = [
        f"{number} ({name.decode()})" if name else str(number)
        for number, _, _, name in filters
        if not h5py.h5z.filter_avail(number)
    ]
    if not missing:
        return []
    return [
        Finding(
            str(path),
            "missing_filter",
            f"compressed by HDF5 filter {', '.join(missing)}, which is not installed here",
            "store it without compression or with gzip, for example with `h5repack -f GZIP=4 OLD NEW` on a machine "
            "that has the filter",
        )
    ]


def _wrong_key(path: Path, key: str, found: list[str]) -> Finding:
    keys = ", ".join(f"`{name}`" for name in found) or "nothing"
    if key in found:
        keys = f"`{key}`, which is a group"
    return Finding(
        str(path), "wrong_key", f"holds {keys}; expected a data set `{key}`", f"store the array under `{key}`"
    )


def _wrong_form(path: Path, dataset: h5py.Dataset, shape: tuple[int, ...]) -> list[Finding]:
    faults = []
    if dataset.shape is None:
        return [Finding(str(path), "wrong_shape", f"an empty data set; expected {shape}", "store the values in it")]
    if dataset.shape != shape:
        message = f"shape {dataset.shape}; expected {shape}"
        if len(shape) == len(dataset.shape) == 3 and dataset.shape[:2] == shape[:2]:
            faults.append(Finding(str(path), "wrong_bands", message, declare_bands(dataset.shape[2])))
        else:
            remedy = f"store {' x '.join(map(str, shape[:2]))} pixels{' x bands' if len(shape) == 3 else ''}"
            faults.append(Finding(str(path), "wrong_shape", message, remedy))
    kinds = "iuf" if len(shape) == 3 else "biuf"
    if dataset.dtype.kind not in kinds:
        message = f"type {dataset.dtype}; expected integers or real numbers"
        faults.append(Finding(str(path), "wrong_dtype", message, "store real numbers"))
    return faults


def _sources(file: h5py.File, key: str, dataset: h5py.Dataset | None) -> list[str]:
    """Other files that hold the values of a data set. If they are gone, HDF5 reads fill values."""
    link = file.get(key, getlink=True)
    sources = {link.filename} if isinstance(link, h5py.ExternalLink) else set()
    if dataset is not None:
        sources |= {source.file_name for source in dataset.virtual_sources()} if dataset.is_virtual else set()
        sources |= {name for name, *_ in dataset.external or ()}
    return sorted(sources - {"."})


def _values_elsewhere(path: Path, key: str, sources: list[str]) -> Finding:
    return Finding(
        str(path),
        "values_elsewhere",
        f"the values of `{key}` lie in other files ({first_few(sources)}), which the data version does not cover",
        f"store the values themselves under `{key}` in this file",
    )


def never_written(content: bytes, key: str) -> bool:
    """Return whether a data set in an HDF5 file has no values, so that fill values are read. It must be there."""
    with h5py.File(io.BytesIO(content), "r") as file:
        return bool(file[key].id.get_storage_size() == 0)


def _wrong_values(path: Path, mask: NDArray[Any]) -> Finding:
    values, pixels = np.unique(mask, return_counts=True)
    others = [f"{v:g} ({n} pixels)" for v, n in zip(values, pixels, strict=True) if v not in (0, 1)]
    return Finding(
        str(path),
        "mask_values",
        f"values other than 0 and 1: {first_few(others)}",
        "store 1 for landslide and 0 elsewhere",
    )
