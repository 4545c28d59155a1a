"""Rebuilds a registered version from its git commit, data, configuration and folds.

The commands are for a shell, so that a person can follow them one by one. They work in a git worktree of the version's
commit, with generated state and data in its `.landslide`; the checkout stays unchanged.
"""

import hashlib
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from safetensors.torch import load_file

from landslide.errors import RegistryError
from landslide.folds.schemes import ELSEWHERE, GAPPED
from landslide.inference.ensemble import Member, load_members, recorded_code
from landslide.tracking import metric_keys, registry, runs
from landslide.tracking.runs import MlflowClient

_UNKNOWN = "unknown"
_PIPELINE = "pipelines.training.training_pipeline"


@dataclass(frozen=True)
class Origin:
    """The origin of a version.

    Attributes:
        version: Its number.
        run_id: Its cross-validation.
        data_version: Digest of its data.
        git_commit: Commit of its code, or `unknown`.
        git_dirty: `true` if the code had uncommitted changes, `false`, or `unknown`.
        requirements_lock: SHA-256 of its lock file, or `unknown`.
        start_from: The version whose fold models its folds started from; empty for none.
    """

    version: str
    run_id: str
    data_version: str
    git_commit: str
    git_dirty: str
    requirements_lock: str
    start_from: str


def origin(client: MlflowClient, name: str) -> Origin:
    """Return the origin of a version.

    Args:
        client: The tracking client.
        name: Number or alias.

    Raises:
        RegistryError: If the version or its run is missing.
    """
    tags = registry.version(client, name)
    run = registry.cross_validation(client, tags)
    recorded = {**run.data.tags, **tags}
    names = ("git_commit", "git_dirty", "requirements_lock")
    return Origin(
        version=tags["version"],
        run_id=run.info.run_id,
        data_version=recorded["data_version"],
        start_from=recorded.get("start_from", ""),
        **{name: recorded.get(name, _UNKNOWN) for name in names},
    )


def obstacles(source: Origin) -> list[str]:
    """Return why a version cannot be rebuilt exactly; empty if it can."""
    found = []
    if source.git_commit == _UNKNOWN:
        found.append("the commit of its code is not known (it was trained without a git checkout, or git failed)")
    elif source.git_dirty == "true":
        found.append(f"its code had changes that are not in commit {source.git_commit[:12]}")
    return found


def commands(source: Origin, project: Path, into: Path) -> list[str]:
    """Return the shell commands that rebuild a version and compare it with the recorded one.

    The environment of this process is used if it has the same lock; otherwise the worktree gets its own.

    Args:
        source: The origin of the version.
        project: Root of the checkout; the commands start there.
        into: Folder of the worktree.
    """
    home = into / ".landslide"
    where, state, number = (shlex.quote(str(text)) for text in (into, home, source.version))
    lock = project / "requirements.lock"
    same_lock = lock.is_file() and hashlib.sha256(lock.read_bytes()).hexdigest() == source.requirements_lock
    programs = shlex.quote(str(Path(sys.executable).parent))
    environment = [f'export PATH={programs}:"$PATH" PYTHONPATH={where}/src  # the lock is the same']
    return [
        f"cd {shlex.quote(str(project))}",
        f"test -e {where}/.git || git worktree add --detach {where} {source.git_commit}",
        f"landslide models download {number} {state}",
        f"landslide data pull {source.data_version} {state}/data",
        "(",
        f"  cd {where}",
        f"  export LANDSLIDE_HOME={state}; unset LANDSLIDE_TRACKING_URI PYTHONPATH",
        *(f"  {line}" for line in (environment if same_lock else ["make setup"])),
        "  source activate.sh",
        f"  zenml pipeline run {_PIPELINE} -c {state}/recorded/configuration.yaml",
        ")",
        f"landslide models verify {number} sqlite:///{state}/mlflow.db",
        f"# remove it again: git worktree remove --force {where}",
    ]


def check_worktree(source: Origin, project: Path, into: Path) -> None:
    """Check that the commit is available, and that the folder is free or a worktree of that commit.

    Raises:
        RegistryError: If not.
    """
    found = _git(project, "cat-file", "-e", f"{source.git_commit}^{{commit}}")
    if found.returncode != 0:
        raise RegistryError(
            f"The commit {source.git_commit} of version {source.version} is not found in the git repository {project}: "
            f"{found.stderr.strip()}",
            remedy="Run this in the project's checkout, after `git fetch --all`; if git refuses, do what it says.",
        )
    if into.exists() and any(into.iterdir()) and _git(into, "rev-parse", "HEAD").stdout.strip() != source.git_commit:
        raise RegistryError(
            f"{into} is not empty and no worktree of commit {source.git_commit[:12]}.",
            remedy="Give another folder with --into.",
        )


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)


def download(uri: str, source: Origin, home: Path) -> Path:
    """Write the recorded inputs of a version to a separate LANDSLIDE_HOME.

    That is `recorded/configuration.yaml`, changed to read the data in `data` there and the recorded folds, and
    `recorded/fold_table.csv`. Where the version started from another one, that goes into the store `mlflow.db`.

    Args:
        uri: Address of the MLflow store that has the version.
        source: The origin of the version.
        home: The folder.

    Returns:
        The configuration file.

    Raises:
        RegistryError: If the run lacks them.
    """
    client = runs.connect(uri)
    folder = home / "recorded"
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        runs.fetch_artifact(client, source.run_id, name, folder) for name in ("configuration.yaml", "fold_table.csv")
    ]
    configuration, table = files
    if configuration is None or table is None:
        raise RegistryError(
            f"The run {source.run_id} of version {source.version} has no recorded configuration or fold table.",
            remedy="It was trained by an older state of this project; check out its commit and read its parameters "
            "in MLflow.",
        )
    content = yaml.safe_load(configuration.read_text())
    parameters = content["parameters"]
    parameters["data"] = {"root": str(home / "data"), "positions": parameters["data"]["positions"]}
    # The table replaces scheme and seed, except for what they say about the tiles that are left out of training.
    scheme = parameters["folds"].get("scheme")
    in_scene = scheme in ELSEWHERE and parameters["folds"]["in_scene_fraction"] > 0
    replaced = {*(() if scheme in GAPPED else ("scheme",)), *(() if in_scene else ("seed",))}
    folds = {name: value for name, value in parameters["folds"].items() if name not in replaced}
    parameters["folds"] = {**folds, "table": str(table)}
    evaluation = runs.fetch_artifact(client, source.run_id, "evaluation.yaml", folder)
    if evaluation is not None:
        parameters |= yaml.safe_load(evaluation.read_text())["parameters"]
    configuration.write_text(yaml.safe_dump(content, sort_keys=False))
    if source.start_from:
        _copy_version(client, source.start_from, f"sqlite:///{home / 'mlflow.db'}")
    return configuration


def _copy_version(client: MlflowClient, number: str, destination: str) -> None:
    """Register the model of a version in another store, under the same number."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = registry.fetch(number, Path(temporary))
        members, settings = load_members(folder, any_code=True)
        other = runs.connect(destination)
        if int(number) in set(registry.versions(other)["version"]):
            return
        run_id = runs.create_run(other, f"version {number}", {"role": "copy"}, {})
        with runs.recording(run_id):
            model = runs.log_model(members, settings, np.float64, {}, with_code=False, code=recorded_code(folder))
        # Numbers are consecutive: all smaller ones get the same model.
        while int(registry.register(other, model, {"run_id": run_id, "role": "copy"})) < int(number):
            pass


@dataclass(frozen=True)
class Agreement:
    """How a version and its reproduction agree.

    Attributes:
        scores: Rows are the recorded scores; columns recorded, again, difference (NaN if one is missing).
        same_data: Whether both had the same data version.
        same_weights: Whether all weights of all members are identical.
    """

    scores: pd.DataFrame
    same_data: bool
    same_weights: bool

    def holds(self, tolerance: float) -> bool:
        """Return whether the scores agree within a tolerance; with tolerance 0 the weights must be identical too."""
        near = bool((self.scores["difference"].abs() <= tolerance).all())  # NaN is not near
        return self.same_data and near and (self.same_weights or tolerance > 0)

    def render(self) -> str:
        """Return the agreement as text for a terminal."""
        off = self.scores[self.scores["difference"] != 0]
        lines = [f"{len(self.scores) - len(off)} of {len(self.scores)} scores are identical"]
        if len(off):
            lines += ["", off.to_string(), ""]
        lines.append("the weights are identical" if self.same_weights else "the weights differ")
        if not self.same_data:
            lines.append("the data are not the same")
        return "\n".join(lines)


def verify(uri: str, source: Origin, again: str) -> Agreement:
    """Compare a version with the last cross-validation of another store.

    Args:
        uri: Address of the MLflow store that has the version.
        source: The origin of the version.
        again: Address of the store of the reproduction.

    Raises:
        RegistryError: If one of them is missing.
    """
    if not again.startswith(("sqlite:///", "http://", "https://", "postgresql", "mysql", "mssql")):
        raise RegistryError(
            f"{again} is not an address of an MLflow store.", remedy="Give one such as sqlite:////path/mlflow.db."
        )
    with tempfile.TemporaryDirectory() as temporary:
        recorded = runs.connect(uri).get_run(source.run_id)
        members, _ = load_members(registry.fetch(source.version, Path(temporary, "recorded")), any_code=True)
        file = Path(again.removeprefix("sqlite:///"))
        if again.startswith("sqlite:///") and not file.is_file():  # MLflow would create it
            raise RegistryError(f"There is no MLflow store {file}.", remedy="Name the store of the reproduction.")
        client = runs.connect(again)
        run = runs.latest_cross_validation(client)
        new_members, _ = runs.fetch_members(run.info.run_id, Path(temporary, "again"), any_code=True)
        same_weights = _digests(members) == _digests(new_members)
    both = {"recorded": metric_keys.metrics(recorded), "again": metric_keys.metrics(run)}
    scores = pd.DataFrame(both, index=sorted(both["recorded"]))
    scores["difference"] = scores["again"] - scores["recorded"]
    return Agreement(scores, run.data.tags["data_version"] == source.data_version, same_weights)


def _digests(members: list[Member]) -> dict[int, dict[str, str]]:
    """Return a digest of each tensor, by fold and name."""
    return {
        member.fold: {
            name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
            for name, tensor in load_file(member.weights).items()
        }
        for member in members
    }
