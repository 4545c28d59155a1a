"""An ensemble on disk: raw patches in, mean and standard deviation out, the same after saving and loading."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache
from landslide.bands.formulas import BAND_NAMES, BandSettings, engineer
from landslide.data import demo
from landslide.data.patches import read_stored
from landslide.data.table import patch_table
from landslide.errors import DataError, PredictionError, RegistryError
from landslide.inference.ensemble import Ensemble, Member, load_ensemble, load_members, save_ensemble
from landslide.inference.prediction import PredictionSettings, ensemble_probability, landslide_probability
from landslide.models import ModelSpec, build_model
from tests.support.predictions import predict_rows

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = BandSettings()
BANDS = ("gradient_y", "B4", "gradient_x", "slope")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("ensemble") / "data"
    demo.generate(root, scenes=((1, 3),))
    return root


@pytest.fixture(scope="module")
def cache(data) -> BandCache:
    return ensure_cache(data.parent / "caches", data, patch_table(data), "demo", SETTINGS)


@pytest.fixture(scope="module")
def raw(data) -> np.ndarray:
    """(3, 14, 128, 128) float64, as stored."""
    return np.stack([read_stored(data / image).transpose(2, 0, 1) for image in patch_table(data)["image"]])


def build_member(folder: Path, fold: int, **spec) -> Member:
    specification = ModelSpec(name="unet", options={"width": 4}, bands=BANDS, **spec)
    torch.manual_seed(fold)
    model = build_model(specification)
    path = folder / f"fold-{fold}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return Member(fold, specification, 0.3 + 0.1 * fold, path)


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> list[Member]:
    folder = tmp_path_factory.mktemp("members")
    statistics = {"mean": (0.1, 1.0, 0.0, 1.2), "std": (0.5, 0.6, 0.1, 0.7)}
    return [build_member(folder, 1), build_member(folder, 2), build_member(folder, 3, **statistics)]


@pytest.fixture
def saved(members, tmp_path) -> Path:
    save_ensemble(tmp_path / "saved", members, SETTINGS)
    return tmp_path / "saved"


@pytest.fixture(scope="module")
def ensemble(members) -> Ensemble:
    return Ensemble(members, SETTINGS, CPU)


def test_a_loaded_ensemble_predicts_as_before_saving(ensemble, saved, members, raw):
    loaded = load_ensemble(saved, CPU)
    for before, after in zip(ensemble.predict(raw), loaded.predict(raw), strict=True):
        np.testing.assert_array_equal(before, after)
    assert loaded.settings == SETTINGS
    assert [(m.fold, m.spec, m.threshold) for m in loaded.members] == [(m.fold, m.spec, m.threshold) for m in members]
    assert loaded.threshold == pytest.approx(0.5)
    assert not any(model.training for model in loaded.models)


def test_a_saved_ensemble_is_self_contained(saved, tmp_path, raw, ensemble):
    moved = saved.rename(tmp_path / "moved")
    np.testing.assert_array_equal(load_ensemble(moved, CPU).predict(raw[:1])[0], ensemble.predict(raw[:1])[0])
    assert sorted(path.name for path in moved.iterdir()) == [
        "ensemble.json",
        "member-1.safetensors",
        "member-2.safetensors",
        "member-3.safetensors",
    ]


def test_band_settings_are_saved(members, tmp_path):
    settings = BandSettings(reflectance=True, median_kernel=5, dtype="float32")
    save_ensemble(tmp_path / "saved", members, settings)
    assert load_members(tmp_path / "saved")[1] == settings


def test_an_ensemble_is_not_written_over_another(members, saved):
    with pytest.raises(FileExistsError):
        save_ensemble(saved, members, SETTINGS)


def test_mean_and_population_standard_deviation_over_the_members(ensemble, members, raw):
    single = np.stack([Ensemble([member], SETTINGS, CPU).predict(raw)[0] for member in members]).astype(np.float64)
    probability, uncertainty = ensemble.predict(raw)
    assert single.std(axis=0).max() > 0.01, "members that agree would prove nothing"
    np.testing.assert_allclose(probability, single.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(uncertainty, single.std(axis=0, ddof=0), atol=1e-5)


def test_one_member_has_no_uncertainty(members, raw):
    _, uncertainty = Ensemble(members[:1], SETTINGS, CPU).predict(raw[:1])
    assert (uncertainty == 0).all()


def test_ensemble_probability_equals_the_mean_of_its_members():
    class Constant(torch.nn.Module):
        def __init__(self, probability: float) -> None:
            super().__init__()
            self.logit = torch.logit(torch.tensor(probability))

        def forward(self, x):
            return {"8": torch.stack([torch.zeros(len(x), 8, 8), self.logit.expand(len(x), 8, 8)], dim=1)}

    images = torch.zeros(2, 1, 8, 8)
    mean, std = ensemble_probability([Constant(0.2), Constant(0.8)], images)
    torch.testing.assert_close(mean, torch.full((2, 8, 8), 0.5))
    torch.testing.assert_close(std, torch.full((2, 8, 8), 0.3))
    torch.testing.assert_close(landslide_probability(Constant(0.2), images), torch.full((2, 8, 8), 0.2))


def test_raw_patches_and_cached_bands_give_equal_predictions(ensemble, cache, raw):
    rows = np.arange(len(raw))
    from_cache = [predict_rows(model, cache, rows, BANDS, device=CPU) for model in ensemble.models]
    np.testing.assert_allclose(ensemble.predict(raw)[0], np.mean(from_cache, axis=0), atol=1e-5)


def test_each_member_uses_its_prediction_settings(members, raw, cache):
    turning = PredictionSettings(heads="average", augmentation="rotations")
    mixed = Ensemble([members[0], replace(members[1], prediction=turning)], SETTINGS, CPU)
    rows = np.arange(len(raw))
    variants = (PredictionSettings(), turning)
    expected = [
        predict_rows(model, cache, rows, BANDS, device=CPU, prediction=variant)
        for model, variant in zip(mixed.models, variants, strict=True)
    ]
    plain = predict_rows(mixed.models[1], cache, rows, BANDS, device=CPU)
    assert np.abs(expected[1] - plain).max() > 0.01
    np.testing.assert_allclose(mixed.predict(raw)[0], np.mean(expected, axis=0), atol=1e-5)


def test_prediction_settings_of_a_member_are_saved(members, tmp_path):
    variant = PredictionSettings(augmentation="flips_and_rotations")
    save_ensemble(tmp_path / "saved", [replace(members[0], prediction=variant, detection_threshold=0.8)], SETTINGS)
    (loaded,), _ = load_members(tmp_path / "saved")
    assert (loaded.prediction, loaded.detection_threshold) == (variant, 0.8)


def test_an_older_model_predicts_as_published(saved, ensemble, raw):
    content = json.loads((saved / "ensemble.json").read_text())
    for member in content["members"]:
        del member["prediction"], member["detection_threshold"]
    (saved / "ensemble.json").write_text(json.dumps(content))
    loaded = load_ensemble(saved, CPU)
    assert {(m.prediction, m.detection_threshold) for m in loaded.members} == {(PredictionSettings(), None)}
    np.testing.assert_array_equal(loaded.predict(raw[:1])[0], ensemble.predict(raw[:1])[0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_the_batch_size_does_not_matter(ensemble, raw, batch_size):
    np.testing.assert_allclose(ensemble.predict(raw, batch_size)[0], ensemble.predict(raw)[0], atol=1e-5)


def test_large_batch_with_gaps_has_the_bands_of_its_patches(tmp_path, raw):
    bands = ("B4", "gray", "median", "gradient_x", "gradient_y")
    member = replace(build_member(tmp_path, 1), spec=ModelSpec(name="unet", options={"width": 4}, bands=bands))
    torch.manual_seed(1)
    weights = {name: tensor.contiguous() for name, tensor in build_model(member.spec).state_dict().items()}
    save_file(weights, member.weights)
    one = Ensemble([member], SETTINGS, CPU)
    shifts = np.random.default_rng(0).uniform(0.9, 1.1, (66, 1, 1, 1))  # 66: from 58 patches on, medians go together
    patches = shifts * np.concatenate([raw] * 22)
    patches[10, 3, :5] = np.nan
    computed, missing = one._computed(patches)
    names = SETTINGS.names
    for i in (0, 9, 10, 63, 64, 65):
        single, gaps = one._computed(patches[i : i + 1])
        np.testing.assert_array_equal(computed[i], single[0])
        np.testing.assert_array_equal(missing[i], gaps[0])
        if i != 10:
            expected = engineer(patches[i], SETTINGS)[[names.index(name) for name in bands]].astype(np.float16)
            np.testing.assert_array_equal(computed[i], expected)
    assert missing.sum() == missing[10, :5].size


def test_float64_and_float32_patches(ensemble, raw):
    probability, uncertainty = ensemble.predict(raw[:1])
    assert probability.dtype == uncertainty.dtype == np.float32
    assert probability.shape == uncertainty.shape == (1, 128, 128)
    assert ((probability >= 0) & (probability <= 1)).all()
    np.testing.assert_allclose(ensemble.predict(raw[:1].astype(np.float32))[0], probability, atol=0.02)


def test_another_patch_size_and_an_empty_batch(ensemble, raw):
    assert ensemble.predict(raw[:1, :, :64, :96])[0].shape == (1, 64, 96)
    assert ensemble.predict(raw[:0])[0].shape == (0, 128, 128)


def test_bands_are_selected_by_name(members, raw):
    image = engineer(raw[0], SETTINGS).astype(np.float16).astype(np.float32)
    inputs = torch.from_numpy(image[[BAND_NAMES.index(name) for name in BANDS]])[None]
    one = Ensemble(members[:1], SETTINGS, CPU)
    np.testing.assert_allclose(one.predict(raw[:1])[0], landslide_probability(one.models[0], inputs), atol=1e-5)


@pytest.mark.parametrize(
    "shape", [(14, 128, 128), (1, 13, 128, 128), (1, 26, 128, 128), (1, 128, 128, 14), (1, 14, 128)]
)
def test_a_wrong_shape_is_an_error_that_names_both_shapes(ensemble, shape):
    with pytest.raises(DataError, match=r"\(N, 14, H, W\) are needed, not \("):
        ensemble.predict(np.ones(shape))


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", ">f4", ">f8", "<f8", "longdouble", "int16", ">u2", "uint8", "int64"]
)
def test_any_real_dtype_is_predicted(ensemble, dtype):
    values = np.random.default_rng(0).integers(1, 100, (1, 14, 32, 32))
    np.testing.assert_array_equal(ensemble.predict(values.astype(dtype))[0], ensemble.predict(values.astype(float))[0])


@pytest.mark.parametrize(
    "values",
    [
        np.ones((1, 14, 32, 32), complex),
        np.full((1, 14, 32, 32), "a"),
        np.ones((1, 14, 32, 32), object),
        np.ones((1, 14, 32, 32), bool),
    ],
)
def test_other_dtypes_are_refused(ensemble, values):
    with pytest.raises(DataError, match="integers or real numbers are needed") as error:
        ensemble.predict(values)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("size", [(100, 128), (0, 16), (8, 8)])
def test_sides_that_are_no_multiples_of_16_are_refused(ensemble, size):
    with pytest.raises(DataError, match=f"multiples of 16 pixels are needed, not of {size[0]} x {size[1]}"):
        ensemble.predict(np.ones((1, 14, *size)))


def test_size_that_the_network_does_not_take_is_refused(tmp_path):
    specification = ModelSpec(name="smp:UnetPlusPlus:resnet18", options={"encoder_weights": None}, bands=("B4",))
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in build_model(specification).state_dict().items()}, path)
    network = Ensemble([Member(1, specification, 0.5, path)], SETTINGS, CPU)
    assert network.predict(np.ones((1, 14, 64, 96)))[0].shape == (1, 64, 96)
    with pytest.raises(DataError, match=r"smp:UnetPlusPlus:resnet18 does not take patches of 48 x 64(.|\n)*128 x 128"):
        network.predict(np.ones((1, 14, 48, 64)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_without_a_value_are_not_analysed_and_the_others_are(ensemble, raw, value):
    patches = raw.copy()
    patches[1, 3, 10:14, 20:25] = value  # one band is enough
    probability, uncertainty = ensemble.predict(patches)
    gaps = np.zeros(probability.shape, bool)
    gaps[1, 10:14, 20:25] = True
    for answer in (probability, uncertainty):
        np.testing.assert_array_equal(np.isnan(answer), gaps)
    np.testing.assert_array_equal(probability[[0, 2]], ensemble.predict(raw)[0][[0, 2]])
    filled = raw.copy()
    filled[1][:, gaps[1]] = np.median(raw[1][:, ~gaps[1]], axis=1)[:, None]
    np.testing.assert_array_equal(probability[~gaps], ensemble.predict(filled)[0][~gaps])


def test_masked_pixels_are_not_analysed(ensemble, raw):
    mask = np.zeros(raw.shape, bool)
    mask[1, 3, 10:14, 20:25] = True
    probability, _ = ensemble.predict(np.ma.MaskedArray(raw, mask))
    np.testing.assert_array_equal(np.isnan(probability), mask.any(axis=1))
    expected = ensemble.predict(np.where(mask, np.nan, raw))[0]
    np.testing.assert_array_equal(probability, expected)
    np.testing.assert_array_equal(ensemble.predict(np.ma.MaskedArray(raw))[0], ensemble.predict(raw)[0])


def test_no_data_value_that_no_network_can_bear_is_named(ensemble, raw):
    patches = raw.astype(np.float64)
    patches[1, 3, 10, 20] = -3.4e38
    with pytest.raises(PredictionError, match=r"is -3.4e\+38, in band B4 of patch 1(.|\n)*set them to NaN"):
        ensemble.predict(patches)


def test_patch_without_any_value_is_not_analysed(ensemble, raw):
    patches = raw[:2].astype(np.float32)
    patches[0] = np.nan
    probability, _ = ensemble.predict(patches)
    assert np.isnan(probability[0]).all()
    assert np.isfinite(probability[1]).all()


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_a_damaged_member_is_a_registry_error(saved, damage):
    path = saved / "member-2.safetensors"
    if damage == "flipped bit":
        content = bytearray(path.read_bytes())
        content[-3] ^= 0x10
        path.write_bytes(content)
    elif damage == "truncated":
        os.truncate(path, 100)
    else:
        path.unlink()
    with pytest.raises(RegistryError, match=r"member-2\.safetensors") as error:
        load_ensemble(saved)
    assert "member-1" not in str(error.value)
    assert "Download the model again" in error.value.remedy


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"members": [{}]}', '{"members": []}'])
def test_a_damaged_description_is_a_registry_error(saved, content):
    (saved / "ensemble.json").write_text(content)
    with pytest.raises(RegistryError):
        load_ensemble(saved)


def test_a_missing_description_is_a_registry_error(tmp_path):
    with pytest.raises(RegistryError, match="cannot be read"):
        load_ensemble(tmp_path)


def test_the_description_is_plain_json(saved, members):
    content = json.loads((saved / "ensemble.json").read_text())
    assert [member["fold"] for member in content["members"]] == [1, 2, 3]
    assert content["members"][2]["spec"]["mean"] == list(members[2].spec.mean)
    assert content["band_settings"]["median_kernel"] == 15
