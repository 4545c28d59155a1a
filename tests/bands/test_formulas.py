"""The 26 bands and the global RGB: names, groups, and every formula compared with SciPy and NumPy in float64."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from landslide.bands.formulas import (
    BAND_GROUPS,
    BAND_NAMES,
    ENGINEERED_BANDS,
    GLOBAL_RGB_BANDS,
    BandSettings,
    available_bands,
    engineer,
    engineer_each,
    resolve_bands,
)
from landslide.data.patches import read_image
from landslide.errors import ConfigurationError
from landslide.schema import ORIGINAL_BANDS, STORED_DIVISORS

BLUE, GREEN, RED, NIR, SWIR_1, SWIR_2 = 1, 2, 3, 7, 10, 11
FLOAT32_ROUNDING = {"rtol": 1e-6, "atol": 1e-6}


def random_patch(seed: int = 0, size: int = 48, bands: int = 14) -> np.ndarray:
    """Smooth terrain with an edge and some noise, so that every filter has a response: (C, H, W) float64."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(bands, size, size)), (0, 4, 4)) * 8 + 1.5
    image[:, size // 3 :, size // 2 :] += 1.0
    return np.abs(image + 0.05 * rng.normal(size=image.shape))


@pytest.fixture(
    scope="module",
    params=["generated", 1, 700, 3520],
    ids=["generated", "real_1", "real_700", "real_3520"],
)
def patch(request) -> np.ndarray:
    """(14, H, W) float64."""
    if request.param == "generated":
        return random_patch()
    images = request.getfixturevalue("real_data") / "landslide4sense-sample/TrainData/img"
    return read_image(images / f"image_{request.param}.h5").astype(np.float64)


@pytest.fixture(scope="module")
def bands(patch) -> dict[str, np.ndarray]:
    return dict(zip(BAND_NAMES, engineer(patch), strict=True))


def min_max(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / (x.max() - x.min())


def gray_of(patch: np.ndarray) -> np.ndarray:
    return (patch[BLUE] + patch[GREEN] + patch[RED]) / 3


def gray_8bit(patch: np.ndarray) -> np.ndarray:
    return np.floor(min_max(gray_of(patch)) * 255).astype(np.uint8)


def index_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a - b) / (a + b) pixel by pixel, with explicit floor and clip."""
    result = np.empty(a.shape)
    for at in np.ndindex(a.shape):
        total = a[at] + b[at]
        result[at] = min(max((a[at] - b[at]) / (total if total > 1e-8 else 1e-8), -1.0), 1.0)
    return result


def box_sums(gray: np.ndarray, side: int) -> np.ndarray:
    """Integer sums over side x side windows that reach side // 2 to the top left, mirrored without the edge pixel."""
    padded = np.pad(gray.astype(np.int64), side, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side)).sum(axis=(2, 3))
    start = side - side // 2
    return windows[start : start + gray.shape[0], start : start + gray.shape[1]]


# ---- names and groups


def test_the_26_bands_have_the_papers_names_and_order():
    assert " ".join(BAND_NAMES) == (
        "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 slope dem "
        "red_normalized green_normalized blue_normalized ndvi ndmi nbr "
        "gray gaussian median gradient_x gradient_y canny"
    )
    assert len(BAND_NAMES) == len(set(BAND_NAMES)) == 26
    assert available_bands() == BandSettings().names == BAND_NAMES


@pytest.mark.parametrize("n", [14, 17, 21, 23, 25, 26])
def test_a_numbered_group_is_the_first_n_bands(n):
    assert resolve_bands(n) == resolve_bands(str(n)) == BAND_NAMES[:n]
    assert set(BAND_GROUPS) == {"14", "17", "21", "23", "25", "26", "sentinel_only", "rgb"}


def test_sentinel_only_is_the_23_without_slope_and_elevation():
    names = resolve_bands("sentinel_only")
    assert len(names) == 21
    assert names == (*BAND_NAMES[:12], *BAND_NAMES[14:23])


def test_the_rgb_set_is_the_stored_locally_scaled_and_globally_scaled_colours():
    for stored in (ORIGINAL_BANDS, ("B4", "B3", "B2")):
        names = resolve_bands("rgb", BandSettings(stored=stored, global_rgb=True).names)
        assert " ".join(names) == (
            "B4 B3 B2 red_normalized green_normalized blue_normalized red_global green_global blue_global"
        )


@pytest.mark.parametrize("selection", ["rgb", ["B4", "red_global"]])
def test_selecting_global_rgb_that_is_not_computed_names_the_setting(selection):
    for available in (BAND_NAMES, available_bands(("B4", "B3", "B2"))):
        with pytest.raises(ConfigurationError, match="asks for red_global") as error:
            resolve_bands(selection, available)
        assert "bands.global_rgb: true" in error.value.remedy


def test_a_list_of_names_keeps_its_order_and_all_selects_every_band():
    assert resolve_bands(["ndvi", "B1", "canny"]) == ("ndvi", "B1", "canny")
    assert resolve_bands("all", ("B4", "red_normalized")) == ("B4", "red_normalized")


@pytest.mark.parametrize(
    ("selection", "available", "message"),
    [
        ("15", BAND_NAMES, "no band group '15'"),
        ("B4", BAND_NAMES, "no band group 'B4'"),
        (["B4", "B8A"], BAND_NAMES, r"asks for \['B8A'\]"),
        (["B4", "B3", "B4"], BAND_NAMES, "repeats a band"),
        ([], BAND_NAMES, "empty"),
        (23, available_bands(("B4", "B3", "B2")), "'B1'.*'ndvi'"),
        (["ndvi"], available_bands(("B4", "B3", "B2")), r"asks for \['ndvi'\]"),
    ],
)
def test_an_impossible_selection_names_the_problem_and_the_available_bands(selection, available, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        resolve_bands(selection, available)
    offered = BAND_GROUPS if isinstance(selection, str) else available
    assert all(name in error.value.remedy for name in offered)


@pytest.mark.parametrize(
    ("stored", "engineered"),
    [
        (
            ("B4", "B3", "B2"),
            tuple(name for name in ENGINEERED_BANDS if name not in ("ndvi", "ndmi", "nbr")),
        ),
        (ORIGINAL_BANDS[:12], ENGINEERED_BANDS),
        (("B8", "B4"), ("red_normalized", "ndvi")),
        (("B11", "B8"), ("ndmi",)),
        (("B8", "B12", "slope"), ("nbr",)),
        (("dem",), ()),
    ],
)
def test_an_engineered_band_exists_if_its_inputs_are_stored(stored, engineered):
    assert available_bands(stored) == BandSettings(stored=stored).names == (*stored, *engineered)


def test_global_rgb_adds_the_stored_colours_at_the_end():
    assert available_bands(global_rgb=True) == (*BAND_NAMES, *GLOBAL_RGB_BANDS)
    assert BandSettings(stored=("B8", "B4"), global_rgb=True).names == (
        "B8", "B4", "red_normalized", "ndvi", "red_global",
    )  # fmt: skip
    assert available_bands(("dem",), global_rgb=True) == ("dem",)


# ---- settings


@pytest.mark.parametrize(
    ("invalid", "message"),
    [
        ({"stored": ("B4", "B8A")}, r"unknown \['B8A'\]"),
        ({"stored": ()}, "empty"),
        ({"stored": ("B4", "B4")}, "a name twice"),
        ({"blur_kernel": 0}, "blur_kernel is 0"),
        ({"blur": "gaussian", "blur_kernel": 10}, "blur_kernel is 10 for blur gaussian"),
        ({"median_kernel": 14}, "median_kernel is 14"),
        ({"median_kernel": 1}, "median_kernel is 1"),
    ],
)
def test_impossible_settings_are_configuration_errors(invalid, message):
    with pytest.raises(ConfigurationError, match=message):
        BandSettings(**invalid)


@pytest.mark.parametrize(
    ("stored", "setting", "value", "missing"),
    [
        (("B2", "B3", "B8"), "blur", "gaussian", "gray"),
        (("B2", "B3", "B8"), "blur_kernel", 5, "gray"),
        (("B2", "B3", "B8"), "median_kernel", 5, "gray"),
        (("B2", "B3", "B8"), "canny_low", 10.0, "gray"),
        (("B2", "B3", "B8"), "canny_high", 300.0, "gray"),
        (("B4", "B3", "B2"), "reflectance", True, "ndvi or ndmi or nbr"),
        (("B8", "slope"), "global_rgb", True, "red_global or green_global or blue_global"),
    ],
)
def test_a_setting_of_bands_whose_inputs_are_not_stored_is_refused(stored, setting, value, missing):
    kernel = {"blur_kernel": 9} if value == "gaussian" else {}
    settings_ = BandSettings(stored=stored, **{setting: value}, **kernel)  # a registered model may have them
    with pytest.raises(
        ConfigurationError, match=rf"bands\.{setting} is .* has no effect: {missing} cannot be computed"
    ):
        settings_.refuse_settings_without_effect()
    BandSettings(**{setting: value}, **kernel).refuse_settings_without_effect()
    BandSettings(stored=stored).refuse_settings_without_effect()


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"reflectance": True}, {"ndvi", "ndmi", "nbr"}),
        ({"blur": "gaussian", "blur_kernel": 11}, {"gaussian"}),
        ({"blur_kernel": 5}, {"gaussian"}),
        ({"median_kernel": 5}, {"median"}),
        ({"canny_low": 20.0, "canny_high": 60.0}, {"canny"}),
        ({"dtype": "float32"}, set()),
    ],
)
def test_a_setting_changes_its_own_bands_and_nothing_else(changes, changed):
    image = random_patch()
    before, after = engineer(image), engineer(image, BandSettings(**changes))
    assert {name for name, a, b in zip(BAND_NAMES, before, after, strict=True) if (a != b).any()} == changed


@pytest.mark.parametrize("stored", [ORIGINAL_BANDS, ("B4", "B3", "B2"), ("B8", "B4")])
def test_global_rgb_leaves_all_other_bands_as_they_are(stored):
    image = random_patch()[[ORIGINAL_BANDS.index(name) for name in stored]]
    before = engineer(image, BandSettings(stored=stored))
    after = engineer(image, BandSettings(stored=stored, global_rgb=True))
    assert len(after) == len(before) + sum(name in stored for name in ("B4", "B3", "B2"))
    np.testing.assert_array_equal(after[: len(before)], before)


def test_settings_become_plain_values_that_rebuild_them():
    changed = BandSettings(stored=("B4", "B3", "B2"), blur="gaussian", blur_kernel=5, dtype="float32", global_rgb=True)
    assert BandSettings.from_dict(changed.to_dict()) == changed
    assert BandSettings.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
    assert changed.to_dict()["stored"] == ("B4", "B3", "B2")


# ---- the stored bands, shapes and layouts


def test_stored_bands_are_unchanged(patch):
    result = engineer(patch)
    assert (result.shape, result.dtype) == ((26, *patch.shape[1:]), np.float32)
    np.testing.assert_array_equal(result[:14], patch.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint16])
def test_channels_first_and_channels_last_give_the_same_bands(dtype):
    image = (random_patch()[:, :40, :32] * 100).astype(dtype)  # not square, so that swapped axes are detected
    expected = engineer(image)
    assert expected.shape == (26, 40, 32)
    last = image.transpose(1, 2, 0)
    np.testing.assert_array_equal(engineer(np.ascontiguousarray(last)), expected)
    np.testing.assert_array_equal(engineer(last), expected)


def test_the_input_is_not_changed(patch):
    image = patch.copy()
    engineer(image)
    np.testing.assert_array_equal(image, patch)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_a_batch_gives_the_bands_of_each_patch_channels_first_or_last(n):
    batch = np.array([random_patch(seed)[:, :40, :32] for seed in range(n)]).reshape(n, 14, 40, 32)
    result = engineer(batch)
    assert (result.shape, result.dtype) == ((n, 26, 40, 32), np.float32)
    np.testing.assert_array_equal(engineer(batch.transpose(0, 2, 3, 1)), result)
    for patch, bands in zip(batch, result, strict=True):
        np.testing.assert_array_equal(bands, engineer(patch))


@given(names=st.permutations([*BAND_NAMES, *GLOBAL_RGB_BANDS]), n=st.integers(1, len(BAND_NAMES)))
@settings(max_examples=25, deadline=None)
def test_some_bands_alone_are_equal_to_those_among_all(names, n):
    wanted = names[:n]
    batch = np.array([random_patch(seed, size=32) for seed in range(2)])
    everything = BandSettings(global_rgb=True)
    expected = engineer(batch, everything)[:, [everything.names.index(name) for name in wanted]]
    np.testing.assert_array_equal(engineer(batch, everything, wanted), expected)


def test_a_band_that_the_settings_do_not_give_is_refused():
    with pytest.raises(ValueError, match="give no red_global"):
        engineer(random_patch(), BandSettings(), ["B4", "red_global"])


def test_bands_change_their_format_before_the_next_patch_is_read():
    events, patches = [], [random_patch(seed) for seed in range(3)]

    def read():
        for patch in patches:
            events.append("read")
            yield patch

    def convert(bands):
        events.append("convert")
        return bands.astype(np.float16)

    result = list(engineer_each(read(), BandSettings(), convert))
    assert events == ["read", "convert"] * 3
    for patch, bands in zip(patches, result, strict=True):
        assert bands.dtype == np.float16
        np.testing.assert_array_equal(bands, engineer(patch).astype(np.float16))


def test_patches_are_read_lazily():
    read: list[int] = []

    def patches():
        for i in range(130):
            read.append(i)
            yield np.full((14, 8, 8), i)

    seen = []
    for i, bands in enumerate(engineer_each(patches(), BandSettings())):
        assert len(read) - i <= 64
        seen.append(bands[0, 0, 0])
    assert seen == list(range(130))


@pytest.mark.parametrize(
    "shape", [(13, 32, 32), (32, 32, 15), (14, 32), (32, 14, 32), (2, 13, 32, 32), (14, 32, 32, 32), (1, 2, 14, 8, 8)]
)
def test_a_shape_other_than_that_of_patches_is_refused(shape):
    with pytest.raises(ValueError, match="14 bands"):
        engineer(np.zeros(shape))


@pytest.mark.parametrize("stored", [("B4", "B3", "B2"), ORIGINAL_BANDS[:12], ("B8", "slope", "B4")])
def test_a_subset_of_stored_bands_gives_the_same_values_as_the_full_patch(stored):
    image = random_patch()
    full = dict(zip(BAND_NAMES, engineer(image), strict=True))
    result = engineer(image[[ORIGINAL_BANDS.index(name) for name in stored]], BandSettings(stored=stored))
    names = available_bands(stored)
    assert result.shape == (len(names), 48, 48)
    for name, band in zip(names, result, strict=True):
        np.testing.assert_array_equal(band, full[name], err_msg=name)


# ---- each formula against an independent reference


@pytest.mark.parametrize(("name", "source"), [("red", RED), ("green", GREEN), ("blue", BLUE)])
def test_rgb_normalisation_scales_each_band_to_0_and_1_over_the_patch(patch, bands, name, source):
    band = bands[f"{name}_normalized"]
    np.testing.assert_allclose(band, min_max(patch[source]), **FLOAT32_ROUNDING)
    assert (band.min(), band.max()) == (0, 1)


def test_global_rgb_is_the_digital_number_over_6000_clipped_to_0_and_1(patch):
    settings, patch = BandSettings(global_rgb=True), patch.copy()
    patch[[RED, GREEN, BLUE], :2] = [[[20.0]], [[20.0]], [[20.0]]]  # digital numbers of 8,900 and more
    patch[[RED, GREEN, BLUE], 2:4] = -0.5
    result = dict(zip(settings.names, engineer(patch, settings), strict=True))
    for colour, source, divisor in (
        ("red", RED, 445.17289745),
        ("green", GREEN, 663.41636217),
        ("blue", BLUE, 824.63171476),
    ):
        expected = np.clip(patch[source] * divisor / 6_000, 0, 1)
        assert (expected[:2] == 1).all()
        np.testing.assert_allclose(result[f"{colour}_global"], expected, **FLOAT32_ROUNDING)


def test_global_rgb_keeps_brightness_differences_between_patches():
    settings, image = BandSettings(stored=("B4", "B3", "B2"), global_rgb=True), random_patch()[[RED, GREEN, BLUE]] / 4
    dark, bright = (dict(zip(settings.names, engineer(x, settings), strict=True)) for x in (image, 3 * image))
    np.testing.assert_allclose(bright["red_normalized"], dark["red_normalized"], atol=1e-6)
    assert bright["red_global"].max() < 1
    np.testing.assert_allclose(bright["red_global"], 3 * dark["red_global"], rtol=1e-6)


@pytest.mark.parametrize(("name", "other"), [("ndvi", RED), ("ndmi", SWIR_1), ("nbr", SWIR_2)])
def test_indices_are_normalised_differences_of_the_stored_values(patch, bands, name, other):
    np.testing.assert_allclose(bands[name], index_of(patch[NIR], patch[other]), **FLOAT32_ROUNDING)


def test_reflectance_indices_multiply_by_the_divisors(patch):
    result = engineer(patch, BandSettings(reflectance=True))
    nir = patch[NIR] * 1941.32229668
    for name, other, divisor in (("ndvi", RED, 445.17289745), ("ndmi", SWIR_1, 1113.98338755)):
        expected = index_of(nir, patch[other] * divisor)
        np.testing.assert_allclose(result[BAND_NAMES.index(name)], expected, **FLOAT32_ROUNDING)
    np.testing.assert_allclose(
        result[BAND_NAMES.index("nbr")], index_of(nir, patch[SWIR_2] * 519.90397929), **FLOAT32_ROUNDING
    )


def test_the_divisors_are_the_published_means_of_the_stored_bands():
    assert list(STORED_DIVISORS) == list(ORIGINAL_BANDS)
    published = {"B1": 1111.81236406, "B2": 824.63171476, "B3": 663.41636217, "B9": 674.07572865, "B10": 9.04787384}
    assert published.items() <= STORED_DIVISORS.items()
    assert (STORED_DIVISORS["slope"], STORED_DIVISORS["dem"]) == (20.29228266, 772.83144788)


def test_gray_is_the_mean_of_blue_green_and_red(patch, bands):
    np.testing.assert_allclose(bands["gray"], patch[[BLUE, GREEN, RED]].mean(axis=0), **FLOAT32_ROUNDING)


@pytest.mark.parametrize("side", [10, 7])
def test_the_blur_is_a_box_mean_of_the_8_bit_gray_rounded_to_integers(patch, side):
    result = engineer(patch, BandSettings(blur_kernel=side))[BAND_NAMES.index("gaussian")].astype(np.float64) * 255
    levels = np.rint(result)
    np.testing.assert_allclose(result, levels, atol=1e-4)
    exact = box_sums(gray_8bit(patch), side) / side**2
    assert np.abs(levels - exact).max() <= 0.5 + 1e-9  # the nearest integer; a tie may go either way
    scipy_mean = ndimage.uniform_filter(gray_8bit(patch).astype(np.float64), side, mode="mirror")
    np.testing.assert_allclose(exact, scipy_mean, atol=1e-6)


@pytest.mark.parametrize("side", [5, 11])
def test_the_gaussian_of_the_papers_text_has_the_width_of_its_kernel(patch, side):
    result = engineer(patch, BandSettings(blur="gaussian", blur_kernel=side))[BAND_NAMES.index("gaussian")]
    sigma = 0.3 * ((side - 1) / 2 - 1) + 0.8
    # OpenCV has a binomial kernel for 5 pixels and this sigma.
    one_axis = np.array([1, 4, 6, 4, 1]) if side == 5 else np.exp(-(((np.arange(side) - side // 2) / sigma) ** 2) / 2)
    kernel = np.outer(one_axis, one_axis) / one_axis.sum() ** 2
    expected = ndimage.correlate(gray_8bit(patch).astype(np.float64), kernel, mode="mirror")
    assert np.abs(result.astype(np.float64) * 255 - expected).max() < 1.0


@pytest.mark.parametrize("side", [15, 5])
def test_the_median_is_of_the_8_bit_gray_with_repeated_edges(patch, side):
    result = engineer(patch, BandSettings(median_kernel=side))[BAND_NAMES.index("median")]
    expected = ndimage.median_filter(gray_8bit(patch), size=side, mode="nearest")
    np.testing.assert_array_equal(np.rint(result.astype(np.float64) * 255), expected)
    np.testing.assert_allclose(result, expected / 255, **FLOAT32_ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "n"), [(15, 70), (15, 3), (21, 60)])
def test_medians_of_many_patches_equal_those_of_single_patches(side, n, monkeypatch):
    settings = BandSettings(median_kernel=side)
    patches = [random_patch(seed, size=132)[:, :120] for seed in range(n)]
    expected = [engineer(patch, settings) for patch in patches]
    filtered, median = [], cv2.medianBlur
    monkeypatch.setattr(cv2, "medianBlur", lambda image, kernel: filtered.append(image.size) or median(image, kernel))
    result = engineer(np.stack(patches), settings)
    assert (max(filtered) >= 2**20) == (n >= 60)  # above this size OpenCV uses another algorithm
    np.testing.assert_array_equal(result, np.stack(expected))


def test_concurrent_threads_give_the_same_bands():
    patches = [random_patch(seed, size=128) for seed in range(8)]
    expected = [engineer(patch) for patch in patches]
    with ThreadPoolExecutor(4) as pool:
        for result, alone in zip(pool.map(engineer, patches * 20), expected * 20, strict=True):
            np.testing.assert_array_equal(result, alone)


def test_gradients_are_5x5_sobel_responses_of_the_0_1_gray(patch, bands):
    smooth, derive = np.array([1.0, 4, 6, 4, 1]), np.array([-1.0, -2, 0, 2, 1])
    scaled = min_max(gray_of(patch))
    for name, kernel in (("gradient_x", np.outer(smooth, derive)), ("gradient_y", np.outer(derive, smooth))):
        expected = ndimage.correlate(scaled, kernel, mode="mirror") / 27.32
        np.testing.assert_allclose(bands[name], expected, err_msg=name, **FLOAT32_ROUNDING)


def test_gradients_point_to_the_right_and_down():
    ramp = np.broadcast_to(np.arange(32.0), (32, 32))
    for direction, image in (("gradient_x", ramp), ("gradient_y", ramp.T)):
        result = dict(zip(BAND_NAMES, engineer(np.stack([image] * 14)), strict=True))
        # Over [-2, 2] the kernel weights a ramp of 1/31 per pixel with 16 * (2 * 2 + 4 * 1) = 128.
        np.testing.assert_allclose(result[direction][4:-4, 4:-4], 128 / 31 / 27.32, **FLOAT32_ROUNDING)
        other = {"gradient_x": "gradient_y", "gradient_y": "gradient_x"}[direction]
        np.testing.assert_allclose(result[other], 0, atol=1e-7)


def test_canny_detects_the_edges_of_the_8_bit_gray(patch, bands):
    np.testing.assert_array_equal(bands["canny"], (cv2.Canny(gray_8bit(patch), 150, 227) > 0).astype(np.float32))


def test_canny_marks_a_sharp_edge():
    image = np.zeros((14, 32, 32))
    image[:, :, 16:] = 1
    edges = engineer(image)[BAND_NAMES.index("canny")]
    assert (edges.sum(axis=1) == 1).all()
    assert edges[:, 15:17].sum() == 32


def test_the_8_bit_gray_is_truncated_and_not_rounded():
    image = np.zeros((14, 32, 32))
    image[:, :, :] = 99.6 / 255
    image[:, 0, 0], image[:, 31, 31] = 0, 1
    result = dict(zip(BAND_NAMES, engineer(image), strict=True))
    np.testing.assert_allclose(result["median"][10:20, 10:20] * 255, 99, rtol=1e-6)
    np.testing.assert_allclose(result["gaussian"][12:20, 12:20] * 255, 99, rtol=1e-6)


# ---- reach of a pixel


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"blur_kernel": 21, "median_kernel": 3},
        {"blur_kernel": 4, "median_kernel": 9},
        {"blur": "gaussian", "blur_kernel": 13},
        {"blur_kernel": 1},
    ],
)
def test_a_pixel_changes_a_band_exactly_as_far_as_its_reach(changes):
    # Edges are local too without hysteresis and with unchanged darkest and brightest pixels.
    settings, size, middle = BandSettings(**changes, canny_low=60, canny_high=60), 61, 30
    farthest = dict.fromkeys(settings.reach, 0)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image = rng.uniform(0.05, 0.95, (3, size, size))
        image[:, 0, 0], image[:, -1, -1] = 0, 1
        changed = image.copy()
        changed[:, middle, middle] = 1.0 if image[0, middle, middle] < 0.5 else 0.0
        settings_rgb = replace(settings, stored=("B4", "B3", "B2"))
        before, after = engineer(image, settings_rgb), engineer(changed, settings_rgb)
        for name in farthest:
            rows, columns = np.nonzero((before != after)[settings_rgb.names.index(name)])
            distance = np.maximum(abs(rows - middle), abs(columns - middle))
            farthest[name] = max(farthest[name], distance.max(initial=0))
    assert farthest == settings.reach


# ---- extreme values


@pytest.mark.parametrize("value", [0.0, 1.7, -2.0])
def test_bands_of_a_constant_patch_are_finite_and_zero_if_scaled_by_their_range(value):
    result = dict(zip(BAND_NAMES, engineer(np.full((14, 32, 32), value)), strict=True))
    for name in set(ENGINEERED_BANDS) - {"gray"}:
        assert (result[name] == 0).all(), name
    np.testing.assert_allclose(result["gray"], value, rtol=1e-6)


def test_indices_stay_between_minus_1_and_1_for_zero_or_negative_denominators():
    nir = np.array([1.0, -1, 0, -1, -2, 3, 1e-12, 0, 2])
    other = np.array([-1.0, 1, 0, -2, -1, -1, 0, 1, 2])
    expected = [1, -1, 0, 1, -1, 1, 1e-4, -1, 0]  # (a - b) / max(a + b, 1e-8), clipped
    image = np.ones((14, 3, 3))
    image[NIR] = nir.reshape(3, 3)
    image[[RED, SWIR_1, SWIR_2]] = other.reshape(3, 3)
    result = engineer(image)
    for name in ("ndvi", "ndmi", "nbr"):
        np.testing.assert_allclose(result[BAND_NAMES.index(name)].ravel(), expected, rtol=1e-6, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, (14, 6, 7), elements=st.floats(-100, 100, width=32)))
def test_every_finite_patch_gives_finite_bands_in_their_ranges(image):
    result = dict(zip(BAND_NAMES, engineer(image), strict=True))
    assert all(np.isfinite(band).all() for band in result.values())
    for name in ("red_normalized", "green_normalized", "blue_normalized", "gaussian", "median", "canny"):
        assert 0 <= result[name].min() <= result[name].max() <= 1, name
    for name in ("ndvi", "ndmi", "nbr"):
        assert -1 <= result[name].min() <= result[name].max() <= 1, name
    assert set(np.unique(result["canny"])) <= {0, 1}
