"""The folder of an audit: polygons equal to pixels, verdicts, the page."""

import json
import re
from datetime import UTC, datetime

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from landslide.data.table import patch_table
from landslide.errors import DataError
from landslide.labels.audit_report import describe_audit, write_audit
from landslide.labels.candidates import CHANGES, COLUMNS, read_candidates, write_candidates
from landslide.labels.predictions import Predictions
from landslide.schema import ORIGINAL_BANDS
from landslide.tiling.places import patch_places
from tests.support.full_disk import files_limited

ABOUT = {"data": "data", "data_version": "0" * 32 + ".dir", "model_version": "3"}


@pytest.fixture
def predictions(root):
    """The labels themselves, some of them moved, removed or added."""
    table = patch_table(root).assign(fold=[1, 1, 1, 2, 2, 2])
    from landslide.data.patches import read_mask

    masks = np.stack([read_mask(root / path) for path in table["mask"]])
    seen = np.roll(masks, (5, 7), axis=(1, 2))
    seen[0] = 0
    seen[0, 100:120, 3:20] = seen[0, 105:110, 8:12] = 1
    seen[0, 105:110, 8:12] = 0  # with a hole
    probability = np.where(seen == 1, 0.9, 0.03).astype(np.float32)
    spread = np.full_like(probability, 0.05)
    return Predictions(root, ORIGINAL_BANDS, table, masks, probability, spread, np.full(6, 0.5))


@pytest.fixture
def audit(predictions, tmp_path):
    found = write_audit(predictions, tmp_path / "audit", most=500, about=ABOUT)
    return found, read_candidates(tmp_path / "audit")


def burnt(candidate, place, crs):
    geometry = candidate.geometry.__geo_interface__
    if crs is not None and place.crs != crs:
        geometry = transform_geom(crs, place.crs, geometry)
    return rasterize([geometry], (128, 128), transform=place.transform, dtype=np.uint8).astype(bool)


def test_polygons_are_the_pixels_that_are_judged(audit, predictions):
    found, candidates = audit
    places = patch_places(predictions.root, predictions.table)
    assert set(candidates["kind"]) == {"no_landslide", "missing", "outline"}
    assert found.listed == {kind: int((candidates["kind"] == kind).sum()) for kind in found.listed}
    assert candidates.crs is None
    for one in candidates.itertuples():
        row = predictions.table["number"].tolist().index(one.patch)
        pixels = burnt(one, places[row], None)
        assert pixels.sum() == one.pixels
        label, seen = predictions.masks[row] == 1, predictions.probability[row] > 0.5
        assert (pixels <= (label if one.kind == "no_landslide" else seen)).all()
        assert one.area_m2 == 100 * one.pixels
        assert one.mask_md5 == predictions.table["mask_md5"][row]
    hole = candidates[(candidates["kind"] == "missing") & (candidates["patch"] == predictions.table["number"][0])]
    assert hole["pixels"].tolist() == [20 * 17 - 5 * 4]


def test_the_table_and_the_layers_agree(audit, predictions):
    found, candidates = audit
    table = pd.read_csv(found.folder / "candidates.csv", keep_default_na=False, dtype={"objects": str})
    assert list(table) == list(COLUMNS)
    assert table["id"].tolist() == candidates["id"].tolist()
    assert table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table["score"].is_monotonic_decreasing
    labels, patches = (gpd.read_file(found.folder / "candidates.gpkg", layer=name) for name in ("labels", "patches"))
    assert set(patches["patch"]) == set(candidates["patch"])
    of_patch = dict(zip(predictions.table["number"], predictions.masks.sum(axis=(1, 2)), strict=True))
    assert {one.patch: round(one.geometry.area) for one in labels.itertuples()} == {
        number: of_patch[number] for number in labels["patch"]
    }
    record = json.loads((found.folder / "audit.json").read_text())
    assert record["data_version"] == ABOUT["data_version"]
    assert record["listed"] == found.listed
    assert f"{len(predictions.table)} patches" in describe_audit(found)


def test_a_label_that_is_predicted_as_it_was_drawn_is_not_listed(predictions, tmp_path):
    predictions.probability[1] = np.where(predictions.masks[1] == 1, 0.9, 0.03)
    assert predictions.masks[1].any()
    found = write_audit(predictions, tmp_path / "audits of may" / "first", most=500, about=ABOUT)
    candidates = read_candidates(found.folder)
    assert predictions.table["number"][1] not in candidates["patch"].tolist()
    assert (candidates["overlap"] < 1).all()
    assert found.objects > len(candidates) > 0
    assert describe_audit(found).endswith(f"landslide data apply '{found.folder}'")


def test_patches_of_two_reference_systems_share_one_layer(root, predictions, tmp_path):
    rows = []
    for place, number in enumerate(predictions.table["number"]):
        zone, west = (32633, 500_000) if place < 3 else (32733, 600_000)
        west, south = west + 1280 * (place % 3), 5_000_000
        rows.append(f"{number},{zone},0,{place % 3},s{zone},EPSG:{zone},{west},{south},{west + 1280},{south + 1280}")
    scenes = root / "scenes.csv"
    before = scenes.read_text()
    try:
        scenes.write_text("n,scene,row,column,name,crs,west,south,east,north\n" + "\n".join(rows) + "\n")
        found = write_audit(predictions, tmp_path / "audit", most=500, about=ABOUT)
        candidates = read_candidates(found.folder)
        places = patch_places(root, predictions.table)
    finally:
        scenes.write_text(before)
    assert candidates.crs.to_epsg() == 4326
    for one in candidates.itertuples():
        row = predictions.table["number"].tolist().index(one.patch)
        assert burnt(one, places[row], candidates.crs).sum() == one.pixels
        assert one.area_m2 == pytest.approx(100 * one.pixels)


def with_verdicts(folder, **verdicts):
    """Fill in verdicts as QGIS does, in the file."""
    layers = {
        name: gpd.read_file(folder / "candidates.gpkg", layer=name) for name in ("candidates", "labels", "patches")
    }
    for name, value in verdicts.items():
        layers["candidates"].loc[0, name] = value
    write_candidates(folder, layers, datetime(2024, 1, 1, tzinfo=UTC))


def test_an_audit_without_verdicts_is_replaced_and_one_with_them_is_not(audit, predictions):
    folder = audit[0].folder
    write_audit(predictions, folder, most=3, about=ABOUT)
    assert len(read_candidates(folder)) == 3
    for given in ({"verdict": "wrong"}, {"verdict": "", "comment": "seen in the field"}, {"comment": "", "id": None}):
        with_verdicts(folder, **given)
        with pytest.raises(DataError, match="holds an audit with 1 verdicts, comments or polygons of a person"):
            write_audit(predictions, folder, most=3, about=ABOUT)
    assert len(read_candidates(folder)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.geometry.iat[0].buffer(5), "redrew, changed or deleted candidates"),
        (lambda frame: frame.assign(note="ask Anna"), "added column note"),
        (lambda frame: frame.assign(objects="7"), "redrew, changed or deleted candidates"),
        (lambda frame: frame.iloc[1:], "redrew, changed or deleted candidates"),
    ],
)
def test_an_audit_whose_polygons_or_columns_a_person_changed_is_not_replaced(predictions, tmp_path, change, message):
    folder = write_audit(predictions, tmp_path / "audit", most=5, about=ABOUT).folder
    path = folder / "candidates.gpkg"
    frame = gpd.read_file(path, layer="candidates")
    changed = change(frame)
    if not isinstance(changed, gpd.GeoDataFrame):
        frame.loc[0, "geometry"], changed = changed, frame
    changed.to_file(path, layer="candidates")
    before = path.read_bytes()
    with pytest.raises(DataError, match=f"a person {message}"):
        write_audit(predictions, folder, most=3, about=ABOUT)
    assert path.read_bytes() == before


def test_an_audit_with_a_layer_or_a_table_of_a_person_is_not_replaced(predictions, tmp_path):
    folder = write_audit(predictions, tmp_path / "audit", most=5, about=ABOUT).folder
    table = pd.read_csv(folder / "candidates.csv", dtype=str)
    table.assign(seen_by="me").to_csv(folder / "candidates.csv", index=False)
    with pytest.raises(DataError, match="a person added column seen_by, which would be lost"):
        write_audit(predictions, folder, most=3, about=ABOUT)
    table.to_csv(folder / "candidates.csv", index=False)
    gpd.read_file(folder / "candidates.gpkg", layer="patches").to_file(folder / "candidates.gpkg", layer="notes")
    with pytest.raises(DataError, match="a person added layer notes, which would be lost"):
        write_audit(predictions, folder, most=3, about=ABOUT)


def test_what_a_person_put_beside_an_audit_is_never_replaced(audit, predictions):
    folder, candidates = audit[0].folder, audit[1]
    (folder / "verdicts.csv").write_text("id,verdict,comment\n1-1,wrong,\n")
    (folder / ".git").mkdir()
    with pytest.raises(DataError, match=r"other files, which would be lost: \.git, verdicts\.csv\."):
        write_audit(predictions, folder, most=3, about=ABOUT)
    assert (folder / "verdicts.csv").is_file()
    assert len(read_candidates(folder)) == len(candidates)
    (folder / "verdicts.csv").unlink()
    (folder / ".git").rmdir()
    (folder / ".DS_Store").touch()
    (folder / "candidates.gpkg-wal").touch()  # QGIS has it open
    table = pd.read_csv(folder / "candidates.csv", dtype=str)
    table.loc[1, "verdict"] = "right"
    table.to_csv(folder / "candidates.csv", index=False)
    with pytest.raises(DataError, match="holds an audit with 1 verdicts"):
        write_audit(predictions, folder, most=3, about=ABOUT)
    table.loc[1, "verdict"] = None
    table.to_csv(folder / "candidates.csv", index=False)
    write_audit(predictions, folder, most=3, about=ABOUT)
    assert len(read_candidates(folder)) == 3


@pytest.mark.parametrize("file", ["candidates.gpkg", "audit.html"])
def test_a_full_disk_is_that_of_the_folder_and_the_audit_before_stays(audit, predictions, file):
    folder, candidates = audit[0].folder, audit[1]
    size = (folder / file).stat().st_size
    with files_limited(size // 2), pytest.raises(DataError, match=rf"{folder} cannot be written(.|\n)*its disk"):
        write_audit(predictions, folder, most=500, about=ABOUT)
    assert len(read_candidates(folder)) == len(candidates)
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".partial")] == []


def test_somebody_elses_folder_is_never_touched(predictions, tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="exists and holds no audit"):
        write_audit(predictions, tmp_path / "audit", most=3, about=ABOUT)
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["thesis.txt"]


def test_verdicts_of_the_page_replace_those_of_the_file(audit, tmp_path):
    folder, candidates = audit[0].folder, audit[1]
    first, second = candidates["id"][:2]
    with_verdicts(folder, verdict="right")
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text(f'id,verdict,comment\n{second},Wrong,"a road, no scar"\n{first},,seen\n')
    found = read_candidates(folder, verdicts).set_index("id")
    assert found.loc[[first, second], "verdict"].tolist() == ["right", "wrong"]
    assert found.loc[[first, second], "comment"].tolist() == ["seen", "a road, no scar"]
    assert (found["verdict"][2:] == "").all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,verdict\n1-1000,wrong\n", "candidates that this audit does not have: 1-1000"),
        ("id\n1\n", "has no column verdict"),
        ("", "cannot be read"),
        ("id,verdict\n1-1,wrong\n1-1,right\n", "different verdicts of 1-1"),
    ],
)
def test_other_verdict_files_are_refused(audit, tmp_path, text, message):
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_candidates(audit[0].folder, path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_verdicts_that_a_spreadsheet_saved_are_read(audit, tmp_path, separator, encoding):
    first = audit[1]["id"][0]
    lines = [["id", " Verdict", "comment"], [f" {first}", "wrong ", "Fläche; Größe"], ["", "", ""]]
    text = "".join(separator.join(f'"{cell}"' if ";" in cell else cell for cell in line) + "\r\n" for line in lines)
    (tmp_path / "verdicts.csv").write_bytes(text.encode(encoding))
    found = read_candidates(audit[0].folder, tmp_path / "verdicts.csv")
    assert found.loc[0, ["verdict", "comment"]].tolist() == ["wrong", "Fläche; Größe"]
    assert (found["verdict"][1:] == "").all()


def test_unknown_verdicts_and_missing_files_are_named(audit, tmp_path):
    folder, candidates = audit[0].folder, audit[1]
    with_verdicts(folder, verdict="maybe")
    with pytest.raises(DataError, match=f"The verdict of candidate {candidates['id'][0]} is 'maybe'"):
        read_candidates(folder)
    with pytest.raises(DataError, match="cannot be read"):
        read_candidates(tmp_path)


def test_the_page_needs_nothing_else_and_shows_every_candidate(audit, predictions):
    page = (audit[0].folder / "audit.html").read_text()
    assert not re.search(r"(src|href)=.?https?://", page)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [one["id"] for one in data["candidates"]] == audit[1]["id"].tolist()
    assert {kind: change for kind, (_, _, change) in data["kinds"].items()} == CHANGES
    patch = data["patches"][str(predictions.table["number"][0])]
    assert patch["image"].startswith("data:image/jpeg;base64,")
    edges = re.findall(r"M(\d+) (\d+)([hv])(\d+)", patch["prediction"])
    length = sum(int(n) for *_, n in edges)
    assert length == 2 * (20 + 17) + 2 * (5 + 4)  # the outline and its hole
