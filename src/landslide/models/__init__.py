"""The networks, by name.

Every model maps float (B, C, H, W) to a dictionary of logits by resolution, {"128": (B, 2, 128, 128), ...} for
128-pixel input, with one entry for one head.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.models.l4s_baseline import L4SBaseline
from landslide.models.lite_unet import LiteUNet, encoder_weights_file
from landslide.models.options import require_known
from landslide.models.rau_net import RAUNet, rau_net_small
from landslide.models.smp import SmpModel, refuse_unknown_weights
from landslide.models.terratorch import TerraTorchModel, require_bool
from landslide.models.unet import UNet

__all__ = [
    "MODEL_NAMES",
    "ModelSpec",
    "build_model",
    "create_model",
    "main_logits",
    "model_from_options",
    "refuse_missing_pretraining",
    "required_packages",
    "trainable_parameters",
    "without_pretraining",
]

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "rau_net": RAUNet,
    "rau_net_small": rau_net_small,
    "unet": UNet,
    "l4s_baseline": L4SBaseline,
    "lite_unet": LiteUNet,
}
MODEL_NAMES = tuple(_MODELS)
_LIBRARIES: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "smp": (SmpModel, "smp:<Architecture>:<encoder>"),
    "terratorch": (TerraTorchModel, "terratorch:<Decoder>:<backbone>"),
}


def create_model(name: str, in_channels: int, **options: Any) -> nn.Module:
    """Create a network with freshly initialised weights.

    Args:
        name: One of `MODEL_NAMES`, `smp:<Architecture>:<encoder>` for a network of segmentation_models.pytorch, or
            `terratorch:<Decoder>:<backbone>` for one of TerraTorch.
        in_channels: Number of input bands C.
        **options: The network's own options, such as `width`. Weights that are given to the bands by name need
            `build_model`.

    Returns:
        A module that maps float (B, C, H, W) to logits (B, 2, S, S) by resolution S.

    Raises:
        ConfigurationError: On an unknown name or option, or if the network needs a package that is not installed.
    """
    return model_from_options(name, in_channels, options)


def model_from_options(
    name: str, in_channels: int, options: Mapping[str, Any], bands: Sequence[str] | None = None
) -> nn.Module:
    """Create a network as `create_model` does, with options that a user wrote: any of their names may be wrong.

    Args:
        name: Network name.
        in_channels: Number of input bands.
        options: The network's own options.
        bands: Names of the input bands, for weights that are given to the bands by name.
    """
    network: Callable[..., nn.Module]
    library, *parts = name.split(":")
    if parts and library in _LIBRARIES:
        peer, form = _LIBRARIES[library]
        if len(parts) != 2:
            raise ConfigurationError(f"{name!r} is no name of a peer network.", remedy=f"Write {form}.")
        network = partial(peer, *parts, bands)
    elif name in _MODELS:
        network = _MODELS[name]
    else:
        forms = (form for _, form in _LIBRARIES.values())
        raise ConfigurationError(
            f"There is no model {name!r}.", remedy=f"Use one of {', '.join(MODEL_NAMES)}, or {', '.join(forms)}."
        )
    if name in _MODELS:
        require_known(f"Model {name!r}", options, _options_of(network))
    try:
        return network(in_channels, **options)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"Model {name!r} needs the package {error.name}, which is not installed.",
            remedy=f"Install what it needs: pip install {' '.join(required_packages(name)) or error.name}.",
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"Model {name!r} does not take the options {options}: {error}.",
            remedy="docs/reference/networks.md describes the options of that model.",
        ) from error


def _options_of(network: Callable[..., nn.Module]) -> list[str]:
    parameters = signature(network).parameters.values()
    passed_on = any(p.kind is p.VAR_KEYWORD for p in parameters)  # by rau_net_small
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY] + (_options_of(RAUNet) if passed_on else [])


def required_packages(name: str) -> tuple[str, ...]:
    """Return the names of the packages that a network needs in addition to those of the bare library.

    The bare library leaves them out because they bring torchvision, whose build has to match that of torch.
    """
    if name.startswith("smp:"):
        return ("segmentation-models-pytorch", "timm")
    if name.startswith("terratorch:"):
        return ("terratorch",)
    return ("timm",) if name == "lite_unet" else ()


def refuse_missing_pretraining(name: str, options: Mapping[str, Any]) -> None:
    """Check that a network can start from the pretrained weights that its options name, without reading them.

    Raises:
        ConfigurationError: If there are no such weights, or the package that brings them is not installed. Weights that
            are downloaded are not checked further.
    """
    weights = options.get("encoder_weights")
    library, *parts = name.split(":")
    if name == "lite_unet":
        encoder_weights_file(weights)
    elif library == "smp" and len(parts) == 2:
        architecture, encoder = parts
        refuse_unknown_weights(architecture, encoder, weights)
    elif library == "terratorch":
        require_bool(options.get("pretrained", False))


def without_pretraining(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the same network without pretrained weights, so that none are fetched."""
    random = {"encoder_weights": None, "pretrained": False}
    return {name: random.get(name, value) for name, value in options.items()}


def main_logits(logits: dict[str, Tensor], size: int) -> Tensor:
    """Return the logits (B, 2, size, size) of the scored head, at the resolution of the input."""
    return logits[str(size)]


def trainable_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@dataclass(frozen=True)
class ModelSpec:
    """The description that rebuilds a trained network, without its weights.

    Attributes:
        name: Network name, see `create_model`.
        options: The network's own options.
        bands: Names of the input bands, in order.
        mean: Mean of every input band over the training part, or None for bands as stored.
        std: Standard deviation of every input band, or None.
    """

    name: str
    bands: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelSpec":
        """Rebuild a specification from `to_dict`."""
        tuples = {k: None if values[k] is None else tuple(values[k]) for k in ("bands", "mean", "std")}
        return cls(name=values["name"], options=dict(values["options"]), **tuples)  # type: ignore[arg-type]


class StandardizedModel(nn.Module):
    """A network with a standardisation of its input bands.

    Args:
        network: The network.
        mean: (C,) values to subtract.
        std: (C,) values to divide by.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches (B, C, H, W), bands as stored."""
        logits: dict[str, Tensor] = self.network((x - self.mean) / self.std)
        return logits


def build_model(spec: ModelSpec, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build the network of a specification, with trained weights if given, else as it starts to be trained."""
    options = spec.options if weights is None else without_pretraining(spec.options)
    model = model_from_options(spec.name, len(spec.bands), options, spec.bands)
    if spec.mean is not None and spec.std is not None:
        model = StandardizedModel(model, torch.tensor(spec.mean), torch.tensor(spec.std))
    if weights is not None:
        model.load_state_dict(weights)
        model.eval()
    return model
