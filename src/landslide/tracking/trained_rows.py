"""Reads the cross-validations of an ablation's rows from MLflow."""

from io import StringIO

import pandas as pd

from landslide.ablation.table import CELLS, SCORES, UNKNOWN, VARIANTS, TrainedRow
from landslide.metrics.selection import recorded_tests
from landslide.tracking import metric_keys, runs
from landslide.tracking.runs import MlflowClient


def read_trained_row(client: MlflowClient, run_id: str, seed: int) -> TrainedRow:
    """Read the results of a cross-validation from MLflow.

    Args:
        client: The tracking client.
        run_id: Its parent run.
        seed: Its seed.
    """
    run = client.get_run(run_id)
    folds = {fold: client.get_run(child) for fold, child in sorted(runs.fold_runs(client, run_id).items())}
    failures = [
        f"fold {fold}: {child.data.tags.get('failure', 'not trained')}"
        for fold, child in folds.items()
        if child.info.status != "FINISHED"
    ]
    if not failures and "evaluated" not in run.data.tags:
        failures = ["not evaluated"]
    if failures:
        return TrainedRow(seed, run_id, run.data.tags, pd.DataFrame(), UNKNOWN, "; ".join(failures))
    patches = pd.read_csv(StringIO(runs.fetch_reports(client, run_id)["patches.csv"]))
    seconds = [
        sum(epoch.get("epoch_seconds", 0.0) for epoch in runs.epoch_records(client, child.info.run_id))
        for child in folds.values()
    ]
    metrics = metric_keys.metrics(run)
    return TrainedRow(
        seed=seed,
        run_id=run_id,
        tags=run.data.tags,
        patches=patches.sort_values("number", ignore_index=True)[["number", "fold", "block", *CELLS]],
        seconds=sum(seconds) if all(seconds) else UNKNOWN,
        failure="",
        variants={f"{s}{variant}": metrics.get(f"{s}{variant}", UNKNOWN) for s in SCORES for variant in VARIANTS},
        tests={
            fold: recorded_tests(
                runs.epoch_records(client, child.info.run_id),
                "validation" if run.data.tags.get("selection") == "test_fold" else "test",
            )
            for fold, child in folds.items()
        },
    )
