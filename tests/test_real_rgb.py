"""The comparison on real patches, here on generated ones: it goes on where it stood and tells what was scored."""

import importlib.util
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import running
import yaml

from landslide import demo
from landslide.metrics import scores

SCRIPT = running.ROOT / "benchmarks" / "real_rgb.py"
GRID = {
    "data": {"root": "data", "positions": "auto"},
    "bands": {"stored": ["B4", "B3", "B2"]},
    "folds": {"scheme": "contiguous", "trained": [1, 3]},
    "seeds": [0],
    "training": {
        "bands": ["B4", "B3", "B2"],
        "standardize": True,
        "loss": "focal_iou",
        "epochs": 2,
        "batch_size": 4,
        "max_patches": 8,
        "schedule": "cosine",
        "learning_rate": 1.0e-2,
        "augmentation": {"mode": "none"},
        "monitor_test_fold": True,
        "model": "unet",
        "model_options": {"width": 4, "batch_norm_momentum": 0.1},
    },
    "rows": [{"name": "U-Net"}, {"name": "U-Net, three heads", "training": {"model_options": {"heads": 3}}}],
}


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> Path:
    """Twenty generated patches, their red, green and blue bands alone."""
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
    specification = importlib.util.spec_from_file_location("real_rgb", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def call(*arguments: object) -> None:
        sys.argv = [str(SCRIPT), *map(str, arguments)]
        module.main()

    before = sys.argv
    yield call
    sys.argv = before


@pytest.fixture(scope="module")
def results(run, patches, config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    run("train", config, "--data", patches, "--out", folder)
    return folder


def test_every_row_and_fold_leaves_a_record_that_its_counts_bear_out(results):
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


def test_what_is_finished_is_not_trained_again_and_what_is_missing_is(run, results, patches, config):
    missing, *others = sorted(results.glob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in others}
    first = json.loads(missing.read_text())
    missing.unlink()
    run("train", config, "--data", patches, "--out", results, "--only", "U-Net")
    assert {path: path.stat().st_mtime_ns for path in others} == before
    again = json.loads(missing.read_text())
    assert again["scores"] == first["scores"]


@pytest.mark.parametrize("change", [{"epochs": 3}, {"loss": "iou"}])
def test_a_result_of_other_settings_is_refused(run, results, patches, tmp_path, change):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"parameters": GRID | {"training": GRID["training"] | change}}))
    with pytest.raises(SystemExit, match="trained with another settings"):
        run("train", other, "--data", patches, "--out", results)
    with pytest.raises(SystemExit, match="trained with other settings"):
        run("table", other, "--out", results)


def test_a_search_that_leaves_folds_out_is_no_result(run, results, patches, config):
    with pytest.raises(SystemExit, match="another without_folds"):
        run("train", config, "--data", patches, "--out", results, "--without", 2)


def test_the_table_has_both_ways_the_gains_and_the_cost_of_an_honest_choice(run, results, config, capsys):
    run("table", config, "--out", results, "--against", "U-Net, three heads", "--figures", "U-Net")
    printed = capsys.readouterr().out
    assert printed.index("One prediction a patch") < printed.index("Mean of the eight symmetries")
    assert printed.count("| over U-Net, three heads | F1 [95 %] |") == 2
    folds = [
        scores(pd.read_csv(path)[["tn", "fp", "fn", "tp"]].sum().to_numpy().reshape(2, 2))["f1_landslide"]
        for path in sorted(results.glob("U_Net-fold*.csv"))
    ]
    assert f"{50 * sum(folds):.2f} [" in printed
    gap = [json.loads(path.read_text())["scores"]["miou_selection_gap"] for path in results.glob("U_Net-fold*.json")]
    assert "| U-Net | 2 | " in printed
    assert f" {50 * sum(gap):+.2f} |" in printed
    assert {path.name for path in results.glob("*.png")} == {"calibration.png", "thresholds.png"}


def test_a_row_that_is_not_there_is_named(run, results, patches, config):
    for arguments in (["train", config, "--data", patches, "--only", "U-net"], ["table", config, "--against", "U-net"]):
        with pytest.raises(SystemExit, match="has no row 'U-net'"):
            run(*arguments, "--out", results)


def test_without_a_result_there_is_no_table(run, config, tmp_path):
    with pytest.raises(SystemExit, match="has no row"):
        run("table", config, "--out", tmp_path)
