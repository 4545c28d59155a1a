"""The record of retrainings in MLflow: the request, the decision, and its evidence.

Each retraining is a run with the tag `role=retraining`. Its tag `outcome` is one of:

    promoted     the challenger is in service
    refused      the champion stays; or the data set is faulty
    unchanged    nothing changed since the last decision, or this data version already has a decision
    failed       it ended with an error
    interrupted  it was stopped, or killed, which the next retraining noticed
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from landslide.files import atomic_write
from landslide.metrics.counts import METRIC_NAMES
from landslide.paths import home
from landslide.retraining.notification import notify
from landslide.tracking import metric_keys, runs
from landslide.tracking.descriptions import NOTE
from landslide.tracking.registry import MODEL_NAME, champion
from landslide.tracking.runs import MlflowClient, Run

PROMOTED, REFUSED, UNCHANGED, FAILED, INTERRUPTED = "promoted", "refused", "unchanged", "failed", "interrupted"
_EVENTS = {PROMOTED: "promotion", REFUSED: "refusal", FAILED: "failure", INTERRUPTED: "failure"}
_EQUAL = (
    "Both models score the same on the new patches. If these are all in one fold, the members that predict them were "
    "trained on the same patches."
)
_TABLES = {
    "": "all compared patches, out of fold",
    "new_": "new patches only",
    "unchanged_": "patches whose labels did not change",
    "relabelled_": "patches whose labels changed",
}
_ROLE = "tags.role = 'retraining'"


def open_record(client: MlflowClient, pipeline_run: str) -> str:
    """Open the record of a retraining, and close the records of killed ones as interrupted.

    Args:
        client: The tracking client.
        pipeline_run: Id of the ZenML run, by which a retried step finds its record again.

    Returns:
        The id of the MLflow run.
    """
    found = find_record(client, pipeline_run)
    if found is not None:
        return found
    for run in runs.search(client, f"{_ROLE} and attributes.status = 'RUNNING'"):
        if _was_carried_out(client, run):
            finish_decision(client, run.info.run_id)
        else:
            close_record(client, run.info.run_id, INTERRUPTED, "it was killed or its machine stopped; see its log")
    name = f"retraining {datetime.now(UTC):%Y-%m-%d %H:%M}"
    return runs.create_run(client, name, {"role": "retraining", "pipeline_run": pipeline_run}, {})


def find_record(client: MlflowClient, pipeline_run: str) -> str | None:
    """Return the record of a ZenML run, None if there is none."""
    found = runs.search(client, f"{_ROLE} and tags.pipeline_run = '{pipeline_run}'")
    return str(found[0].info.run_id) if found else None


def decision_on(client: MlflowClient, data_version: str) -> Run | None:
    """Return the latest retraining that decided between two models on this data version, None if there is none."""
    text = f"{_ROLE} and tags.data_version = '{data_version}' and tags.decided = 'true'"
    found = runs.search(client, text, order=["attributes.start_time DESC"])
    return found[0] if found else None


def reason_to_stop(client: MlflowClient, data_version: str, request: str) -> str:
    """Return why a retraining has nothing to do, empty if it has something to do.

    Args:
        client: The tracking client.
        data_version: Digest of the data set.
        request: Digest of data, settings and code; equal requests need no second training.
    """
    earlier = decision_on(client, data_version)
    if earlier is None:
        return ""
    tags = earlier.data.tags
    name = earlier.info.run_name.partition(" · ")[0]
    decided = f"{name} decided on data version {data_version}: {tags['outcome']}"
    if tags["request"] == request:
        return f"data, code and settings are unchanged since {decided}"
    return f"{decided}, and there is one decision per data version; set retraining.force to decide again"


def record_intention(client: MlflowClient, run_id: str, outcome: str, reason: str, tags: Mapping[str, str]) -> None:
    """Record a decision before it is carried out, so that an interrupted one can be completed.

    Args:
        client: The tracking client.
        run_id: The retraining's run.
        outcome: `promoted` or `refused`.
        reason: Why.
        tags: The challenger's version as `challenger`, and further tags of the record.
    """
    runs.set_tags(client, run_id, {**tags, "reason_intended": reason[:5000], "intended": outcome})


def finish_decision(client: MlflowClient, run_id: str) -> None:
    """Close the record of a decision that was carried out."""
    runs.set_tags(client, run_id, {"decided": "true"})
    tags = client.get_run(run_id).data.tags
    challenger, compared = tags["challenger"], tags.get("champion", "none")
    promoted = tags["intended"] == PROMOTED
    facts = {"version": challenger, "champion": challenger if promoted else compared, "compared_with": compared}
    close_record(client, run_id, tags["intended"], tags["reason_intended"], facts)


def _was_carried_out(client: MlflowClient, run: Run) -> bool:
    """Return whether a recorded decision took effect; a refusal needs no further action."""
    tags = run.data.tags
    if tags.get("intended") != PROMOTED:
        return tags.get("intended") == REFUSED
    current = champion(client)
    return current is not None and current["version"] == tags["challenger"]


def close_record(
    client: MlflowClient, run_id: str, outcome: str, reason: str, facts: Mapping[str, Any] | None = None
) -> None:
    """Record how a retraining ended: in MLflow, in the report files, and by the webhook.

    Args:
        client: The tracking client.
        run_id: The retraining's run.
        outcome: One of the outcomes above. The first outcome stays: a second failing step changes nothing. Only
            `interrupted` is a guess, which the real outcome replaces.
        reason: Why, as text for people.
        facts: Further facts for the report: versions, scores.
    """
    run = client.get_run(run_id)
    earlier = run.data.tags.get("outcome", INTERRUPTED)
    if earlier != INTERRUPTED:
        if run.info.status == "RUNNING":  # killed while its outcome was being recorded
            client.set_terminated(run_id, _status(earlier))
        return
    runs.set_tags(client, run_id, {"outcome": outcome, "reason": reason[:5000]})
    run = client.get_run(run_id)
    report = _render(run, outcome, reason, facts or {})
    runs.log_text(client, run_id, report, "report.md")
    runs.set_tags(client, run_id, {NOTE: report})
    client.update_run(run_id, name=f"{run.info.run_name.partition(' · ')[0]} · {outcome}")
    _write_reports(report, {"outcome": outcome, "reason": reason, "run_id": run_id, **(facts or {})})
    client.set_terminated(run_id, _status(outcome))
    if outcome in _EVENTS:
        notify(_EVENTS[outcome], model=MODEL_NAME, run_id=run_id, reason=reason, **(facts or {}))


def summary(client: MlflowClient, pipeline_run: str, *, with_reason: bool = True) -> str:
    """Return how a retraining ended, in a few lines for the terminal; empty if it has no outcome.

    Args:
        client: The tracking client.
        pipeline_run: Id of the ZenML run.
        with_reason: Whether to say why; an error message says it already.
    """
    run_id = find_record(client, pipeline_run)
    tags = client.get_run(run_id).data.tags if run_id else {}
    if "outcome" not in tags:
        return ""
    current = champion(client)
    rows = {
        "retraining": tags["outcome"],
        "reason": tags["reason"] if with_reason else "",
        "in service": f"{MODEL_NAME} version {current['version']}" if current else "no version",
        "report": str(_reports() / "retraining.md"),
    }
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items() if value)


def _status(outcome: str) -> str:
    return {FAILED: "FAILED", INTERRUPTED: "KILLED"}.get(outcome, "FINISHED")


def _render(run: Run, outcome: str, reason: str, facts: Mapping[str, Any]) -> str:
    tags, metrics = run.data.tags, metric_keys.metrics(run)
    rows = {
        **{name.replace("_", " "): value for name, value in facts.items() if value},
        "data version": tags.get("data_version") or facts.get("data_version", "unknown"),
        "drift": tags.get("drift", "not computed"),
        "git commit": tags.get("git_commit", "unknown"),
        "MLflow run": f"{run.info.run_name} ({run.info.run_id})",
    }
    lines = [f"# Retraining: {outcome}", "", reason, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    for prefix, title in _TABLES.items():
        scored = [name for name in METRIC_NAMES if f"{prefix}challenger_{name}" in metrics]
        if scored:
            lines += ["", f"| {title} | champion | challenger | difference |", "|---|---|---|---|"]
            equal = True
            for name in scored:
                values = [metrics.pop(f"{prefix}{model}_{name}") for model in ("champion", "challenger")]
                equal &= values[0] == values[1]
                one, other = (100 * value for value in values)
                lines.append(f"| {name} | {one:.2f} % | {other:.2f} % | {other - one:+.2f} points |")
            lines += ["", _EQUAL] if equal and prefix == "new_" else []
    if metrics:
        lines += ["", "| further figures | |", "|---|---|"]
        lines += [f"| {name} | {_figure(name, metrics[name])} |" for name in sorted(metrics)]
    return "\n".join(lines) + "\n"


def _figure(name: str, value: float) -> str:
    """Return a figure other than a score as text: a difference of scores, a count or a shift."""
    if "_difference" in name:
        return f"{100 * value:+.2f} points"
    return f"{value:,.0f}" if value.is_integer() else f"{value:.2f}"


def _reports() -> Path:
    return home() / "reports"


def _write_reports(report: str, content: Mapping[str, Any]) -> None:
    folder = _reports()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("retraining.md", report), ("retraining.json", json.dumps(content, indent=2) + "\n")):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
