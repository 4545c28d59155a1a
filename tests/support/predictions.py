"""Predictions and scores of all patches at once, which the library computes batch by batch."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from landslide.bands.cache import BandCache
from landslide.evaluation.scores import FoldEvaluation, FoldEvaluator
from landslide.inference.batches import predict_batches
from landslide.inference.prediction import PUBLISHED, PredictionSettings


def predict_rows(
    model: nn.Module,
    cache: BandCache,
    rows: np.ndarray,
    band_names: tuple[str, ...],
    *,
    device: torch.device,
    batch_size: int = 12,
    prediction: PredictionSettings = PUBLISHED,
) -> np.ndarray:
    """Return the landslide probabilities (n, 128, 128) of rows of the cache."""
    return predict_variants(model, cache, rows, band_names, {"": prediction}, device=device, batch_size=batch_size)[""]


def predict_variants(
    model: nn.Module,
    cache: BandCache,
    rows: np.ndarray,
    band_names: tuple[str, ...],
    variants: Mapping[str, PredictionSettings],
    *,
    device: torch.device,
    batch_size: int = 12,
) -> dict[str, np.ndarray]:
    """Return the landslide probabilities (n, 128, 128) of rows of the cache by prediction variant."""
    batches = predict_batches(model, cache, rows, band_names, variants, device=device, batch_size=batch_size)
    found = [{variant: answer.cpu().numpy() for variant, answer in answers.items()} for _, answers, _ in batches]
    return {variant: np.concatenate([answers[variant] for answers in found]) for variant in variants}


def evaluate_fold(predicted: Mapping[str, np.ndarray], masks: np.ndarray, **thresholds: float) -> FoldEvaluation:
    """Score the predictions (n, H, W) of a test fold, given by prediction variant, as a single batch."""
    evaluator = FoldEvaluator(**thresholds)
    evaluator.add(predicted, masks)
    return evaluator.evaluation()


def random_predictions(n: int, seed: int = 0, empty: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and masks (n, 16, 16); about this share of the masks is empty."""
    rng = np.random.default_rng(seed)
    masks = ((rng.random((n, 16, 16)) < 0.2) & (rng.random((n, 1, 1)) > empty)).astype(np.uint8)
    probability = np.clip(rng.normal(0.15 + 0.5 * masks, 0.15), 0, 1).astype(np.float32)
    return probability, masks
