"""Segmentation heads: logits of two classes at one or three resolutions (paper, section IV-C and Fig. 4)."""

from torch import Tensor, nn

from landslide.models.blocks import N_CLASSES, SameConv2d, SameConvTranspose2d
from landslide.models.options import require_one_of, require_share


class MultiResolutionHeads(nn.Module):
    """Logits at half, the same and twice the input's resolution, after dropout.

    Args:
        width: Channels of the decoder's output (B, width, H, W).
        head_width: Channels between the two layers of the half and the double resolution head.
        dropout: Probability of dropping an activation of the decoder's output.
    """

    def __init__(self, width: int, head_width: int = 64, dropout: float = 0.25) -> None:
        super().__init__()
        require_share(dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.half_resolution = nn.Sequential(
            SameConv2d(width, head_width, 3, stride=2), nn.ReLU(), nn.Conv2d(head_width, N_CLASSES, 1)
        )
        self.same_resolution = nn.Conv2d(width, N_CLASSES, 1)
        self.double_resolution = nn.Sequential(
            SameConvTranspose2d(width, head_width, 3), nn.ReLU(), nn.Conv2d(head_width, N_CLASSES, 1)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return logits (B, 2, S, S) by resolution S as text: H / 2, H and 2 H for x (B, width, H, H)."""
        x = self.dropout(x)
        logits = (self.double_resolution(x), self.same_resolution(x), self.half_resolution(x))
        return {str(head.shape[-1]): head for head in logits}


class SingleHead(nn.Module):
    """Logits at the input's resolution, after dropout.

    Args:
        width: Channels of the decoder's output (B, width, H, W).
        dropout: Probability of dropping an activation of the decoder's output.
    """

    def __init__(self, width: int, dropout: float = 0.2) -> None:
        super().__init__()
        require_share(dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.same_resolution = nn.Conv2d(width, N_CLASSES, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return {"<H>": logits (B, 2, H, H)} for x (B, width, H, H)."""
        logits: Tensor = self.same_resolution(self.dropout(x))
        return {str(logits.shape[-1]): logits}


def create_heads(count: int, width: int, head_width: int, dropout: float) -> MultiResolutionHeads | SingleHead:
    """Create one head or three.

    Args:
        count: 1 for the input's resolution only, 3 for half, the same and twice the input's resolution.
        width: Channels of the decoder's output.
        head_width: Channels inside the half and the double resolution head.
        dropout: Probability of dropping an activation of the decoder's output.

    Raises:
        ConfigurationError: On another number of heads.
    """
    require_one_of("heads", count, (1, 3))
    return SingleHead(width, dropout) if count == 1 else MultiResolutionHeads(width, head_width, dropout)
