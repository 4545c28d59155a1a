"""Recorded trainings: their file, and our learning curves over them."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from landslide.ablation.record import read_recorded_tests
from landslide.ablation.report import recorded_curves_figure
from landslide.ablation.table import AblationRow, TrainedRow
from landslide.errors import ConfigurationError
from landslide.training.augmentation import AugmentationSettings
from landslide.training.settings import SelectionSchedule, TrainingSettings

SETTINGS = TrainingSettings(
    epochs=4, test_schedule=SelectionSchedule(first_epoch=2, half_epochs_from=3),
    augmentation=AugmentationSettings(plain_epochs=1),
)  # fmt: skip
F1 = [0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.fixture
def path(tmp_path) -> Path:
    lines = [("23", 1, test, f1, f1 / 2, 0.9) for test, f1 in enumerate(F1, start=1)] + [("23", 2, 1, 0.4, 0.3, 0.9)]
    table = pd.DataFrame(lines[::-1], columns=["network_input", "fold", "test", "f1_macro", "miou", "accuracy"])
    table.to_csv(tmp_path / "tests.csv", index=False)
    return tmp_path / "tests.csv"


def test_the_schedule_places_the_tests_and_a_single_one_is_the_last(path):
    assert read_recorded_tests(path, "23", SETTINGS) == {
        1: [[2, 0.5, 0.25], [2.5, 0.6, 0.3], [3, 0.7, 0.35], [3.5, 0.8, 0.4], [4, 0.9, 0.45]],
        2: [[4, 0.4, 0.3]],
    }


def test_the_record_of_the_authors_has_tests_after_epochs_2_to_65(real_data):
    path = real_data.parent / "paper" / "record_tests.csv"
    if not path.exists():
        pytest.skip(f"the record of the authors' tests is not at {path}")
    settings = TrainingSettings(test_schedule=SelectionSchedule(first_epoch=2, half_epochs_from=37))
    curves = read_recorded_tests(path, "23_bands", settings)
    assert {fold: (len(tests), tests[0][0], tests[-1][0]) for fold, tests in curves.items()} == {
        **dict.fromkeys((1, 3, 4, 5), (93, 2, 65)),
        2: (1, 65, 65),
    }


HEADER = "network_input,fold,test,f1_macro,miou\n"


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (lambda path: path.unlink(), "23", "cannot be read"),
        (lambda path: path.write_text(""), "23", "cannot be read"),
        (lambda path: path.write_text("fold,test,f1_macro,miou\n"), "23", "no column network_input"),
        (lambda path: None, "21", "no training '21'"),
        (lambda path: path.write_text(HEADER + "23,1,1,abc,0.5\n"), "23", "no numbers in the line '23,1,1,abc,0.5'"),
        (lambda path: path.write_text(HEADER + "23,1,-4,0.5,0.5\n"), "23", "no numbers in the line"),
        (lambda path: path.write_text(HEADER + "23,1,1,inf,0.5\n"), "23", "no numbers in the line"),
        (lambda path: path.write_text("\n".join(path.read_text().splitlines()[:-1])), "23", "4 tests of fold 1"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_what_is_wrong(path, change, name, message):
    change(path)
    with pytest.raises(ConfigurationError, match=message):
        read_recorded_tests(path, name, SETTINGS)


def test_our_curves_are_drawn_over_the_recorded_ones_of_the_same_fold(path):
    ours = [{"epoch": 2, "f1_macro": 0.3, "miou": 0.2}, {"epoch": 3.5, "f1_macro": 0.35, "miou": 0.25}]
    one = TrainedRow(0, "run", {}, pd.DataFrame(), 1.0, "", tests={1: ours, 3: ours})
    row = AblationRow("best", {}, 1, 1.0, (one, replace(one, seed=1)), read_recorded_tests(path, "23", SETTINGS))
    figure = recorded_curves_figure([row, replace(row, recorded={})], "record")
    f1, miou = figure.axes  # fold 2 has no training of ours, fold 3 no record
    assert f1.get_title() == "best, fold 1"
    recorded, first, second = f1.lines
    assert recorded.get_xdata().tolist() == [2, 2.5, 3, 3.5, 4]
    assert recorded.get_ydata().tolist() == pytest.approx([100 * value for value in F1])
    assert first.get_xydata().tolist() == second.get_xydata().tolist() == [[2, 30], [3.5, 35]]
    assert [text.get_text() for text in f1.get_legend().get_texts()] == ["record", "ours"]
    assert miou.lines[1].get_ydata().tolist() == [20, 25]
    assert recorded_curves_figure([replace(row, trained=())], "record") is None
