"""The choice among the tests of a training: the authors' rule, and tests that are not finite."""

import math

import pandas as pd
import pytest

from landslide.metrics.counts import METRIC_NAMES
from landslide.metrics.selection import recorded_tests, replaces, selected_test, selection_scores

NAN = math.nan


def pairs(*values: tuple[float, float]) -> list[dict[str, float]]:
    return [{"f1_macro": f1, "miou": miou} for f1, miou in values]


def test_a_test_with_either_score_above_the_last_replacement_replaces_it():
    tests = pairs(
        (0.50, 0.50),  # kept first
        (0.40, 0.40),
        (0.45, 0.60),  # mIoU is higher, and both values are replaced
        (0.50, 0.55),  # F1 is higher than 0.45, although no higher than the first
        (0.50, 0.55),  # equal
        (0.49, 0.54),
    )
    assert [selected_test(tests[:n], "f1_macro or miou") for n in range(1, 7)] == [0, 0, 2, 3, 3, 3]
    assert selected_test(tests, "f1_macro") == 0
    assert selected_test(tests, "miou") == 2


@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["f1_macro", "miou", "loss"])
def test_a_test_that_is_not_finite_is_never_selected(name, value):
    finite = {"f1_macro": 0.1, "miou": 0.1, "loss": 1.0}
    better = {"f1_macro": 0.9, "miou": 0.9, "loss": 0.1, name: value}
    for select_by in ("f1_macro", "f1_macro or miou"):
        assert not replaces(better, {}, select_by)
        assert selected_test([better, finite, better], select_by) == 1
        assert selected_test([better, better], select_by) is None


def test_the_first_of_several_scores_decides_the_threshold():
    assert selection_scores("miou or f1_macro") == ("miou", "f1_macro")
    for wrong in ("f1", "", "miou or miou", "miou or", "miou and f1_macro"):
        with pytest.raises(ValueError, match=f"^{wrong}$"):
            selection_scores(wrong)


def test_tests_at_half_of_an_epoch_come_before_those_after_it():
    def of(prefix, value):
        return {f"{prefix}_{name}": value for name in (*METRIC_NAMES, "loss")}

    history = [
        {"epoch": 1, "train_loss": 1.0},
        {"epoch": 2, **of("validation", 0.2), **of("test", 0.3)},
        {"epoch": 3, **of("validation_half_epoch", 0.4), **of("validation", 0.5), **of("test", 0.6)},
    ]
    found = recorded_tests(history, "validation")
    assert [(test["epoch"], test["f1_macro"]) for test in found] == [(2, 0.2), (2.5, 0.4), (3, 0.5)]
    assert [(test["epoch"], test["loss"]) for test in recorded_tests(history, "test")] == [(2, 0.3), (3, 0.6)]


def test_the_rule_gives_the_recorded_means_from_the_recorded_tests(real_data):
    path = real_data.parent / "paper" / "record_tests.csv"
    if not path.exists():
        pytest.skip(f"the record of the authors' tests is not at {path}")
    record = pd.read_csv(path)
    trainings = {
        fold: tests.sort_values("test")[["f1_macro", "miou"]].to_dict("records")
        for fold, tests in record[record["network_input"] == "23_bands"].groupby("fold")
    }
    chosen = pd.DataFrame([tests[selected_test(tests, "f1_macro or miou")] for tests in trainings.values()])
    assert (100 * chosen.mean()).round(2).tolist() == [84.08, 76.07]
    last = {fold: round(100 * tests[-1]["f1_macro"], 2) for fold, tests in trainings.items() if len(tests) > 1}
    assert last == {1: 70.84, 3: 87.52, 4: 87.10, 5: 86.31}
    assert {len(tests) for fold, tests in trainings.items() if fold != 2} == {64 + 29}
