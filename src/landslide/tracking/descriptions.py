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
    return (
        f"{text}**In service:** version {champion['version']} (`@champion`){f': {reason}' if reason else ''}.\n\n"
        + _table(["cross-validated score", ""], scores)
        + "\n"
    )


def _percent(score: float) -> str:
    return f"{100 * score:.2f} %"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
