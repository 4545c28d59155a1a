"""The configurations of the paper's tables have its rows and figures, and equal rows share one run."""

import pytest
import yaml
from pydantic import TypeAdapter

from landslide.bands.formulas import BandSettings
from landslide.training.fold import TrainingSettings
from pipelines.grid import Row, RowSettings, expand_rows
from steps.settings import EvaluationSettings, FoldSettings
from tests.support import pipeline_runs

pytestmark = pytest.mark.slow

# F1, mIoU and parameters in millions, row by row (paper, Tables III to VI).
PUBLISHED = {
    "table3": [(67.83, 60.01), (68.28, 60.37), (68.20, 60.23), (69.05, 61.14)],
    "table4": [(69.05, 61.14), (69.39, 61.22), (69.83, 60.97), (69.96, 61.76), (69.91, 61.64), (68.54, 60.65)],
    "table5": [(69.96, 61.76), (70.45, 62.19), (70.82, 62.53), (71.26, 62.86), (71.45, 63.05), (72.07, 63.45)],
    "table6": [(77.19, 68.64, 29.8), (73.51, 67.20, 31.0), (84.07, 76.07, 24.8)],
}


def parameters(name: str) -> dict:
    return yaml.safe_load((pipeline_runs.ROOT / "configs" / f"{name}.yaml").read_text())["parameters"]


def validated(kind: type, values: dict):
    return TypeAdapter(kind).validate_python(values)


def resolved(name: str) -> list[Row]:
    found = parameters(name)
    return expand_rows(
        [RowSettings(**row) for row in found["rows"]],
        bands=validated(BandSettings, found.get("bands", {})),
        folds=validated(FoldSettings, found["folds"]),
        training=validated(TrainingSettings, found["training"]),
        evaluation=validated(EvaluationSettings, found.get("evaluation", {})),
        seeds=None,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_row_has_the_figures_of_the_paper(name):
    rows = parameters(name)["rows"]
    names = ("f1_macro", "miou", "parameters")
    assert [tuple(row["paper"][n] for n in names if n in row["paper"]) for row in rows] == PUBLISHED[name]


def settings_of(row: Row) -> tuple:
    return row.bands, row.folds, *row.trainings


def test_last_row_of_table6_is_the_run_of_paper_yaml():
    paper = parameters("paper")
    assert settings_of(resolved("table6")[-1]) == (
        validated(BandSettings, paper["bands"]),
        validated(FoldSettings, paper["folds"]),
        validated(TrainingSettings, paper["training"]),
    )


def test_rows_shared_by_two_tables_are_one_run():
    assert settings_of(resolved("table3")[-1]) == settings_of(resolved("table4")[0])
    assert settings_of(resolved("table4")[3]) == settings_of(resolved("table5")[0])
