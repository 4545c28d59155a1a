"""Landslide segmentation from Sentinel-2 patches.

Data goes one way: patches -> bands -> cache -> folds -> training -> evaluation -> tracking.
"""

import os as _os
import sys as _sys

# No library reports its use, wherever this one is used. For ZenML, which is imported before it, activate.sh says so.
for _name in ("MLFLOW_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS"):
    _os.environ.setdefault(_name, "true")
_sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed

__version__ = "0.1.0"
