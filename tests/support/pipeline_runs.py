"""Runs the training pipeline for the tests, in this process or by command line."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TINY_TRAINING: dict[str, Any] = {
    "bands": "14",
    "model": "unet",
    "model_options": {"width": 4},
    "standardize": True,
    "epochs": 2,
    "batch_size": 4,
    "crop": 32,
    "schedule": {"kind": "steps", "rates": [[2, 0.003]]},
    "augmentation": {"plain_epochs": 0},
    "device": "cpu",
}


def copy_project(root: Path, *more: str) -> None:
    """Copy the code of the project to a new folder, with the files that it needs and `more` files."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "steps", "pipelines", "stacks"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    for name in ("activate.sh", "requirements.lock", *more):
        shutil.copy2(ROOT / name, root)


def write_config(path: Path, root: Path, **parameters: dict[str, Any]) -> Path:
    """Write a run configuration of a tiny network; `parameters` are merged over the defaults."""
    merged: dict[str, Any] = {
        "data": {"root": str(root)},
        "training": dict(TINY_TRAINING),
        "evaluation": {"figures": False},  # drawing takes longer than training
    }
    for group, values in parameters.items():
        merged[group] = {**merged.get(group, {}), **values}
    path.write_text(yaml.safe_dump({"parameters": merged}))
    return path


@dataclass(frozen=True)
class Outcome:
    """The outcome of a pipeline run: the status of each step by name."""

    statuses: dict[str, str]

    @property
    def executed(self) -> set[str]:
        return {name for name, status in self.statuses.items() if status == "completed"}

    @property
    def cached(self) -> set[str]:
        return {name for name, status in self.statuses.items() if status == "cached"}


def run_pipeline(config: Path) -> Outcome:
    """Run the training pipeline in this process."""
    from pipelines.training import training_pipeline

    training_pipeline.with_options(config_path=str(config))()
    return last_outcome()


def last_outcome() -> Outcome:
    """Return the outcome of the last run."""
    from zenml.client import Client

    run = Client().list_pipeline_runs(pipeline="training_pipeline", sort_by="desc:created", size=1).items[0]
    steps = Client().get_pipeline_run(run.id).steps
    return Outcome({name: step.status.value for name, step in steps.items()})


def recorded(client: Any) -> dict[str, tuple[int, str | None]]:
    """Return when each run ended and was evaluated, by its id: it changes if a fold is trained or evaluated."""
    experiment = client.get_experiment_by_name("landslide-segmentation")
    runs = client.search_runs([experiment.experiment_id])
    return {run.info.run_id: (run.info.end_time, run.data.tags.get("evaluated")) for run in runs}


def cli_environment(home: Path, root: Path = ROOT, **variables: str) -> dict[str, str]:
    """Return the environment that activate.sh sets up for this LANDSLIDE_HOME, checkout and further variables."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "MLFLOW_", "LANDSLIDE_"))}
    command = f"source {root}/activate.sh && env -0"
    done = subprocess.run(
        ["bash", "-c", command], env={**kept, **variables, "LANDSLIDE_HOME": str(home)}, capture_output=True, check=True
    )
    environment = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if "=" in entry)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(root / "src")
    return environment
