"""The products of a map: rasters, polygons, pictures and metadata, from the raw files of its prediction."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas as gpd

from landslide.files import atomic_write, sha256
from landslide.mapping.map_folder import SUMMARY
from landslide.mapping.networks import engine_version
from landslide.mapping.plan import MapPlan, digest, pixel_notes
from landslide.products.geotiff import write_rasters
from landslide.products.map_info import MapInfo
from landslide.products.map_page import write_map_page
from landslide.products.pictures import write_quicklook
from landslide.products.polygons import (
    area_of_interest,
    image_footprint,
    landslide_polygons,
    not_analysed_polygons,
    source_table,
)
from landslide.products.raw_files import count_reasons
from landslide.products.stac_item import write_item
from landslide.products.vectors import write_geojson, write_geopackage
from landslide.scenes.exclusion_polygons import area_polygons
from landslide.scenes.reader import scene_preview
from landslide.scenes.terrain import Terrain

_VERSIONS = ("landslide", "torch", "numpy", "rasterio", "shapely", "geopandas")


def write_products(
    plan: MapPlan, work: Path, folder: Path, terrain: Terrain | None, warnings: list[str], seconds: float
) -> dict[str, Any]:
    """Write everything that a finished map holds.

    Args:
        plan: What decides the map.
        work: Folder of the raw files of its prediction.
        folder: An empty folder for the products.
        terrain: The terrain, if there is an elevation model.
        warnings: What looked wrong before the prediction.
        seconds: How long the map has taken.

    Returns:
        The summary, as it is written to summary.json.

    Raises:
        OSError: The disk is full.
        DataError: The scene cannot be read.
    """
    info = _info(plan)
    description = {
        "SCENE": info.scene,
        "MODEL": f"{info.model} {info.model_version}".rstrip(),
        "THRESHOLD": f"{info.threshold:.4f}",
    }
    grid, created = plan.scene.grid, info.created
    write_rasters(work, folder, grid, plan.threshold, description)
    landslides, below_minimum = landslide_polygons(folder, info, terrain.path if terrain else None)
    not_analysed = not_analysed_polygons(folder)
    area = None
    if plan.exclusions.area is not None:
        area = gpd.GeoDataFrame(geometry=area_polygons(plan.exclusions, grid), crs=grid.crs.to_wkt())
    layers = {
        "landslides": landslides,
        "not_analysed": not_analysed,
        "image_footprint": image_footprint(grid),
        "area_of_interest": area_of_interest(grid, area),
        "source": source_table(grid, info),
    }
    write_geopackage(folder / "landslides.gpkg", layers, created)
    write_geojson(folder / "landslides.geojson", landslides)
    preview = scene_preview(plan.scene, reasons=folder / "reasons.tif")
    write_quicklook(folder / "quicklook.png", preview, folder, grid, landslides, not_analysed, info)
    write_map_page(folder / "map.html", preview, folder, grid, landslides, not_analysed, info)
    areas = landslides["area_m2"]
    reasons, pixels = count_reasons(work, grid.height, grid.width)
    summary = {
        "scene": info.scene,
        "source": info.source,
        "sensor": info.sensor,
        "level": info.level,
        "processing_baseline": info.processing_baseline,
        "image_datetime": info.image_datetime and info.image_datetime.isoformat(),
        "model": info.model,
        "model_version": info.model_version,
        "model_address": info.model_address,
        "threshold": plan.threshold,
        "min_area_m2": info.minimum_area,
        "landslides": len(landslides),
        "below_minimum": below_minimum,
        "area_m2": round(float(areas.sum()), 1),
        "largest_m2": round(float(areas.max()), 1) if len(areas) else 0.0,
        "not_analysed": sum(reasons.values()) / pixels,
        "not_analysed_by_reason": {name: count / pixels for name, count in reasons.items()},
        "pixels": pixels,
        "windows": len(plan.windows),
        "seconds": round(seconds, 1),
        "created": created.isoformat(timespec="seconds"),
        "engine": engine_version(plan.engine),
        "device": plan.model.ensemble.device.type,
        "precision": plan.settings.precision,
        "notes": warnings + pixel_notes(reasons, pixels),
        "versions": {name: version(name) for name in _VERSIONS},
        "digest": digest(plan.identity),
        "identity": json.loads(json.dumps(plan.identity, default=str)),
    }
    described = {name: summary[name] for name in ("landslides", "below_minimum", "area_m2", "not_analysed")}
    write_item(folder / "item.json", info, grid, described, [*sorted(folder.iterdir()), folder / SUMMARY])
    summary["digests"] = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    with atomic_write(folder / SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _info(plan: MapPlan) -> MapInfo:
    scene, model = plan.scene, plan.model
    return MapInfo(
        scene=scene.name,
        source=scene.source,
        sensor=scene.sensor,
        level=scene.level,
        image_datetime=scene.datetime,
        processing_baseline=scene.baseline,
        model=model.name,
        model_version=model.version,
        model_address=model.address,
        threshold=plan.threshold,
        minimum_area=plan.settings.min_area,
        blending=f"windows of {plan.windows.side} pixels, {100 * plan.settings.overlap:.0f} % overlap, sine taper",
        augmentation=model.augmentation,
        created=datetime.now(UTC),
        landslide_version=version("landslide"),
    )
