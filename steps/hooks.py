"""What happens when a step of the retraining fails: its record is closed, and somebody is told."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zenml import get_step_context
from zenml.exceptions import RunInterruptedException

from landslide.data.project import pinned_version
from landslide.errors import ComparisonError, DataError, LandslideError, RemoteError
from landslide.retraining import record
from landslide.retraining.notification import notify
from landslide.tracking.registry import MODEL_NAME
from steps.provenance import tracking_client

logger = logging.getLogger(__name__)


def record_failure(exception: BaseException) -> None:
    """Close the record: broken data or a champion that cannot be compared are refused, a stop is an interruption.

    Args:
        exception: What the step raised.
    """
    context = get_step_context()
    reason = f"step {context.step_run.name}: {str(exception) or type(exception).__name__}"
    try:
        client = tracking_client()
        run_id = record.find_record(client, str(context.pipeline_run.id))
    except LandslideError as error:  # the tracking server is gone, but somebody must be told
        logger.warning("The record of this retraining cannot be closed: %s", error)
        run_id = None
    if run_id is None:
        notify("failure", model=MODEL_NAME, reason=reason)
    else:
        refused = isinstance(exception, DataError | ComparisonError) and not isinstance(exception, RemoteError)
        outcome = record.REFUSED if refused else record.FAILED
        if not isinstance(exception, Exception) or isinstance(exception, RunInterruptedException):  # SIGTERM, Ctrl-C
            outcome = record.INTERRUPTED
        record.close_record(client, run_id, outcome, reason, _pinned(context.step_run.config.parameters))


def _pinned(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return which data version is pinned, if the step has the settings of the data and there is a pin."""
    data = parameters.get("data")
    root = data.get("root") if isinstance(data, Mapping) else getattr(data, "root", None)
    try:
        version = pinned_version(Path(root).with_name(f"{Path(root).name}.dvc")) if root else None
    except DataError:  # which may be what the step refused
        return {}
    return {"data_version": f"{version}, as {Path(root).name}.dvc pins it"} if root and version else {}
