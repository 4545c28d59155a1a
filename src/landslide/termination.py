"""SIGTERM ends a command as Ctrl-C does: blocks are left by an exception, so that they clean up and release locks.

By default, Python dies at once, and ZenML takes the signal for the failure of one step and starts the next one.
Systemd, docker, `timeout` and job schedulers stop a process by SIGTERM.
"""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(SystemExit):
    """SIGTERM has arrived; no `Exception`, so that no step, fold or retry catches it. The exit code is 143."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)

    def __str__(self) -> str:
        return "stopped by SIGTERM"


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the block when SIGTERM arrives, and end the processes that multiprocessing started in it.

    A second SIGTERM is ignored, because several may come and the first is being obeyed. Does nothing outside the main
    thread, or if the program handles SIGTERM itself.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    arrived = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal arrived
        if arrived:
            return
        arrived = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while a step runs, the handler is ZenML's, which calls this one
        for child in multiprocessing.active_children():  # otherwise the exit of this process waits for them
            child.terminate()
        raise Terminated

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
