"""Layers that make training on a CPU faster and compute the same as PyTorch's own.

They act on CPU tensors only. On a GPU, in a compiled network and inside `switched_off`, the networks run PyTorch's
layers. Each saves at least a tenth of a whole training step of a network that uses it: `python -m benchmarks steps`
measures every one of them on and off, and docs/performance.md has the results.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CPU_LAYERS = ("transposed_convolution", "weight_gradient", "depthwise_float32")

_FEWEST_CHANNELS = 24  # with fewer, the matrix products of the weight gradient are too small to pay

_switched_off: ContextVar[frozenset[str]] = ContextVar("_switched_off", default=frozenset())


@contextmanager
def switched_off(layers: Collection[str] = CPU_LAYERS) -> Iterator[None]:
    """Run PyTorch's own layers in place of some of `CPU_LAYERS`, to compare with them."""
    token = _switched_off.set(_switched_off.get().union(layers))
    try:
        yield
    finally:
        _switched_off.reset(token)


def is_active(layer: str, x: Tensor) -> bool:
    """Return whether one of `CPU_LAYERS` acts on x: on the CPU, not while compiling, unless it is switched off."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and layer not in _switched_off.get()


def conv_transpose2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a transposed convolution of stride 2 and crop to twice the sides, in half of PyTorch's time on a CPU.

    Every second row and column of the output is a usual convolution of the input with every second row and column of
    the kernel. Three of the four keep a padded copy of the input for the gradient.

    Args:
        x: (B, C, H, W).
        weight: (C, O, 3, 3).
        bias: (O,) or None.

    Returns:
        (B, O, 2 H, 2 W), channels last in memory.
    """
    weight = weight.transpose(0, 1)
    rows = []
    for row in (0, 1):
        columns = []
        for column in (0, 1):
            kernel = weight[:, :, row::2, column::2].flip(2, 3).contiguous(memory_format=torch.channels_last)
            above, left = (side - 1 for side in kernel.shape[2:])
            columns.append(F.conv2d(F.pad(x, (left, 0, above, 0)), kernel, bias).permute(0, 2, 3, 1))
        rows.append(torch.stack(columns, dim=3))  # (B, H, W, 2 columns, O)
    pixels = torch.stack(rows, dim=2)  # (B, H, 2 rows, W, 2 columns, O)
    return pixels.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def use_matmul_weight_gradient(x: Tensor, weight: Tensor) -> bool:
    """Return whether `conv2d` gains for a convolution of stride 1: training in float32 without AVX-512, wide enough."""
    return (
        is_active("weight_gradient", x)
        and torch.backends.cpu.get_cpu_capability() != "AVX512"  # PyTorch's own is as fast there
        and x.dtype == weight.dtype == torch.float32
        and weight.requires_grad
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and weight.shape[2] > 1
    )


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """Convolve with stride 1, the gradient of the weights from matrix products; differentiable once.

    In the channels-last layout PyTorch's weight gradient takes a CPU without AVX-512 three times as long as the forward
    pass, which has as many operations. Here it is one matrix product per position of the kernel: rows of an image that
    are padded on one side make every shift within the kernel a shift of the flattened image, so that each is a product
    of two tall matrices, without a copy for each position.

    Args:
        x: (B, C, H, W) float32 on the CPU.
        weight: (O, C, K, K).
        bias: (O,) or None.
        padding: Zeros on every side.

    Returns:
        (B, O, H + 2 padding - K + 1, W + 2 padding - K + 1).
    """
    result: Tensor = _Convolution.apply(x, weight, bias, padding)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x: Tensor | None = None
        if ctx.needs_input_grad[0]:
            padding = [ctx.padding] * 2
            of_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        of_bias = gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, weight_gradient(x, gradient, ctx.padding), of_bias, None


def weight_gradient(x: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """Return the gradient of a loss with respect to the weights of a convolution of stride 1.

    Args:
        x: (B, C, H, W), the convolution's input.
        gradient: (B, O, H', W'), the loss's gradient with respect to its output.
        padding: Zeros on every side of x.

    Returns:
        (O, C, K, K) with K = H + 2 padding - H' + 1.
    """
    kernel = x.shape[2] + 2 * padding - gradient.shape[2] + 1
    row = x.shape[3] + 2 * padding
    x_nhwc = F.pad(x.permute(0, 2, 3, 1), (0, 0, *[padding] * 4))
    gradient_nhwc = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, kernel - 1, 0, kernel - 1))
    pixels, gradients = x_nhwc.reshape(-1, x.shape[1]), gradient_nhwc.reshape(-1, gradient.shape[1])
    result = x.new_empty(gradients.shape[1], kernel, kernel, pixels.shape[1])  # channels last, as the weights are
    for i in range(kernel):
        for j in range(kernel):
            shift = i * row + j  # shifted-out values meet the zeros at the end
            torch.mm(gradients[: len(gradients) - shift].T, pixels[shift:], out=result[:, i, j])
    return result.permute(0, 3, 1, 2)


def keep_depthwise_in_float32(model: nn.Module) -> None:
    """Let the depthwise convolutions of a model in float32 compute in float32 on a CPU under autocast.

    In bf16 they take PyTorch longer than all other layers gain: 47 ms for the one of stride 2 and 672 channels that
    takes 2 ms in float32. They have few operations, so the others gain from bf16 all the same.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = partial(_in_float32, module)  # type: ignore[method-assign]


def _in_float32(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    convolve: Callable[[Tensor], Tensor] = partial(type(convolution).forward, convolution)
    autocast = is_active("depthwise_float32", x) and torch.is_autocast_enabled("cpu")
    if not autocast or convolution.weight.dtype is not torch.float32:
        return convolve(x)
    with torch.autocast("cpu", enabled=False):
        return convolve(x.float()).to(torch.get_autocast_dtype("cpu"))
