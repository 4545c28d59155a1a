"""What a network costs: trainable parameters and floating-point operations of a forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from landslide.models import model_from_options, refuse_missing_pretraining, trainable_parameters, without_pretraining


@dataclass(frozen=True)
class Complexity:
    """The cost of a network.

    Attributes:
        parameters: Trainable parameters.
        gflop: 10^9 floating-point operations of the forward pass for one patch.
    """

    parameters: int
    gflop: float


def complexity(name: str, in_channels: int, options: Mapping[str, Any] = {}, *, size: int = 128) -> Complexity:
    """Measure a network by name, without weights: neither its memory nor its time is needed.

    Args:
        name: Network name, see `landslide.models.create_model`.
        in_channels: Number of input bands.
        options: The network's own options. Pretrained weights are checked by name and not fetched.
        size: Side of the patch in pixels.

    Raises:
        ConfigurationError: On an unknown name or option.
    """
    model = without_memory(name, in_channels, options)
    return Complexity(trainable_parameters(model), forward_gflop(model, in_channels, size))


def resolutions(name: str, in_channels: int, options: Mapping[str, Any] = {}, *, size: int = 128) -> list[str]:
    """Return the resolutions of a network's heads for patches of some size; arguments as for `complexity`.

    Raises:
        ConfigurationError: On an unknown name or option, or if the network does not take patches of that size.
    """
    model = without_memory(name, in_channels, options).eval()
    with torch.no_grad():
        return list(model(torch.empty(1, in_channels, size, size, device="meta")))


def without_memory(name: str, in_channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a network on the device `meta`, without weights; arguments as for `complexity`.

    Raises:
        ConfigurationError: On an unknown name or option.
    """
    refuse_missing_pretraining(name, options)
    options = without_pretraining(options)
    try:
        with torch.device("meta"):
            model = model_from_options(name, in_channels, options)
    except RuntimeError:  # some encoders compute with numbers while they are built
        model = model_from_options(name, in_channels, options)
    return model.to("meta")  # some encoders place a first layer for other than three bands on the CPU all the same


def forward_gflop(model: nn.Module, in_channels: int, size: int = 128) -> float:
    """Count 10^9 floating-point operations of the forward pass for one patch (1, in_channels, size, size).

    A multiply-add counts as two operations. Only convolutions and matrix products count, as is usual:
    normalisation, activations and resizing are left out.

    Args:
        model: The network, on any device, also `meta`; it is left in evaluation mode.
        in_channels: Number of input bands.
        size: Side of the patch in pixels.
    """
    device = next(model.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, in_channels, size, size, device=device))
    return float(counter.get_total_flops() / 1e9)
