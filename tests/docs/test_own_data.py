"""The script of docs/how-to/use-your-own-data.md cuts real rasters into patches that pass the check."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.transform import from_origin

from landslide.data.check import check
from landslide.data.patches import read_mask, read_stored

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/use-your-own-data.md"
BANDS = ("B4", "B3", "B2")


def cut(monkeypatch, *arguments: Path) -> None:
    """Run the script as it stands in the page."""
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["cut.py", *map(str, arguments)])
    exec(compile(script, str(PAGE), "exec"), {"__name__": "__main__"})


def write_raster(path: Path, values: np.ndarray, west: float = 500_000.0) -> Path:
    """Write (C, H, W) as a GeoTIFF of 10 m pixels; 0 is no data in images."""
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    place = {"crs": "EPSG:32645", "transform": from_origin(west, 3_100_000.0, 10.0, 10.0)}
    with rasterio.open(path, "w", nodata=0 if count > 1 else None, **profile, **place) as file:
        file.write(values)
    return path


@pytest.fixture
def scenes(tmp_path) -> list[tuple[Path, Path, np.ndarray, np.ndarray]]:
    """Two scenes of 2 x 2 and 1 x 3 whole tiles; the first has a tile without data."""
    rng, found = np.random.default_rng(0), []
    for name, (height, width) in {"north": (300, 260), "south": (128, 390)}.items():
        image = rng.integers(1, 255, (3, height, width), dtype=np.uint8)
        mask = (rng.random((1, height, width)) < 0.1).astype(np.uint8)
        if name == "north":
            image[:, 200:230, 5:9] = 0
        paths = [write_raster(tmp_path / f"{name}{kind}.tif", v) for kind, v in (("", image), ("_mask", mask))]
        found.append((*paths, image, mask))
    return found


def test_rasters_become_patches_with_positions(scenes, tmp_path, monkeypatch):
    cut(monkeypatch, tmp_path / "set", *(path for scene in scenes for path in scene[:2]))
    report = check(tmp_path / "set", bands=BANDS)
    assert report.ok, report.render()
    positions = pd.read_csv(tmp_path / "set/scenes.csv")
    assert positions[["scene", "row", "column"]].to_numpy().tolist() == [
        [1, 0, 0], [1, 0, 1], [1, 1, 1], [2, 0, 0], [2, 0, 1], [2, 0, 2],
    ]  # fmt: skip
    for n, scene, row, column in positions.itertuples(index=False):
        tile = (slice(128 * row, 128 * (row + 1)), slice(128 * column, 128 * (column + 1)))
        _, _, image, mask = scenes[scene - 1]
        np.testing.assert_array_equal(
            read_stored(tmp_path / f"set/TrainData/img/image_{n}.h5", 3), image[:, *tile].transpose(1, 2, 0)
        )
        np.testing.assert_array_equal(read_mask(tmp_path / f"set/TrainData/mask/mask_{n}.h5"), mask[0][tile])


def test_a_mask_on_another_grid_is_refused(scenes, tmp_path, monkeypatch):
    raster, _, _, mask = scenes[0]
    shifted = write_raster(tmp_path / "shifted.tif", mask, west=500_010.0)
    with pytest.raises(SystemExit, match="another grid"):
        cut(monkeypatch, tmp_path / "set", raster, shifted)


def test_a_mask_of_other_values_is_refused(scenes, tmp_path, monkeypatch):
    raster, _, _, mask = scenes[0]
    bright = write_raster(tmp_path / "bright.tif", 255 * mask)
    with pytest.raises(SystemExit, match="has the value 255"):
        cut(monkeypatch, tmp_path / "set", raster, bright)


def test_odd_arguments_and_a_second_call_are_refused(scenes, tmp_path, monkeypatch):
    paths = [path for scene in scenes for path in scene[:2]]
    for wrong in ([], paths[:1], paths[:3]):
        with pytest.raises(SystemExit, match="Give DIR, then a raster, its mask"):
            cut(monkeypatch, tmp_path / "set", *wrong)
    assert not (tmp_path / "set").exists()
    cut(monkeypatch, tmp_path / "set", *paths[:2])
    with pytest.raises(SystemExit, match="set exists; give a new folder"):
        cut(monkeypatch, tmp_path / "set", *paths[:2])
