"""What verdicts on labels change: the new mask of each patch, and a record of the changes."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from rasterio.crs import CRS
from rasterio.features import rasterize

from landslide.data.changed_labels import CHANGES_COLUMNS, read_changed_patches
from landslide.data.check import render_findings, survey
from landslide.data.patches import Finding, read_mask
from landslide.data.project import refuse_missing
from landslide.data.table import patch_table
from landslide.errors import DataError, first_few
from landslide.labels.candidates import CANDIDATES, KINDS, RECORD, read_candidates
from landslide.labels.objects import label_objects, parse_objects
from landslide.schema import LABEL_CHANGES, ORIGINAL_BANDS, PATCH_SIZE
from landslide.tiling.places import Place, patch_places

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelChange:
    """What one verdict changes in one patch; the fields are columns of `CHANGES_COLUMNS`."""

    id: str
    kind: str
    patch: int
    pixels_added: int
    pixels_removed: int
    comment: str


@dataclass(frozen=True)
class LabelChanges:
    """What the verdicts of an audit change in a data set.

    Attributes:
        root: Folder of the data set.
        version: Its digest.
        model_version: The model of the audit.
        stored: The bands of its images.
        digests: MD5 of each of its files by relative path.
        table: Its patch table.
        verdicts: How many candidates have each verdict; the empty one is nobody's.
        drawn_without_verdict: Polygons that a person drew, without a verdict.
        changes: One per verdict `wrong` and patch.
        masks: The new mask of each patch that changes, (128, 128) uint8, by its path.
        pixels_added: Pixels that become landslides, over all patches.
        pixels_removed: Pixels that are no landslides any more.
    """

    root: Path
    version: str
    model_version: str
    stored: tuple[str, ...]
    digests: Mapping[str, str]
    table: pd.DataFrame
    verdicts: Counter[str]
    drawn_without_verdict: int
    changes: list[LabelChange]
    masks: dict[str, npt.NDArray[np.uint8]]
    pixels_added: int
    pixels_removed: int


def plan_changes(audit: Path, root: Path | None = None, verdicts: Path | None = None) -> LabelChanges:
    """Find out what the verdicts of an audit change in a data set; nothing is written.

    A polygon counts as it is now. A pixel belongs to it if its centre lies in it, in every patch of the scene: a
    polygon that was redrawn beyond the edge of its patch changes the patches there, too, and so does one where patches
    overlap. Patches without positions stand alone.

    Of `no_landslide` the pixels of the polygon become 0, of `missing` 1; of `outline` the named landslides become 0 and
    the polygon 1. All pixels that become 0 do so before any becomes 1, so the order of the verdicts has no influence.

    Args:
        audit: What `landslide data audit` wrote, with verdicts.
        root: Folder of the data set; None for that of the audit.
        verdicts: See `landslide.labels.candidates.read_candidates`.

    Raises:
        DataError: A file cannot be read, or a verdict cannot be applied; all such verdicts are named. This includes
            masks that are not the ones that were looked at.
    """
    record = _read_record(audit)
    frame = read_candidates(audit, verdicts)
    if root is None:
        root = Path(record["data"])
        if not root.is_dir():
            raise DataError(
                f"{root} does not exist; it is the data set that was audited.",
                remedy="Say where it is now: `landslide data apply AUDIT DIR`.",
            )
    refuse_missing(root)
    found = survey(root, bands=record["stored"])
    if found.version is None or not found.report.ok:
        raise DataError(
            f"{root} has faults:\n{found.report.summary()}", remedy="`landslide data check` tells how to correct them."
        )
    table = patch_table(
        root,
        digests=found.digests,
        positive_pixels=found.positive_pixels,
        positions=record.get("positions", "auto"),
    )
    wrong = frame[frame["verdict"] == "wrong"].reset_index(drop=True)
    planning = _Planning(root, table, wrong)
    parts = planning.parts_of_all(audit)
    masks = planning.new_masks(parts)
    old = {name: read_mask(root / name) for name in masks}
    return LabelChanges(
        root=root,
        version=found.version,
        model_version=str(record["model_version"]),
        stored=tuple(record["stored"]),
        digests=found.digests,
        table=table,
        verdicts=Counter(frame["verdict"]),
        drawn_without_verdict=int(((frame["mask_md5"] == "") & (frame["verdict"] == "")).sum()),
        changes=planning.changes(parts),
        masks=masks,
        pixels_added=sum(int((mask > old[name]).sum()) for name, mask in masks.items()),
        pixels_removed=sum(int((mask < old[name]).sum()) for name, mask in masks.items()),
    )


def changes_file(plan: LabelChanges) -> bytes:
    """Return the content of the file `LABEL_CHANGES`: what an older one says, then these changes.

    Raises:
        DataError: If the older one is no such file.
    """
    path = plan.root / LABEL_CHANGES
    older = path.read_bytes() if path.exists() else b""
    if older:
        read_changed_patches(plan.root)
        older = older if older.endswith(b"\n") else older + b"\n"
    text = io.StringIO()
    writer = csv.DictWriter(text, CHANGES_COLUMNS, lineterminator="\n")
    if not older:
        writer.writeheader()
    versions = {"data_version": plan.version, "model_version": plan.model_version}
    writer.writerows(versions | vars(change) for change in plan.changes)
    return older + text.getvalue().encode()


class _UnusableError(Exception):
    """Why a verdict cannot be applied."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code, self.message, self.remedy = code, message, remedy


@dataclass(frozen=True)
class _Parts:
    """Which pixels a verdict makes 0, then 1, in rows of the patch table; `own` is that of its patch."""

    own: int
    rows: dict[int, tuple[Mask, Mask]]


class _Planning:
    """Applies the verdicts `wrong` of one audit to one data set, in memory."""

    def __init__(self, root: Path, table: pd.DataFrame, wrong: gpd.GeoDataFrame) -> None:
        self.root, self.table, self.wrong = root, table, wrong
        numbers = table["number"].tolist()
        self.row_of = {int(number): row for row, number in enumerate(numbers)}
        self.places = patch_places(root, table)
        # Patches in which one polygon may lie. Without a scene, nobody knows what adjoins.
        self.scenes = [place.scene or f"patch {number}" for place, number in zip(self.places, numbers, strict=True)]
        systems: dict[str, list[int]] = {}
        for row, place in enumerate(self.places):
            systems.setdefault(_name(place.crs), []).append(row)
        self.trees = {
            name: (np.array(rows), shapely.STRtree([self.places[row].outline for row in rows]))
            for name, rows in systems.items()
        }
        self.geometries = {name: self.in_system(self.places[rows[0]].crs) for name, rows in systems.items()}
        self.masks: dict[int, Mask] = {}

    def parts_of_all(self, audit: Path) -> list[_Parts]:
        """Return which pixels each verdict changes, or refuse all that cannot be applied."""
        faults, found = [], []
        for i in range(len(self.wrong)):
            try:
                found.append(self.parts(i))
            except _UnusableError as error:
                faults.append(Finding(self.wrong["id"][i], error.code, error.message, error.remedy))
        if faults:
            what = f"The verdicts in {audit} cannot be applied to {self.root}."
            raise DataError(
                "\n".join([what, *render_findings("fault", faults)]),
                remedy="Correct these, then run this again; nothing was written.",
            )
        return found

    def in_system(self, crs: CRS | None) -> npt.NDArray[Any]:
        """Return the polygons in a reference system; None is that of pixels beside each other."""
        frame = self.wrong
        on_map = frame.crs is not None and (frame.crs.is_geographic or frame.crs.is_projected)
        if on_map != (crs is not None):
            difference = "have coordinates, and {} has none" if on_map else "have no coordinates, and {} has some"
            raise DataError(
                f"The candidates {difference.format(self.root)}.", remedy="Give the data set that was audited."
            )
        series = frame.geometry if crs is None else frame.geometry.to_crs(crs.to_wkt())
        geometries: npt.NDArray[Any] = series.force_2d().to_numpy()
        invalid = ~shapely.is_missing(geometries) & ~shapely.is_valid(geometries)
        geometries[invalid] = shapely.make_valid(geometries[invalid], method="structure", keep_collapsed=False)
        return geometries

    def parts(self, i: int) -> _Parts:
        """Return which pixels a verdict changes."""
        candidate = self.wrong.iloc[i]
        if candidate["kind"] not in KINDS:
            raise _UnusableError(
                "kind", f"its kind is {candidate['kind']!r}", f"write one of {', '.join(KINDS)} into the column kind"
            )
        if shapely.get_dimensions(geometry := candidate.geometry) < 2 or geometry.is_empty:  # -1 is a missing one
            raise _UnusableError("no_polygon", "it has no polygon", "draw one, or change its verdict")
        own = self.own_row(candidate) if candidate["mask_md5"] else self.row_below(i, candidate)
        system = _name(self.places[own].crs)
        polygon = self.geometries[system][i]
        before = self.replaced(candidate, own) if candidate["kind"] == "outline" else None
        rows, tree = self.trees[system]
        near = rows[tree.query(polygon if before is None else shapely.union(polygon, before), "intersects")]
        parts = {}
        for row in sorted({own, *near.tolist()}):
            if self.scenes[row] == self.scenes[own]:
                inside, nothing = _burnt(polygon, self.places[row]), np.zeros((PATCH_SIZE, PATCH_SIZE), bool)
                if row == own and not inside.any():
                    raise _UnusableError(
                        "elsewhere",
                        f"its polygon covers no centre of a pixel of patch {self.table['number'][own]}",
                        "move it back, make it larger, or change its verdict",
                    )
                if candidate["kind"] == "no_landslide":
                    parts[row] = inside, nothing
                else:
                    parts[row] = nothing if before is None else _burnt(before, self.places[row]), inside
        return _Parts(own, parts)

    def own_row(self, candidate: "pd.Series[Any]") -> int:
        """Return the row of the patch of a candidate, whose mask must be the one that was looked at."""
        said = candidate["patch"]
        try:
            number = float(said)
        except (TypeError, ValueError):  # a text, or NA
            number = float("nan")
        row = self.row_of.get(int(number)) if number.is_integer() else None
        if row is None:
            raise _UnusableError(
                "no_patch",
                "its column patch is empty"
                if pd.isna(said)
                else f"there is no patch {int(number) if number.is_integer() else said}",
                "give the data set that was audited, and leave the columns of the candidates as they were",
            )
        if self.table["mask_md5"][row] != candidate["mask_md5"]:
            raise _UnusableError(
                "changed_mask",
                f"the mask of patch {number:.0f} is not the one that was looked at",
                "these verdicts may have been applied before; give the data set that was audited, or audit this one",
            )
        return row

    def row_below(self, i: int, candidate: "pd.Series[Any]") -> int:
        """Return the row of the patch below a polygon that a person drew: the one that it covers most of."""
        covered: dict[int, int] = {}
        touched: list[int] = []
        for system, (rows, tree) in self.trees.items():
            polygon = self.geometries[system][i]
            for row in rows[tree.query(polygon, "intersects")].tolist():
                touched.append(row)
                if n := int(_burnt(polygon, self.places[row]).sum()):
                    covered[row] = n
        scenes = sorted({self.scenes[row] for row in covered})
        if candidate["scene"]:
            covered = {row: n for row, n in covered.items() if self.scenes[row] == candidate["scene"]}
        elif len(scenes) > 1:
            raise _UnusableError(
                "several_scenes",
                f"it was drawn across {first_few(scenes)}",
                "write the scene into its column scene, or draw it in one patch if the patches have no positions",
            )
        if not covered and touched and not scenes:
            raise _UnusableError(
                "elsewhere",
                f"its polygon covers no centre of a pixel of patch {self.table['number'][min(touched)]}",
                "make it larger, or delete it",
            )
        if not covered:
            raise _UnusableError(
                "elsewhere",
                "it was drawn where no patch" + (f" of {candidate['scene']}" if candidate["scene"] else "") + " lies",
                "move it, or delete it",
            )
        return min(covered, key=lambda row: (-covered[row], row))

    def replaced(self, candidate: "pd.Series[Any]", own: int) -> shapely.Geometry:
        """Return the ground of the labelled landslides that a candidate names."""
        objects = label_objects(self.mask(own))
        try:
            numbers = parse_objects(candidate["objects"])
        except ValueError:
            numbers = []
        if not numbers or max(numbers) > objects.max():
            raise _UnusableError(
                "objects",
                f"its column objects is {candidate['objects']!r}, and patch {self.table['number'][own]} has "
                f"{objects.max()} labelled landslides",
                "write the numbers of those that the polygon replaces, or write another kind: missing adds the polygon",
            )
        return self.places[own].polygon(np.isin(objects, numbers))

    def mask(self, row: int) -> Mask:
        """Return the mask of a patch as it is."""
        if row not in self.masks:
            self.masks[row] = read_mask(self.root / self.table["mask"][row]) != 0
        return self.masks[row]

    def changes(self, found: list[_Parts]) -> list[LabelChange]:
        changes = []
        for candidate, parts in zip(self.wrong.to_dict("records"), found, strict=True):
            for row, (removed, added) in parts.rows.items():
                count = int((added & ~self.mask(row)).sum()), int((removed & ~added & self.mask(row)).sum())
                if any(count) or row == parts.own:
                    name, kind, comment = (candidate[column] for column in ("id", "kind", "comment"))
                    changes.append(LabelChange(name, kind, int(self.table["number"][row]), *count, comment))
        return changes

    def new_masks(self, found: list[_Parts]) -> dict[str, npt.NDArray[np.uint8]]:
        new = {row: self.mask(row).copy() for parts in found for row in parts.rows}
        for value in (0, 1):
            for parts in found:
                for row, pixels in parts.rows.items():
                    new[row][pixels[value]] = value
        return {
            str(self.table["mask"][row]): mask.astype(np.uint8)
            for row, mask in sorted(new.items())
            if (mask != self.mask(row)).any()
        }


def _read_record(audit: Path) -> dict[str, Any]:
    path = audit / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if missing := [name for name in ("data", "stored", "model_version") if name not in record]:
            raise ValueError(f"it has no {first_few(missing)}")
        if not isinstance(record["data"], str):
            raise ValueError(f"it names the data set {record['data']}")
        if not {*record["stored"]} <= {*ORIGINAL_BANDS}:
            raise ValueError(f"it names the bands {record['stored']}")
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.",
            remedy=f"Give the folder that `landslide data audit` wrote; it holds {RECORD} and {CANDIDATES}.",
        ) from error
    return record


def _name(crs: CRS | None) -> str:
    return "" if crs is None else crs.to_wkt()


def _burnt(geometry: shapely.Geometry, place: Place) -> Mask:
    """Return which pixels of a patch have their centre in a polygon."""
    shape = PATCH_SIZE, PATCH_SIZE
    if geometry.is_empty:
        return np.zeros(shape, bool)
    burnt: Mask = rasterize([geometry], shape, transform=place.transform, dtype=np.uint8) != 0
    return burnt
