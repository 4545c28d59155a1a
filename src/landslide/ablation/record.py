"""The tests of recorded trainings, such as those of the paper's authors, to draw our learning curves over them.

The file is a CSV with a line per test: `network_input`, a name of the training; `fold`, its test fold; `test`, counted
from 1; `f1_macro` and `miou` in [0, 1]. Other columns are ignored.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from landslide.errors import ConfigurationError
from landslide.training.settings import TrainingSettings

SCORES = ("f1_macro", "miou")
_COLUMNS = ("network_input", "fold", "test", *SCORES)


def read_recorded_tests(path: Path, network_input: str, settings: TrainingSettings) -> dict[int, list[list[float]]]:
    """Read the tests of a recorded training.

    Args:
        path: The file.
        network_input: Name of the training.
        settings: Settings whose schedule says after which epoch each test was.

    Returns:
        By fold, [epoch, F1, mIoU] of every test, scores in [0, 1]; the epoch is 36.5 at half of the 37th. A fold with a
        single test has the last one.

    Raises:
        ConfigurationError: If the file cannot be read, lacks a column or the training, or has another number of tests
            than the schedule.
    """
    try:
        table = pd.read_csv(path, dtype={"network_input": str})
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The recorded tests {path} cannot be read: {error}.", remedy="Correct recorded_tests, or leave it out."
        ) from error
    missing = [column for column in _COLUMNS if column not in table]
    if missing:
        raise ConfigurationError(
            f"{path} has no column {missing[0]}.", remedy=f"It needs the columns {', '.join(_COLUMNS)}."
        )
    table = table[table["network_input"] == network_input]
    if table.empty:
        raise ConfigurationError(
            f"{path} has no training {network_input!r}.", remedy="Correct recorded_as, or leave it out."
        )
    numbers = table[["fold", "test", *SCORES]].apply(pd.to_numeric, errors="coerce")
    if len(wrong := table[~np.isfinite(numbers.to_numpy(float)).all(axis=1) | (numbers["test"] < 1)]):
        line = ",".join(map(str, wrong.iloc[0].tolist()))
        raise ConfigurationError(
            f"{path} has no numbers in the line {line!r}.",
            remedy=f"Write fold and test from 1 and finite {' and '.join(SCORES)}.",
        )
    table = table.assign(**{name: numbers[name] for name in numbers})
    schedule = settings.test_schedule
    epochs: list[float] = []
    for epoch in range(1, settings.epochs + 1):
        epochs += [epoch - 0.5] if schedule.at_half_of(epoch) else []
        epochs += [epoch] if schedule.after(epoch) else []
    curves = {}
    for fold, tests in table.sort_values("test").groupby("fold"):
        if len(tests) not in (1, len(epochs)):
            raise ConfigurationError(
                f"{path} has {len(tests)} tests of fold {fold}, and training.test_schedule {len(epochs)}.",
                remedy="Give the row the epochs and the test_schedule of the recorded training.",
            )
        scores = tests[list(SCORES)].to_numpy(float).tolist()
        curves[int(str(fold))] = [[epoch, *pair] for epoch, pair in zip(epochs[-len(scores) :], scores, strict=True)]
    return curves
