"""Ablation table: put the trained rows of a grid into one table, record it, and write its files."""

import hashlib
import json
from typing import Annotated, Any

import numpy as np
import pandas as pd
from zenml import step
from zenml.types import HTMLString

from landslide.ablation.report import recorded_curves_figure, report_files, write_files
from landslide.ablation.table import SCORES, AblationRow, ablation_table
from landslide.errors import TrainingError
from landslide.paths import home
from landslide.tracking import runs
from landslide.tracking.descriptions import NOTE
from landslide.tracking.trained_rows import read_trained_row
from steps.provenance import lineage_tags, tracking_client
from steps.table_materializer import TableMaterializer

_LONGEST_NOTE = 8000  # characters that a tag of MLflow may have


# Never cached: the files may be gone, and a failed row may have been trained since.
@step(enable_cache=False, output_materializers={"table": TableMaterializer})
def tabulate(
    name: str,
    reference: str,
    rows: list[dict[str, Any]],
    run_ids: list[str],
    scores: list[dict[str, Any]],
    data_version: str,
) -> tuple[Annotated[pd.DataFrame, "table"], Annotated[HTMLString, "page"]]:
    """Make the table of an ablation.

    Args:
        name: Its name.
        reference: Where the published figures come from.
        rows: name, paper, parameters, gflop, seeds and recorded (tests by fold, as text) of every row.
        run_ids: Parent runs: the seeds of the first row, then those of the second, and so on.
        scores: What `evaluate` returned for each; here so that this step comes last.
        data_version: Digest of the data set.

    Returns:
        The table and its page.

    Raises:
        TrainingError: If rows failed; the table of the others is recorded and written before.
    """
    client = tracking_client()
    waiting = iter(run_ids)
    trained = [
        AblationRow(
            name=row["name"],
            paper=row["paper"],
            parameters=row["parameters"],
            gflop=row["gflop"],
            trained=tuple(read_trained_row(client, next(waiting), seed) for seed in row["seeds"]),
            recorded={int(fold): tests for fold, tests in row["recorded"].items()},
        )
        for row in rows
    ]
    table = ablation_table(trained)
    files = report_files(table, name, reference, curves=recorded_curves_figure(trained, reference))
    folder = home() / "reports" / "ablation" / name
    write_files(folder, files)
    run_id = _open_record(client, name, table, data_version)
    for file in files:
        client.log_artifact(run_id, str(folder / file))
    note = files["table.md"].decode()[:_LONGEST_NOTE]
    runs.set_tags(client, run_id, {NOTE: note})
    runs.finish(client, run_id)
    print(f"\n{files['table.txt'].decode()}\nfiles       {folder}\nMLflow run  {run_id}\n", flush=True)
    failed = table[table["failure"] != ""]
    if len(failed):
        raise TrainingError(
            f"{len(failed)} of {len(table)} rows failed: "
            + "; ".join(f"{row['row']} ({row['failure']})" for _, row in failed.iterrows())
            + f". The table without them is in {folder}.",
            remedy="Correct their settings and start again: finished rows are not trained again.",
        )
    return table, HTMLString(files["table.html"].decode())


def _open_record(client: runs.MlflowClient, name: str, table: pd.DataFrame, data_version: str) -> str:
    """Open the run of the table, the same one for the same rows, with links to theirs; return its id."""
    key = hashlib.sha256(json.dumps([name, *table["row"], *table["runs"]]).encode()).hexdigest()
    found = runs.search(client, f"tags.role = 'ablation' and tags.rows_key = '{key}'")
    tags = {**lineage_tags(), "role": "ablation", "ablation": name, "rows_key": key, "data_version": data_version}
    tags |= {"mlflow.source.name": "pipelines.ablation.ablation_pipeline"}
    run_id = found[0].info.run_id if found else runs.create_run(client, f"ablation {name}", tags, {})
    links = {f"runs {number}": f"{row['row']}: {row['runs']}" for number, row in enumerate(table.to_dict("records"), 1)}
    runs.set_tags(client, run_id, links)
    values = {
        f"{score}.{number}": row[score]
        for number, row in enumerate(table.to_dict("records"), 1)
        for score in SCORES
        if not np.isnan(row[score])
    }
    runs.log_scores(client, run_id, values)
    return str(run_id)
