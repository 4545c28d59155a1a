"""Attributes of landslides that come from pixels: probability, elevation, slope, aspect, position at an edge.

The scene is read block by block, and only where landslides are; a landslide in several blocks is summed over them.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.features import rasterize
from rasterio.windows import Window

from landslide.products.terrain_samples import TERRAIN_BANDS, TerrainSamples
from landslide.scenes.grid import WGS84, Grid

_BLOCK = 512  # pixels a side
_NOT_ANALYSED = 255

Array = npt.NDArray[Any]


def pixel_attributes(geometries: Array, grid: Grid, folder: Path, terrain: Path | None) -> dict[str, Array]:
    """Compute the attributes of polygons that come from the pixels inside them.

    Args:
        geometries: (N,) valid polygons along the edges of pixels, none of which overlap.
        grid: The grid of the rasters.
        folder: The folder with mask.tif, probability.tif and uncertainty.tif.
        terrain: terrain.tif with the bands elevation (m), slope (degrees), gradient_east and gradient_north (rise per
            metre), on any grid, sampled bilinearly. None if there is no elevation.

    Returns:
        (N,) arrays by the name of the column; NaN where there is no elevation, no slope to point downwards, or no
        distance between the highest and the lowest pixel.
    """
    n = len(geometries)
    summed = ("pixels", "probability", "uncertainty", "heights", "elevation", "slopes", "slope", "east", "north")
    sums = {name: np.zeros(n) for name in summed}
    largest = {name: np.full(n, np.nan) for name in ("probability", "slope")}
    lowest, highest = (np.full((3, n), np.nan) for _ in range(2))  # elevation, row, column
    at_edge = np.zeros(n, bool)
    for polygon, values in _pixels(geometries, grid, folder, terrain):
        values |= _downslope(values["gradient_east"], values["gradient_north"])
        values |= {"pixels": np.ones(len(polygon))}
        values |= {"heights": np.isfinite(values["elevation"]), "slopes": np.isfinite(values["slope"])}
        for name, total in sums.items():
            total += np.bincount(polygon, np.nan_to_num(values[name]), minlength=n)
        for name, maximum in largest.items():
            np.fmax.at(maximum, polygon, values[name])
        at_edge[polygon[values["at_edge"]]] = True
        place = np.stack([values["elevation"], values["row"], values["column"]])
        _update_extreme(lowest, polygon, place, 1)
        _update_extreme(highest, polygon, place, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        relief, runout = highest[0] - lowest[0], _distance(highest[1:], lowest[1:], grid)
        directed = np.hypot(sums["east"], sums["north"]) > 1e-6 * sums["pixels"]
        aspect = np.degrees(np.arctan2(sums["east"], sums["north"])) % 360
        return {
            "elev_min": lowest[0],
            "elev_max": highest[0],
            "elev_mean": sums["elevation"] / sums["heights"],
            "relief_m": relief,
            "slope_mean": sums["slope"] / sums["slopes"],
            "slope_max": largest["slope"],
            "aspect_mean": np.where(directed, aspect, np.nan),
            "runout_m": runout,
            "h_over_l": np.where(runout > 0, relief / runout, np.nan),
            "prob_mean": sums["probability"] / sums["pixels"],
            "prob_max": largest["probability"],
            "std_mean": sums["uncertainty"] / sums["pixels"],
            "at_edge": at_edge,
        }


def _pixels(
    geometries: Array, grid: Grid, folder: Path, terrain: Path | None
) -> Iterator[tuple[npt.NDArray[np.int64], dict[str, Array]]]:
    """Yield, block by block, the pixels inside polygons: the index of the polygon of each, and its values by name."""
    tree = shapely.STRtree(geometries)
    with (
        rasterio.open(folder / "mask.tif") as mask,
        rasterio.open(folder / "probability.tif") as probability,
        rasterio.open(folder / "uncertainty.tif") as uncertainty,
        TerrainSamples(terrain, grid) if terrain else nullcontext() as heights,
    ):
        for block in _blocks(grid):
            transform = grid.transform @ Affine.translation(block.col_off, block.row_off)
            bounds = Grid(grid.crs, transform, block.width, block.height).bounds
            inside = tree.query(shapely.box(*bounds))
            clipped = zip(shapely.clip_by_rect(geometries[inside], *bounds), inside, strict=True)
            burnt = [(shape, index + 1) for shape, index in clipped if shape.area > 0]
            if not burnt:
                continue
            labels = rasterize(burnt, (block.height, block.width), transform=transform, dtype="int32")
            rows, columns = np.nonzero(labels)
            window = Window(
                block.col_off + columns.min(), block.row_off + rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
            )
            at = rows - rows.min(), columns - columns.min()
            values = {
                "probability": _scaled(probability, window, at),
                "uncertainty": _scaled(uncertainty, window, at),
                "at_edge": _beside_not_analysed(mask, window)[at],
                "row": rows + block.row_off,
                "column": columns + block.col_off,
            }
            if heights is None:
                values |= dict.fromkeys(TERRAIN_BANDS, np.full(len(rows), np.nan))
            else:
                values |= heights.sample(values["row"], values["column"])
            yield labels[rows, columns] - np.int64(1), values


def _blocks(grid: Grid) -> Iterator[Window]:
    for top in range(0, grid.height, _BLOCK):
        for left in range(0, grid.width, _BLOCK):
            yield Window(left, top, min(_BLOCK, grid.width - left), min(_BLOCK, grid.height - top))


def _scaled(dataset: Any, window: Window, at: tuple[Array, Array]) -> Array:
    """Return the pixels `at` (rows, columns) of a window in their physical unit, NaN where there is no data."""
    stored = dataset.read(1, window=window)[at]
    return np.where(stored == dataset.nodata, np.nan, stored * dataset.scales[0] + dataset.offsets[0])


def _beside_not_analysed(mask: Any, window: Window) -> npt.NDArray[np.bool_]:
    """Return which pixels of a window touch the edge of the scene or a pixel that is not analysed."""
    top, left = max(window.row_off - 1, 0), max(window.col_off - 1, 0)
    bottom = min(window.row_off + window.height + 1, mask.height)
    right = min(window.col_off + window.width + 1, mask.width)
    values = mask.read(1, window=Window(left, top, right - left, bottom - top))
    excluded = np.ones((window.height + 2, window.width + 2), np.uint8)
    row, column = top - window.row_off + 1, left - window.col_off + 1
    excluded[row : row + values.shape[0], column : column + values.shape[1]] = values == _NOT_ANALYSED
    return np.asarray(cv2.dilate(excluded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0)


def _downslope(gradient_east: Array, gradient_north: Array) -> dict[str, Array]:
    """Return the direction downwards as unit vectors, zero on flat ground."""
    steepness = np.hypot(gradient_east, gradient_north)
    steepness = np.where(steepness > 0, steepness, np.inf)
    return {"east": -gradient_east / steepness, "north": -gradient_north / steepness}


def _update_extreme(extreme: Array, polygon: npt.NDArray[np.int64], place: Array, sign: int) -> None:
    """Put the lowest (sign 1) or highest (-1) pixels of a block into `extreme`, if they exceed what is there.

    Args:
        extreme: (3, N) elevation, row and column per polygon, NaN where none is known; changed in place.
        polygon: (P,) index of the polygon of each pixel.
        place: (3, P) elevation, row and column of each pixel; the first in reading order wins if several are equal.
        sign: 1 or -1.
    """
    known = np.isfinite(place[0])
    polygon, place = polygon[known], place[:, known]
    order = np.lexsort((place[2], place[1], sign * place[0]))
    found, first = np.unique(polygon[order], return_index=True)
    best = place[:, order[first]]
    exceeds = ~(sign * best[0] >= sign * extreme[0, found])  # also if nothing is known yet
    extreme[:, found[exceeds]] = best[:, exceeds]


def _distance(one: Array, other: Array, grid: Grid) -> Array:
    """Return geodesic distances in metres between the centres of pixels, both (2, N) rows and columns."""
    transformer = Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)
    points = [transformer.transform(*(grid.transform @ (p[1] + 0.5, p[0] + 0.5))) for p in (one, other)]
    distances = WGS84.inv(*points[0], *points[1])[2]
    return np.where(np.isfinite(one[0]), distances, np.nan)
