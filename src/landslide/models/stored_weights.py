"""Stored weights for a part of a network, and the rule by which its first layer gets filters for other bands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError

# Layers between encoder and classifier, which segmentation_models.pytorch builds and no segmentation network calls.
_UNUSED = ("encoder._conv_head.", "encoder._bn1.")


@dataclass(frozen=True)
class StoredWeights:
    """Weights by the names that the layers have in a network.

    Attributes:
        path: The file.
        tensors: Weights and statistics, float32, of all layers of some parts of the network, such as its encoder.
        first: Name of the filters of the first layer, (O, K, k, k).
        bands: Names of the K bands of the first layer.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    first: str
    bands: tuple[str, ...]


def load_into(network: nn.Module, stored: StoredWeights, bands: Sequence[str]) -> None:
    """Put stored weights into a network, in place; parts that the file does not have keep their own.

    Args:
        network: A network with input bands of these names.
        stored: The weights; the first layer is adapted by `first_layer`.
        bands: Names of the network's input bands.

    Raises:
        ConfigurationError: If the layers of file and network differ.
    """
    parts = tuple({f"{name.partition('.')[0]}." for name in stored.tensors})
    own = {name for name in network.state_dict() if name.startswith(parts)}
    differing = {
        name
        for name in own ^ set(stored.tensors)
        if not name.endswith(".num_batches_tracked") and not name.startswith(_UNUSED)
    }
    if differing:
        where = "network" if min(differing) in own else "file"
        raise _unlike(stored, f"only the {where} has {min(differing)}")
    tensors = {name: value for name, value in stored.tensors.items() if name in own}
    tensors[stored.first] = first_layer(tensors[stored.first], stored.bands, bands)
    try:
        network.load_state_dict(network.state_dict() | tensors)  # with strict=False, smp would pass over other shapes
    except RuntimeError as error:
        raise _unlike(stored, str(error)) from error


def first_layer(filters: Tensor, known: Sequence[str], bands: Sequence[str]) -> Tensor:
    """Return the filters of the first layer for other bands than those that it was trained with.

    A band of a known name takes its own filters, any other one the mean of all filters. All are multiplied by K / C, so
    that the activations keep their size.

    Args:
        filters: (O, K, k, k).
        known: Names of the K bands of the filters.
        bands: Names of the C bands that the network gets.

    Returns:
        (O, C, k, k).
    """
    mean = filters.mean(dim=1)
    own = [filters[:, known.index(band)] if band in known else mean for band in bands]
    return torch.stack(own, dim=1) * (len(known) / len(bands))


def _unlike(stored: StoredWeights, difference: str) -> ConfigurationError:
    return ConfigurationError(
        f"The weights of {stored.path} do not fit the network: {difference}.",
        remedy="Leave out the options that change its layers, or encoder_weights.",
    )
