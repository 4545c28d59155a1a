"""What a command finds only in the checkout: the library knows nothing of ZenML."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from landslide.errors import ConfigurationError


def module_of_checkout(name: str) -> ModuleType:
    """Import a module of the checkout, such as `pipelines.training`.

    Raises:
        ConfigurationError: If neither `LANDSLIDE_ROOT` nor the working folder is the checkout.
    """
    checkout = Path(os.environ.get("LANDSLIDE_ROOT") or ".").resolve()
    if not checkout.joinpath(*name.split(".")).with_suffix(".py").is_file():
        raise ConfigurationError(
            f"{checkout} is not the project's checkout, to which {name} belongs.",
            remedy="Run this in the checkout, or source its activate.sh first.",
        )
    sys.path.insert(0, str(checkout))
    return importlib.import_module(name)
