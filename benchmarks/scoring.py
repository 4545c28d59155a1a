"""Scoring predictions: batch by batch on the device against a stack of all of them, scored in NumPy patch by patch."""

from functools import partial

import numpy as np
import torch

from benchmarks.measure import Comparison, in_turn
from landslide.evaluation.scores import FoldEvaluator
from landslide.metrics.counts import confusion_counts, scores

N_THRESHOLDS, N_BINS = 200, 10


def in_numpy(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """Copy all predictions to the host, then count patch by patch."""
    probability = np.concatenate([batch.cpu().numpy() for batch, _ in batches])
    masks = np.concatenate([masks.cpu().numpy() for _, masks in batches])
    thresholds, edges = np.arange(N_THRESHOLDS) / N_THRESHOLDS, np.arange(N_BINS) / N_BINS
    counts, swept, reliability = np.zeros((2, 2, 2), np.int64), np.zeros((2, N_THRESHOLDS)), np.zeros((3, N_BINS))
    for p, mask in zip(probability, masks, strict=True):
        true = mask != 0
        for i, threshold in enumerate((0.5, 0.4)):
            counts[i] += confusion_counts(p >= threshold, mask)
        p64 = p.astype(np.float64).ravel()
        bins = np.searchsorted(thresholds, p64, side="right") - 1
        for cls in (0, 1):
            swept[cls] += np.bincount(bins[true.ravel() == cls], minlength=N_THRESHOLDS)
        bins = np.searchsorted(edges, p64, side="right") - 1
        reliability += [
            np.bincount(bins, minlength=N_BINS),
            np.bincount(bins[true.ravel()], minlength=N_BINS),
            np.bincount(bins, weights=p64, minlength=N_BINS),
        ]
    return scores(counts[0])


def ours(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    evaluator = FoldEvaluator(threshold=0.4)
    for probability, masks in batches:
        evaluator.add({"": probability}, masks)
    return evaluator.evaluation().scores


def run(quick: bool) -> list[Comparison]:
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    n, rounds = (48, 3) if quick else (480, 9)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(n // 12):
        probability = torch.rand(12, 128, 128, generator=generator) ** 8
        masks = (torch.rand(12, 128, 128, generator=generator) < probability).long()
        batches.append((probability.to(device), masks.to(device)))
    assert ours(batches)["f1_macro"] == in_numpy(batches)["f1_macro"]
    seconds = in_turn({"stack, NumPy": partial(in_numpy, batches), "FoldEvaluator": partial(ours, batches)}, rounds)
    return [
        Comparison(
            name=f"scoring, {device.type}",
            unit="ms a patch",
            values={name: 1e3 * value / n for name, value in seconds.items()},
            reference="stack, NumPy",
            ours="FoldEvaluator",
            facts={"patches": n, "rounds": rounds},
        )
    ]
