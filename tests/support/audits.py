"""Folders of audits with verdicts, without a model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import pandas as pd
import shapely

from landslide.data.digests import directory_digest
from landslide.data.table import patch_table
from landslide.labels.candidates import COLUMNS, RECORD, write_candidates
from landslide.tiling.places import common_crs, patch_places


@dataclass(frozen=True)
class Judged:
    """A candidate with a verdict.

    Attributes:
        kind: What may be wrong.
        patch: Its patch; None for a polygon that a person drew.
        polygon: In columns and rows of the patch, y downwards; of a drawn one in coordinates of the audit.
        objects: The landslides that it replaces.
        verdict: What the person says.
        comment: And adds.
    """

    kind: str | None
    patch: int | None
    polygon: shapely.Geometry
    objects: str = ""
    verdict: str = "wrong"
    comment: str = ""


def write_audit(folder: Path, root: Path, candidates: Sequence[Judged], stored: Sequence[str] = ("B4",)) -> Path:
    """Write the files of an audit that `data apply` reads."""
    folder.mkdir(parents=True)
    table = patch_table(root)
    places = patch_places(root, table)
    crs, rows = common_crs(places), []
    for rank, one in enumerate(candidates, start=1):
        row = dict.fromkeys(COLUMNS) | {"verdict": one.verdict, "comment": one.comment, "kind": one.kind}
        geometry = one.polygon
        if one.patch is not None:
            at = table.index[table["number"] == one.patch][0]
            scene, own, transform = places[at].scene, places[at].crs, places[at].transform
            geometry = shapely.affinity.affine_transform(
                geometry, [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]
            )
            if crs is not None:
                geometry = gpd.GeoSeries([geometry], crs=own.to_wkt()).to_crs(crs.to_wkt()).iloc[0]
            row |= {"rank": rank, "id": f"{one.patch}-{rank}", "patch": one.patch, "scene": scene, "score": 0.5}
            row |= {"objects": one.objects, "reason": "because", "mask_md5": table["mask_md5"][at]}
        rows.append(row | {"geometry": geometry})
    columns = [*COLUMNS, "geometry"]
    frame = gpd.GeoDataFrame(pd.DataFrame(rows, columns=columns), crs=crs and crs.to_wkt())
    write_candidates(folder, {"candidates": frame}, datetime(2024, 1, 1, tzinfo=UTC))
    record = {"data": str(root.resolve()), "data_version": directory_digest(root)[0], "stored": list(stored)}
    (folder / RECORD).write_text(json.dumps(record | {"model_version": "3"}))
    return folder
