"""The paper's U-Net baseline (section III-B, Table I, Fig. 1): 31,049,922 trainable parameters at 14 bands."""

import torch
from torch import Tensor, nn

from landslide.models.blocks import BATCH_NORM_MOMENTUM, DoubleConv, SameConv2d, initialize, set_batch_norm_momentum
from landslide.models.heads import SingleHead

N_LEVELS = 4


class UNet(nn.Module):
    """U-Net with double convolutions, max pooling and nearest-neighbour upsampling.

    Args:
        in_channels: Number of input bands C.
        width: Channels of the first level, 64 in the paper; each level below doubles it (64 to 1024).
        dropout: Dropout ahead of the head.
        batch_norm_momentum: Share of the newest batch in the running statistics; a short training needs more.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 64,
        dropout: float = 0.2,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(N_LEVELS + 1)]
        self.encoder = nn.ModuleList(
            DoubleConv(i, o) for i, o in zip([in_channels, *widths[:-2]], widths[:-1], strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = DoubleConv(widths[-2], widths[-1])
        rising = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (1024, 512), (512, 256), ...
        self.upsample = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), SameConv2d(deep, shallow, 2))
            for deep, shallow in rising
        )
        self.decoder = nn.ModuleList(DoubleConv(2 * shallow, shallow) for _, shallow in rising)
        self.heads = SingleHead(width, dropout)
        self.apply(initialize)
        set_batch_norm_momentum(self, batch_norm_momentum)

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
        for up, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], dim=1))
        logits: dict[str, Tensor] = self.heads(x)
        return logits
