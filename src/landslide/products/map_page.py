"""A map as one page that opens in a browser without a network: image, probability, landslides, areas not analysed."""

import math
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from landslide.files import atomic_write
from landslide.products.colours import CONFIDENCE_COLOURS, REASON_COLOURS
from landslide.products.map_info import LANDSLIDE_COLUMNS, MapInfo
from landslide.products.overlays import not_analysed_overlay, probability_overview
from landslide.products.page_data import image_uri, probability_colours, script_json
from landslide.scenes.grid import Grid, continuous

_TEMPLATE = Path(__file__).with_name("map_page.html")
_PLACEHOLDER = "{{data}}"
_MOST_POLYGONS = 10_000
_LONGEST_SIDE = 1600
_CELLS = 8  # a side, between whose corners the page interpolates longitude and latitude

# The same for every landslide: the page gives them once.
_CONSTANT = {"image_date", "sensor", "processing_baseline", "model", "model_version", "threshold", "min_area_m2",
             "reviewed"}  # fmt: skip


def write_map_page(
    path: Path,
    preview_rgb: npt.NDArray[np.uint8],
    folder: Path,
    grid: Grid,
    landslides: gpd.GeoDataFrame,
    not_analysed: gpd.GeoDataFrame,
    info: MapInfo,
) -> None:
    """Write a map as one HTML file that needs nothing else.

    The image is a JPEG and the other layers are PNGs of at most 1,600 pixels a side. The page draws at most the 10,000
    largest landslides, and says so.

    Args:
        path: The file; an older one is replaced when the new one is complete.
        preview_rgb: (H, W, 3) uint8, true colours of the whole scene.
        folder: The folder with probability.tif and reasons.tif.
        grid: The scene.
        landslides: As `landslide_polygons` returns them.
        not_analysed: As `not_analysed_polygons` returns them.
        info: What the page quotes.

    Raises:
        OSError: If the file cannot be written.
    """
    shape = _preview_shape(grid)
    drawn = landslides.nlargest(_MOST_POLYGONS, "area_m2").sort_values("id")
    reasons = set(not_analysed["reason"])
    columns = {name: column for name, column in LANDSLIDE_COLUMNS.items() if name not in _CONSTANT}
    data = {
        "scene": info.scene,
        "facts": _facts(landslides, info),
        "width": grid.width,
        "height": grid.height,
        "pixel": grid.pixel_size,
        "transform": list(grid.transform)[:6],
        "crs": grid.crs.to_string(),
        "degrees": grid.crs.is_geographic,
        "lonlat": _lonlat(grid),
        "layers": {
            "image": image_uri(cv2.resize(preview_rgb, shape[::-1], interpolation=cv2.INTER_AREA)),
            "probability": image_uri(_transparent(probability_overview(folder, shape))),
            "not_analysed": image_uri(not_analysed_overlay(folder, shape)),
        },
        "probability_colours": [
            f"#{bytes(colour).hex()}" for colour in probability_colours(np.linspace(0, 255, 6).astype(np.uint8))
        ],
        "threshold": info.threshold,
        "confidence": CONFIDENCE_COLOURS,
        "counts": {name: int((landslides["confidence"] == name).sum()) for name in CONFIDENCE_COLOURS},
        "reasons": {reason.text: colour for reason, colour in REASON_COLOURS.items() if reason.text in reasons},
        "columns": [
            {"name": name, "unit": column.unit, "text": column.description} for name, column in columns.items()
        ],
        "rows": [[_plain(value) for value in row] for row in drawn[list(columns)].itertuples(index=False)],
        "paths": [_path(geometry, grid) for geometry in drawn.geometry],
        "points": [_pixels(point, grid).round(1)[0].tolist() for point in drawn.representative_point()],
    }
    page = _TEMPLATE.read_text(encoding="utf-8").replace(_PLACEHOLDER, script_json(data))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _facts(landslides: gpd.GeoDataFrame, info: MapInfo) -> dict[str, str]:
    """Return what the page says of the map, by label; what is unknown is left out."""
    facts = {
        "Landslides": f"{len(landslides):,}",
        "Total area": f"{landslides['area_m2'].sum() / 1e6:.3g} km²",
        "Largest": f"{landslides['area_m2'].max():,.0f} m²" if len(landslides) else None,
        "Image": info.image_date,
        "Sensor": info.sensor,
        "Level": info.level,
        "Processing baseline": info.processing_baseline,
        "Model": info.model_label,
        "Threshold": f"{info.threshold:.2f}",
        "Minimum area": f"{info.minimum_area:g} m²",
        "Created": info.created.isoformat(timespec="minutes"),
    }
    if len(landslides) > _MOST_POLYGONS:
        facts["Drawn"] = f"the {_MOST_POLYGONS:,} largest"
    return {label: text for label, text in facts.items() if text is not None}


def _preview_shape(grid: Grid) -> tuple[int, int]:
    shrink = min(1.0, _LONGEST_SIDE / max(grid.width, grid.height))
    return max(1, round(grid.height * shrink)), max(1, round(grid.width * shrink))


def _lonlat(grid: Grid) -> list[list[list[float]]]:
    """Return longitude and latitude at the corners of cells, row by row; longitude goes on above 180 degrees."""
    rows, columns = np.linspace(0, grid.height, _CELLS + 1), np.linspace(0, grid.width, _CELLS + 1)
    west, _, _, north = grid.bounds
    x, y = np.meshgrid(west + grid.transform.a * columns, north + grid.transform.e * rows)
    longitude, latitude = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True).transform(x, y)
    corners: list[list[list[float]]] = np.stack([continuous(longitude, (0, 1)), latitude], axis=-1).round(7).tolist()
    return corners


def _transparent(probability: Any) -> npt.NDArray[Any]:
    """Return red, green, blue and opacity, (H, W, 4), of a probability; where it is low it is transparent."""
    values = (probability.filled(0).clip(0, 1) * 255).astype(np.uint8)
    opacity = np.where(np.ma.getmaskarray(probability), 0, np.minimum(values.astype(float) * 2, 220))
    return np.dstack([probability_colours(values), opacity.astype(np.uint8)])


def _pixels(geometry: shapely.Geometry, grid: Grid) -> npt.NDArray[np.float64]:
    """Return the columns and rows, (N, 2), of the points of a geometry."""
    x, y = shapely.get_coordinates(geometry).T
    return np.stack(~grid.transform @ (x, y), axis=1)


def _path(geometry: shapely.Geometry, grid: Grid) -> str:
    """Return the path of a polygon in SVG, relative, in pixels of the scene: its corners are corners of pixels."""
    parts = []
    for ring in shapely.get_rings(shapely.get_parts(geometry)):
        corners = _pixels(ring, grid).round().astype(int)
        steps = " ".join(f"{column} {row}" for column, row in np.diff(corners, axis=0)[:-1].tolist())
        parts.append(f"M{corners[0, 0]} {corners[0, 1]}l{steps}z")
    return "".join(parts)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
