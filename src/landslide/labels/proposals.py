"""Windows of scenes without labels, or images without masks, ranked by what a network would learn from them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from landslide.data.patches import find_patches, numbered_files, read_stored
from landslide.data.positions import read_positions
from landslide.errors import ConfigurationError, DataError, first_few
from landslide.inference.ensemble import Ensemble
from landslide.labels.choosing import Windows, rank_at_random, rank_by_coverage, rank_next, summarise
from landslide.mapping.model import MapModel
from landslide.mapping.plan import MapPlan, terrain_of
from landslide.products.map_info import Column
from landslide.products.qgis_styles import ticked_style
from landslide.products.vectors import LayerKind, write_geopackage
from landslide.scenes.reasons import Reason
from landslide.schema import LAYOUTS, PATCH_SIZE, POSITION_COLUMNS
from landslide.tiling.new_folder import new_folder
from landslide.tiling.places import Place, beside_each_other, common_crs, patch_places
from landslide.tiling.tiles import RECORD, refuse_small_scene, why_left_out, window_edges, window_starts

COLUMNS = MappingProxyType(
    {
        "rank": Column("int", "From 1: label these first. By uncertainty, expected landslide area and novelty"),
        "rank_coverage": Column("int", "Rank of a control: the images that differ most from those before them"),
        "rank_random": Column("int", "Rank of a control: drawn at random"),
        "labelled": Column("bool", "To be ticked when all landslides of the tile are drawn, or it has none"),
        "scene": Column("text", "Scene of the tile, or folder of the image"),
        "row": Column("int", "Row of the tile in the scene, from 0; empty if it is unknown"),
        "column": Column("int", "Column of the tile in the scene, from 0; empty if it is unknown"),
        "image": Column("text", "Image file, if this is an image without a mask"),
        "uncertainty": Column("float", "Mean entropy of the landslide probability, from 0 to 1", "bit", 4),
        "expected_area_m2": Column("float", "Sum of the landslide probabilities times the area of a pixel", "m2", 1),
        "distance": Column(
            "float",
            "Distance of the features to the nearest tile that is labelled or has a smaller rank; empty if there is "
            "none",
            "standard deviations",
            4,
        ),
    }
)
"""The columns of a proposal."""

FILES = MappingProxyType({"next": "rank", "coverage": "rank_coverage", "random": "rank_random"})
"""The GeoPackages of a proposal and the column of their ranks."""

_LAYERS = MappingProxyType(
    {
        "tiles": LayerKind(
            "Tiles to label", ticked_style("labelled", {"labelled": "#1a9850", "to label": "#ff2fa0"}), COLUMNS
        )
    }
)
_CHUNK = 16  # images described at a time
_PIXEL_AREA = 100.0  # m2, if nothing says where an image lies
_Start = Callable[[int], Callable[[int], object]]


@dataclass(frozen=True)
class Candidates:
    """Windows without labels.

    Attributes:
        table: (n) rows with the columns scene, row, column, image and pixel_area in m2.
        places: Where they lie.
        windows: What is known of them.
    """

    table: pd.DataFrame
    places: list[Place]
    windows: Windows


class LabelledSet:
    """A data set whose patches are labelled already.

    Args:
        root: Its folder.
        model: The model; its bands and units have to be those of the set.

    Raises:
        DataError: There is no such set, or a file of it is damaged.
        ConfigurationError: The set was cut with other bands or units than the model has.
    """

    def __init__(self, root: Path, model: MapModel) -> None:
        patches = find_patches(root)
        self.images = [patch.image for patch in patches]
        _refuse_other_values(root, model)
        table = pd.DataFrame({"number": [patch.number for patch in patches]})
        found = patch_places(root, table.reindex(columns=["number", *POSITION_COLUMNS]))
        self._places = [place for place in found if place.crs is not None]
        self._edges: dict[tuple[str, str], list[tuple[float, ...]]] = {}
        for place in self._places:
            assert place.crs is not None
            self._edges.setdefault((place.scene, place.crs.to_wkt()), []).append(place.edges)

    def tiles(self, scenes: Sequence[str]) -> gpd.GeoDataFrame | None:
        """Return the outlines of the patches of these scenes as ticked tiles without ranks; None if there are none."""
        places = [place for place in self._places if place.scene in scenes]
        if not places:
            return None
        table = pd.DataFrame({"scene": [place.scene for place in places], "labelled": True, "image": ""})
        return gpd.GeoDataFrame(table, geometry=_outlines(places))

    def covers(self, place: Place) -> bool:
        """Return whether a patch of the same scene overlaps a window by more than half a pixel."""
        if place.crs is None or (own := self._edges.get((place.scene, place.crs.to_wkt()))) is None:
            return False
        west, south, east, north = np.array(own).T
        left, bottom, right, top = place.edges
        across = np.minimum(east, right) - np.maximum(west, left)
        down = np.minimum(north, top) - np.maximum(south, bottom)
        half = (right - left) / PATCH_SIZE / 2  # edges are rounded in scenes.csv
        return bool(((across > half) & (down > half)).any())


def is_patch_folder(path: str | Path) -> bool:
    """Return whether this is a folder of images in a layout of `landslide.schema.LAYOUTS`."""
    return any(Path(path, images).is_dir() for layout in LAYOUTS for images, _ in layout.values())


def windows_of_scenes(
    plans: Sequence[MapPlan],
    *,
    min_valid: float = 1.0,
    labelled: LabelledSet | None = None,
    say: Callable[[str], object] = lambda text: None,
    start: _Start = lambda total: lambda n: None,
) -> Candidates:
    """Find and describe the windows of scenes that `landslide data tile` would cut, without overlap.

    Args:
        plans: The scenes with the model and with what is left out; their names differ.
        min_valid: Share of a window's pixels that must be valid.
        labelled: Windows that it covers are left out.
        say: Called with lines for people.
        start: Called with the number of windows; what it returns is called with the number just done.

    Raises:
        DataError: A file cannot be read, or no window is left.
    """
    for plan in plans:
        refuse_small_scene(plan.scene)
    grids = [plan.scene.grid for plan in plans]
    total = [len(window_starts(grid.height, PATCH_SIZE)) * len(window_starts(grid.width, PATCH_SIZE)) for grid in grids]
    progress = start(sum(total))
    rows: list[dict[str, Any]] = []
    places: list[Place] = []
    parts: list[Windows] = []
    left_out: list[str] = []
    for plan, windows in zip(plans, total, strict=True):
        counts: Counter[str] = Counter()
        for of_strip, where, described in _strips(plan, min_valid, labelled, counts, say, progress):
            rows += of_strip
            places += where
            parts.append(described)
        why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        line = f"{plan.scene.name}: {windows - counts.total()} of {windows} windows are candidates"
        left_out.append(line + (f" (left out: {why})" if why else ""))
        say(left_out[-1])
    if not rows:
        raise DataError(
            "No window is left to label. " + "; ".join(left_out) + ".",
            remedy="Give other scenes; a smaller --min-valid or fewer masks leave more of the unlabelled windows.",
        )
    return Candidates(pd.DataFrame(rows), places, Windows.joined(parts))


def _strips(
    plan: MapPlan,
    min_valid: float,
    labelled: LabelledSet | None,
    counts: Counter[str],
    say: Callable[[str], object],
    progress: Callable[[int], object],
) -> Iterator[tuple[list[dict[str, Any]], list[Place], Windows]]:
    """Yield the rows of the table, the places and the description of the windows of each strip of a scene."""
    scene, grid, predictor = plan.scene, plan.scene.grid, plan.predictor()
    across, down = grid.pixel_size
    with TemporaryDirectory() as work:
        terrain = terrain_of(plan, Path(work)) if plan.needs_terrain else None
        with plan.reader(terrain, Path(work)) as reader:
            for text in plan.warnings(terrain, plan.sample(reader)):
                if not text.startswith("no elevation model"):  # that is of the polygons of a map
                    say(f"note: {scene.name}: {text}")
            for row, top in enumerate(window_starts(grid.height, PATCH_SIZE)):
                values, reasons = reader.read(top, top + PATCH_SIZE)
                rows, places, used = [], [], []
                columns = window_starts(grid.width, PATCH_SIZE)
                for column, left in enumerate(columns):
                    place = Place.of_edges(scene.name, grid.crs, window_edges(grid, top, left))
                    why = why_left_out(reasons[:, left : left + PATCH_SIZE], min_valid)
                    if not why and labelled is not None and labelled.covers(place):
                        why = "labelled already"
                    if why:
                        counts[why] += 1
                        continue
                    rows.append({"scene": scene.name, "row": row, "column": column, "image": ""})
                    rows[-1]["pixel_area"] = across * down
                    places.append(place)
                    used.append(np.s_[..., left : left + PATCH_SIZE])
                for first in range(0, len(used), _CHUNK):
                    chunk = used[first : first + _CHUNK]
                    valid = np.stack([reasons[part] == Reason.ANALYSED for part in chunk])
                    stored = plan.model.to_stored(np.stack([values[part] for part in chunk]))
                    part = slice(first, first + _CHUNK)
                    yield rows[part], places[part], _described(predictor, plan.model, stored, valid)
                progress(len(columns))


def images_without_masks(root: Path, model: MapModel, start: _Start = lambda total: lambda n: None) -> Candidates:
    """Find and describe the images of a data set that have no mask, in all its splits.

    Args:
        root: Folder of the data set.
        model: The model.
        start: As of `windows_of_scenes`.

    Raises:
        DataError: A file is damaged, or every image has a mask.
        ConfigurationError: The set was cut with other bands or units than the model has.
    """
    _refuse_other_values(root, model)
    rows: list[dict[str, Any]] = []
    places: list[Place] = []
    images: list[Path] = []
    for folder, files in _images(root, masks=False):
        numbers = list(files)
        table = _positioned(root, folder, numbers)
        found = patch_places(root, table) if _is_training(folder) else beside_each_other(table)
        position = table[list(POSITION_COLUMNS)].astype(object)
        for number, place, (_, row, column) in zip(numbers, found, position.itertuples(index=False), strict=True):
            area = abs(place.transform.determinant) if place.crs and place.crs.is_projected else _PIXEL_AREA
            image = files[number].relative_to(root).as_posix()
            rows.append({"scene": place.scene or folder, "row": row, "column": column, "image": image})
            rows[-1]["pixel_area"] = area
            places.append(place)
            images.append(files[number])
    if not images:
        raise DataError(
            f"Every image of {root} has a mask.",
            remedy="Give scenes, or a data set with images that have no mask yet. A mask that nobody has drawn, such "
            "as one of zeros, has to be moved away.",
        )
    table = pd.DataFrame(rows)
    if any(place.crs is None for place in places):
        places = beside_each_other(table[[]].reindex(columns=list(POSITION_COLUMNS)))
    return Candidates(table, places, describe_images(images, model, start))


def images_with_masks(root: Path) -> list[Path]:
    """Return the images of a data set that have masks, in all its splits."""
    return [path for _, files in _images(root, masks=True) for path in files.values()]


def _images(root: Path, *, masks: bool) -> Iterator[tuple[str, dict[int, Path]]]:
    """Yield folders and images by number: those with masks, or those without."""
    for layout in LAYOUTS:
        for folder, mask_folder in layout.values():
            drawn = numbered_files(root / mask_folder, "mask")
            images = numbered_files(root / folder, "image")
            if chosen := {number: paths[0] for number, paths in images.items() if (number in drawn) == masks}:
                yield folder, chosen


def _is_training(folder: str) -> bool:
    return any(layout["train"][0] == folder for layout in LAYOUTS)


def _positioned(root: Path, folder: str, numbers: list[int]) -> pd.DataFrame:
    """Return numbers with positions; only training patches have some."""
    table = pd.DataFrame({"number": numbers})
    if _is_training(folder):
        return pd.concat([table, read_positions(root, numbers).reset_index(drop=True)], axis=1)
    return table.reindex(columns=["number", *POSITION_COLUMNS]).astype("Int64")


def describe_images(images: Sequence[Path], model: MapModel, start: _Start = lambda total: lambda n: None) -> Windows:
    """Predict and describe patches; at least one.

    Args:
        images: Their files.
        model: The model.
        start: As of `windows_of_scenes`.

    Raises:
        DataError: A file is damaged, has other bands than the model, or no value at all.
    """
    progress, parts, empty = start(len(images)), [], list[str]()
    bands = len(model.settings.stored)
    for first in range(0, len(images), _CHUNK):
        chunk = images[first : first + _CHUNK]
        stored = np.stack([read_stored(path, bands) for path in chunk]).transpose(0, 3, 1, 2)
        valid = np.isfinite(stored).all(axis=1)
        filled = valid.any(axis=(1, 2))
        empty += [path.name for path, some in zip(chunk, filled, strict=True) if not some]
        if not empty:
            parts.append(_described(model.ensemble, model, stored, valid))
        progress(len(chunk))
    if empty:
        raise DataError(
            f"{len(empty)} images have no pixel in which every band has a value: {first_few(empty)}.",
            remedy="Mend them, or move them away.",
        )
    return Windows.joined(parts)


def _described(ensemble: Ensemble, model: MapModel, stored: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> Windows:
    """Describe windows by the bands that the networks need: of a scene, the others are not read."""
    if not valid.all():
        stored = np.where(valid[:, None], stored, np.nan)  # which an ensemble fills with medians
    needed = [place for place, name in enumerate(model.settings.stored) if name in model.bands]
    return summarise(stored[:, needed], ensemble.predict(stored)[0], valid)


def _refuse_other_values(root: Path, model: MapModel) -> None:
    """Refuse a set that says that it was cut with other bands or units."""
    path = root / RECORD
    if not path.is_file():
        return
    try:
        settings = json.loads(path.read_text())["settings"]
        found = {name: settings[name] for name in ("stored", "units")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged.", remedy="Restore it, for example with `dvc checkout`.") from error
    wanted = {"stored": list(model.settings.stored), "units": getattr(model.settings, "units", "landslide4sense")}
    for name, value in wanted.items():
        if found[name] != value:
            raise ConfigurationError(
                f"{root} was cut with {name} {found[name]}, and the model has {value}.",
                remedy="Cut the scenes again for this model into another folder, or use a model of these patches.",
            )


def _outlines(places: Sequence[Place]) -> gpd.GeoSeries:
    """Return the outlines of places in their common reference system."""
    outlines = shapely.box(*np.array([place.edges for place in places]).T)
    crs = common_crs(places)
    if crs is None:
        return gpd.GeoSeries(outlines)
    systems = np.array([place.crs.to_wkt() if place.crs else "" for place in places])
    for wkt in np.unique(systems).tolist():
        chosen = systems == wkt
        outlines[chosen] = gpd.GeoSeries(outlines[chosen], crs=wkt).to_crs(crs.to_wkt()).to_numpy()
    return gpd.GeoSeries(outlines, crs=crs.to_wkt())


def ranked(candidates: Candidates, labelled: Windows | None = None, *, seed: int = 0) -> gpd.GeoDataFrame:
    """Rank all candidates by each strategy.

    Args:
        candidates: The windows.
        labelled: What is known of windows that are labelled already.
        seed: Seed of the random ranks.

    Returns:
        One row per candidate by rank, with the columns `COLUMNS` and geometry.
    """
    n = len(candidates.windows)
    windows = candidates.windows if labelled is None else Windows.joined([candidates.windows, labelled])
    done = np.arange(len(windows)) >= n
    best = rank_next(windows, done, n)
    orders = {
        "rank": best.order,
        "rank_coverage": rank_by_coverage(windows, done, n).order,
        "rank_random": rank_at_random(done, n, seed=seed),
    }
    table = candidates.table.copy()
    for name, order in orders.items():
        table.loc[order, name] = np.arange(1, n + 1)
        table[name] = table[name].astype("Int64")
    table.loc[best.order, "distance"] = np.where(np.isfinite(best.distance), best.distance, np.nan)
    table["uncertainty"] = candidates.windows.uncertainty
    table["expected_area_m2"] = candidates.windows.expected * table["pixel_area"]
    table["labelled"] = False
    for name in ("row", "column"):
        table[name] = table[name].astype("Int64")
    for name, column in COLUMNS.items():
        if column.dtype == "float":
            table[name] = table[name].round(column.decimals)
    frame = gpd.GeoDataFrame(table[[*COLUMNS]], geometry=_outlines(candidates.places))
    return frame.sort_values("rank", ignore_index=True)


def write_proposal(
    folder: Path, frame: gpd.GeoDataFrame, number: int, created: datetime, labelled: gpd.GeoDataFrame | None = None
) -> None:
    """Write the best tiles of each strategy as GeoPackages, and the ranks of all candidates as next.csv.

    The GeoPackages hold the tiles that are labelled already, too. `landslide data tile` cuts a scene as a whole, so the
    ticked tiles have to be all that are labelled.

    Args:
        folder: A new folder.
        frame: What `ranked` returned.
        number: How many tiles to propose in each GeoPackage at most.
        created: Time stamp of the layers, with its time zone.
        labelled: Ticked tiles of the same scenes, see `LabelledSet.tiles`.

    Raises:
        DataError: The folder is occupied or cannot be written.
        LockedError: Another process writes it.
    """
    with new_folder(folder) as partial:
        for name, column in FILES.items():
            tiles = frame[frame[column] <= number].sort_values(column)
            if labelled is not None:
                ticked = labelled.to_crs(frame.crs).reindex(columns=frame.columns)
                ticked = ticked.astype(frame.dtypes.drop("geometry").to_dict())
                tiles = pd.concat([tiles, ticked], ignore_index=True)
            write_geopackage(partial / f"{name}.gpkg", {"tiles": tiles}, created, _LAYERS)
        frame.drop(columns="geometry").to_csv(partial / "next.csv", index=False, lineterminator="\n")
