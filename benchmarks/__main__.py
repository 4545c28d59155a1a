"""Run the comparisons: `python -m benchmarks [--quick] [NAME ...]`; the last table has the ratios.

Each comparison runs in its own process, in which its sides alternate. Compare ratios, not milliseconds: most machines
are busy with other work too. Source `activate.sh` in the shell first, as for every command of the project.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.measure import MEMORY_SETTINGS, Comparison, write
from benchmarks.steps import peak_gflops, processor_has_bf16

QUICK = ("steps", "bands", "build", "batches", "gpu", "scale")
NAMES = (*QUICK, "epoch", "map", "map_gpu", "run_share")


def machine() -> dict[str, object]:
    """Return the properties of the machine that the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16": processor_has_bf16(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "GFLOP/s of a thread, float32": round(peak_gflops(torch.float32)),
        "GFLOP/s of a thread, bf16": round(peak_gflops(torch.bfloat16)) if processor_has_bf16() else None,
        "torch": torch.__version__,
        "memory kept": all(name in os.environ for name in MEMORY_SETTINGS),
    }


def run_in_process(name: str, quick: bool, folder: Path) -> list[dict]:
    """Run one benchmark in a separate process; return its comparisons as plain values."""
    out = folder / f"{name}.json"
    command = [sys.executable, "-m", "benchmarks", name, "--here", "--json", str(out)]
    subprocess.run([*command, "--quick"] if quick else command, check=True)
    found: list[dict] = json.loads(out.read_text())["comparisons"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer patches and rounds, under two minutes in all")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="output file for the figures")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"there is no {min(unknown)}; choose from {', '.join(NAMES)}")
    facts: dict[str, object] = {}
    if arguments.here:
        (name,) = arguments.names
        comparisons = importlib.import_module(f"benchmarks.{name}").run(arguments.quick)
        for comparison in comparisons:
            print("\n".join(comparison.lines()), flush=True)
    else:
        comparisons = []
        with tempfile.TemporaryDirectory() as folder:
            for name in arguments.names or (QUICK if arguments.quick else NAMES):
                for values in run_in_process(name, arguments.quick, Path(folder)):
                    values.pop("ratios")
                    comparisons.append(Comparison(**values))
        facts = machine()
        print("\n" + "\n".join(f"{name}: {value}" for name, value in facts.items()))
        print(f"\n{'':46s} {'ratio':>8s} {'ours':>10s} {'':12s} aim")
        print("\n".join(comparison.verdict() for comparison in comparisons))
    write(arguments.json, comparisons, facts)


if __name__ == "__main__":
    main()
