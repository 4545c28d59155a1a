"""The comparison on real patches, here run on generated ones: it resumes, and its table agrees with its records."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from landslide.bands.formulas import BandSettings
from landslide.data import demo
from landslide.data.table import patch_table
from landslide.folds.parts import fold_parts
from landslide.folds.schemes import assign
from landslide.metrics.counts import scores
from steps.data_access import PatchSource
from steps.measure_bands import measure_bands
from steps.settings import DataSettings, FoldSettings
from steps.split import split
from tests.support import pipeline_runs
from tests.support.experiments import load

pytestmark = pytest.mark.slow
trained = pytest.mark.soak  # the results of three short trainings

SCRIPT = pipeline_runs.ROOT / "experiments" / "real_rgb.py"
RGB = ("B4", "B3", "B2")
RECIPE = "Lite U-Net, ImageNet, strong light, plain end"
GRID = {
    "data": {"root": "data", "positions": "auto"},
    "bands": {"stored": ["B4", "B3", "B2"]},
    "folds": {"scheme": "contiguous", "trained": [1, 3]},
    "seeds": [0],
    "training": {
        "bands": ["B4", "B3", "B2"],
        "standardize": True,
        "loss": "focal_lin+iou",
        "epochs": 2,
        "batch_size": 4,
        "max_patches": 8,
        "schedule": {"kind": "cosine", "peak": 1.0e-2},
        "augmentation": {"mode": "none"},
        "monitor_test_fold": True,
        "model": "unet",
        "model_options": {"width": 4, "batch_norm_momentum": 0.1},
    },
    "rows": [{"name": "U-Net"}, {"name": "U-Net, three heads", "training": {"model_options": {"heads": 3}}}],
}


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> Path:
    """Twenty generated patches with only red, green and blue bands."""
    import h5py

    folder = tmp_path_factory.mktemp("rgb")
    demo.generate(folder, scenes=((4, 5),))
    for path in (folder / "TrainData" / "img").iterdir():
        with h5py.File(path, "r+") as file:
            colours = file["img"][()][..., [3, 2, 1]]
            del file["img"]
            file["img"] = colours
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(yaml.safe_dump({"parameters": GRID}))
    return path


@pytest.fixture(scope="module")
def run():
    module = load("real_rgb")

    def call(*arguments: object) -> None:
        sys.argv = [str(SCRIPT), *map(str, arguments)]
        module.main()

    before, call.module = sys.argv, module
    yield call
    sys.argv = before


@pytest.fixture(scope="module")
def results(run, patches, config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    run("train", config, "--data", patches, "--out", folder)
    return folder


@trained
def test_every_row_and_fold_has_a_record_consistent_with_its_counts(results):
    records = sorted(results.glob("*.json"))
    assert [path.stem for path in records] == [
        f"{row}-fold{fold}-seed0" for row in ("U_Net", "U_Net__three_heads") for fold in (1, 3)
    ]
    for path in records:
        record, counts = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
        of_fold = scores(counts[["tn", "fp", "fn", "tp"]].sum().to_numpy().reshape(2, 2))
        assert record["scores"]["f1_macro"] == pytest.approx(of_fold["f1_macro"])
        turned = scores(counts[["tn_tta", "fp_tta", "fn_tta", "tp_tta"]].sum().to_numpy().reshape(2, 2))
        assert record["scores"]["f1_macro_tta"] == pytest.approx(turned["f1_macro"])
        assert set(counts["fold"]) == {record["fold"]}
        assert record["training_seconds"] > 0
        assert path.with_suffix(".safetensors").exists()
    assert not list(results.glob("*.checkpoints"))


@trained
def test_finished_folds_are_skipped_and_missing_ones_trained(run, results, patches, config):
    missing, *others = sorted(results.glob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in others}
    first = json.loads(missing.read_text())
    missing.unlink()
    run("train", config, "--data", patches, "--out", results, "--only", "U-Net")
    assert {path: path.stat().st_mtime_ns for path in others} == before
    again = json.loads(missing.read_text())
    assert again["scores"] == first["scores"]


@trained
@pytest.mark.parametrize("change", [{"epochs": 3}, {"loss": "iou"}])
def test_a_result_of_other_settings_is_refused(run, results, patches, tmp_path, change):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"parameters": GRID | {"training": GRID["training"] | change}}))
    with pytest.raises(SystemExit, match="other values of settings"):
        run("train", other, "--data", patches, "--out", results)
    with pytest.raises(SystemExit, match="other values of settings"):
        run("table", other, "--out", results)


@trained
def test_a_search_on_some_folds_is_not_a_result(run, results, patches, config, tmp_path):
    with pytest.raises(SystemExit, match="other values of without_folds"):
        run("train", config, "--data", patches, "--out", results, "--without", 2)
    with pytest.raises(SystemExit, match="Fold 1 is left out, and the grid tests on it"):
        run("train", config, "--data", patches, "--out", tmp_path, "--without", 1)
    found = copied(results, tmp_path / "search", without_folds=[2])
    with pytest.raises(SystemExit, match="other values of without_folds"):
        run("table", config, "--out", found)


@trained
def test_a_result_older_than_a_setting_counts_if_it_has_the_default(run, results, config, tmp_path):
    settings = json.loads(next(results.glob("U_Net-fold1*.json")).read_text())["settings"]
    assert settings["augmentation"]["flips"] is False
    older = {name: value for name, value in settings.items() if name != "average_decay"}
    older["augmentation"] = {name: value for name, value in settings["augmentation"].items() if name != "flips"}
    run("table", config, "--out", copied(results, tmp_path / "older", "U_Net-*", settings=older))
    del older["epochs"]
    with pytest.raises(SystemExit, match="other values of settings"):
        run("table", config, "--out", copied(results, tmp_path / "other", "U_Net-*", settings=older))


@trained
def test_clusters_are_tested_on_with_an_in_scene_part(run, patches, tmp_path, capsys):
    folds = {"scheme": "cluster", "n_folds": 3, "seed": 2, "gap": 0, "in_scene_fraction": 0.3, "trained": [2]}
    grid = GRID | {"folds": folds, "rows": GRID["rows"][:1]}
    config, found = tmp_path / "grid.yaml", tmp_path / "results"
    config.write_text(yaml.safe_dump({"parameters": grid}))
    run("train", config, "--data", patches, "--out", found)
    (path,) = found.glob("*.json")
    record, tested = json.loads(path.read_text()), pd.read_csv(path.with_suffix(".csv"))
    in_scene = pd.read_csv(path.with_suffix(".in_scene.csv"))
    assert not set(in_scene["number"]) & set(tested["number"])
    counted = scores(in_scene[["tn", "fp", "fn", "tp"]].sum().to_numpy().reshape(2, 2))
    assert record["scores"]["f1_macro_in_scene"] == pytest.approx(counted["f1_macro"])
    settings = FoldSettings(**folds)
    source = PatchSource(data=DataSettings(root=str(patches)), version="", bands=BandSettings(stored=RGB))
    listed = patch_table(patches)
    statistics = measure_bands.entrypoint(patch_table=listed, patches=source)
    table = split.entrypoint(patch_table=listed, folds=settings, band_statistics=statistics)
    assert tested["number"].tolist() == table.loc[table["fold"] == 2, "number"].tolist()
    assert in_scene["number"].tolist() == table.loc[fold_parts(table, 2, settings.hold_out).in_scene, "number"].tolist()
    capsys.readouterr()
    run("table", config, "--out", found)
    text = capsys.readouterr().out
    assert re.search(r"F1, in the cluster \| +F1, in another cluster", text)
    assert f"{100 * counted['f1_macro']:.2f}" in text
    config.write_text(yaml.safe_dump({"parameters": grid | {"folds": folds | {"seed": 3}}}))
    with pytest.raises(SystemExit, match="other values of folds"):
        run("table", config, "--out", found)


@trained
def test_only_the_patches_of_some_contiguous_folds_are_scored(run, patches, tmp_path):
    folds = {"scheme": "cluster", "n_folds": 2, "gap": 0, "in_scene_fraction": 0.2, "trained": [1, 2]}
    found = {}
    for name, scored in (("all", {}), ("some", {"scored": [1, 3]})):
        config = tmp_path / f"{name}.yaml"
        grid = GRID | {"folds": folds | scored, "rows": GRID["rows"][:1], "seeds": [0, 1]}
        config.write_text(yaml.safe_dump({"parameters": grid}))
        run("train", config, "--data", patches, "--out", tmp_path / name, "--seeds", 1, "--folds", 2)
        (path,) = (tmp_path / name).glob("*.json")
        assert path.stem == "U_Net-fold2-seed1"
        found[name] = pd.read_csv(path.with_suffix(".csv"))
    numbers = patch_table(patches)["number"]
    wanted = numbers[np.isin(assign(numbers.tolist(), scheme="contiguous"), (1, 3))]
    kept = found["all"][found["all"]["number"].isin(wanted)]
    assert 0 < len(kept) < len(found["all"])
    assert found["some"]["number"].tolist() == kept["number"].tolist()
    assert found["some"]["tp"].tolist() == kept["tp"].tolist()  # the same network


def test_folds_that_are_left_out_have_no_fold_and_do_not_change_the_others(run, patches):
    table = patch_table(patches)
    inside = np.isin(assign(table["number"].tolist(), scheme="contiguous"), (1, 3))
    grid = GRID | {"folds": {"scheme": "cluster", "n_folds": 2, "trained": [1], "left_out": [1, 3]}}
    folds = run.module.folds_of(grid, patches, table)
    assert (folds[inside] == 0).all()
    others = table[~inside]
    without = GRID | {"folds": {"scheme": "cluster", "n_folds": 2, "trained": [1]}}
    assert folds[~inside].tolist() == run.module.folds_of(without, patches, others).tolist()
    assert set(folds[~inside]) == {1, 2}


def copied(results: Path, folder: Path, only: str = "*", **changes) -> Path:
    """Copy the records, and change those whose name matches."""
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("caches"))
    for path in folder.glob(f"{only}.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@trained
def test_results_on_different_data_are_not_combined(run, results, config, tmp_path):
    with pytest.raises(SystemExit, match="different data"):
        run("table", config, "--out", copied(results, tmp_path / "row", "U_Net-*", data_version="another"))
    with pytest.raises(SystemExit, match="other values of data_version"):
        run("table", config, "--out", copied(results, tmp_path / "fold", "U_Net-fold1*", data_version="another"))


def fold_scores(results: Path, row: str, way: str = "") -> list[dict[str, float]]:
    cells = [f"{cell}{way}" for cell in ("tn", "fp", "fn", "tp")]
    tables = [pd.read_csv(path)[cells] for path in sorted(results.glob(f"{row}-fold*.csv"))]
    return [scores(table.sum().to_numpy().reshape(2, 2)) for table in tables]


def printed_rows(capsys) -> str:
    """What was printed, with single spaces between the cells of tables."""
    return re.sub(" +", " ", capsys.readouterr().out)


@trained
def test_the_table_has_both_variants_the_gains_and_the_selection_gap(run, results, config, capsys):
    run("table", config, "--out", results, "--gains-of", "U-Net", "--figures", "U-Net")
    plain, turned = printed_rows(capsys).split("# Mean of the eight symmetries")
    for printed, way in ((plain, ""), (turned, "_tta")):
        one, other = (fold_scores(results, row, way) for row in ("U_Net", "U_Net__three_heads"))
        gains = printed[printed.index("| gain of U-Net over |") :]
        for name in ("f1_macro", "miou", "f1_landslide"):
            first, second = (50 * sum(fold[name] for fold in folds) for folds in (one, other))
            assert f" {first:.2f} [" in printed
            assert f" {first - second:+.2f} [" in gains
    listed = [line.split(" | ") for line in turned.splitlines() if line.startswith(("| U-Net | 0 |", "| U-Net, three"))]
    found = [cells[3] for cells in listed if cells[1] == "0"]
    expected = [
        fold_scores(results, row)[fold]["f1_macro"] for row in ("U_Net", "U_Net__three_heads") for fold in (0, 1)
    ]
    assert found == [f"{100 * value:.2f}" for value in expected]
    gap = [json.loads(path.read_text())["scores"]["miou_selection_gap"] for path in results.glob("U_Net-fold*.json")]
    (line,) = (line for line in turned.splitlines() if line.startswith("| U-Net | 2 |"))
    assert line.split(" | ")[3] == f"{50 * sum(gap):+.2f}"
    assert {path.name for path in results.glob("*.png")} == {"calibration.png", "thresholds.png"}


@trained
def test_an_unfinished_row_is_not_compared(run, results, config, tmp_path, capsys):
    found = copied(results, tmp_path / "part")
    next(found.glob("U_Net-fold3*.json")).unlink()
    capsys.readouterr()
    run("table", config, "--out", found)
    compared, _, listed = printed_rows(capsys).partition("| training | seed |")
    assert "| U-Net | " not in compared
    assert "| U-Net, three heads | " in compared
    assert "| U-Net | 0 | 1 | " in listed
    assert "| U-Net | 0 | 3 | " not in listed
    with pytest.raises(SystemExit, match="'U-Net' is not trained on all folds"):
        run("table", config, "--out", found, "--gains-of", "U-Net")


def test_settings_equal_those_of_the_ablation_pipeline(run):
    from pydantic import TypeAdapter

    from landslide.bands.formulas import BandSettings
    from landslide.training.fold import TrainingSettings
    from pipelines.grid import RowSettings, expand_rows
    from steps.settings import EvaluationSettings, FoldSettings

    parameters = run.module.read_grid(pipeline_runs.ROOT / "configs" / "real_rgb.yaml")
    rows = expand_rows(
        [RowSettings(**row) for row in parameters["rows"]],
        bands=TypeAdapter(BandSettings).validate_python(parameters["bands"]),
        folds=TypeAdapter(FoldSettings).validate_python(parameters["folds"]),
        training=TypeAdapter(TrainingSettings).validate_python(parameters["training"]),
        evaluation=EvaluationSettings(**parameters["evaluation"]),
        seeds=parameters["seeds"],
    )
    for row, values in zip(rows, parameters["rows"], strict=True):
        for training in row.trainings:
            assert run.module.settings_of(parameters["training"], values, training.seed) == training


def test_a_schedule_of_steps_is_one(run, tmp_path):
    path = tmp_path / "grid.yaml"
    steps = {"kind": "steps", "rates": [[8, 1e-3], [12, 1e-4]]}
    path.write_text(yaml.safe_dump({"parameters": GRID | {"training": GRID["training"] | {"schedule": steps}}}))
    parameters = run.module.read_grid(path)
    (settings, _) = (run.module.settings_of(parameters["training"], row, 0) for row in parameters["rows"])
    assert settings.schedule.rates == ((8, 1e-3), (12, 1e-4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"folds": {"scheme": "random", "trained": [1]}}, "folds.scheme"),
        ({"folds": {"n_folds": 3, "trained": [1]}}, "folds.n_folds has no effect"),
        ({"folds": {"trained": [6]}}, "folds.trained has 6, and there are 5 folds"),
        ({"folds": {"scheme": "scene", "n_folds": 3, "trained": [0]}}, "folds.trained has 0, and there are 3 folds"),
        ({"folds": {"scheme": "cluster", "gap": -1, "trained": [1]}}, "folds.gap is -1"),
        ({"folds": {"scheme": "cluster", "scored": [1, 6], "trained": [1]}}, "folds.scored has 6"),
        ({"folds": {"scheme": "cluster", "left_out": [0], "trained": [1]}}, "folds.left_out has 0"),
        ({"folds": {"scheme": "contiguous", "scored": [1], "trained": [1]}}, "folds.scored has no effect"),
        ({"folds": {"scheme": "cluster", "gap": 1.5, "trained": [1]}}, "folds.gap is 1.5"),
        ({"folds": {"scheme": "cluster", "in_scene_fraction": float("nan"), "trained": [1]}}, "in_scene_fraction nan"),
        (
            {"training": GRID["training"] | {"selection": "test_fold", "monitor_test_fold": False}},
            "another selection",
        ),
        ({"training": GRID["training"] | {"prediction": {"heads": "average"}}}, "has a training.prediction"),
        ({"evaluation": {"test_time_augmentation": "rotations"}}, "has to be flips_and_rotations"),
        ({"rows": [{"name": "U-Net", "bands": {"dtype": "float32"}}]}, "U-Net has 'bands'"),
        ({"rows": [{"name": "U-Net", "training": {"epoch": 3}}]}, "grid.yaml is no grid: .*'epoch'"),
        ({"rows": [{"training": {}}]}, "grid.yaml is no grid: KeyError: 'name'"),
        ({"folds": 3}, "grid.yaml is no grid"),
        ({"data": None}, "grid.yaml is no grid"),
        ({"rows": [{"name": 3}]}, "grid.yaml is no grid"),
        ({"bands": {"stored": None}}, "grid.yaml is no grid"),
        ({"bands": {"stored": ["B99"]}}, "B99"),
        ({"data": {"positions": "auto", "fetch": True}}, "data has 'fetch'"),
        ({"data": {"positions": "scenes"}}, "data.positions is 'scenes'"),
        ({"rows": []}, "nothing to train"),
        ({"seeds": []}, "nothing to train"),
        ({"training": GRID["training"] | {"schedule": {"kind": "cosin"}}}, "kind is 'cosin'"),
        ({"training": GRID["training"] | {"augmentation": {"mode": "published", "haze": 2}}}, "out of range"),
    ],
)
def test_an_unsupported_grid_is_refused(run, patches, tmp_path, change, named):
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"parameters": GRID | change}))
    with pytest.raises(SystemExit, match=named):
        run("train", path, "--data", patches, "--out", tmp_path)


@pytest.mark.parametrize(
    ("content", "named"),
    [(None, "No such file"), ("parameters: [", "flow"), ("a: 1\na: 2", "occurs twice"), ("rows: []", "'parameters'")],
)
def test_a_file_that_is_no_grid_is_named(run, tmp_path, content, named):
    path = tmp_path / "grid.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit, match=f"grid.yaml .*(?s:.*){named}"):
        run("table", path, "--out", tmp_path)


@pytest.mark.parametrize(("option", "value"), [("--folds", 2), ("--seeds", 7)])
def test_folds_and_seeds_outside_the_grid_are_refused(run, patches, config, tmp_path, option, value):
    with pytest.raises(SystemExit, match=f"{option} has {value}"):
        run("train", config, "--data", patches, "--out", tmp_path, option, value)
    assert list(tmp_path.iterdir()) == []


def test_missing_patches_are_named_without_a_traceback(run, config, tmp_path):
    with pytest.raises(SystemExit, match="nowhere"):
        run("train", config, "--data", tmp_path / "nowhere", "--out", tmp_path / "out")


@trained
@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        *(("json", content) for content in ("{", "{}", "[]", "null", "3", '{"settings": {}}')),
        *(("csv", content) for content in ("", None, "number\n1")),
    ],
)
def test_a_damaged_record_is_named(run, results, config, tmp_path, suffix, content):
    folder = copied(results, tmp_path / "damaged")
    path = folder / f"U_Net-fold1-seed0.{suffix}"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(SystemExit, match=f"{path.name} is missing or damaged.*\n.*Delete .*seed0.json and train again"):
        run("table", config, "--out", folder)


@trained
def test_an_unknown_row_is_named(run, results, patches, config):
    for arguments in (
        ["train", config, "--data", patches, "--only", "U-net"],
        ["table", config, "--gains-of", "U-net"],
    ):
        with pytest.raises(SystemExit, match="has no row 'U-net'"):
            run(*arguments, "--out", results)


def test_a_table_without_results_is_an_error(run, config, tmp_path):
    with pytest.raises(SystemExit, match="has no row"):
        run("table", config, "--out", tmp_path)


@pytest.mark.parametrize(
    ("name", "folder", "more"),
    [
        ("configs/real_rgb", ".", ["--gains-of", RECIPE]),
        ("experiments/real_rgb_clusters", "clusters", ["--gains-of", RECIPE]),
        ("configs/record_to_text_rgb", "record_to_text_rgb", []),
    ],
)
def test_the_results_page_agrees_with_the_records(name, folder, more, run, capsys):
    page = (pipeline_runs.ROOT / "docs" / "explanation" / "results.md").read_text().splitlines()
    config, records = pipeline_runs.ROOT / f"{name}.yaml", pipeline_runs.ROOT / "docs" / "results" / folder
    capsys.readouterr()
    run("table", config, "--out", records, *more)
    plain, turned = capsys.readouterr().out.split("# Mean of the eight symmetries")
    shown = turned[turned.index("| gain of" if more else "| training") :]
    lines = [line for text in (plain, shown) for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > 15
    assert [line for line in lines if line not in page] == []
