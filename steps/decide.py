"""Decide: promote the challenger, or not, and write down why."""

import logging
from typing import Annotated

import pandas as pd
from zenml import step

from landslide.evaluation.figures import differences_figure
from landslide.retraining import record
from landslide.retraining.promotion import PromotionSettings, bootstrap, judge, summary
from landslide.tracking import registry, runs
from landslide.tracking.registry import Decision
from steps.provenance import tracking_client

logger = logging.getLogger(__name__)


@step(enable_cache=False)
def decide(
    retraining_run: str,
    champion: str,
    model_version: str,
    evidence: pd.DataFrame,
    cross_validation_run: str,
    promotion: PromotionSettings,
) -> Annotated[str, "outcome"]:
    """Decide between champion and challenger on the evidence, once.

    Args:
        retraining_run: Where the decision is recorded.
        champion: The version that the challenger was compared with, empty if there was none.
        model_version: The challenger, empty if there is nothing to decide.
        evidence: What `compare` returned.
        cross_validation_run: The challenger's run.
        promotion: Margin and confidence.

    Returns:
        `promoted`, `refused`, or `unchanged` if there was nothing to decide.
    """
    if not model_version:
        return record.UNCHANGED
    client = tracking_client()
    current = registry.champion(client)
    in_service = current["version"] if current else ""
    if model_version == champion == in_service:
        reason = f"version {champion} in service was trained on exactly these data, with these settings and this code"
        record.close_record(client, retraining_run, record.UNCHANGED, reason, {"champion": champion})
        return record.UNCHANGED
    begun = client.get_run(retraining_run).data.tags
    better = False
    if when := registry.rolled_back(client, registry.version(client, model_version)):
        reason = registry.describe_rollback(when)
    elif "intended" in begun and in_service in (champion, model_version):  # killed before it was all written down
        better, reason = begun["intended"] == record.PROMOTED, begun["reason_intended"]
    elif in_service != champion:
        reason = f"the champion changed from {champion or 'none'} to {in_service or 'none'} in the meantime"
    elif current and registry.gives_way(current, registry.version(client, model_version)):
        better, reason = True, registry.describe_giving_way(current)
    elif not champion:
        better, reason = True, registry.NONE_IN_SERVICE
    elif evidence.empty:
        reason = "there is no patch that neither the champion nor the challenger has seen"
    else:
        differences = bootstrap(evidence, resamples=promotion.resamples, seed=promotion.seed)
        verdict = judge(evidence, differences, promotion)
        better, reason = verdict.better, verdict.reason
        runs.log_scores(client, retraining_run, summary(evidence, differences, promotion))
        runs.log_text(client, retraining_run, evidence.to_csv(index=False), "evidence.csv")
        figure = differences_figure(differences, promotion.margin)
        runs.log_figures(client, retraining_run, {"differences": figure})
    outcome = record.PROMOTED if better else record.REFUSED
    tags = {"challenger": model_version, "cross_validation_run": cross_validation_run}
    record.record_intention(client, retraining_run, outcome, reason, tags)
    if model_version != in_service:
        registry.apply_decision(client, model_version, Decision("champion" if better else "challenger", reason))
    record.finish_decision(client, retraining_run)
    logger.info("Version %s is %s: %s.", model_version, outcome, reason)
    return outcome
