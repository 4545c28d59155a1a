"""The map of one scene: predicted, written as rasters, polygons, pictures and metadata, in a folder of its own."""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rasterio.windows import Window

from landslide.files import atomic_write
from landslide.locks import holder_of, locked
from landslide.mapping.map_folder import (
    KEPT_NOTE,
    PRODUCTS,
    REPLACE,
    REPLACED,
    FinishedMap,
    MapExistsError,
    existing_map,
    finish,
    read_summary,
    recover,
    refuse_another,
    refuse_damaged,
    writing_map,
)
from landslide.mapping.model import MapModel
from landslide.mapping.mosaic import PROGRESS, Mosaic
from landslide.mapping.plan import MapPlan, pixel_notes, terrain_of
from landslide.products.raw_files import RAW_TYPES, count_reasons
from landslide.scenes.rasters import gdal_environment, open_raster
from landslide.scenes.terrain import Terrain

_IDENTITY, _WARNINGS = "identity.json", "warnings.json"
_NO_EFFECT_ON_PREDICTION = ("threshold", "min_area")
_SAME_IN_OTHER_BITS = ("engine or device",)
_GPU_WORKERS = 2  # more of them hold each other up (docs/performance.md)


def map_scene(
    plan: MapPlan,
    output: Path,
    *,
    workers: int,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda text: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
    save_every: float = 10.0,
) -> FinishedMap:
    """Make the map of a scene, or continue one that was interrupted.

    The work is done in `.<scene>.partial` beside the folder of the map, which gets its name when it is complete.
    Another map is deleted only when the new one has its place.

    Args:
        plan: What decides the map.
        output: The folder of the maps; that of this map is `output/<scene name>`.
        workers: Groups of windows that are predicted at the same time.
        overwrite: Replace another map of this scene, finished or not.
        say: Called with lines for people: warnings and what is being done.
        progress: Called with the number of windows done and of all.
        save_every: Seconds between two saves of an unfinished prediction.

    Raises:
        MapExistsError: If the folder holds a map of another scene, model or other settings, or a damaged one.
        LockedError: If another process is making this map.
        DataError: If the disk is full, something cannot be read, or the folder cannot be made.
        PredictionError: If the model's answers are not finite.
    """
    with writing_map(plan.scene.name, output):
        return _map(plan, output, workers, overwrite, say, progress, save_every)


def _map(
    plan: MapPlan,
    output: Path,
    workers: int,
    overwrite: bool,
    say: Callable[[str], object],
    progress: Callable[[int, int], object],
    save_every: float,
) -> FinishedMap:
    output.mkdir(parents=True, exist_ok=True)
    name = plan.scene.name
    final, work, done = output / name, output / f".{name}.partial", output / f".{name}.done"
    with locked(output / f".{name}.lock", wait=False):
        if kept := recover(work, done, final):
            say(KEPT_NOTE.format(kept))
        if there := existing_map(final, plan.identity, overwrite=overwrite, parts=_SAME_IN_OTHER_BITS):
            return there
        _prepare(plan, work, overwrite)
        plan.check_space(work)
        started = time.monotonic()
        products = work / PRODUCTS
        _take_over(plan, final, work, say)
        terrain = terrain_of(plan, work)
        warnings = _predict(plan, work, terrain, workers, say, progress, save_every)

        from landslide.mapping.write_products import write_products  # late, as it brings 130 MB of libraries

        say("writing rasters, polygons and pictures")
        products.mkdir()
        with gdal_environment():
            summary = write_products(plan, work, products, terrain, warnings, time.monotonic() - started)
        if kept := finish(work, done, final):
            say(KEPT_NOTE.format(kept))
    return FinishedMap(final, summary, new=True)


def foresee(plan: MapPlan, output: Path, *, overwrite: bool = False) -> tuple[str, int]:
    """Return what `map_scene` would do about its folder now, and how many windows it would predict.

    Args:
        plan: What decides the map.
        output: The folder of the maps.
        overwrite: Whether it would replace another map.
    """
    name, windows = plan.scene.name, len(plan.windows)
    final, work, done = output / name, output / f".{name}.partial", output / f".{name}.done"
    try:
        if (holder := holder_of(output / f".{name}.lock")) is not None:
            return f"{final} is being made by {holder}", windows
        if (done / PRODUCTS).exists() and not os.path.lexists(final):
            return f"{final}, an interrupted map that is complete", 0
        if existing_map(final, plan.identity, overwrite=overwrite, parts=_SAME_IN_OTHER_BITS):
            return f"{final} is this map", 0
        if (refused := _not_writable(output, work)) is not None:
            return f"{refused} cannot be written", windows
        if _continues(plan, work, overwrite):
            left = windows - _mosaic(plan, work).rows_done * len(plan.windows.columns)
            return f"{final}, an interrupted map: {windows - left} of {windows} windows are done", left
    except MapExistsError as error:
        return f"{error.what} {error.remedy}", windows
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}", windows
    if _predicted_before(plan, final) is not None:
        return f"{final}, with the probabilities of the map that it replaces", 0
    return f"{final}, {'replaced' if final.exists() else 'a new map'}", windows


def _not_writable(*folders: Path) -> Path | None:
    """Return the first of some folders, or the nearest one above that exists, if it is none or cannot be written."""
    for folder in folders:
        nearest = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            return nearest
    return None


def _continues(plan: MapPlan, work: Path, overwrite: bool) -> bool:
    """Whether the work folder holds the unfinished prediction of this map.

    Raises:
        MapExistsError: If it holds that of another map, unless `overwrite`.
    """
    if not (work / PROGRESS).exists():  # nothing would be lost: the last call may have failed at its input
        return False
    try:
        before = json.loads((work / _IDENTITY).read_text())
        remedy = f"Finish it by the call that began it, discard it {REPLACE}"
        refuse_another(
            plan.identity, before, f"{work} holds an unfinished map", remedy, settings=_NO_EFFECT_ON_PREDICTION
        )
    except MapExistsError:
        if not overwrite:
            raise
        return False
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # nobody knows of what it is
        return False
    return True


def _prepare(plan: MapPlan, work: Path, overwrite: bool) -> None:
    """Make the work folder, or take the one of an interrupted map if that is this one."""
    if _continues(plan, work, overwrite):
        for folder in (PRODUCTS, REPLACED):
            shutil.rmtree(work / folder, ignore_errors=True)
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with atomic_write(work / _IDENTITY) as path:
        path.write_text(json.dumps(plan.identity, default=str))


def _mosaic(plan: MapPlan, work: Path) -> Mosaic:
    return Mosaic(work, plan.windows, plan.settings.min_valid)


def _predicted_before(plan: MapPlan, final: Path) -> list[str] | None:
    """Return the notes of a finished map if it has the same prediction: only threshold or smallest area differ."""
    if not final.is_dir():
        return None
    try:
        summary = read_summary(final)
        refuse_another(plan.identity, summary["identity"], "", "", settings=_NO_EFFECT_ON_PREDICTION)
        refuse_damaged(final, {f"{name}.tif": summary["digests"][f"{name}.tif"] for name in RAW_TYPES})
        return [note for note in summary["notes"] if isinstance(note, str)]
    except (MapExistsError, KeyError, TypeError):
        return None


def _take_over(plan: MapPlan, final: Path, work: Path, say: Callable[[str], object]) -> None:
    """Take the prediction of the finished map that is replaced, if it is the same."""
    mosaic = _mosaic(plan, work)
    if mosaic.rows_done or (notes := _predicted_before(plan, final)) is None:
        return
    say("the probabilities of the previous map are used again")
    grid = plan.scene.grid
    with ExitStack() as stack:
        rasters = {name: stack.enter_context(open_raster(str(final / f"{name}.tif"))) for name in RAW_TYPES}
        mosaic.take_over(
            lambda name, rows: rasters[name].read(1, window=Window(0, rows.start, grid.width, rows.stop - rows.start))
        )
    counted = pixel_notes(*count_reasons(work, grid.height, grid.width))
    _write_warnings(work, [note for note in notes if note not in counted])


def _read_warnings(work: Path) -> list[str] | None:
    """Return the warnings of an unfinished map; None if there are none, or the file is damaged."""
    try:
        found = json.loads((work / _WARNINGS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else None


def _write_warnings(work: Path, warnings: list[str]) -> None:
    with atomic_write(work / _WARNINGS) as path:
        path.write_text(json.dumps(warnings))


def _predict(
    plan: MapPlan,
    work: Path,
    terrain: Terrain | None,
    workers: int,
    say: Callable[[str], object],
    progress: Callable[[int, int], object],
    save_every: float,
) -> list[str]:
    """Predict what is not predicted yet; return the warnings."""
    windows = plan.windows
    mosaic = _mosaic(plan, work)
    done = mosaic.rows_done * len(windows.columns)

    def advance(n: int) -> None:
        nonlocal done
        done += n
        progress(done, len(windows))

    def begin(warnings: list[str]) -> list[str]:
        for text in warnings:
            say(f"note: {text}")
        progress(done, len(windows))
        return warnings

    noted = _read_warnings(work)
    if done == len(windows) and noted is not None:
        return begin(noted)
    with plan.reader(terrain, work) as reader:
        if done:
            say(f"continuing an interrupted map: {done} of {len(windows)} windows are done")
        if not done or noted is None:
            noted = plan.warnings(terrain, plan.sample(reader))
            _write_warnings(work, noted)
        warnings = begin(noted)
        device = plan.model.ensemble.device
        mosaic.predict(
            plan.predictor(), reader, plan.model.to_stored,
            workers=workers, gpu=device.type == "cuda", progress=advance, save_every=save_every,
        )  # fmt: skip
    return warnings


def default_workers(model: MapModel) -> int:
    """Return how many groups of windows are predicted at the same time: one for each core of this process."""
    cores = len(os.sched_getaffinity(0))
    return min(cores, _GPU_WORKERS) if model.ensemble.device.type == "cuda" else cores
