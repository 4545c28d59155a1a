"""The share of `make run` that is not training.

Runs the demo in a new LANDSLIDE_HOME, as `make run` does if the environment and the data exist, and then again to be
served from cache. Takes some minutes.
"""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Comparison

ROOT = Path(__file__).resolve().parents[1]


def make_run(home: str) -> tuple[float, dict[str, float]]:
    """Return the seconds of `make run` and of each step in it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "MLFLOW_", "LANDSLIDE_"))}
    start = time.perf_counter()
    done = subprocess.run(
        ["make", "run"],
        cwd=ROOT,
        env={**environment, "LANDSLIDE_HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    steps = re.findall(r"Step (\w+) has finished in (?:(\d+)m)?([\d.]+)s", text)
    return seconds, {name: 60 * float(minutes or 0) + float(rest) for name, minutes, rest in steps}


def run(quick: bool) -> list[Comparison]:
    with tempfile.TemporaryDirectory() as home:
        total, steps = make_run(home)
        again, _ = make_run(home)
    training = sum(seconds for name, seconds in steps.items() if name.startswith("train_fold"))
    other_steps = sum(steps.values()) - training
    return [
        Comparison(
            name="make run, all but training",
            unit="s",
            values={
                "make run, first time": total,
                "train_fold steps": training,
                "other steps": other_steps,
                "command lines: imports, stack, report": total - training - other_steps,
                "all but training": total - training,
                "make run, served from cache": again,
            },
            reference="make run, first time",
            ours="all but training",
            goal=3.0,
        )
    ]
