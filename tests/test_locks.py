"""Locks between processes: one holder at a time, released at any end of a process."""

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from landslide.errors import LockedError
from landslide.locks import holder_of, locked

HOLD = """
import sys
from pathlib import Path
from landslide.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock `a` until it reads a line or is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_only_one_holder_has_the_lock_at_a_time(tmp_path):
    inside, most = [], []

    def enter(number: int) -> None:
        for _ in range(20):
            with locked(tmp_path / "a"):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, range(6)))
    assert (len(most), max(most)) == (120, 1)
    assert list(tmp_path.iterdir()) == []


def test_locks_of_other_names_do_not_wait(holder, tmp_path):
    def enter() -> bool:
        with locked(tmp_path / "b"):
            return (tmp_path / "a").exists()

    with ThreadPoolExecutor(1) as pool:
        entered = pool.submit(enter)
        try:
            assert entered.result(timeout=30)
        finally:
            holder.kill()  # otherwise a waiting thread would never end


def test_waiting_for_another_process_is_logged(holder, tmp_path, caplog):
    order = []
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(1) as pool:

        def enter() -> None:
            with locked(tmp_path / "a"):
                order.append("entered")

        waiting = pool.submit(enter)
        deadline = time.monotonic() + 30
        while "waiting" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "waiting" in caplog.text
        order.append("released")
        holder.communicate("\n")
        waiting.result(timeout=30)
    assert order == ["released", "entered"]


def test_a_lock_of_a_killed_process_is_released(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "a").exists()
    with locked(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_exclusive_within_a_process_and_released_after_an_error(tmp_path):
    lock = tmp_path / "p.lock"

    def fail() -> None:
        with locked(lock):
            with pytest.raises(LockedError, match=f"process {os.getpid()}"), locked(lock, wait=False):
                pytest.fail("two at once")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with locked(lock, wait=False):
        pass


@pytest.mark.parametrize("written", [b"\xff\xfe", b"", None])
def test_a_damaged_note_of_the_holder_is_no_obstacle(holder, tmp_path, written):
    note = tmp_path / "a.holder"
    if written is None:
        note.unlink()
    else:
        note.write_bytes(written)
    assert holder_of(tmp_path / "a") == ("\ufffd\ufffd" if written else "another process")
    with pytest.raises(LockedError, match="is locked by"), locked(tmp_path / "a", wait=False):
        pass


def test_the_holder_of_a_lock_is_told_without_touching_it(holder, tmp_path):
    assert holder_of(tmp_path / "a").startswith(f"process {holder.pid} on ")
    assert holder_of(tmp_path / "b") is None
    holder.kill()
    holder.wait()
    assert holder_of(tmp_path / "a") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.holder"]
