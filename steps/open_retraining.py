"""Open retraining: begin the record of a retraining, and make room on the disk."""

import logging
from typing import Annotated

from zenml import get_step_context, step

from landslide.operations.disk_budget import prune, size_of
from landslide.paths import home
from landslide.retraining import record
from landslide.tracking import runs
from steps.provenance import lineage_tags, tracking_client
from steps.settings import RetrainingSettings

logger = logging.getLogger(__name__)


@step(enable_cache=False)
def open_retraining(retraining: RetrainingSettings) -> Annotated[str, "retraining_run"]:
    """Open the record of this retraining.

    Args:
        retraining: The budget of disk.

    Returns:
        The id of its MLflow run.
    """
    client = tracking_client()
    run_id = record.open_record(client, str(get_step_context().pipeline_run.id))
    source = {"mlflow.source.name": "pipelines.retraining.retraining_pipeline"}
    runs.set_tags(client, run_id, lineage_tags() | source)
    if retraining.disk_budget_gb is not None:
        budget = int(retraining.disk_budget_gb * 1e9)
        for folder in prune(budget):
            logger.info("Deleted %s, the disk budget is exceeded.", folder)
        size = size_of(home())
        if size > budget:
            logger.warning(
                "%s holds %.1f GB, more than retraining.disk_budget_gb, and nothing more can be deleted there safely.",
                home(),
                size / 1e9,
            )
    return run_id
