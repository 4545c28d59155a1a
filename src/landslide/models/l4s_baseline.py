"""The Landslide4Sense challenge's public baseline network: 17,273,794 trainable parameters at 14 bands.

A U-Net of 64, 128, 256, 512 and 512 channels with ReLU. It differs from the paper's: bilinear upsampling with aligned
corners, a double convolution that narrows to half its input first on the way up, no dropout, and the initialisation
and batch-norm settings that PyTorch has by default. The paper's Table VI gives it 29.8 M parameters.
"""

import torch
from torch import Tensor, nn

from landslide.models.heads import SingleHead
from landslide.models.options import require_positive


class L4SBaseline(nn.Module):
    """U-Net with bilinear upsampling and half-width middle layers in the decoder.

    Args:
        in_channels: Number of input bands C.
        width: Channels of the first level, 64 in the challenge; the levels below have 2, 4, 8 and 8 times as many.

    Raises:
        ConfigurationError: If `width` is no whole number above zero.
    """

    def __init__(self, in_channels: int, *, width: int = 64) -> None:
        super().__init__()
        require_positive(width=width)
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.encoder = nn.ModuleList(
            _double_conv(i, o, o) for i, o in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = _double_conv(widths[-1], widths[-1], widths[-1])
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.decoder = nn.ModuleList(  # a map and a skip of w channels each: 512, 256, 128, 64
            _double_conv(2 * w, w, narrower) for w, narrower in zip(widths[::-1], [*widths[-2::-1], width], strict=True)
        )
        self.heads = SingleHead(width, dropout=0)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches.

        Args:
            x: (B, C, H, W) float, bands as stored; H = W, a multiple of 16.

        Returns:
            {"128": logits (B, 2, 128, 128)} for 128-pixel input.
        """
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for block in self.decoder:
            x = block(torch.cat([skips.pop(), self.upsample(x)], dim=1))
        logits: dict[str, Tensor] = self.heads(x)
        return logits


def _double_conv(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(in_channels, middle, 3, padding=1), nn.BatchNorm2d(middle), nn.ReLU(inplace=True)),
        *(nn.Conv2d(middle, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)),
    )
