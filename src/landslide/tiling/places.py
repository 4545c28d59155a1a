"""Where the patches of a data set lie: on the map, or beside each other in pixels if nobody says it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import shapes

from landslide.data.digests import ignored_files
from landslide.data.patches import numbered_files
from landslide.data.positions import read_positions
from landslide.errors import DataError
from landslide.schema import LAYOUTS, PATCH_SIZE, POSITION_COLUMNS

ORIGIN_COLUMNS = ("name", "crs", "west", "south", "east", "north")
"""Columns of scenes.csv after the position: name of the scene, reference system and edges of the patch in its units."""

_GAP = 1  # patches between two scenes that are laid beside each other
_ACROSS = 40  # patches in a line if there are no positions


@dataclass(frozen=True)
class Place:
    """Where a patch lies.

    Attributes:
        scene: Name of its scene; empty if it has none.
        crs: Its reference system; None if the coordinates are pixels of 10 m beside each other, y upwards.
        transform: From column and row of the patch, counted from its outer corner, to x and y.
    """

    scene: str
    crs: CRS | None
    transform: Affine

    @classmethod
    def of_edges(cls, scene: str, crs: CRS, edges: tuple[float, float, float, float]) -> "Place":
        """Return the place of a patch with the edges west, south, east and north."""
        west, south, east, north = edges
        size = (east - west) / PATCH_SIZE, (south - north) / PATCH_SIZE
        return cls(scene, crs, Affine.translation(west, north) @ Affine.scale(*size))

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """West, south, east and north."""
        west, north = self.transform @ (0, 0)
        east, south = self.transform @ (PATCH_SIZE, PATCH_SIZE)
        return west, south, east, north

    @property
    def outline(self) -> shapely.Polygon:
        """The outline of the patch."""
        return shapely.box(*self.edges)

    def polygon(self, pixels: npt.NDArray[np.bool_]) -> shapely.Geometry:
        """Return pixels (128, 128) of the patch as one geometry along their edges."""
        values = pixels.astype(np.uint8)
        parts = shapes(values, mask=pixels, connectivity=4, transform=self.transform)
        return shapely.union_all([shapely.geometry.shape(outline) for outline, _ in parts])


def patch_places(root: Path, table: pd.DataFrame) -> list[Place]:
    """Find where patches lie.

    Args:
        root: Folder of the data set.
        table: Its patch table (columns number, scene, row, column).

    Returns:
        One place per row. They have reference systems if `scenes.csv` has the columns `ORIGIN_COLUMNS`, which
        `landslide data tile` writes. Otherwise the patches of a scene adjoin as their rows and columns say, and patches
        without positions follow each other in lines. A part of the training patches lies where it lies in the whole.

    Raises:
        DataError: Coordinates in `scenes.csv` are none.
    """
    origins = _origins(root)
    numbers = table["number"].tolist()
    if origins and set(numbers) <= origins.keys():
        return [origins[number] for number in numbers]
    whole = _whole_table(root, table)
    place_of = dict(zip(whole["number"], beside_each_other(whole), strict=True))
    return [place_of[number] for number in numbers]


def _origins(root: Path) -> dict[int, Place]:
    """Return places on the map by patch number; none if `scenes.csv` has no coordinates."""
    path = root / "scenes.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        if not {*ORIGIN_COLUMNS} <= {*(lines.fieldnames or ())}:
            return {}
        places = {}
        for line in lines:
            try:
                west, south, east, north = (float(line[name]) for name in ORIGIN_COLUMNS[2:])
                crs = CRS.from_string(line["crs"])
                if not (east > west and north > south):
                    raise ValueError("the edges are not in order")
            except (ValueError, TypeError, CRSError) as error:
                raise DataError(
                    f"{path}, line {lines.line_num}: the place of patch {line['n']} is wrong: {error}.",
                    remedy="Restore the file, for example with `dvc checkout`, or cut the scenes again with "
                    "`landslide data tile`.",
                ) from error
            places[int(line["n"])] = Place.of_edges(line["name"], crs, (west, south, east, north))
    return places


def _whole_table(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return number, scene, row and column of all training patches, if those of the table are among them."""
    folders = [root / layout["train"][0] for layout in LAYOUTS]
    ignored = {root / path for path in ignored_files(root)}
    numbers = sorted({number for folder in folders for number in numbered_files(folder, "image", ignored)})
    if not {*table["number"]} < {*numbers}:
        return table
    nowhere = table[list(POSITION_COLUMNS)].isna().any(axis=None)
    positions = read_positions(root, numbers, positions="none" if nowhere else "landslide4sense")
    return pd.concat([pd.DataFrame({"number": numbers}), positions], axis=1)


def beside_each_other(table: pd.DataFrame) -> list[Place]:
    """Lay patches beside each other: as the rows and columns of their scenes say, or in lines without positions."""
    positions = table[list(POSITION_COLUMNS)]
    if positions.isna().any(axis=None):
        order = np.arange(len(table))
        return [
            _local("", row, column)
            for row, column in zip((order // _ACROSS).tolist(), (order % _ACROSS).tolist(), strict=True)
        ]
    scenes = positions["scene"].to_numpy(np.int64)
    widths = positions.groupby("scene")["column"].max() + 1 + _GAP
    starts = dict(zip(widths.index, np.cumsum([0, *widths])[:-1], strict=True))
    rows, columns = (positions[name].to_numpy(np.int64) for name in POSITION_COLUMNS[1:])
    return [
        _local(f"scene {scene}", row, starts[scene] + column)
        for scene, row, column in zip(scenes.tolist(), rows.tolist(), columns.tolist(), strict=True)
    ]


def _local(scene: str, row: int, column: int) -> Place:
    return Place(scene, None, Affine(1, 0, PATCH_SIZE * int(column), 0, -1, -PATCH_SIZE * int(row)))


def common_crs(places: Sequence[Place]) -> CRS | None:
    """Return the reference system of all places: their own if it is one, degrees (EPSG:4326) if they have several.

    Returns:
        None if the places have no reference system.
    """
    systems = {place.crs.to_wkt() if place.crs else None for place in places}
    if systems <= {None}:
        return None
    return places[0].crs if len(systems) == 1 else CRS.from_epsg(4326)
