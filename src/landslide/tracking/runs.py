"""MLflow runs: experiments, metrics, figures and logged models. `landslide.tracking.registry` holds the model registry.

One cross-validation is one parent run with one child per fold. A run is found by the digest of everything it
depends on before it is created, so a pipeline that restarts after a failure continues in its existing runs.
"""

import json
import logging
import re
import shlex
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import mlflow.store.db.utils  # brings the tables of all stores into `Base`
import numpy as np
import numpy.typing as npt
from alembic.script import ScriptDirectory
from matplotlib.figure import Figure
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import LifecycleStage, Metric, RunStatus, ViewType
from mlflow.entities import Run as Run
from mlflow.exceptions import MlflowException as MlflowException
from mlflow.models import ModelSignature
from mlflow.store.db.base_sql_model import Base
from mlflow.tracking import MlflowClient as MlflowClient
from mlflow.types import Schema, TensorSpec
from sqlalchemy.exc import SQLAlchemyError

import landslide
from landslide import full_disk
from landslide.bands.formulas import BandSettings
from landslide.errors import RegistryError
from landslide.inference.ensemble import Member, load_members, recorded_code, save_ensemble
from landslide.inference.own_code import CODE, code_digest
from landslide.locks import locked
from landslide.models import required_packages
from landslide.tracking import descriptions, metric_keys

logger = logging.getLogger(__name__)

EXPERIMENT = "landslide-segmentation"
_KEY_TAG = "landslide.key"
_REQUEST_TAG = "landslide.request"
# What a model needs to load and predict: MLflow, and the bare library; see also `required_packages`.
_REQUIREMENTS = ("mlflow", "numpy", "opencv-python-headless", "safetensors", "torch")
# Seconds between two samples of processor, memory and GPU; a short fold must get some as well.
_SYSTEM_METRICS_INTERVAL = 2
# Error codes of MLflow for a missing run, model, version or (from a database) alias.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
# What MLflow calls the HTTP answers 401 and 403.
_REFUSALS = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")


def connect(uri: str) -> MlflowClient:
    """Connect this process to a tracking store and registry, and make sure that the experiment exists.

    Args:
        uri: Address of an MLflow server, or `sqlite:///<path>`; artifacts of a sqlite store are in
            `mlartifacts` next to the file.

    Returns:
        A client of that store.

    Raises:
        RegistryError: If the store cannot be reached, refuses access, or is of another release of MLflow, or if the
            experiment was deleted.
    """
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_system_metrics_sampling_interval(_SYSTEM_METRICS_INTERVAL)
    mlflow.environment_variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    _refuse_other_schema(uri)
    try:
        with _sole_creator(uri):
            client = MlflowClient(uri, uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                _create_experiment(client, uri)
            else:
                _check_location(uri, experiment.artifact_location)
    except MlflowException as error:
        if found := re.search(r"out-of-date database schema \(found version (\w+)", str(error)):  # of a database server
            raise _other_schema(uri, found[1], _migrations()) from error
        if error.error_code in _REFUSALS:
            raise RegistryError(
                f"The MLflow server {uri} refuses access: {error}.",
                remedy="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user of that server "
                "(docs/how-to/run-a-tracking-server.md).",
            ) from error
        raise RegistryError(
            f"The MLflow store {uri} returned an unexpected error: {error}.",
            remedy="Check that address, which is that of MLFLOW_TRACKING_URI unless you gave another, and that the "
            "server runs.",
        ) from error
    except SQLAlchemyError as error:
        raise RegistryError(
            f"The MLflow store {uri} cannot be opened: {str(error).splitlines()[0]}.",
            remedy="Check that its folder exists, can be written and has space, and that the file is a database of "
            "MLflow; otherwise restore a backup (docs/how-to/back-up-and-restore.md).",
        ) from error
    if experiment is not None and experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        number = experiment.experiment_id
        raise RegistryError(
            f"The experiment {EXPERIMENT} (number {number}) in {uri} was deleted, and its runs with it.",
            remedy=f"Restore it with its runs: MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow experiments restore "
            f"--experiment-id {number}",
        )
    return client


@contextmanager
def _sole_creator(uri: str) -> Iterator[None]:
    """Let one process at a time create a sqlite store: two that create its tables at once fail."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or _has_experiment(path):
        yield
        return
    with locked(path.with_name(f"{path.name}.lock")):
        yield


def _has_experiment(path: Path) -> bool:
    """Whether a sqlite file is a store with our experiment."""
    if not path.is_file():
        return False
    with closing(sqlite3.connect(path)) as database:
        try:
            found = database.execute("SELECT 1 FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
        except sqlite3.Error:  # no tables yet; what else is wrong, MLflow says
            return False
    return found is not None


@cache
def _migrations() -> tuple[str, ...]:
    """Return the schemas of the database that the installed MLflow knows, from the newest to the oldest."""
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    return tuple(script.revision for script in ScriptDirectory(str(folder)).walk_revisions())


def _refuse_other_schema(uri: str) -> None:
    """Raise if another release of MLflow wrote a store in a file and this one would migrate it, without a backup.

    It does so if tables are missing; otherwise it compares the schemas itself.
    """
    file = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not file.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            experiments = connection.execute("SELECT 1 FROM experiments LIMIT 1").fetchall()
            schemas = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:  # MLflow says why it cannot be opened, or creates its tables
        return
    if set(Base.metadata.tables) <= tables:
        return
    # Without an experiment, another process creates the store at this moment.
    if experiments and schemas and schemas[0][0] != _migrations()[0]:
        raise _other_schema(uri, schemas[0][0], _migrations())


def _other_schema(uri: str, schema: str, known: Sequence[str]) -> RegistryError:
    """Return the error for a store that an older or a newer MLflow wrote."""
    installed = f"the installed MLflow {version('mlflow')}"
    if schema not in known:
        return RegistryError(
            f"The MLflow store {uri} has the schema {schema}, which {installed} does not know: a newer one wrote it.",
            remedy="Use the checkout and the environment that wrote it, or restore a backup from before the update "
            "(docs/how-to/back-up-and-restore.md).",
        )
    backup = "back it up (docs/how-to/back-up-and-restore.md)"
    if uri.startswith("sqlite:///"):
        file = uri.removeprefix("sqlite:///")
        backup = f"back it up: cp {shlex.quote(file)} {shlex.quote(f'{file}.{schema}')}"
    return RegistryError(
        f"The MLflow store {uri} has the schema {schema} of an older release than {installed}.",
        remedy=f"Stop what uses it and {backup}. Then migrate it: mlflow db upgrade {shlex.quote(uri)}",
    )


def _create_experiment(client: MlflowClient, uri: str) -> None:
    location = artifacts.as_uri() if (artifacts := _artifacts(uri)) else None
    try:
        # The kind decides which pages MLflow's UI shows first.
        client.create_experiment(
            EXPERIMENT,
            artifact_location=location,
            tags={"mlflow.experimentKind": "custom_model_development", descriptions.NOTE: descriptions.EXPERIMENT},
        )
    except MlflowException:
        if client.get_experiment_by_name(EXPERIMENT) is None:
            raise  # not merely created by another process in the meantime


def _artifacts(uri: str) -> Path | None:
    """Return the folder of the artifacts of a sqlite store; None for a server, which knows it."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute().with_name("mlartifacts")


def _check_location(uri: str, recorded: str) -> None:
    """Refuse a store that was moved: its models would be read from, and written to, the former place."""
    before, now = Path(unquote(urlsplit(recorded).path)), _artifacts(uri)
    if now and before.name == now.name and before.resolve() != now.resolve():
        raise RegistryError(
            f"The MLflow store {uri} was moved or copied from {before.parent}; it names files there.",
            remedy="Run `landslide home relocate`.",
        )


def find_cross_validation(client: MlflowClient, key: str) -> str | None:
    """Return the parent run of this key, None if there is none; see `open_cross_validation`."""
    found = _find_run(client, f"tags.`{_KEY_TAG}` = '{key}' and tags.role = 'cross_validation'")
    return None if found is None else str(found.info.run_id)


def open_cross_validation(
    client: MlflowClient,
    key: str,
    *,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    data_version: str,
    data_source: str,
) -> str:
    """Find the parent run of this key, or create it.

    Args:
        client: The tracking client.
        key: Digest of configuration, data, folds and code.
        name: Name of a new run.
        params: Settings, nested as they are in the configuration; recorded flat, `training.epochs`.
        tags: Lineage: git commit, lock digest, selection.
        data_version: Digest of the data set.
        data_source: Path of the data set.

    Returns:
        The run's id.
    """
    found = find_cross_validation(client, key)
    if found is not None:
        return found
    all_tags = {**tags, "role": "cross_validation", _KEY_TAG: key, "data_version": data_version}
    run_id = create_run(client, name, all_tags, params)
    log_dataset(client, run_id, data_version, data_source)
    return run_id


def open_fold(client: MlflowClient, parent: str, fold: int) -> str:
    """Find the child run of a fold, or create it with the parent's parameters and lineage; return its id."""
    found = _find_run(client, f"tags.`mlflow.parentRunId` = '{parent}' and tags.role = 'fold' and tags.fold = '{fold}'")
    if found is not None:
        return str(found.info.run_id)
    parent_run = client.get_run(parent)
    lineage = {k: v for k, v in parent_run.data.tags.items() if not k.startswith("mlflow.") and k != _KEY_TAG}
    tags = {**lineage, "mlflow.parentRunId": parent, "role": "fold", "fold": str(fold)}
    return create_run(client, f"fold {fold} · {parent_run.info.run_name}", tags, parent_run.data.params)


def fold_runs(client: MlflowClient, parent: str) -> dict[int, str]:
    """Return the child runs of a cross-validation: run id by fold."""
    runs = search(client, f"tags.`mlflow.parentRunId` = '{parent}' and tags.role = 'fold'")
    return {int(run.data.tags["fold"]): run.info.run_id for run in runs}


def runs_of_equal_inputs(client: MlflowClient, run_id: str) -> list[Run]:
    """Return the cross-validations with the data, settings and code of a run, itself among them, deleted ones too.

    Args:
        client: The tracking client.
        run_id: The run; nothing is returned if it is gone for good.
    """
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return []
        raise
    if _KEY_TAG not in run.data.tags:
        return [run]
    text = f"tags.`{_KEY_TAG}` = '{run.data.tags[_KEY_TAG]}' and tags.role = 'cross_validation'"
    return list(client.search_runs([run.info.experiment_id], text, run_view_type=ViewType.ALL))


def tag_run(client: MlflowClient, run: Run, name: str, value: str | None) -> None:
    """Set a tag of a run, or delete it with None. A deleted run stays as it is, because MLflow changes none."""
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        return
    if value is not None:
        client.set_tag(run.info.run_id, name, value)
    elif name in run.data.tags:
        client.delete_tag(run.info.run_id, name)


def refuse_deleted(client: MlflowClient, run_id: str) -> None:
    """Refuse a run that was deleted, as in MLflow's pages: MLflow changes none.

    Raises:
        RegistryError: With the command that restores it.
    """
    again = "The same command begins a new run."
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise RegistryError(f"MLflow run {run_id} was deleted for good.", remedy=again) from error
    if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        uri = shlex.quote(client.tracking_uri)
        raise RegistryError(
            f"MLflow run {run_id} ({run.info.run_name}) was deleted.",
            remedy=f"{again} To continue in this one, restore it before: MLFLOW_TRACKING_URI={uri} mlflow runs restore "
            f"--run-id {run_id}",
        )


@contextmanager
def explaining_deletion(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Say that a run was deleted if the block fails for that reason.

    Raises:
        RegistryError: If it was; see `refuse_deleted`.
    """
    try:
        yield
    except MlflowException:
        refuse_deleted(client, run_id)
        raise


def is_finished(client: MlflowClient, run_id: str) -> bool:
    """Return whether a run came to its end."""
    return bool(client.get_run(run_id).info.status == RunStatus.to_string(RunStatus.FINISHED))


def has_model(address: str) -> bool:
    """Return whether the files of a model are there, which `runs:/<id>/model` or `models:/<name>/<version>` names."""
    try:
        return bool(mlflow.artifacts.list_artifacts(address))
    except (MlflowException, OSError) as error:
        if isinstance(error, OSError) or error.error_code in ABSENT:
            return False
        raise


@contextmanager
def recording(run_id: str, *, system_metrics: bool = False) -> Iterator[None]:
    """Make a run the active one, sample system metrics if wanted, and mark it finished, failed or killed at the end."""
    with mlflow.start_run(run_id=run_id, log_system_metrics=system_metrics):
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            mlflow.end_run("KILLED")
            raise


def log_epoch(uri: str, run_id: str, record: Mapping[str, float]) -> None:
    """Log the metrics of one epoch, once however often it is called.

    Args:
        uri: Address of the store; a plain value, so that other processes can call this.
        run_id: The fold's run.
        record: Metrics of the epoch, `epoch` among them.
    """
    client = MlflowClient(uri)
    step = int(record["epoch"])
    if any(metric.step == step for metric in client.get_metric_history(run_id, metric_keys.key("train_loss"))):
        return
    now = mlflow.utils.time.get_current_time_millis()
    names = [name for name in record if name != "epoch"]
    metrics = [Metric(metric_keys.key(name), float(record[name]), now, step) for name in names]
    client.log_batch(run_id, metrics=metrics)


def log_scores(client: MlflowClient, run_id: str, values: Mapping[str, float]) -> None:
    """Log final scores of a run.

    Raises:
        RegistryError: If it was deleted.
    """
    now = mlflow.utils.time.get_current_time_millis()
    metrics = [Metric(key, float(value), now, 0) for name, value in values.items() for key in metric_keys.keys(name)]
    with explaining_deletion(client, run_id):
        client.log_batch(run_id, metrics=metrics)


def log_figures(client: MlflowClient, run_id: str, figures: Mapping[str, Figure]) -> None:
    """Log figures of a run as `figures/<name>.png`."""
    for name, figure in figures.items():
        client.log_figure(run_id, figure, f"figures/{name}.png")


def log_dataset(client: MlflowClient, run_id: str, data_version: str, data_source: str) -> None:
    """Log which data a run has used, without loading it.

    Args:
        client: The tracking client.
        run_id: The run.
        data_version: Digest of the data set, 36 characters at most.
        data_source: Its path.
    """
    source = CodeDatasetSource({"path": data_source})
    dataset = MetaDataset(source, name="landslide-patches", digest=data_version)  # type: ignore[abstract]
    client.log_inputs(run_id, [mlflow.entities.DatasetInput(dataset=dataset._to_mlflow_entity(), tags=[])])


def describe(client: MlflowClient, run_id: str, scores: Mapping[str, Any]) -> None:
    """Write the description of an evaluated cross-validation; see `landslide.tracking.descriptions`."""
    tags, picture = client.get_run(run_id).data.tags, has_artifact(client, run_id, "figures")
    text = descriptions.cross_validation(run_id, scores, tags, picture=picture)
    set_tags(client, run_id, {descriptions.NOTE: text})


def log_text(client: MlflowClient, run_id: str, text: str, artifact: str) -> None:
    """Log a text file of a run."""
    client.log_text(run_id, text, artifact)


def log_model(
    members: Sequence[Member],
    settings: BandSettings,
    dtype: npt.DTypeLike,
    metadata: Mapping[str, Any],
    *,
    with_code: bool,
    code: str | None = CODE,
) -> str:
    """Log an ensemble (or a single fold model) as a pyfunc model of the active run.

    A model with code carries a copy of the `landslide` package and loads without this repository. A model without it
    loads wherever the package can be imported; over HTTP every file of the package would be a request, so fold models
    go without.

    Args:
        members: The trained networks.
        settings: Settings of their bands.
        dtype: Number format of the raw patches, for the metadata; the model takes any real one.
        metadata: Stored with the model.
        with_code: Whether a copy of the package goes with it.
        code: Digest of the code that reads it; another one only if a model is copied, without code.

    Returns:
        The model's address.

    Raises:
        RegistryError: If the model is to go with a copy of the package, and its files are not the imported ones.
    """
    package = Path(landslide.__file__).parent
    if with_code and code_digest(package) != CODE:
        raise RegistryError(
            f"The code in {package} was changed while this process ran, so the model would be read by other code than "
            "trained it.",
            remedy="Start the pipeline again; it trains with the changed code.",
        )
    needed = {*_REQUIREMENTS, *(name for member in members for name in required_packages(member.spec.name))}
    output = (-1, -1, -1)
    # Without inputs: MLflow would insist on one dtype. The model checks them itself, and the metadata describe them.
    signature = ModelSignature(
        outputs=Schema([TensorSpec(np.dtype(np.float32), output, name) for name in ("probability", "uncertainty")]),
    )
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # Advice for models without a signature; these models have one.
        warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
        directory = Path(temporary) / "ensemble"
        save_ensemble(directory, members, settings, code)
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "tracking" / "serving.py"),
            artifacts={"ensemble": str(directory)},
            code_paths=[str(package)] if with_code else None,
            signature=signature,
            pip_requirements=[f"{name}=={version(name)}" for name in sorted(needed)],
            metadata={
                "stored_bands": list(settings.stored),
                "input": f"(N, {len(settings.stored)}, H, W), any real dtype, H and W multiples of 16",
                "input_dtype": np.dtype(dtype).name,
                "input_bands": list(members[0].spec.bands),
                "code": code,
                "threshold": float(np.mean([m.threshold for m in members])),
                **metadata,
            },
        )
    return str(info.model_uri)


def register_model(model_uri: str, name: str, tags: Mapping[str, str]) -> str:
    """Register a logged model under a name; return its new version."""
    return str(mlflow.register_model(model_uri, name, tags=dict(tags)).version)


def fetch_members(
    run_id: str,
    destination: Path,
    *,
    any_code: bool = False,
    remedy: str = "Run the training pipeline again; it trains that fold.",
) -> tuple[list[Member], BandSettings]:
    """Download the model of a run and return its members and band settings.

    Raises:
        RegistryError: If the run has no model, or a model of other code.
    """
    folder = fetch_model(f"runs:/{run_id}/model", destination, name=f"Run {run_id}", remedy=remedy)
    return load_members(folder, any_code=any_code)


def fetch_model(address: str, destination: Path, *, name: str, remedy: str) -> Path:
    """Download the ensemble of a model, and its code if that is not the code of this process.

    The files lie as in the model: `load_ensemble` finds the code.

    Args:
        address: Address of the model.
        destination: Folder for its files.
        name: What has the model, for messages.
        remedy: What to do if the model is gone.

    Returns:
        The folder of the ensemble.

    Raises:
        RegistryError: If there is no such model, or no space for it.
    """
    destination.mkdir(parents=True, exist_ok=True)
    try:
        # Without its code, if possible: over HTTP every file is a request.
        folder = Path(mlflow.artifacts.download_artifacts(f"{address}/artifacts/ensemble", dst_path=str(destination)))
        if recorded_code(folder) != CODE and mlflow.artifacts.list_artifacts(f"{address}/code"):
            mlflow.artifacts.download_artifacts(f"{address}/code", dst_path=str(destination))
    except (MlflowException, OSError) as error:
        if full_disk.is_cause(error):
            raise RegistryError(
                f"The model of {name} cannot be copied to {destination}: there is no space.",
                remedy="Free some there; temporary files go to the folder that TMPDIR names.",
            ) from error
        raise RegistryError(f"{name} has no model any more: {error}.", remedy=remedy) from error
    return folder


def latest_cross_validation(client: MlflowClient) -> Run:
    """Return the evaluated parent run that a pipeline asked for last, whether it was trained then or before.

    Raises:
        RegistryError: If there is none.
    """
    evaluated = "tags.role = 'cross_validation' and tags.evaluated != ''"
    runs = search(client, evaluated, order=["tags.requested DESC"])
    if not runs:
        raise RegistryError("No evaluated cross-validation is recorded.", remedy="Run the training pipeline: make run.")
    return runs[0]


def _experiment_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        raise RegistryError(f"There is no experiment {EXPERIMENT}.", remedy="Run the training pipeline: make run.")
    return str(experiment.experiment_id)


def search(client: MlflowClient, text: str, order: list[str] | None = None) -> list[Run]:
    """Return the runs of the experiment that match a filter of MLflow."""
    return list(client.search_runs([_experiment_id(client)], filter_string=text, order_by=order))


def _find_run(client: MlflowClient, text: str) -> Run | None:
    runs = search(client, text)
    return runs[0] if runs else None


def create_run(client: MlflowClient, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
    """Create a run with settings, recorded flat; return its id."""
    request = uuid.uuid4().hex
    run = client.create_run(_experiment_id(client), tags={**tags, _REQUEST_TAG: request}, run_name=name)
    # The client asks again when a server goes away before it answers, and the run may then be there twice.
    for twin in search(client, f"tags.`{_REQUEST_TAG}` = '{request}'"):
        if twin.info.run_id != run.info.run_id:
            client.delete_run(twin.info.run_id)
    flat = [mlflow.entities.Param(key, str(value)) for key, value in flatten(params).items()]
    client.log_batch(run.info.run_id, params=flat)
    return str(run.info.run_id)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: {"training": {"epochs": 3}} -> {"training.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run.

    Raises:
        RegistryError: If it was deleted.
    """
    with explaining_deletion(client, run_id):
        for name, value in tags.items():
            client.set_tag(run_id, name, value)


def delete_tag(client: MlflowClient, run_id: str, name: str) -> None:
    """Delete a tag of a run, if it has it."""
    if name in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, name)


def finish(client: MlflowClient, run_id: str) -> None:
    """Mark a run as finished."""
    client.set_terminated(run_id)


def epoch_records(client: MlflowClient, run_id: str) -> list[dict[str, float]]:
    """Return the metrics that `log_epoch` logged: one record per epoch, in order."""
    records: dict[int, dict[str, float]] = {}
    for key in client.get_run(run_id).data.metrics:
        name = metric_keys.name(key)
        if name.startswith(("train_", "validation_", "test_", "epoch_", "learning_rate")):
            for metric in client.get_metric_history(run_id, key):
                records.setdefault(metric.step, {"epoch": metric.step})[name] = metric.value
    return [records[step] for step in sorted(records)]


def has_artifact(client: MlflowClient, run_id: str, name: str) -> bool:
    """Return whether a run has an artifact of that name at its top."""
    return name in {artifact.path for artifact in client.list_artifacts(run_id)}


def fetch_artifact(client: MlflowClient, run_id: str, name: str, destination: Path) -> Path | None:
    """Download an artifact file of a run; None if the run has none of that name, or is gone."""
    try:
        if not has_artifact(client, run_id, name):
            return None
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise
    return Path(client.download_artifacts(run_id, name, str(destination)))


def fetch_json(run_id: str, name: str) -> Any:
    """Return the content of an artifact in JSON of a run."""
    return json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{name}"))


def fetch_reports(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Return the report tables of an evaluated run: CSV text by file name."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(client.download_artifacts(run_id, "reports", temporary))
        return {path.name: path.read_text() for path in sorted(folder.glob("*.csv"))}
