"""Prediction: landslide probabilities of one model or an ensemble, and the threshold chosen on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.errors import PredictionError
from landslide.inference.symmetries import NO_GRADIENTS, SYMMETRIES, Symmetry, TestTimeAugmentation, gradient_channels
from landslide.models import main_logits
from landslide.schema import PATCH_SIZE


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How a probability comes from a network's logits; the default is how the authors' record is scored."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    heads: Literal["main", "average"] = "main"
    """`main` takes the head of the input's resolution. `average` takes the mean of the softmax of all heads, as the
    paper's text says. The text does not give the method: here the finer one is averaged over
    its 2 x 2 pixels, the coarser one interpolated bilinearly."""
    augmentation: TestTimeAugmentation = "none"
    """Test-time augmentation, the mean over moved patches: `none`, the four `rotations`, or all eight symmetries with
    `flips_and_rotations`. It costs four or eight times as much. Gradient bands are swapped and signed with the patch,
    independently of the augmentation in training."""


PUBLISHED = PredictionSettings()
# Maximum number of patches, transformed ones included, that are joined to one batch; a larger batch stays as it is.
_MAX_BATCH = 16


def landslide_probability(
    model: nn.Module,
    images: Tensor,
    prediction: PredictionSettings = PUBLISHED,
    band_names: Sequence[str] | None = None,
) -> Tensor:
    """Return the landslide probability of images, without gradients.

    Args:
        model: A network, in evaluation mode.
        images: (B, C, H, W) float32.
        prediction: Which heads, and which test-time augmentation.
        band_names: Names of the C bands; test-time augmentation needs them.

    Returns:
        (B, H, W) float32.
    """
    return landslide_probabilities(model, images, [prediction], band_names)[0]


def landslide_probabilities(
    model: nn.Module,
    images: Tensor,
    predictions: Sequence[PredictionSettings],
    band_names: Sequence[str] | None = None,
) -> list[Tensor]:
    """Return the landslide probability by several settings, which share the passes through the network.

    Args:
        model: A network, in evaluation mode.
        images: (B, C, H, W) float32.
        predictions: The settings.
        band_names: Names of the C bands; test-time augmentation needs them.

    Returns:
        (B, H, W) float32 for each of the settings.

    Raises:
        ConfigurationError: If patches are to be rotated, and only one of the gradient bands is selected.
        ValueError: If patches are to be rotated, and the bands have no names.
        PredictionError: If the network's answers are not finite: no score of such answers may be compared.
    """
    symmetries = max((SYMMETRIES[prediction.augmentation] for prediction in predictions), key=len)
    gradients = NO_GRADIENTS
    if len(symmetries) > 1:
        if band_names is None:
            raise ValueError("Test-time augmentation needs the names of the bands, to know which are gradients.")
        gradients = gradient_channels(band_names)
    totals = [torch.zeros((), device=images.device) for _ in predictions]
    with torch.inference_mode():
        for group in _passes(symmetries, images):  # the fewer symmetries are among the more
            parts = [symmetry.apply(images, gradients) for symmetry in group]
            moved = (torch.cat(parts) if len(parts) > 1 else parts[0]).contiguous(memory_format=torch.channels_last)
            logits = model(moved)
            for i, prediction in enumerate(predictions):
                wanted = SYMMETRIES[prediction.augmentation]
                if any(symmetry in wanted for symmetry in group):
                    probability = probability_of_heads(logits, (moved.shape[-2], moved.shape[-1]), prediction.heads)
                    for symmetry, part in zip(group, probability.split(len(images)), strict=True):
                        if symmetry in wanted:
                            totals[i] = totals[i] + symmetry.invert(part)
        sizes = [len(SYMMETRIES[prediction.augmentation]) for prediction in predictions]
        found = [total / size for total, size in zip(totals, sizes, strict=True)]
    wrong = torch.stack([~probability.isfinite().flatten(1).all(dim=1) for probability in found]).any(dim=0)
    if wrong.any():
        raise PredictionError(
            f"The network predicts probabilities that are not finite for {int(wrong.sum())} of {len(images)} patches.",
            remedy="Do not use this network. Put another version into service (`landslide models list`, "
            "`landslide models promote`), and train again with a lower learning rate or precision: 32-true.",
        )
    return found


def _passes(symmetries: Sequence[Symmetry], images: Tensor) -> list[tuple[Symmetry, ...]]:
    """Return the symmetries that pass through the network as one batch, if it is small and the patches are square.

    Unchanged, rotated and flipped patches stay in separate batches, so rounding does not depend on other requests.
    """
    kinds = [symmetries[:1], symmetries[1:4], symmetries[4:]]
    if images.shape[-2] != images.shape[-1] or 4 * len(images) > _MAX_BATCH:
        return [(symmetry,) for symmetry in symmetries]
    return [tuple(kind) for kind in kinds if kind]


def probability_of_heads(logits: dict[str, Tensor], size: tuple[int, int], heads: str) -> Tensor:
    """Return the landslide probability (B, H, W) of the main head, or the mean of all heads."""
    if heads == "main":
        return _landslide(main_logits(logits, size[1]))
    return torch.stack([_resized(_landslide(head), size) for head in logits.values()]).mean(dim=0)


def _landslide(logits: Tensor) -> Tensor:
    return torch.softmax(logits.float(), dim=1)[:, 1]


def _resized(probability: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (B, H, W) to a size: finer maps by the mean over their pixels, coarser ones bilinearly."""
    if probability.shape[-2:] == size:
        return probability
    if probability.shape[-1] > size[1]:
        return F.interpolate(probability[:, None], size, mode="area")[:, 0]
    return F.interpolate(probability[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def ensemble_probability(
    models: Sequence[nn.Module],
    images: Tensor,
    predictions: Sequence[PredictionSettings] | None = None,
    band_names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation over the members, each (B, H, W) float32.

    Args:
        models: TrainedRow networks of equal input bands, in evaluation mode.
        images: (B, C, H, W) float32.
        predictions: How each member predicts; the published way if None.
        band_names: Names of the C bands; test-time augmentation needs them.
    """
    variants = predictions or [PUBLISHED] * len(models)
    members = torch.stack(
        [
            landslide_probability(model, images, variant, band_names)
            for model, variant in zip(models, variants, strict=True)
        ]
    )
    mean = members.mean(dim=0)
    # On a CPU, Tensor.std takes thirty times as long along the first axis.
    return mean, (members - mean).square_().mean(dim=0).sqrt_()


def number_of_heads(model: nn.Module, in_channels: int, device: torch.device) -> int:
    """Return how many heads a network has, by passing one empty patch through it."""
    with torch.inference_mode():
        return len(model.to(device).eval()(torch.zeros(1, in_channels, PATCH_SIZE, PATCH_SIZE, device=device)))
