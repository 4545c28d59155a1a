"""A moved or copied `LANDSLIDE_HOME`: MLflow's and ZenML's databases name files in it by absolute path."""

import base64
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from landslide.errors import ConfigurationError
from landslide.files import atomic_write
from landslide.paths import default_tracking_uri, home

_SQLITE = "sqlite:///"
# Where ZenML keeps its database, below the folder of its configuration.
_DATABASE = Path("local_stores", "default_zen_store", "zenml.db")
# `make setup` writes the path of the home here, and activate.sh compares.
STAMP = Path("zenml", ".stack-registered")


def check_location() -> None:
    """Check that the databases name files where they are now, and not where they were before.

    Raises:
        ConfigurationError: If they name another place.
    """
    for before, now in _moved_places():
        raise ConfigurationError(
            f"{now} was moved or copied from {before}; its databases name files there.",
            remedy="Run `landslide home relocate`.",
        )


def relocate() -> list[str]:
    """Change the paths in the databases to the place where `LANDSLIDE_HOME` is now.

    Artifacts that were written to the former place after the move are copied. If it fails or is interrupted, each
    database is as it was or changed completely, and the next call does the rest.

    Returns:
        What was changed, one sentence per database.

    Raises:
        ConfigurationError: If another process is writing to a database.
    """
    done = []
    for before, now in _moved_places():
        if now == home() / "zenml":
            locations = _rewrite(now / _DATABASE, before, now)
            _rewrite_configuration(before, now)  # last: it says where ZenML's state was
        else:
            locations = _rewrite(_mlflow_database(), before, now)
            for location in locations:
                _copy_if_missing(Path(unquote(urlsplit(location).path)), before, now)
        name = "ZenML" if now == home() / "zenml" else "MLflow"
        done.append(f"{name}: {len(locations)} paths changed from {before} to {now}")
    if (home() / STAMP).exists():
        (home() / STAMP).write_text(f"{home()}\n")
    return done


def _moved_places() -> list[tuple[Path, Path]]:
    """Return where MLflow's and ZenML's state was and is, if it was moved."""
    places = [(_mlflow_place(), _mlflow_database().parent), (_zenml_place(), home() / "zenml")]
    return [(before, now) for before, now in places if before and before.resolve() != now.resolve()]


def _mlflow_database() -> Path:
    """Return the path of the MLflow store; one that does not exist if a server is used."""
    return Path(default_tracking_uri().removeprefix("sqlite:///"))


def _mlflow_place() -> Path | None:
    """Return the folder that the MLflow store names; None if there is no such store or no experiment yet."""
    if not _mlflow_database().is_file():
        return None
    with closing(sqlite3.connect(_mlflow_database())) as database, suppress(sqlite3.OperationalError):  # no table yet
        for (location,) in database.execute("SELECT artifact_location FROM experiments"):
            if urlsplit(location or "").path.endswith("/mlartifacts"):
                return Path(unquote(urlsplit(location).path)).parent
    return None


def _zenml_place() -> Path | None:
    """Return the folder that ZenML's configuration names; None without one, or if ZenML uses a server."""
    path = home() / "zenml" / "config.yaml"
    store = _read_yaml(path).get("store") if path.exists() else None
    url = (store or {}).get("url", "")
    return Path(url.removeprefix(_SQLITE).removesuffix(f"/{_DATABASE}")) if url.startswith(_SQLITE) else None


def _read_yaml(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text()) or {}
    return content


def _rewrite(path: Path, before: Path, now: Path) -> list[str]:
    """Replace the former place at the beginning of every text of a database; return the new locations."""
    changed = []
    try:
        with closing(sqlite3.connect(path, timeout=10)) as database, database:
            database.execute("BEGIN IMMEDIATE")
            for table, column in list(_columns(database)):
                for row, value in database.execute(f'SELECT rowid, "{column}" FROM "{table}"').fetchall():
                    moved = _moved(value, before, now)
                    if moved != value:
                        database.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (moved, row))
                        changed.append(moved if isinstance(moved, str) else moved.decode())
    except sqlite3.OperationalError as error:
        raise ConfigurationError(
            f"{path} cannot be changed: {error}.",
            remedy="End the pipelines and servers that use this LANDSLIDE_HOME, then run this again.",
        ) from error
    return changed


def _columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
            if kind.startswith(("VARCHAR", "TEXT", "BLOB")):
                yield table, column


def _moved(value: Any, before: Path, now: Path) -> Any:
    """Return a path or address below the former place as one below the new; anything else unchanged."""
    if isinstance(value, bytes):  # ZenML's configuration of a component: JSON in base64
        try:
            fields = json.loads(base64.b64decode(value, validate=True))
        except ValueError:
            return value
        if not isinstance(fields, dict):
            return value
        moved = {name: _moved(field, before, now) for name, field in fields.items()}
        return value if moved == fields else base64.b64encode(json.dumps(moved).encode())
    if isinstance(value, str):
        for old, new in (
            (str(before), str(now)),
            (before.as_uri(), now.as_uri()),
            (_SQLITE + str(before), _SQLITE + str(now)),
        ):
            if value == old or value.startswith(f"{old}/"):
                return new + value.removeprefix(old)
    return value


def _rewrite_configuration(before: Path, now: Path) -> None:
    content = _read_yaml(now / "config.yaml")
    content["store"] = {name: _moved(value, before, now) for name, value in content["store"].items()}
    with atomic_write(now / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(content))


def _copy_if_missing(folder: Path, before: Path, now: Path) -> None:
    """Copy a folder of artifacts that was written to the former place after the move."""
    if folder.is_relative_to(now / "mlartifacts") and not folder.exists():
        written = before / folder.relative_to(now)
        if written.is_dir():
            shutil.copytree(written, folder)
