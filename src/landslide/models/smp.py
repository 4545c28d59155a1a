"""Networks of segmentation_models.pytorch with the interface of this project."""

import inspect
from typing import Any

from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.models.blocks import N_CLASSES


class SmpModel(nn.Module):
    """A segmentation_models.pytorch network whose forward returns logits by resolution.

    Args:
        architecture: Architecture name of the library, such as `Unet` or `DeepLabV3Plus`.
        encoder: Encoder name of the library, such as `resnet34`.
        in_channels: Number of input bands C.
        **options: Further arguments of the library; no pretrained weights unless `encoder_weights` asks.
    """

    def __init__(self, architecture: str, encoder: str, in_channels: int, /, **options: Any) -> None:
        import segmentation_models_pytorch as smp

        super().__init__()
        options = {"encoder_weights": None} | options
        unknown = set(options) - _options_of(architecture)
        if unknown:
            raise ConfigurationError(
                f"{architecture!r} of segmentation_models.pytorch does not take the option {min(unknown)!r}.",
                remedy=f"It takes {', '.join(sorted(_options_of(architecture)))}.",
            )
        try:
            self.network = smp.create_model(
                architecture, encoder, in_channels=in_channels, classes=N_CLASSES, **options
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"segmentation_models.pytorch cannot build {architecture!r} with encoder {encoder!r}: {error}",
                remedy="Use a pair that the library offers, as in smp:Unet:resnet34.",
            ) from error

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map x (B, C, H, W) to {"<H>": logits (B, 2, H, W)}."""
        logits: Tensor = self.network(x)
        return {str(logits.shape[-1]): logits}


def refuse_unknown_weights(encoder: str, weights: str | None) -> None:
    """Check, without fetching them, that the library knows weights of an encoder.

    Raises:
        ConfigurationError: If it does not.
    """
    import segmentation_models_pytorch as smp

    known = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings")
    if weights is not None and known is not None and weights not in known:
        raise ConfigurationError(
            f"segmentation_models.pytorch has no weights {weights!r} of encoder {encoder!r}.",
            remedy=f"Use one of {', '.join(sorted(known))}, or leave encoder_weights out for random weights.",
        )


def _options_of(architecture: str) -> set[str]:
    """Return the options of an architecture; those that every one has, if there is no such architecture."""
    import segmentation_models_pytorch as smp

    kind = {name.lower(): value for name, value in vars(smp).items() if isinstance(value, type)}
    own = inspect.signature(kind[architecture.lower()]).parameters if architecture.lower() in kind else {}
    return (set(own) | {"encoder_weights"}) - {"kwargs", "in_channels", "classes", "encoder_name"}
