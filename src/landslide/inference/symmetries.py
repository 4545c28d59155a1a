"""The eight symmetries of a square patch; gradient bands are transformed accordingly.

A patch seen from above has no natural orientation, so its quarter turns and mirror images are patches as well:
augmentation trains on them, and test-time augmentation averages over them. Two bands have a direction: the Sobel
gradients in x (to the right) and in y (down). They are swapped and signed so that they match the transformed patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from landslide.errors import ConfigurationError

Gradients = tuple[int | None, int | None]
"""Channels of gradient_x and gradient_y; None for a missing one."""

NO_GRADIENTS: Gradients = (None, None)


def gradient_channels(band_names: Sequence[str]) -> Gradients:
    """Return the channels of the gradients.

    Args:
        band_names: Names of the channels, in order.

    Raises:
        ConfigurationError: If only one of the two is selected: a quarter turn turns each into the other.
    """
    names = list(band_names)
    x, y = (names.index(name) if name in names else None for name in ("gradient_x", "gradient_y"))
    if (x is None) != (y is None):
        raise ConfigurationError(
            f"Rotations need both gradient bands; only gradient_{'y' if x is None else 'x'} is selected.",
            remedy="Select gradient_x and gradient_y together, or neither, or rotate without turning the gradients "
            "(training.augmentation.mode: published, no test-time augmentation).",
        )
    return x, y


def rotate(images: Tensor, quarter_turns: int, gradients: Gradients = NO_GRADIENTS) -> Tensor:
    """Rotate images counter-clockwise.

    Args:
        images: (..., C, H, W).
        quarter_turns: Turns by 90 degrees.
        gradients: Channels that rotate as vectors: a quarter turn maps (x, y) to (y, -x).

    Returns:
        New images (..., C, H, W), or (..., C, W, H) after an odd number of turns.
    """
    turned = torch.rot90(images, quarter_turns, dims=(-2, -1))
    x, y = gradients
    if x is not None and y is not None:
        for _ in range(quarter_turns % 4):
            turned[..., [x, y], :, :] = torch.stack([turned[..., y, :, :], -turned[..., x, :, :]], dim=-3)
    return turned


def flip(images: Tensor, axis: int, gradients: Gradients = NO_GRADIENTS) -> Tensor:
    """Mirror images.

    Args:
        images: (..., C, H, W).
        axis: -1 swaps left and right, -2 top and bottom.
        gradients: Channels of the gradients; the one along the axis changes its sign.

    Returns:
        New images of the same shape.
    """
    mirrored = images.flip(axis)
    along = gradients[0 if axis == -1 else 1]
    if along is not None:
        mirrored[..., along, :, :] *= -1
    return mirrored


@dataclass(frozen=True)
class Symmetry:
    """A rotation, optionally followed by a horizontal flip.

    Attributes:
        quarter_turns: Counter-clockwise turns by 90 degrees, 0 to 3.
        mirrored: Whether left and right are swapped after the rotation.
    """

    quarter_turns: int
    mirrored: bool = False

    def apply(self, images: Tensor, gradients: Gradients = NO_GRADIENTS) -> Tensor:
        """Transform images (..., C, H, W), including their gradient bands."""
        moved = rotate(images, self.quarter_turns, gradients) if self.quarter_turns else images
        return flip(moved, -1, gradients) if self.mirrored else moved

    def invert(self, maps: Tensor) -> Tensor:
        """Undo the transformation of maps (..., H, W) without direction, such as probabilities."""
        back = maps.flip(-1) if self.mirrored else maps
        return torch.rot90(back, -self.quarter_turns, dims=(-2, -1))


IDENTITY = Symmetry(0)
ROTATIONS = tuple(Symmetry(turns) for turns in range(4))
ROTATIONS_AND_FLIPS = tuple(Symmetry(turns, mirrored) for mirrored, turns in product((False, True), range(4)))

TestTimeAugmentation = Literal["none", "rotations", "flips_and_rotations"]
SYMMETRIES: Mapping[TestTimeAugmentation, tuple[Symmetry, ...]] = {
    "none": (IDENTITY,),
    "rotations": ROTATIONS,
    "flips_and_rotations": ROTATIONS_AND_FLIPS,
}
