"""RAU-Net, the paper's best network: residual-convolutional U-Net with attention and three heads (Fig. 4).

What is special about it: the encoder is 128 wide at every level and the decoder grows instead, because each
upsampling keeps its width and adds a 128-wide skip: 256, 384, 512, 640. There is no block at the bottom.
The published run has 24,876,294 trainable parameters with 23 input bands and 24,873,990 with 21.
"""

import torch
from torch import Tensor, nn

from landslide.models.attention import SqueezeExcitation
from landslide.models.blocks import (
    BATCH_NORM_MOMENTUM,
    ResConv,
    SameConv2d,
    SameConvTranspose2d,
    conv_bn_act,
    initialize,
    set_batch_norm_momentum,
)
from landslide.models.heads import MultiResolutionHeads

N_LEVELS = 4


class RAUNet(nn.Module):
    """Residual attention U-Net.

    Args:
        in_channels: Number of input bands C.
        width: Channels of the encoder, 128 in the paper; the decoder's widths are multiples of it.
        head_width: Channels inside the half and the double resolution head.
        dropout: Dropout ahead of the heads.
        batch_norm_momentum: Share of the newest batch in the running statistics; a short training needs more.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 128,
        head_width: int = 64,
        dropout: float = 0.25,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        self.stem = conv_bn_act(in_channels, width, 3)
        self.encoder = nn.ModuleList(_res_conv(width) for _ in range(N_LEVELS))
        self.downsample = nn.ModuleList(
            nn.Sequential(SameConv2d(width, width, 2, stride=2), nn.SELU()) for _ in range(N_LEVELS)
        )
        widths = [width * (level + 1) for level in range(N_LEVELS + 1)]  # 128, 256, 384, 512, 640
        self.upsample = nn.ModuleList(nn.Sequential(SameConvTranspose2d(w, w, 2), nn.SELU()) for w in widths[:-1])
        self.decoder = nn.ModuleList(_res_conv(w) for w in widths[1:])
        self.heads = MultiResolutionHeads(widths[-1], head_width, dropout)
        self.apply(initialize)
        set_batch_norm_momentum(self, batch_norm_momentum)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches.

        Args:
            x: (B, C, H, W) float, bands as stored; H = W, a multiple of 16.

        Returns:
            Logits (B, 2, S, S) by resolution S: "256", "128" and "64" for 128-pixel input.
        """
        x = self.stem(x)
        skips = []
        for block, down in zip(self.encoder, self.downsample, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        for up, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        logits: dict[str, Tensor] = self.heads(x)
        return logits


def _res_conv(width: int) -> ResConv:
    return ResConv(width, SqueezeExcitation(width))
