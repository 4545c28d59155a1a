"""Calibration: are pixels with a landslide probability of 0.7 landslides in seven of ten cases?

The probabilities of all pixels are sorted into bins of equal width; in each bin, the mean probability and the share of
landslides should agree. The expected calibration error is the mean difference of the two, weighted by the pixels of
the bins (Naeini et al., 2015, for two classes). The Brier score is the mean squared difference between probability and
truth. As nearly all pixels are background, both are small for any network: the table by bins tells more.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

N_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Sums over the pixels of some patches, by probability bin. Sums of several parts can be added.

    Attributes:
        pixels: (n_bins,) int64 number of pixels.
        landslides: (n_bins,) int64 number of landslide pixels among them.
        probability: (n_bins,) float64 sum of their landslide probabilities.
        squared_error: Sum over all pixels of (probability - truth) squared.
    """

    pixels: npt.NDArray[np.int64]
    landslides: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    squared_error: float

    def __add__(self, other: "Calibration") -> "Calibration":
        return Calibration(
            self.pixels + other.pixels,
            self.landslides + other.landslides,
            self.probability + other.probability,
            self.squared_error + other.squared_error,
        )

    def table(self) -> pd.DataFrame:
        """Return the reliability table.

        Returns:
            One row per bin. Columns low, high (the last bin includes 1), pixels, mean_probability and
            observed_frequency; the last two are NaN for an empty bin.
        """
        edges = np.arange(len(self.pixels) + 1) / len(self.pixels)
        with np.errstate(invalid="ignore"):
            return pd.DataFrame(
                {
                    "low": edges[:-1],
                    "high": edges[1:],
                    "pixels": self.pixels,
                    "mean_probability": self.probability / self.pixels,
                    "observed_frequency": self.landslides / self.pixels,
                }
            )

    def scores(self) -> dict[str, float]:
        """Return `expected_calibration_error` and `brier_score`; 0 is best for both."""
        n = self.pixels.sum()
        distance = np.abs(self.probability - self.landslides).sum()
        return {
            "expected_calibration_error": float(distance / n),
            "brier_score": float(self.squared_error / n),
        }


def calibration(probability: Any, masks: Any, n_bins: int = N_BINS) -> Calibration:
    """Compare probabilities with the truth.

    Args:
        probability: (n, H, W) landslide probabilities, n at least 1: an array, or a tensor, which is summed on its
            own device.
        masks: (n, H, W) masks 0 and 1 of the same kind.
        n_bins: Number of bins of equal width.
    """
    p, true = torch.as_tensor(probability).double().flatten(), torch.as_tensor(masks != 0).flatten()
    edges = torch.from_numpy(np.arange(n_bins) / n_bins).to(p.device)
    bins = torch.bucketize(p, edges, right=True) - 1
    pixels = torch.bincount(2 * bins + true, minlength=2 * n_bins).reshape(-1, 2).cpu().numpy()
    sums = torch.zeros(n_bins, dtype=torch.float64, device=p.device).index_add_(0, bins, p).cpu().numpy()
    return Calibration(pixels.sum(axis=1), pixels[:, 1].copy(), sums, float((p - true.double()).square().sum()))
