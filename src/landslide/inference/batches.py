"""Prediction of patches in the band cache. `prediction` itself needs neither the cache nor h5py nor pandas."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from landslide.bands.batches import PatchBatches
from landslide.bands.cache import BandCache
from landslide.inference.prediction import PredictionSettings, landslide_probabilities


def predict_batches(
    model: nn.Module,
    cache: BandCache,
    rows: npt.NDArray[np.int64],
    band_names: tuple[str, ...],
    variants: Mapping[str, PredictionSettings],
    *,
    device: torch.device,
    batch_size: int = 12,
) -> Iterator[tuple[slice, dict[str, Tensor], Tensor]]:
    """Predict patches of the cache batch by batch, on the device: for results that are smaller than the predictions.

    Args:
        model: A trained network.
        cache: The band cache.
        rows: (n,) rows of it.
        band_names: The network's input bands, in order.
        variants: Settings by a name of the caller's.
        device: Where to compute.
        batch_size: Patches at a time.

    Yields:
        Which of the rows, their landslide probabilities (B, 128, 128) by the same names, and their masks (B, 128, 128).
    """
    model = model.to(device).eval()
    source = PatchBatches(cache, rows, band_names, device, resident=False)
    for start in range(0, len(rows), batch_size):
        part = slice(start, min(start + batch_size, len(rows)))
        images, masks = source.batch(torch.arange(part.start, part.stop))
        found = landslide_probabilities(model, images, list(variants.values()), band_names)
        yield part, dict(zip(variants, found, strict=True)), masks
