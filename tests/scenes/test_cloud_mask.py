"""Clouds found by ukis-csmask on real scenes, clear and cloudy."""

import sys

import numpy as np
import pytest

from landslide.errors import ConfigurationError, DataError
from landslide.scenes import cloud_mask
from landslide.scenes.exclusions import ExclusionSettings, cloud_source
from landslide.scenes.reader import SceneReader
from landslide.scenes.reasons import Reason
from landslide.scenes.scene import open_scene
from tests.support.sentinel2 import sentinel2_folder

CSMASK = ExclusionSettings(clouds="csmask")


@pytest.fixture
def scene(real_data):
    folder = sentinel2_folder(real_data) / "l1c-stack-with-dem"

    def of(date, **options):
        options = {"quantification": 1, "offset": 0, "level": "L1C"} | options
        return open_scene(folder / f"eolearn_S2L1C_{date}.tif", **options)

    return of


def read(scene, **options):
    with SceneReader(scene, ["B4"], CSMASK, **options) as reader:
        return reader.read(0, scene.grid.height)[1]


def test_a_clear_and_a_cloudy_date(scene, tmp_path, monkeypatch):
    pytest.importorskip("ukis_csmask", reason="the extra clouds is not installed")
    assert not read(scene("2015-07-11")).any()
    monkeypatch.setattr(cloud_mask, "_ROWS", 20)  # several blocks
    reasons = read(scene("2015-08-20"), work_folder=tmp_path)
    assert (reasons == Reason.CLOUD).all()
    (found,) = tmp_path.iterdir()
    before = found.stat().st_mtime_ns
    assert (read(scene("2015-08-20"), work_folder=tmp_path) == reasons).all()
    assert found.stat().st_mtime_ns == before
    assert cloud_source(scene("2015-08-20"), CSMASK) == "ukis-csmask"


def test_scenes_that_it_cannot_use(scene):
    pytest.importorskip("ukis_csmask", reason="the extra clouds is not installed")
    with pytest.raises(ConfigurationError, match="unknown level") as error:
        read(scene("2015-07-11", level=None))
    assert "--level" in error.value.remedy
    names = ["-", "-", "-", "B4", *["-"] * 9]
    with pytest.raises(DataError, match="no band B2, B3, B8, which --clouds csmask needs"):
        read(scene("2015-07-11", bands=names))


def test_missing_package_names_the_extra(scene, monkeypatch):
    for name in ("ukis_csmask", "ukis_csmask.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match="ukis-csmask, which is not installed") as error:
        read(scene("2015-07-11"))
    assert "[clouds]" in error.value.remedy


def test_means_leave_out_what_has_no_value():
    values = np.array([[[1, 2, 3, 10], [4, np.nan, 6, 20], [7, 8, 9, 30], [np.nan, np.nan, np.nan, 5]]], np.float32)
    means = cloud_mask._means(values)
    assert means.shape == (2, 2, 1)
    assert means[..., 0].tolist() == [[5, 20], [0, 5]]
