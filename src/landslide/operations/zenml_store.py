"""Whether the ZenML store in LANDSLIDE_HOME has the schema of the installed ZenML. ZenML itself is not imported."""

import os
import shlex
import sqlite3
from contextlib import closing
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from landslide import paths
from landslide.errors import RegistryError


def check() -> str:
    """Check the schema of the store.

    Returns:
        What was found, for people.

    Raises:
        RegistryError: If a newer ZenML wrote the store, or if it is damaged.
    """
    package = find_spec("zenml")
    if package is None or package.origin is None:
        return "ZenML is not installed"
    folder = Path(os.environ.get("ZENML_CONFIG_PATH") or paths.home() / "zenml")
    database = folder / "local_stores" / "default_zen_store" / "zenml.db"
    if not database.is_file():
        return f"no store in {folder} yet"
    installed, aside = version("zenml"), folder.with_name(f"{folder.name}.aside")
    remedy = (
        f"move it aside and start with a new one: mv {shlex.quote(str(folder))} {shlex.quote(str(aside))} && python -m "
        "stacks.local. It is a cache: MLflow keeps what was trained, and steps find it there."
    )
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    except sqlite3.Error as error:
        raise RegistryError(
            f"The ZenML store {database} cannot be read: {error}.", remedy=f"{remedy[0].upper()}{remedy[1:]}"
        ) from error
    if row is None and tables == 1:  # the first command is creating it
        return f"{database} is empty yet"
    schema = row[0] if row else ""
    if schema == installed:
        return f"{database} has the schema of the installed ZenML {installed}"
    if schema and any((Path(package.origin).parent / "zen_stores" / "migrations" / "versions").glob(f"{schema}_*.py")):
        backup = database.with_name(f"{database.name}.{schema}")
        return (
            f"{database} has the schema {schema}, which ZenML {installed} migrates at the next command. Back it up "
            f"before: cp {shlex.quote(str(database))} {shlex.quote(str(backup))}"
        )
    raise RegistryError(
        f"The ZenML store {database} has the schema {schema!r}, which the installed ZenML {installed} does not know: a "
        "newer one wrote it.",
        remedy=f"Use the checkout and the environment that wrote it, or {remedy}",
    )
