"""Segmentation losses: the paper's sum of focal and IoU (section IV-B), those it is compared with, and any sum.

Every loss takes logits (B, 2, H, W) and integer masks (B, H, W) of a whole batch. It computes in float32 for any
precision of the logits, because small differences of probabilities close to 0 and 1 matter.

With several devices, each has a part of the batch. If `create_loss` gets a function that sums over the devices,
`cross_entropy`, `focal`, `iou`, their sums and `boundary` are computed over the whole batch. All other losses are
computed per device.

The authors' public record also has scores of log-cosh, Tversky, Lovasz and boundary losses, without their
definitions: here they follow the publications that introduced them, and each docstring names the open choices.
The first three come from segmentation_models.pytorch, imported at their first call because that takes seconds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from landslide.errors import ConfigurationError

EPSILON = 1e-7
FOCAL_GAMMA = 2.0
# Share of the pixels that count as hard.
HARD_SHARE = 0.25
# Weights of false positives and false negatives with which Salehi et al. scored best.
TVERSKY_ALPHA, TVERSKY_BETA = 0.3, 0.7
# Weight of a head by its resolution for 128-pixel patches (authors' code).
HEAD_WEIGHTS: dict[str, float] = {"256": 0.25, "128": 0.5, "64": 0.25}

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
DeviceSum: TypeAlias = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """Return x: the sum over the devices if there is only one."""
    return x


def _mean(values: Tensor, device_sum: DeviceSum) -> Tensor:
    if device_sum is identity:
        return values.mean()
    return device_sum(values.sum()) / device_sum(values.new_full((), values.numel()))


def cross_entropy(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean cross entropy over pixels (paper, equation 1): scalar."""
    return _mean(F.cross_entropy(logits.float(), mask.long(), reduction="none"), device_sum)


def hard_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the mean cross entropy over the hardest quarter of the pixels of the batch: scalar.

    Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining" (2016), with
    pixels in place of image regions. Landslides are 2 % of the pixels, so all of them can be in that quarter.
    """
    losses = F.cross_entropy(logits.float(), mask.long(), reduction="none").flatten()
    return losses.topk(math.ceil(HARD_SHARE * len(losses)), sorted=False).values.mean()


def focal(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the focal loss with gamma 2 and no class weight: scalar.

    Lin et al., "Focal Loss for Dense Object Detection" (the paper's reference [26]). Each of the two one-hot
    channels is a binary problem, (1 - p)^2 * -log p for the true and p^2 * -log(1 - p) for the other class, and
    the mean runs over all channels and pixels. With softmax probabilities both channels hold the same value, so
    this equals the mean over pixels of (1 - p_true)^2 * -log p_true, p clipped to [1e-7, 1 - 1e-7].
    """
    probability = torch.softmax(logits.float(), dim=1)
    p_true = probability.gather(1, mask.long().unsqueeze(1)).clamp(EPSILON, 1.0 - EPSILON)
    return _mean((1.0 - p_true) ** FOCAL_GAMMA * -torch.log(p_true), device_sum)


def iou(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return -log of the soft IoU over the whole batch, mean over the two classes: scalar.

    Soft intersection sum(p y) over soft union sum(p + y - p y), epsilon 1e-7 in both (paper, equation 3; the
    logarithm is in the authors' code).
    """
    probability = torch.softmax(logits.float(), dim=1)
    truth = F.one_hot(mask.long(), num_classes=2).permute(0, 3, 1, 2).to(probability.dtype)
    intersection = (probability * truth).sum(dim=(0, 2, 3))
    intersection, both = device_sum(torch.stack([intersection, (probability + truth).sum(dim=(0, 2, 3))]))
    union = both - intersection
    return -torch.log((intersection + EPSILON) / (union + EPSILON)).mean()


def log_cosh(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log(cosh(Dice loss)), between 0 and 0.43: scalar.

    Jadon, "A survey of loss functions for semantic segmentation" (2020). The record says "log-cosh" and no more;
    this is the loss of that name for segmentation (the older one is for regression, value by value). The Dice
    loss is that of segmentation_models.pytorch: 1 - 2 sum(p y) / sum(p + y) over the batch, without smoothing, mean
    over both classes. A class that is missing in the masks counts as 0. Jadon has one class and adds 1 to both sums.
    """
    from segmentation_models_pytorch.losses import DiceLoss

    dice: Tensor = DiceLoss("multiclass")(logits.float(), mask.long())
    return torch.log(torch.cosh(dice))


def tversky(logits: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - TP / (TP + 0.3 FP + 0.7 FN) of the landslide class, with soft counts over the batch: scalar.

    Salehi et al., "Tversky Loss Function for Image Segmentation Using 3D Fully Convolutional Deep Networks" (2017),
    and their best weights; the record gives none. As there, only the rare class counts: for the background, false
    positives and false negatives would swap their weights. A batch without landslides gives no gradient, whatever
    the definition of 0 / 0; segmentation_models.pytorch makes it a loss of 0.
    """
    from segmentation_models_pytorch.losses import TverskyLoss

    # The softmax probability of one of two classes is the sigmoid of the difference.
    landslide = (logits[:, 1].float() - logits[:, 0].float()).unsqueeze(1)
    loss: Tensor = TverskyLoss("binary", alpha=TVERSKY_ALPHA, beta=TVERSKY_BETA)(landslide, mask)
    return loss


def lovasz(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the Lovasz-softmax loss over the batch, mean over the classes present in the masks: scalar.

    Berman et al., "The Lovasz-Softmax loss: a tractable surrogate for the optimization of the
    intersection-over-union measure in neural networks" (2018): the extension of 1 - IoU to probabilities. Of
    segmentation_models.pytorch, in its multi-class form (its binary form is a hinge loss on logits). It sorts all
    pixels once for each class, and waits for the GPU to learn which classes are present.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    loss: Tensor = LovaszLoss("multiclass")(logits.float(), mask)
    return loss


def boundary(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean over pixels of the landslide probability times `signed_distance`: scalar.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation" (2019), for the landslide class. The loss
    can be negative: for a perfect prediction it is the mean of the negative distances. Patches with one class
    contribute nothing, so their false positives cost nothing. Add it to a region loss (`cross_entropy+boundary`).
    The distances are computed on the CPU, so a GPU waits for them at every call.
    """
    probability = torch.softmax(logits.float(), dim=1)[:, 1]
    return _mean(probability * signed_distance(mask), device_sum)


def signed_distance(mask: Tensor) -> Tensor:
    """Return the distance of every pixel from the edge of the landslides, negative inside them.

    Args:
        mask: (B, H, W) integers 0 and 1.

    Returns:
        (B, H, W) float32 on the mask's device, in units of the patch's width: heads of all resolutions then weigh
        alike, and do not drown the loss that they are added to. The edge is the outermost pixels of a landslide, which
        have distance 0. A patch of one class has no edge and 0 throughout.
    """
    distances = [_distance_in_pixels(patch) for patch in mask.to("cpu", torch.uint8).numpy()]
    return torch.from_numpy(np.stack(distances)).to(mask.device) / mask.shape[-1]


def _distance_in_pixels(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    if mask.min() == mask.max():
        return np.zeros(mask.shape, np.float32)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask == 1, 1.0 - inside, outside).astype(np.float32)


def focal_iou(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return 1.0 focal + 1.0 IoU, the paper's combined loss: scalar."""
    return focal(logits, mask, device_sum=device_sum) + iou(logits, mask, device_sum=device_sum)


_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "hard_cross_entropy": hard_cross_entropy,
    "focal": focal,
    "iou": iou,
    "focal_iou": focal_iou,
    "log_cosh": log_cosh,
    "tversky": tversky,
    "lovasz": lovasz,
    "boundary": boundary,
}
LOSS_NAMES = tuple(_LOSSES)
_GLOBAL_BATCH_LOSSES = ("cross_entropy", "focal", "iou", "focal_iou", "boundary")


def create_loss(name: str, *, device_sum: DeviceSum = identity) -> Loss:
    """Return the loss of that name: called with logits (B, 2, H, W) and integer masks (B, H, W).

    Args:
        name: One of `LOSS_NAMES`, or several joined by a plus (`cross_entropy+lovasz`): their sum, each with weight 1.
        device_sum: Sums a tensor over the devices, with its gradient
            (`landslide.training.distributed.sum_over_devices`).

    Raises:
        ConfigurationError: On an unknown name, or a loss that occurs twice in a sum.
    """
    names = name.split("+")
    unknown = [term for term in names if term not in _LOSSES]
    if unknown or len(set(names)) < len(names):
        raise ConfigurationError(
            f"There is no loss {unknown[0]!r}." if unknown else f"The loss {name!r} adds a loss to itself.",
            remedy=f"Use one of {', '.join(LOSS_NAMES)}, or a sum of different ones such as cross_entropy+lovasz.",
        )
    losses = [
        partial(_LOSSES[term], device_sum=device_sum) if term in _GLOBAL_BATCH_LOSSES else _LOSSES[term]
        for term in names
    ]
    return losses[0] if len(losses) == 1 else partial(_sum_of_losses, losses)


def _sum_of_losses(losses: Sequence[Loss], logits: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([loss(logits, mask) for loss in losses]).sum()


def multi_head_loss(
    logits: Mapping[str, Tensor], mask: Tensor, loss: Loss, head_weights: Mapping[str, float] | None = None
) -> Tensor:
    """Return the weighted mean of a loss over the heads: scalar.

    Args:
        logits: (B, 2, S, S) by resolution S as text, as the models return them.
        mask: (B, H, W) integers; resized to each resolution by nearest neighbour.
        loss: A loss of one head.
        head_weights: Weight by resolution for 128-pixel input, `HEAD_WEIGHTS` by default. For other input
            sizes, the ratio of head size to input size decides: with 64-pixel crops, the 64-pixel head gets the weight
            of "128". The weights of a model's heads are divided by their sum, so a single head has weight 1.

    Raises:
        ConfigurationError: If a head has no weight.
    """
    shares = head_shares(list(logits), mask.shape[-1], head_weights)
    losses = [shares[size] * loss(head, _resize(mask, int(size))) for size, head in logits.items()]
    return torch.stack(losses).sum()


def head_shares(
    resolutions: Sequence[str], height: int, head_weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return the weight of every head, one in all; see `multi_head_loss`.

    Args:
        resolutions: Of the heads, as text.
        height: Pixels of the input's sides.
        head_weights: Weight by resolution for 128-pixel input, `HEAD_WEIGHTS` by default.

    Raises:
        ConfigurationError: If a head has no weight.
    """
    ratio_weights = {int(k) / 128: w for k, w in (head_weights or HEAD_WEIGHTS).items()}
    weights = {r: ratio_weights[int(r) / height] for r in resolutions if int(r) / height in ratio_weights}
    total = sum(weights.values())
    if len(weights) < len(resolutions) or total <= 0:
        raise ConfigurationError(
            f"Not every head of {list(resolutions)} has a weight for input of {height} pixels.",
            remedy=f"Give head_weights for these resolutions; they are {dict(head_weights or HEAD_WEIGHTS)}.",
        )
    return {resolution: weight / total for resolution, weight in weights.items()}


def _resize(mask: Tensor, size: int) -> Tensor:
    if mask.shape[-1] == size:
        return mask
    return F.interpolate(mask.unsqueeze(1).float(), size=(size, size), mode="nearest").squeeze(1).long()
