"""Which of ZenML's messages are printed."""

import logging

import pytest

from landslide.errors import DataError
from pipelines.console import without_repetitions

pytestmark = pytest.mark.slow


def _fail(error: Exception) -> None:
    try:
        raise error
    except Exception:
        logging.getLogger("zenml.orchestrators.local.local_orchestrator").exception("Step %s failed.", "ingest")


@pytest.mark.parametrize(
    ("error", "expected"), [(DataError("a fault", remedy="mend it"), []), (KeyError("x"), ["Step ingest failed."])]
)
def test_only_the_traceback_of_an_unexpected_error_is_printed(caplog, error, expected):
    logging.getLogger().addHandler(caplog.handler)
    with without_repetitions():
        _fail(error)
        logging.getLogger("zenml.pipelines").info("Skipping step %s due to the failed step(s)", "split")
    assert [record.getMessage() for record in caplog.records] == expected
    _fail(error)
    assert len(caplog.records) == len(expected) + 1
