"""Paths of generated state: all in one folder, `LANDSLIDE_HOME`, by default `.landslide` in the working folder."""

import os
from pathlib import Path


def home() -> Path:
    """Return the folder of all generated state: environment, ZenML, MLflow, caches, checkpoints."""
    return Path(os.environ.get("LANDSLIDE_HOME") or ".landslide").resolve()


def band_caches() -> Path:
    """Return the folder of the band caches."""
    return home() / "cache" / "bands"


def checkpoints() -> Path:
    """Return the folder of the checkpoints of unfinished folds."""
    return home() / "checkpoints"


def pulled_data() -> Path:
    """Return the folder of data versions that were pulled without a checkout."""
    return home() / "data"


def default_tracking_uri() -> str:
    """Return the address of the MLflow store: a server from the environment, or a sqlite file under `LANDSLIDE_HOME`.

    `activate.sh` derives `MLFLOW_TRACKING_URI` from `LANDSLIDE_TRACKING_URI`; in a container nothing does.
    """
    server = os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("LANDSLIDE_TRACKING_URI")
    return server or f"sqlite:///{home() / 'mlflow.db'}"
