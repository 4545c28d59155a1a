"""What the configurations of the paper say: the protocols of the record and of the text, and the way between them."""

import inspect
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from landslide.bands.formulas import BandSettings
from landslide.models.rau_net import RAUNet
from landslide.models.unet import UNet
from landslide.training.settings import SelectionSchedule, TrainingSettings
from pipelines.grid import Row, RowSettings, expand_rows
from steps.settings import EvaluationSettings, FoldSettings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECORD = {"normalization": "affine", "initialization": "keras", "dropout": 0.0}
RECORDED_LOSSES = {
    "cross_entropy", "focal", "iou", "focal_iou", "log_cosh", "tversky", "centre", "lovasz", "boundary",
}  # fmt: skip
TABLES = ("table3", "table4", "table5", "table6", "losses", "optimizers", "record_to_text")


def parameters(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["parameters"]


def training(name: str) -> TrainingSettings:
    return TypeAdapter(TrainingSettings).validate_python(parameters(name)["training"])


def rows(name: str) -> dict[str, Row]:
    grid = parameters(name)
    return {
        row.name: row
        for row in expand_rows(
            TypeAdapter(tuple[RowSettings, ...]).validate_python(grid["rows"]),
            bands=TypeAdapter(BandSettings).validate_python(grid.get("bands", {})),
            folds=TypeAdapter(FoldSettings).validate_python(grid["folds"]),
            training=training(name),
            evaluation=EvaluationSettings(),
            seeds=grid.get("seeds"),
        )
    }


def follows_the_record(settings: TrainingSettings) -> bool:
    return (
        {name: settings.model_options.get(name) for name in RECORD} == RECORD
        and settings.order == "natural"
        and settings.select_by == "f1_macro or miou"
        and settings.test_schedule == SelectionSchedule(first_epoch=2, half_epochs_from=37)
        and set(settings.loss.split("+")) <= RECORDED_LOSSES
    )


def effective(settings: TrainingSettings) -> dict[str, Any]:
    """All settings, flat, with the defaults of the network's options."""
    options = inspect.signature({"rau_net": RAUNet, "unet": UNet}[settings.model]).parameters
    written = {f"model_options.{name}": value for name, value in settings.model_options.items()}
    defaults = {f"model_options.{name}": option.default for name, option in options.items() if name != "in_channels"}
    return {**asdict(settings), "model_options": None, **defaults, **written}


@pytest.mark.parametrize("name", ["paper", "honest", "sentinel_only"])
def test_the_best_network_is_trained_as_in_the_record(name):
    settings = training(name)
    assert follows_the_record(settings)
    assert settings.loss == "focal_iou"
    assert settings.selection == ("test_fold" if name == "paper" else "inner_validation")


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_follow_the_record(name):
    for row in rows(name).values():
        assert row.trainings[0].selection == "test_fold"
        # The challenge has a protocol of its own, and losses are named after other publications in parentheses.
        other = row.name == "Landslide4Sense baseline" or (name == "losses" and "(" in row.name)
        other |= name == "record_to_text" and row.name != "record"
        assert follows_the_record(row.trainings[0]) != other, row.name


def test_the_text_is_the_defaults_but_for_the_selection():
    assert effective(training("paper_text")) == effective(TrainingSettings(selection="test_fold"))


def test_every_row_from_the_record_to_the_text_takes_one_step_towards_it():
    grid = {name: effective(row.trainings[0]) for name, row in rows("record_to_text").items()}
    record, text = grid.pop("record"), grid.pop("text")
    assert record == effective(training("paper"))
    assert text == effective(training("paper_text"))
    together: dict[str, Any] = {}
    for name, row in grid.items():
        changed = {key for key in row if row[key] != record[key]}
        assert len(changed) == 1 or changed == {"select_by", "test_schedule"}, name
        assert all(row[key] == text[key] for key in changed), name
        assert not changed & set(together), name
        together |= {key: row[key] for key in changed}
    assert {**record, **together} == text


def test_the_small_grid_has_the_same_steps_as_the_large_one():
    small, large = (parameters(name)["rows"] for name in ("record_to_text_rgb", "record_to_text"))
    assert [row["name"] for row in small] == [row["name"] for row in large]
    for one, other in zip(small, large, strict=True):
        changes = [dict(row.get("training", {})) for row in (one, other)]
        for change in changes:  # a short training needs another momentum
            change["model_options"] = {
                key: value for key, value in change.get("model_options", {}).items() if key != "batch_norm_momentum"
            }
        assert changes[0] == changes[1]


def test_the_network_of_table_6_is_that_of_the_paper_configuration():
    best = rows("table6")["RAU-Net, the best network"].trainings[0]
    assert effective(best) == effective(replace(training("paper"), bands=best.bands))
