"""SIGTERM ends a command by an exception: cleaned up, exit code 143, with its processes."""

import signal
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from landslide.termination import Terminated, exit_on_sigterm

COMMAND = """
import multiprocessing, os, signal, sys, time
from landslide.termination import exit_on_sigterm

def sleep():  # in short pieces: a signal just before a sleep is handled after it
    for _ in range(600):
        time.sleep(0.1)

def child():
    os.write(1, b"child\\n")  # at once: print writes in parts, and both processes write
    sleep()

if sys.argv[1] == "like ZenML":  # whose handler raises an Exception, and in any case calls the one before it
    def register():
        before = signal.getsignal(signal.SIGTERM)
        def handle(*arguments):
            try:
                raise RuntimeError("a failed step")
            finally:
                before(*arguments)
        signal.signal(signal.SIGTERM, handle)
else:
    register = lambda: None

with exit_on_sigterm():
    multiprocessing.get_context("fork").Process(target=child).start()
    register()
    try:
        os.write(1, b"started\\n")  # now the child is known, and no signal can come between
        sleep()
    except Exception:
        print("the next step", flush=True)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # systemd and timeout send several
        time.sleep(0.1)
        print("cleaned up", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("handler", ["like ZenML", "none"])
def test_sigterm_cleans_up_ends_child_processes_and_exits_with_143(handler):
    command = [sys.executable, "-c", COMMAND, handler]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert {process.stdout.readline() for _ in range(2)} == {"child\n", "started\n"}
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[0] == "cleaned up\n"
    assert process.returncode == 143


def test_handler_is_restored_and_a_program_that_handles_sigterm_itself_keeps_its_own():
    with exit_on_sigterm():
        ours = signal.getsignal(signal.SIGTERM)
        with exit_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) == ours
        assert signal.getsignal(signal.SIGTERM) == ours
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_exception_of_sigterm_is_caught_by_no_handler_of_errors():
    with pytest.raises(Terminated, match="stopped by SIGTERM") as error, exit_on_sigterm(), suppress(Exception):
        signal.raise_signal(signal.SIGTERM)
    assert error.value.code == 143


def test_other_threads_leave_signals_alone():
    seen = []

    def enter() -> None:
        with exit_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
