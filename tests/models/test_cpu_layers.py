"""The CPU layers compute the same as PyTorch's layers, and act on CPU tensors only."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from landslide.models import cpu_layers, create_model
from landslide.models.blocks import SameConv2d, SameConvTranspose2d
from landslide.training.losses import LOSS_NAMES, create_loss, multi_head_loss

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

NETWORKS = {
    "rau_net": {"width": 16, "head_width": 8, "dropout": 0.0},
    "rau_net_small": {"width": 8, "dropout": 0.0},
    "unet": {"width": 8, "heads": 3, "dropout": 0.0},
}


@pytest.fixture
def avx2(monkeypatch):
    """Simulate a processor on which the fast gradient pays off."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def gradients(function, x, weight, bias, upstream, padding):
    inputs = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    output = function(*inputs, padding=padding)
    output.backward(upstream)
    return [output.detach(), *(tensor.grad for tensor in inputs)]


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(4, 11), st.integers(4, 11)),
    kernel=st.integers(1, 4),
    padding=st.integers(0, 2),
    channels_last=st.booleans(),
)
def test_gradients_equal_those_of_pytorch_in_float64(batch, channels, size, kernel, padding, channels_last):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels[0], *size, generator=generator)
    weight = torch.randn(channels[1], channels[0], kernel, kernel, generator=generator)
    bias = torch.randn(channels[1], generator=generator)
    if channels_last:
        x, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, weight))
    upstream = torch.randn(F.conv2d(x, weight, padding=padding).shape, generator=generator)
    found = gradients(cpu_layers.conv2d, x, weight, bias, upstream, padding)
    expected = gradients(F.conv2d, x.double(), weight.double(), bias.double(), upstream.double(), padding)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-3)


def test_the_weight_gradient_is_channels_last():
    x, upstream = torch.randn(2, 5, 8, 8), torch.randn(2, 6, 8, 8)
    gradient = cpu_layers.weight_gradient(x, upstream, 1)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def layer(in_channels: int = 24, out_channels: int = 24, kernel: int = 3, stride: int = 1) -> SameConv2d:
    return SameConv2d(in_channels, out_channels, kernel, stride)


@pytest.mark.parametrize(
    ("changed", "used"),
    [({}, True), ({"kernel": 2}, True), ({"stride": 2}, False), ({"in_channels": 23}, False), ({"kernel": 1}, False)],
)
@pytest.mark.usefixtures("avx2")
def test_the_fast_gradient_is_used_by_wide_convolutions_of_stride_one(changed, used):
    module = layer(**changed)
    output = module(torch.randn(2, module.in_channels, 8, 8))
    assert ("_Convolution" in type(output.grad_fn).__name__) == used


@pytest.mark.usefixtures("avx2")
def test_the_fast_gradient_needs_float32_and_trainable_weights():
    x, module = torch.randn(2, 24, 8, 8), layer()
    assert cpu_layers.use_matmul_weight_gradient(x, module.weight)
    with torch.no_grad():
        assert not cpu_layers.use_matmul_weight_gradient(x, module.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not cpu_layers.use_matmul_weight_gradient(x, module.weight)
        assert module(x).dtype == torch.bfloat16
    assert not cpu_layers.use_matmul_weight_gradient(x.double(), module.double().weight)
    assert not cpu_layers.use_matmul_weight_gradient(x, layer().requires_grad_(False).weight)


def test_the_fast_gradient_is_not_used_if_pytorchs_is_fast(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not cpu_layers.use_matmul_weight_gradient(torch.randn(2, 24, 8, 8), layer().weight)


@pytest.mark.usefixtures("avx2")
def test_gradients_of_a_network_equal_those_with_pytorchs_weight_gradient():
    def gradients_of_network():
        torch.manual_seed(0)
        model = create_model("rau_net", 3, width=24, head_width=4, dropout=0.0).to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        sum(logits.square().mean() for logits in model(x).values()).backward()
        return [parameter.grad for parameter in model.parameters()]

    ours = gradients_of_network()
    with cpu_layers.switched_off(["weight_gradient"]):
        theirs = gradients_of_network()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


# ---- transposed convolution


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_transposed_convolution_accepts_both_memory_formats_and_odd_sides(memory_format):
    torch.manual_seed(0)
    layer = SameConvTranspose2d(3, 4, 3)
    x = torch.randn(2, 3, 5, 7).contiguous(memory_format=memory_format)
    torch.testing.assert_close(layer(x), nn.ConvTranspose2d.forward(layer, x)[..., :10, :14])


# ---- whole networks


@pytest.mark.parametrize("layer", ["conv_transpose2d", "conv2d"])
@pytest.mark.usefixtures("avx2")
def test_cpu_layers_act_only_on_the_cpu_and_can_be_switched_off(layer, monkeypatch):
    class ReachedError(Exception):
        pass

    def reached(*args):
        raise ReachedError

    monkeypatch.setattr(cpu_layers, layer, reached)
    model, x = create_model("rau_net", 5, width=24, head_width=24), torch.randn(1, 5, 32, 32)
    with pytest.raises(ReachedError):
        model(x)
    with cpu_layers.switched_off():
        model(x)
    with pytest.raises(ReachedError):
        model(x)
    model.to("meta")(x.to("meta"))


def batch(channels: int = 5, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, channels, size, size, generator=generator)
    masks = (images[:, :2].mean(dim=1) > 0.5).long()  # learnable, with both classes in every patch
    return images, masks


def loss_and_gradients(name: str, loss: str, *, fast: bool, size: int = 32, autocast: bool = False):
    torch.manual_seed(0)
    model = create_model(name, 5, **NETWORKS[name])
    images, masks = batch(size=size)
    if fast:
        model, images = (each.to(memory_format=torch.channels_last) for each in (model, images))
    off = () if fast else cpu_layers.CPU_LAYERS
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), cpu_layers.switched_off(off):
        value = multi_head_loss(model(images), masks, create_loss(loss))
    value.backward()
    return value.item(), {key: weight.grad.double().flatten() for key, weight in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "loss"),
    [  # every loss with one network, and every network with one loss; the other pairs take long
        (name, loss) if name == "unet" or loss == "focal_iou" else pytest.param(name, loss, marks=pytest.mark.soak)
        for name in NETWORKS
        for loss in LOSS_NAMES
    ],
)
def test_losses_and_gradients_equal_the_plain_network_in_float32(name, loss):
    value, gradients = loss_and_gradients(name, loss, fast=True)
    expected, plain_gradients = loss_and_gradients(name, loss, fast=False)
    assert value == pytest.approx(expected, rel=1e-4)
    scale = max(gradient.norm() for gradient in plain_gradients.values())
    for key, gradient in plain_gradients.items():
        error = (gradients[key] - gradient).norm()
        assert error <= 2e-3 * gradient.norm() + 1e-5 * scale, key


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_equal_the_plain_network_in_float64(name):
    # Losses are computed in float32; this loss keeps full precision.
    def squares(*, fast: bool):
        torch.manual_seed(0)
        model = create_model(name, 5, **NETWORKS[name]).double()
        if fast:
            model = model.to(memory_format=torch.channels_last)
        with cpu_layers.switched_off(() if fast else cpu_layers.CPU_LAYERS):
            sum(logits.square().mean() for logits in model(batch()[0].double()).values()).backward()
        return [weight.grad for weight in model.parameters()]

    for one, other in zip(squares(fast=True), squares(fast=False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("loss", ["focal_iou", "cross_entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_bf16_point_in_the_direction_of_plain_float32(name, loss):
    value, gradients = loss_and_gradients(name, loss, fast=True, size=64, autocast=True)
    expected, plain_gradients = loss_and_gradients(name, loss, fast=False, size=64)
    assert value == pytest.approx(expected, rel=2e-2)
    one, other = (torch.cat(list(each.values())) for each in (gradients, plain_gradients))
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"rau_net_small"}))  # it has the blocks of the RAU-Net
def test_a_network_compiles_without_graph_breaks(name):
    torch.manual_seed(0)
    model = create_model(name, 5, **NETWORKS[name] | {"dropout": 0.5}).to(memory_format=torch.channels_last).train()
    whole = torch.compile(model, backend="eager", fullgraph=True)
    sum(logits.square().mean() for logits in whole(batch()[0]).values()).backward()
    assert all(weight.grad is not None for weight in model.parameters())
