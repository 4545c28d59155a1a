"""Prediction: landslide probabilities of one model or an ensemble, and the threshold chosen on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from landslide.batches import PatchBatches
from landslide.cache import BandCache
from landslide.metrics import scores, threshold_counts
from landslide.models import main_logits


def landslide_probability(model: nn.Module, images: Tensor) -> Tensor:
    """Return the landslide probability (B, H, W) float32 of images (B, C, H, W), without gradients.

    It is the softmax of the head at the images' own resolution, the one that the authors score.
    """
    with torch.inference_mode():
        logits = main_logits(model(images), images.shape[-1]).float()
        return torch.softmax(logits, dim=1)[:, 1]


def ensemble_probability(models: Sequence[nn.Module], images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation over the members, each (B, H, W) float32.

    Args:
        models: Trained networks of equal input bands, in evaluation mode.
        images: (B, C, H, W) float32.
    """
    members = torch.stack([landslide_probability(model, images) for model in models])
    return members.mean(dim=0), members.std(dim=0, correction=0)


def select_threshold(probability: npt.NDArray[Any], masks: npt.NDArray[Any], select_by: str) -> float:
    """Return the threshold in [0, 1) of the best score on the selection part; 0.5 where several are equal.

    Args:
        probability: (n, H, W) landslide probabilities.
        masks: (n, H, W) masks 0 and 1.
        select_by: Score to maximise.
    """
    thresholds, counts = threshold_counts(probability, masks)
    values = np.array([scores(table)[select_by] for table in counts])
    best = np.flatnonzero(values == values.max())
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])


def predict_rows(
    model: nn.Module,
    cache: BandCache,
    rows: npt.NDArray[np.int64],
    band_names: tuple[str, ...],
    *,
    device: torch.device,
    batch_size: int = 12,
) -> npt.NDArray[np.float32]:
    """Predict patches of the cache.

    Args:
        model: A trained network, see `landslide.models.build_model`.
        cache: The band cache.
        rows: (n,) rows of it.
        band_names: The network's input bands, in order.
        device: Where to compute.
        batch_size: Patches at a time.

    Returns:
        (n, 128, 128) float32 landslide probabilities of the head at the patches' own resolution.
    """
    model = model.to(device).eval()
    source = PatchBatches(cache, rows, band_names, device, resident=False)
    result = np.empty((len(rows), *cache.masks.shape[1:]), np.float32)
    for indices in torch.arange(len(rows)).split(batch_size):
        images, _ = source.batch(indices)
        result[indices.numpy()] = landslide_probability(model, images).cpu().numpy()
    return result
