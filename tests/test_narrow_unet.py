"""The network of our recipe: its two views of the bands, its blocks, and where it has attention."""

import numpy as np
import pytest
import torch
from torch import nn

from landslide.errors import ConfigurationError
from landslide.models import create_model, trainable_parameters
from landslide.models.attention import SqueezeExcitation
from landslide.models.narrow_unet import BasicBlock, NarrowUNet

SIDE = 32

pytestmark = pytest.mark.usefixtures("one_thread")


def network(**options) -> NarrowUNet:
    torch.manual_seed(0)
    return create_model("narrow_unet", 5, **{"width": 4, **options}).eval()


def patches(gain: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    """(2, 5, SIDE, SIDE) float32, bands of different mean and deviation."""
    random = np.random.default_rng(1).normal(size=(2, 5, SIDE, SIDE))
    values = random * np.array([0.5, 1, 3, 1, 20])[:, None, None] + np.array([0, 5, -2, 100, 7])[:, None, None]
    return torch.from_numpy(gain * values + offset).float()


def stem_input(model: NarrowUNet, x: torch.Tensor) -> np.ndarray:
    seen = []
    handle = model.stem.register_forward_pre_hook(lambda _m, args: seen.append(args[0].double().numpy()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return seen[0]


def standardized(x: torch.Tensor) -> np.ndarray:
    values = x.double().numpy()
    mean, variance = (f(values, axis=(2, 3), keepdims=True) for f in (np.mean, np.var))
    return (values - mean) / np.sqrt(variance + 1e-5)


# ---- bands relative to their patch


def test_the_relative_half_of_the_input_is_every_band_without_its_mean_over_its_deviation():
    x = patches()
    seen = stem_input(network(relative=True), x)
    np.testing.assert_array_equal(seen[:, :5], x.double().numpy())
    np.testing.assert_allclose(seen[:, 5:], standardized(x), atol=1e-4)


def test_other_light_changes_the_absolute_half_alone():
    model = network(relative=True)
    usual, bright = stem_input(model, patches()), stem_input(model, patches(gain=1.7, offset=3))
    np.testing.assert_allclose(bright[:, 5:], usual[:, 5:], atol=1e-3)
    assert np.abs(bright[:, :5] - usual[:, :5]).min(axis=(0, 2, 3)).max() > 1


def test_each_patch_is_relative_to_itself():
    model, x = network(relative=True), patches()
    alone = np.concatenate([stem_input(model, one[None]) for one in x])
    np.testing.assert_allclose(stem_input(model, x), alone, atol=1e-5)


def test_a_band_that_is_the_same_everywhere_is_zero_in_the_relative_half():
    x = patches()
    x[:, 2] = 3.0
    seen = stem_input(network(relative=True), x)
    assert np.abs(seen[:, 7]).max() < 1e-3  # rounding of the mean, over the root of the epsilon
    assert np.isfinite(seen).all()


def test_training_and_evaluation_see_the_same_relative_bands():
    model, x = network(relative=True), patches()
    evaluated = stem_input(model, x)
    np.testing.assert_array_equal(stem_input(model.train(), x), evaluated)


def test_without_relative_the_network_sees_the_bands_alone():
    x = patches()
    np.testing.assert_array_equal(stem_input(network(), x), x.double().numpy())
    more = trainable_parameters(network(relative=True)) - trainable_parameters(network())
    assert more == 5 * 4 * 3 * 3  # the stem's weights for five more inputs


# ---- blocks and attention


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_every_level_below_full_resolution_has_so_many_blocks(blocks):
    model = network(blocks=blocks)
    assert [len(level) for level in model.encoder] == [blocks] * 4
    assert all(isinstance(block, BasicBlock) for level in model.encoder for block in level)
    strides = [[block.first[0][0].stride[0] for block in level] for level in model.encoder]
    assert strides == [[2] + [1] * (blocks - 1)] * 4


def test_a_further_block_costs_two_convolutions_and_where_maps_are_small_the_attention():
    more = trainable_parameters(network(blocks=3)) - trainable_parameters(network(blocks=2))
    convolutions = sum(2 * (9 * c * c + 2 * c) for c in (8, 16, 32, 64))
    attention = sum(2 * c * (c // 4) + c // 4 + c for c in (16, 32, 64))
    assert more == convolutions + attention


def test_the_levels_of_32_pixels_and_below_have_attention_and_no_other():
    model = create_model("narrow_unet", 5, width=4).eval()
    sides = {}
    for i, level in enumerate(model.encoder):
        for j, block in enumerate(level):
            block.attention.register_forward_hook(
                lambda layer, _x, out, at=(i, j): sides.update({at: (out.shape[-1], type(layer))})
            )
    with torch.no_grad():
        model(torch.zeros(1, 5, 128, 128))
    expected = {0: (64, nn.Identity), 1: (32, SqueezeExcitation), 2: (16, SqueezeExcitation), 3: (8, SqueezeExcitation)}
    assert sides == {(level, block): expected[level] for level in range(4) for block in range(2)}


@pytest.mark.parametrize(("option", "value"), [("blocks", 0), ("width", 0), ("blocks", 1.5)])
def test_an_impossible_size_is_named(option, value):
    with pytest.raises(ConfigurationError, match=f"{option} is {value}"):
        network(**{option: value})
