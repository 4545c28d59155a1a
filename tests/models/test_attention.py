"""The attention layers compared with float64 NumPy, and their errors."""

import numpy as np
import pytest
import torch
from torch import nn

from landslide.errors import ConfigurationError
from landslide.models.attention import (
    ATTENTION_NAMES,
    CBAM,
    MultiHeadAttention,
    SelfAttention,
    SqueezeExcitation,
    create_attention,
)
from landslide.models.blocks import initialize_weights

Arrays = dict[str, np.ndarray]


def with_random_weights(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and bias a different value, in float64."""
    generator = torch.Generator().manual_seed(seed)
    layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
    return layer


def arrays(layer: nn.Module) -> Arrays:
    return {name: value.detach().numpy() for name, value in layer.state_dict().items()}


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def self_attention(tokens: np.ndarray, w: Arrays, heads: int) -> np.ndarray:
    """Multi-head self-attention of one map (rows, features), head by head and row by row."""

    def project(name: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    query, key, value = (project(name, tokens) for name in ("query", "key", "value"))
    size = query.shape[1] // heads
    joined = np.empty_like(query)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for row in range(len(tokens)):
            affinity = np.array([query[row, part] @ other for other in key[:, part]]) / np.sqrt(size)
            share = np.exp(affinity - affinity.max())
            joined[row, part] = share / share.sum() @ value[:, part]
    return project("output", joined)


@pytest.mark.parametrize(("rows", "features", "heads", "key_size"), [(5, 7, 3, 2), (4, 4, 6, 12), (1, 3, 1, 5)])
def test_self_attention_is_scaled_dot_product_attention_of_every_head(rows, features, heads, key_size):
    layer = with_random_weights(SelfAttention(features, heads, key_size))
    x = images(2, rows, features)
    expected = [self_attention(one, arrays(layer), heads) for one in x.numpy()]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_self_attention_has_the_parameters_of_the_keras_layer():
    layer = SelfAttention(20, heads=6, key_size=12)
    kernels_and_biases = 3 * (20 * 6 * 12 + 6 * 12) + (6 * 12 * 20 + 20)
    assert sum(p.numel() for p in layer.parameters()) == kernels_and_biases


@pytest.mark.parametrize("pooling", ["mean", "mean_max"])
def test_multi_head_attention_averages_the_input_scaled_along_each_axis(pooling):
    layer = with_random_weights(MultiHeadAttention(5, 4, heads=2, key_size=3, pooling=pooling))
    w = arrays(layer)
    x = images(3, 5, 4, 4)
    poolings = [np.mean] if pooling == "mean" else [np.mean, np.max]

    def weights(name: str, channels_last: np.ndarray, axis: int) -> np.ndarray:
        own = {key.removeprefix(name + "."): value for key, value in w.items() if key.startswith(name)}
        return sigmoid(sum(self_attention(pool(channels_last, axis=axis), own, 2) for pool in poolings))

    for found, one in zip(layer(x).detach().numpy(), x.numpy(), strict=True):
        hwc = one.transpose(1, 2, 0)
        channel = hwc * weights("over_channels", hwc, 2)[:, :, None]
        width = hwc * weights("over_width", hwc, 1)[:, None, :]
        height = hwc * weights("over_height", hwc, 0)[None, :, :]
        expected = (channel + width + height) / 3
        np.testing.assert_allclose(found.transpose(1, 2, 0), expected, rtol=1e-10, atol=1e-10)


def test_each_of_the_three_maps_has_its_attention_with_six_heads_of_twelve():
    layer = MultiHeadAttention(width=10, side=8)
    assert {name: (part.query.in_features, part.query.out_features) for name, part in layer.named_children()} == {
        "over_channels": (8, 72),
        "over_width": (10, 72),
        "over_height": (10, 72),
    }
    assert all(part.heads == 6 for part in layer.children())


def test_added_maximum_pooling_has_no_parameters():
    def shapes(pooling: str) -> dict[str, torch.Size]:
        state = MultiHeadAttention(6, 8, pooling=pooling).state_dict()
        return {name: value.shape for name, value in state.items()}

    assert shapes("mean") == shapes("mean_max")


@pytest.mark.parametrize("shape", [(1, 6, 16, 16), (1, 6, 8, 16), (1, 6, 16, 8)])
def test_multi_head_attention_refuses_another_map_size_with_a_remedy(shape):
    with pytest.raises(ConfigurationError, match=f"8 x 8 pixels and got {shape[2]} x {shape[3]}") as error:
        MultiHeadAttention(6, 8)(torch.zeros(shape))
    assert "patch_size" in error.value.remedy
    assert "training.crop" in error.value.remedy


def test_self_attention_keeps_glorot_weights_in_a_network_with_he_normal_weights():
    torch.manual_seed(0)
    layers = nn.Sequential(SelfAttention(200, 6, 12), nn.Linear(200, 72))
    initialize_weights(layers, "he_normal")
    limit = np.sqrt(6 / (200 + 72))
    for weight in (layers[0].query.weight, layers[0].output.weight):
        assert weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert layers[1].weight.abs().max().item() > 2 * limit
    assert all((p == 0).all() for name, p in layers.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(("width", "reduction", "kernel"), [(8, 2, 3), (8, 8, 7), (4, 16, 7)])
def test_cbam_gates_channels_and_then_pixels(width, reduction, kernel):
    layer = with_random_weights(CBAM(width, reduction, kernel))
    w = arrays(layer)
    assert w["channel.0.weight"].shape == (max(1, width // reduction), width)
    x = images(2, width, 6, 6)

    def perceptron(pooled: np.ndarray) -> np.ndarray:
        hidden = np.maximum(w["channel.0.weight"] @ pooled + w["channel.0.bias"], 0)
        return w["channel.2.weight"] @ hidden + w["channel.2.bias"]

    for found, one in zip(layer(x).detach().numpy(), x.numpy(), strict=True):
        flat = one.reshape(width, -1)
        one = one * sigmoid(perceptron(flat.mean(axis=1)) + perceptron(flat.max(axis=1)))[:, None, None]
        pooled = np.pad([one.mean(axis=0), one.max(axis=0)], ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
        gate = np.array(
            [
                [(pooled[:, r : r + kernel, c : c + kernel] * w["spatial.weight"][0]).sum() for c in range(6)]
                for r in range(6)
            ]
        )
        np.testing.assert_allclose(found, one * sigmoid(gate + w["spatial.bias"]), rtol=1e-10, atol=1e-10)


def test_a_bottleneck_keeps_one_unit_in_a_narrow_network():
    assert SqueezeExcitation(4, reduction=16).excite[0].out_features == 1


@pytest.mark.parametrize("name", ATTENTION_NAMES)
def test_every_attention_keeps_the_shape_and_has_weights_between_0_and_1(name):
    torch.manual_seed(0)
    x = images(2, 6, 16, 16).float()
    result = create_attention(name, 6, 16)(x)
    assert result.shape == x.shape
    assert ((result / x > 0) & (result / x <= 1)).all()
    assert torch.equal(result, x) == (name == "none")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SE", {}, "attention is 'SE'"),
        ("none", {"reduction": 2}, "'reduction'"),
        ("se", {"heads": 2}, "'heads'"),
        ("se", {"width": 2}, "'width'"),
        ("se", {"reduction": 0}, "reduction is 0"),
        ("cbam", {"kernel": 4}, "kernel .* is 4"),
        ("cbam", {"reduction": 2.5}, "reduction is 2.5"),
        ("multi_head", {"side": 3}, "'side'"),
        ("multi_head", {"pooling": "max"}, "pooling is 'max'"),
        ("multi_head", {"heads": True}, "heads is True"),
    ],
)
def test_an_impossible_attention_is_a_configuration_error_that_names_it(name, options, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        create_attention(name, 8, 16, options)
    assert error.value.remedy
