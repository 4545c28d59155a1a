"""Loads the scripts in `experiments` as modules."""

import importlib.util
import sys
from types import ModuleType

from tests.support.pipeline_runs import ROOT

FOLDER = ROOT / "experiments"


def load(name: str) -> ModuleType:
    """Return a script as a module; what it imports from beside itself is found as if it were run."""
    specification = importlib.util.spec_from_file_location(f"{name}_experiment", FOLDER / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(FOLDER))
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module
