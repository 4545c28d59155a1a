"""The result of an audit as a folder: candidates for QGIS, a table, a page with pictures, a record."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.errors import DataError, first_few
from landslide.labels.audit import (
    FoldReference,
    Noise,
    audited_objects,
    noise,
    predicted_mask,
    references,
    union_objects,
)
from landslide.labels.audit_page import write_audit_page
from landslide.labels.candidates import (
    CANDIDATES,
    COLUMNS,
    CSV,
    KINDS,
    PAGE,
    RECORD,
    added_by_a_person,
    candidates_digest,
    read_candidates,
    verdicts_given,
    write_candidates,
)
from landslide.labels.predictions import Predictions
from landslide.tiling.new_folder import new_folder
from landslide.tiling.places import Place, common_crs, patch_places

_PIXEL_AREA = 100.0  # m2


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        folder: Where it lies.
        patches: Patches that were judged.
        objects: Labelled and predicted landslides in them.
        listed: Candidates by kind.
        noise: The estimate of confident learning.
    """

    folder: Path
    patches: int
    objects: int
    listed: dict[str, int]
    noise: Noise


def refuse_folder(folder: Path) -> None:
    """Refuse a folder that holds something else, or verdicts of a person.

    Raises:
        DataError: It does.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RECORD).is_file():
        raise DataError(f"{folder} exists and holds no audit.", remedy="Choose a new folder with --output.")
    ours = (CANDIDATES, CSV, RECORD, PAGE)
    others = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in ours and (path.is_dir() or not path.name.startswith((".", f"{CANDIDATES}-")))
    ]
    if others:
        raise DataError(
            f"{folder} holds an audit and other files, which would be lost: {first_few(others)}.",
            remedy="Move them away, or choose a new folder with --output.",
        )
    given = read_candidates(folder)
    touched = (given["verdict"] != "") | (given["comment"] != "") | (given["mask_md5"] == "")  # or drawn by a person
    in_table = verdicts_given(folder / CSV) if (folder / CSV).exists() else 0
    if n := max(int(touched.sum()), in_table):
        raise DataError(
            f"{folder} holds an audit with {n} verdicts, comments or polygons of a person.",
            remedy="Apply them with `landslide data apply`, or choose a new folder with --output.",
        )
    recorded = _recorded_candidates(folder)
    done = [f"added {first_few(added)}"] if (added := added_by_a_person(folder)) else []
    if recorded is not None and recorded != candidates_digest(given):
        done.append("redrew, changed or deleted candidates")
    if done:
        raise DataError(
            f"{folder} holds an audit in which a person {' and '.join(done)}, which would be lost.",
            remedy="Choose a new folder with --output.",
        )


def _recorded_candidates(folder: Path) -> str | None:
    """Return the digest of the candidates as they were written; None if an older release wrote them."""
    try:
        recorded: str | None = json.loads((folder / RECORD).read_text()).get("candidates")
    except (OSError, ValueError, AttributeError):
        return None
    return recorded


def write_audit(
    predictions: Predictions,
    folder: Path,
    *,
    most: int,
    about: Mapping[str, Any],
    say: Callable[[str], object] = lambda text: None,
) -> Audit:
    """Rank the labels and write the folder of the audit.

    Args:
        predictions: Out-of-fold predictions of the data set.
        folder: A new folder, or an audit without verdicts, which is replaced.
        most: Number of candidates that are listed; the others are counted only.
        about: What the record says besides: the data set, its version, the model.
        say: Called with lines for people.

    Raises:
        DataError: The folder holds something else, or verdicts, or cannot be written.
        LockedError: Another process writes it.
    """
    folder = folder.resolve()
    with new_folder(folder, refuse_folder) as partial:
        by_fold = references(predictions)
        if len(by_fold) == 1:
            say("all patches are of one fold: its own labels calibrate it, so wrong ones stand out a little less")
        objects = audited_objects(predictions, by_fold)
        doubted = objects[(objects["score"] > 0) & (objects["overlap"] < 1)]  # equal outlines leave nothing to look at
        listed = doubted.head(most).reset_index(drop=True)
        created = datetime.now(UTC)
        places = patch_places(predictions.root, predictions.table)
        frame = _candidates(predictions, listed, by_fold, places)
        write_candidates(partial, {"candidates": frame, **_context(predictions, listed, places)}, created)
        write_audit_page(partial / PAGE, predictions, frame, listed, about)
        counts = {kind: int((listed["kind"] == kind).sum()) for kind in KINDS}
        found = Audit(folder, len(predictions.table), len(objects), counts, noise(predictions, by_fold))
        record = {
            **about,
            "stored": list(predictions.stored),
            "patches": found.patches,
            "objects": found.objects,
            "listed": counts,
            "noise": asdict(found.noise),
            "folds": {str(fold): asdict(reference) for fold, reference in sorted(by_fold.items())},
            "candidates": candidates_digest(frame),
            "created": created.isoformat(timespec="seconds"),
        }
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return found


def describe_audit(found: Audit) -> str:
    """Return what an audit found, and what to do with it, as a short text."""
    listed = ", ".join(f"{n} {KINDS[kind]}" for kind, n in found.listed.items())
    folder = shlex.quote(str(found.folder))
    return "\n".join(
        [
            f"{found.patches:,} patches with {found.objects:,} labelled or predicted landslides; listed: {listed}",
            f"estimated noise: {100 * found.noise.false_landslide:.1f} % of the labelled pixels are no landslide, "
            f"{100 * found.noise.missed_landslide:.2f} % of the others are",
            f"look at them: {found.folder / PAGE} in a browser, or candidates.gpkg in QGIS",
            f"then, with the verdicts: landslide data apply {folder}",
        ]
    )


def _candidates(
    predictions: Predictions, listed: pd.DataFrame, by_fold: Mapping[int, FoldReference], places: list[Place]
) -> gpd.GeoDataFrame:
    table = predictions.table
    rows = listed["row"].to_numpy()
    numbers = table["number"].to_numpy()[rows]
    found = listed.to_dict("records")
    geometries = [places[one["row"]].polygon(_judged(predictions, one)) for one in found]
    columns = {
        "rank": np.arange(1, len(listed) + 1),
        "id": [f"p{number}-{one}" for number, one in zip(numbers, listed["object"], strict=True)],
        "verdict": "",
        "comment": "",
        "reason": [
            _reason(one, by_fold[fold])
            for one, fold in zip(found, table["fold"].to_numpy()[rows].tolist(), strict=True)
        ],
        "patch": numbers,
        "scene": [places[row].scene for row in rows],
        "area_m2": listed["pixels"] * _area(places),
        "mask_md5": table["mask_md5"].to_numpy()[rows],
        **{
            name: listed[name] for name in ("kind", "score", "objects", "pixels", "probability", "deviation", "overlap")
        },
    }
    described = pd.DataFrame(columns, index=range(len(listed)))[list(COLUMNS)]
    described = described.round({name: column.decimals for name, column in COLUMNS.items() if column.dtype == "float"})
    return _in_common_crs(described, geometries, rows, places)


def _area(places: list[Place]) -> float:
    """Return the area of a pixel in m2: 10 m a side unless the reference system is in metres and says otherwise."""
    crs = places[0].crs
    if crs is None or not crs.is_projected:
        return _PIXEL_AREA
    factor = float(crs.linear_units_factor[1])
    return abs(places[0].transform.determinant) * factor**2


def _judged(predictions: Predictions, one: Mapping[Any, Any]) -> npt.NDArray[np.bool_]:
    """Return the pixels (128, 128) that a verdict is about."""
    row = one["row"]
    here = union_objects(predictions, row) == one["object"]
    chosen = predictions.masks[row] != 0 if one["kind"] == "no_landslide" else predicted_mask(predictions, row)
    return np.asarray(here & chosen)


def _context(predictions: Predictions, listed: pd.DataFrame, places: list[Place]) -> dict[str, gpd.GeoDataFrame]:
    """Return the labels and the outlines of the patches that hold candidates."""
    rows = np.unique(listed["row"].to_numpy())
    numbers = predictions.table["number"].to_numpy()
    patches = [places[row].outline for row in rows]
    labelled = [row for row in rows if predictions.masks[row].any()]
    labels = [places[row].polygon(predictions.masks[row] != 0) for row in labelled]
    return {
        "labels": _in_common_crs(pd.DataFrame({"patch": numbers[labelled]}), labels, np.array(labelled, int), places),
        "patches": _in_common_crs(pd.DataFrame({"patch": numbers[rows]}), patches, rows, places),
    }


def _in_common_crs(
    columns: pd.DataFrame, geometries: list[Any], rows: npt.NDArray[np.int64], places: list[Place]
) -> gpd.GeoDataFrame:
    """Join columns and geometries of patches, in one reference system."""
    crs = common_crs(places)
    systems = {places[row].crs for row in rows}
    moved = np.array(geometries, dtype=object)
    for system in systems:
        if crs is not None and system is not None and system != crs:
            here = np.array([places[row].crs == system for row in rows], bool)
            moved[here] = gpd.GeoSeries(moved[here], crs=system.to_wkt()).to_crs(crs.to_wkt()).to_numpy()
    return gpd.GeoDataFrame(columns, geometry=moved, crs=crs.to_wkt() if crs else None)


def _reason(one: Mapping[Any, Any], reference: FoldReference) -> str:
    p = one["probability"]
    match one["kind"]:
        case "no_landslide":
            return (
                f"Labelled, and the networks see none: mean probability {p:.2f}; labelled pixels of the other folds "
                f"have {reference.landslide:.2f}."
            )
        case "missing":
            return f"Not labelled, and the networks see a landslide: mean probability {p:.2f}."
    return (
        f"Label and prediction share {100 * one['overlap']:.0f} % of their pixels; {one['doubtful_label']} of "
        f"{one['label_pixels']} labelled pixels look like none, {one['doubtful_ground']} others like a landslide."
    )
