"""The report of a cross-validation: a table for the terminal, files for DVC.

<folder>/metrics.json          the scores of the cross-validation, from 0 to 1, for `dvc metrics`
         metrics.csv           these and everything else that was measured
         scores.csv            scores by fold
         patches.csv           every patch: its fold, its counts, its detection score
         learning_curves.csv, thresholds.csv, calibration.csv, roc.csv  for `dvc plots`
"""

import json
from pathlib import Path

import pandas as pd

from landslide.files import atomic_write
from landslide.metrics.counts import METRIC_NAMES
from landslide.paths import default_tracking_uri
from landslide.tracking import metric_keys, registry, runs
from landslide.tracking.descriptions import HEADINGS, side_by_side, side_by_side_columns
from landslide.tracking.runs import MlflowClient, MlflowException, Run

# `dvc metrics show` prints them in one line.
_SHOWN_BY_DVC = (*METRIC_NAMES, "f1_landslide_tuned")
_CHANGES = {"true": " with uncommitted changes", "false": "", "unknown": ", possible changes unknown"}


def write_report(folder: Path, uri: str | None = None) -> str:
    """Write the report of the cross-validation that was asked for last.

    Args:
        folder: Where the files go; each is replaced whole.
        uri: Address of the MLflow store, the default one if None.

    Returns:
        The report for the terminal: a table of scores and where to look further.

    Raises:
        RegistryError: If no cross-validation is recorded.
    """
    uri = uri or default_tracking_uri()
    client = runs.connect(uri)
    run = runs.latest_cross_validation(client)
    folder.mkdir(parents=True, exist_ok=True)
    tables = runs.fetch_reports(client, run.info.run_id)
    for name, text in tables.items():
        _replace(folder / name, text)
    metrics = metric_keys.metrics(run)
    _replace(folder / "metrics.json", json.dumps({name: metrics[name] for name in _SHOWN_BY_DVC}, indent=2) + "\n")
    _replace(folder / "metrics.csv", pd.Series(metrics, name="value").sort_index().to_csv(index_label="metric"))
    return _render(client, run, pd.read_csv(folder / "scores.csv", index_col="fold"), uri, folder)


def score_table(scores: pd.DataFrame) -> str:
    """Return a table for the terminal, in percent.

    Args:
        scores: One line per fold, with the columns `METRIC_NAMES` from 0 to 1.
    """
    table = (scores[list(METRIC_NAMES)] * 100).rename(columns=HEADINGS)
    return str(table.to_string(float_format=lambda value: f"{value:.2f}", index_names=False))


def _replace(path: Path, text: str) -> None:
    """Replace a file, which may be a link into DVC's cache, without writing through the link."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def _render(client: MlflowClient, run: Run, scores: pd.DataFrame, uri: str, folder: Path) -> str:
    tags, metrics = run.data.tags, metric_keys.metrics(run)
    selected = "the test fold itself (the paper's protocol; optimistic)"
    if tags["selection"] == "inner_validation":
        selected = "an inner validation part"
    lines = [
        "",
        f"{run.info.run_name}: {_trained(scores, run)} ({tags['fold_scheme']}), epoch chosen on {selected}",
        "",
        score_table(scores if len(scores) > 3 else scores.drop(index="std")),  # of one fold there is no deviation
        "",
        "Scores in percent at threshold 0.5; F1 and mIoU are means over both classes, the others of the landslide "
        "class.",
        *_side_by_side(scores, metrics, tags),
        f"At the tuned thresholds (mean {metrics['threshold']:.2f}): F1 {metrics['f1_macro_tuned'] * 100:.2f}, "
        f"landslide F1 {metrics['f1_landslide_tuned'] * 100:.2f}.",
        *_empty_folds(tags),
        *_together(metrics, tags),
        "",
        *_registered(client, tags),
        f"data version   {tags['data_version']}",
        f"git commit     {tags['git_commit']}"
        + (_CHANGES[tags["git_dirty"]] if tags["git_commit"] != "unknown" else ""),
        f"MLflow run     {run.info.run_id} in {uri}",
        f"reports        {folder}/ (dvc metrics show, dvc plots show)",
        "look further   make ui",
    ]
    return "\n".join(lines)


def _side_by_side(scores: pd.DataFrame, metrics: dict[str, float], tags: dict[str, str]) -> list[str]:
    """Show the scores on ground like that of the training beside those of the test folds, if there are both."""
    tested_on = tags.get("tested_on")
    if not tested_on or not (sentence := side_by_side(metrics, tested_on)):
        return []
    columns = side_by_side_columns(tested_on)
    table = 100 * scores.loc[[row for row in scores.index if row != "std"], list(columns)]
    table.columns = pd.MultiIndex.from_tuples(columns.values())
    text = table.to_string(float_format=lambda value: f"{value:.2f}", index_names=False)
    return ["", str(text), "", f"The same networks, in percent: {sentence}."]


def _trained(scores: pd.DataFrame, run: Run) -> str:
    """Say how many folds were trained, of how many."""
    trained, of = len(scores) - 2, run.data.params.get("folds.n_folds")
    return f"{trained} folds" if of in (None, str(trained)) else f"{trained} of {of} folds"


def _empty_folds(tags: dict[str, str]) -> list[str]:
    """Name the folds whose scores of the landslide class are a convention; empty for older runs."""
    empty = tags.get("folds_without_landslides", "none")
    if empty == "none":
        return []
    return [f"Without any landslide: fold {empty}. Its landslide scores, 1 or 0 by convention, enter the means."]


def _together(metrics: dict[str, float], tags: dict[str, str]) -> list[str]:
    """Describe the scores of all patches together; empty for older runs without such scores."""
    if "f1_macro_pooled" not in metrics or "detection_f1_pooled" not in metrics:
        return []

    def percent(name: str) -> str:
        interval = ""
        if f"{name}_low" in metrics:
            interval = f" ({metrics[f'{name}_low'] * 100:.2f} to {metrics[f'{name}_high'] * 100:.2f})"
        return f"{metrics[f'{name}_pooled'] * 100:.2f}{interval}"

    interval = " (95 % interval)" if "f1_macro_low" in metrics else ""
    auc = f"no AUC, {tags.get('detection_undefined')}"
    if "detection_auc_pooled" in metrics:
        auc = f"AUC {percent('detection_auc')}"
    return [
        f"All patches together{interval}: F1 {percent('f1_macro')}, landslide F1 {percent('f1_landslide')}.",
        f"Does a patch hold a landslide? F1 {percent('detection_f1')}, {auc}.",
    ]


def _registered(client: MlflowClient, tags: dict[str, str]) -> list[str]:
    if not tags.get("model_version"):
        return []
    name = f"{registry.MODEL_NAME} version {tags['model_version']}"
    try:
        version = client.get_model_version(registry.MODEL_NAME, tags["model_version"])
    except MlflowException as error:
        if error.error_code not in runs.ABSENT:
            raise
        return [f"model          {name}, which was deleted; the same pipeline registers it again"]
    alias = f"@{', @'.join(version.aliases)}" if version.aliases else "without an alias"
    reason = version.tags.get("decision", "no decision yet")
    for name_of_alias in (registry.CHAMPION, *version.aliases):
        reason = reason.removeprefix(f"{name_of_alias}: ")
    lines = [f"model          {name}, {alias} ({reason})"]
    champion = registry.champion(client)
    if champion is None:
        return [*lines, f"in service     no version, until `landslide models promote {version.version}`"]
    if champion["version"] == str(version.version):
        return lines
    return [
        *lines,
        f"in service     version {champion['version']}, until `landslide models promote {version.version}` (see "
        f"`landslide models compare {champion['version']} {version.version}`)",
    ]
