"""Segmentation losses: the paper's sum of focal and IoU (section IV-B), those it is compared with, and any sum.

Every loss takes logits (B, 2, H, W) and integer masks (B, H, W) of a whole batch. It computes in float32 for any
precision of the logits, because small differences of probabilities close to 0 and 1 matter.

The plain names are the definitions of the authors' record. It takes means over all B x H x W x 2 elements of the
one-hot masks; where the other class contributes nothing, that halves the mean over pixels. A name with the name of an
author (`focal_lin`, `tversky_salehi`) is the loss as published elsewhere, and `_per_pixel` a mean over pixels.

In the formulas, p are the softmax probabilities, clipped to [1e-7, 1 - 1e-7] except in `iou`, and y the one-hot masks.

With several devices, each has a part of the batch. If `create_loss` gets a function that sums over the devices, all
losses are computed over the whole batch, except those that sort pixels or come from segmentation_models.pytorch
(`hard_cross_entropy`, `lovasz`, `lovasz_berman`, `log_cosh_jadon`, `tversky_salehi`): these are computed per device.
segmentation_models.pytorch is imported at the first call that needs it because that takes seconds.
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
# Weight of the background in the log-cosh and the boundary loss of the authors' record.
BACKGROUND_WEIGHT = 0.8
# Weights of false positives and false negatives in the Tversky loss of the authors' record.
TVERSKY_WEIGHT = 0.75
# The boundary loss of the authors' record covers pixels whose distance to the other class, plus 1, is below this.
BOUNDARY_REACH = 4.5
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


def _probability(logits: Tensor) -> Tensor:
    """Return softmax probabilities, clipped as in the authors' record."""
    return torch.softmax(logits.float(), dim=1).clamp(EPSILON, 1.0 - EPSILON)


def _one_hot(mask: Tensor) -> Tensor:
    return F.one_hot(mask.long(), num_classes=2).permute(0, 3, 1, 2).float()


def _true_probability(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the clipped probability (B, 1, H, W) of the true class."""
    return _probability(logits).gather(1, mask.long().unsqueeze(1))


def cross_entropy(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean of -y log p over all elements, half the mean over pixels (authors' record): scalar."""
    return _mean(-torch.log(_true_probability(logits, mask)), device_sum) / 2


def cross_entropy_per_pixel(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
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
    """Return the focal loss with gamma 2 and no class weight, the mean over all elements (authors' record): scalar.

    The elements are y (1 - p)^2 * -log p, and half of them are zero, so this is half of `focal_lin`.
    """
    return focal_lin(logits, mask, device_sum=device_sum) / 2


def focal_lin(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the focal loss with gamma 2 and no class weight, the mean over pixels: scalar.

    Lin et al., "Focal Loss for Dense Object Detection" (the paper's reference [26]): (1 - p_true)^2 * -log p_true of
    every pixel, p clipped to [1e-7, 1 - 1e-7]. Lin et al. divide the sum over all anchors by the number of those that
    hold an object; for a segmentation, where every pixel has a class, that is the number of pixels.
    """
    p_true = _true_probability(logits, mask)
    return _mean((1.0 - p_true) ** FOCAL_GAMMA * -torch.log(p_true), device_sum)


def iou(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return -log of the soft IoU over the whole batch, mean over the two classes: scalar.

    Soft intersection sum(p y) over soft union sum(p + y - p y), epsilon 1e-7 in both (paper, equation 3; the
    logarithm is in the authors' code).
    """
    probability = torch.softmax(logits.float(), dim=1)
    truth = _one_hot(mask)
    intersection = (probability * truth).sum(dim=(0, 2, 3))
    intersection, both = device_sum(torch.stack([intersection, (probability + truth).sum(dim=(0, 2, 3))]))
    union = both - intersection
    return -torch.log((intersection + EPSILON) / (union + EPSILON)).mean()


def log_cosh(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean of w log(cosh((p - y)^2)) over all elements (authors' record): scalar.

    w is 0.8 for the background and 1 for landslides.
    """
    error = (_probability(logits) - _one_hot(mask)) ** 2
    weights = error.new_tensor([BACKGROUND_WEIGHT, 1.0])[:, None, None]
    # cosh x = 1 + 2 sinh^2(x / 2); the plain formula loses small errors in float32.
    return _mean(weights * torch.log1p(2 * torch.sinh(error / 2) ** 2), device_sum)


def tversky(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return -log of the Tversky index over the batch, mean over both classes (authors' record): scalar.

    The index of soft counts is (TP + 1e-7) / (TP + 0.75 FP + 0.75 FN + 1e-7).
    """
    p, y = _probability(logits), _one_hot(mask)
    counts = torch.stack([(p * y).sum((0, 2, 3)), (p * (1 - y)).sum((0, 2, 3)), ((1 - p) * y).sum((0, 2, 3))])
    hits, false_alarms, misses = device_sum(counts)
    index = (hits + EPSILON) / (hits + TVERSKY_WEIGHT * (false_alarms + misses) + EPSILON)
    return -torch.log(index).mean()


def lovasz(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the Lovasz extension of -log(Jaccard index) over the batch (authors' record): scalar.

    It is the mean over both classes. For each, the errors sqrt(|y - p|) in descending order are weighted by how much
    -log of the Jaccard index grows when one more pixel is wrong. The index has 1e-7 added to intersection and union;
    the record does not say how the logarithm of 0 is avoided.
    """
    p, y = _probability(logits), _one_hot(mask)
    distances = torch.where(y == 1, p.flip(1), p)  # |y - p|; 1 - p would lose small errors in float32
    losses = []
    for distance, truth in zip(distances.unbind(1), y.unbind(1), strict=True):
        errors, order = distance.sqrt().flatten().sort(descending=True)
        # Counts above 2^24 need more than float32.
        wrong_true = truth.flatten()[order].double().cumsum(0)
        n_true, wrong = wrong_true[-1], torch.arange(1, len(order) + 1, device=order.device)
        extension = -torch.log((n_true - wrong_true + EPSILON) / (n_true + wrong - wrong_true + EPSILON))
        losses.append((errors * extension.diff(prepend=extension.new_zeros(1)).float()).sum())
    return torch.stack(losses).mean()


def boundary(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean of W (-y log p) over all elements, with W large near the outline (authors' record): scalar.

    In a class, the distance of a pixel is the Euclidean distance to the nearest pixel of the other class, plus 1. Where
    that is below 4.5, W is the largest distance of the class in the patch, elsewhere 1; for the background, W is
    multiplied by 0.8. In a patch of one class W is 1. The authors' code looks for the band of the background where the
    landslides are; this is what it evidently means. A GPU waits at every call, because distances are computed on the
    CPU.
    """
    return _weighted_cross_entropy(logits, mask, _near_the_outline, device_sum)


def centre(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean of W (-y log p) over all elements, with W growing inwards (authors' record): scalar.

    W is the Euclidean distance to the nearest pixel of the other class, plus 1; it is 1 in a patch of one class. A GPU
    waits at every call, because distances are computed on the CPU.
    """
    return _weighted_cross_entropy(logits, mask, lambda distance, landslide: distance, device_sum)


def _weighted_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    weigh: Callable[[npt.NDArray[np.float32], bool], npt.NDArray[np.float32]],
    device_sum: DeviceSum,
) -> Tensor:
    """Return the mean over all elements of W (-y log p).

    Args:
        logits: (B, 2, H, W).
        mask: (B, H, W) integers 0 and 1.
        weigh: Returns W for the pixels of one class of a patch from their distances to the other class, plus 1, and
            whether the class is landslide; both arrays have the same one axis.
        device_sum: Sums over the devices.
    """
    weights = np.ones(tuple(mask.shape), np.float32)
    for patch, weight in zip(mask.to("cpu", torch.uint8).numpy(), weights, strict=True):
        if patch.min() < patch.max():
            for value in (0, 1):
                inside = patch == value
                distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                weight[inside] = weigh(distance[inside] + 1, value == 1)
    losses = -torch.log(_true_probability(logits, mask).squeeze(1))
    return _mean(torch.from_numpy(weights).to(losses.device) * losses, device_sum) / 2


def _near_the_outline(distance: npt.NDArray[np.float32], landslide: bool) -> npt.NDArray[np.float32]:
    weights = np.where(distance < BOUNDARY_REACH, distance.max(), 1.0)
    return (weights if landslide else BACKGROUND_WEIGHT * weights).astype(np.float32)


def log_cosh_jadon(logits: Tensor, mask: Tensor) -> Tensor:
    """Return log(cosh(Dice loss)), between 0 and 0.43: scalar.

    Jadon, "A survey of loss functions for semantic segmentation" (2020). The Dice loss is that of
    segmentation_models.pytorch: 1 - 2 sum(p y) / sum(p + y) over the batch, without smoothing, mean over both classes.
    A class that is missing in the masks counts as 0. Jadon has one class and adds 1 to both sums.
    """
    from segmentation_models_pytorch.losses import DiceLoss

    dice: Tensor = DiceLoss("multiclass")(logits.float(), mask.long())
    return torch.log(torch.cosh(dice))


def tversky_salehi(logits: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - TP / (TP + 0.3 FP + 0.7 FN) of the landslide class, with soft counts over the batch: scalar.

    Salehi et al., "Tversky Loss Function for Image Segmentation Using 3D Fully Convolutional Deep Networks" (2017),
    and their best weights. As there, only the rare class counts: for the background, false
    positives and false negatives would swap their weights. A batch without landslides gives no gradient, whatever
    the definition of 0 / 0; segmentation_models.pytorch makes it a loss of 0.
    """
    from segmentation_models_pytorch.losses import TverskyLoss

    # The softmax probability of one of two classes is the sigmoid of the difference.
    landslide = (logits[:, 1].float() - logits[:, 0].float()).unsqueeze(1)
    loss: Tensor = TverskyLoss("binary", alpha=TVERSKY_ALPHA, beta=TVERSKY_BETA)(landslide, mask)
    return loss


def lovasz_berman(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the Lovasz-softmax loss over the batch, mean over the classes present in the masks: scalar.

    Berman et al., "The Lovasz-Softmax loss: a tractable surrogate for the optimization of the
    intersection-over-union measure in neural networks" (2018): the extension of 1 - IoU to probabilities. Of
    segmentation_models.pytorch, in its multi-class form (its binary form is a hinge loss on logits). It sorts all
    pixels once for each class, and waits for the GPU to learn which classes are present.
    """
    from segmentation_models_pytorch.losses import LovaszLoss

    loss: Tensor = LovaszLoss("multiclass")(logits.float(), mask)
    return loss


def boundary_kervadec(logits: Tensor, mask: Tensor, *, device_sum: DeviceSum = identity) -> Tensor:
    """Return the mean over pixels of the landslide probability times `signed_distance`: scalar.

    Kervadec et al., "Boundary loss for highly unbalanced segmentation" (2019), for the landslide class. The loss
    can be negative: for a perfect prediction it is the mean of the negative distances. Patches with one class
    contribute nothing, so their false positives cost nothing. Add it to a region loss
    (`cross_entropy_per_pixel+boundary_kervadec`). The distances are computed on the CPU, so a GPU waits for them at
    every call.
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
    """Return 1.0 focal + 1.0 IoU, the combined loss of the authors' record: scalar."""
    return focal(logits, mask, device_sum=device_sum) + iou(logits, mask, device_sum=device_sum)


_LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "focal": focal,
    "iou": iou,
    "focal_iou": focal_iou,
    "log_cosh": log_cosh,
    "tversky": tversky,
    "lovasz": lovasz,
    "boundary": boundary,
    "centre": centre,
    "cross_entropy_per_pixel": cross_entropy_per_pixel,
    "hard_cross_entropy": hard_cross_entropy,
    "focal_lin": focal_lin,
    "log_cosh_jadon": log_cosh_jadon,
    "tversky_salehi": tversky_salehi,
    "lovasz_berman": lovasz_berman,
    "boundary_kervadec": boundary_kervadec,
}
LOSS_NAMES = tuple(_LOSSES)
_LOCAL_LOSSES = ("hard_cross_entropy", "lovasz", "log_cosh_jadon", "tversky_salehi", "lovasz_berman")


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
        _LOSSES[term] if term in _LOCAL_LOSSES else partial(_LOSSES[term], device_sum=device_sum) for term in names
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
