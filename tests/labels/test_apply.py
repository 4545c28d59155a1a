"""`landslide data apply`: which pixels change, in which patches, and that nothing is lost."""

import csv
import json
import subprocess
import sys
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from click.testing import CliRunner, Result
from pyproj import Transformer

from landslide.cli import main
from landslide.data.changed_labels import read_changed_patches
from landslide.data.check import check
from landslide.data.digests import directory_digest
from landslide.data.patches import read_mask
from landslide.data.project import forgotten_changes, replacing
from landslide.errors import DataError, LockedError
from landslide.labels.applying import install_changed
from landslide.labels.candidates import CANDIDATES
from landslide.labels.label_changes import plan_changes
from landslide.labels.objects import label_objects
from landslide.scenes.demo_scene import write_demo_scene
from landslide.schema import LABEL_CHANGES
from tests.support.audits import Judged, write_audit
from tests.support.patch_sets import build_image, image_path, mask_path, write_h5

pytestmark = pytest.mark.slow

OBJECT, OTHER, DIAGONAL = np.s_[10:20, 10:30], np.s_[60:64, 100:128], [(90 + i, 40 + i) for i in range(6)]
HOLE = np.s_[13:16, 15:20]


def apply(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "apply", *map(str, arguments)])


def build_set(root: Path, numbers=(1, 2, 3), scenes: str = "") -> Path:
    """Patches with three landslides each: with a hole, at the right edge, and of pixels that touch at corners."""
    for number in numbers:
        mask = np.zeros((128, 128), np.uint8)
        mask[OBJECT] = mask[OTHER] = 1
        mask[HOLE] = 0
        for at in DIAGONAL:
            mask[at] = 1
        write_h5(image_path(root, number), "img", build_image(number, 1))
        write_h5(mask_path(root, number), "mask", mask)
    if scenes:
        (root / "scenes.csv").write_text(scenes)
    return root


def masks(root: Path, numbers=(1, 2, 3)) -> dict[int, np.ndarray]:
    return {number: read_mask(mask_path(root, number)) for number in numbers}


def inside(polygon: shapely.Geometry) -> np.ndarray:
    """Pixels whose centre lies in a polygon in columns and rows of the patch."""
    rows, columns = np.mgrid[:128, :128] + 0.5
    return shapely.contains_xy(polygon, columns, rows)


def outline(mask: np.ndarray, number: int) -> shapely.Geometry:
    """The pixels of an object as a polygon in columns and rows."""
    cells = np.argwhere(label_objects(mask) == number)
    return shapely.union_all([shapely.box(column, row, column + 1, row + 1) for row, column in cells])


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LANDSLIDE = shapely.Polygon([(50.2, 30.1), (80.7, 33.3), (71.4, 55.9), (48.3, 41.8)])
GRID = "n,scene,row,column\n1,1,0,0\n2,1,0,1\n3,2,0,0\n"


def test_each_kind_of_verdict_changes_its_pixels_and_no_others(tmp_path):
    root = build_set(tmp_path / "set", scenes=GRID)
    before, old = masks(root), everything(root)
    judged = [
        Judged("no_landslide", 1, outline(before[1], 1), "1", comment="a field, ploughed"),
        Judged("no_landslide", 1, outline(before[1], 3), "3"),
        Judged("missing", 2, LANDSLIDE),
        Judged("outline", 3, LANDSLIDE, "1, 3"),
        Judged("no_landslide", 2, outline(before[2], 1), "1", "right"),
        Judged("no_landslide", 3, outline(before[3], 2), "2", "unsure"),
        Judged("missing", 1, LANDSLIDE, verdict=""),
    ]
    done = apply(write_audit(tmp_path / "audit", root, judged), "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert everything(root) == old
    expected = masks(root)
    expected[1][np.isin(label_objects(before[1]), (1, 3))] = 0
    expected[2][inside(LANDSLIDE)] = 1
    expected[3][np.isin(label_objects(before[3]), (1, 3))] = 0
    expected[3][inside(LANDSLIDE)] = 1
    after = masks(tmp_path / "new")
    for number, mask in expected.items():
        np.testing.assert_array_equal(after[number], mask)
    new = everything(tmp_path / "new")
    changed = {f"TrainData/mask/mask_{number}.h5" for number in (1, 2, 3)}
    assert {name for name in old if new[name] != old[name]} == changed
    assert set(new) == {*old, LABEL_CHANGES}
    report = check(tmp_path / "new", 1)
    assert (report.faults, report.warnings) == ([], [])
    added = sum(int((after[n] > before[n]).sum()) for n in before)
    removed = sum(int((after[n] < before[n]).sum()) for n in before)
    for line in (
        "verdicts: 4 wrong, 1 right, 1 unsure, 1 without verdict",
        "landslides: 2 removed, 1 added, 1 redrawn",
        "patches that change: 3 of 3 (1, 2, 3)",
        f"pixels: {added:,} added, {removed:,} removed",
        f"data version: {directory_digest(root)[0]}, then {directory_digest(tmp_path / 'new')[0]}",
        f"take it into use: landslide data use {tmp_path / 'new'} --bands B4",
    ):
        assert line in done.output.splitlines()
    shares = [sum(int(m.sum()) for m in of.values()) / (3 * 128**2) for of in (before, after)]
    assert "landslides cover {:.3f} % of the patches, then {:.3f} %".format(*(100 * s for s in shares)) in done.output
    lines = list(csv.DictReader((tmp_path / "new" / LABEL_CHANGES).open()))
    assert [(line["id"], line["kind"], line["patch"]) for line in lines] == [
        ("1-1", "no_landslide", "1"), ("1-2", "no_landslide", "1"), ("2-3", "missing", "2"), ("3-4", "outline", "3"),
    ]  # fmt: skip
    assert lines[0]["comment"] == "a field, ploughed"
    assert {line["data_version"] for line in lines} == {directory_digest(root)[0]}
    assert {line["model_version"] for line in lines} == {"3"}
    assert sum(int(line["pixels_added"]) for line in lines) == added
    assert sum(int(line["pixels_removed"]) for line in lines) == removed


def test_a_redrawn_polygon_counts_as_it_is_also_in_the_patches_beside_it(tmp_path):
    root = build_set(tmp_path / "set", scenes=GRID)
    before = masks(root)
    wide = shapely.Polygon([(100.3, 50.2), (150.8, 57.7), (160.1, 70.6), (110, 80)])  # of patch 1, far into patch 2
    larger = shapely.box(5, 5, 40, 25)
    judged = [Judged("missing", 1, wide), Judged("no_landslide", 3, larger, "1")]
    done = apply(write_audit(tmp_path / "audit", root, judged), "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    after = masks(tmp_path / "new")
    np.testing.assert_array_equal(after[1], before[1] | inside(wide))
    np.testing.assert_array_equal(after[2], before[2] | inside(shapely.affinity.translate(wide, -128)))
    assert (after[2] != before[2]).any()
    np.testing.assert_array_equal(after[3], before[3] & ~inside(larger))
    assert read_changed_patches(tmp_path / "new") == {1, 2, 3}
    lines = list(csv.DictReader((tmp_path / "new" / LABEL_CHANGES).open()))
    assert [(line["id"], line["patch"]) for line in lines] == [("1-1", "1"), ("1-1", "2"), ("3-2", "3")]


def test_patches_without_positions_stand_alone(tmp_path):
    root = build_set(tmp_path / "set")
    before = masks(root)
    wide = shapely.box(100, 20, 160, 50)
    done = apply(write_audit(tmp_path / "audit", root, [Judged("missing", 1, wide)]), "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    after = masks(tmp_path / "new")
    np.testing.assert_array_equal(after[1], before[1] | inside(wide))
    np.testing.assert_array_equal(after[2], before[2])


def test_overlapping_patches_change_together(tmp_path):
    """Patch 2 is 64 pixels further to the right: an outline of patch 1 is redrawn in both."""
    origin = "n,scene,row,column,name,crs,west,south,east,north\n"
    edges = [(500_000 + 640 * i, 4_998_720, 501_280 + 640 * i, 5_000_000) for i in range(2)]
    lines = [f"{i + 1},1,0,{i},valley,EPSG:32633,{','.join(map(str, at))}\n" for i, at in enumerate(edges)]
    root = build_set(tmp_path / "set", (1, 2), origin + "".join(lines))
    ground = np.zeros((128, 192), np.uint8)
    ground[30:50, 70:90] = ground[100:110, 20:40] = 1
    for number, part in ((1, np.s_[:, :128]), (2, np.s_[:, 64:])):
        write_h5(mask_path(root, number), "mask", ground[part])
    polygon = shapely.box(75, 35, 85, 60)
    audit = write_audit(tmp_path / "audit", root, [Judged("outline", 1, polygon, "1")])
    done = apply(audit, "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    ground[30:50, 70:90] = 0
    ground[35:60, 75:85] = 1
    after = masks(tmp_path / "new", (1, 2))
    np.testing.assert_array_equal(after[1], ground[:, :128])
    np.testing.assert_array_equal(after[2], ground[:, 64:])


def test_polygons_in_degrees_are_burnt_on_the_grids_of_two_zones(tmp_path):
    origin = "n,scene,row,column,name,crs,west,south,east,north\n"
    places = {1: ("EPSG:32633", 500_000), 2: ("EPSG:32634", 300_000), 3: ("EPSG:32733", 500_000)}
    lines = [f"{n},{n},0,0,scene {n},{crs},{west},4998720,{west + 1280},5000000\n" for n, (crs, west) in places.items()]
    root = build_set(tmp_path / "set", scenes=origin + "".join(lines))
    before = masks(root)
    judged = [Judged("no_landslide", 1, outline(before[1], 1), "1"), Judged("missing", 2, LANDSLIDE)]
    audit = write_audit(tmp_path / "audit", root, judged)
    frame = gpd.read_file(audit / CANDIDATES, layer="candidates")
    assert frame.crs == "EPSG:4326"
    done = apply(audit, "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    for number, polygon in ((1, frame.geometry[0]), (2, frame.geometry[1])):
        crs, west = places[number]
        rows, columns = np.mgrid[:128, :128] + 0.5
        longitude, latitude = Transformer.from_crs(crs, 4326, always_xy=True).transform(
            west + 10 * columns, 5_000_000 - 10 * rows
        )
        expected = shapely.contains_xy(polygon, longitude, latitude)
        assert expected.any()
        changed = masks(tmp_path / "new")[number] != before[number]
        np.testing.assert_array_equal(changed, expected & ((before[number] == 1) == (number == 1)))


def test_the_order_of_the_verdicts_has_no_influence(tmp_path):
    root = build_set(tmp_path / "set")
    judged = [
        Judged("no_landslide", 1, outline(masks(root)[1], 1), "1"),
        Judged("missing", 1, shapely.box(0, 0, 25, 15)),  # over a part of it
        Judged("outline", 1, shapely.box(90, 50, 128, 70), "2"),
    ]
    for name, order in (("one", judged), ("other", judged[::-1])):
        audit = write_audit(tmp_path / name / "audit", root, order)
        assert apply(audit, "-o", tmp_path / name / "new").exit_code == 0
    one, other = (masks(tmp_path / name / "new")[1] for name in ("one", "other"))
    np.testing.assert_array_equal(one, other)
    assert one[:15, :25].all()


def test_the_same_again_gives_the_same_bytes_and_later_changes_are_appended(tmp_path):
    root = build_set(tmp_path / "set")
    audit = write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)])
    for name in ("new", "again"):
        assert apply(audit, root, "-o", tmp_path / name).exit_code == 0
    assert everything(tmp_path / "new") == everything(tmp_path / "again")
    later = write_audit(tmp_path / "later", tmp_path / "new", [Judged("missing", 2, LANDSLIDE)])
    assert apply(later, "-o", tmp_path / "third").exit_code == 0
    first, third = ((tmp_path / name / LABEL_CHANGES).read_text() for name in ("new", "third"))
    assert third.startswith(first)
    assert [line["patch"] for line in csv.DictReader(third.splitlines())] == ["1", "2"]


def test_verdicts_are_applied_once_and_all_patches_with_other_masks_are_named(tmp_path):
    root = build_set(tmp_path / "set")
    judged = [Judged("missing", 1, LANDSLIDE), Judged("missing", 2, LANDSLIDE), Judged("missing", 3, LANDSLIDE)]
    audit = write_audit(tmp_path / "audit", root, judged)
    assert apply(audit, "-o", tmp_path / "new").exit_code == 0
    before = everything(tmp_path / "new")
    done = apply(audit, tmp_path / "new", "-o", tmp_path / "twice")
    assert done.exit_code == 1
    assert "3 faults" in done.output
    for number in (1, 2, 3):
        assert f"the mask of patch {number} is not the one that was looked at" in done.output
    assert everything(tmp_path / "new") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "new", "set"]


def test_a_polygon_that_a_person_drew_is_added_where_it_lies(tmp_path):
    root = build_set(tmp_path / "set", scenes=GRID)
    before = masks(root)
    drawn = shapely.affinity.affine_transform(LANDSLIDE, [1, 0, 0, -1, 128, 0])  # patch 2 lies right of patch 1
    judged = [Judged(" Missing", 3, LANDSLIDE), Judged(None, None, drawn), Judged(None, None, drawn, verdict="")]
    done = apply(write_audit(tmp_path / "audit", root, judged), "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(masks(tmp_path / "new")[2], before[2] | inside(LANDSLIDE))
    np.testing.assert_array_equal(masks(tmp_path / "new")[1], before[1])
    assert "note: 1 polygons were drawn and have no verdict" in done.output
    assert [line["id"] for line in csv.DictReader((tmp_path / "new" / LABEL_CHANGES).open())] == ["3-1", "drawn 1"]


def _no_gpkg(audit: Path) -> None:
    (audit / CANDIDATES).unlink()


def _no_record(audit: Path) -> None:
    (audit / "audit.json").write_text('{"data": ')


def _data_gone(audit: Path) -> None:
    path = audit / "audit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": "/nowhere/patches"}))


def _broken_mask(audit: Path) -> None:
    mask_path(audit.parent / "set", 2).write_bytes(b"")


@pytest.mark.parametrize(
    ("judged", "damage", "messages"),
    [
        ([], _no_gpkg, ["candidates.gpkg cannot be read", "landslide data audit"]),
        ([], _no_record, ["audit.json cannot be read"]),
        ([], _data_gone, ["/nowhere/patches does not exist"]),
        ([], _broken_mask, ["has faults", "mask_2.h5", "landslide data check"]),
        ([Judged("outline", 1, LANDSLIDE, "7"), Judged("outline", 1, LANDSLIDE, "")], None,
         ["2 faults", "objects is '7', and patch 1 has 3 labelled landslides", "objects is ''"]),
        ([Judged("wrong kind", 1, LANDSLIDE)], None, ["its kind is 'wrong kind'", "no_landslide, missing, outline"]),
        ([Judged("missing", 1, shapely.box(300, 300, 310, 310))], None, ["covers no centre of a pixel of patch 1"]),
        ([Judged(None, None, shapely.box(-900, 0, -800, 10))], None, ["drawn where no patch lies"]),
        ([Judged(None, None, shapely.box(10.1, -10.3, 10.3, -10.1))], None, ["covers no centre of a pixel of patch 1"]),
        ([Judged(None, None, shapely.box(0, -100, 900, -10))], None, ["drawn across scene 1, scene 2"]),
        ([Judged("missing", 1, shapely.Polygon())], None, ["it has no polygon"]),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_nothing_is_written(tmp_path, judged, damage, messages):
    root = build_set(tmp_path / "set", scenes=GRID)
    audit = write_audit(tmp_path / "audit", root, judged or [Judged("missing", 1, LANDSLIDE)])
    if damage:
        damage(audit)
    done = apply(audit, "-o", tmp_path / "new")
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    for message in (*messages, "\n  -> "):
        assert message in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "set"]


def test_folders_of_others_stay(tmp_path):
    root = build_set(tmp_path / "set")
    audit = write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("a week of work")
    for place, message in ((tmp_path / "full", "not an empty folder"), (root / "below", "inside the data set")):
        done = apply(audit, "-o", place)
        assert done.exit_code == 1
        assert message in done.output
    assert (tmp_path / "full/mine.txt").read_text() == "a week of work"
    done = apply(audit)
    assert done.exit_code == 1
    assert "is not ./data" in done.output


def in_qgis(audit: Path, **columns: object) -> Path:
    """Give the candidates these columns."""
    frame = gpd.read_file(audit / CANDIDATES, layer="candidates").assign(**columns)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")  # in pixels
        frame.to_file(audit / CANDIDATES, layer="candidates")
    return audit


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"patch": "one"}, "there is no patch one"),
        ({"patch": 1.5}, "there is no patch 1.5"),
        ({"patch": None}, "its column patch is empty"),
        ({"geometry": [shapely.Point(50.5, -50.5)]}, "it has no polygon"),
        ({"geometry": [shapely.LineString([(20, -20), (90, -70)])]}, "it has no polygon"),
        ({"geometry": [shapely.Polygon()]}, "it has no polygon"),
    ],
)
def test_columns_of_other_types_and_geometries_that_are_no_polygons_are_named(tmp_path, columns, message):
    root = build_set(tmp_path / "set")
    audit = in_qgis(write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)]), **columns)
    done = apply(audit, "-o", tmp_path / "new")
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "new").exists()


def test_numbers_of_patches_may_have_become_texts(tmp_path):
    root = build_set(tmp_path / "set")
    audit = in_qgis(write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)]), patch="1")
    assert "patches that change: 1 of 3 (1)" in apply(audit, "-o", tmp_path / "new").output


def test_a_polygon_that_crosses_itself_counts_though_its_halves_cancel_out(tmp_path):
    root = build_set(tmp_path / "set")
    crossed = shapely.Polygon([(40, 40), (60, 60), (60, 40), (40, 60)])
    assert crossed.area == 0
    done = apply(write_audit(tmp_path / "audit", root, [Judged("missing", 1, crossed)]), "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    mask = masks(tmp_path / "new", (1,))[1]
    assert [mask[50, 42], mask[50, 57], mask[42, 50]] == [1, 1, 0]


def test_a_layer_without_geometries_and_a_record_of_another_kind_are_refused(tmp_path):
    root = build_set(tmp_path / "set")
    audit = write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)])
    record = json.loads((audit / "audit.json").read_text())
    (audit / "audit.json").write_text(json.dumps(record | {"data": 5}))
    assert "it names the data set 5" in apply(audit, "-o", tmp_path / "new").output
    (audit / "audit.json").write_text(json.dumps(record))
    frame = gpd.read_file(audit / CANDIDATES, layer="candidates").drop(columns="geometry")
    (audit / CANDIDATES).unlink()
    pyogrio.write_dataframe(frame, audit / CANDIDATES, layer="candidates", driver="GPKG")
    assert "has no column geometry" in apply(audit, "-o", tmp_path / "new").output


def test_a_data_set_that_moved_can_be_named(tmp_path):
    root = build_set(tmp_path / "set")
    audit = write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)])
    root.rename(tmp_path / "elsewhere")
    done = apply(audit, "-o", tmp_path / "new")
    assert "Say where it is now: `landslide data apply AUDIT DIR`" in done.output
    done = apply(audit, tmp_path / "elsewhere", "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output


def test_verdicts_of_the_page_count_and_a_dry_run_writes_nothing(tmp_path):
    root = build_set(tmp_path / "set")
    audit = write_audit(tmp_path / "audit", root, [Judged("missing", n, LANDSLIDE, verdict="") for n in (1, 2)])
    nothing = apply(audit, "-o", tmp_path / "new")
    assert nothing.exit_code == 0
    assert "nothing was written: no label changes" in nothing.output
    (tmp_path / "verdicts.csv").write_text("id,verdict,comment\n1-1,wrong,seen in the field\n2-2,right,\n")
    given = (audit, "-o", tmp_path / "new", "--verdicts", tmp_path / "verdicts.csv")
    dry = apply(*given, "--dry-run")
    assert dry.exit_code == 0
    assert "patches that change: 1 of 3 (1)" in dry.output
    assert "nothing was written: a dry run" in dry.output
    assert not (tmp_path / "new").exists()
    assert apply(*given).exit_code == 0
    assert [line["comment"] for line in csv.DictReader((tmp_path / "new" / LABEL_CHANGES).open())] == [
        "seen in the field"
    ]


def run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_data_of_a_project_are_replaced_and_the_old_masks_stay_under_dvc(tmp_path, monkeypatch):
    project = tmp_path / "project"
    project.mkdir()
    root = build_set(project / "data")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    run(project, *git, "init", "-q")
    run(project, sys.executable, "-m", "dvc", "init", "-q")
    monkeypatch.chdir(project)
    audit = write_audit(tmp_path / "audit", root, [Judged("missing", 1, LANDSLIDE)])
    before, version = everything(root), directory_digest(root)[0]
    for options in ([], ["--dry-run"]):
        unpinned = apply(audit, *options)
        assert unpinned.exit_code == 1
        assert "./data is not pinned in data.dvc" in unpinned.output
        assert everything(root) == before
    run(project, sys.executable, "-m", "dvc", "add", "-q", "data")
    run(project, *git, "add", "-A")
    run(project, *git, "commit", "-qm", "Data")
    stale = plan_changes(write_audit(tmp_path / "other", root, [Judged("missing", 1, LANDSLIDE)]))
    done = apply(audit)
    assert done.exit_code == 0, done.output
    new = directory_digest(root)[0]
    with pytest.raises(DataError, match="has changed meanwhile"):
        install_changed(stale, project)
    with replacing(project), pytest.raises(LockedError):
        install_changed(stale, project)
    assert directory_digest(root)[0] == new
    assert f"data version: {version}, then {new}" in done.output
    assert new in (project / "data.dvc").read_text()
    assert inside(LANDSLIDE)[read_mask(mask_path(root, 1)) == 1].any()
    later = write_audit(tmp_path / "later", root, [Judged("missing", 2, LANDSLIDE)])
    assert apply(later, "-o", tmp_path / "continued").exit_code == 0
    assert forgotten_changes(project, tmp_path / "continued") == ""
    (command,) = [line for line in done.output.splitlines() if line.startswith("  git add")]
    run(project, "bash", "-c", command.replace("git commit", " ".join(git) + " commit"))
    assert sorted(path.name for path in project.iterdir() if path.name.startswith(".data")) == []
    original = build_set(tmp_path / "original", (1, 2))
    used = CliRunner().invoke(main, ["data", "use", str(original), "--bands", "B4"])
    assert used.exit_code == 0, used.output
    assert f"note: labels of ./data were changed after an audit, and {original} does not" in used.output
    run(project, "git", "checkout", "-q", "HEAD~1", "data.dvc")
    run(project, sys.executable, "-m", "dvc", "checkout", "-q", "data.dvc")
    assert everything(root) == before


def test_scenes_whose_labels_changed_are_not_cut_again_and_others_are_added(tmp_path):
    for name, origin in (("valley", (500_000, 5_000_000)), ("ridge", (600_000, 5_000_000))):
        write_demo_scene(tmp_path / name, layout="stack", rows=1, columns=2, origin=origin)
        (tmp_path / name / "stack.tif").rename(tmp_path / name / f"{name}.tif")

    def tile(name: str, folder: Path) -> Result:
        labels = tmp_path / name / "landslides.gpkg"
        given = (tmp_path / name / f"{name}.tif", "--labels", labels, "--bands", "B4", "-o", folder)
        return CliRunner().invoke(main, ["data", "tile", *map(str, given)])

    assert tile("valley", tmp_path / "set").exit_code == 0
    audit = write_audit(tmp_path / "audit", tmp_path / "set", [Judged("missing", 2, LANDSLIDE)])
    done = apply(audit, "-o", tmp_path / "new")
    assert done.exit_code == 0, done.output
    before = everything(tmp_path / "new")
    again = tile("valley", tmp_path / "new")
    assert again.exit_code == 1
    assert "changed labels of valley" in again.output
    assert everything(tmp_path / "new") == before
    added = tile("ridge", tmp_path / "new")
    assert added.exit_code == 0, added.output
    assert "2 new, 0 changed, 2 unchanged, 0 removed" in added.output
    after = everything(tmp_path / "new")
    assert {name for name in before if after[name] != before[name]} == {"scenes.csv", "tiles.json"}
    assert tile("valley", tmp_path / "other").exit_code == 0  # the way out
