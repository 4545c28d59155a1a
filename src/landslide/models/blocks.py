"""Convolution blocks with the framework defaults under which the paper's networks were trained.

LeakyReLU slope 0.3, batch normalisation with epsilon 1e-3 and momentum 0.99 (0.01 in PyTorch's convention),
"same" padding (an even kernel or a stride of two pads at the bottom and right), he-normal weights, zero biases.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from landslide.models import cpu_layers
from landslide.models.attention import SelfAttention

LEAKY_SLOPE = 0.3
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
        if self.stride == (1, 1) and cpu_layers.use_matmul_weight_gradient(x, self.weight):
            return cpu_layers.conv2d(x, self.weight, self.bias, int(self.padding[0]))
        return super().forward(x)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution of stride 2 that doubles the sides exactly, cropping at the bottom and right.

    Args:
        in_channels: Channels of the input (B, in_channels, H, W).
        out_channels: Channels of the output (B, out_channels, 2 H, 2 W).
        kernel: Side of the kernel, 2 or 3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample x (B, C, H, W) to (B, out_channels, 2 H, 2 W)."""
        if self.kernel_size == (3, 3) and cpu_layers.is_active("transposed_convolution", x):
            return cpu_layers.conv_transpose2d(x, self.weight, self.bias)
        return super().forward(x)[..., : 2 * x.shape[2], : 2 * x.shape[3]]


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
        attention: Module applied before the residual sum, or None.
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
    if isinstance(module, SelfAttention):  # comes after its layers, and draws their weights again
        module.reset_parameters()


def set_batch_norm_momentum(model: nn.Module, momentum: float) -> None:
    """Set how fast all running statistics follow the batches: the share of the newest batch, 0.01 in the paper."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
