"""Networks of segmentation_models.pytorch with the interface of this project."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.models import csmask, ssl4eo
from landslide.models.blocks import N_CLASSES
from landslide.models.stored_weights import load_into

SENTINEL2_WEIGHTS = (*csmask.LEVELS, *dict.fromkeys(weights for weights, _ in ssl4eo.ADDRESSES))
"""Values of `encoder_weights` that this project adds to those of the library."""


class SmpModel(nn.Module):
    """A segmentation_models.pytorch network whose forward returns logits by resolution.

    Args:
        architecture: Architecture name of the library, such as `Unet` or `DeepLabV3Plus`.
        encoder: Encoder name of the library, such as `resnet34`.
        bands: Names of the input bands, which `SENTINEL2_WEIGHTS` need; None if they are unknown.
        in_channels: Number of input bands C.
        **options: Further arguments of the library; no pretrained weights unless `encoder_weights` asks.

    Raises:
        ConfigurationError: On an option that does not exist, or weights that are missing or do not fit.
    """

    def __init__(
        self, architecture: str, encoder: str, bands: Sequence[str] | None, in_channels: int, /, **options: Any
    ) -> None:
        import segmentation_models_pytorch as smp

        super().__init__()
        options = {"encoder_weights": None} | options
        unknown = set(options) - _options_of(architecture)
        if unknown:
            raise ConfigurationError(
                f"{architecture!r} of segmentation_models.pytorch does not take the option {min(unknown)!r}.",
                remedy=f"It takes {', '.join(sorted(_options_of(architecture)))}.",
            )
        weights = options["encoder_weights"]
        refuse_unknown_weights(architecture, encoder, weights)
        sentinel2 = weights in SENTINEL2_WEIGHTS
        if sentinel2:
            options["encoder_weights"] = None
        try:
            self.network = smp.create_model(
                architecture, encoder, in_channels=in_channels, classes=N_CLASSES, **options
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"segmentation_models.pytorch cannot build {architecture!r} with encoder {encoder!r}: {error}",
                remedy="Use a pair that the library offers, as in smp:Unet:resnet34.",
            ) from error
        if sentinel2:
            if bands is None:
                raise ConfigurationError(
                    f"encoder_weights {weights!r} are given to the bands by name, and the names are unknown.",
                    remedy="Build the network with landslide.models.build_model, whose specification names the bands.",
                )
            stored = csmask.read(weights, bands) if weights in csmask.LEVELS else ssl4eo.read(weights, encoder)
            load_into(self.network, stored, bands)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map x (B, C, H, W) to {"<H>": logits (B, 2, H, W)}."""
        logits: Tensor = self.network(x)
        return {str(logits.shape[-1]): logits}


def refuse_unknown_weights(architecture: str, encoder: str, weights: Any) -> None:
    """Check, without fetching them, that there are weights of this name for an encoder.

    Raises:
        ConfigurationError: If there are none, their name is no text, or their package is not installed.
    """
    import segmentation_models_pytorch as smp

    published = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings")
    ours = _sentinel2_weights(architecture, encoder)
    known = [*sorted(published or ()), *ours]
    checked = published is not None or weights in SENTINEL2_WEIGHTS  # the library checks those of timm itself
    if weights is not None and (not isinstance(weights, str) or (checked and weights not in known)):
        alternative = f"Use one of {', '.join(known)}, or leave" if known else "Leave"
        raise ConfigurationError(
            f"There are no weights {weights!r} of encoder {encoder!r} in {architecture!r}.",
            remedy=f"{alternative} encoder_weights out for random weights.",
        )
    if weights in csmask.LEVELS:
        csmask.package_folder(weights)


def _sentinel2_weights(architecture: str, encoder: str) -> list[str]:
    """Return those of `SENTINEL2_WEIGHTS` that fit a network."""
    fitting = [weights for weights, of_encoder in ssl4eo.ADDRESSES if of_encoder == encoder]
    if (architecture.lower(), encoder) == (csmask.ARCHITECTURE, csmask.ENCODER):
        fitting += csmask.LEVELS
    return fitting


def _options_of(architecture: str) -> set[str]:
    """Return the options of an architecture; those that every one has, if there is no such architecture."""
    import segmentation_models_pytorch as smp

    kind = {name.lower(): value for name, value in vars(smp).items() if isinstance(value, type)}
    own = inspect.signature(kind[architecture.lower()]).parameters if architecture.lower() in kind else {}
    return (set(own) | {"encoder_weights"}) - {"kwargs", "in_channels", "classes", "encoder_name"}
