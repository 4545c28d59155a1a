"""Checking a whole data set: every fault of every file, with a remedy for each, in one report.

Each file is read once. The same reading gives its digest and the landslide pixels of a mask. Faults block training;
warnings (a constant DEM, files that are no patches) do not. `landslide.data.content` checks the values of a
file, `landslide.data.patches` its form.
"""

import stat
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from landslide.data.content import FileContent, read_content
from landslide.data.digests import N_THREADS, files_below, ignored_files, listing_digest
from landslide.data.patches import Finding, declare_bands, numbered_files, other_folder
from landslide.data.positions import read_positions, unused_lines
from landslide.data.read_errors import unreadable_folders
from landslide.data.scale import images_of_another_scale, set_of_another_scale
from landslide.errors import DataError, first_few
from landslide.schema import LABEL_CHANGES, LAYOUTS, ORIGINAL_BANDS, PATCH_SIZE, Split

_WARNINGS_SHOWN = 10  # of each kind
_TEXT_SUFFIXES = {".md", ".rst", ".txt"}
_TEXT_NAMES = ("readme", "license", "licence")
_TRAIN: tuple[Split, ...] = ("train",)
_HDF5_SUFFIXES = {".h5", ".hdf5", ".he5", ".hdf"}
# An HDF5 file of 800 bytes holds no data set; the Hugging Face copy has five of them among its masks.
_EMPTY_HDF5_BYTES = 800


@dataclass
class CheckReport:
    """What `check` found.

    Attributes:
        faults: What makes the data set unusable as it is.
        warnings: What is worth knowing.
        counts: patches, train_patches, validation_patches, test_patches (images found); positive_patches
            and landslide_pixels (of the readable masks); landslide_share (fraction of their pixels).
    """

    faults: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    counts: dict[str, int | float] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def summary(self) -> str:
        """The faults in a few lines: the kinds, their numbers and the first files of each."""
        kinds: dict[str, list[str]] = defaultdict(list)
        for fault in self.faults:
            kinds[fault.code].append(fault.path)
        return "\n".join(f"  {code} ({len(paths):,}): {first_few(paths)}" for code, paths in kinds.items())

    def to_json(self) -> dict[str, Any]:
        """The report as plain values: ok, counts, faults, warnings."""
        return {
            "ok": self.ok,
            "counts": self.counts,
            "faults": [asdict(finding) for finding in self.faults],
            "warnings": [asdict(finding) for finding in self.warnings],
        }

    def render(self) -> str:
        """The report as text: the counts, then the findings grouped by kind, each kind with its remedy.

        All faults are listed, and the first of each kind of warning.
        """
        counts = self.counts
        splits = ", ".join(f"{counts[f'{split}_patches']:,} {split}" for split in get_args(Split))
        lines = [
            f"{counts['patches']:,} patches ({splits})",
            f"{counts['positive_patches']:,} with landslides",
            f"{counts['landslide_pixels']:,} landslide pixels, {100 * counts['landslide_share']:.2f} % of the masks",
        ]
        lines += render_findings("fault", self.faults) + render_findings("warning", self.warnings)
        return "\n".join(lines)


@dataclass(frozen=True)
class Survey:
    """What one reading of every file of a data set found.

    Attributes:
        report: Every fault and warning.
        version: Digest of the folder, as `directory_digest` gives it; None if a file cannot be read, which is a fault.
        digests: MD5 of each file by its path below the folder (with forward slashes).
        positive_pixels: Landslide pixels of each sound mask by its path below the folder.
    """

    report: CheckReport
    version: str | None
    digests: dict[str, str]
    positive_pixels: dict[str, int]


def check(
    root: Path, n_bands: int = 14, *, bands: Sequence[str] | None = None, required: Collection[Split] = _TRAIN
) -> CheckReport:
    """Check every file of every split that exists; bad data never raises.

    Args:
        root: Folder of the data set, in either layout of `landslide.schema.LAYOUTS`.
        n_bands: How many bands each image must have.
        bands: Their names, where the set declares others than the 14 original ones; overrides `n_bands`.
        required: Splits that must exist; held-out splits may be in a separate folder.

    Returns:
        The report. Codes of faults: missing_folder, unreadable_folder, no_patches, two_layouts, duplicate_number,
        missing_mask, mask_without_image, unreadable, missing_filter, wrong_key, wrong_shape, wrong_bands, wrong_dtype,
        not_finite, mask_values, values_elsewhere, mixed_scale, unused_patch, positions. Codes of warnings: blank_image,
        blank_band, blank_mask, no_data, out_of_range, other_scale, constant_dem, no_landslide, duplicate_image,
        ignored_patch, linked_files, stray, unused_position.
    """
    return survey(root, bands=_default_names(n_bands) if bands is None else bands, required=required).report


def survey(root: Path, *, bands: Sequence[str] = ORIGINAL_BANDS, required: Collection[Split] = _TRAIN) -> Survey:
    """Check a data set as `check` does, and identify it in the same reading; bad data never raises.

    Each file is opened once, so that digest, findings and counts are of the same bytes.

    Args:
        root: Folder of the data set, in either layout of `schema.LAYOUTS`.
        bands: Names of the bands that each image must have.
        required: Splits that must be there.

    Returns:
        Report, version, and digest and landslide pixels by file.
    """
    root = Path(root)
    if unreadable := unreadable_folders(root):
        faults = [
            Finding(
                folder.relative_to(root).as_posix(),
                "unreadable_folder",
                f"cannot be read: {cause}. Nothing else was checked",
                remedy,
            )
            for folder, (cause, remedy) in unreadable.items()
        ]
        return Survey(CheckReport(faults, counts=_counts({}, [])), None, {}, {})
    in_layout = any((root / folder).is_dir() for layout in LAYOUTS for pair in layout.values() for folder in pair)
    if not in_layout and required and (remedy := other_folder(root)):
        # A fault for each of its files would only hide this one.
        fault = Finding(".", "missing_folder", "this is not the folder of a data set", remedy)
        return Survey(CheckReport([fault], counts=_counts({}, [])), None, {}, {})
    return _Check(root, tuple(bands), required).run()


def _default_names(n_bands: int) -> tuple[str, ...]:
    if n_bands == len(ORIGINAL_BANDS):
        return ORIGINAL_BANDS
    return tuple(f"band {index}" for index in range(1, n_bands + 1))


def render_findings(kind: Literal["fault", "warning"], findings: list[Finding]) -> list[str]:
    """Return lines that list findings by kind and remedy; of warnings, the first of each kind."""
    if not findings:
        return [f"no {kind}s"]
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.code, finding.remedy].append(finding)
    lines = [f"{len(findings):,} {kind}{'s' if len(findings) > 1 else ''}:"]
    for (code, remedy), members in groups.items():
        lines += [f"  {code} ({len(members):,})", f"    -> {remedy}"]
        shown = members if kind == "fault" or len(members) <= _WARNINGS_SHOWN + 1 else members[:_WARNINGS_SHOWN]
        lines += [f"    {member.path}: {member.message}" for member in shown]
        if len(shown) < len(members):
            lines.append(f"    and {len(members) - len(shown):,} more; `landslide data check DIR --json` lists all")
    return lines


class _Check:
    """One pass over a data set, which collects its findings."""

    def __init__(self, root: Path, bands: tuple[str, ...], required: Collection[Split]) -> None:
        self.root = root
        self.bands = bands
        self.required = required
        self.ignored = {root / path for path in ignored_files(root)}
        self.files = files_below(root)
        self.report = CheckReport()
        self.patches: dict[Split, int] = dict.fromkeys(get_args(Split), 0)
        self.keys: dict[str, Literal["img", "mask"]] = {}  # of the files that belong to patches
        self.digests: dict[str, str] = {}
        self.positive_pixels: dict[str, int] = {}
        self.typical: dict[str, NDArray[np.float64]] = {}

    def run(self) -> Survey:
        for split in self.patches:
            self.check_split(split)
        self.read_files(list(dict.fromkeys([*self.keys, *self.files])))  # those of patches first
        self.merge_undeclared_bands()
        self.check_duplicates()
        if mixed := images_of_another_scale(self.typical, self.bands):
            self.report.faults += mixed
            # What is to be done about the scale of the set shows when all images have one.
            self.report.warnings = [one for one in self.report.warnings if one.code != "out_of_range"]
        elif of_set := set_of_another_scale(self.typical, self.bands):
            self.report.warnings = [one for one in self.report.warnings if one.code != "out_of_range"]
            self.report.warnings.append(of_set)
        self.check_other_files()
        self.check_positions()
        self.check_links()
        self.check_ignored()
        self.check_landslides()
        self.report.counts = _counts(self.patches, self.positive_pixels.values())
        digests = {path: self.digests[path] for path in self.files if path in self.digests}
        version = listing_digest(digests) if len(digests) == len(self.files) else None
        return Survey(self.report, version, digests, self.positive_pixels)

    def fault(self, path: Path | str, code: str, message: str, remedy: str) -> None:
        self.report.faults.append(Finding(self.relative(path), code, message, remedy))

    def warn(self, path: Path | str, code: str, message: str, remedy: str) -> None:
        self.report.warnings.append(Finding(self.relative(path), code, message, remedy))

    def relative(self, path: Path | str) -> str:
        return path.relative_to(self.root).as_posix() if isinstance(path, Path) else path

    def check_split(self, split: Split) -> None:
        present = [
            layout[split] for layout in LAYOUTS if any((self.root / folder).is_dir() for folder in layout[split])
        ]
        if not present and split in self.required:
            expected = " nor ".join(layout[split][0] for layout in LAYOUTS)
            message = f"there is neither {expected}" if self.root.is_dir() else "this is no folder"
            if not self.root.exists():
                message = "the folder does not exist"
            self.fault(
                ".",
                "missing_folder",
                message,
                f"give the folder that holds {LAYOUTS[0][split][0].split('/')[0]}/, or images/ and annotations/",
            )
        if len(present) > 1:
            message = f"the {split} split exists twice, as {present[0][0]} and as {present[1][0]}"
            self.fault(".", "two_layouts", message, "keep one of the two layouts")
        for image_folder, mask_folder in present:
            self.check_folders(split, self.root / image_folder, self.root / mask_folder)

    def check_folders(self, split: Split, image_folder: Path, mask_folder: Path) -> None:
        images = numbered_files(image_folder, "image", self.ignored)
        masks = numbered_files(mask_folder, "mask", self.ignored)
        self.patches[split] += len(images)
        if not image_folder.is_dir():
            self.fault(image_folder, "missing_folder", "the folder of the images does not exist", "add it")
        elif not images:
            self.fault(image_folder, "no_patches", "no file is named image_<number>.h5", "add the images")
        if split == "train" and not mask_folder.is_dir():
            self.fault(mask_folder, "missing_folder", "the folder of the masks does not exist", "add it")
        for number, paths in images.items():
            self.check_number(number, paths, "img")
            if split == "train" and number not in masks:
                message = f"no mask_{number}.h5 in {self.relative(mask_folder)}"
                self.fault(paths[0], "missing_mask", message, "add the mask, or move the image away")
        for number, paths in masks.items():
            self.check_number(number, paths, "mask")
            if number not in images:
                message = f"no image_{number}.h5 in {self.relative(image_folder)}"
                self.fault(paths[0], "mask_without_image", message, "add the image, or move the mask away")

    def check_ignored(self) -> None:
        """Name patches that `.dvcignore` lists: this is rarely meant."""
        for path in sorted(self.ignored):
            if _may_hold_a_patch(path):
                self.warn(
                    path,
                    "ignored_patch",
                    ".dvcignore lists it, so it is not part of the data set",
                    "remove the rule from .dvcignore if it belongs to the data set",
                )

    def check_number(self, number: int, paths: list[Path], key: Literal["img", "mask"]) -> None:
        self.keys.update(dict.fromkeys(map(self.relative, paths), key))
        for path in paths[1:]:
            message = f"number {number} is also {paths[0].name}"
            self.fault(path, "duplicate_number", message, "keep one file of each number")

    def read_files(self, paths: Sequence[str]) -> None:
        """Read files and take down what is found."""

        def read(path: str) -> FileContent:
            return read_content(self.root / path, self.keys.get(path), self.bands)

        with ThreadPoolExecutor(N_THREADS) as pool:
            for path, content in zip(paths, pool.map(read, paths), strict=True):
                if content.digest is not None:
                    self.digests[path] = content.digest
                if content.positive_pixels is not None:
                    self.positive_pixels[path] = content.positive_pixels
                if content.typical is not None:
                    self.typical[path] = content.typical
                self.report.faults += [replace(fault, path=path) for fault in content.faults]
                self.report.warnings += [replace(warning, path=path) for warning in content.warnings]

    def merge_undeclared_bands(self) -> None:
        """Report once that no image has the declared bands, if all have as many, and look for their other faults."""
        found = [fault for fault in self.report.faults if fault.code == "wrong_bands"]
        sound = {path for path, key in self.keys.items() if key == "img"} - {fault.path for fault in self.report.faults}
        if sound:  # the others have the declared bands
            remedy = f"give it the {len(self.bands)} bands of the other images, or move it away with its mask"
            self.report.faults = [replace(one, remedy=remedy) if one in found else one for one in self.report.faults]
        if len(found) < 2 or sound or len({fault.message for fault in found}) > 1:
            return
        paths = [fault.path for fault in found]
        with h5py.File(self.root / paths[0], "r") as file:
            n_bands = file["img"].shape[2]
        self.report.faults = [fault for fault in self.report.faults if fault.path not in paths]
        message = f"all {len(found):,} images: {found[0].message}"
        self.fault(".", "wrong_bands", message, declare_bands(n_bands))
        self.bands = tuple(f"band {index}" for index in range(1, n_bands + 1))
        self.read_files(paths)

    def check_duplicates(self) -> None:
        """Find images that occur under several numbers, in one split or in several."""
        first: dict[str, str] = {}
        faulty = {fault.path for fault in self.report.faults}
        for path, key in self.keys.items():
            if key == "img" and path in self.digests and path not in faulty:
                other = first.setdefault(self.digests[path], path)
                if other != path:
                    self.warn(
                        path, "duplicate_image", f"the same image as {other}", self.remedy_of_duplicate(path, other)
                    )

    def remedy_of_duplicate(self, *paths: str) -> str:
        training = {layout["train"][0] for layout in LAYOUTS}
        if all(str(PurePosixPath(path).parent) in training for path in paths):
            return (
                "keep one of them, with its mask: a training stops at the same image in different folds, unless "
                "folds.allow_duplicates: true accepts that a model is tested on what it was trained on"
            )
        return "keep one of them, with its mask: a model would be tested on what it was trained on"

    def check_other_files(self) -> None:
        for relpath in self.files:
            if relpath in self.keys or _is_text(PurePosixPath(relpath)):
                continue
            if _may_hold_a_patch(self.root / relpath):
                message = "looks like a patch, but its name or its folder belongs to neither layout: it is ignored"
                self.fault(
                    relpath,
                    "unused_patch",
                    message,
                    "name it image_<number>.h5 or mask_<number>.h5 in the folder of its kind, or move it away",
                )
            else:
                self.warn(
                    relpath,
                    "stray",
                    "belongs to neither layout; it is ignored, but pinned with the data",
                    "move it away if it is not wanted",
                )

    def check_positions(self) -> None:
        if not (self.root / "scenes.csv").exists():
            return
        folders = [self.root / layout["train"][0] for layout in LAYOUTS]
        numbers = sorted({number for folder in folders for number in numbered_files(folder, "image", self.ignored)})
        try:
            read_positions(self.root, numbers)
            unused = unused_lines(self.root, numbers)
        except DataError as error:
            message = error.what.removeprefix(f"{self.root / 'scenes.csv'}").lstrip(",: ")  # the finding names the file
            self.fault("scenes.csv", "positions", message, error.remedy)
            return
        if unused:
            message = f"there is no training patch for {first_few(unused)}"
            self.warn("scenes.csv", "unused_position", message, "remove these lines, or add the patches")

    def check_landslides(self) -> None:
        """Find that no training mask has a landslide, which a training refuses."""
        training = tuple(f"{layout['train'][1]}/" for layout in LAYOUTS)
        pixels = [n for path, n in self.positive_pixels.items() if path.startswith(training)]
        if pixels and not any(pixels):
            message = f"none of the {len(pixels):,} training masks has a landslide, and a training refuses that"
            self.warn(".", "no_landslide", message, "add patches with landslides; in a mask, 1 is a landslide")

    def check_links(self) -> None:
        """Find files that change together with others when they are changed in place."""
        linked = [path for path in self.files if _is_linked(self.root / path)]
        if linked:
            self.warn(
                ".",
                "linked_files",
                f"{len(linked):,} files are linked to others ({first_few(linked)}): a change in place changes these "
                "too, and the objects in DVC's cache, which then cannot restore anything",
                f"run `dvc unprotect {self.root.name}`, or copy the folder, before you change files in place",
            )


def _counts(patches: Mapping[Split, int], positive_pixels: Collection[int]) -> dict[str, int | float]:
    pixels, masks = sum(positive_pixels), len(positive_pixels)
    return {
        "patches": sum(patches.values()),
        **{f"{split}_patches": patches.get(split, 0) for split in get_args(Split)},
        "positive_patches": sum(n > 0 for n in positive_pixels),
        "landslide_pixels": pixels,
        "landslide_share": pixels / (masks * PATCH_SIZE**2) if masks else 0.0,
    }


def _is_text(path: PurePosixPath) -> bool:
    name = path.name.lower()
    return (
        str(path) in ("scenes.csv", "tiles.json", "names.csv", LABEL_CHANGES)
        or path.suffix.lower() in _TEXT_SUFFIXES
        or name.startswith(_TEXT_NAMES)
    )


def _is_linked(path: Path) -> bool:
    status = path.lstat()
    return status.st_nlink > 1 or stat.S_ISLNK(status.st_mode)


def _may_hold_a_patch(path: Path) -> bool:
    return path.suffix.lower() in _HDF5_SUFFIXES and path.exists() and path.stat().st_size > _EMPTY_HDF5_BYTES
