"""The Kubeflow stack: our orchestrator, S3-compatible artifacts, a container registry and an MLflow server.

Credentials are references to ZenML secrets, `{{name.key}}`; they are resolved in the pods and are never stored
in the stack. Repeating the registration changes nothing; with other values it changes exactly those.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from zenml.client import Client
from zenml.enums import StackComponentType

from landslide.errors import ConfigurationError
from stacks.kubeflow_flavor import LandslideKubeflowFlavor

_FLAVOR = LandslideKubeflowFlavor()
_FLAVOR_SOURCE = f"{LandslideKubeflowFlavor.__module__}.{LandslideKubeflowFlavor.__name__}"
# Keys that the secrets must have, and the options of the components that refer to them.
S3_KEYS = {"key": "access_key", "secret": "secret_key"}
MLFLOW_KEYS = {"tracking_username": "username", "tracking_password": "password"}
_HOSTNAME = re.compile(r"[\w.-]+(:\d+)?(/[\w./-]+)?")


@dataclass(frozen=True, kw_only=True)
class KubeflowStack:
    """The components of a Kubeflow stack.

    Attributes:
        name: Name of the stack and of its components.
        kubeflow_url: Address of the Kubeflow Pipelines API, or empty if `kubernetes_context` is given.
        kubernetes_context: A context of the local kubeconfig whose cluster runs Kubeflow Pipelines.
        namespace: Kubernetes namespace of Kubeflow Pipelines.
        bucket: Folder of the artifacts, s3://bucket/folder.
        s3_endpoint: Address of S3-compatible storage; empty for AWS.
        s3_secret: ZenML secret with access_key and secret_key; empty if the pods have their own role.
        registry: Container registry that holds the image of the steps.
        mlflow_url: Address of the MLflow server.
        mlflow_secret: ZenML secret with username and password; empty if the server needs none.
        secrets: ZenML secrets whose keys become environment variables of every step.
    """

    name: str = "landslide-kubeflow"
    kubeflow_url: str = ""
    kubernetes_context: str = ""
    namespace: str = "kubeflow"
    bucket: str
    s3_endpoint: str = ""
    s3_secret: str = ""
    registry: str
    mlflow_url: str
    mlflow_secret: str = ""
    secrets: Sequence[str] = ()

    def __post_init__(self) -> None:
        if bool(self.kubeflow_url) == bool(self.kubernetes_context):
            raise ConfigurationError(
                "A Kubeflow stack needs the address of Kubeflow Pipelines or a Kubernetes context, one of them.",
                remedy="Give --kubeflow-url https://HOST/pipeline or --kubernetes-context NAME "
                "(`kubectl config get-contexts` lists them).",
            )
        for option in ("kubeflow_url", "s3_endpoint", "mlflow_url"):
            _check_url(option, getattr(self, option))
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/.*)?", self.bucket):
            raise ConfigurationError(
                f"--bucket is {self.bucket!r}, which is no address in S3.", remedy="Use s3://BUCKET/FOLDER."
            )
        if not _HOSTNAME.fullmatch(self.registry):
            raise ConfigurationError(
                f"--registry is {self.registry!r}, which is no container registry.",
                remedy="Use HOST/PATH without a scheme, for example registry.example.com/mapping.",
            )

    def components(self) -> dict[StackComponentType, tuple[str, dict[str, Any]]]:
        """Return flavour and configuration of each component; None means that an option is not set."""
        return {
            StackComponentType.ORCHESTRATOR: (
                _FLAVOR.name,
                {
                    "kubeflow_hostname": self.kubeflow_url or None,
                    "kubernetes_context": self.kubernetes_context or None,
                    "kubeflow_namespace": self.namespace,
                    "synchronous": False,
                },
            ),
            StackComponentType.ARTIFACT_STORE: (
                "s3",
                {
                    "path": self.bucket.rstrip("/"),
                    "client_kwargs": {"endpoint_url": self.s3_endpoint.rstrip("/")} if self.s3_endpoint else None,
                    **_references(self.s3_secret, S3_KEYS),
                },
            ),
            StackComponentType.CONTAINER_REGISTRY: ("default", {"uri": self.registry.rstrip("/")}),
            StackComponentType.IMAGE_BUILDER: ("local", {}),
            StackComponentType.EXPERIMENT_TRACKER: (
                "mlflow",
                {"tracking_uri": self.mlflow_url.rstrip("/"), **_references(self.mlflow_secret, MLFLOW_KEYS)},
            ),
            StackComponentType.MODEL_REGISTRY: ("mlflow", {}),
        }


def register_kubeflow_stack(stack: KubeflowStack, *, activate: bool = False) -> bool:
    """Register the stack at the ZenML server, or update the stack of this name.

    Args:
        stack: What it consists of.
        activate: Make it the active stack.

    Returns:
        Whether anything was changed.

    Raises:
        ConfigurationError: If no ZenML server is connected, a secret is missing, or a component of this name has
            another flavour.
    """
    client = Client()
    if client.zen_store.is_local_store():
        raise ConfigurationError(
            "This shell is connected to no ZenML server, which the steps on Kubeflow would report to.",
            remedy="Run `zenml login https://YOUR-ZENML-SERVER` first.",
        )
    _check_secret(client, stack.s3_secret, S3_KEYS.values())
    _check_secret(client, stack.mlflow_secret, MLFLOW_KEYS.values())
    for secret in stack.secrets:
        _check_secret(client, secret, ())
    changed = _register_flavor(client)
    for kind, (flavor, configuration) in stack.components().items():
        changed |= _register_component(client, stack.name, kind, flavor, configuration)
    changed |= _register_stack(client, stack)
    if activate and client.active_stack_model.name != stack.name:
        client.activate_stack(stack.name)
        changed = True
    return changed


def _check_url(option: str, url: str) -> None:
    if not url:
        return
    name = f"--{option.replace('_', '-')}"
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ConfigurationError(
            f"{name} holds a user name or a password.",
            remedy="Put them into a ZenML secret and name it with --s3-secret or --mlflow-secret.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{name} is {url!r}, which is no web address.", remedy="Use https://HOST[:PORT].")


def _references(secret: str, keys: Mapping[str, str]) -> dict[str, str | None]:
    return {option: f"{{{{{secret}.{key}}}}}" if secret else None for option, key in keys.items()}


def _check_secret(client: Client, name: str, keys: Any) -> None:
    if not name:
        return
    remedy = f"Run `zenml secret create {name} {' '.join(f'--{key}=...' for key in keys) or '--NAME=VALUE'}`."
    try:
        secret = client.get_secret(name, allow_partial_name_match=False, allow_partial_id_match=False)
    except KeyError as error:
        raise ConfigurationError(f"The ZenML server has no secret {name!r}.", remedy=remedy) from error
    if missing := [key for key in keys if key not in secret.values]:
        raise ConfigurationError(
            f"The ZenML secret {name!r} lacks {' and '.join(missing)}.", remedy=remedy.replace("create", "update")
        )


def _register_flavor(client: Client) -> bool:
    if client.list_flavors(name=_FLAVOR.name, type=StackComponentType.ORCHESTRATOR).items:
        return False
    client.create_flavor(_FLAVOR_SOURCE, StackComponentType.ORCHESTRATOR)
    return True


def _register_component(
    client: Client, name: str, kind: StackComponentType, flavor: str, configuration: dict[str, Any]
) -> bool:
    found = client.list_stack_components(name=name, type=kind).items
    if not found:
        given = {option: value for option, value in configuration.items() if value is not None}
        client.create_stack_component(name, flavor, kind, given)
        return True
    if found[0].flavor_name != flavor:
        raise ConfigurationError(
            f"There is a {kind.value} {name!r} of flavour {found[0].flavor_name}, and {flavor} is needed.",
            remedy="Register the stack under another name with --name.",
        )
    changes = {k: v for k, v in configuration.items() if found[0].configuration.get(k) != v}
    if changes:
        client.update_stack_component(name, kind, configuration=changes)
    return bool(changes)


def _register_stack(client: Client, stack: KubeflowStack) -> bool:
    secrets = [client.get_secret(name, allow_partial_name_match=False).id for name in stack.secrets]
    found = client.list_stacks(name=stack.name).items
    if not found:
        client.create_stack(stack.name, dict.fromkeys(stack.components(), stack.name), secrets=secrets)
        return True
    before = list(client.get_stack(found[0].id).secrets)
    if set(before) == set(secrets):
        return False
    client.update_stack(
        stack.name,
        add_secrets=[s for s in secrets if s not in before],
        remove_secrets=[s for s in before if s not in secrets],
    )
    return True
