"""Training patches from scenes and their labels, in the Landslide4Sense layout."""

import csv
import json
import os
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from landslide.data.changed_labels import read_changed_patches
from landslide.data.patches import write_array
from landslide.errors import ConfigurationError, DataError, first_few
from landslide.locks import locked
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.grid import Grid
from landslide.scenes.notes import input_notes, other_pixels, same_pixels
from landslide.scenes.reader import SceneReader
from landslide.scenes.reasons import Reason
from landslide.scenes.scene import Scene, refuse_equal_names
from landslide.scenes.terrain import prepare_terrain
from landslide.scenes.units import TERRAIN_BANDS, Units, to_stored
from landslide.schema import LABEL_CHANGES, ORIGINAL_BANDS, PATCH_SIZE, POSITION_COLUMNS
from landslide.tiling.places import ORIGIN_COLUMNS
from landslide.tiling.sources import LabelCounts, Labels, LabelSettings

RECORD = "tiles.json"
"""File of a data set that says how it was cut from scenes."""

_NO_LABELS = "no label"
_FOLDERS = {"img": "TrainData/img/image_{}.h5", "mask": "TrainData/mask/mask_{}.h5"}


@dataclass(frozen=True, kw_only=True)
class TileSettings:
    """How scenes are cut into patches."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    stride: int = PATCH_SIZE
    """Pixels from one window to the next, 1 to 128; with less than 128 they overlap."""
    min_valid: float = 1.0
    """Share of a window's pixels that must be valid, above 0 and at most 1. Other pixels get the median of their band
    in the window, as when a map is made, and are no landslide."""
    stored: tuple[str, ...] = ORIGINAL_BANDS
    """The bands of the patch files, in their order."""
    units: Units = "landslide4sense"
    """What the patch files hold: see `bands.units`."""

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= PATCH_SIZE:
            raise ConfigurationError(
                f"The stride is {self.stride}.",
                remedy=f"Give pixels from 1 to {PATCH_SIZE}; {PATCH_SIZE} is no overlap.",
            )
        if not 0 < self.min_valid <= 1:
            raise ConfigurationError(
                f"The share of valid pixels is {self.min_valid:g}.", remedy="Give a number above 0 and at most 1."
            )
        unknown = [name for name in self.stored if name not in ORIGINAL_BANDS]
        if unknown or not self.stored or len(set(self.stored)) != len(self.stored):
            raise ConfigurationError(
                f"There is no band {first_few([repr(name) for name in unknown])}."
                if unknown
                else f"The bands {', '.join(self.stored)} have one twice.",
                remedy=f"Use distinct names out of {', '.join(ORIGINAL_BANDS)}.",
            )


@dataclass
class TiledScene:
    """What became of one scene.

    Attributes:
        name: Its name.
        labels: What was found in the file of labels.
        windows: All windows.
        left_out: Windows that became no patch, by reason; the most frequent one of the window.
        edge: Columns at the right and rows at the lower edge that are in no window.
        patches: Windows that became patches.
        with_landslide: Those of them with a landslide.
        landslide_pixels: Pixels of landslides in them.
    """

    name: str
    labels: LabelCounts
    windows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    edge: tuple[int, int] = (0, 0)
    patches: int = 0
    with_landslide: int = 0
    landslide_pixels: int = 0


@dataclass(frozen=True)
class TiledSet:
    """What became of a data set.

    Attributes:
        folder: The data set.
        scenes: The scenes of this call.
        new: Patches that were added.
        changed: Patches whose image or mask changed.
        unchanged: Patches that are equal to the byte, those of other scenes included.
        removed: Patches that are no more.
        stored: The bands of its images.
        units: What they hold.
    """

    folder: Path
    scenes: list[TiledScene]
    new: int
    changed: int
    unchanged: int
    removed: int
    stored: tuple[str, ...]
    units: Units


@dataclass(frozen=True)
class LabelledScene:
    """A scene and where its landslides are.

    Attributes:
        scene: The scene.
        labels: Vector file or raster.
    """

    scene: Scene
    labels: Path


def tile_scenes(
    scenes: Sequence[LabelledScene],
    folder: Path,
    *,
    settings: TileSettings,
    labels: LabelSettings,
    exclusions: ExclusionSettings,
    dem: Sequence[str] = (),
    say: Callable[[str], object] = lambda text: None,
) -> TiledSet:
    """Cut scenes into training patches, or bring a data set that was cut before up to date.

    The new set is written beside the old one and takes its place when it is complete. Scenes of the old set that are
    not named stay as they are; patches of one place keep their number, so equal input gives equal bytes.

    Args:
        scenes: The scenes; their names must differ.
        folder: The data set: a new folder, or one that this function wrote.
        settings: How windows are cut.
        labels: Which labels are read, and how they are burnt.
        exclusions: Pixels that are not valid. A window that is not wholly in the area of interest is left out.
        dem: Elevation models.
        say: Called with lines for people.

    Raises:
        ConfigurationError: A band or the elevation model is missing, or a setting does not fit the older set.
        DataError: Something cannot be read, nothing is left, the folder holds other files, or labels of one of the
            scenes were changed after an audit.
        LockedError: Another process writes this data set.
    """
    refuse_equal_names([one.scene.name for one in scenes], [one.scene.source for one in scenes])
    for one in scenes:
        refuse_small_scene(one.scene)
        _require_bands(one.scene, settings.stored, dem)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock"), wait=False):
        if not folder.exists() and _aside(folder).exists():  # killed between two renames
            _aside(folder).rename(folder)
        old = _Record.read(folder, settings)
        _refuse_changed_labels(folder, old, {one.scene.name for one in scenes})
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            new = _Record(old.settings, dict(old.scenes), [])
            found = [_cut(one, old, new, partial, settings, labels, exclusions, dem, say) for one in scenes]
            _keep_other_scenes(old, new, folder, partial, {one.scene.name for one in scenes})
            if not new.patches:
                unlabelled = any(one.left_out[_NO_LABELS] for one in found)
                raise DataError(
                    "No window of these scenes became a patch: " + "; ".join(map(_explained, found)) + ".",
                    remedy="Give a raster of labels that covers the scene, and see which value it declares as no data."
                    if unlabelled
                    else "Give other scenes, a larger --area, a smaller --min-valid, or fewer masks.",
                )
            new.write(partial)
            _keep_other_files(old, folder, partial)
            differences = _differences(old, new, folder, partial)
            result = TiledSet(folder, found, **differences, stored=settings.stored, units=settings.units)
            _replace(folder, partial)
        except OSError as error:
            if error.errno is None:
                raise
            raise DataError(  # what HDF5 adds to the reason fills a screen
                f"{error.filename or folder} cannot be written: {os.strerror(error.errno)}.",
                remedy="Make room on its disk, or choose another folder.",
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return result


def tiled_scenes(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what a data set says about its scenes.

    Returns:
        Number, sensor, level, datetime (ISO 8601), crs, transform and rules of each scene, by its name; nothing if the
        set was not cut by `tile_scenes`.

    Raises:
        DataError: The record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        scenes = {str(name): dict(scene) for name, scene in json.loads(path.read_text())["scenes"].items()}
        for scene in scenes.values():
            if scene["datetime"] is not None:
                datetime.fromisoformat(scene["datetime"])
            if type(scene["number"]) is not int or not {"burn", "min_share"} <= scene["rules"].keys():
                raise ValueError("a scene has no number or no rules")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged.", remedy="Restore it, for example with `dvc checkout`.") from error
    return scenes


@dataclass(frozen=True)
class _Patch:
    """A line of scenes.csv."""

    number: int
    scene: int
    row: int
    column: int
    name: str
    crs: str
    edges: tuple[float, float, float, float]

    @classmethod
    def of_line(cls, line: Mapping[str, str]) -> "_Patch":
        number, scene, row, column = (int(line[name]) for name in ("n", *POSITION_COLUMNS))
        west, south, east, north = (float(line[name]) for name in ORIGIN_COLUMNS[2:])
        return cls(number, scene, row, column, line["name"], line["crs"], (west, south, east, north))

    @property
    def place(self) -> tuple[str, int, int]:
        return self.name, self.row, self.column


@dataclass
class _Record:
    """What a data set says about its origin: settings and scenes in tiles.json, patches in scenes.csv."""

    settings: dict[str, Any]
    scenes: dict[str, dict[str, Any]]
    patches: list[_Patch]

    @classmethod
    def read(cls, folder: Path, settings: TileSettings) -> "_Record":
        """Read the record of a folder; an empty one if there is no folder."""
        wanted = {"stored": list(settings.stored), "units": settings.units, "stride": settings.stride}
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return cls(wanted, {}, [])
        try:
            content = json.loads((folder / RECORD).read_text())
            with (folder / "scenes.csv").open(newline="") as file:
                patches = [_Patch.of_line(line) for line in csv.DictReader(file)]
            if not patches:
                raise ValueError("scenes.csv has no patches")
            if len({patch.number for patch in patches}) < len(patches):
                raise ValueError("scenes.csv names a patch twice")
            record = cls({name: content["settings"][name] for name in wanted}, tiled_scenes(folder), patches)
            if missing := {patch.name for patch in patches} - record.scenes.keys():
                raise ValueError(f"{RECORD} has no scene {first_few(sorted(missing))}")
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            if not (folder / RECORD).exists():
                raise DataError(
                    f"{folder} exists and was not cut from scenes by this command.", remedy="Choose a new folder."
                ) from error
            raise DataError(
                f"{folder}: its scenes.csv or {RECORD} is damaged.",
                remedy="Restore them, for example with `dvc checkout`, or choose a new folder.",
            ) from error
        if different := [name for name in wanted if record.settings[name] != wanted[name]]:
            name = different[0]
            raise ConfigurationError(
                f"{folder} was cut with {name} {record.settings[name]}, not {wanted[name]}.",
                remedy="Use the same, or choose a new folder.",
            )
        return record

    def write(self, folder: Path) -> None:
        """Write tiles.json and scenes.csv."""
        content = {"settings": self.settings, "scenes": self.scenes}
        (folder / RECORD).write_text(json.dumps(content, indent=2) + "\n")
        with (folder / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("n", *POSITION_COLUMNS, *ORIGIN_COLUMNS))
            for patch in sorted(self.patches, key=lambda patch: patch.number):
                edges = [f"{edge:.10g}" for edge in patch.edges]
                writer.writerow([patch.number, patch.scene, patch.row, patch.column, patch.name, patch.crs, *edges])


def _cut(
    one: LabelledScene,
    old: _Record,
    new: _Record,
    partial: Path,
    settings: TileSettings,
    label_settings: LabelSettings,
    exclusions: ExclusionSettings,
    dem: Sequence[str],
    say: Callable[[str], object],
) -> TiledScene:
    """Write the patches of one scene, and take them down in the new record."""
    scene, grid = one.scene, one.scene.grid
    known = {patch.place: patch.number for patch in old.patches}
    following = max([patch.number for patch in (*old.patches, *new.patches)], default=0) + 1
    number_of_scene = old.scenes.get(scene.name, {}).get("number") or 1 + max(
        (each["number"] for each in new.scenes.values()), default=0
    )
    description = _description(scene)
    rules: dict[str, Any] = {"labels": one.labels.name, **asdict(label_settings), "min_valid": settings.min_valid}
    rules |= {"dem": [Path(path).name for path in dem], **asdict(exclusions)}
    _refuse_another_scene(scene.name, old.scenes.get(scene.name), description)
    rules = json.loads(json.dumps(rules, default=str))
    new.scenes[scene.name] = {"number": number_of_scene, **description, "rules": rules}

    def note(text: str) -> None:
        say(f"note: {scene.name}: {text}")

    if other := _other_burning(new, scene.name):
        note(f"it is burnt by {label_settings.burn}, {other} is not")
    if pixels := other_pixels(grid):
        note(f"{pixels}; those of Landslide4Sense have 10 m, and scenes that are mapped should have those of the set")
    if other := _other_pixels(new, scene.name):
        note(f"its pixels have another size than those of {other}")
    rows, columns = (window_starts(length, settings.stride) for length in (grid.height, grid.width))
    with tempfile.TemporaryDirectory() as work, Labels(one.labels, label_settings, grid, scene.datetime) as labels:
        needs_terrain = bool({*TERRAIN_BANDS} & {*settings.stored})
        terrain = prepare_terrain(dem, grid, Path(work)) if needs_terrain else None
        found = TiledScene(scene.name, labels.counts)
        with SceneReader(scene, settings.stored, exclusions, terrain, work_folder=Path(work)) as reader:
            for text in (*input_notes(scene, exclusions, terrain), *reader.notes):
                note(text)
            for row, top in enumerate(rows):
                values, reasons = reader.read(top, top + PATCH_SIZE)
                for column, left in enumerate(columns):
                    part = np.s_[..., left : left + PATCH_SIZE]
                    found.windows += 1
                    if why := why_left_out(reasons[part], settings.min_valid):
                        found.left_out[why] += 1
                        continue
                    valid = reasons[part] == Reason.ANALYSED
                    mask, labelled = labels.burn(Window(left, top, PATCH_SIZE, PATCH_SIZE))
                    valid &= labelled
                    if valid.mean() < settings.min_valid:
                        found.left_out[_NO_LABELS] += 1
                        continue
                    image = _filled(to_stored(values[part], settings.stored, settings.stored, settings.units), valid)
                    mask *= valid
                    place = (scene.name, row, column)
                    number = known.get(place)
                    if number is None:
                        number, following = following, following + 1
                    _write(partial, number, image, mask)
                    edges, crs = window_edges(grid, top, left), grid.crs.to_string()
                    new.patches.append(_Patch(number, number_of_scene, row, column, scene.name, crs, edges))
                    found.patches += 1
                    found.with_landslide += bool(mask.any())
                    found.landslide_pixels += int(mask.sum())
        found.labels = labels.counts
    if found.labels.used and not found.landslide_pixels:
        note("no pixel of its patches became a landslide, though polygons lie in them")
    found.edge = grid.width - columns[-1] - PATCH_SIZE, grid.height - rows[-1] - PATCH_SIZE
    say(_explained(found))
    return found


def _refuse_changed_labels(folder: Path, old: _Record, named: set[str]) -> None:
    """Refuse scenes whose labels were changed after an audit: cutting them again would bring the old labels back."""
    changed = read_changed_patches(folder)
    if scenes := sorted({patch.name for patch in old.patches if patch.number in changed} & named):
        raise DataError(
            f"`landslide data apply` changed labels of {', '.join(scenes)} in {folder}: {LABEL_CHANGES} lists them. "
            "Cutting again would bring the old ones back.",
            remedy="Change the polygons in the same way, and cut into a new folder. Other scenes can be added here.",
        )


def _refuse_another_scene(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Refuse a scene of the name of another one that was cut before: it would take the place of its patches."""
    differences = [part for part in now if before is not None and before.get(part) != now[part]]
    if differences:
        raise ConfigurationError(
            f"Another scene of the name {name} was cut before; its {' and '.join(differences)} differ.",
            remedy="Rename the file or folder of one of them, or choose a new folder.",
        )


def _other_burning(record: "_Record", name: str) -> str:
    """Return another scene whose labels were burnt by another rule, if there is one."""
    rule = [record.scenes[name]["rules"][part] for part in ("burn", "min_share")]
    others = (
        other
        for other, scene in record.scenes.items()
        if [scene["rules"][part] for part in ("burn", "min_share")] != rule
    )
    return next(others, "")


def _other_pixels(record: "_Record", name: str) -> str:
    """Return another scene whose pixels have another size in metres, if there is one."""
    sizes = {
        other: Grid(CRS.from_user_input(scene["crs"]), Affine(*scene["transform"]), PATCH_SIZE, PATCH_SIZE).pixel_size
        for other, scene in record.scenes.items()
    }
    return next((other for other, size in sizes.items() if not same_pixels(size, sizes[name])), "")


def _write(folder: Path, number: int, image: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
    for key, values in (("img", image.transpose(1, 2, 0)), ("mask", mask.astype(np.uint8))):
        path = folder / _FOLDERS[key].format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, key, values)


def window_starts(length: int, stride: int) -> range:
    """Where windows start along an axis; what is left over at its end is left out."""
    return range(0, length - PATCH_SIZE + 1, stride)


def why_left_out(reasons: npt.NDArray[np.uint8], min_valid: float) -> str:
    """Return why a window becomes no patch; empty if it does.

    Args:
        reasons: Codes of `landslide.scenes.reasons.Reason` of its pixels.
        min_valid: See `TileSettings`.
    """
    invalid = reasons[reasons != Reason.ANALYSED]
    if (invalid == Reason.OUTSIDE_AREA).any():
        return Reason.OUTSIDE_AREA.text
    if not invalid.size or 1 - invalid.size / reasons.size >= min_valid:
        return ""
    return Reason(int(np.bincount(invalid).argmax())).text


def _filled(image: npt.NDArray[np.float64], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Fill pixels that are not valid with the medians of the bands, as an ensemble does when it predicts."""
    if not valid.all():
        image[:, ~valid] = np.median(image[:, valid], axis=1)[:, None]
    return image


def window_edges(grid: Grid, top: int, left: int) -> tuple[float, float, float, float]:
    """West, south, east and north of a window."""
    west, north = grid.transform @ (left, top)
    east, south = grid.transform @ (left + PATCH_SIZE, top + PATCH_SIZE)
    return west, south, east, north


def _description(scene: Scene) -> dict[str, Any]:
    when: datetime | None = scene.datetime
    return {
        "sensor": scene.sensor,
        "level": scene.level,
        "datetime": when and when.isoformat(),
        "crs": scene.grid.crs.to_string(),
        "transform": list(scene.grid.transform)[:6],
    }


def _keep_other_scenes(old: _Record, new: _Record, folder: Path, partial: Path, named: set[str]) -> None:
    for patch in old.patches:
        if patch.name not in named:
            new.patches.append(patch)
            for template in _FOLDERS.values():
                source, target = (root / template.format(patch.number) for root in (folder, partial))
                if not source.exists():
                    raise DataError(
                        f"{source} is missing.", remedy=f"Restore it, or give the scene {patch.name} again as well."
                    )
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def _keep_other_files(old: _Record, folder: Path, partial: Path) -> None:
    """Copy what the older set does not name: the record of changed labels, and files of a person."""
    cut = {RECORD, "scenes.csv"}
    cut |= {template.format(patch.number) for patch in old.patches for template in _FOLDERS.values()}
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        name = path.relative_to(folder)
        target = partial / name
        if path.is_dir() and not path.is_symlink():
            target.mkdir(parents=True, exist_ok=True)
        elif name.as_posix() not in cut:
            if target.exists():
                raise DataError(
                    f"{path} was not cut by this command, and is in the way of a new patch.",
                    remedy="Move it away, or choose a new folder.",
                )
            shutil.copy2(path, target, follow_symlinks=False)


def _differences(old: _Record, new: _Record, folder: Path, partial: Path) -> dict[str, int]:
    before, after = {patch.number for patch in old.patches}, {patch.number for patch in new.patches}
    kept = before & after
    changed = sum(
        any(
            not (folder / name).exists() or (folder / name).read_bytes() != (partial / name).read_bytes()
            for name in (template.format(n) for template in _FOLDERS.values())
        )
        for n in kept
    )
    return {
        "new": len(after - before),
        "changed": changed,
        "unchanged": len(kept) - changed,
        "removed": len(before - after),
    }


def _replace(folder: Path, partial: Path) -> None:
    """Put the new set in the place of the old one."""
    aside = _aside(folder)
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    partial.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def refuse_small_scene(scene: Scene) -> None:
    """Refuse a scene that holds no window.

    Raises:
        DataError: It is smaller than a patch.
    """
    if min(scene.grid.height, scene.grid.width) < PATCH_SIZE:
        raise DataError(
            f"{scene.name} has {scene.grid.width} x {scene.grid.height} pixels, less than a patch of {PATCH_SIZE} x "
            f"{PATCH_SIZE}.",
            remedy="Give a larger piece of the scene, or leave it out.",
        )


def _require_bands(scene: Scene, stored: Sequence[str], dem: Sequence[str]) -> None:
    if missing := [band for band in stored if band not in TERRAIN_BANDS and band not in scene.bands]:
        rest = ",".join(band for band in stored if band not in missing)
        raise ConfigurationError(
            f"{scene.name} has no {', '.join(missing)}.",
            remedy=f"Use a scene that has them, or store other bands: --bands {rest}.",
        )
    if (needed := [band for band in stored if band in TERRAIN_BANDS]) and not dem:
        raise ConfigurationError(
            f"The patches store {' and '.join(needed)}, and there is no elevation model.",
            remedy="Give one or several rasters of elevation in metres with --dem, or store other bands with --bands.",
        )


def _explained(found: TiledScene) -> str:
    """Return a line about one scene."""
    counts = asdict(found.labels)
    labels = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    why = ", ".join(f"{count} {reason}" for reason, count in found.left_out.most_common())
    share = found.landslide_pixels / (PATCH_SIZE**2 * found.patches) if found.patches else 0.0
    sides = ("columns at the right edge", "rows at the lower edge")
    edge = " and ".join(f"{pixels} {side}" for pixels, side in zip(found.edge, sides, strict=True) if pixels)
    return (
        f"{found.name}: {found.patches} of {found.windows} windows became patches"
        + (f" (left out: {why})" if why else "")
        + f"; {found.with_landslide} with landslides, {100 * share:.2f} % of the pixels"
        + (f"; polygons: {labels}" if labels else "")
        + (f"; {edge} in no window" if edge else "")
    )


def describe_set(result: TiledSet) -> str:
    """Return what became of a data set, and what to do with it, as a short text."""
    counts = ", ".join(f"{getattr(result, name)} {name}" for name in ("new", "changed", "unchanged", "removed"))
    bands = "" if result.stored == ORIGINAL_BANDS else f" --bands {','.join(result.stored)}"
    lines = [
        f"{result.folder}: patches: {counts}",
        f"take it into use: landslide data use {shlex.quote(str(result.folder))}{bands}",
    ]
    if result.units != "landslide4sense":
        stored = f"stored: [{', '.join(result.stored)}], " if bands else ""
        lines.append(f"and in your configuration: bands: {{{stored}units: {result.units}}}")
    return "\n".join(lines)
