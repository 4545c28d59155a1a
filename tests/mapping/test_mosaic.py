"""The blended prediction of a scene, with random networks on random rows of bands."""

import os

import numpy as np
import pytest
import torch

from landslide.bands.formulas import BandSettings
from landslide.inference.ensemble import Ensemble
from landslide.mapping.model import MapModel
from landslide.mapping.mosaic import Mosaic, Windows
from landslide.products.raw_files import NO_DATA, RAW_TYPES, SCALE, read_rows
from landslide.scenes.reasons import Reason
from landslide.schema import STORED_DIVISORS
from tests.support import versions

pytestmark = pytest.mark.slow

BANDS = ("B4", "gray", "slope")  # gray is scaled by its window
NEEDED = ("B2", "B3", "B4", "slope")


class InterruptedPredictionError(Exception):
    pass


class ArrayRows:
    """Rows of an array, with the pixels of `reasons` left out; counts what was read."""

    def __init__(self, values, reasons):
        self.values, self.reasons, self.rows_read = values, reasons, 0

    def read(self, start, stop):
        self.rows_read += stop - start
        return self.values[:, start:stop].copy(), self.reasons[start:stop].copy()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MapModel:
    members = versions.members(tmp_path_factory.mktemp("members"), bands=BANDS)
    return MapModel(Ensemble(members, BandSettings(), torch.device("cpu")), "model", "", "", "")


def scene(height=301, width=270, seed=0):
    noise = np.random.default_rng(seed)
    smooth = noise.uniform(100, 2000, (4, height // 8 + 1, width // 8 + 1)).repeat(8, 1).repeat(8, 2)
    values = smooth[:, :height, :width] + noise.uniform(0, 50, (4, height, width))
    values[:3] /= 10_000
    values[3] /= 50
    return values.astype(np.float32), np.zeros((height, width), np.uint8)


def predict(folder, model, values, reasons, *, overlap=0.5, workers=2, **options):
    folder.mkdir(exist_ok=True)
    windows = Windows(*reasons.shape, overlap)
    mosaic = Mosaic(folder, windows, options.pop("min_valid", 0.1))
    source = options.pop("source", None) or ArrayRows(values, reasons)
    mosaic.predict(model.ensemble, source, model.to_stored, workers=workers, **options)
    return {name: read_rows(folder, name, slice(0, len(reasons)), reasons.shape[1]) for name in RAW_TYPES}


def test_the_model_names_the_bands_that_its_networks_need(model):
    assert model.bands == NEEDED
    stored = model.to_stored(np.full((2, 4, 3, 3), 0.05, np.float32))
    assert stored.shape == (2, 14, 3, 3)
    assert stored[0, 1, 0, 0] == 500 / STORED_DIVISORS["B2"]
    assert not stored[:, 0].any()  # B1 is not needed


def test_windows_without_overlap_equal_patches_predicted_one_by_one(model, tmp_path):
    values, reasons = scene(256, 384)
    found = predict(tmp_path, model, values, reasons, overlap=0)
    for row in range(0, 256, 128):
        for column in range(0, 384, 128):
            part = np.s_[row : row + 128, column : column + 128]
            mean, std = model.ensemble.predict(model.to_stored(values[None, :, *part]))
            np.testing.assert_allclose(found["probability"][part] * SCALE, mean[0], atol=2 * SCALE)
            np.testing.assert_allclose(found["uncertainty"][part] * SCALE, std[0], atol=2 * SCALE)


def test_overlapping_windows_are_averaged_with_a_taper(model, tmp_path):
    values, reasons = scene(128, 192)
    found = predict(tmp_path, model, values, reasons)
    left, right = (
        model.ensemble.predict(model.to_stored(values[None, :, :, x : x + 128]))[0][0].astype(float) for x in (0, 64)
    )
    x = np.arange(64)
    falling, rising = np.cos(np.pi * (x + 0.5) / 128) ** 2, np.sin(np.pi * (x + 0.5) / 128) ** 2
    expected = np.concatenate([left[:, :64], left[:, 64:] * falling + right[:, :64] * rising, right[:, 64:]], axis=1)
    np.testing.assert_allclose(found["probability"] * SCALE, expected, atol=2 * SCALE)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_is_equal_to_the_bit_for_any_number_of_workers(model, tmp_path, workers):
    values, reasons = scene()
    reasons[40:90, 30:200] = Reason.CLOUD
    expected = predict(tmp_path / "two", model, values, reasons)
    found = predict(tmp_path / "other", model, values, reasons, workers=workers)
    for name in RAW_TYPES:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("after", [1, 2, 4])
def test_an_interrupted_prediction_continues_with_the_same_result(model, tmp_path, after):
    values, reasons = scene()
    reasons[100:160, 100:160] = Reason.NO_DATA
    expected = predict(tmp_path / "whole", model, values, reasons)
    rows = []

    def interrupt(_windows):
        rows.append(1)
        if len(rows) == after:
            raise InterruptedPredictionError

    with pytest.raises(InterruptedPredictionError):
        predict(tmp_path / "broken", model, values, reasons, progress=interrupt, save_every=0)
    with (tmp_path / "broken" / "probability.raw").open("ab") as file:
        file.write(b"a row that was written, and not recorded")
    source = ArrayRows(values, reasons)
    found = predict(tmp_path / "broken", model, values, reasons, source=source, progress=rows.append)
    for name in RAW_TYPES:
        np.testing.assert_array_equal(found[name], expected[name])
    assert source.rows_read < 301 or after == 1


@pytest.mark.parametrize("name", RAW_TYPES)
@pytest.mark.parametrize("left", [0, 0.9, None], ids=["empty", "short", "gone"])
def test_raw_files_that_were_lost_are_predicted_again(model, tmp_path, name, left):
    values, reasons = scene(140, 128)
    expected = {raw: array.copy() for raw, array in predict(tmp_path, model, values, reasons).items()}
    path = tmp_path / f"{name}.raw"
    if left is None:
        path.unlink()
    else:
        os.truncate(path, int(left * path.stat().st_size))
    assert Mosaic(tmp_path, Windows(140, 128, 0.5), 0.1).rows_done == 0
    found = predict(tmp_path, model, values, reasons)
    for raw in RAW_TYPES:
        np.testing.assert_array_equal(found[raw], expected[raw])


def test_a_finished_prediction_reads_nothing_again(model, tmp_path):
    values, reasons = scene(128, 128)
    expected = predict(tmp_path, model, values, reasons)
    source = ArrayRows(values, reasons)
    found = predict(tmp_path, model, values, reasons, source=source)
    assert source.rows_read == 0
    np.testing.assert_array_equal(found["probability"], expected["probability"])


def test_pixels_that_are_not_analysed_do_not_change_the_others_statistics(model, tmp_path):
    values, reasons = scene(128, 128)
    reasons[:20] = Reason.CLOUD
    bright = values.copy()
    bright[:, :20] = 1.5
    expected = predict(tmp_path / "dark", model, values, reasons)
    found = predict(tmp_path / "bright", model, bright, reasons)
    np.testing.assert_array_equal(found["probability"], expected["probability"])
    assert (found["probability"][:20] == NO_DATA).all()
    assert (found["probability"][20:] <= 10_000).all()
    assert (found["reasons"] == reasons).all()


def test_windows_with_too_few_valid_pixels_are_left_out_and_named(model, tmp_path):
    values, reasons = scene(128, 384)
    reasons[:, :256] = Reason.CLOUD
    reasons[:8, :8] = Reason.ANALYSED
    found = predict(tmp_path, model, values, reasons)
    assert (found["reasons"][:8, :8] == Reason.TOO_LITTLE_VALID).all()
    assert (found["probability"][:, :256] == NO_DATA).all()
    assert (found["probability"][:, 256:] <= 10_000).all()
    assert found["reasons"][50, 50] == Reason.CLOUD


def test_a_scene_smaller_than_a_patch_is_predicted_by_smaller_windows(model, tmp_path):
    values, reasons = scene(100, 101)
    found = predict(tmp_path, model, values, reasons)
    mean, _ = model.ensemble.predict(model.to_stored(values[None, :, :96, :96]))
    assert Windows(100, 101, 0.5).side == 96
    np.testing.assert_allclose(found["probability"][0, 0] * SCALE, mean[0, 0, 0], atol=2 * SCALE)


def test_an_empty_scene_has_no_result(model, tmp_path):
    values, reasons = scene(140, 130)
    reasons[:] = Reason.NO_DATA
    found = predict(tmp_path, model, values, reasons)
    assert (found["probability"] == NO_DATA).all()
    assert (found["reasons"] == Reason.NO_DATA).all()
