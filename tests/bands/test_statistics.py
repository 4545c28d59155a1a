"""Statistics of bands and classes compared with NumPy in float64, and drift."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings
from landslide.bands.statistics import band_statistics, describe, describe_drift, drift

NAMES = ("B4", "slope", "elevation")
ROWS = np.array([0, 2, 3])


def build_cache(dtype: str = "float32") -> BandCache:
    """Five patches in memory: bands of very different magnitude, two patches with landslides."""
    rng = np.random.default_rng(0)
    scale, offset = np.array([0.1, 1.0, 30.0]), np.array([1.0, -2.0, 3000.0])
    bands = rng.normal(size=(5, 3, 128, 128)) * scale[:, None, None] + offset[:, None, None]
    masks = np.zeros((5, 128, 128), np.uint8)
    masks[0, :64, :32] = masks[1] = masks[3, 0, 0] = 1
    return BandCache(Path("nowhere"), NAMES, bands.astype(dtype), masks, np.dtype("float64"), BandSettings())


def quantities(table) -> dict[str, dict[str, float]]:
    return table.set_index("quantity").to_dict("index")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_mean_and_deviation_equal_numpy_in_float64(dtype):
    cache = build_cache(dtype)
    mean, std = band_statistics(cache, ROWS, ("elevation", "B4"))
    values = cache.bands[ROWS][:, [2, 0]].astype(np.float64)
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-10)


def test_small_variation_around_a_large_value_is_kept():
    cache = build_cache("float64")
    cache.bands[:, 2] = 1e9 + np.random.default_rng(1).random((5, 128, 128))
    std = band_statistics(cache, ROWS, ("elevation",))[1]
    np.testing.assert_allclose(std, cache.bands[ROWS, 2].std(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_constant_band_has_zero_deviation(dtype, value):
    cache = build_cache(dtype)
    cache.bands[:, 1] = value
    mean, std = band_statistics(cache, np.arange(5), NAMES)
    assert (mean[1], std[1]) == (cache.bands[0, 1, 0, 0], 0.0)
    assert (std[[0, 2]] > 0).all()


def test_statistics_describe_bands_and_classes():
    cache = build_cache()
    found = describe(cache, ROWS)
    assert (found["patches"], found["positive_patches"]) == (3, 2)
    assert found["landslide_share"] == pytest.approx(cache.masks[ROWS].mean(), rel=1e-12)
    assert list(found["bands"]) == list(NAMES)
    assert found["bands"]["slope"]["mean"] == pytest.approx(cache.bands[ROWS, 1].mean(dtype=np.float64))
    assert found["bands"]["slope"]["std"] == pytest.approx(cache.bands[ROWS, 1].std(dtype=np.float64))


def test_equal_sets_do_not_drift():
    described = describe(build_cache(), ROWS)
    table = drift(described, described)
    assert table["quantity"].tolist() == ["landslide_share", "positive_share", *NAMES]
    assert (table["shift"] == 0).all()
    assert (table["spread"].dropna() == 1).all()


def test_shifted_and_stretched_bands_are_drift():
    old, new = build_cache(), build_cache()
    new.bands[:, 0] += 0.05  # half of its standard deviation
    new.bands[:, 1] = (new.bands[:, 1] + 2) * 3 - 2
    found = quantities(drift(describe(old, ROWS), describe(new, ROWS)))
    assert found["B4"]["shift"] == pytest.approx(0.5, abs=0.01)
    assert found["B4"]["spread"] == pytest.approx(1, abs=1e-4)
    assert found["slope"]["spread"] == pytest.approx(3, abs=1e-3)
    assert abs(found["slope"]["shift"]) < 0.05
    assert found["elevation"]["shift"] == 0
    assert found["B4"]["current"] - found["B4"]["reference"] == pytest.approx(0.05, abs=1e-4)


def test_a_changed_class_balance_is_drift_and_most_without_landslides():
    cache = build_cache()
    reference = describe(cache, np.arange(4))
    more = quantities(drift(reference, describe(cache, np.array([1]))))
    assert more["landslide_share"]["shift"] == pytest.approx(np.log(1 / cache.masks[:4].mean()))
    assert more["positive_share"]["shift"] == pytest.approx(np.log(1 / 0.75))
    none = describe(cache, np.array([2, 4]))
    for name in ("landslide_share", "positive_share"):
        assert quantities(drift(reference, none))[name]["shift"] == -np.inf
        assert quantities(drift(none, reference))[name]["shift"] == np.inf
        assert quantities(drift(none, none))[name]["shift"] == 0


@pytest.mark.parametrize(("value", "shift"), [(3.0, 0.0), (3.5, np.inf), (2.5, -np.inf)])
def test_a_formerly_constant_band_has_infinite_or_no_drift(value, shift):
    cache = build_cache()
    cache.bands[:, 1] = 3.0
    reference = describe(cache, ROWS)
    cache.bands[:, 1] = value
    found = quantities(drift(reference, describe(cache, ROWS)))["slope"]
    assert found["shift"] == shift
    assert np.isnan(found["spread"])


def test_drift_is_told_in_a_sentence():
    columns = ["quantity", "reference", "current", "shift", "spread"]
    rows = [
        ("landslide_share", 0.02344, 0.05, 0.76, np.nan), ("positive_share", 0.5, 0.0, -np.inf, np.nan),
        ("dem", 2.0, 3.0, 1.234, 1.0), ("B4", 1.0, 0.5, -0.6, 1.0), ("slope", 0.0, 0.5, np.inf, np.nan),
    ]  # fmt: skip
    assert describe_drift(pd.DataFrame(rows, columns=columns), "the new patches") == (
        "Compared with the champion's training data, in the new patches 5.00 % of the pixels are landslides instead of "
        "2.34 %; 0.00 % of the patches hold a landslide instead of 50.00 %; the mean of dem is 1.23 standard "
        "deviations higher; the mean of B4 is 0.60 standard deviations lower; the mean of slope is 0.5, which was 0 "
        "everywhere."
    )
    assert describe_drift(pd.DataFrame([], columns=columns), "all patches") == ""


def test_only_shared_bands_are_compared():
    described = describe(build_cache(), ROWS)
    fewer = {**described, "bands": {"slope": described["bands"]["slope"]}}
    for reference, current in ((fewer, described), (described, fewer)):
        assert drift(reference, current)["quantity"].tolist()[2:] == ["slope"]
