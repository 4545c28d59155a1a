"""Augmentation: rotations, flips and pasted landslides, in published and in consistent mode."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from landslide.bands.formulas import BAND_NAMES, BandSettings, engineer
from landslide.data.patches import read_image
from landslide.errors import ConfigurationError
from landslide.training.augmentation import Augmentation, AugmentationSettings

X, Y = BAND_NAMES.index("gradient_x"), BAND_NAMES.index("gradient_y")
NEIGHBOURHOOD = [BAND_NAMES.index(n) for n in ("gaussian", "median", "gradient_x", "gradient_y", "canny")]
NORMALIZED = {BAND_NAMES.index(f"{n}_normalized"): band for n, band in (("red", 3), ("green", 2), ("blue", 1))}
PIXELWISE = [i for i in range(26) if i not in NEIGHBOURHOOD and i not in NORMALIZED]
SIZE = 40
DEFAULTS = BandSettings()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw_patches(n: int, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Smooth patches as stored: (n, 14, size, size) float64."""
    noise = np.random.default_rng(seed).normal(size=(n, 14, size, size))
    return np.abs(ndimage.gaussian_filter(noise, (0, 0, 2, 2)) * 5 + 1)


def with_all_bands(raw: np.ndarray, band_settings: BandSettings = DEFAULTS) -> torch.Tensor:
    return torch.from_numpy(engineer(raw, band_settings))


def block_masks(n: int, seed: int = 0, size: int = SIZE) -> torch.Tensor:
    """One rectangle of landslide per patch: (n, size, size) uint8."""
    rng, masks = np.random.default_rng(seed), torch.zeros(n, size, size, dtype=torch.uint8)
    for mask in masks:
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + rng.integers(4, size // 2), left : left + rng.integers(4, size // 2)] = 1
    return masks


def numbered(n: int, size: int = 6, channels: int = 3, offset: int = 0) -> torch.Tensor:
    """Images without equal values: (n, channels, size, size) float32."""
    count = n * channels * size * size
    return torch.arange(offset, offset + count, dtype=torch.float32).reshape(n, channels, size, size)


def augmentation(
    bands=BAND_NAMES, band_settings: BandSettings = DEFAULTS, **changes
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """An augmentation that draws new parameters for every batch."""
    augment = Augmentation(AugmentationSettings(**changes), bands, band_settings)

    def of_batch(images, masks, donors, generator):
        return augment(images, masks, donors, augment.draw(len(images), generator))

    return of_batch


def rotation_only(mode: str, bands=BAND_NAMES) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return augmentation(bands, mode=mode, rotation_probability=1.0, max_pastes=0)


def flips_only(mode: str, bands=BAND_NAMES) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return augmentation(bands, mode=mode, rotation_probability=0.0, max_pastes=0, flips=True)


def pastes_only(
    mode: str, bands=BAND_NAMES, max_pastes: int = 1, band_settings: BandSettings = DEFAULTS
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    return augmentation(bands, band_settings, mode=mode, rotation_probability=0.0, max_pastes=max_pastes)


def symmetries(patch: np.ndarray) -> list[np.ndarray]:
    """The eight rotations and mirror images of (..., H, W), the unchanged one first."""
    turns = [np.rot90(patch, k, axes=(-2, -1)) for k in range(4)]
    return turns + [turn[..., ::-1] for turn in turns]


def which_symmetry(before: torch.Tensor, after: torch.Tensor) -> int:
    """Which of the eight symmetries turns one channel (H, W) into the other."""
    found = [i for i, s in enumerate(symmetries(before.numpy())) if np.array_equal(s, after.numpy())]
    assert len(found) == 1, "no rotation or flip"
    return found[0]


# ---- rotations and flips


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(2, 9),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from(["published", "consistent"]),
)
def test_a_rotation_or_flip_permutes_pixels_and_moves_the_mask_equally(batch, size, seed, flips, mode):
    images = numbered(batch, size)
    masks = torch.randint(0, 2, (batch, size, size), generator=generator(seed), dtype=torch.uint8)
    augment = augmentation(("B4", "B3", "B2"), mode=mode, rotation_probability=0.7, max_pastes=0, flips=flips)
    new_images, new_masks = augment(images, masks, [], generator(seed))
    assert (new_images.dtype, new_masks.dtype) == (images.dtype, masks.dtype)
    for before, after, mask, new_mask in zip(images, new_images, masks, new_masks, strict=True):
        turn = which_symmetry(before[0], after[0])
        assert flips or turn < 4
        np.testing.assert_array_equal(after.numpy(), symmetries(before.numpy())[turn])
        np.testing.assert_array_equal(new_mask.numpy(), symmetries(mask.numpy())[turn])
        assert torch.bincount(new_mask.flatten(), minlength=2).tolist() == [(mask == 0).sum(), (mask == 1).sum()]


@pytest.mark.parametrize("kind", [rotation_only, flips_only])
def test_published_mode_moves_all_bands_equally_and_keeps_gradient_values(kind):
    images = with_all_bands(raw_patches(12))
    after, _ = kind("published")(images, block_masks(12), [], generator())
    turns = [which_symmetry(images[i, 0], after[i, 0]) for i in range(12)]
    assert len(set(turns)) >= 3
    for i, turn in enumerate(turns):
        np.testing.assert_array_equal(after[i].numpy(), symmetries(images[i].numpy())[turn])


@pytest.mark.parametrize(
    ("kind", "expected"), [(rotation_only, {1, 2, 3}), (flips_only, {0, 2, 4, 6})], ids=["rotations", "flips"]
)
@pytest.mark.parametrize("source", ["generated", "real"])
def test_consistent_gradients_equal_those_of_the_moved_patch(kind, expected, source, request):
    if source == "real":
        folder = request.getfixturevalue("real_data") / "landslide4sense-sample/TrainData/img"
        raw = np.stack([read_image(folder / f"image_{n}.h5") for n in (1, 16, 700, 3520) * 4])
    else:
        raw = raw_patches(16)
    images = with_all_bands(raw)
    after, _ = kind("consistent")(images, torch.zeros(16, *raw.shape[2:], dtype=torch.uint8), [], generator())
    turns = [which_symmetry(images[i, 0], after[i, 0]) for i in range(16)]
    assert set(turns) == expected
    others = [i for i in range(26) if i not in (X, Y)]
    for i, turn in enumerate(turns):
        recomputed = engineer(np.ascontiguousarray(symmetries(raw[i])[turn]))
        np.testing.assert_allclose(after[i, [X, Y]].numpy(), recomputed[[X, Y]], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(after[i, others].numpy(), symmetries(images[i, others].numpy())[turn])


def test_consistent_gradients_follow_a_rotation_and_flips_together():
    raw = raw_patches(40, size=16)
    images = with_all_bands(raw)
    augment = augmentation(mode="consistent", rotation_probability=0.7, max_pastes=0, flips=True)
    after, _ = augment(images, block_masks(40, size=16), [], generator())
    turns = [which_symmetry(images[i, 0], after[i, 0]) for i in range(40)]
    assert set(turns) == set(range(8))
    for i, turn in enumerate(turns):
        recomputed = engineer(np.ascontiguousarray(symmetries(raw[i])[turn]))
        np.testing.assert_allclose(after[i, [X, Y]].numpy(), recomputed[[X, Y]], rtol=1e-6, atol=1e-6)


def test_gradients_are_found_by_name_in_any_order():
    order = ("gradient_y", "B4", "gradient_x")
    raw = raw_patches(8)
    images = with_all_bands(raw)[:, [Y, 3, X]]
    after, _ = rotation_only("consistent", order)(images, block_masks(8), [], generator())
    for i in range(8):
        turn = which_symmetry(images[i, 1], after[i, 1])
        recomputed = engineer(np.ascontiguousarray(symmetries(raw[i])[turn]))[[Y, 3, X]]
        np.testing.assert_allclose(after[i].numpy(), recomputed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gradient_x", "gradient_y"])
def test_a_single_gradient_cannot_be_rotated_consistently(name):
    with pytest.raises(ConfigurationError, match=f"only {name} is selected"):
        augmentation(("B4", name), mode="consistent")
    augmentation(("B4", name), mode="published")


def test_rotations_have_their_probability_and_uniform_angles():
    n = 6000
    images, masks = numbered(1, 2, 1).expand(n, 1, 2, 2), torch.zeros(n, 2, 2, dtype=torch.uint8)
    after, _ = augmentation(("B4",), rotation_probability=0.7, max_pastes=0)(images, masks, [], generator())
    counts = Counter(after.flatten(1).argmin(dim=1).tolist())  # the new position of the corner (0, 0)
    assert counts[0] / n == pytest.approx(0.3, abs=0.025)  # four standard deviations
    assert all(counts[corner] / n == pytest.approx(0.7 / 3, abs=0.025) for corner in (1, 2, 3))


def test_flips_have_probability_one_half_on_each_axis():
    n = 6000
    images, masks = numbered(1, 2, 1).expand(n, 1, 2, 2), torch.zeros(n, 2, 2, dtype=torch.uint8)
    after, _ = flips_only("published", ("B4",))(images, masks, [], generator())
    counts = Counter(after.flatten(1).argmin(dim=1).tolist())
    assert all(counts[corner] / n == pytest.approx(0.25, abs=0.025) for corner in range(4))


@pytest.mark.parametrize("mode", ["published", "consistent"])
def test_probability_0_without_pastes_changes_nothing(mode):
    images, masks = with_all_bands(raw_patches(4)), block_masks(4)
    donors = [(with_all_bands(raw_patches(4, 1)), block_masks(4, 1))]
    after, after_masks = augmentation(mode=mode, rotation_probability=0, max_pastes=0)(
        images, masks, donors, generator()
    )
    assert torch.equal(after, images)
    assert torch.equal(after_masks, masks)


# ---- pasting


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 1.0]))
def test_a_pasted_pixel_is_a_landslide_pixel_at_the_same_place_of_a_donor(batch, n_donors, seed, share):
    random = generator(seed)
    size = 6

    def random_masks() -> torch.Tensor:
        return (torch.rand(batch, size, size, generator=random) < share).to(torch.uint8)

    images, masks = numbered(batch, size), random_masks()
    donors = [(numbered(batch, size, offset=10_000 * (i + 1)), random_masks()) for i in range(n_donors)]
    after, after_masks = pastes_only("published", ("B4", "B3", "B2"), n_donors)(images, masks, donors, generator(seed))
    assert set(after_masks.unique().tolist()) <= {0, 1}
    assert after_masks.dtype == masks.dtype
    source = (after[:, 0] // 10_000).long()  # 0: the patch itself, i: donor i
    for i, (image, mask) in enumerate([(images, masks), *donors]):
        here = source == i
        assert torch.equal(after.movedim(1, -1)[here], image.movedim(1, -1)[here])
        assert torch.equal(after_masks[here], mask[here])
        assert i == 0 or (mask[here] == 1).all()
    # A donor is pasted as a whole, except where a later one covers it, and only after all previous ones.
    for b in range(batch):
        used = [i for i in range(1, n_donors + 1) if (source[b] == i).any()]
        for i in used:
            landslide = donors[i - 1][1][b] == 1
            assert (source[b][landslide] >= i).all()
        for earlier in range(1, max(used, default=1)):
            assert (source[b][donors[earlier - 1][1][b] == 1] >= earlier).all()
    assert (after_masks >= masks).all(), "a paste adds landslides and takes none away"


def test_without_donors_nothing_is_pasted():
    images, masks = with_all_bands(raw_patches(6)), block_masks(6)
    for mode in ("published", "consistent"):
        after, after_masks = pastes_only(mode, max_pastes=2)(images, masks, [], generator())
        assert torch.equal(after, images)
        assert torch.equal(after_masks, masks)


def test_donors_without_landslides_change_nothing():
    images, masks = with_all_bands(raw_patches(6)), block_masks(6)
    empty = [(with_all_bands(raw_patches(6, 1)), torch.zeros_like(masks))]
    after, after_masks = pastes_only("consistent")(images, masks, empty, generator())
    assert torch.equal(after, images)
    assert torch.equal(after_masks, masks)


def test_the_number_of_pastes_is_uniform_up_to_the_maximum():
    n, most = 6000, 2
    images, masks = torch.zeros(n, 1, 2, 2), torch.zeros(n, 2, 2, dtype=torch.uint8)
    donors = []
    for i in range(4):  # more donors than the maximum of pastes, each with a landslide in another corner
        mask = torch.zeros_like(masks)
        mask[:, i // 2, i % 2] = 1
        donors.append((torch.ones_like(images), mask))
    _, after = pastes_only("published", ("B4",), most)(images, masks, donors, generator())
    assert after.flatten(1)[:, most:].sum() == 0
    counts = torch.bincount(after.flatten(1).sum(dim=1).long(), minlength=most + 1)
    assert counts.sum() == n
    assert all(count / n == pytest.approx(1 / 3, abs=0.025) for count in counts.tolist())


def paste_once(mode: str, n: int = 8):
    """Return patches, donors, the augmented batch after one paste, and the pasted pixels."""
    raw, donor_raw = raw_patches(n), raw_patches(n, seed=1) * 1.5
    images, donor_images, donor_masks = with_all_bands(raw), with_all_bands(donor_raw), block_masks(n, seed=2)
    after, after_masks = pastes_only(mode)(
        images, torch.zeros_like(donor_masks), [(donor_images, donor_masks)], generator()
    )
    pasted = after_masks > 0  # the patches themselves have no landslides
    changed = pasted.flatten(1).any(dim=1)
    assert 0 < changed.sum() < n
    assert torch.equal(pasted[changed], donor_masks[changed] > 0)
    return images, donor_images, after, pasted


def test_published_mode_pastes_bands_unchanged():
    images, donor_images, after, pasted = paste_once("published")
    assert torch.equal(after, torch.where(pasted[:, None], donor_images, images))


def test_consistent_mode_recomputes_the_rgb_normalisation_of_a_patch_with_a_paste():
    images, donor_images, after, pasted = paste_once("consistent")
    mixture = torch.where(pasted[:, None], donor_images, images)
    assert torch.equal(after[:, PIXELWISE], mixture[:, PIXELWISE])
    for b in range(len(after)):
        recomputed = engineer(mixture[b, :14].numpy())
        for normalized in NORMALIZED:
            np.testing.assert_allclose(after[b, normalized].numpy(), recomputed[normalized], rtol=1e-5, atol=1e-6)
        if not pasted[b].any():
            assert torch.equal(after[b], images[b])


@pytest.mark.parametrize(
    ("changes", "names", "side"),
    [
        ({}, BAND_NAMES, 15),  # the median
        ({"median_kernel": 5}, BAND_NAMES, 11),  # a box of 10 reaches 5 pixels to the left and upwards
        ({"median_kernel": 5, "blur_kernel": 4}, BAND_NAMES, 5),
        ({"blur_kernel": 21}, BAND_NAMES, 21),
        ({}, BAND_NAMES[:22], 11),  # to the blur, without the median
        ({}, ("canny", "B4", "gradient_x", "gradient_y"), 5),
    ],
)
def test_consistent_mode_zeroes_neighbourhood_bands_only_in_mixed_windows(changes, names, side):
    band_settings, columns = BandSettings(**changes), [BAND_NAMES.index(name) for name in names]
    images = with_all_bands(raw_patches(8), band_settings)[:, columns]
    donors = with_all_bands(raw_patches(8, seed=1) * 1.5, band_settings)[:, columns]
    donor_masks = block_masks(8, seed=2)
    paste = pastes_only("consistent", names, band_settings=band_settings)
    after, after_masks = paste(images, torch.zeros_like(donor_masks), [(donors, donor_masks)], generator())
    pasted = after_masks > 0  # the patches themselves have no landslides
    mixture = torch.where(pasted[:, None], donors, images)
    window = {"size": (1, side, side), "mode": "nearest"}
    inside = pasted.numpy().astype(np.uint8)
    windows_mix = ndimage.maximum_filter(inside, **window) != ndimage.minimum_filter(inside, **window)
    assert 0 < windows_mix.mean() < 1
    assert (~windows_mix[pasted.numpy().any(axis=(1, 2))]).any()
    for channel, name in enumerate(names):
        if BAND_NAMES.index(name) in NEIGHBOURHOOD:
            expected = np.where(windows_mix, 0, mixture[:, channel].numpy())
            np.testing.assert_array_equal(after[:, channel].numpy(), expected, err_msg=name)


def test_neighbourhood_bands_away_from_the_edge_of_a_paste_equal_the_pasted_patch():
    """Compared with bands computed from the mixture; two pixels fix the gray scale, and edges have no hysteresis."""
    band_settings = BandSettings(canny_low=80, canny_high=80)
    raw, donor_raw = (np.clip(raw_patches(8, seed), 0.1, 1.9) for seed in (0, 1))
    for patches in (raw, donor_raw):
        patches[:, :, 0, 0], patches[:, :, 0, 1] = 0, 2
    mask = block_masks(8, seed=2)
    mask[:, 0, :2] = 0
    images, donors = (with_all_bands(patches, band_settings) for patches in (raw, donor_raw))
    paste = pastes_only("consistent", band_settings=band_settings)
    after, after_masks = paste(images, torch.zeros_like(mask), [(donors, mask)], generator())
    mixture = np.where(after_masks.numpy()[:, None] > 0, donor_raw, raw)
    recomputed = with_all_bands(mixture, band_settings)[:, NEIGHBOURHOOD]
    kept = (after[:, NEIGHBOURHOOD] != 0).any(dim=1, keepdim=True).expand_as(recomputed)
    assert 0.3 < kept.float().mean() < 1
    torch.testing.assert_close(after[:, NEIGHBOURHOOD][kept], recomputed[kept])


def test_a_constant_band_after_a_paste_is_normalised_to_zero():
    bands = ("B4", "red_normalized")
    images, masks = torch.ones(32, 2, 8, 8), torch.zeros(32, 8, 8, dtype=torch.uint8)
    donors = [(torch.ones(32, 2, 8, 8), torch.ones_like(masks))]
    after, after_masks = pastes_only("consistent", bands)(images, masks, donors, generator())
    pasted = (after_masks > 0).flatten(1).any(dim=1)
    assert 0 < pasted.sum() < 32
    assert (after[pasted, 1] == 0).all()
    assert (after[~pasted, 1] == 1).all()


# ---- randomness and settings


def test_changed_light_equals_engineering_the_patch_under_that_light():
    """Bands engineered from a patch under other light equal the augmented patch; relative bands do not change."""
    raw = raw_patches(60, size=16)
    names = (*BAND_NAMES, "red_global", "green_global", "blue_global")
    band_settings = BandSettings(global_rgb=True)
    before, masks = with_all_bands(raw, band_settings), torch.zeros(60, 16, 16, dtype=torch.uint8)
    augment = augmentation(names, rotation_probability=0.0, max_pastes=0, illumination=0.4)
    after, _ = augment(before, masks, [], generator())
    gain = (after[:, 0] / before[:, 0]).mean(dim=(1, 2)).numpy()
    assert np.exp(-0.4) <= gain.min() < 0.75
    assert 1.3 < gain.max() <= np.exp(0.4)
    lit = raw.copy()
    lit[:, :12] *= gain[:, None, None, None]  # neither slope nor elevation
    unrounded = [i for i, name in enumerate(names) if name not in ("gaussian", "median", "canny")]
    torch.testing.assert_close(
        after[:, unrounded], with_all_bands(lit, band_settings)[:, unrounded], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("darkest", [0.0, 0.5])
@pytest.mark.parametrize("reflectance", [False, True])
def test_changed_colours_equal_engineering_the_patch_with_these_colours(reflectance, darkest):
    """Of the bands that follow a change of B1 to B12, all agree with a patch that has these colours from the start.

    With dark pixels, less haze is taken away than was drawn.
    """
    raw = raw_patches(40, size=16) + darkest
    names = (*BAND_NAMES, "red_global", "green_global", "blue_global")
    band_settings = BandSettings(global_rgb=True, reflectance=reflectance)
    before, masks = with_all_bands(raw, band_settings), torch.zeros(40, 16, 16, dtype=torch.uint8)
    augment = Augmentation(
        AugmentationSettings(rotation_probability=0.0, max_pastes=0, band_gain=0.3, haze=0.2), names, band_settings
    )
    choices = augment.draw(40, generator())
    after, _ = augment(before, masks, [], choices)
    gains, haze = choices.gains.exp().numpy(), choices.haze.numpy()
    assert gains.min() < 0.8
    assert gains.max() > 1.25
    assert np.abs(haze).max() > 0.15
    nanometres = np.array([443, 492, 560, 665, 704, 741, 783, 833, 945, 1374, 1614, 2202])
    coloured = raw.copy()
    means = raw[:, :12].mean(axis=(2, 3), keepdims=True)
    coloured[:, :12] *= gains[:, :, None, None]
    shift = means * haze[:, None, None, None] * ((492 / nanometres) ** 2)[:, None, None]
    limited = np.maximum(shift, -coloured[:, :12].min(axis=(2, 3), keepdims=True))
    assert (limited > shift).any() == (darkest == 0)
    coloured[:, :12] += limited
    filtered = ("gaussian", "median", "gradient_x", "gradient_y", "canny")  # of a gray that is scaled per patch
    following = [i for i, name in enumerate(names) if name not in filtered]
    torch.testing.assert_close(
        after[:, following], with_all_bands(coloured, band_settings)[:, following], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("change", [{"illumination": 1.0}, {"band_gain": 1.0}, {"haze": 1.0}])
def test_changed_colours_are_reflectances_in_the_range_of_their_band(change):
    bands = ("B2", "B3", "B4", "B12", "gray", "red_global", "green_global", "blue_global")
    images = torch.rand(40, 8, 16, 16, generator=generator()) ** 4
    augment = augmentation(
        bands, BandSettings(global_rgb=True), rotation_probability=0.0, max_pastes=0, plain_epochs=0, **change
    )
    after, _ = augment(images, torch.zeros(40, 16, 16, dtype=torch.uint8), [], generator())
    assert after.min() >= 0
    assert after[:, :5].max() > 1.1
    assert after[:, 5:].max() == 1


def test_colours_of_bands_without_reflectance_cannot_change():
    settings = AugmentationSettings(haze=0.1)
    with pytest.raises(ConfigurationError, match="none of the selected bands is a reflectance: slope, ndvi"):
        Augmentation(settings, ("slope", "ndvi"), DEFAULTS)


def test_colours_change_without_the_sources_of_an_index():
    augment = augmentation(("ndvi", "slope", "gray", "B8"), rotation_probability=0.0, max_pastes=0, band_gain=0.3)
    before = numbered(8, channels=4)
    after, _ = augment(before, torch.zeros(8, 6, 6, dtype=torch.uint8), [], generator())
    assert torch.equal(after[:, :2], before[:, :2])
    assert (after[:, 2:] != before[:, 2:]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("mode", ["published", "consistent"])
def test_the_generator_determines_the_result_and_inputs_are_unchanged(mode):
    images, masks = with_all_bands(raw_patches(10, size=16)), block_masks(10, size=16)
    donors = [(with_all_bands(raw_patches(10, s, 16)), block_masks(10, s, 16)) for s in (1, 2)]
    copies = [t.clone() for t in (images, masks, *donors[0], *donors[1])]
    augment = augmentation(mode=mode, flips=True, illumination=0.3, band_gain=0.2, haze=0.2)
    torch.manual_seed(1)
    first = augment(images, masks, donors, generator(5))
    torch.manual_seed(2)
    again = augment(images, masks, donors, generator(5))
    other = augment(images, masks, donors, generator(6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    for before, after in zip(copies, (images, masks, *donors[0], *donors[1]), strict=True):
        assert torch.equal(before, after)


def test_the_global_random_state_is_unchanged():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augmentation(("B4",), flips=True)(numbered(4, channels=1), torch.zeros(4, 6, 6, dtype=torch.uint8), [], generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_defaults_are_those_of_the_paper():
    defaults = AugmentationSettings()
    assert (defaults.mode, defaults.rotation_probability, defaults.max_pastes) == ("published", 0.7, 2)
    assert (defaults.flips, defaults.illumination, defaults.plain_epochs) == (False, 0.0, 4)
    assert (defaults.band_gain, defaults.haze) == (0.0, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotation_probability": 1.1},
        {"rotation_probability": -0.1},
        {"max_pastes": -1},
        {"illumination": -0.1},
        {"illumination": 1.1},
        {"band_gain": -0.1},
        {"band_gain": 1.1},
        {"band_gain": float("nan")},
        {"haze": -0.1},
        {"haze": 1.1},
        {"plain_epochs": -1},
    ],
)
def test_settings_out_of_range_are_a_configuration_error(wrong):
    with pytest.raises(ConfigurationError, match=r"training\.augmentation has a value out of range"):
        AugmentationSettings(**wrong)
