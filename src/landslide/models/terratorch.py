"""Foundation models of Earth observation, built by TerraTorch, with the interface of this project."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.models.blocks import N_CLASSES
from landslide.models.options import require_one_of

_TRANSFORMER = "prithvi_"
_UNUSED = (".fc.", "temporal_embed", "location_embed")  # for classes, and for a date and a place that patches lack
# TerraTorch's names of Sentinel-2's bands.
_BANDS = {
    "B1": "COASTAL_AEROSOL", "B2": "BLUE", "B3": "GREEN", "B4": "RED", "B5": "RED_EDGE_1", "B6": "RED_EDGE_2",
    "B7": "RED_EDGE_3", "B8": "NIR_BROAD", "B8A": "NIR_NARROW", "B9": "WATER_VAPOR", "B10": "CIRRUS", "B11": "SWIR_1",
    "B12": "SWIR_2",
}  # fmt: skip
_UNET_WIDTHS = (512, 256, 128, 64, 32)  # from the deepest level on; the last ones for a backbone of fewer levels
_OPTIONS: dict[str, dict[str, tuple[int, ...]]] = {
    "UNetDecoder": {"decoder_channels": _UNET_WIDTHS},
    "UperNetDecoder": {},
}


class TerraTorchModel(nn.Module):
    """A backbone and a decoder of TerraTorch's registries; forward returns logits by resolution.

    The backbones are the Prithvi transformers and the ResNets. Four evenly spaced layers of Prithvi become maps, and
    learned layers give them the resolutions of a pyramid. A ResNet gives the maps of all its five levels.

    Args:
        decoder: `UNetDecoder` or `UperNetDecoder`.
        backbone: Name in TerraTorch's own registry, such as `prithvi_eo_v2_tiny_tl`.
        bands: Names of the input bands; None if they are unknown. Bands that the weights do not know start from random
            filters. Prithvi was trained with B8A: for it B8 stands for B8A, if that is not an input.
        in_channels: Number of input bands C.
        pretrained: Whether the backbone starts from its published weights, which TerraTorch downloads.

    Raises:
        ConfigurationError: If TerraTorch cannot build the network.
    """

    def __init__(
        self, decoder: str, backbone: str, bands: Sequence[str] | None, in_channels: int, /, *, pretrained: bool = False
    ) -> None:
        from terratorch.models import EncoderDecoderFactory

        super().__init__()
        require_bool(pretrained)
        if pretrained and bands is None:
            raise ConfigurationError(
                "A pretrained backbone gets the bands by name, and the names are unknown.",
                remedy="Build the network with landslide.models.build_model, whose specification names the bands.",
            )
        require_one_of("decoder", decoder, _OPTIONS)
        require_one_of("backbone", backbone, _backbones())
        names = [f"band_{i}" for i in range(in_channels)] if bands is None else _band_names(backbone, bands)
        try:
            encoder = _Backbone(backbone, names, pretrained)
            necks = _necks(len(encoder.out_channels)) if encoder.transformer else []
            levels = 4 if encoder.transformer else len(encoder.out_channels)
            options = {name: list(widths[-levels:]) for name, widths in _OPTIONS[decoder].items()}
            self.network = EncoderDecoderFactory().build_model(
                "segmentation", encoder, decoder, necks=necks, num_classes=N_CLASSES, **options
            )
        except Exception as error:  # TerraTorch raises bare ones
            raise ConfigurationError(
                f"TerraTorch cannot build {decoder!r} with backbone {backbone!r}, pretrained: {pretrained}: {error}",
                remedy="Without access to Hugging Face, pretrained: true needs the weights in its cache, or in that of "
                "torch.hub. Leave it out to start from random weights.",
            ) from error

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map x (B, C, H, W) to {"<H>": logits (B, 2, H, W)}."""
        logits: Tensor = self.network(x).output
        return {str(logits.shape[-1]): logits}


class _Backbone(nn.Module):
    """A backbone whose copies are independent: Prithvi's own `forward` belongs to the network that was copied."""

    def __init__(self, name: str, bands: list[str], pretrained: bool) -> None:
        from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

        super().__init__()
        self.transformer = name.startswith(_TRANSFORMER)
        options: dict[str, Any] = (
            {"bands": bands} if self.transformer else {"model_bands": bands, "out_indices": list(range(5))}
        )
        self.backbone = TERRATORCH_BACKBONE_REGISTRY.build(name, pretrained=pretrained, **options)
        vars(self.backbone).pop("forward", None)
        self.out_channels = list(self.backbone.out_channels)
        for parameter_name, parameter in self.backbone.named_parameters():
            if any(part in parameter_name for part in _UNUSED):
                parameter.requires_grad_(False)  # several GPUs wait for the gradient of every parameter

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.backbone.forward_features(x) if self.transformer else self.backbone(x)
        return features


def _backbones() -> list[str]:
    from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY

    return sorted(name for name in TERRATORCH_BACKBONE_REGISTRY if name.startswith(_TRANSFORMER) or "_resnet" in name)


def require_bool(pretrained: Any) -> None:
    """Raise a ConfigurationError unless `pretrained` is true or false."""
    if not isinstance(pretrained, bool):
        raise ConfigurationError(f"The network option pretrained is {pretrained!r}.", remedy="Set it to true or false.")


def _band_names(backbone: str, bands: Sequence[str]) -> list[str]:
    names = dict(_BANDS)
    if backbone.startswith(_TRANSFORMER) and "B8A" not in bands:
        names["B8"] = names["B8A"]
    return [names.get(band, band) for band in bands]


def _necks(layers: int) -> list[dict[str, Any]]:
    return [
        {"name": "SelectIndices", "indices": [layers * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]},
        {"name": "ReshapeTokensToImage"},
        {"name": "LearnedInterpolateToPyramidal"},
    ]
