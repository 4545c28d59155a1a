"""What a map will be made of: scene, model, terrain, windows; what was understood, and what it will take."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.errors import RasterioError

from landslide import mapping, products, scenes
from landslide.errors import ConfigurationError, DataError
from landslide.inference.ensemble import Ensemble
from landslide.inference.own_code import CODE
from landslide.mapping.model import MapModel
from landslide.mapping.mosaic import Windows
from landslide.mapping.networks import Engine, choose_engine, engine_version, with_engine
from landslide.mapping.settings import MappingSettings
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.notes import input_notes, other_pixels
from landslide.scenes.reader import SceneReader
from landslide.scenes.reasons import Reason
from landslide.scenes.reflectance import POSSIBLE
from landslide.scenes.scene import Scene
from landslide.scenes.terrain import Terrain, prepare_terrain, terrain_size
from landslide.scenes.units import TERRAIN_BANDS
from landslide.schema import PATCH_SIZE

_SAMPLES, _SAMPLE_ROWS = 3, 32
_OF_NO_EFFECT = (".aux.xml", ".ovr")  # what a viewer writes beside a raster; what they say is read from the raster
_SHAPEFILE = (".shp", ".shx", ".dbf", ".prj")
_BYTES_PER_PIXEL = 20  # on the disk while a map is made: raw files, rasters and their overviews


@dataclass(frozen=True)
class Sample:
    """What some rows of a scene hold.

    Attributes:
        medians: Median of each of the model's bands over the analysed pixels; NaN without any.
        not_analysed: Pixels that cannot be analysed, by `Reason.text`.
        pixels: All pixels.
        notes: What looks wrong about the masks.
    """

    medians: tuple[float, ...]
    not_analysed: Mapping[str, int]
    pixels: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class MapPlan:
    """Everything that decides a map.

    Attributes:
        scene: The scene.
        model: The model, with the test-time augmentation of the map.
        settings: How the map is made.
        exclusions: What is not analysed.
        dem: Elevation models.
    """

    scene: Scene
    model: MapModel
    settings: MappingSettings
    exclusions: ExclusionSettings
    dem: tuple[str, ...]

    @property
    def threshold(self) -> float:
        """Landslide probability from which a pixel is a landslide."""
        return self.settings.threshold if self.settings.threshold is not None else self.model.ensemble.threshold

    @cached_property
    def windows(self) -> Windows:
        """The windows over the scene."""
        return Windows(self.scene.grid.height, self.scene.grid.width, self.settings.overlap)

    @cached_property
    def engine(self) -> Engine:
        """What computes the networks."""
        return choose_engine(self.settings.engine, self.model.ensemble.device, len(self.windows))

    def predictor(self) -> Ensemble:
        """Return the model's ensemble as it predicts this map."""
        return with_engine(self.model.ensemble, self.engine, self.settings.precision, len(self.windows.columns))

    @property
    def needs_terrain(self) -> bool:
        """Whether the model's networks need slope or elevation."""
        return bool({*TERRAIN_BANDS} & {*self.model.bands})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the result depends on, as plain values: equal identities give equal maps to the bit."""
        scene, grid, masks, area = self.scene, self.scene.grid, self.exclusions.masks, self.exclusions.area
        settings = asdict(self.settings) | {
            "threshold": self.threshold,
            "augmentation": self.model.augmentation,
        }
        del settings["engine"]
        return {
            "scene": {
                **{name: getattr(scene, name) for name in ("name", "level", "baseline", "sensor", "datetime")},
                "source": _place(scene.source),
                "grid": [grid.crs.to_wkt(), *grid.transform[:6], grid.width, grid.height],
                "bands": {
                    name: [band.index, band.scale, band.offset, str(band.nodata), band.saturated, _state(band.path)]
                    for name, band in scene.bands.items()
                },
                "classification": [_state(path) for path in scene.classification.files],
            },
            "elevation model": [[_place(path), _state(path)] for path in self.dem],
            "model": self.model.digest,
            "settings": settings,
            "engine or device": [engine_version(self.engine), self.model.ensemble.device.type],
            "area, masks or clouds": {
                **asdict(self.exclusions),
                "masks": [[_place(str(path)), _state(str(path))] for path in masks],
                "area": area and [_place(str(area)), _state(str(area))],
            },
            "code": f"{CODE}-{_mapping_code()}",
        }

    def reader(self, terrain: Terrain | None, folder: Path) -> SceneReader:
        """Return the reader of the bands that the model needs.

        Args:
            terrain: What `terrain_of` returned.
            folder: Where a computed cloud mask is kept.
        """
        return SceneReader(
            self.scene, self.model.bands, self.exclusions, terrain if self.needs_terrain else None, work_folder=folder
        )

    def warnings(self, terrain: Terrain | None, sample: Sample) -> list[str]:
        """Return what looks wrong but does not stop the map.

        Args:
            terrain: What `prepare_terrain` returned.
            sample: What `sample` returned.
        """
        found = []
        level = self.scene.level
        if level is None:
            found.append(
                f"the processing level is unknown; the model was trained on {self.model.level} (--level says it)"
            )
        elif level != self.model.level:
            found.append(f"the scene is {level}, and the model was trained on {self.model.level}: expect worse results")
        if pixels := other_pixels(self.scene.grid):
            found.append(f"{pixels}; the model was trained on 10 m")
        if self.windows.side < PATCH_SIZE:
            found.append(
                f"the scene is smaller than a training patch: windows of {self.windows.side} pixels, whose bands are "
                "scaled by less ground than in training"
            )
        found += input_notes(self.scene, self.exclusions, terrain)
        if terrain is None and not self.needs_terrain:
            found.append("no elevation model: the polygons have no elevations, slopes and run-out")
        found += sample.notes
        found += pixel_notes(sample.not_analysed, sample.pixels, "pixels of some rows that were read")
        return found + self.model.unusual(sample.medians)

    def sample(self, reader: SceneReader) -> Sample:
        """Return what some rows hold, spread over the scene."""
        height = self.scene.grid.height
        rows = min(_SAMPLE_ROWS, height)
        values, counts = [], np.zeros(len(Reason), int)
        for start in np.linspace(0, height - rows, _SAMPLES + 2, dtype=int)[1:-1].tolist():
            found, reasons = reader.read(start, start + rows)
            values.append(found[:, reasons == Reason.ANALYSED])
            counts += np.bincount(reasons.ravel(), minlength=len(Reason))
        joined = np.concatenate(values, axis=1)
        return Sample(
            tuple(float(np.median(band)) if band.size else float("nan") for band in joined),
            {reason.text: int(counts[reason]) for reason in Reason if reason and counts[reason]},
            int(counts.sum()),
            tuple(reader.notes),
        )

    def seconds(self, workers: int) -> float:
        """Return about how long the prediction takes, from a window that is timed now."""
        side, stored = self.windows.side, len(self.model.settings.stored)
        image = np.random.default_rng(0).uniform(0.5, 1.5, (8, stored, side, side))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as a worker has
        predictor = self.predictor()
        try:
            predictor.predict(image, batch_size=8)  # the first time is slower
            start = time.perf_counter()
            predictor.predict(image, batch_size=8)
            return (time.perf_counter() - start) / 8 * len(self.windows) / workers
        finally:
            torch.set_num_threads(threads)

    def check_space(self, folder: Path) -> None:
        """Refuse a disk without space for the map.

        Args:
            folder: The work folder; what is in it already needs no more space.

        Raises:
            DataError: If the disk has too little space.
        """
        grid = self.scene.grid
        needed = _BYTES_PER_PIXEL * grid.width * grid.height
        if self.dem:
            needed += terrain_size(self.dem, grid)
        needed -= sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise DataError(
                f"{folder} has {_bytes(free)} of free space; the map of {self.scene.name} needs about "
                f"{_bytes(needed)} while it is made.",
                remedy="Free some space, or choose another folder with --output (output).",
            )


def _bytes(number: int) -> str:
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def make_plan(
    scene: Scene,
    model: MapModel,
    settings: MappingSettings,
    exclusions: ExclusionSettings,
    dem: Sequence[str] = (),
) -> MapPlan:
    """Join what decides a map, and check that the scene has what the model needs.

    Raises:
        ConfigurationError: If a band or the elevation model is missing.
        DataError: If the scene is too small.
    """
    missing = [band for band in model.bands if band not in TERRAIN_BANDS and band not in scene.bands]
    if missing:
        absent = "; ".join(f"{band}: {scene.missing[band]} is not there" for band in missing if band in scene.missing)
        remedy = f"Bring the files ({absent}), or use a model without these bands."
        if not absent:
            remedy = "Use a scene that has them, or another model (--model)."
        if scene.level == "L2A" and "B10" in missing:
            remedy = (
                "L2A products have no B10. Map the L1C product of the same date, or train a model without this band "
                "(configs/surface_reflectance.yaml)."
            )
        raise ConfigurationError(
            f"{scene.name} has no {', '.join(missing)}, which the model {model.name} {model.version}".rstrip()
            + " needs.",
            remedy=remedy,
        )
    needed = [band for band in model.bands if band in TERRAIN_BANDS]
    if needed and not dem:
        raise ConfigurationError(
            f"The model {model.name} {model.version}".rstrip() + f" needs {' and '.join(needed)}, and there is no "
            "elevation model.",
            remedy="Give one or several rasters of elevation in metres with --dem, or use a model without terrain.",
        )
    plan = MapPlan(scene, model.augmented(settings.augmentation), settings, exclusions, tuple(map(str, dem)))
    try:
        plan.engine  # noqa: B018  # refuses one that is not there, and a scene that is too small
    except DataError as error:
        raise DataError(f"{scene.source}: {error.what}", remedy=error.remedy) from error
    return plan


def pixel_notes(not_analysed: Mapping[str, int], pixels: int, what: str = "pixels") -> list[str]:
    """Return what looks wrong about the pixels that are not analysed.

    Args:
        not_analysed: Number of pixels by `Reason.text`.
        pixels: Number of all pixels.
        what: What these pixels are, in words.
    """
    found = []
    if sum(not_analysed.values()) == pixels:
        reasons = ", ".join(f"{name} {100 * n / pixels:.1f} %" for name, n in not_analysed.items())
        found.append(f"none of the {pixels} {what} can be analysed ({reasons})")
    if impossible := not_analysed.get(Reason.IMPOSSIBLE_VALUE.text):
        found.append(
            f"{impossible} of {pixels} {what} have a reflectance below {POSSIBLE[0]:g} or above {POSSIBLE[1]:g}, which "
            "no ground has, and are not analysed: a fill value that the file does not declare as nodata, or a wrong "
            "quantification or offset"
        )
    return found


def terrain_of(plan: MapPlan, folder: Path) -> Terrain | None:
    """Prepare the terrain of a map; None without an elevation model."""
    return prepare_terrain(plan.dem, plan.scene.grid, folder) if plan.dem else None


def digest(identity: Any) -> str:
    """Return the digest of an identity, or of a part of it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def _place(path: str) -> str:
    """Return the absolute path of what is on the disk; anything else as it is."""
    return str(Path(path).resolve()) if Path(path).exists() else path


def _state(path: str) -> Any:
    """Return what says whether a file has changed; its address if it is elsewhere.

    That is size and time of it and of the files that belong to it, or of the archive that holds it, and what a raster
    says about its numbers and its place.
    """
    local = path.removeprefix("/vsizip/").removeprefix("/")
    if path.startswith("/vsizip/"):
        return next((_size_and_time(one) for one in Path("/", local).parents if one.is_file()), path)
    if Path(path).suffix == ".gdb":
        return [_size_and_time(part) for part in sorted(Path(path).rglob("*")) if part.is_file()] or path
    if not Path(path).is_file():
        return path
    try:
        with rasterio.open(path) as raster:
            numbers = [raster.nodatavals, raster.scales, raster.offsets, raster.units]
            about = [str(raster.crs), *raster.transform[:6], *map(str, numbers)]
            parts = [part for part in raster.files if not part.endswith(_OF_NO_EFFECT)]
    except RasterioError:  # a vector file
        about, parts = [], [str(Path(path).with_suffix(suffix)) for suffix in _SHAPEFILE] + [f"{path}-wal"]
    return [*about, *(_size_and_time(part) for part in sorted({path, *parts}) if Path(part).is_file())]


def _size_and_time(path: str | Path) -> list[int]:
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def _mapping_code() -> str:
    found = hashlib.sha256()
    for package in (scenes, mapping, products):
        for path in sorted(Path(package.__path__[0]).glob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()[:16]
