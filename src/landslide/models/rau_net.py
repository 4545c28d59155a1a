"""RAU-Net, the paper's best network: residual-convolutional U-Net with attention and three heads (Fig. 4).

What is special about it: the encoder is 128 wide at every level and the decoder grows instead, because each
upsampling keeps its width and adds a 128-wide skip: 256, 384, 512, 640. There is no block at the bottom.
The published run has 24,876,294 trainable parameters with 23 input bands and 24,873,990 with 21. Options make of it
its relatives in the authors' record: the Res-Conv network of Table V, the RAU-Net 2 and the small RAU-Net.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landslide.models.attention import create_attention
from landslide.models.blocks import (
    BATCH_NORM_MOMENTUM,
    ResConv,
    SameConv2d,
    SameConvTranspose2d,
    conv_bn_act,
    initialize_weights,
    set_normalization,
)
from landslide.models.heads import MultiResolutionHeads
from landslide.models.options import require_one_of, require_patch_size, require_positive

N_LEVELS = 4


class RAUNet(nn.Module):
    """Residual attention U-Net.

    Args:
        in_channels: Number of input bands C.
        width: Channels of the encoder, 128 in the paper; the decoder's widths are multiples of it.
        head_width: Channels inside the half and the double resolution head.
        stem: First layer: convolution with `batch_norm` and LeakyReLU, or convolution with only `selu`.
        bottom_block: Put a Res-Conv block between encoder and decoder.
        attention: `se`, `none`, `cbam` or `multi_head` (see `landslide.models.attention`).
        attention_at: Position of the attention: in each `block`, before its residual sum, or on each
            `concatenation` of the decoder, before the block (the authors' RAU-Net 2).
        attention_options: Options of the attention layer.
        patch_size: Side of the patches; only `multi_head` attention depends on it.
        dropout: Dropout before the heads.
        initialization: `he_normal`, or `keras` as in the authors' record; see
            `landslide.models.blocks.initialize_weights`.
        normalization: `batch_norm`, or `affine` as in the authors' record (a trained scale and shift per channel).
        batch_norm_momentum: Share of the newest batch in the running statistics; a short training needs more.

    Raises:
        ConfigurationError: If an option has an impossible value.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 128,
        head_width: int = 64,
        stem: str = "batch_norm",
        bottom_block: bool = False,
        attention: str = "se",
        attention_at: str = "block",
        attention_options: Mapping[str, Any] | None = None,
        patch_size: int = 128,
        dropout: float = 0.25,
        initialization: str = "he_normal",
        normalization: str = "batch_norm",
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        require_positive(width=width, head_width=head_width)
        require_patch_size(patch_size)
        require_one_of("stem", stem, ("batch_norm", "selu"))
        require_one_of("attention_at", attention_at, ("block", "concatenation"))

        def attend(w: int, level: int) -> nn.Module:
            return create_attention(attention, w, patch_size // 2**level, attention_options)

        def res_conv(w: int, level: int) -> ResConv:
            return ResConv(w, attend(w, level) if attention_at == "block" else None)

        self.stem = (
            conv_bn_act(in_channels, width, 3)
            if stem == "batch_norm"
            else nn.Sequential(SameConv2d(in_channels, width, 3), nn.SELU())
        )
        self.encoder = nn.ModuleList(res_conv(width, level) for level in range(N_LEVELS))
        self.downsample = nn.ModuleList(
            nn.Sequential(SameConv2d(width, width, 2, stride=2), nn.SELU()) for _ in range(N_LEVELS)
        )
        self.bottom = res_conv(width, N_LEVELS) if bottom_block else nn.Identity()
        widths = [width * (level + 1) for level in range(N_LEVELS + 1)]  # 128, 256, 384, 512, 640
        self.upsample = nn.ModuleList(nn.Sequential(SameConvTranspose2d(w, w, 2), nn.SELU()) for w in widths[:-1])
        rising = list(zip(widths[1:], reversed(range(N_LEVELS)), strict=True))  # (256, level 3), (384, level 2), ...
        self.concatenation_attention = nn.ModuleList(
            attend(w, level) if attention_at == "concatenation" else nn.Identity() for w, level in rising
        )
        self.decoder = nn.ModuleList(res_conv(w, level) for w, level in rising)
        self.heads = MultiResolutionHeads(widths[-1], head_width, dropout)
        initialize_weights(self, initialization)
        set_normalization(self, normalization, batch_norm_momentum)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches.

        Args:
            x: (B, C, H, W) float, bands as stored; H = W, a multiple of 16.

        Returns:
            Logits (B, 2, S, S) by resolution S: "256", "128" and "64" for 128-pixel input.

        Raises:
            ConfigurationError: If `multi_head` attention was built for patches of another size.
        """
        x = self.stem(x)
        skips = []
        for block, down in zip(self.encoder, self.downsample, strict=True):
            x = block(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, attention, block in zip(self.upsample, self.concatenation_attention, self.decoder, strict=True):
            x = block(attention(torch.cat([up(x), skips.pop()], dim=1)))
        logits: dict[str, Tensor] = self.heads(x)
        return logits


def rau_net_small(in_channels: int, *, width: int = 40, **options: Any) -> RAUNet:
    """Return the authors' small RAU-Net: width 40, 2,599,710 trainable parameters with 23 input bands.

    Its multi-head attention has 4 heads; all options are those of `RAUNet`.
    """
    if options.get("attention") == "multi_head":
        options["attention_options"] = {"heads": 4, **(options.get("attention_options") or {})}
    return RAUNet(in_channels, width=width, **options)
