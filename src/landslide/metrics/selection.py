"""The choice among tests of one training: which scores decide, and when a later test replaces an earlier one."""

import math
from collections.abc import Iterable, Mapping

from landslide.metrics.counts import METRIC_NAMES

_OR = " or "


def selection_scores(select_by: str) -> tuple[str, ...]:
    """Return the names of the scores that `training.select_by` joins by "or"; the first also decides the threshold.

    Raises:
        ValueError: If one of them is no score, or occurs twice.
    """
    names = tuple(select_by.split(_OR))
    if not set(names) <= set(METRIC_NAMES) or len(set(names)) < len(names):
        raise ValueError(select_by)
    return names


def replaces(scores: Mapping[str, float], kept: Mapping[str, float], select_by: str) -> bool:
    """Return whether a test replaces the one that was kept last.

    It does if any of the scores is higher than at the last replacement, as in the authors' code. With two scores, one
    of them may be lower. A test of which any value is not finite never replaces another.

    Args:
        scores: Scores and loss of the test.
        kept: Scores of the test that was kept last; empty before the first.
        select_by: A score, or several joined by " or ".
    """
    if not all(map(math.isfinite, scores.values())):
        return False
    return not kept or any(scores[name] > kept[name] for name in selection_scores(select_by))


def selected_test(tests: Iterable[Mapping[str, float]], select_by: str) -> int | None:
    """Return the position of the test that is kept in the end; None if no test is finite.

    Args:
        tests: Scores of each test, in order.
        select_by: A score, or several joined by " or ".
    """
    kept: Mapping[str, float] = {}
    chosen = None
    for position, scores in enumerate(tests):
        if replaces(scores, kept, select_by):
            kept, chosen = scores, position
    return chosen


def recorded_tests(history: Iterable[Mapping[str, float]], part: str) -> list[dict[str, float]]:
    """Return the tests of a part in order: scores and loss, and `epoch`, which is 36.5 at half of the 37th epoch.

    Args:
        history: One record of metrics per epoch, as `landslide.training.fold` makes them.
        part: `validation`, the selection part, or `test`, a monitored test fold.
    """
    found = []
    for record in history:
        for prefix, back in ((f"{part}_half_epoch_", 0.5), (f"{part}_", 0.0)):
            scores = {name: record[prefix + name] for name in (*METRIC_NAMES, "loss") if prefix + name in record}
            if scores:
                found.append({"epoch": record["epoch"] - back if back else record["epoch"], **scores})
    return found
