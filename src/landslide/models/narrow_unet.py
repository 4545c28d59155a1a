"""The network of our own recipe: a residual U-Net that spends its work at low resolution.

The RAU-Net is widest where maps are largest: nine tenths of its work is one 640-wide block at full resolution. Here a
map has the fewer channels the larger it is, so that every level costs about the same: a full-resolution level of 16
channels keeps the outlines, and the context comes from levels of 32 to 256 channels that are nearly free. Blocks are
the basic residual blocks of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, with
squeeze-and-excitation (Hu et al., CVPR 2018) where maps are small; the decoder has one convolution a level.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.models.attention import SqueezeExcitation
from landslide.models.heads import SingleHead
from landslide.models.options import require_positive

N_LEVELS = 4


def _conv_bn(in_channels: int, out_channels: int, kernel: int, stride: int = 1, scale: float = 1.0) -> nn.Sequential:
    """Return convolution and batch normalisation, whose output has the standard deviation `scale` at first."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    normalization = nn.BatchNorm2d(out_channels)
    nn.init.constant_(normalization.weight, scale)
    return nn.Sequential(convolution, normalization)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, optional attention, and a shortcut; begins close to the shortcut alone.

    Args:
        in_channels: Channels of the input (B, in_channels, H, W).
        out_channels: Channels of the output (B, out_channels, H / stride, W / stride).
        stride: 1 or 2.
        attention: Weigh the channels by squeeze-and-excitation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, attention: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(_conv_bn(in_channels, out_channels, 3, stride), nn.ReLU(inplace=True))
        self.second = _conv_bn(out_channels, out_channels, 3, scale=0.1)
        self.attention = SqueezeExcitation(out_channels, reduction=4) if attention else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), _conv_bn(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return F.relu(self.attention(self.second(self.first(x))) + self.shortcut(x), inplace=True)


class NarrowUNet(nn.Module):
    """Residual U-Net, narrow at high and wide at low resolution.

    Args:
        in_channels: Number of input bands C.
        width: Channels at full resolution; every level below halves the sides and doubles the channels (16 to 256).
        blocks: Residual blocks of every level below full resolution.
        dropout: Dropout ahead of the head.
        relative: Give the network every band a second time, relative to the patch: without its mean, divided by its
            standard deviation. So it sees both how bright a pixel is and how much brighter than its surroundings.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 16,
        blocks: int = 2,
        dropout: float = 0.1,
        relative: bool = False,
    ) -> None:
        super().__init__()
        require_positive(width=width, blocks=blocks)
        self.relative = relative
        in_channels *= 2 if relative else 1
        self.stem = nn.Sequential(_conv_bn(in_channels, width, 3), nn.ReLU(inplace=True))
        pairs = [(width * 2**level, width * 2 ** (level + 1)) for level in range(N_LEVELS)]
        self.encoder = nn.ModuleList(
            nn.Sequential(
                BasicBlock(shallow, deep, 2, level >= 2),
                *(BasicBlock(deep, deep, 1, level >= 2) for _ in range(blocks - 1)),
            )
            for level, (shallow, deep) in enumerate(pairs, start=1)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(_conv_bn(deep + shallow, shallow, 3), nn.ReLU(inplace=True)) for shallow, deep in pairs[::-1]
        )
        self.heads = SingleHead(width, dropout)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches.

        Args:
            x: (B, C, H, W) float; H = W, a multiple of 16.

        Returns:
            {"128": logits (B, 2, 128, 128)} for 128-pixel input.
        """
        if self.relative:
            x = torch.cat([x, F.instance_norm(x)], dim=1)
        x = self.stem(x)
        skips = [x]
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        x = skips.pop()
        for convolution in self.decoder:
            skip = skips.pop()
            x = convolution(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        logits: dict[str, Tensor] = self.heads(x)
        return logits
