"""MLflow's model registry: versions, their aliases, and how they change.

One registered model; its version in service is the alias `champion`, the last that did not replace it the alias
`challenger`. Every change of the champion is written into the tags of the versions, so that it can be read and
undone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

import mlflow
from landslide.errors import RegistryError

MODEL_NAME = "landslide-segmentation"
CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Decision:
    """Which alias a version gets, and why."""

    alias: str
    reason: str


def register(client: MlflowClient, model_uri: str, tags: Mapping[str, str]) -> str:
    """Register a logged model; its alias is decided apart.

    Args:
        client: The tracking client.
        model_uri: What `tracking.log_model` returned.
        tags: Lineage and cross-validated scores, as text; `run_id` among them.

    Returns:
        The new version.
    """
    return str(mlflow.register_model(model_uri, MODEL_NAME, tags=dict(tags)).version)


def champion(client: MlflowClient) -> dict[str, str] | None:
    """Return the tags of the version in service, with its `version`; None if there is none."""
    try:
        current = client.get_model_version_by_alias(MODEL_NAME, CHAMPION)
    except MlflowException:
        return None
    return {**current.tags, "version": str(current.version)}


def version(client: MlflowClient, number: str) -> dict[str, str]:
    """Return the tags of a version, with its `version`.

    Raises:
        RegistryError: If there is no such version.
    """
    try:
        found = client.get_model_version(MODEL_NAME, number)
    except MlflowException as error:
        raise RegistryError(
            f"{MODEL_NAME} has no version {number}.", remedy="`landslide models list` shows the versions there are."
        ) from error
    return {**found.tags, "version": str(found.version)}


def decide_by_score(candidate: Mapping[str, str], champion: Mapping[str, str] | None, metric: str) -> Decision:
    """Decide between champion and challenger on the recorded scores.

    Two runs compare only on equal data, folds and selection; anything else stays a challenger.

    Args:
        candidate: Tags of the new version.
        champion: Tags of the version in service, or None if there is none.
        metric: The cross-validated score that decides.
    """
    if champion is None:
        return Decision(CHAMPION, "the first registered model")
    if candidate["run_id"] == champion["run_id"]:
        return Decision(CHAMPION, "the same cross-validation, registered again")
    for name in ("data_version", "fold_table", "selection"):
        if candidate[name] != champion.get(name):
            return Decision(CHALLENGER, f"not comparable with the champion: its {name} differs")
    new, old = float(candidate[metric]), float(champion[metric])
    comparison = f"{metric} {new:.4f} against {old:.4f} of version {champion['version']}"
    return (
        Decision(CHAMPION, f"better: {comparison}") if new > old else Decision(CHALLENGER, f"not better: {comparison}")
    )


def apply(client: MlflowClient, version: str, decision: Decision) -> None:
    """Give a version its alias and write down why.

    A new champion remembers the version that it replaced, which is where a rollback leads.

    Args:
        client: The tracking client.
        version: The version that the decision is about.
        decision: Its alias and the reason.
    """
    tags = {"decision": f"{decision.alias}: {decision.reason}", "decided": datetime.now(UTC).isoformat()}
    if decision.alias == CHAMPION:
        replaced = champion(client)
        if replaced is not None and replaced["version"] != version:
            tags["replaced_champion"] = replaced["version"]
    for name, value in tags.items():
        client.set_model_version_tag(MODEL_NAME, version, name, value)
    client.set_registered_model_alias(MODEL_NAME, decision.alias, version)
    if decision.alias == CHAMPION:
        _drop_alias(client, CHALLENGER, version)


def _drop_alias(client: MlflowClient, alias: str, version: str) -> None:
    """Remove an alias if it points to this version."""
    aliases = client.get_registered_model(MODEL_NAME).aliases
    if str(aliases.get(alias)) == str(version):
        client.delete_registered_model_alias(MODEL_NAME, alias)
