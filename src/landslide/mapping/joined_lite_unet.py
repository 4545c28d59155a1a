"""A Lite U-Net for prediction, with the same answers by fewer operations."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from landslide.models import StandardizedModel
from landslide.models.lite_unet import LiteUNet


def is_lite_unet(network: nn.Module) -> bool:
    """Whether a network is a Lite U-Net, with or without a standardisation of its bands."""
    return isinstance(network.network if isinstance(network, StandardizedModel) else network, LiteUNet)


def joined(network: nn.Module) -> nn.Module:
    """Return a trained network for prediction: a Lite U-Net as `JoinedLiteUNet`, any other as it is."""
    if isinstance(network, StandardizedModel):
        return StandardizedModel(joined(network.network), network.mean[:, 0, 0], network.std[:, 0, 0])
    return JoinedLiteUNet(network) if isinstance(network, LiteUNet) else network


class JoinedLiteUNet(nn.Module):
    """A Lite U-Net whose decoder convolves a map before it is enlarged.

    To repeat each pixel two by two and to convolve by 3x3 is to convolve by 4x4, transposed, with stride 2: four ninths
    of the multiplications. The convolution of the skip connection is added, so nothing is concatenated. Batch
    normalisation is part of the weights.

    Args:
        network: The trained network, in evaluation mode; all but its decoder is shared.
    """

    def __init__(self, network: LiteUNet) -> None:
        super().__init__()
        self.full_resolution, self.encoder, self.heads = network.full_resolution, network.encoder, network.heads
        steps, channels = [], cast(Any, network.encoder).feature_info.channels()[-1]
        for step in network.decoder:
            convolution, normalisation = cast(nn.Sequential, step)[:2]
            fused = fuse_conv_bn_eval(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, normalisation))
            steps.append(_Step(fused, channels))
            channels = fused.out_channels
        self.decoder = nn.ModuleList(steps)
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches, as `LiteUNet.forward`; H and W are multiples of 32, so every map has half of the last."""
        skips = [self.full_resolution(x), *self.encoder(x)]
        x = skips.pop()
        for step in self.decoder:
            x = step(x, skips.pop())
        logits: dict[str, Tensor] = self.heads(x)
        return logits


class _Step(nn.Module):
    """A step of the decoder.

    Args:
        convolution: That of the enlarged map and the skip connection, in this order.
        channels: Channels of the map.
    """

    def __init__(self, convolution: nn.Conv2d, channels: int) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        kernel = torch.zeros(len(weight), channels, 4, 4, dtype=torch.float64)
        for y in (0, 1):  # where a pixel is repeated to
            for x in (0, 1):
                kernel[..., y : y + 3, x : x + 3] += weight[:, :channels]
        self.enlarging = nn.ConvTranspose2d(channels, len(weight), 4, stride=2, padding=1, bias=False)
        self.enlarging.weight = nn.Parameter(kernel.flip(2, 3).transpose(0, 1).to(weight.dtype).contiguous())
        self.skip = nn.Conv2d(weight.shape[1] - channels, len(weight), 3, padding=1)
        self.skip.weight, self.skip.bias = nn.Parameter(weight[:, channels:].contiguous()), convolution.bias

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return F.relu(self.enlarging(x) + self.skip(skip))
