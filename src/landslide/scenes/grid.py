"""The pixel grid of a scene: coordinate reference system, transform, size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from pyproj import Geod, Transformer
from rasterio.crs import CRS
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

Floats = npt.NDArray[Any]

WGS84 = Geod(ellps="WGS84")
_LONGITUDE_LATITUDE = "OGC:CRS84"
_DECIMALS = 7  # of a degree: 1 cm
_STEPS = 16  # points along an edge of the footprint, which is curved in longitude and latitude


def continuous(longitude: Floats, axes: Sequence[int] = (0,)) -> Floats:
    """Let longitudes go on above 180 degrees where they jump to -180 along an axis.

    Args:
        longitude: Degrees, float64.
        axes: Along which axes neighbours lie beside each other.

    Returns:
        Longitudes of the same places; the smallest one is from -180 to 180.
    """
    for axis in axes:
        longitude = np.unwrap(longitude, period=360, axis=axis)
    return np.asarray(longitude - 360 * np.floor((longitude.min() + 180) / 360))


@dataclass(frozen=True)
class Grid:
    """Rows from north to south, columns from west to east, without rotation.

    Attributes:
        crs: Coordinate reference system, projected or geographic.
        transform: From (column, row), counted from the outer corner of the first pixel, to (x, y).
        width: Columns.
        height: Rows.
    """

    crs: CRS
    transform: Affine
    width: int
    height: int

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, in units of the reference system."""
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (self.width, self.height)
        return left, bottom, right, top

    @cached_property
    def pixel_size(self) -> tuple[float, float]:
        """Width and height of the central pixel in metres, along geodesics."""
        column, row = self.width / 2, self.height / 2
        corners = [self.transform @ point for point in ((column, row), (column + 1, row), (column, row + 1))]
        lonlat = Transformer.from_crs(self.crs, _LONGITUDE_LATITUDE, always_xy=True)
        here, right, below = (lonlat.transform(x, y) for x, y in corners)
        return WGS84.inv(*here, *right)[2], WGS84.inv(*here, *below)[2]

    @cached_property
    def footprint(self) -> Polygon:
        """The outline as a polygon in longitude and latitude (WGS 84); across 180 degrees, longitude goes on above."""
        edges = [i / _STEPS for i in range(_STEPS)]
        ring = (
            [(t, 0.0) for t in edges]
            + [(1.0, t) for t in edges]
            + [(1.0 - t, 1.0) for t in edges]
            + [(0.0, 1.0 - t) for t in edges]
        )
        lonlat = Transformer.from_crs(self.crs, _LONGITUDE_LATITUDE, always_xy=True)
        points = [self.transform @ (column * self.width, row * self.height) for column, row in ring]
        longitude, latitude = lonlat.transform(*np.transpose(points))
        return Polygon(np.column_stack([continuous(longitude), latitude]))

    @property
    def geojson_outline(self) -> tuple[BaseGeometry, list[float]]:
        """The footprint and its west, south, east, north by RFC 7946: cut at 180 degrees, where east is below west."""
        rounded = shapely.transform(self.footprint, lambda points: points.round(_DECIMALS))
        west, south, east, north = rounded.bounds
        if east <= 180:
            return shapely.orient_polygons(rounded), [west, south, east, north]
        near = shapely.clip_by_rect(rounded, -180, -90, 180, 90)
        beyond = shapely.clip_by_rect(rounded, 180, -90, 540, 90)
        beyond = shapely.transform(beyond, lambda points: (points - (360, 0)).round(_DECIMALS))
        parts = shapely.orient_polygons(shapely.multipolygons(shapely.get_parts([near, beyond])))
        return parts, [west, south, round(east - 360, _DECIMALS), north]

    def rows(self, start: int, stop: int) -> "Grid":
        """Return the grid of rows `start` to `stop`."""
        return Grid(self.crs, self.transform @ Affine.translation(0, start), self.width, stop - start)

    def same_pixels(self, other: "Grid") -> bool:
        """Whether both grids have the same reference system, size and corners, to a hundredth of a pixel."""
        if (self.crs, self.width, self.height) != (other.crs, other.width, other.height):
            return False
        near = 0.01 * min(abs(self.transform.a), abs(self.transform.e))
        return all(math.isclose(a, b, abs_tol=near, rel_tol=0) for a, b in zip(self.bounds, other.bounds, strict=True))
