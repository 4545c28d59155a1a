"""ZenML's messages on the terminal, without those that repeat what the pipeline says itself."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from landslide.errors import LandslideError

# The error at the end names the step and the reason. The dashboard asks for a name and an e-mail address, and shows
# nothing that MLflow does not show.
_REPETITIONS = ("Failed to run step", "Skipping step", "You can visualize your pipeline runs")


class _WithoutRepetitions(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("zenml."):
            return True
        explained = record.exc_info is not None and isinstance(record.exc_info[1], LandslideError)
        return not explained and not str(record.msg).startswith(_REPETITIONS)


@contextmanager
def without_repetitions() -> Iterator[None]:
    """Leave out of the log of the block: tracebacks of errors that explain themselves, and what follows from them."""
    repetitions, handlers = _WithoutRepetitions(), list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(repetitions)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(repetitions)
