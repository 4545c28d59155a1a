"""Trains the demo with three seeds, records the scores, and writes the figures of the documentation from the record.

    source activate.sh
    python experiments/demo.py train    # docs/results/demo.json and two pictures; about ten minutes on two cores
    python experiments/demo.py write    # the tables between <!-- demo: ... --> and <!-- end --> in the pages

Folds of a run that is in MLflow already are not trained again.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from landslide.metrics.counts import METRIC_NAMES

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "demo.yaml"
RECORD = ROOT / "docs" / "results" / "demo.json"
PAGES = (ROOT / "docs" / "explanation" / "results.md", ROOT / "docs" / "tutorial.md")
IMAGES = {"roc": "detection_roc", "predictions": "predictions"}
SEEDS = (1, 2, 3)  # the first one is that of the configuration


def train() -> None:
    """Train, and write the record and the pictures of the first seed."""
    parameters = yaml.safe_load(CONFIG.read_text())["parameters"]
    assert parameters["training"]["seed"] == SEEDS[0]
    record: dict[str, Any] = {"seeds": {str(seed): _run({"training.seed": seed}) for seed in reversed(SEEDS)}}
    _save_images(record["seeds"][str(SEEDS[0])].pop("run_id"))
    rates = [[epoch // 2, rate] for epoch, rate in parameters["training"]["schedule"]["rates"]]
    changes = {
        "training.epochs": parameters["training"]["epochs"] // 2,
        "training.schedule.rates": rates,
        "folds.trained": [1, 3],
    }
    record["short"] = {"changes": changes, "mean": _run(changes)["mean"]}  # what the tests train
    for one in record["seeds"].values():
        one.pop("run_id", None)
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


def _run(changes: dict[str, Any]) -> dict[str, Any]:
    from landslide.paths import default_tracking_uri
    from landslide.tracking import metric_keys, runs
    from pipelines.training import training_pipeline

    training_pipeline.run_changed(CONFIG, changes)
    run = runs.latest_cross_validation(runs.connect(default_tracking_uri()))
    scores = runs.fetch_json(run.info.run_id, "scores.json")
    chosen = {name: round(value, 6) for name, value in metric_keys.metrics(run).items() if "head_average" not in name}
    folds = {fold: {name: round(one[name], 6) for name in METRIC_NAMES} for fold, one in scores["folds"].items()}
    return {"run_id": run.info.run_id, "folds": folds, "mean": chosen}


def _save_images(run_id: str) -> None:
    import mlflow

    for figure, image in IMAGES.items():
        path = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/figures/{figure}.png"))
        (ROOT / "docs" / "images" / f"{image}.png").write_bytes(path.read_bytes())


def write() -> None:
    """Write the figures of the record into the pages."""
    for path in PAGES:
        path.write_text(filled(path.read_text(), json.loads(RECORD.read_text())))


def filled(page: str, record: dict[str, Any]) -> str:
    """Return a page with the marked parts written from the record."""
    parts = {"report": _report, "seeds": _seeds, "detection": _detection}

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}{parts[found[2]](record['seeds'])}{found[3]}"

    return re.sub(r"(<!-- demo: (\w+) -->\n\n).*?(\n\n<!-- end -->)", part, page, flags=re.DOTALL)


def _report(seeds: dict[str, Any]) -> str:
    """The end of the output of `make run`, as the tutorial shows it."""
    from landslide.data.demo import DEMO_VERSION
    from landslide.tracking.report import score_table

    one = seeds[str(SEEDS[0])]
    table = pd.DataFrame({f"fold {fold}": scores for fold, scores in one["folds"].items()}).T
    for name, ending in (("mean", ""), ("std", "_std")):
        table.loc[name] = [one["mean"][f"{column}{ending}"] for column in METRIC_NAMES]
    return (
        "```text\nrau_net 23 focal_lin+iou: 5 folds (contiguous), epoch chosen on an inner validation part\n\n"
        f"{score_table(table)}\n...\n"
        "model          landslide-segmentation version 1, @champion (no model was in service)"
        f"\ndata version   {DEMO_VERSION}\nlook further   make ui\n```"
    )


def _seeds(seeds: dict[str, Any]) -> str:
    lines = ["| seed | F1 | mIoU | landslide F1 | landslide F1 of the folds |", "|---|---|---|---|---|"]
    for seed, one in sorted(seeds.items()):
        scores = " | ".join(f"{100 * one['mean'][name]:.1f}" for name in ("f1_macro", "miou", "f1_landslide"))
        folds = ", ".join(f"{100 * fold['f1_landslide']:.1f}" for fold in one["folds"].values())
        lines.append(f"| {seed} | {scores} | {folds} |")
    return "\n".join(lines)


def _detection(seeds: dict[str, Any]) -> str:
    def percent(name: str) -> str:
        return f"{100 * mean[name]:.1f}"

    mean = seeds[str(SEEDS[0])]["mean"]
    interval = f"({percent('detection_f1_low')} to {percent('detection_f1_high')})"
    return "\n".join(
        [
            "| | all patches | mean of the folds |",
            "|---|---|---|",
            f"| F1 at 0.5 (95 % interval) | {percent('detection_f1_pooled')} {interval} | {percent('detection_f1')} |",
            f"| precision, recall at 0.5 | | {percent('detection_precision')}, {percent('detection_recall')} |",
            f"| area under the ROC curve | {percent('detection_auc_pooled')} | {percent('detection_auc')} |",
            f"| average precision | {percent('detection_average_precision_pooled')} "
            f"| {percent('detection_average_precision')} |",
        ]
    )


if __name__ == "__main__":
    {"train": train, "write": write}[sys.argv[1]]()
