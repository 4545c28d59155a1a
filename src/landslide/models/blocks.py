"""Convolution blocks with the framework defaults under which the paper's networks were trained.

LeakyReLU slope 0.3, batch normalisation with epsilon 1e-3 and momentum 0.99 (0.01 in PyTorch's convention),
"same" padding (an even kernel or a stride of two pads at the bottom and right), he-normal weights, zero biases.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.models import cpu_layers
from landslide.models.attention import SelfAttention

LEAKY_SLOPE = 0.3
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.01


class SameConv2d(nn.Conv2d):
    """Convolution with "same" padding: output size = ceil(input size / stride), extra padding bottom/right.

    Args:
        in_channels: Channels of the input (B, in_channels, H, W).
        out_channels: Channels of the output (B, out_channels, ceil(H / stride), ceil(W / stride)).
        kernel: Side of the kernel.
        stride: Step in both directions; the input's sides must be multiples of it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        total = kernel - stride
        before, after = total // 2, total - total // 2
        super().__init__(in_channels, out_channels, kernel, stride, padding=before)
        self._extra = after - before

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W)."""
        if self._extra:
            x = F.pad(x, (0, self._extra, 0, self._extra))
        if self.stride == (1, 1) and cpu_layers.suits(x, self.weight):
            return cpu_layers.conv2d(x, self.weight, self.bias, int(self.padding[0]))
        return super().forward(x)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution of stride 2 that doubles the sides exactly, cropping at the bottom and right.

    Every second row and column of the output is a usual convolution of the input with every second row and column of
    the kernel. PyTorch's transposed convolution and its crop take a CPU twice as long as these four, most of it for the
    gradient (docs/performance.md). Three of the four keep a padded copy of the input for the gradient.

    Args:
        in_channels: Channels of the input (B, in_channels, H, W).
        out_channels: Channels of the output (B, out_channels, 2 H, 2 W).
        kernel: Side of the kernel, 2 or 3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample x (B, C, H, W) to (B, out_channels, 2 H, 2 W)."""
        if self.kernel_size != (2, 2):
            return interleave(self.phases(x))
        assert self.bias is not None
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)  # without neighbours it is one matrix product
        maps = F.linear(x.permute(0, 2, 3, 1), weight, self.bias.repeat(4))
        return _interleave_nhwc(maps.unflatten(-1, (2, 2, -1)))

    def phases(self, x: Tensor) -> list[Tensor]:
        """Return the four parts of the output, each (B, out_channels, H, W).

        They are the even rows' even and odd columns, then the odd rows': what `interleave` takes.
        """
        weight, parts = self.weight.transpose(0, 1), []
        for row in (0, 1):
            for column in (0, 1):
                kernel = weight[:, :, row::2, column::2].flip(2, 3).contiguous(memory_format=torch.channels_last)
                above, left = (side - 1 for side in kernel.shape[2:])
                parts.append(F.conv2d(F.pad(x, (left, 0, above, 0)), kernel, self.bias))
        return parts


def interleave(parts: list[Tensor]) -> Tensor:
    """Return the map (B, C, 2 H, 2 W) of four parts, see `SameConvTranspose2d.phases`."""
    return _interleave_nhwc(torch.stack([part.permute(0, 2, 3, 1) for part in parts], dim=3).unflatten(3, (2, 2)))


def _interleave_nhwc(parts: Tensor) -> Tensor:
    """Turn (B, H, W, 2 rows, 2 columns, C) into (B, C, 2 H, 2 W)."""
    return parts.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class Dropout(nn.Dropout):
    """Dropout that draws bits on a CPU, where PyTorch draws a floating-point number for each activation.

    16 for an activation, or 8 where the probability is a multiple of 1/256; it is rounded to 1/65536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop activations of x (B, C, H, W) in training."""
        dropped = round(self.p * 2**16)
        usual = not self.training or dropped in (0, 2**16) or torch.compiler.is_compiling()
        if usual or x.device.type != "cpu":
            return super().forward(x)
        shape = [x.shape[i] for i in (0, 2, 3, 1)]
        bits, kind = (8, torch.int8) if dropped % 2**8 == 0 else (16, torch.int16)
        drawn = torch.empty(-(-x.numel() * bits // 64), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        # Numbers up to `highest` drop. Limits make of a number 0 or 1 above it, which is quicker than a comparison.
        highest = (dropped >> (16 - bits)) - 2 ** (bits - 1) - 1
        kept = drawn.view(kind)[: x.numel()].view(shape).clamp_(highest, highest + 1).sub_(highest)
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped)).permute(0, 3, 1, 2)


class SELU(nn.SELU):
    """SELU that keeps its output for the gradient in place of its input: the next convolution keeps that anyway.

    Klambauer et al., "Self-Normalizing Neural Networks", 2017.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply SELU to each value of x."""
        result: Tensor = _SELU.apply(x)
        return result


class _SELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.selu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        if gradient.device.type == "cpu" and gradient.dim() == 4:  # as part of a concatenation it is slow to read
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        result: Tensor = torch.ops.aten.elu_backward(gradient, SELU_ALPHA, SELU_SCALE, 1.0, True, y)
        return result


def conv_bn_act(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Return convolution, batch normalisation, LeakyReLU (paper, Fig. 1)."""
    return nn.Sequential(
        SameConv2d(in_channels, out_channels, kernel),
        _batch_norm(out_channels),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    )


def _batch_norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with batch normalisation and LeakyReLU (paper, Fig. 1).

    Args:
        in_channels: Channels of the input (B, in_channels, H, W).
        out_channels: Channels of the output (B, out_channels, H, W).
        attention: Modules applied after the first and after the second convolution, None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        attention: tuple[nn.Module | None, nn.Module | None] = (None, None),
    ) -> None:
        convolutions = (conv_bn_act(in_channels, out_channels, 3), conv_bn_act(out_channels, out_channels, 3))
        super().__init__(*convolutions)
        for convolution, layer in zip(convolutions, attention, strict=True):
            if layer is not None:
                convolution.append(layer)


class ResConv(nn.Module):
    """Residual convolution block with two kernel sizes (paper, section IV-C and Fig. 2).

    A 3x3 and a 2x2 convolution are summed, a 3x3 convolution follows, then the attention; the input is added. The
    paper's networks keep the width through the block. Where it changes, a 1x1 convolution with batch normalisation
    takes the input to the output's width, the projection shortcut of He et al., "Deep Residual Learning", 2016.

    Args:
        width: Channels of the output (B, width, H, W).
        attention: Module applied ahead of the residual sum, or None.
        in_channels: Channels of the input (B, in_channels, H, W); `width` if None.
    """

    def __init__(self, width: int, attention: nn.Module | None = None, in_channels: int | None = None) -> None:
        super().__init__()
        in_channels = width if in_channels is None else in_channels
        self.branch_3x3 = conv_bn_act(in_channels, width, 3)
        self.branch_2x2 = conv_bn_act(in_channels, width, 2)
        self.merge = conv_bn_act(width, width, 3)
        self.attention = attention if attention is not None else nn.Identity()
        self.shortcut = (
            nn.Identity()
            if in_channels == width
            else nn.Sequential(SameConv2d(in_channels, width, 1), _batch_norm(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, in_channels, H, W) to (B, width, H, W)."""
        merged = self.attention(self.merge(self.branch_3x3(x) + self.branch_2x2(x)))
        total: Tensor = merged + self.shortcut(x)
        return total


def initialize(module: nn.Module) -> None:
    """Initialise one layer: he-normal weights and zero biases; self-attention its own way. For `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, SelfAttention):  # comes after its layers, whose weights it draws anew
        module.reset_parameters()


def set_batch_norm_momentum(model: nn.Module, momentum: float) -> None:
    """Set how fast all running statistics follow the batches: the share of the newest batch, 0.01 in the paper."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
