"""Convolution blocks with the framework defaults under which the paper's networks were trained.

LeakyReLU slope 0.3, batch normalisation with epsilon 1e-3 and momentum 0.99 (0.01 in PyTorch's convention),
"same" padding (an even kernel or a stride of two pads at the bottom and right), zero biases.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.errors import ConfigurationError
from landslide.models import cpu_layers
from landslide.models.attention import SelfAttention
from landslide.models.options import require_one_of

N_CLASSES = 2
LEAKY_SLOPE = 0.3
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.01
# Standard deviation of a normal distribution of deviation 1 that is cut off at -2 and 2.
_TRUNCATED_DEVIATION = 0.87962566103423978


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


class ChannelAffine(nn.Module):
    """A trained scale and shift of each channel: gamma x / sqrt(1 + epsilon) + beta.

    This is batch normalisation in inference mode with its initial statistics, mean 0 and variance 1. The authors'
    recorded networks were trained so, because their training loop calls them in inference mode.

    Args:
        width: Channels of input and output (B, width, H, W).
        epsilon: Of the batch normalisation.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, epsilon: float = BATCH_NORM_EPSILON) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width), persistent=False)
        self.register_buffer("variance", torch.ones(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift x (B, width, H, W)."""
        return F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, training=False, eps=self.epsilon)


def set_normalization(model: nn.Module, normalization: str, batch_norm_momentum: float) -> None:
    """Set what the batch normalisations of a network do.

    Args:
        model: The network, changed in place.
        normalization: `batch_norm`, or `affine`, which replaces each by a `ChannelAffine`.
        batch_norm_momentum: Share of the newest batch in the running statistics, 0.01 in the paper.

    Raises:
        ConfigurationError: If the normalisation is unknown, or the momentum is set and has no effect.
    """
    require_one_of("normalization", normalization, ("batch_norm", "affine"))
    if normalization == "affine" and batch_norm_momentum != BATCH_NORM_MOMENTUM:
        raise ConfigurationError(
            f"The network option batch_norm_momentum is {batch_norm_momentum} and has no effect: normalization is "
            "affine.",
            remedy="Leave batch_norm_momentum out, or set normalization: batch_norm.",
        )
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                child.momentum = batch_norm_momentum
                if normalization == "affine":
                    setattr(parent, name, ChannelAffine(child.num_features, child.eps))


def initialize_weights(model: nn.Module, initialization: str) -> None:
    """Initialise the weights of a network; biases are zero, and self-attention has its own initialisation.

    Args:
        model: The network, changed in place.
        initialization: `he_normal` for all convolutions and dense layers, or `keras`, as in the authors' record:
            he-normal cut off at two standard deviations for convolutions, Glorot-uniform for the last convolution of
            each head (1x1) and for dense layers.

    Raises:
        ConfigurationError: If the initialisation is unknown.
    """
    require_one_of("initialization", initialization, _INITIALIZATIONS)
    draw = _INITIALIZATIONS[initialization]

    def initialize(module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            draw(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, SelfAttention):  # comes after its layers, and draws their weights again
            module.reset_parameters()

    model.apply(initialize)


def _he_normal(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _keras(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> None:
    if isinstance(layer, nn.Linear) or (layer.kernel_size == (1, 1) and layer.out_channels == N_CLASSES):
        nn.init.xavier_uniform_(layer.weight)
    else:
        # Of the input for a convolution, of the output for a transposed one: PyTorch and Keras agree.
        fan_in = layer.weight[0].numel()
        bound = 2 * math.sqrt(2 / fan_in) / _TRUNCATED_DEVIATION
        nn.init.trunc_normal_(layer.weight, std=bound / 2, a=-bound, b=bound)


_INITIALIZATIONS = {"he_normal": _he_normal, "keras": _keras}
