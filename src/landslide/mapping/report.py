"""What people read about a map: before it is made, and when it is there."""

import resource
import tempfile
from pathlib import Path

from landslide.errors import DataError
from landslide.mapping.map_folder import FinishedMap
from landslide.mapping.networks import engine_version
from landslide.mapping.plan import MapPlan, pixel_notes, terrain_of
from landslide.mapping.scene_map import foresee
from landslide.scenes.exclusions import cloud_source

_PRODUCTS_BYTES = 400e6  # what rasters, polygons and pictures take beyond the networks, with their libraries


def describe_plan(plan: MapPlan, workers: int, output: Path, *, overwrite: bool = False) -> list[str]:
    """Return what was understood of a scene, and about what its map will take, as lines.

    Args:
        plan: The plan.
        workers: Groups of windows that are predicted at the same time.
        output: The folder of the maps.
        overwrite: Whether another map would be replaced.

    Raises:
        DataError: Something cannot be read, or the folder of temporary files is full.
    """
    scene, grid = plan.scene, plan.scene.grid
    try:
        with tempfile.TemporaryDirectory() as folder:
            terrain = terrain_of(plan, Path(folder))
            with plan.reader(terrain, Path(folder)) as reader:
                warnings = plan.warnings(terrain, plan.sample(reader))
    except OSError as error:
        raise DataError(
            f"{scene.name} cannot be looked at: temporary files cannot be written: {error.strerror or error}.",
            remedy="Free some space there, or set TMPDIR to a folder on a disk with more.",
        ) from error
    scalings = {(band.scale, band.offset) for band in scene.bands.values()}
    unknown = "unknown"
    windows = plan.windows
    elevation = "none" if terrain is None else f"{', '.join(plan.dem)}, {100 * terrain.coverage:.1f} % of the scene"
    folder_of_map, left = foresee(plan, output, overwrite=overwrite)
    seconds = plan.seconds(workers) * left / len(windows)
    strips = 4 * grid.width * windows.side * (5 * len(plan.model.bands) + 3)
    # By now the process has read rows of the scene and predicted windows by all networks, and the libraries of the
    # products come when the networks have gone.
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + max(strips, _PRODUCTS_BYTES)
    lines = [
        f"{scene.name}",
        f"  read as        {scene.kind}: {scene.source}",
        f"  product        {scene.sensor or unknown + ' sensor'}, level {scene.level or unknown}, baseline "
        f"{scene.baseline or unknown}, {scene.datetime or unknown + ' date'}",
        f"  reflectance    {'; '.join(f'number x {s:g} {o:+g}' for s, o in sorted(scalings))} ({scene.scaling})",
        f"  bands          {', '.join(scene.bands)}",
        f"  grid           {grid.width} x {grid.height} pixels of {grid.pixel_size[0]:.2f} x "
        f"{grid.pixel_size[1]:.2f} m, {grid.crs.to_string()}",
        f"  clouds         {cloud_source(scene, plan.exclusions) or 'none'}",
        f"  elevation      {elevation}",
        f"  model          {plan.model.name} {plan.model.version}".rstrip()
        + f", {len(plan.model.ensemble.members)} networks, needs {', '.join(plan.model.bands)}",
        f"  threshold      {plan.threshold:.4f}",
        f"  windows        {len(windows)}, each {windows.side} x {windows.side} pixels, overlap "
        f"{100 * plan.settings.overlap:.0f} %, augmentation {plan.model.augmentation}",
        f"  computed by    {engine_version(plan.engine)}, {plan.model.ensemble.device.type}, {plan.settings.precision}",
        f"  output         {folder_of_map}",
        f"  time           about {duration(seconds)} with {workers} workers",
        f"  memory         about {memory / 1e9:.1f} GB",
    ]
    return lines + [f"  note           {text}" for text in warnings]


def describe_map(finished: FinishedMap, run: str | None = None) -> str:
    """Return the result of a map as a short text.

    Args:
        finished: The map.
        run: Id of the MLflow run that records it.
    """
    summary = finished.summary
    there = "" if finished.new else " (it was there already)"
    pixels = summary["pixels"]
    counts = {name: round(share * pixels) for name, share in summary["not_analysed_by_reason"].items()}
    found = [
        f"{summary['scene']}: {summary['landslides']} landslides, {summary['area_m2'] / 1e6:.3f} km2 in all, "
        f"the largest {summary['largest_m2'] / 1e6:.3f} km2",
        f"{summary['below_minimum']} more below {summary['min_area_m2']:g} m2; "
        f"{100 * summary['not_analysed']:.1f} % not analysed",
    ]
    if sum(counts.values()) == pixels:
        found = [f"{summary['scene']}: nothing was analysed, so the map does not say whether there are landslides"]
    lines = [
        *found,
        *(f"note: {text}" for text in pixel_notes(counts, pixels)),
        f"map: {finished.folder}{there}",
        "look at it: map.html there in a browser, landslides.gpkg in QGIS",
    ]
    return "\n".join(lines + ([f"recorded as MLflow run {run}"] if run else []))


def duration(seconds: float) -> str:
    """Return a duration for people: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
