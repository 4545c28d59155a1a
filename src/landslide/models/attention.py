"""Attention layers of the compared networks: squeeze-and-excitation, CBAM and the paper's multi-head attention.

Each is built for a number of channels and the side of the map that it sees, and maps (B, C, H, W) to the same shape.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.errors import ConfigurationError
from landslide.models.options import require_known, require_one_of, require_positive

POOLINGS = ("mean", "mean_max")


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation with a SELU bottleneck, the attention of the published best run.

    Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018 (the paper's reference [28]).

    Args:
        width: Channels of input and output (B, width, H, W).
        reduction: The bottleneck has width // reduction units, one at least.
    """

    def __init__(self, width: int, reduction: int = 2) -> None:
        super().__init__()
        require_positive(reduction=reduction)
        bottleneck = max(1, width // reduction)
        self.excite = nn.Sequential(
            nn.Linear(width, bottleneck),
            nn.SELU(),
            nn.Linear(bottleneck, width),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of x (B, width, H, W) by a weight in (0, 1) from its global average."""
        weights: Tensor = self.excite(_channels_last(x).mean(dim=(1, 2)))
        return x * weights[:, :, None, None]


class CBAM(nn.Module):
    """Convolutional block attention: a gate for every channel, then a gate for every pixel.

    Woo, Park, Lee and Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018 (the paper's reference [29]).
    As published: one perceptron for the mean and the maximum of each channel, their sum through a sigmoid; then a
    7x7 convolution over the mean and the maximum across the channels. The convolution has a bias and no batch
    normalisation. Woo et al. reduce the perceptron by 16; 8 is the reduction with which the U-Net has the 31.9 M
    parameters of the paper's record.

    Args:
        width: Channels of input and output (B, width, H, W).
        reduction: The perceptron's hidden layer has width // reduction units, one at least.
        kernel: Side of the spatial kernel, an odd number.
    """

    def __init__(self, width: int, reduction: int = 8, kernel: int = 7) -> None:
        super().__init__()
        require_positive(reduction=reduction, kernel=kernel)
        if kernel % 2 == 0:
            raise ConfigurationError(f"The kernel of a CBAM is {kernel}.", remedy="Set it to an odd number, such as 7.")
        bottleneck = max(1, width // reduction)
        self.channel = nn.Sequential(nn.Linear(width, bottleneck), nn.ReLU(), nn.Linear(bottleneck, width))
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Scale x (B, width, H, W) by channel and then by pixel, each by weights in (0, 1)."""
        mean, highest = _channels_last(x).mean(dim=(1, 2)), x.amax(dim=(2, 3))
        x = x * torch.sigmoid(self.channel(mean) + self.channel(highest))[:, :, None, None]
        pixels = torch.stack([_channels_last(x).mean(dim=3), x.amax(dim=1)], dim=1)
        return x * torch.sigmoid(self.spatial(pixels))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the rows of a two-dimensional map, as in Keras' MultiHeadAttention.

    Vaswani et al., "Attention Is All You Need", 2017. Query, key and value have heads x key_size units each, with
    biases; the output projection leads back to the features of the map. Weights start Glorot-uniform.

    Args:
        features: Length of a row, the last axis of the map (B, rows, features).
        heads: Number of heads.
        key_size: Units of a head, for query, key and value alike.
    """

    def __init__(self, features: int, heads: int, key_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(features, heads * key_size)
        self.key = nn.Linear(features, heads * key_size)
        self.value = nn.Linear(features, heads * key_size)
        self.output = nn.Linear(heads * key_size, features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw Glorot-uniform weights and set the biases to zero: the framework's default for this layer."""
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, rows, features) to the same shape."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(query, key, value)  # (B, heads, rows, key_size)
        result: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        """Turn (B, rows, heads x key_size) into (B, heads, rows, key_size)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class MultiHeadAttention(nn.Module):
    """The paper's own attention, "Pro-Att" (section IV-C, Fig. 3).

    The input is averaged over channels, over width and over height. Each of the three maps, (H, W), (H, C) and
    (W, C), goes through its own self-attention and a sigmoid, and scales the input along the averaged axis; the mean of
    the three results is the output. The self-attention's features are W, C and C, so the weights fit one map size only.

    Args:
        width: Channels C of input and output (B, C, H, W).
        side: Height and width of the map.
        heads: Number of heads, 6 in the authors' code and 4 in their small network.
        key_size: Units of a head.
        pooling: `mean` as published, or `mean_max` as the paper's text says: the maps of maxima go through the same
            self-attention and are added before the sigmoid, as CBAM does with its two.
    """

    def __init__(self, width: int, side: int, heads: int = 6, key_size: int = 12, pooling: str = "mean") -> None:
        super().__init__()
        require_positive(heads=heads, key_size=key_size)
        require_one_of("pooling", pooling, POOLINGS)
        self.side = side
        self.pooling = pooling
        self.over_channels = SelfAttention(side, heads, key_size)
        self.over_width = SelfAttention(width, heads, key_size)
        self.over_height = SelfAttention(width, heads, key_size)

    def forward(self, x: Tensor) -> Tensor:
        """Scale x (B, C, side, side) by the mean of three maps of weights in (0, 1).

        Raises:
            ConfigurationError: If the map has another size.
        """
        height, width = x.shape[2:]
        if (height, width) != (self.side, self.side):
            raise ConfigurationError(
                f"The network's multi_head attention was built for a map of {self.side} x {self.side} pixels and got "
                f"{height} x {width}.",
                remedy="Its weights fit one patch size: give it patches of `patch_size` pixels (128 unless set in "
                "model_options) in training and prediction alike, and leave training.crop unset.",
            )
        # Scaling x thrice and averaging is scaling it once by the average of the weights.
        pixels = _channels_last(x)
        over_channels = self._weights(self.over_channels, pixels, 3)[:, None, :, :]
        over_width = self._weights(self.over_width, pixels, 2).transpose(1, 2)[:, :, :, None]
        over_height = self._weights(self.over_height, pixels, 1).transpose(1, 2)[:, :, None, :]
        return x * ((over_channels + over_width + over_height) / 3)

    def _weights(self, attention: SelfAttention, pixels: Tensor, axis: int) -> Tensor:
        """Pool pixels (B, H, W, C) over an axis and return weights of the map: (B, H, W), (B, H, C) or (B, W, C)."""
        attended = attention(pixels.mean(dim=axis))
        if self.pooling == "mean_max":
            attended = attended + attention(pixels.amax(dim=axis))
        return torch.sigmoid(attended)


def _channels_last(x: Tensor) -> Tensor:
    """View (B, C, H, W) as (B, H, W, C).

    The gradient of a mean has the memory layout of its input. If that differs from the layout of the feature map,
    adding the two gradients is several times slower on a CPU (docs/performance.md).
    """
    return x.permute(0, 2, 3, 1)


_LAYERS: dict[str, type[nn.Module]] = {"se": SqueezeExcitation, "cbam": CBAM, "multi_head": MultiHeadAttention}
ATTENTION_NAMES = ("none", *_LAYERS)


def create_attention(name: str, width: int, side: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Create an attention layer by name.

    Args:
        name: One of `ATTENTION_NAMES`: `none`, `se`, `cbam`, `multi_head`.
        width: Channels of the map.
        side: Height and width of the map; only `multi_head` depends on it.
        options: The layer's own options: `reduction` of `se` and `cbam`, `kernel` of `cbam`; `heads`, `key_size`
            and `pooling` of `multi_head`.

    Returns:
        A module that maps (B, width, side, side) to the same shape; the identity for `none`.

    Raises:
        ConfigurationError: On an unknown name or option, or an impossible value.
    """
    require_one_of("attention", name, ATTENTION_NAMES)
    parameters = inspect.signature(_LAYERS[name]).parameters if name in _LAYERS else {}
    size = {key: value for key, value in {"width": width, "side": side}.items() if key in parameters}
    require_known(f"attention: {name}", options or {}, set(parameters) - set(size))
    return _LAYERS[name](**size, **(options or {})) if name in _LAYERS else nn.Identity()
