"""The embedded stack: local orchestrator and artifact store, MLflow tracker and registry on sqlite.

    python -m stacks.local

registers and activates it, all under `LANDSLIDE_HOME`. Repeating it changes nothing.
"""

import os
import sys
from pathlib import Path

from zenml.client import Client
from zenml.enums import StackComponentType

from landslide.errors import ConfigurationError, LandslideError
from landslide.locks import locked
from landslide.operations import zenml_store
from landslide.operations.relocation import check_location
from landslide.paths import home

NAME = "landslide"


def register_local_stack() -> str:
    """Register the embedded stack if it is missing, and activate it.

    Returns:
        The stack's name.

    Raises:
        ConfigurationError: If `LANDSLIDE_HOME` was moved and not relocated, or cannot be created.
        RegistryError: If a newer ZenML wrote the store.
    """
    check_location()
    try:
        home().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"LANDSLIDE_HOME is {home()}, which cannot be created: {error.strerror}.",
            remedy="Set LANDSLIDE_HOME to a folder that you may write to.",
        ) from error
    with locked(home() / "setup.lock"):  # ZenML creates its database at the first use, and two at once collide
        zenml_store.check()  # ZenML itself would end with a traceback
        repository = Path(os.environ.get("ZENML_REPOSITORY_PATH") or home() / "zenml")
        (repository / ".zen").mkdir(parents=True, exist_ok=True)  # otherwise every command warns that it is missing
        client = Client()
        if not client.list_stacks(name=NAME).items:
            artifacts = home() / "zenml" / "artifacts"
            artifacts.mkdir(parents=True, exist_ok=True)
            components: tuple[tuple[StackComponentType, str, dict[str, str]], ...] = (
                (StackComponentType.ORCHESTRATOR, "local", {}),
                (StackComponentType.ARTIFACT_STORE, "local", {"path": str(artifacts)}),
                # Without an address: it comes from the environment, where it may change.
                (StackComponentType.EXPERIMENT_TRACKER, "mlflow", {}),
                (StackComponentType.MODEL_REGISTRY, "mlflow", {}),
            )
            for kind, flavor, configuration in components:
                if not client.list_stack_components(type=kind, name=NAME).items:  # else of a set-up that was killed
                    client.create_stack_component(NAME, flavor, kind, configuration)
            client.create_stack(NAME, {kind: NAME for kind, _, _ in components})
        if client.active_stack_model.name != NAME:
            client.activate_stack(NAME)
    return NAME


if __name__ == "__main__":
    try:
        print(f"active ZenML stack: {register_local_stack()}, state in {home()}")
    except LandslideError as error:
        sys.exit(f"Error: {error}")
