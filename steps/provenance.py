"""Where a run comes from: git commit, lock file, data pin, and the tracking store of the active stack."""

import hashlib
import logging
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

logger = logging.getLogger(__name__)

UNKNOWN = "unknown"
_CODE = ("src", "steps", "pipelines", "stacks", "requirements.lock", "pyproject.toml", "activate.sh")
# Set in git's hooks, for example: git would look there, and not in the checkout.
_OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")


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
    """Return the tags that lead from a run back to its code: git commit, uncommitted changes, lock digest.

    Only changed code counts as a change: data and configuration are recorded with every run. If git does not answer,
    commit and changes are `unknown`, and a warning has git's words.
    """
    commit, dirty = _code_state()
    lock = ROOT / "requirements.lock"
    return {
        "git_commit": commit,
        "git_dirty": dirty,
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


def _code_state() -> tuple[str, str]:
    """Return the commit, and whether code differs from it: `true`, `false` or `unknown`."""
    commit = os.environ.get("LANDSLIDE_GIT_COMMIT") or UNKNOWN  # of an image, or if git fails
    if not (ROOT / ".git").exists():
        return commit, UNKNOWN
    try:
        # Untracked files are left out: what git does not know cannot be imported by code that is committed.
        changes = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
        return _git("rev-parse", "--verify", "HEAD"), str(bool(changes)).lower()
    except (OSError, subprocess.CalledProcessError) as error:
        logger.warning(
            "The commit of this code is recorded as %s, and possible changes as unknown, because git fails:\n%s\n"
            "  -> Do what git says, or set LANDSLIDE_GIT_COMMIT. Runs without a commit cannot be rebuilt.",
            commit,
            (getattr(error, "stderr", None) or str(error)).strip(),
        )
        return commit, UNKNOWN


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
