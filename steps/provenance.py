"""Where a run comes from: git commit, lock file, data pin, and the tracking store of the active stack."""

import hashlib
import os
import subprocess
from dataclasses import asdict, is_dataclass
from typing import Any

import yaml
from mlflow.tracking import MlflowClient
from zenml.client import Client
from zenml.integrations.mlflow.experiment_trackers import MLFlowExperimentTracker

from landslide.paths import default_tracking_uri
from landslide.tracking import runs
from steps.code_dependencies import ROOT

UNKNOWN = "unknown"


def tracking_uri() -> str:
    """Return the address of the active stack's MLflow tracker, or the default one if the stack has none."""
    tracker = Client().active_stack.experiment_tracker
    return (
        getattr(tracker.config, "tracking_uri", None) or default_tracking_uri() if tracker else default_tracking_uri()
    )


def tracking_client() -> MlflowClient:
    """Connect to the tracking store of the active stack, with the credentials that the stack refers to."""
    tracker = Client().active_stack.experiment_tracker
    if isinstance(tracker, MLFlowExperimentTracker) and tracker.config.tracking_username:
        tracker.configure_mlflow()
    return runs.connect(tracking_uri())


def lineage_tags() -> dict[str, str]:
    """Return the tags that lead from a run back to its code: git commit, uncommitted changes, lock digest."""
    commit = git_commit()
    lock = ROOT / "requirements.lock"
    return {
        "git_commit": commit,
        "git_dirty": str(bool(_git("status", "--porcelain"))).lower() if _is_checkout() else UNKNOWN,
        "requirements_lock": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else UNKNOWN,
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": "pipelines.training.training_pipeline",
    }


def configuration_text(**parameters: Any) -> str:
    """Return the YAML of a run configuration of the training pipeline.

    Args:
        **parameters: The pipeline's parameters: settings, or plain values.
    """
    plain = {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in parameters.items()
    }
    return yaml.safe_dump({"parameters": plain}, sort_keys=False)


def git_commit() -> str:
    """Return the commit of the checkout; of an image what `LANDSLIDE_GIT_COMMIT` says; else `unknown`."""
    if not _is_checkout():
        return os.environ.get("LANDSLIDE_GIT_COMMIT") or UNKNOWN
    return _git("rev-parse", "HEAD") or UNKNOWN


def _is_checkout() -> bool:
    return (ROOT / ".git").exists()


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
