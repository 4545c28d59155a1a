"""The code that reads a model: its digest, and the copy that a registered model brings along.

A network's answer depends on the formulas of its bands and on the code of its layers. A saved model records their
digest. An installation with other code does not read it by itself: it imports the model's copy of the package, beside
the modules that this process uses.
"""

import hashlib
import importlib
import sys
import threading
from pathlib import Path
from types import ModuleType

import landslide
from landslide.errors import RegistryError

_PACKAGE = "landslide"
# Everything on which a prediction depends.
_FILES = (
    "schema.py",
    "bands/formulas.py",
    "bands/rounding.py",
    "inference/ensemble.py",
    "inference/prediction.py",
    "inference/symmetries.py",
    "models/*.py",
)
_importing = threading.Lock()


def code_digest(package: Path) -> str:
    """Return the digest of the source of a copy of the package, as far as predictions depend on it.

    Args:
        package: The folder `landslide`.
    """
    digest = hashlib.sha256()
    for file in sorted(file for pattern in _FILES for file in package.glob(pattern)):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


CODE = code_digest(Path(landslide.__file__).parent)
"""The digest of the code that this process imported."""


def import_ensemble(folder: Path, digest: str | None) -> ModuleType:
    """Import the module `landslide.inference.ensemble` of a copy of the package.

    The modules that this process has imported stay as they are; a thread that imports modules of the package for the
    first time at the same moment may get those of the copy.

    Args:
        folder: The folder that holds the copy.
        digest: Its recorded digest; None if none was recorded.

    Raises:
        RegistryError: If the copy is damaged, or of a release whose modules have other names.
    """
    if digest is not None and code_digest(folder / _PACKAGE) != digest:
        raise RegistryError(
            f"The code in {folder} is not the code {digest} of the model.", remedy="Download the model again."
        )
    with _importing:
        before = _taken()
        sys.path.insert(0, str(folder))
        try:
            importlib.invalidate_caches()
            return importlib.import_module(f"{_PACKAGE}.inference.ensemble")
        except ImportError as error:
            raise RegistryError(
                f"The code in {folder} cannot be used in this process: {error}.",
                remedy="Load the model by mlflow.pyfunc.load_model in a process that has not imported landslide, or "
                "train it again.",
            ) from error
        finally:
            sys.path.remove(str(folder))
            _taken()
            sys.modules.update(before)


def _taken() -> dict[str, ModuleType]:
    """Take all modules of the package out of the table of imported modules."""
    names = [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]
    return {name: sys.modules.pop(name) for name in names}
