"""The extras of the project (`pip install ".[training]"`), and which of them has a missing package."""

import re
from importlib import metadata

from landslide.errors import ConfigurationError


def missing_extra(error: ModuleNotFoundError) -> ConfigurationError | None:
    """Return an error that names the extra to install; None if the missing module is in none of them."""
    module = (error.name or "").partition(".")[0]
    package = {"yaml": "pyyaml"}.get(module, module.replace("_", "-"))
    try:
        requirements = metadata.requires("landslide") or []
    except metadata.PackageNotFoundError:  # imported from a folder that is not installed
        return None
    for requirement in requirements:
        found = re.fullmatch(r"([\w.-]+)\b.*\bextra == ['\"](\w+)['\"]", requirement)
        if found and found[1] == package != "landslide":
            return ConfigurationError(
                f"This needs the package {package}, which is not installed.",
                remedy=f"Install the extra {found[2]}, in the project's checkout: pip install '.[{found[2]}]'",
            )
    return None
