"""Attention layers for the convolution blocks."""

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation with a SELU bottleneck, the attention of the published best run.

    Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018 (the paper's reference [28]).

    Args:
        width: Channels of input and output (B, width, H, W).
        reduction: The bottleneck has width // reduction units.
    """

    def __init__(self, width: int, reduction: int = 2) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.Linear(width, width // reduction),
            nn.SELU(),
            nn.Linear(width // reduction, width),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of x (B, width, H, W) by a weight in (0, 1) from its global average."""
        weights: Tensor = self.excite(x.mean(dim=(2, 3)))
        return x * weights[:, :, None, None]
