"""Health checks of an installation: libraries, state folder, tracking store."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from landslide import paths
from landslide.errors import LandslideError, RegistryError, TrainingError
from landslide.extras import missing_extra
from landslide.operations import zenml_store
from landslide.operations.relocation import check_location


@dataclass(frozen=True)
class HealthFinding:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: Whether the check passed.
        text: The result; for a failure also the remedy.
    """

    name: str
    ok: bool
    text: str


def findings(*, need_gpu: bool = False) -> Iterator[HealthFinding]:
    """Run all checks; a failure does not stop the others.

    Args:
        need_gpu: Whether a missing GPU is a failure.
    """
    checks: dict[str, Callable[[], str]] = {
        "torch": lambda: _torch(need_gpu),
        "state": _state_folder,
        "tracking": _tracking_store,
        "zenml": zenml_store.check,
    }
    for name, check in checks.items():
        try:
            yield HealthFinding(name, True, check())
        except ModuleNotFoundError as error:
            yield HealthFinding(name, False, str(missing_extra(error) or error))
        except (LandslideError, OSError, ImportError) as error:
            yield HealthFinding(name, False, str(error))


def _torch(need_gpu: bool) -> str:
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if need_gpu and not names:
        built_for = f", built for CUDA {torch.version.cuda}," if torch.version.cuda else ", built for CPUs only,"
        driver = f" Its driver has to support CUDA {torch.version.cuda.split('.')[0]}." if torch.version.cuda else ""
        raise TrainingError(
            f"torch {torch.__version__}{built_for} finds no GPU.",
            remedy=f"Check `nvidia-smi`, and in a container the option `--gpus all`.{driver}",
        )
    return f"torch {torch.__version__}, {', '.join(names) or 'no GPU'}"


def _state_folder() -> str:
    folder = paths.home()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x")
        file.flush()
    check_location()
    return f"{folder} can be written, {shutil.disk_usage(folder).free / 1e9:.0f} GB free"


def _tracking_store() -> str:
    from landslide.tracking import registry, runs

    uri = paths.default_tracking_uri()
    try:
        client = runs.connect(uri)
        champion = registry.check_champion(client)
        if champion is None and len(registry.versions(client)):
            raise RegistryError(
                f"{uri} has versions of the model, and none is in service.",
                remedy="Put one into service: `landslide models list`, `landslide models promote`.",
            )
    except RegistryError:
        raise
    except Exception as error:  # any error of a database driver
        raise RegistryError(
            f"{uri} does not answer: {error}.", remedy="Check that the file or server exists."
        ) from error
    return f"{uri} answers, {f'version {champion} is in service' if champion else 'no model is in service'}"
