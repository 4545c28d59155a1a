"""Interpolation compared with GDAL's warper."""

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from landslide.scenes.grid import Grid
from landslide.scenes.resampling import any_neighbour, axes, bilinear, nearest

UTM = CRS.from_epsg(32633)
GRID = Grid(UTM, Affine(10, 0, 330_000, 0, -10, 5_800_000), 61, 53)


@pytest.mark.parametrize("pixels", [2, 6, 3, 1.7])
@pytest.mark.parametrize("shift", [0, -4])
@pytest.mark.parametrize(("function", "method"), [(bilinear, Resampling.bilinear), (nearest, Resampling.nearest)])
def test_same_values_as_the_warper(pixels, shift, function, method):
    transform = GRID.transform @ Affine.translation(shift, shift / 2) @ Affine.scale(pixels)
    height, width = (int(np.ceil((size + 4) / pixels)) for size in (GRID.height, GRID.width))
    values = np.random.default_rng(0).integers(1, 65535, (height, width)).astype(np.uint16)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": height, "width": width}
    with MemoryFile() as file:
        with file.open(crs=UTM, transform=transform, **profile) as dataset:
            dataset.write(values.astype(np.float32), 1)
        target = {"crs": UTM, "transform": GRID.transform, "width": GRID.width, "height": GRID.height}
        with file.open() as dataset, WarpedVRT(dataset, resampling=method, tolerance=1e-6, **target) as warped:
            expected = warped.read(1)
    actual = function(values, *axes(transform, values.shape, GRID))
    assert actual.shape == (GRID.height, GRID.width)
    assert np.abs(actual - expected).max() < (0.1 if function is bilinear else 1e-9)


def test_own_grid_is_the_identity_and_parts_are_equal_to_the_whole():
    values = np.random.default_rng(1).random((53, 61)).astype(np.float32)
    rows, columns = axes(GRID.transform, values.shape, GRID)
    assert (bilinear(values, rows, columns) == values).all()
    coarse = values[:27, :31]
    rows, columns = axes(GRID.transform @ Affine.scale(2), coarse.shape, GRID)
    whole = bilinear(coarse, rows, columns)
    for row in range(GRID.height):
        first, last, part = rows[row : row + 1].from_start()
        assert (bilinear(coarse[first : last + 1], part, columns)[0] == whole[row]).all()


def test_any_neighbour_marks_exactly_the_pixels_that_change_with_a_value():
    values = np.zeros((27, 31), np.float32)
    rows, columns = axes(GRID.transform @ Affine.scale(2), values.shape, GRID)
    mask = np.zeros(values.shape, bool)
    mask[10, 12] = mask[0, 0] = mask[26, 30] = True
    values[mask] = 1
    assert (any_neighbour(mask, rows, columns) == (bilinear(values, rows, columns) > 0)).all()
