"""The paper's U-Net baseline (section III-B, Table I, Fig. 1) and what its section IV-C makes of it.

31,049,922 trainable parameters at 14 bands, the paper's "31.0 M"; 31,397,122 without the 2x2 convolution after each
upsampling. The networks of Table V have no such convolution, three heads and an attention layer.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.models.attention import create_attention
from landslide.models.blocks import (
    BATCH_NORM_MOMENTUM,
    DoubleConv,
    ResConv,
    SameConv2d,
    initialize_weights,
    set_normalization,
)
from landslide.models.heads import create_heads
from landslide.models.options import require_one_of, require_patch_size, require_positive

N_LEVELS = 4
SE_REDUCTION = 16  # one squeeze-and-excitation a block then adds 0.22 M, as in the paper's record


class UNet(nn.Module):
    """U-Net with max pooling and nearest-neighbour upsampling.

    Args:
        in_channels: Number of input bands C.
        width: Channels of the first level, 64 in the paper; each level below doubles it (64 to 1024).
        block: `double` convolution, or the paper's Res-Conv block as `res_conv`, whose input passes a 1x1
            convolution because every level changes the width.
        attention: `none`, `se`, `cbam` or `multi_head` (see `landslide.models.attention`).
        attention_after: Position of the attention: after each `block`, or after each `convolution` of the double
            convolutions, as the paper's text says. In a Res-Conv block it is before the residual sum.
        attention_options: Options of the attention layer; squeeze-and-excitation reduces by 16 unless told.
        heads: 1, or 3 for logits at half, the same and twice the input's resolution.
        head_width: Channels inside the half and the double resolution head.
        upsample_convolution: Halve the channels by a 2x2 convolution after each upsampling.
        patch_size: Side of the patches; only `multi_head` attention depends on it.
        dropout: Dropout before the head.
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
        width: int = 64,
        block: str = "double",
        attention: str = "none",
        attention_after: str = "block",
        attention_options: Mapping[str, Any] | None = None,
        heads: int = 1,
        head_width: int = 64,
        upsample_convolution: bool = True,
        patch_size: int = 128,
        dropout: float = 0.2,
        initialization: str = "he_normal",
        normalization: str = "batch_norm",
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        require_positive(width=width, head_width=head_width)
        require_patch_size(patch_size)
        require_one_of("block", block, ("double", "res_conv"))
        require_one_of("attention_after", attention_after, ("block", "convolution"))
        if block == "res_conv" and attention_after == "convolution":
            raise ConfigurationError(
                "The attention of a res_conv block cannot be after each convolution.",
                remedy="Leave out attention_after, or set block: double.",
            )
        if attention == "se":
            attention_options = {"reduction": SE_REDUCTION, **(attention_options or {})}

        def attend(w: int, level: int) -> nn.Module:
            return create_attention(attention, w, patch_size // 2**level, attention_options)

        def convolve(i: int, o: int, level: int) -> nn.Module:
            if block == "res_conv":
                return ResConv(o, attend(o, level), in_channels=i)
            first = attend(o, level) if attention_after == "convolution" else None
            return DoubleConv(i, o, (first, attend(o, level)))

        widths = [width * 2**level for level in range(N_LEVELS + 1)]
        self.encoder = nn.ModuleList(
            convolve(i, o, level)
            for level, (i, o) in enumerate(zip([in_channels, *widths[:-2]], widths[:-1], strict=True))
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = convolve(widths[-2], widths[-1], N_LEVELS)
        rising = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (1024, 512), (512, 256), ...
        self.upsample = nn.ModuleList(_upsample(deep, shallow, upsample_convolution) for deep, shallow in rising)
        self.decoder = nn.ModuleList(
            convolve(shallow + (shallow if upsample_convolution else deep), shallow, level)
            for level, (deep, shallow) in zip(reversed(range(N_LEVELS)), rising, strict=True)
        )
        self.heads = create_heads(heads, width, head_width, dropout)
        initialize_weights(self, initialization)
        set_normalization(self, normalization, batch_norm_momentum)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment patches.

        Args:
            x: (B, C, H, W) float, bands as stored; H = W, a multiple of 16.

        Returns:
            {"128": logits (B, 2, 128, 128)} for 128-pixel input; with three heads also "256" and "64".

        Raises:
            ConfigurationError: If `multi_head` attention was built for patches of another size.
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


def _upsample(deep: int, shallow: int, convolution: bool) -> nn.Sequential:
    doubled = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(doubled, SameConv2d(deep, shallow, 2)) if convolution else nn.Sequential(doubled)
