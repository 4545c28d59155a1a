"""GDAL's cache, and rows in blocks."""

import numpy as np
import rasterio.env

from landslide.mapping.rasters import gdal_environment
from landslide.mapping.row_blocks import RowBlocks


def test_cache_has_room_for_the_tiles_of_a_scene():
    """One row of tiles of a product is about 170 MB; without room for it each read decodes all tiles again."""
    with gdal_environment():
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == 256 * 2**20


def test_row_blocks_compute_each_block_once_in_order():
    computed = []

    def compute(start, stop):
        computed.append((start, stop))
        return np.arange(start, stop)[None, :, None] + np.zeros((2, 1, 3), int)

    rows = RowBlocks(compute, 23, block=10)
    for start, stop in ((0, 4), (4, 12), (8, 11), (12, 23), (9, 10)):
        assert (rows.read(start, stop) == np.arange(start, stop)[None, :, None]).all()
        assert rows.read(start, stop).shape == (2, stop - start, 3)
    assert computed == [(0, 10), (10, 20), (20, 23), (0, 10)]
