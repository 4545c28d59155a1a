"""GDAL's cache, and rows in blocks."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.env
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window

from landslide.products.geotiff import write_rasters
from landslide.products.raw_files import RAW_TYPES
from landslide.scenes import rasters
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import cache_for_rows, gdal_environment, tiles_of_rows, writing
from landslide.scenes.reader import SceneReader
from landslide.scenes.row_blocks import RowBlocks
from landslide.scenes.scene import open_scene
from landslide.scenes.terrain import prepare_terrain
from tests.support.full_disk import files_limited

GRID = Grid(CRS.from_epsg(32645), Affine(10, 0, 400_000, 0, -10, 3_100_000), 600, 600)


BANDS = ("B2", "B3", "B4")
TILES = {
    "tiles, all bands in each": {"tiled": True, "blockxsize": 64, "blockysize": 128, "interleave": "pixel"},
    "tiles of one band": {"tiled": True, "blockxsize": 64, "blockysize": 128, "interleave": "band"},
    "tiles that end between the rows that are read": {"tiled": True, "blockxsize": 64, "blockysize": 48},
    "strips": {"blockysize": 7, "interleave": "pixel"},
    "with a mask": {"tiled": True, "blockxsize": 64, "blockysize": 128, "interleave": "band"},
}


@pytest.mark.parametrize("step", [64, 96, 128])
@pytest.mark.parametrize("tiles", TILES)
def test_cache_is_as_large_as_each_tile_is_decoded_once(tmp_path, monkeypatch, tiles, step):
    """A tile that has left the cache is read from the file again."""
    monkeypatch.setattr(rasters, "_CACHE_BESIDE", 50_000)
    values = np.random.default_rng(0).integers(1, 9_000, (3, GRID.height, GRID.width), np.uint16)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, "crs": GRID.crs, "transform": GRID.transform}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        tmp_path / "scene.tif", "w", width=GRID.width, height=GRID.height, **profile, **TILES[tiles]
    ) as f:  # fmt: skip
        f.write(values)
        if tiles == "with a mask":
            f.write_mask(np.full(values.shape[1:], 255, np.uint8))
    scene = open_scene(tmp_path / "scene.tif", bands=BANDS, quantification=10_000, offset=0)
    with SceneReader(scene, BANDS, ExclusionSettings(clouds="none")) as reader:
        cache = rasterio.env.get_gdal_config("GDAL_CACHEMAX")
        before = bytes_read()
        for start in range(0, GRID.height, step):
            reader.read(start, min(start + step, GRID.height))
        once = (bytes_read() - before) / (tmp_path / "scene.tif").stat().st_size
    assert once == pytest.approx(1, abs=0.15)
    assert cache < 0.4 * values.nbytes, "the file fits into the cache"


def test_a_mosaic_of_other_rasters_gets_all_of_the_cache(tmp_path):
    """Its blocks are not the tiles of the rasters, which are what is decoded."""
    with rasterio.open(
        tmp_path / "tile.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16",
        crs=GRID.crs, transform=GRID.transform,
    ) as f:  # fmt: skip
        f.write(np.ones((1, 64, 64), np.uint16))
    rasterio.shutil.copy(tmp_path / "tile.tif", tmp_path / "mosaic.vrt", driver="VRT")
    with rasterio.open(tmp_path / "mosaic.vrt") as mosaic, cache_for_rows(tiles_of_rows(mosaic, [1], 64)):
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == 256 * 2**20


def bytes_read():
    """Bytes that this process has read from files."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_cache_has_room_for_the_tiles_of_a_scene():
    """One row of tiles of a product is about 170 MB; without room for it each read decodes all tiles again."""
    with gdal_environment():
        assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == 256 * 2**20
        with cache_for_rows(170 * 2**20):
            assert rasterio.env.get_gdal_config("GDAL_CACHEMAX") == 202 * 2**20
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


@pytest.fixture
def elevation(tmp_path):
    """An elevation model of noise around the grid, whose terrain has more than a block per row."""
    values = np.random.default_rng(0).normal(1000, 30, (1, 640, 640)).astype(np.float32)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "width": 640, "height": 640, "crs": GRID.crs}
    with rasterio.open(
        tmp_path / "dem.tif", "w", transform=GRID.transform @ Affine.translation(-20, -20), **profile
    ) as f:
        f.write(values)
    return tmp_path / "dem.tif"


def test_terrain_that_does_not_fit_on_the_disk_gets_no_name(elevation, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    size = prepare_terrain([elevation], GRID, folder).path.stat().st_size
    (folder / "terrain.tif").unlink()
    for missing in (1, 5_000, 50_000, 200_000, 800_000, 2_000_000):
        with files_limited(size - missing), pytest.raises(OSError, match=r"terrain\.tif"):
            prepare_terrain([elevation], GRID, folder)
        assert not list(folder.iterdir())


def test_rasters_of_a_map_that_do_not_fit_on_the_disk_are_noticed(tmp_path):
    noise = np.random.default_rng(0)
    for name, dtype in RAW_TYPES.items():
        noise.integers(0, 5 if name == "reasons" else 10_000, (600, 600)).astype(dtype).tofile(tmp_path / f"{name}.raw")
    products = tmp_path / "products"
    products.mkdir()
    write_rasters(tmp_path, products, GRID, 0.5, {})
    size = (products / "probability.tif").stat().st_size
    for limit in (1_000, 300_000, size - 100_000, size - 1, size):
        with files_limited(limit), pytest.raises(OSError, match=r"probability\."):
            write_rasters(tmp_path, products, GRID, 0.5, {})


def test_the_remains_of_a_raster_that_was_cut_off_are_replaced(tmp_path):
    for name, dtype in RAW_TYPES.items():
        np.zeros((600, 600), dtype).tofile(tmp_path / f"{name}.raw")
    products = tmp_path / "products"
    products.mkdir()
    for path in (tmp_path / "probability.tiled.tif", products / "mask.tif"):
        path.write_bytes(b"II*\0" + (10**6).to_bytes(4, "little"))  # its directory would be beyond its end
    write_rasters(tmp_path, products, GRID, 0.5, {})
    with rasterio.open(products / "mask.tif") as mask:
        assert mask.shape == (600, 600)


def test_a_block_that_was_never_written_is_noticed(tmp_path):
    path = tmp_path / "raster.tif"

    def write(rows):
        with writing(path), rasterio.open(
            path, "w", driver="GTiff", width=512, height=512, count=1, dtype="uint8", tiled=True, sparse_ok=True,
            crs=GRID.crs, transform=GRID.transform,
        ) as file:  # fmt: skip
            file.write(np.ones((1, rows, 512), np.uint8), window=Window(0, 0, 512, rows))

    write(512)
    with pytest.raises(OSError, match=r"raster\.tif is cut off"):
        write(256)
