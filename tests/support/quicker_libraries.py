"""Makes the libraries quicker in the processes of tests.

- A database waits until each commit is on the disk. No test survives the loss of power, so none needs that.
- Python looks for unreachable objects far more often than these libraries leave some.
"""

import gc
import sqlite3
from contextlib import suppress
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

gc.set_threshold(50_000, 50, 100)


@event.listens_for(Engine, "connect")
def _do_not_wait_for_the_disk(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.DatabaseError):  # no database: the first query says so
            connection.execute("PRAGMA synchronous=OFF")
