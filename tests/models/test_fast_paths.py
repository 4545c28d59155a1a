"""The layers that are made for speed against PyTorch's own, loss by loss and gradient by gradient."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain import PlainConv2d, plain
from landslide.models import create_model
from landslide.models.attention import ATTENTION_NAMES, create_attention
from landslide.models.blocks import SELU, Dropout, SameConvTranspose2d
from landslide.training.losses import LOSS_NAMES, create_loss, multi_head_loss

NETWORKS = {
    "rau_net": {"width": 16, "head_width": 8, "dropout": 0.0},
    "rau_net_small": {"width": 8, "dropout": 0.0},
    "unet": {"width": 8, "heads": 3, "dropout": 0.0},
}


def batch(channels: int = 5, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, channels, size, size, generator=generator)
    masks = (images[:, :2].mean(dim=1) > 0.5).long()  # something to learn, with both classes in every patch
    return images, masks


def loss_and_gradients(name: str, loss: str, *, fast: bool, size: int = 32, autocast: bool = False):
    torch.manual_seed(0)
    model = create_model(name, 5, **NETWORKS[name])
    if fast:
        model = model.to(memory_format=torch.channels_last)
    else:
        plain(model)
    images, masks = batch(size=size)
    if fast:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = multi_head_loss(model(images), masks, create_loss(loss))
    value.backward()
    assert any(type(module) is PlainConv2d for module in model.modules()) != fast
    return value.item(), {key: weight.grad.double().flatten() for key, weight in model.named_parameters()}


@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_gradients_are_those_of_the_plain_network_in_float32(name, loss):
    value, gradients = loss_and_gradients(name, loss, fast=True)
    expected, plain_gradients = loss_and_gradients(name, loss, fast=False)
    assert value == pytest.approx(expected, rel=1e-4)
    scale = max(gradient.norm() for gradient in plain_gradients.values())
    for key, gradient in plain_gradients.items():
        error = (gradients[key] - gradient).norm()
        assert error <= 2e-3 * gradient.norm() + 1e-5 * scale, key


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_function_in_float64(name):
    # losses are computed in float32: a loss of its own keeps all digits
    def squares(*, fast: bool):
        torch.manual_seed(0)
        model = create_model(name, 5, **NETWORKS[name]).double()
        model = model.to(memory_format=torch.channels_last) if fast else plain(model)
        sum(logits.square().mean() for logits in model(batch()[0].double()).values()).backward()
        return [weight.grad for weight in model.parameters()]

    for one, other in zip(squares(fast=True), squares(fast=False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("loss", ["focal_iou", "cross_entropy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_bf16_have_the_direction_of_plain_float32(name, loss):
    value, gradients = loss_and_gradients(name, loss, fast=True, size=64, autocast=True)
    expected, plain_gradients = loss_and_gradients(name, loss, fast=False, size=64)
    assert value == pytest.approx(expected, rel=2e-2)
    one, other = (torch.cat(list(each.values())) for each in (gradients, plain_gradients))
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


@pytest.mark.parametrize("kernel", [2, 3])
def test_the_transposed_convolution_takes_either_memory_format_and_odd_sides(kernel):
    torch.manual_seed(0)
    layer = SameConvTranspose2d(3, 4, kernel)
    x = torch.randn(2, 3, 5, 7)
    expected = nn.ConvTranspose2d.forward(layer, x)[..., :10, :14]
    for format in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(layer(x.contiguous(memory_format=format)), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_selu_and_its_gradient_are_those_of_pytorch(memory_format, dtype):
    torch.manual_seed(0)
    x = (3 * torch.randn(2, 8, 6, 5)).to(dtype).contiguous(memory_format=memory_format)
    gradient = torch.randn(2, 12, 6, 5).to(dtype)[:, 2:10]  # as of a concatenation
    results = []
    for layer in (SELU(), nn.SELU()):
        given = x.clone().requires_grad_()
        result = layer(given)
        result.backward(gradient)
        results.append((result.detach(), given.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype is torch.bfloat16 else {}
    torch.testing.assert_close(results[0][1], results[1][1], **tolerance)


def test_selu_keeps_one_map_for_the_gradient_where_pytorch_keeps_two():
    def kept(layer: nn.Module) -> int:
        storages = set()
        x = torch.randn(1, 4, 8, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: storages.add(t.data_ptr()) or t, lambda t: t):
            (layer(2 * x) ** 2).sum()
        return len(storages)

    assert (kept(SELU()), kept(nn.SELU())) == (1, 2)


class ContiguousMaps(TorchDispatchMode):
    """Notes the operations that make maps (B, C, H, W) of a shape which are not channels last in memory."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.found = shape, []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.shape == self.shape and result.is_contiguous():
            self.found.append(str(operation))
        return result


@pytest.mark.parametrize(
    ("name", "options"), [(name, {}) for name in ATTENTION_NAMES] + [("multi_head", {"pooling": "mean_max"})]
)
def test_gradients_of_attention_lie_in_memory_as_the_maps_do(name, options):
    attention = create_attention(name, 8, 16, options)
    x = torch.randn(2, 8, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(x)
    with ContiguousMaps(x.shape) as contiguous:
        (2 * attention(2 * x)).backward(gradient)
    assert contiguous.found == []


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.9, 1 / 256, 255 / 256])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_that_share_and_keeps_the_mean(probability, memory_format):
    torch.manual_seed(0)
    x = torch.ones(8, 16, 33, 31).contiguous(memory_format=memory_format).requires_grad_()
    y = Dropout(probability)(x)
    spread = (probability * (1 - probability) / x.numel()) ** 0.5
    assert (y == 0).float().mean().item() == pytest.approx(probability, abs=5 * spread)
    kept = y[y != 0].detach()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - probability)), rtol=1e-3, atol=0)
    dropped = (y == 0).float()
    for axis in range(4):  # each place of every axis alike
        shares = dropped.movedim(axis, 0).flatten(1).mean(dim=1)
        assert (shares - probability).abs().max() < 6 * spread * len(shares) ** 0.5
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


def test_dropout_follows_the_seed_and_differs_from_call_to_call():
    layer, x = Dropout(0.5), torch.ones(1, 3, 9, 9)
    torch.manual_seed(0)
    first, second = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(first, layer(x))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_dropout_of_nothing_and_of_everything(probability, expected):
    x = torch.ones(1, 2, 4, 4)
    assert torch.equal(Dropout(probability)(x), expected * x)
    assert torch.equal(Dropout(probability).eval()(x), x)


def test_dropout_has_the_number_format_of_its_input():
    x = torch.ones(1, 2, 4, 4, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    assert Dropout(0.5)(x).dtype == torch.bfloat16
    assert Dropout(0.5)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_compiles_whole(name):
    torch.manual_seed(0)
    model = create_model(name, 5, **NETWORKS[name] | {"dropout": 0.5}).to(memory_format=torch.channels_last).train()
    whole = torch.compile(model, backend="eager", fullgraph=True)
    sum(logits.square().mean() for logits in whole(batch()[0]).values()).backward()
    assert all(weight.grad is not None for weight in model.parameters())
