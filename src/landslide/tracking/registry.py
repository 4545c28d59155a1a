"""MLflow's model registry: versions, their aliases, and how they change.

There is one registered model. `champion` points to the version in service, `challenger` to the newest version that did
not replace it. Every change of the champion is written into the tags of the versions, so that it can be read and
undone.
"""

import ast
import logging
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from landslide.data.demo import DEMO_VERSION
from landslide.errors import ComparisonError, RegistryError
from landslide.folds.parts import HoldOut
from landslide.schema import ORIGINAL_BANDS
from landslide.tracking import descriptions
from landslide.tracking.runs import (
    ABSENT,
    MlflowClient,
    MlflowException,
    Run,
    fetch_artifact,
    fetch_model,
    has_model,
    register_model,
    runs_of_equal_inputs,
    tag_run,
)

logger = logging.getLogger(__name__)

MODEL_NAME = "landslide-segmentation"
CHAMPION, CHALLENGER = "champion", "challenger"
NONE_IN_SERVICE = "no model was in service"
# Columns of the table of versions.
SCORES = ("f1_macro", "f1_landslide", "miou")
IN_SCENE_SCORES = tuple(f"{name}_in_scene" for name in SCORES)
"""Recorded with a version beside its scores if its folds have an in-scene part; `tested_on` says what those are of."""
_TEXTS = ("tested_on", "data_version", "selection", "git_commit", "decision", "rolled_back")
_OTHER_VERSION = (
    "Promote another version (`landslide models list`, `landslide models promote`), or run the pipeline that trained "
    "it once more, which registers it again."
)
_NO_CHAMPION = (
    "Put a version into service with `landslide models promote` (`landslide models list` shows them), or train a first "
    "model: make run."
)
_COLUMNS = ("version", "aliases", *SCORES, *IN_SCENE_SCORES, *_TEXTS, "created", "run_id")


@dataclass(frozen=True)
class Decision:
    """Which alias a version gets, and why."""

    alias: str
    reason: str


def registered(client: MlflowClient, tags: Mapping[str, str]) -> str | None:
    """Return the version that was registered with these tags (`run_id` among them), None if there is none.

    A step that is started again asks this first, so that nothing is registered twice. A version whose model was
    deleted does not count.
    """
    of_this_run = f"name = '{MODEL_NAME}' and tags.`run_id` = '{tags['run_id']}'"
    for found in client.search_model_versions(of_this_run):
        if tags.items() <= found.tags.items() and has_model(address(str(found.version))):
            return str(found.version)
    return None


def register(client: MlflowClient, model_uri: str, tags: Mapping[str, str]) -> str:
    """Register a logged model; its alias is decided separately.

    Args:
        client: The tracking client.
        model_uri: What `tracking.log_model` returned.
        tags: Lineage and cross-validated scores, as text; `run_id` among them.

    Returns:
        The new version.
    """
    return register_model(model_uri, MODEL_NAME, tags)


def champion(client: MlflowClient) -> dict[str, str] | None:
    """Return the tags of the version in service, with its `version`; None if there is none.

    Raises:
        RegistryError: If the registry does not answer, which is not to be taken for an empty one.
    """
    try:
        current = client.get_model_version_by_alias(MODEL_NAME, CHAMPION)
    except MlflowException as error:
        _raise_unless_absent(error)
        return None
    return {**current.tags, "version": str(current.version)}


def check_champion(client: MlflowClient) -> str | None:
    """Check that the version in service has its model and its run; return its number, None if there is none.

    Raises:
        RegistryError: If one of them was deleted.
    """
    current = champion(client)
    if current is None:
        return None
    number = current["version"]
    if not has_model(address(number)):
        raise RegistryError(f"Version {number} is in service, and its model was deleted.", remedy=_OTHER_VERSION)
    cross_validation(client, current)
    return number


# Digits of a version that every database holds.
_LONGEST_NUMBER = 9


def version(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the tags of a version, with its `version`.

    Args:
        client: The tracking client.
        name: A number, an alias such as `champion` or `@champion`, or an address of MLflow (`models:/MODEL/3`,
            `models:/MODEL@champion`).

    Raises:
        RegistryError: If there is no such version, or the address is of another model.
    """
    name = _of_address(str(name)).removeprefix("@")
    absent = RegistryError(
        f"{MODEL_NAME} has no {'version' if name.isdecimal() else 'version with the alias'} {name}.",
        remedy="`landslide models list` shows the versions there are; `make run` trains a first one.",
    )
    if name.isdecimal() and len(name) > _LONGEST_NUMBER:
        raise absent
    look_up = client.get_model_version if name.isdecimal() else client.get_model_version_by_alias
    try:
        found = look_up(MODEL_NAME, name)
    except MlflowException as error:
        _raise_unless_absent(error)
        raise absent from error
    return {**found.tags, "version": str(found.version)}


def _of_address(name: str) -> str:
    """Return number or alias out of an address of MLflow, and any other name as it is."""
    if not name.startswith("models:/"):
        return name
    rest = name.removeprefix("models:/")
    if not rest.startswith((f"{MODEL_NAME}/", f"{MODEL_NAME}@")):
        raise RegistryError(
            f"{name} is not a version of {MODEL_NAME}.",
            remedy=f"Give models:/{MODEL_NAME}/NUMBER or models:/{MODEL_NAME}@ALIAS.",
        )
    return rest[len(MODEL_NAME) + 1 :]


def address(number: str) -> str:
    """Return the address of a version by which MLflow loads it."""
    return f"models:/{MODEL_NAME}/{number}"


def fetch(number: str, destination: Path) -> Path:
    """Download the model of a version and return the folder of its ensemble, for `load_ensemble`.

    Raises:
        RegistryError: If its model was deleted.
    """
    return fetch_model(
        address(number),
        destination,
        name=f"Version {number}",
        remedy=_OTHER_VERSION,
    )


def cross_validation(client: MlflowClient, tags: Mapping[str, str]) -> Run:
    """Return the run that a version comes from.

    Args:
        client: The tracking client.
        tags: What `version` returned.

    Raises:
        RegistryError: If the run was deleted for good.
    """
    try:
        return client.get_run(tags["run_id"])
    except (MlflowException, KeyError) as error:
        raise RegistryError(
            f"The run of version {tags['version']} is gone from MLflow: {error}.",
            remedy="Choose another version (`landslide models list`), and promote it if this one is in service "
            "(`landslide models promote`), or restore a backup (docs/how-to/back-up-and-restore.md).",
        ) from error


def seen_patches(client: MlflowClient, tags: Mapping[str, str]) -> pd.DataFrame:
    """Return every patch that a registered version, or one that it started from, has been trained or tested on.

    Args:
        client: The tracking client.
        tags: What `version` returned.

    Returns:
        Its fold table and the patches that had left before: number, image_md5, scene, row, column, fold, and more.

    Raises:
        ComparisonError: If the version's run holds no fold table.
    """
    tables = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("fold_table.csv", "departed_patches.csv") if "run_id" in tags else ():
            path = fetch_artifact(client, tags["run_id"], name, Path(temporary))
            if path is not None:
                tables.append(pd.read_csv(path, dtype={"image_md5": str, "mask_md5": str}))
            elif name == "fold_table.csv":
                break
    if not tables:
        raise ComparisonError(
            f"Version {tags['version']} has no fold table, so its training patches are unknown.",
            remedy="Train with pipelines.training.training_pipeline and promote that version "
            "(`landslide models promote`).",
        )
    return pd.concat(tables, ignore_index=True)


def versions(client: MlflowClient) -> pd.DataFrame:
    """Return all versions, newest first.

    Returns:
        Columns version (int), aliases (comma-separated), f1_macro, f1_landslide, miou (cross-validated means, NaN
        where not recorded), the same with `_in_scene`, tested_on (what the test folds are to the training parts, such
        as "another scene"; empty if they are ground of the same scenes), data_version, selection, git_commit, decision,
        rolled_back (when, as ISO 8601; empty if it was not, or was promoted since), created (UTC), run_id.
    """
    aliases: dict[str, list[str]] = {}
    try:
        for alias, number in sorted(client.get_registered_model(MODEL_NAME).aliases.items()):
            aliases.setdefault(str(number), []).append(alias)
    except MlflowException as error:
        _raise_unless_absent(error)
        return pd.DataFrame(columns=list(_COLUMNS))  # nothing was ever registered
    rows = [
        {
            "version": int(one.version),
            "aliases": ", ".join(aliases.get(str(one.version), [])),
            **{name: float(one.tags.get(name, "nan")) for name in (*SCORES, *IN_SCENE_SCORES)},
            **{name: one.tags.get(name, "") for name in _TEXTS},
            "created": datetime.fromtimestamp(one.creation_timestamp / 1000, UTC),
            "run_id": one.tags.get("run_id", one.run_id),
        }
        for one in sorted(_every_version(client), key=lambda one: -int(one.version))
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _every_version(client: MlflowClient) -> list[Any]:
    found, token = [], None
    while token != "":
        page = client.search_model_versions(f"name = '{MODEL_NAME}'", page_token=token)
        found += list(page)
        token = page.token or ""
    return found


def decide_by_score(candidate: Mapping[str, str], champion: Mapping[str, str] | None, metric: str) -> Decision:
    """Decide between champion and challenger on the recorded scores.

    Two runs compare only on equal data, folds and selection; anything else stays a challenger. A model of the generated
    demo set gives way to the first one of other data.

    Args:
        candidate: Tags of the new version.
        champion: Tags of the version in service, or None if there is none.
        metric: The cross-validated score that decides.
    """
    if champion is None:
        return Decision(CHAMPION, NONE_IN_SERVICE)
    if candidate["run_id"] == champion["run_id"]:
        return Decision(CHAMPION, "the same cross-validation, registered again")
    if gives_way(champion, candidate):
        return Decision(CHAMPION, describe_giving_way(champion))
    candidate, champion = with_older_defaults(candidate), with_older_defaults(champion)
    for name in ("data_version", "fold_table", "folds_trained", "left_out", "selection"):
        if candidate[name] != champion.get(name):
            return Decision(CHALLENGER, f"not comparable with the champion: its {name} differs")
    new, old = float(candidate[metric]), float(champion[metric])
    comparison = f"{metric} {100 * new:.2f} % against {100 * old:.2f} % of version {champion['version']}"
    return (
        Decision(CHAMPION, f"better: {comparison}") if new > old else Decision(CHALLENGER, f"not better: {comparison}")
    )


def with_older_defaults(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a version with what those of older versions do not say."""
    gap = 1 if tags.get("fold_scheme") == "scene_blocked" else 0
    return {"folds_trained": "all", "left_out": str(HoldOut(gap=gap)), **tags}


def gives_way(champion: Mapping[str, str], candidate: Mapping[str, str]) -> bool:
    """Return whether a champion was trained on the generated demo set and a candidate was not; arguments are tags."""
    return champion.get("data_version") == DEMO_VERSION != candidate.get("data_version")


def describe_giving_way(champion: Mapping[str, str]) -> str:
    """Return why a model replaces one of the demo set."""
    return f"version {champion['version']} was trained on the generated demo set"


def decide_once(client: MlflowClient, number: str, metric: str) -> Decision:
    """Decide the alias of a version on the recorded scores, unless that was decided before.

    A decision of the past stays, whatever happened to the champion since: only `promote` changes it.

    Args:
        client: The tracking client.
        number: The version.
        metric: The cross-validated score that decides.

    Returns:
        The decision of now, or that of the past.
    """
    tags, current = version(client, number), champion(client)
    alias, _, reason = tags.get("decision", "").partition(": ")
    if "decided" in tags:
        return Decision(alias, reason)
    if current is not None and current["version"] == number:  # killed before it was all written down
        decision = Decision(CHAMPION, reason)
    elif when := rolled_back(client, tags):
        decision = Decision(CHALLENGER, describe_rollback(when))
    else:
        decision = decide_by_score(tags, current, metric)
    apply_decision(client, number, decision)
    return decision


def rolled_back(client: MlflowClient, tags: Mapping[str, str]) -> str | None:
    """Return when a model was rolled back, None if it was not, or was promoted since.

    A version that was registered again is the same model, also if the rolled-back version or its run was deleted.

    Args:
        client: The tracking client.
        tags: What `version` returned.
    """
    marks = [run.data.tags.get("rolled_back") for run in runs_of_equal_inputs(client, tags.get("run_id", ""))]
    return next(filter(None, [tags.get("rolled_back"), *marks]), None)


def describe_rollback(when: str) -> str:
    """Return why a model that was rolled back at a time (ISO 8601) is not promoted."""
    return f"this model was rolled back on {when[:10]}, and returns only by `landslide models promote`"


def apply_decision(client: MlflowClient, version: str, decision: Decision) -> None:
    """Give a version its alias and write down why.

    A new champion records the version that it replaced, to which a rollback returns.

    Args:
        client: The tracking client.
        version: The version that the decision is about.
        decision: Its alias and the reason.
    """
    tags = {"decision": f"{decision.alias}: {decision.reason}"}
    if decision.alias == CHAMPION:
        replaced = champion(client)
        if replaced is not None and replaced["version"] != version:
            tags["replaced_champion"] = replaced["version"]
    for name, value in tags.items():
        client.set_model_version_tag(MODEL_NAME, version, name, value)
    client.update_model_version(MODEL_NAME, version, description=tags["decision"])
    client.set_registered_model_alias(MODEL_NAME, decision.alias, version)
    if decision.alias == CHAMPION:
        _drop_alias(client, CHALLENGER, version)
        _mark_rolled_back(client, version, None)
    client.update_registered_model(MODEL_NAME, description=descriptions.model(champion(client)))
    # Last: a version with this tag has its alias.
    client.set_model_version_tag(MODEL_NAME, version, "decided", datetime.now(UTC).isoformat())


def previous_champion(client: MlflowClient) -> tuple[str, str]:
    """Return the version in service, and the version to which a rollback returns.

    That is the version that the champion replaced. One that was itself rolled back is passed over, and so is one of the
    same cross-validation, which is the same model registered twice. One that was deleted, or whose model was, is passed
    over with a warning: the last champion before it follows.

    Returns:
        The two versions; the first is empty if the version in service was deleted.

    Raises:
        RegistryError: If there never was a champion, or nothing before it.
    """
    current = champion(client)
    if current is None:
        last = _last_champion(client, set())
        if last is None:
            raise RegistryError(f"{MODEL_NAME} has no champion.", remedy=_NO_CHAMPION)
        return "", last["version"]
    left, seen = current, {current["version"]}
    while True:
        previous = left.get("replaced_champion")
        if previous is None or previous in seen:
            raise RegistryError(
                f"There is no version before the champion, version {current['version']}, to return to.",
                remedy="`landslide models list` shows the versions; `landslide models promote` puts one into service.",
            )
        seen.add(previous)
        found = _existing(client, previous)
        if found is None:
            found = _last_champion(client, seen, before=left.get("decided"))
            if found is None:
                raise RegistryError(
                    f"Version {previous}, to which a rollback of version {current['version']} leads, was deleted, and "
                    "no earlier champion is left.",
                    remedy="Choose another one of `landslide models list` and put it into service with `landslide "
                    "models promote`.",
                )
            logger.warning("Version %s was deleted; the champion before it is version %s.", previous, found["version"])
            seen.add(found["version"])
        left = found
        if "rolled_back" not in left and left.get("run_id") != current.get("run_id"):
            return current["version"], left["version"]


def _existing(client: MlflowClient, number: str) -> dict[str, str] | None:
    """Return the tags of a version with its `version`, None if it or its model was deleted."""
    try:
        found = client.get_model_version(MODEL_NAME, number)
    except MlflowException as error:
        _raise_unless_absent(error)
        return None
    return {**found.tags, "version": number} if has_model(address(number)) else None


def _last_champion(client: MlflowClient, without: Collection[str], before: str | None = None) -> dict[str, str] | None:
    """Return the version that became champion last, before a time (ISO 8601), and was not rolled back; None if none."""
    try:
        found = [{**one.tags, "version": str(one.version)} for one in _every_version(client)]
    except MlflowException as error:
        _raise_unless_absent(error)
        return None
    champions = [
        one
        for one in found
        if one.get("decision", "").startswith(f"{CHAMPION}: ") and "decided" in one and "rolled_back" not in one
        if one["version"] not in without and (before is None or one["decided"] < before)
    ]
    champions.sort(key=lambda one: one["decided"], reverse=True)
    return next((one for one in champions if has_model(address(one["version"]))), None)


def warnings_of_return(client: MlflowClient, left: str, restored: str) -> list[str]:
    """Return what changes for those who use the champion if one version follows another, beside its quality.

    Args:
        client: The tracking client.
        left: The version that is left, empty if it was deleted.
        restored: The version that follows.
    """
    old, new = ({} if number == "" else version(client, number) for number in (left, restored))
    found = []
    if new.get("data_version") == DEMO_VERSION != old.get("data_version"):
        found.append(f"version {restored} was trained on the generated demo set")
    before, after = (_stored_bands(client, tags) for tags in (old, new))
    if None not in (before, after) and before != after:
        found.append(f"version {restored} takes other patches: it expects {after}, and version {left} expects {before}")
    return found


def _stored_bands(client: MlflowClient, tags: Mapping[str, str]) -> str | None:
    """Return the stored bands that a version expects, as text; None if that is unknown."""
    try:
        recorded = cross_validation(client, tags).data.params if "run_id" in tags else {}
        bands = ast.literal_eval(recorded.get("bands.stored", "None"))
    except (RegistryError, ValueError):
        return None
    if bands is None:
        return None
    return "the 14 bands of Landslide4Sense" if tuple(bands) == ORIGINAL_BANDS else ", ".join(bands)


def rollback(client: MlflowClient) -> tuple[str, str]:
    """Move the alias `champion` back to the previous champion. Each further call goes back one more.

    The old champion and its run get the tag `rolled_back` with the time, the new one the tag `restored`.

    Returns:
        The old champion, empty if it was deleted, and the new one.

    Raises:
        RegistryError: If there never was a champion, or nothing before it.
    """
    left, restored = previous_champion(client)
    now = datetime.now(UTC).isoformat()
    if left:
        _mark_rolled_back(client, left, now)
    client.set_model_version_tag(MODEL_NAME, restored, "restored", now)
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, restored)
    _drop_alias(client, CHALLENGER, restored)
    if left:
        decision = client.get_model_version(MODEL_NAME, left).tags.get("decision", "")
        client.update_model_version(MODEL_NAME, left, description=f"rolled back on {now[:10]}; before that {decision}")
    client.update_registered_model(MODEL_NAME, description=descriptions.model(champion(client)))
    return left, restored


def _mark_rolled_back(client: MlflowClient, number: str, when: str | None) -> None:
    """Tag a version and its run as rolled back, or take the tags away with None."""
    tags = client.get_model_version(MODEL_NAME, number).tags
    if when is not None:
        client.set_model_version_tag(MODEL_NAME, number, "rolled_back", when)
    elif "rolled_back" in tags:
        client.delete_model_version_tag(MODEL_NAME, number, "rolled_back")
    for run in runs_of_equal_inputs(client, tags.get("run_id", "")):
        tag_run(client, run, "rolled_back", when)


def _raise_unless_absent(error: MlflowException) -> None:
    """Raise a RegistryError unless MLflow says that there is no such model, version or alias."""
    if error.error_code not in ABSENT:
        raise RegistryError(
            f"The model registry returned an unexpected error: {error}.",
            remedy="Check that the server runs and that this user may read the registry, then start again.",
        ) from error


def _drop_alias(client: MlflowClient, alias: str, version: str) -> None:
    """Remove an alias if it points to this version."""
    aliases = client.get_registered_model(MODEL_NAME).aliases
    if str(aliases.get(alias)) == str(version):
        client.delete_registered_model_alias(MODEL_NAME, alias)
