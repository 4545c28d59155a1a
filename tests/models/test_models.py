"""The networks: sizes, shapes, layers compared with references, and requirements of every model."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from landslide.errors import ConfigurationError
from landslide.models import (
    MODEL_NAMES,
    ModelSpec,
    StandardizedModel,
    build_model,
    create_model,
    main_logits,
    model_from_options,
    trainable_parameters,
)
from landslide.models.attention import SqueezeExcitation
from landslide.models.blocks import (
    ChannelAffine,
    DoubleConv,
    ResConv,
    SameConv2d,
    SameConvTranspose2d,
    conv_bn_act,
)
from landslide.models.heads import MultiResolutionHeads, SingleHead

SMP_NETWORK = "smp:Unet:resnet18"
NARROW = {name: {"width": 8} for name in MODEL_NAMES} | {SMP_NETWORK: {"decoder_channels": (16, 8, 8, 8, 8)}}
EVERY_MODEL = [*MODEL_NAMES, SMP_NETWORK]

pytestmark = pytest.mark.usefixtures("one_thread")


def narrow(name: str, in_channels: int = 5, **options) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, in_channels, **NARROW[name] | options)


def patches(batch: int = 2, channels: int = 5, size: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


def fill(layer: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and bias of a layer a different value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


# ---- sizes


@pytest.mark.parametrize(
    ("name", "in_channels", "parameters"),
    [
        ("rau_net", 23, 24_876_294),
        ("rau_net", 21, 24_873_990),
        ("rau_net_small", 23, 2_599_710),
        ("unet", 14, 31_049_922),
        ("l4s_baseline", 14, 17_273_794),
    ],
)
def test_a_network_has_the_recorded_number_of_trainable_parameters(name, in_channels, parameters):
    with torch.device("meta"):
        assert trainable_parameters(create_model(name, in_channels)) == parameters


@pytest.mark.parametrize(("in_channels", "width", "head_width"), [(23, 128, 64), (5, 8, 64), (14, 16, 10)])
def test_the_rau_net_has_the_parameters_of_its_published_description(in_channels, width, head_width):
    def conv(i: int, o: int, side: int) -> int:
        return i * o * side**2 + o

    def res_conv(c: int) -> int:  # three convolutions with batch normalisation, squeeze and excitation
        return 2 * conv(c, c, 3) + conv(c, c, 2) + 3 * 2 * c + conv(c, c // 2, 1) + conv(c // 2, c, 1)

    decoder = [2 * width, 3 * width, 4 * width, 5 * width]
    expected = conv(in_channels, width, 3) + 2 * width + 4 * (res_conv(width) + conv(width, width, 2))
    expected += sum(conv(c - width, c - width, 2) + res_conv(c) for c in decoder)
    expected += 2 * (conv(5 * width, head_width, 3) + conv(head_width, 2, 1)) + conv(5 * width, 2, 1)
    model = create_model("rau_net", in_channels, width=width, head_width=head_width)
    assert trainable_parameters(model) == expected


def test_frozen_parameters_are_not_counted():
    layer = nn.Linear(3, 4)
    layer.bias.requires_grad_(False)
    assert trainable_parameters(layer) == 12


# ---- requirements of every model


@pytest.mark.parametrize("name", EVERY_MODEL)
class TestEveryModel:
    @pytest.mark.parametrize("size", [128, 64])
    def test_heads_give_finite_logits_of_their_resolution(self, name, size):
        model = narrow(name).eval()
        with torch.no_grad():
            logits = model(patches(1, size=size))
        sides = [2 * size, size, size // 2] if name.startswith("rau_net") else [size]
        assert {side: tuple(head.shape) for side, head in logits.items()} == {str(s): (1, 2, s, s) for s in sides}
        assert all(head.dtype == torch.float32 and head.isfinite().all() for head in logits.values())
        assert main_logits(logits, size) is logits[str(size)]

    def test_the_gradient_reaches_every_parameter(self, name):
        model = narrow(name).train()
        loss = sum((head * torch.randn_like(head)).sum() for head in model(patches()).values())
        loss.backward()
        parameters = dict(model.named_parameters())
        assert [n for n, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()] == []
        # A bias before a batch normalisation has no effect; every weight has one.
        assert [n for n, p in parameters.items() if p.ndim > 1 and p.grad.abs().max() == 0] == []

    def test_evaluation_is_deterministic_and_independent_of_the_batch(self, name):
        model = narrow(name).eval()
        batch = patches(3)
        with torch.no_grad():
            first, again = model(batch), model(batch)
            alone = model(batch[1:2])
        for side, head in first.items():
            assert torch.equal(head, again[side])
            torch.testing.assert_close(head[1:2], alone[side], rtol=1e-3, atol=1e-3)

    def test_a_change_of_any_band_changes_the_logits(self, name):
        batch = patches(1).repeat(6, 1, 1, 1)
        for band in range(5):
            batch[1 + band, band] += 1
        with torch.no_grad():
            logits = main_logits(narrow(name).eval()(batch), 32)
        assert ((logits[1:] - logits[0]).abs().flatten(1).amax(dim=1) > 1e-3).all()

    def test_weights_reload_into_a_model_of_the_same_specification(self, name):
        spec = ModelSpec(name, tuple("abcde"), NARROW[name], mean=(0.5,) * 5, std=(2.0,) * 5)
        torch.manual_seed(3)
        trained = build_model(spec)
        trained.train()(patches())  # moves the running statistics
        reloaded = build_model(spec, trained.state_dict())
        assert not reloaded.training
        with torch.no_grad():
            expected, found = trained.eval()(patches()), reloaded(patches())
        assert all(torch.equal(found[side], head) for side, head in expected.items())


@pytest.mark.parametrize("name", ["unet", "rau_net", "rau_net_small"])
def test_dropout_acts_only_in_training(name):
    model = narrow(name)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()
    with torch.no_grad():
        assert not torch.equal(main_logits(model(patches()), 32), main_logits(model(patches()), 32))


@pytest.mark.parametrize(
    ("name", "options", "recorded"),
    [
        ("rau_net", {}, "307fcb2e5b2e85bb"),
        ("rau_net", {"stem": "selu", "bottom_block": True, "attention": "none"}, "1312a770ff6d1887"),
        ("rau_net", {"attention": "multi_head"}, "6aee57bfb55c26ba"),
        ("rau_net", {"attention": "cbam", "attention_at": "concatenation"}, "6bd101a272878e1a"),
        ("rau_net_small", {}, "3a0c794470ee8c25"),
        ("unet", {}, "4b2c0d29124cd61e"),
        ("unet", {"block": "res_conv", "heads": 3, "attention": "se"}, "ab8ae84427acc2b1"),
        ("l4s_baseline", {}, "e95bc551cf22b84c"),
        ("lite_unet", {}, "2f2792f01da5dc56"),
        (SMP_NETWORK, {}, "5768717a5ace9c21"),
    ],
)
def test_weights_keep_their_names_shapes_and_order(name, options, recorded):
    with torch.device("meta"):
        weights = create_model(name, 5, **options).state_dict()
    listing = "\n".join(f"{key} {tuple(weight.shape)}" for key, weight in weights.items())
    found = hashlib.sha256(listing.encode()).hexdigest()[:16]
    assert found == recorded, f"weights trained before no longer load; they are now named:\n{listing}"


# ---- by name


def test_the_available_networks_are_listed():
    assert {"unet", "rau_net", "rau_net_small", "l4s_baseline"} <= set(MODEL_NAMES)


@pytest.mark.parametrize("name", ["rau_net_small", "l4s_baseline", SMP_NETWORK])
def test_the_number_of_bands_is_positional_or_keyword(name):
    networks = create_model(name, 5), create_model(name, in_channels=5), create_model(name=name, in_channels=5)
    shapes = [{key: weight.shape for key, weight in model.state_dict().items()} for model in networks]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", ["unet", SMP_NETWORK])
@pytest.mark.parametrize("option", ["name", "in_channels"])
def test_options_cannot_replace_the_name_or_the_number_of_bands(name, option):
    with pytest.raises(ConfigurationError, match=option):
        build_model(ModelSpec(name, ("B4",), {option: 3}))


@pytest.mark.parametrize("name", ["resnet", "", "RAU_Net", "rau_net "])
def test_an_unknown_model_is_a_configuration_error_that_lists_the_others(name):
    with pytest.raises(ConfigurationError, match="There is no model") as error:
        create_model(name, 14)
    assert all(known in error.value.remedy for known in MODEL_NAMES)


@pytest.mark.parametrize("name", EVERY_MODEL)
def test_an_unknown_option_is_a_configuration_error(name):
    with pytest.raises(ConfigurationError, match="depht"):
        create_model(name, 5, depht=3)


@pytest.mark.parametrize("name", ["smp:", "smp:Unet", "smp:Unet:resnet0", "smp:Vnet:resnet18", "smp:Unet:resnet18:x"])
def test_an_unknown_smp_network_is_a_configuration_error(name):
    with pytest.raises(ConfigurationError):
        create_model(name, 5)


def test_an_smp_network_needs_no_internet_and_accepts_the_librarys_options(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("an smp network without pretrained weights reached for the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    deep, shallow = create_model(SMP_NETWORK, 7), narrow(SMP_NETWORK, 7)
    assert trainable_parameters(shallow) < trainable_parameters(deep)
    with torch.no_grad():
        assert shallow.eval()(patches(1, 7))["32"].shape == (1, 2, 32, 32)


# ---- specification and standardisation


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("unet", ("B4", "B3", "B2")),
        ModelSpec("rau_net", ("B4", "ndvi"), {"width": 8, "dropout": 0.1}, mean=(0.1, -0.2), std=(1.5, 1 / 3)),
    ],
)
def test_a_specification_survives_json(spec):
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_standardised_model_applies_its_network_to_standardised_bands():
    network = narrow("unet", 3).eval()
    mean, std = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 0.1, 4.0])
    model = StandardizedModel(network, mean, std).eval()
    x = patches(2, 3, 32)
    with torch.no_grad():
        expected = network(torch.stack([(x[:, i] - mean[i]) / std[i] for i in range(3)], dim=1))["32"]
        torch.testing.assert_close(model(x)["32"], expected)
    assert trainable_parameters(model) == trainable_parameters(network)
    assert model.state_dict()["mean"].flatten().tolist() == mean.tolist()
    assert model.state_dict()["std"].flatten().tolist() == std.tolist()


def test_a_specification_without_statistics_does_not_standardise():
    assert not isinstance(build_model(ModelSpec("unet", ("B4",), {"width": 4})), StandardizedModel)
    with_statistics = ModelSpec("unet", ("B4",), {"width": 4}, mean=(1.0,), std=(2.0,))
    model = build_model(with_statistics)
    assert isinstance(model, StandardizedModel)
    assert (model.mean.tolist(), model.std.tolist()) == ([[[1.0]]], [[[2.0]]])


# ---- layers


def convolution_reference(
    image: np.ndarray, kernel: np.ndarray, bias: np.ndarray, before: int, after: int, stride: int
):
    """Convolution, pixel by pixel: (C, H, W) padded with zeros before (top, left) and after (bottom, right)."""
    padded = np.pad(image, ((0, 0), (before, after), (before, after)))
    side = kernel.shape[-1]
    size = (padded.shape[1] - side) // stride + 1
    result = np.empty((len(kernel), size, size))
    for o, row, column in np.ndindex(result.shape):
        top, left = row * stride, column * stride
        result[o, row, column] = (padded[:, top : top + side, left : left + side] * kernel[o]).sum() + bias[o]
    return result


@pytest.mark.parametrize(
    ("side", "stride", "before", "after"), [(3, 1, 1, 1), (2, 1, 0, 1), (2, 2, 0, 0), (3, 2, 0, 1), (1, 1, 0, 0)]
)
def test_same_convolution_pads_at_the_bottom_and_right_first(side, stride, before, after):
    layer = fill(SameConv2d(2, 3, side, stride)).double()
    image = patches(1, 2, 8).double()
    expected = convolution_reference(
        image[0].numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy(), before, after, stride
    )
    assert expected.shape == (3, 8 // stride, 8 // stride)
    np.testing.assert_allclose(layer(image)[0].detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_the_2x2_convolution_covers_the_pixels_to_the_right_and_below():
    layer = SameConv2d(1, 1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]))
        layer.bias.zero_()
        result = layer(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert result.tolist() == [[[[4321.0, 402.0], [43.0, 4.0]]]]


@pytest.mark.parametrize("side", [2, 3])
def test_transposed_convolution_doubles_the_sides_and_crops_at_the_bottom_and_right(side):
    layer = fill(SameConvTranspose2d(2, 3, side)).double()
    image = patches(1, 2, 5).double()
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    canvas = np.zeros((3, 2 * 5 + side, 2 * 5 + side))
    for i, row, column in np.ndindex(2, 5, 5):  # each pixel adds its kernel
        top, left = 2 * row, 2 * column
        canvas[:, top : top + side, left : left + side] += image[0, i, row, column].item() * weight[i]
    expected = canvas[:, :10, :10] + bias[:, None, None]
    np.testing.assert_allclose(layer(image)[0].detach().numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("width", "reduction"), [(8, 2), (6, 3)])
def test_squeeze_and_excitation_scales_channels_by_a_gate_of_their_averages(width, reduction):
    layer = fill(SqueezeExcitation(width, reduction)).double()
    x = patches(2, width, 7).double()
    w1, b1, w2, b2 = (p.detach().numpy() for p in layer.parameters())
    assert w1.shape == (width // reduction, width)
    squeezed = x.numpy().mean(axis=(2, 3)) @ w1.T + b1
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    excited = scale * np.where(squeezed > 0, squeezed, alpha * (np.exp(squeezed) - 1)) @ w2.T + b2
    expected = x.numpy() / (1 + np.exp(-excited))[:, :, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)


def test_convolution_blocks_use_the_normalisation_and_leaky_relu_of_keras():
    block = fill(conv_bn_act(2, 4, 3)).double()
    conv, norm, _ = block
    x = patches(3, 2, 6).double()
    y = conv(x).detach().numpy()
    mean, variance = y.mean(axis=(0, 2, 3)), y.var(axis=(0, 2, 3))
    gamma, beta = norm.weight.detach().numpy(), norm.bias.detach().numpy()

    def shaped(v: np.ndarray) -> np.ndarray:
        return v[:, None, None]

    z = (y - shaped(mean)) / np.sqrt(shaped(variance) + 1e-3) * shaped(gamma) + shaped(beta)
    np.testing.assert_allclose(block(x).detach().numpy(), np.where(z > 0, z, 0.3 * z), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.01 * mean, rtol=1e-6)


def test_a_residual_block_sums_both_kernels_and_adds_its_input_after_attention():
    class Double(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    x = patches(2, 4, 8)
    block = ResConv(4, Double()).eval()
    expected = 2 * block.merge(block.branch_3x3(x) + block.branch_2x2(x)) + x
    torch.testing.assert_close(block(x), expected)
    assert block.branch_3x3[0].kernel_size == (3, 3)
    assert block.branch_2x2[0].kernel_size == (2, 2)
    assert isinstance(ResConv(4).attention, nn.Identity)


def test_a_double_convolution_is_two_blocks_in_a_row():
    block = DoubleConv(3, 6).eval()
    x = patches(1, 3, 8)
    torch.testing.assert_close(block(x), block[1](block[0](x)))
    assert [part[0].kernel_size for part in block] == [(3, 3), (3, 3)]


def test_heads_have_the_published_layers():
    heads, x = MultiResolutionHeads(6, head_width=4).eval(), patches(1, 6, 16)
    logits = heads(x)
    assert {side: tuple(head.shape) for side, head in logits.items()} == {
        "32": (1, 2, 32, 32),
        "16": (1, 2, 16, 16),
        "8": (1, 2, 8, 8),
    }
    for side, path in (("32", heads.double_resolution), ("8", heads.half_resolution)):
        first, _, last = path
        torch.testing.assert_close(logits[side], last(first(x).clamp_min(0)))
        assert (first.kernel_size, first.stride, last.kernel_size) == ((3, 3), (2, 2), (1, 1))
    assert isinstance(heads.double_resolution[0], nn.ConvTranspose2d)
    torch.testing.assert_close(logits["16"], heads.same_resolution(x))
    assert heads.dropout.p == 0.25
    single = SingleHead(6).eval()
    torch.testing.assert_close(single(x)["16"], single.same_resolution(x))
    assert single.dropout.p == 0.2


@pytest.mark.parametrize("name", ["unet", "rau_net", "rau_net_small"])
def test_initial_weights_are_he_normal_and_biases_zero(name):
    torch.manual_seed(0)
    model = create_model(name, 23, width=32)
    checked = 0
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert (layer.bias == 0).all()
            weight = layer.weight
            if weight.numel() >= 4000:
                fan_in = weight[0].numel()
                spread = weight.std().item() / math.sqrt(2 / fan_in)
                assert spread == pytest.approx(1, abs=4 / math.sqrt(2 * weight.numel()))
                checked += 1
    assert checked >= 10


def test_the_rau_net_encoder_halves_the_map_four_times_at_constant_width():
    model = narrow("rau_net").eval()
    seen: list[tuple[int, ...]] = []
    for module in (*model.encoder, *model.decoder):
        module.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[1:])))
    with torch.no_grad():
        model(patches(1, size=128))
    assert seen == [
        *((8, 128, 128), (8, 64, 64), (8, 32, 32), (8, 16, 16)),
        *((16, 16, 16), (24, 32, 32), (32, 64, 64), (40, 128, 128)),
    ]


@pytest.mark.parametrize("name", ["unet", "rau_net"])
def test_a_decoder_block_receives_the_upsampled_map_and_the_skip_of_its_level(name):
    model = narrow(name).eval()
    skips, risen, inputs = [], [], []
    for into, modules in ((skips, model.encoder), (risen, model.upsample)):
        for module in modules:
            module.register_forward_hook(lambda _m, _i, out, into=into: into.append(out))
    for module in model.decoder:
        module.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        model(patches(1))
    for seen, skip, up in zip(inputs, reversed(skips), risen, strict=True):
        assert torch.equal(seen, torch.cat([skip, up] if name == "unet" else [up, skip], dim=1))


# ---- as in the authors' record


RECORD = {"normalization": "affine", "initialization": "keras", "dropout": 0.0}


@pytest.mark.parametrize(("name", "in_channels", "parameters"), [("rau_net", 23, 24_876_294), ("unet", 14, 31_049_922)])
def test_the_affine_map_has_the_parameters_of_batch_normalisation_and_no_statistics(name, in_channels, parameters):
    with torch.device("meta"):
        model = create_model(name, in_channels, **RECORD)
        usual = create_model(name, in_channels)
    assert trainable_parameters(model) == parameters
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert list(model.state_dict()) == [key for key in usual.state_dict() if not key.endswith(statistics)]


def test_the_affine_map_is_a_scale_and_a_shift_in_training_and_in_testing():
    x, layer = patches(batch=3, channels=4), fill(ChannelAffine(4))
    scale, shift = (tensor.detach().numpy()[:, None, None] for tensor in (layer.weight, layer.bias))
    expected = x.numpy() * scale / math.sqrt(1 + 1e-3) + shift
    np.testing.assert_allclose(layer.train()(x).detach(), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.eval()(x).detach(), expected, rtol=1e-6, atol=1e-6)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}


@pytest.mark.parametrize("name", ["rau_net", "unet"])
def test_a_network_of_the_record_computes_the_same_in_training_whatever_the_batch(name):
    model = narrow(name, **RECORD).train()
    x = patches(batch=3)
    together = main_logits(model(x), 32)
    alone = torch.cat([main_logits(model(x[i : i + 1]), 32) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(main_logits(model.eval()(x), 32), together, rtol=1e-4, atol=1e-5)


def test_the_initial_weights_are_those_of_keras():
    torch.manual_seed(0)
    model = create_model("rau_net", 23, width=32, **RECORD)
    glorot = [model.heads.same_resolution, model.heads.half_resolution[2], model.heads.double_resolution[2]]
    glorot += [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight = layer.weight.detach()
        n_out, n_in = weight.shape[:2] if not isinstance(layer, nn.ConvTranspose2d) else weight.shape[1::-1]
        area = weight[0, 0].numel()
        if any(layer is one for one in glorot):
            limit = math.sqrt(6 / ((n_in + n_out) * area))
            deviation = limit / math.sqrt(3)
        else:
            fan_in = area * (n_out if isinstance(layer, nn.ConvTranspose2d) else n_in)  # as Keras counts it
            deviation = math.sqrt(2 / fan_in)
            limit = 2 * deviation / 0.87962566
        assert weight.abs().max() <= limit * (1 + 1e-6)
        if weight.numel() > 500:
            assert weight.abs().max() > 0.9 * limit
            assert weight.std().item() == pytest.approx(deviation, rel=0.1)
        assert (layer.bias == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization": "affine", "batch_norm_momentum": 0.1}, "has no effect: normalization is affine"),
        ({"normalization": "none"}, "normalization is 'none'"),
        ({"initialization": "xavier"}, "initialization is 'xavier'"),
    ],
)
@pytest.mark.parametrize("name", ["rau_net", "unet"])
def test_options_of_the_record_are_checked(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        narrow(name, **options)


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("options", [{"width:8": None}, {"depth": 3}, {8: None}])
def test_unknown_options_are_refused_with_the_valid_ones(name, options):
    with pytest.raises(ConfigurationError) as error:
        model_from_options(name, 14, options)
    assert f"does not take the option '{next(iter(options))}'" in error.value.what
    assert re.search(r"It takes [a-z_, ]*\bwidth\b", error.value.remedy)
    assert ("a blank follows the colon" in error.value.remedy) == ("width:8" in options)
