"""What happens when a step of the retraining fails: its record is closed, and somebody is told."""

from zenml import get_step_context

from landslide import retraining as record
from landslide.errors import ComparisonError, DataError, RemoteError
from steps.lineage import tracking_client


def record_failure(exception: BaseException) -> None:
    """Close the record: broken data or a champion that cannot be compared are refused, anything else has failed.

    Args:
        exception: What the step raised.
    """
    context = get_step_context()
    client = tracking_client()
    run_id = record.find_record(client, str(context.pipeline_run.id))
    if run_id is not None:
        refused = isinstance(exception, DataError | ComparisonError) and not isinstance(exception, RemoteError)
        outcome = record.REFUSED if refused else record.FAILED
        record.close_record(client, run_id, outcome, f"step {context.step_run.name}: {exception}")
