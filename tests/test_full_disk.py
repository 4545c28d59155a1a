"""A full disk, and output that cannot be written, end in one message."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from landslide import full_disk

pytestmark = pytest.mark.slow


@pytest.fixture
def small_files():
    """Files of this process cannot grow beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def explained(action) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (of any library)
        action()
    return str(full_disk.explain(caught.value))


@pytest.mark.parametrize(("pages", "words"), [(10, "database or disk is full"), (10**6, "disk I/O error")])
def test_errors_of_databases_are_explained(small_files, tmp_path, pages, words):
    def fill() -> None:
        with create_engine(f"sqlite:///{tmp_path}/a.db").begin() as connection:
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            connection.execute(text("CREATE TABLE a (b)"))
            connection.execute(text("INSERT INTO a VALUES (zeroblob(300000))"))

    message = explained(fill)
    assert words in message
    assert f"LANDSLIDE_HOME is {full_disk.home()}" in message


def test_files_are_explained_and_other_errors_are_not(small_files, tmp_path):
    assert "File too large" in explained(lambda: Path(tmp_path, "a").write_bytes(bytes(200_000)))
    assert explained(lambda: Path(tmp_path, "none").read_text()) == "None"
    assert explained(lambda: 1 / 0) == "None"


@pytest.mark.soak
def test_pipeline_ends_with_one_message(new_home, tmp_path):
    """In a process and a home of its own: a database that could not be written is read-only for a while."""
    from tests.support import pipeline_runs

    config = pipeline_runs.write_config(tmp_path / "config.yaml", tmp_path)
    command = ["bash", "-c", f"ulimit -f 100; exec python -m landslide train -c {config}"]
    environment = pipeline_runs.cli_environment(new_home())
    done = subprocess.run(command, env=environment, cwd=pipeline_runs.ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written: disk I/O error. LANDSLIDE_HOME is" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["completion", "bash"], ["--help"]])
def test_output_that_cannot_be_written_is_one_message(arguments):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "landslide", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: standard output: No space left on device.\n")
    assert "Traceback" not in done.stderr
