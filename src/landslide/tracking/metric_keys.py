"""Names of metrics in MLflow, which groups its charts by what is in front of a slash.

The seven scores at threshold 0.5, with their deviations over the folds, keep their names. All others go into groups:
`f1_macro_pooled` is `pooled/f1_macro` in MLflow, `validation_loss` is `validation/loss`. MLflow shows groups in the
order of the alphabet, and names without a group last. So the scores to look at first are also in a first group.
"""

from mlflow.entities import Run

_FIRST = "at 0.5"
_SHOWN_FIRST = ("f1_macro", "miou", "f1_landslide")
_PREFIXES = (
    *("champion", "challenger", "detection", "epoch", "new", "relabelled", "test", "train", "unchanged", "validation"),
)
_SUFFIXES = ("head_average", "in_scene", "pooled", "selection_gap", "test_selected", "tta", "tuned")
# Names without a prefix or suffix of these.
_OTHERS = {
    "learning_rate": "train",
    "brier_score": "calibration",
    "expected_calibration_error": "calibration",
    "threshold": "calibration",
}
_POOLED_ENDINGS = ("_low", "_high")  # of an interval, whose name does not say that it is that of the pooled score


def key(name: str) -> str:
    """Return what MLflow calls a metric.

    Args:
        name: As in docs/reference/metrics.md, such as `f1_macro_tuned_std`.
    """
    stem, std = (name.removesuffix("_std"), "_std") if name.endswith("_std") else (name, "")
    if stem in _OTHERS:
        return f"{_OTHERS[stem]}/{name}"
    for prefix in _PREFIXES:
        if name.startswith(f"{prefix}_"):
            return f"{prefix}/{name.removeprefix(f'{prefix}_')}"
    for suffix in _SUFFIXES:
        if stem.endswith(f"_{suffix}"):
            return f"{suffix}/{stem.removesuffix(f'_{suffix}')}{std}"
    if stem.endswith(_POOLED_ENDINGS) and "_difference" not in stem:
        return f"pooled/{name}"
    return name


def keys(name: str) -> list[str]:
    """Return under which keys a final score is recorded: that of `key`, and for some one in the group shown first."""
    return [key(name), *([f"{_FIRST}/{name}"] if name in _SHOWN_FIRST else [])]


def name(key: str) -> str:
    """Return the name of a metric that MLflow calls `key`; one without a group is its own name.

    Args:
        key: What `key` returned, or a name that was recorded before there were groups.
    """
    group, _, rest = key.rpartition("/")
    stem, std = (rest.removesuffix("_std"), "_std") if rest.endswith("_std") else (rest, "")
    if not group or _OTHERS.get(stem) == group:
        return rest
    if group in _PREFIXES:
        return f"{group}_{rest}"
    if group in _SUFFIXES and not (group == "pooled" and stem.endswith(_POOLED_ENDINGS)):
        return f"{stem}_{group}{std}"
    return rest if group in ("pooled", _FIRST) else key


def metrics(run: Run) -> dict[str, float]:
    """Return the metrics of a run by their names in docs/reference/metrics.md.

    A run that was scored before there were groups and again since has some under both names; those in groups are newer.
    """
    found = sorted(run.data.metrics.items(), key=lambda item: "/" in item[0])
    return {name(recorded): value for recorded, value in found}
