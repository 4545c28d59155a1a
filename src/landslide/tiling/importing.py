"""Patches from images and masks that people already have: any of some formats, paired by name, cut, never resampled."""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from landslide.data.check import render_findings
from landslide.data.patches import Finding, declare_bands, write_array
from landslide.errors import ConfigurationError, DataError, first_few
from landslide.schema import LAYOUTS, ORIGINAL_BANDS, PATCH_SIZE, POSITION_COLUMNS
from landslide.tiling.array_files import FORMATS, StoredArray, UnusableFileError, read_array_file
from landslide.tiling.contact_sheet import Sample, choose, pairs_figure, picture_of, write_picture
from landslide.tiling.mask_coding import FoundValues, LandslideCoding, MaskValues
from landslide.tiling.name_pairs import Key, distinct_numbers, pair_names
from landslide.tiling.new_folder import new_folder

NAMES = "names.csv"
"""File of a data set that says from which image and mask each patch was cut."""

Landslide = npt.NDArray[np.bool_]
Place = tuple[str, tuple[float, ...]] | None

_PREVIEWED = 4


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """Which files are imported, and what their values mean."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    images: str
    """Pattern of the images below the folder, such as `img/*.png`."""
    masks: str
    """Pattern of the masks. A file that both patterns fit belongs to the narrower one."""
    bands: tuple[str, ...] = ORIGINAL_BANDS
    """The bands of the images, in stored order."""
    landslide: str | None = None
    """Values of masks that are landslides, see `LandslideCoding`; None if they are 0 and 1, or 0 and 255."""
    image_key: str | None = None
    """Name of the image in HDF5 and .npz files; None if they hold one array."""
    mask_key: str | None = None
    """Name of the mask in them."""


@dataclass
class Pair:
    """An image and its mask.

    Attributes:
        key: What distinguishes their names from those of other pairs.
        image: Path of the image below the folder, with forward slashes.
        mask: That of the mask.
        size: Rows and columns, in pixels.
        tiles: Row and column of each tile that becomes a patch, counted in tiles, with its landslide pixels.
        without_data: Tiles with pixels without data, which become none.
    """

    key: Key
    image: str
    mask: str
    size: tuple[int, int] = (0, 0)
    tiles: dict[tuple[int, int], int] = field(default_factory=dict)
    without_data: int = 0

    @property
    def edge(self) -> int:
        """Pixels that remain at the right and lower edges."""
        height, width = self.size
        return height * width - (height // PATCH_SIZE) * (width // PATCH_SIZE) * PATCH_SIZE**2


@dataclass
class ImportPlan:
    """What was understood of a folder.

    Attributes:
        folder: The folder.
        settings: Which files are imported.
        pairs: Images and masks, in natural order of their names.
        faults: What stands against importing them.
        forms: Images by format, number of channels, their order, and type.
        values: The values of the masks.
    """

    folder: Path
    settings: ImportSettings
    pairs: list[Pair] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    forms: Counter[str] = field(default_factory=Counter)
    values: FoundValues = field(default_factory=FoundValues)

    @property
    def n_patches(self) -> int:
        """How many patches they become."""
        return sum(len(pair.tiles) for pair in self.pairs)

    def describe(self) -> str:
        """Return what was understood as lines for people."""
        lines = [f"{self.folder}: usable pairs of image and mask: {len(self.pairs):,}"]
        if self.pairs:
            lines[0] += f", such as {self.pairs[0].image} with {self.pairs[0].mask}"
        lines += [f"images: {form}: {count:,}" for form, count in self.forms.most_common()]
        sizes = Counter(pair.size for pair in self.pairs if pair.tiles)
        shown = [f"{height} x {width}: {count:,}" for (height, width), count in sizes.most_common()]
        lines += [f"rows x columns: {first_few(shown)}"] if shown else []
        lines.append(f"bands: {', '.join(self.settings.bands)}")
        return "\n".join(lines if self.faults else lines + self._outcome())

    def _outcome(self) -> list[str]:
        pixels = [count for pair in self.pairs for count in pair.tiles.values()]
        share = sum(pixels) / (len(pixels) * PATCH_SIZE**2)
        meaning = self.settings.landslide or ("255" if 255 in self.values.numbers else "1")
        lines = [
            f"values of the masks: {self.values}; landslides are {meaning}",
            f"patches of {PATCH_SIZE} x {PATCH_SIZE} pixels: {len(pixels):,}, with landslides: "
            f"{sum(map(bool, pixels)):,}, {100 * share:.2f} % of the pixels",
        ]
        if share > 0.5:
            lines.append("most pixels are landslides: if these are the background, name the others with --landslide")
        if without := sum(pair.without_data for pair in self.pairs):
            lines.append(f"left out: tiles with pixels without data: {without:,}")
        if cut := [pair for pair in self.pairs if pair.edge]:
            whole = sum(height * width for height, width in (pair.size for pair in self.pairs))
            edge = sum(pair.edge for pair in cut)
            lines.append(
                f"left out: {edge:,} pixels ({100 * edge / whole:.1f} %) at the right and lower edges, "
                f"of images: {len(cut):,}"
            )
        return lines

    def refuse_faults(self) -> None:
        """Refuse to go on if there are faults.

        Raises:
            DataError: There are; it lists all of them.
        """
        if self.faults:
            raise DataError(
                "\n".join([f"{self.folder} cannot be imported.", *render_findings("fault", self.faults)]),
                remedy="Correct these, then run this again; nothing was written.",
            )

    def numbered(self) -> Iterator[tuple[int, int, Pair, tuple[int, int]]]:
        """Yield the number of each patch, that of its image from 1, the pair, and row and column of the tile.

        If every image is one patch, and a number in its name distinguishes it from all others, the patches keep these
        numbers.
        """
        kept = None if self.has_positions else distinct_numbers([pair.key for pair in self.pairs])
        number = 0
        for image, pair in enumerate(self.pairs, start=1):
            for place in pair.tiles:
                number += 1
                yield kept[image - 1] if kept else number, image, pair, place

    @property
    def has_positions(self) -> bool:
        """Whether an image becomes several patches, so that their places say something."""
        return any(len(pair.tiles) > 1 for pair in self.pairs)


def plan_import(folder: Path, settings: ImportSettings) -> ImportPlan:
    """Read all images and masks of a folder, and find out how they become patches; bad files are faults of the plan.

    Args:
        folder: The folder, from which paths and patterns start.
        settings: Which files are imported.

    Raises:
        DataError: There is no such folder.
        ConfigurationError: A pattern or the coding of the masks cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.", remedy="Give the folder of the images and masks.")
    plan, coding = ImportPlan(folder, settings), LandslideCoding(settings.landslide)
    for pair in _find_pairs(plan):
        image, mask = _image(plan, pair.image), _mask(plan, pair.mask, coding)
        if image is not None and mask is not None and _fits(plan, pair, image, mask):
            _take_tiles(pair, image, mask)
            plan.pairs.append(pair)
    _judge_values(plan, coding)
    if not plan.faults and not plan.n_patches:
        plan.faults.append(Finding(".", "no_data", "every tile has pixels without data", "fill them, or give others"))
    _merge_equal_bands(plan)
    return plan


def write_import(plan: ImportPlan, output: Path) -> None:
    """Write the patches of a plan, completely or not at all.

    `TrainData/img/image_N.h5` and `TrainData/mask/mask_N.h5`, names.csv, and scenes.csv if an image becomes several
    patches; each image is then a scene.

    Args:
        plan: What `plan_import` returned, without faults.
        output: A folder that is missing or empty.

    Raises:
        DataError: The plan has faults, the output is not empty, or a file has changed since it was planned.
        LockedError: Another process writes this data set.
    """
    plan.refuse_faults()
    with new_folder(output) as partial:
        _write_all(plan, partial)


def draw_preview(plan: ImportPlan, path: Path) -> None:
    """Draw four pairs of a plan, each mask over its image: those with most landslides, and one without.

    Args:
        plan: What `plan_import` returned, without faults.
        path: A PNG file.

    Raises:
        DataError: The path is somebody else's file, or a file of the plan has changed.
    """
    chosen = choose({index: sum(pair.tiles.values()) for index, pair in enumerate(plan.pairs)}, _PREVIEWED)
    samples = []
    for pair in (plan.pairs[index] for index in chosen):
        image, landslide = read_pair(plan, pair)
        title = f"{pair.image}\n{pair.mask}"
        samples.append(Sample(title, picture_of(image.values, plan.settings.bands), landslide))
    write_picture(pairs_figure(samples), path)


def read_pair(plan: ImportPlan, pair: Pair) -> tuple[StoredArray, Landslide]:
    """Read an image and where its mask has landslides, (H, W).

    Raises:
        DataError: A file has changed since it was planned.
    """
    settings = plan.settings
    try:
        image = _with_declared_bands(
            read_array_file(plan.folder / pair.image, settings.image_key, "--image-key"), settings
        )
        mask = MaskValues.of(read_array_file(plan.folder / pair.mask, settings.mask_key, "--mask-key"))
        landslide = LandslideCoding(settings.landslide).select(mask)
        if not image.size == landslide.shape == pair.size:
            raise UnusableFileError("other_size", "has another size than before", "")
    except UnusableFileError as error:
        raise DataError(
            f"{pair.image} or {pair.mask} has changed while it was imported: {error}.", remedy="Run this again."
        ) from error
    return image, landslide


# ---- finding out


def _find_pairs(plan: ImportPlan) -> list[Pair]:
    settings = plan.settings
    images, masks = (_matches(plan, option, getattr(settings, option)) for option in ("images", "masks"))
    if images and images == masks and settings.image_key and settings.mask_key:
        return [Pair(key, path, path) for key, (path, _) in pair_names(sorted(images), sorted(images)).pairs.items()]
    if images < masks:
        masks -= images
    elif masks < images:
        images -= masks
    elif both := sorted(images & masks):
        raise ConfigurationError(
            f"--images and --masks both fit {first_few(both)}.",
            remedy="Give narrower patterns; if one file holds image and mask, name them with --image-key and "
            "--mask-key.",
        )
    if not images or not masks:
        return []
    found = pair_names(sorted(images), sorted(masks))
    for code, paths, other in (("missing_mask", found.images, "mask"), ("missing_image", found.masks, "image")):
        for path in paths:
            remedy = f"add the {other}, or narrow --images and --masks; names must agree in their numbers and words"
            plan.faults.append(Finding(path, code, f"no {other} has such a name", remedy))
    for paths in found.twice:
        message = f"its name means the same as {first_few(paths[1:])}"
        plan.faults.append(Finding(paths[0], "same_name", message, "keep one of them, or rename them"))
    return [Pair(key, *paths) for key, paths in found.pairs.items()]


def _matches(plan: ImportPlan, option: str, pattern: str) -> set[str]:
    """Return the files that a pattern fits, as paths below the folder; none is a fault."""
    if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise ConfigurationError(
            f"--{option} {pattern!r} is no pattern below {plan.folder}.",
            remedy="Write it from there, such as 'img/*.png'.",
        )
    try:
        found = {
            path.relative_to(plan.folder).as_posix()
            for path in plan.folder.glob(pattern)
            if path.is_file() and not path.name.startswith(".")
        }
    except ValueError as error:  # two stars within a word
        raise ConfigurationError(
            f"--{option} {pattern!r} is no pattern: {error}.", remedy="Write it such as 'img/*.png'."
        ) from error
    if not found:
        kinds = Counter(
            (path.relative_to(plan.folder).parent / f"*{path.suffix}").as_posix()
            for path in plan.folder.rglob("*")
            if path.suffix.lower() in FORMATS
        )
        there = first_few([f"{kind} ({count:,})" for kind, count in kinds.most_common()]) or "nothing that is read"
        remedy = f"write the pattern from the folder, in quotes; there is {there}"
        plan.faults.append(Finding(".", "no_files", f"--{option} {pattern!r} fits no file", remedy))
    return found


def _image(plan: ImportPlan, path: str) -> StoredArray | None:
    try:
        stored = read_array_file(plan.folder / path, plan.settings.image_key, "--image-key")
        stored = _with_declared_bands(stored, plan.settings)
    except UnusableFileError as error:
        _fault(plan, path, error)
        return None
    channels = stored.values.shape[2]
    axes = f"{channels} channel{'s' if channels > 1 else ''}{f' ({stored.order})' if stored.order else ''}"
    plan.forms[f"{FORMATS[Path(path).suffix.lower()]}, {axes}, {stored.values.dtype}"] += 1
    return stored


def _with_declared_bands(stored: StoredArray, settings: ImportSettings) -> StoredArray:
    """Return an image with the declared bands; opacity is left out unless it is one of them by their number."""
    n_bands = len(settings.bands)
    if stored.has_alpha and stored.values.shape[2] != n_bands:
        stored = stored.without_alpha()
    if stored.palette is not None:
        raise UnusableFileError("wrong_form", "has a palette of colours", "save the image without one")
    if stored.values.dtype.kind == "b":
        raise UnusableFileError("wrong_dtype", "type bool; expected integers or real numbers", "store real numbers")
    if (found := stored.values.shape[2]) != n_bands:
        raise UnusableFileError("wrong_bands", f"channels: {found}; bands declared: {n_bands}", declare_bands(found))
    return stored


@dataclass(frozen=True)
class _Mask:
    """A mask.

    Attributes:
        landslide: Where it has landslides, (H, W).
        missing: See `MaskValues`.
        place: Where it lies.
    """

    landslide: Landslide
    missing: Landslide | None
    place: Place


def _mask(plan: ImportPlan, path: str, coding: LandslideCoding) -> _Mask | None:
    try:
        stored = read_array_file(plan.folder / path, plan.settings.mask_key, "--mask-key")
        values = MaskValues.of(stored)
        plan.values.add(values)
        return _Mask(coding.select(values), values.missing, stored.place)
    except UnusableFileError as error:
        _fault(plan, path, error)
        return None


def _fault(plan: ImportPlan, path: str, error: UnusableFileError) -> None:
    plan.faults.append(Finding(path, error.code, error.message, error.remedy))


def _fits(plan: ImportPlan, pair: Pair, image: StoredArray, mask: _Mask) -> bool:
    """Return whether a mask lies on its image, and the image is not too small; if not, take down why."""
    before = len(plan.faults)
    height, width = pair.size = image.size
    if mask.landslide.shape != image.size:
        rows, columns = mask.landslide.shape
        message = f"{height} x {width} pixels, and {pair.mask} has {rows} x {columns}"
        remedy = "give masks of the size of their images"
        plan.faults.append(Finding(pair.image, "other_size", message, remedy))
    elif image.place and mask.place and image.place != mask.place:
        message = f"lies on another grid than {pair.mask}"
        plan.faults.append(Finding(pair.image, "other_grid", message, "warp the mask to the grid of the image"))
    if min(height, width) < PATCH_SIZE:
        message = f"{height} x {width} pixels are less than a patch of {PATCH_SIZE} x {PATCH_SIZE}"
        remedy = "leave it out, or give larger images of the same pixels; nothing is resampled"
        plan.faults.append(Finding(pair.image, "too_small", message, remedy))
    return len(plan.faults) == before


def _take_tiles(pair: Pair, image: StoredArray, mask: _Mask) -> None:
    with np.errstate(over="ignore"):  # training reads float32
        valid = np.asarray(np.isfinite(image.values.astype(np.float32, copy=False)).all(axis=2))
    if image.valid is not None:
        valid &= image.valid
    if mask.missing is not None:
        valid &= ~mask.missing
    for row in range(pair.size[0] // PATCH_SIZE):
        for column in range(pair.size[1] // PATCH_SIZE):
            part = _part(row, column)
            if valid[part].all():
                pair.tiles[row, column] = int(mask.landslide[part].sum())
            else:
                pair.without_data += 1


def _part(row: int, column: int) -> tuple[slice, slice]:
    return np.s_[row * PATCH_SIZE : (row + 1) * PATCH_SIZE, column * PATCH_SIZE : (column + 1) * PATCH_SIZE]


def _judge_values(plan: ImportPlan, coding: LandslideCoding) -> None:
    """Find that the values of the masks are not clear, or that none of them is what --landslide names."""
    if not plan.values.numbers and not plan.values.colours:
        return
    if plan.values.landslides_are_hidden:
        message = f"the masks have the values {plan.values}, so no landslide"
        remedy = "remove the declaration from masks in which this value is a landslide: gdal_edit.py -unsetnodata FILE"
        plan.faults.append(Finding(".", "mask_values", message, remedy))
    elif coding.text is None and not plan.values.are_clear:
        plan.faults.append(Finding(".", "mask_values", *plan.values.unclear()))
    elif (unused := coding.unused()) and all(fault.code != "mask_values" for fault in plan.faults):
        message = f"no mask has {first_few(unused)}; they have the values {plan.values}"
        plan.faults.append(Finding(".", "mask_values", message, "name others with --landslide"))


def _merge_equal_bands(plan: ImportPlan) -> None:
    """Report once that no image has the declared bands, if all have as many."""
    found = [fault for fault in plan.faults if fault.code == "wrong_bands"]
    if len(found) > 1 and not plan.forms and len({fault.message for fault in found}) == 1:
        rest = [fault for fault in plan.faults if fault.code != "wrong_bands"]
        message = f"all {len(found):,} images: {found[0].message}"
        plan.faults = [Finding(".", "wrong_bands", message, found[0].remedy), *rest]


# ---- writing


def _write_all(plan: ImportPlan, folder: Path) -> None:
    image_folder, mask_folder = (folder / name for name in LAYOUTS[0]["train"])
    image_folder.mkdir(parents=True)
    mask_folder.mkdir()
    names: list[tuple[object, ...]] = [("image", "mask", "row", "column", "n")]
    places: list[tuple[object, ...]] = [("n", *POSITION_COLUMNS)]
    latest: Pair | None = None
    for number, scene, pair, place in plan.numbered():
        if pair is not latest:
            image, landslide = read_pair(plan, pair)
            latest = pair
        part = _part(*place)
        write_array(image_folder / f"image_{number}.h5", "img", image.values[part])
        write_array(mask_folder / f"mask_{number}.h5", "mask", landslide[part].astype(np.uint8))
        names.append((pair.image, pair.mask, *place, number))
        places.append((number, scene, *place))
    tables = {NAMES: names, "scenes.csv": places if plan.has_positions else []}
    for name, lines in tables.items():
        if lines:
            with (folder / name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(lines)
