"""Reading vector files that people edit: open in another program, or with geometries that are damaged."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas as gpd
from pyogrio.errors import DataSourceError

from landslide.errors import DataError

IS_LOCKED = "database is locked"
"""What SQLite says of a file that another program is writing."""


@contextmanager
def opened_vector_file(path: str | Path) -> Iterator[None]:
    """Explain what another program that has a file open does to it; other errors of reading pass.

    QGIS keeps changes of a GeoPackage in a file beside it, FILE-wal, until it closes it. To read them, SQLite needs
    their index, FILE-shm, or has to write it; where it may not, GDAL would read the file without them.

    Raises:
        DataError: Another program is writing the file, or its newest changes cannot be read.
    """
    newest, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    try:
        changed = newest.stat().st_size > 0
    except OSError:
        changed = False
    if changed and not index.exists() and not os.access(newest.parent, os.W_OK):
        raise DataError(
            f"The newest changes of {path} are in {newest.name}, which cannot be read in a folder that is read-only.",
            remedy="Close the file in QGIS, or copy both files to a folder that you may write to.",
        )
    try:
        yield
    except DataSourceError as error:
        if IS_LOCKED not in str(error):
            raise
        raise DataError(
            f"Another program is writing {path}.", remedy="Save it in QGIS or close it there, then run this again."
        ) from error


def read_features(path: str | Path, layer: str | None = None, where: str | None = None) -> gpd.GeoDataFrame:
    """Read a layer without warnings. Open rings are closed; a geometry that cannot be mended so is missing.

    Args:
        path: The file.
        layer: Its layer; the first one by default.
        where: Only these features: a condition on attributes as in SQL.

    Raises:
        pyogrio.errors.DataSourceError, DataLayerError, FeatureError, GeometryError, ValueError: It cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gpd.read_file(path, layer=layer, where=where, on_invalid="fix")


def reason_of(error: Exception) -> str:
    """Return why GDAL cannot read a file, without a final stop and its advice to programmers to use a prefix."""
    return str(error).partition("; It might help")[0].rstrip(".")
