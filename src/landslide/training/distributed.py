"""Differentiable sums over processes, so that training on several processes gives the same result as on one.

Each process has a share of every batch. Gradients are averaged over the processes, as DistributedDataParallel does;
a loss that every process computes from sums over all then has the gradient of the whole batch, because the gradient
of such a sum is itself summed over the processes.
"""

from types import MethodType
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


def sum_over_devices(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, differentiable, on each of them."""
    summed: Tensor = _Total.apply(x)
    return summed


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        summed = x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_devices(gradient)


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch normalisation of a network take the statistics of the whole batch, over all processes.

    Args:
        model: The network; its weights keep their names.
        device: Where it is trained. PyTorch has special layers for this on GPUs, but not on CPUs.

    Returns:
        The network, changed in place.
    """
    if device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm  # PyTorch's own drops the activation of timm's layers

        converted: nn.Module = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = MethodType(_normalize, module)  # type: ignore[method-assign]
    return model


def _normalize(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise x (B, C, H, W) as the layer does, in training by the statistics of all processes."""
    if not layer.training:
        usual: Tensor = type(layer).forward(layer, x)
        return usual
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    assert layer.num_batches_tracked is not None
    assert layer.momentum is not None
    values = x if x.dtype == mean.dtype else x.to(mean.dtype)
    share = values.new_full((1,), values.numel() / x.shape[1])
    sums = sum_over_devices(torch.cat([values.sum((0, 2, 3)), share]))
    n, batch_mean = sums[-1], sums[:-1] / sums[-1]
    centred = values - batch_mean[:, None, None]
    batch_variance = sum_over_devices(centred.square().sum((0, 2, 3))) / n
    with torch.no_grad():
        mean.lerp_(batch_mean, layer.momentum)
        variance.lerp_(batch_variance * n / (n - 1), layer.momentum)
        layer.num_batches_tracked += 1
    scale = torch.rsqrt(batch_variance + layer.eps) * layer.weight
    result = (centred * scale[:, None, None] + layer.bias[:, None, None]).to(x.dtype)
    for name in ("drop", "act"):  # of timm's layers
        if hasattr(layer, name):
            result = getattr(layer, name)(result)
    return result
