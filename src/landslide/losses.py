"""Segmentation losses: cross entropy, focal, IoU, and the paper's sum of the last two (section IV-B).

Every loss takes logits (B, 2, H, W) and integer masks (B, H, W) and works in float32 whatever the precision of
the logits, because the probabilities are clipped close to 0 and 1.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from landslide.errors import ConfigurationError

EPSILON = 1e-7
FOCAL_GAMMA = 2.0
# Weight of a head by its resolution for 128-pixel patches (authors' code).
HEAD_WEIGHTS: dict[str, float] = {"256": 0.25, "128": 0.5, "64": 0.25}

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross entropy over pixels (paper, equation 1): scalar."""
    return F.cross_entropy(logits.float(), mask.long())


def focal(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the focal loss with gamma 2 and no class weight: scalar.

    Lin et al., "Focal Loss for Dense Object Detection" (the paper's reference [26]). Each of the two one-hot
    channels is a binary problem, (1 - p)^2 * -log p for the true and p^2 * -log(1 - p) for the other class, and
    the mean runs over all channels and pixels. With softmax probabilities both channels hold the same value, so
    this equals the mean over pixels of (1 - p_true)^2 * -log p_true, p clipped to [1e-7, 1 - 1e-7].
    """
    probability = torch.softmax(logits.float(), dim=1)
    p_true = probability.gather(1, mask.long().unsqueeze(1)).clamp(EPSILON, 1.0 - EPSILON)
    return ((1.0 - p_true) ** FOCAL_GAMMA * -torch.log(p_true)).mean()


def iou(logits: Tensor, mask: Tensor) -> Tensor:
    """Return -log of the soft IoU over the whole batch, mean over the two classes: scalar.

    Soft intersection sum(p y) over soft union sum(p + y - p y), epsilon 1e-7 in both (paper, equation 3; the
    logarithm is in the authors' code).
    """
    probability = torch.softmax(logits.float(), dim=1)
    truth = F.one_hot(mask.long(), num_classes=2).permute(0, 3, 1, 2).to(probability.dtype)
    intersection = (probability * truth).sum(dim=(0, 2, 3))
    union = (probability + truth).sum(dim=(0, 2, 3)) - intersection
    return -torch.log((intersection + EPSILON) / (union + EPSILON)).mean()


def focal_iou(logits: Tensor, mask: Tensor) -> Tensor:
    """Return 1.0 focal + 1.0 IoU, the paper's combined loss: scalar."""
    return focal(logits, mask) + iou(logits, mask)


_LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "iou": iou,
    "focal_iou": focal_iou,
}
LOSS_NAMES = tuple(_LOSSES)


def create_loss(name: str) -> Loss:
    """Return the loss of that name: called with logits (B, 2, H, W) and integer masks (B, H, W).

    Raises:
        ConfigurationError: On an unknown name.
    """
    if name not in _LOSSES:
        raise ConfigurationError(f"There is no loss {name!r}.", remedy=f"Use one of {', '.join(LOSS_NAMES)}.")
    return _LOSSES[name]


def multi_head_loss(
    logits: Mapping[str, Tensor], mask: Tensor, loss: Loss, head_weights: Mapping[str, float] | None = None
) -> Tensor:
    """Return the weighted mean of a loss over the heads: scalar.

    Args:
        logits: (B, 2, S, S) by resolution S as text, as the models return them.
        mask: (B, H, W) integers; resized to each resolution by nearest neighbour.
        loss: A loss of one head.
        head_weights: Weight by resolution for 128-pixel input, `HEAD_WEIGHTS` by default; a crop of 64 pixels
            takes the weights of the heads at the same ratio to its input. The weights of the heads that a model
            has are divided by their sum, so a single head has weight 1.

    Raises:
        ConfigurationError: If a head has no weight.
    """
    ratio_weights = {int(k) / 128: w for k, w in (head_weights or HEAD_WEIGHTS).items()}
    height = mask.shape[-1]
    weights = {r: ratio_weights[int(r) / height] for r in logits if int(r) / height in ratio_weights}
    total = sum(weights.values())
    if len(weights) < len(logits) or total <= 0:
        raise ConfigurationError(
            f"Not every head of {list(logits)} has a weight for input of {height} pixels.",
            remedy=f"Give head_weights for these resolutions; they are {dict(head_weights or HEAD_WEIGHTS)}.",
        )
    losses = [
        weights[resolution] / total * loss(head, _resize(mask, int(resolution))) for resolution, head in logits.items()
    ]
    return torch.stack(losses).sum()


def _resize(mask: Tensor, size: int) -> Tensor:
    if mask.shape[-1] == size:
        return mask
    return F.interpolate(mask.unsqueeze(1).float(), size=(size, size), mode="nearest").squeeze(1).long()
