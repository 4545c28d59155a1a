"""The CPU's own weight gradient against PyTorch's in float64, and where it is used."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from landslide.models import cpu_layers, create_model
from landslide.models.blocks import SameConv2d


@pytest.fixture
def avx2(monkeypatch):
    """A processor that gains from the gradient, whatever this one is."""
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
def test_gradients_are_those_of_pytorch_in_float64(batch, channels, size, kernel, padding, channels_last):
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


def test_the_gradient_lies_in_memory_as_channels_last_weights_do():
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
def test_wide_convolutions_of_stride_one_use_it(changed, used):
    module = layer(**changed)
    output = module(torch.randn(2, module.in_channels, 8, 8))
    assert ("_Convolution" in type(output.grad_fn).__name__) == used


@pytest.mark.usefixtures("avx2")
def test_it_is_not_used_without_gradients_in_other_precision_or_with_frozen_weights():
    x, module = torch.randn(2, 24, 8, 8), layer()
    assert cpu_layers.suits(x, module.weight)
    with torch.no_grad():
        assert not cpu_layers.suits(x, module.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not cpu_layers.suits(x, module.weight)
        assert module(x).dtype == torch.bfloat16
    assert not cpu_layers.suits(x.double(), module.double().weight)
    assert not cpu_layers.suits(x, layer().requires_grad_(False).weight)


def test_it_is_not_used_on_a_processor_that_has_a_fast_one(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not cpu_layers.suits(torch.randn(2, 24, 8, 8), layer().weight)


@pytest.mark.usefixtures("avx2")
def test_a_network_learns_as_with_pytorchs_gradient(monkeypatch):
    def gradients_of_network():
        torch.manual_seed(0)
        model = create_model("rau_net", 3, width=24, head_width=4, dropout=0.0).to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        sum(logits.square().mean() for logits in model(x).values()).backward()
        return [parameter.grad for parameter in model.parameters()]

    ours = gradients_of_network()
    monkeypatch.setattr(cpu_layers, "suits", lambda x, weight: False)
    for one, other in zip(ours, gradients_of_network(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
