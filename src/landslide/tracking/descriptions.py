"""Descriptions in Markdown, which MLflow shows on the pages of its experiment, runs and model."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of an experiment or a run."""
EXPERIMENT = """Cross-validations, retrainings and tables of ablations for landslide segmentation.

- Filter the runs by `tags.role = 'cross_validation'`, `'fold'`, `'retraining'`, `'ablation'` or
  `'held_out_evaluation'`.
- `f1_macro` and `miou` are the means over both classes (the paper's F1 and mIoU), at threshold 0.5. A run of a
  cross-validation has the mean over the folds, and `_std` their deviation.
- The other metrics are in groups, such as `pooled/` (all patches together), `tuned/` (at the chosen threshold),
  `detection/` (does a patch hold a landslide?) and `validation/` (of every epoch).
"""
HEADINGS = {
    "f1_macro": "F1",
    "miou": "mIoU",
    "f1_landslide": "landslide F1",
    "iou_landslide": "IoU",
    "precision_landslide": "precision",
    "recall_landslide": "recall",
    "accuracy": "accuracy",
}
"""What tables for people call the seven scores."""


_SIDE_BY_SIDE = ("f1_macro", "f1_landslide", "miou")


def side_by_side(scores: Mapping[str, Any], tested_on: str | None) -> str:
    """Say what a model scores on ground like that of its training, and on other ground; empty if that is unknown.

    Args:
        scores: Cross-validated scores from 0 to 1, or tags of a version.
        tested_on: What the test folds are to the training parts, such as `another scene`.
    """
    if not tested_on or "f1_macro_in_scene" not in scores:
        return ""
    here = tested_on.replace("another", "the")
    return "; ".join(
        f"{HEADINGS[name]} in {here} {100 * float(scores[f'{name}_in_scene']):.2f}, in {tested_on} "
        f"{100 * float(scores[name]):.2f}"
        for name in _SIDE_BY_SIDE
    )


def side_by_side_columns(tested_on: str) -> dict[str, tuple[str, str]]:
    """Return the columns of a table of both by metric name: the heading of the score, and the ground."""
    here = tested_on.replace("another", "the")
    return {
        f"{name}{ending}": (HEADINGS[name], f"in {ground}")
        for name in _SIDE_BY_SIDE
        for ending, ground in (("_in_scene", here), ("", tested_on))
    }


def cross_validation(run_id: str, scores: Mapping[str, Any], tags: Mapping[str, str], *, picture: bool) -> str:
    """Describe an evaluated cross-validation: its scores by fold, what was decided about its model, and predictions.

    Args:
        run_id: The parent run.
        scores: What the step `evaluate` returns.
        tags: The run's tags.
        picture: Whether the run has the figure of the predictions.
    """
    mean = scores["mean"]
    means = ["mean", *(_percent(mean[name]) for name in HEADINGS)]
    deviations = ["±", *(f"{100 * mean[f'{name}_std']:.2f}" for name in HEADINGS)]
    rows = [[fold, *(_percent(one[name]) for name in HEADINGS)] for fold, one in scores["folds"].items()]
    selected = "the test fold itself (the paper's protocol; optimistic)"
    if tags.get("selection") == "inner_validation":
        selected = "an inner validation part"
    parts = [
        _table(["fold", *HEADINGS.values()], [*rows, means, deviations]),
        f"At threshold 0.5; F1 and mIoU are means over both classes, the others are of the landslide class. The epoch "
        f"was chosen on {selected}; folds: {tags.get('fold_scheme')}.",
    ]
    if side_by_side(mean, tags.get("tested_on")):
        columns = side_by_side_columns(tags["tested_on"])
        by_fold = [[fold, *(_percent(one[name]) for name in columns)] for fold, one in scores["folds"].items()]
        of_mean = ["mean", *(_percent(mean[name]) for name in columns)]
        parts += [
            "The same networks on ground like that of their training, which they were not trained on, and on the test "
            f"folds ({tags['tested_on']}):",
            _table(["fold", *map(", ".join, columns.values())], [*by_fold, of_mean]),
        ]
    if "model_version" in tags:
        decision = tags.get("decision")
        parts.append(f"**Model:** version {tags['model_version']}{f', {decision}' if decision else ''}.")
    if picture:
        address = urlencode({"path": "figures/predictions.png", "run_uuid": run_id})
        parts.append(f"![Predictions, out of fold](get-artifact?{address})")
    return "\n\n".join(parts) + "\n"


def model(champion: Mapping[str, str] | None) -> str:
    """Describe the registered model by the version in service.

    Args:
        champion: Its tags and `version`; None if there is none.
    """
    text = "An ensemble of landslide segmentation networks, one per fold of a cross-validation.\n\n"
    if champion is None:
        return text + "No version is in service.\n"
    scores = [[heading, _percent(float(champion[name]))] for name, heading in HEADINGS.items() if name in champion]
    reason = champion.get("decision", "").partition(": ")[2]
    travels = side_by_side(champion, champion.get("tested_on"))
    return (
        f"{text}**In service:** version {champion['version']} (`@champion`){f': {reason}' if reason else ''}.\n\n"
        + _table(["cross-validated score", ""], scores)
        + "\n"
        + (f"\n{travels}.\n" if travels else "")
    )


def _percent(score: float) -> str:
    return f"{100 * score:.2f} %"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
