"""Comparisons of speed: the sides alternate, and their medians and ratios are reported."""

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MEMORY_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""The variables that `activate.sh` sets for the C library."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Medians of the sides of one comparison.

    Attributes:
        name: Title of the comparison.
        unit: Unit of the values; less is better.
        values: Median by side.
        reference: The side that the others are compared with.
        ours: The side that the goal applies to.
        goal: Target ratio of reference to ours, if any.
        limit: Target value of ours, if any.
        facts: Sizes, rounds and other facts for the reader.
    """

    name: str
    unit: str
    values: Mapping[str, float]
    reference: str
    ours: str
    goal: float | None = None
    limit: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """The reference's value divided by ours."""
        return self.values[self.reference] / self.values[self.ours]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values, with the ratios."""
        return asdict(self) | {"ratios": {side: self.values[self.reference] / v for side, v in self.values.items()}}

    def lines(self) -> list[str]:
        """Return all sides as text."""
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        rows = [
            f"  {side:44s} {value:10.3f} {self.unit:12s} {self.values[self.reference] / value:6.2f}x"
            for side, value in self.values.items()
        ]
        return [f"{self.name}" + (f" ({facts})" if facts else ""), *rows]

    def verdict(self) -> str:
        """Return the line of the last table."""
        aims = [] if self.goal is None else [f"{self.goal:g}x {'yes' if self.ratio >= self.goal else 'no'}"]
        if self.limit is not None:
            met = self.values[self.ours] <= self.limit
            aims.append(f"{self.limit:g} {self.unit} {'yes' if met else 'no'}")
        return f"{self.name:46s} {self.ratio:7.2f}x {self.values[self.ours]:10.3f} {self.unit:12s} {', '.join(aims)}"


def write(path: Path, comparisons: list[Comparison], facts: Mapping[str, Any]) -> None:
    """Write comparisons and facts of the machine as JSON."""
    path.write_text(json.dumps({"machine": dict(facts), "comparisons": [c.to_json() for c in comparisons]}, indent=1))


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run every side once per round; return the median seconds of each.

    A side that returns a float has timed itself. One additional round comes first and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            returned = side()
            took = time.perf_counter() - start
            seconds[name].append(returned if isinstance(returned, float) else took)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


class PlainProcess:
    """A side in a separate process without the memory settings of `activate.sh`; call it to run it once.

    Args:
        make: A module-level function that the process calls with `arguments`; it returns the side.
        arguments: Its arguments.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        kept = {name: os.environ.pop(name) for name in MEMORY_SETTINGS if name in os.environ}
        try:
            self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            self._process.start()
        finally:
            os.environ.update(kept)

    def __call__(self) -> float:
        """Run the side once; return its seconds."""
        self._connection.send("run")
        seconds: float = self._connection.recv()
        return seconds

    def close(self) -> None:
        """End the process."""
        self._connection.send("end")
        self._process.join()


def _serve(connection: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    side = make(*arguments)
    while connection.recv() == "run":
        start = time.perf_counter()
        side()
        connection.send(time.perf_counter() - start)
