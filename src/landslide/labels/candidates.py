"""Labels that may be wrong, as files that people fill in: a GeoPackage for QGIS, a CSV, and their verdicts."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from io import StringIO
from pathlib import Path
from types import MappingProxyType

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from landslide.errors import DataError, first_few
from landslide.files import atomic_write
from landslide.products.map_info import Column
from landslide.products.qgis_styles import candidate_style, outline_style
from landslide.products.vectors import LayerKind, write_geopackage
from landslide.scenes.vector_files import opened_vector_file, read_features

KINDS = MappingProxyType(
    {
        "no_landslide": "labelled, and probably no landslide",
        "missing": "not labelled, and probably a landslide",
        "outline": "a landslide whose outline is probably off",
    }
)
"""What may be wrong with a label."""

CHANGES = MappingProxyType(
    {
        "no_landslide": "removes the label",
        "missing": "adds the prediction to the labels",
        "outline": "replaces the label by the prediction",
    }
)
"""What the verdict `wrong` does, by kind."""

VERDICTS = MappingProxyType(
    {
        "wrong": "the label is wrong: change it",
        "right": "the label is right: leave it",
        "unsure": "nobody can tell: leave it",
    }
)
"""What a person may say of it; empty if nobody has looked."""

COLUMNS = MappingProxyType(
    {
        "rank": Column("int", "From 1: look at these first"),
        "id": Column("text", "Patch and number of the candidate in it, p17-2; stays when others are sorted or deleted"),
        "kind": Column("text", "What may be wrong: " + "; ".join(f"{name}: {text}" for name, text in KINDS.items())),
        "score": Column("float", "How much the networks contradict the label, from 0", "", 3),
        "verdict": Column(
            "text", "To be filled in: " + "; ".join(f"{name}: {text}" for name, text in VERDICTS.items())
        ),
        "comment": Column("text", "Free text"),
        "reason": Column("text", "Why this is listed"),
        "patch": Column("int", "Number of the patch"),
        "scene": Column("text", "Scene of the patch"),
        "objects": Column("text", "Labelled landslides of the patch that a change replaces, from 1 in reading order"),
        "pixels": Column("int", "Pixels of the polygon"),
        "area_m2": Column("float", "Their area with pixels of 10 m", "m2", 1),
        "probability": Column("float", "Mean calibrated landslide probability in the polygon, out of fold", "", 4),
        "deviation": Column("float", "Mean standard deviation of the probability in the polygon", "", 4),
        "overlap": Column("float", "Intersection over union of label and prediction", "", 4),
        "mask_md5": Column("text", "Digest of the mask file that was looked at"),
    }
)
"""The columns of the candidates. Their geometry is what a verdict is about: of `no_landslide` the labelled landslide,
of `missing` and `outline` the predicted one. It may be redrawn: `data apply` takes it as it is."""

CANDIDATES, CSV, RECORD, PAGE = "candidates.gpkg", "candidates.csv", "audit.json", "audit.html"
"""Files of an audit."""

_TABLES = ("layer_styles", "qgis_projects")  # of QGIS in a GeoPackage

LAYERS = MappingProxyType(
    {
        "candidates": LayerKind("Labels that may be wrong", candidate_style(KINDS, VERDICTS), COLUMNS),
        "labels": LayerKind("Labelled landslides", outline_style("#ff2fa0")),
        "patches": LayerKind("Outlines of the patches", outline_style("#737373")),
    }
)


def write_candidates(folder: Path, layers: Mapping[str, gpd.GeoDataFrame], created: datetime) -> None:
    """Write `candidates.gpkg` and `candidates.csv`.

    Args:
        folder: The folder; it must exist.
        layers: `candidates` with the columns `COLUMNS`, and the other layers of `LAYERS`.
        created: Time stamp, with its time zone.

    Raises:
        OSError: If a file cannot be written.
    """
    write_geopackage(folder / CANDIDATES, layers, created, LAYERS)
    with atomic_write(folder / CSV) as path:
        layers["candidates"].drop(columns="geometry").to_csv(path, index=False, lineterminator="\n")


def read_candidates(folder: Path, verdicts: Path | None = None) -> gpd.GeoDataFrame:
    """Read candidates with their verdicts.

    Args:
        folder: What `landslide data audit` wrote.
        verdicts: A CSV file with the columns id and verdict, and perhaps comment, which the page `audit.html` saves;
            what it says replaces what the GeoPackage says. None if the verdicts are in the GeoPackage.

    Returns:
        The columns `COLUMNS` and geometry, by rank. Verdicts are one of `VERDICTS` or empty; further columns that a
        person added are left out. Polygons that a person drew come last: they have no mask_md5, the id `drawn 1`,
        `drawn 2`, ..., and the kind `missing` unless the person wrote another one.

    Raises:
        DataError: A file is missing or damaged, or a verdict is unknown.
    """
    path = folder / CANDIDATES
    try:
        with opened_vector_file(path):
            frame = read_features(path, "candidates")
    except (DataSourceError, DataLayerError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", remedy="Give the folder that `landslide data audit` wrote."
        ) from error
    if missing := [name for name in (*COLUMNS, "geometry") if name not in frame]:
        raise DataError(
            f"{path} has no column {first_few(missing)}.", remedy="Restore it, or run `landslide data audit` again."
        )
    frame = _with_drawn(frame[[*COLUMNS, "geometry"]].sort_values("rank", ignore_index=True, kind="stable"))
    if twice := sorted(set(frame["id"][frame["id"].duplicated()])):
        raise DataError(
            f"{path} has the candidate {first_few(twice)} twice.", remedy="Delete the one that does not count."
        )
    if verdicts is not None:
        frame = _with_verdicts(frame, _read_verdicts(verdicts), verdicts)
    for name in ("verdict", "comment"):
        frame[name] = frame[name].fillna("").astype(str).str.strip()
    frame["verdict"] = frame["verdict"].str.lower()
    if unknown := sorted({*frame["verdict"]} - {*VERDICTS, ""}):
        ids = frame["id"][frame["verdict"] == unknown[0]].tolist()
        raise DataError(
            f"The verdict of candidate {first_few(ids)} is {unknown[0]!r}.",
            remedy=f"Write one of {', '.join(VERDICTS)}, or leave it empty.",
        )
    return frame


def candidates_digest(frame: gpd.GeoDataFrame) -> str:
    """Return the digest of what a verdict is about: polygons, kinds and objects of candidates, whatever their order.

    Args:
        frame: Columns id, kind, objects and geometry.
    """
    texts = (frame[name].fillna("").astype(str).str.strip() for name in ("id", "kind", "objects"))
    parts = [shapely.to_wkb(shapely.get_parts(shape), hex=True).tolist() for shape in frame.geometry]
    content = sorted(zip(*texts, parts, strict=True))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def added_by_a_person(folder: Path) -> list[str]:
    """Return the layers and columns that a person added to the candidates of an audit."""
    path = folder / CANDIDATES
    names = [str(name) for name, _ in pyogrio.list_layers(path)]
    added = [f"layer {name}" for name in names if name not in LAYERS and name not in _TABLES]
    columns = [str(name) for name in pyogrio.read_info(path, layer="candidates")["fields"]]
    if (folder / CSV).exists():
        columns += _read_verdicts(folder / CSV).columns.tolist()
    return added + [f"column {name}" for name in dict.fromkeys(columns) if name not in COLUMNS]


def verdicts_given(path: Path) -> int:
    """Count the lines of a table of candidates or verdicts in which a person wrote a verdict or a comment.

    Raises:
        DataError: It cannot be read.
    """
    table = _read_verdicts(path)
    return int((table.reindex(columns=["verdict", "comment"], fill_value="") != "").any(axis=1).sum())


def _with_drawn(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Name the polygons that a person drew: they have no id."""
    for name in ("id", "kind", "objects", "scene", "mask_md5"):
        frame[name] = frame[name].fillna("").astype(str).str.strip()
    frame["kind"] = frame["kind"].str.lower()
    drawn = frame["id"] == ""
    frame.loc[drawn, "id"] = [f"drawn {number}" for number in range(1, int(drawn.sum()) + 1)]
    frame.loc[drawn, "mask_md5"] = ""
    frame.loc[drawn & (frame["kind"] == ""), "kind"] = "missing"
    return pd.concat([frame[~drawn], frame[drawn]], ignore_index=True)


def _read_verdicts(path: Path) -> pd.DataFrame:
    """Read a table as the page saves it, or as a spreadsheet does afterwards: other separators, encodings, blanks."""
    try:
        content = path.read_bytes()
        try:
            text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252")  # of spreadsheets on Windows
        separator = max(",;\t", key=text.partition("\n")[0].count)
        table = pd.read_csv(StringIO(text), sep=separator, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}.", remedy="Give the CSV file that the page of the audit saved."
        ) from error
    table.columns = table.columns.str.strip().str.lower()
    if missing := [name for name in ("id", "verdict") if name not in table]:
        raise DataError(
            f"{path} has no column {first_few(missing)}.", remedy="Give the CSV file that the page of the audit saved."
        )
    table = table.fillna("").map(str.strip)
    table = table.loc[(table != "").any(axis=1)].drop_duplicates(["id", "verdict"], keep="last")
    if twice := sorted(set(table["id"][table["id"].duplicated()])):
        raise DataError(
            f"{path} has different verdicts of {first_few(twice)}.", remedy="Delete the lines that do not count."
        )
    return table


def _with_verdicts(frame: gpd.GeoDataFrame, table: pd.DataFrame, path: Path) -> gpd.GeoDataFrame:
    if unknown := sorted({*table["id"]} - {*frame["id"]}):
        raise DataError(
            f"{path} has verdicts of candidates that this audit does not have: {first_few(unknown)}.",
            remedy="Give the file of this audit as the page saved it.",
        )
    by_id = table.set_index("id")
    for name in ("verdict", "comment"):
        if name in by_id:
            said = frame["id"].map(by_id[name])
            frame[name] = said.where(said.fillna("") != "", frame[name])
    return frame
