"""What can be done after the network: thresholds, smoothing, objects, and the mean of the symmetries.

    python experiments/after_the_network.py experiments/real_rgb_search.yaml --data DIR --out RESULTS --row ROW

RESULTS holds the finished trainings of the row with their weights (`experiments/real_rgb.py train`). Printed is the
landslide F1 on the patches of the search, as the mean of the trainings, in the training's own ground and elsewhere.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from real_rgb import file_name, hold_out, messages, read_grid, read_patches, recorded, settings_of, trained_network
from scipy import ndimage

from landslide.bands.batches import PatchBatches
from landslide.folds.parts import fold_parts
from landslide.inference.prediction import PUBLISHED, PredictionSettings, landslide_probabilities

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
THRESHOLDS = [round(0.05 * i, 2) for i in range(4, 13)]
TURNED = PredictionSettings(augmentation="flips_and_rotations")


def f1(found: Mask, truth: Mask) -> float:
    return 200 * float((found & truth).sum()) / float(found.sum() + truth.sum())


def smoothed(probability: Floats, pixels: float) -> Mask:
    """The logits, blurred by a Gaussian."""
    logits = np.log(probability.clip(1e-4, 1 - 1e-4) / (1 - probability.clip(1e-4, 1 - 1e-4)))
    return np.stack([ndimage.gaussian_filter(one, pixels) for one in logits]) > 0


def objects(probability: Floats, threshold: float, keep: Callable[[Floats, Any, Any], Any]) -> Mask:
    """The objects above a threshold that `keep` keeps."""
    result = np.zeros(probability.shape, bool)
    for one, target in zip(probability, result, strict=True):
        labels, n = ndimage.label(one > threshold)
        if n:
            target[:] = np.append(False, keep(one, labels, np.arange(1, n + 1)))[labels]
    return result


def ways() -> dict[str, Callable[[Floats], Mask]]:
    found: dict[str, Callable[[Floats], Mask]] = {f"at {t}": lambda p, t=t: p > t for t in THRESHOLDS}
    for pixels in (1, 2):
        found[f"logits smoothed by {pixels}"] = lambda p, s=pixels: smoothed(p, s)
    for size in (10, 20, 40):
        found[f"objects of {size} pixels"] = lambda p, n=size: objects(
            p, 0.5, lambda one, labels, index: ndimage.sum_labels(np.ones_like(one), labels, index) >= n
        )
    for low, high in ((0.5, 0.7), (0.5, 0.9), (0.3, 0.6)):
        found[f"objects above {low} that reach {high}"] = lambda p, t=low, h=high: objects(
            p, t, lambda one, labels, index: ndimage.maximum(one, labels, index) > h
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    for name, kind in (("--data", Path), ("--out", Path), ("--row", str)):
        parser.add_argument(name, type=kind, required=True)
    with messages():
        measure(parser.parse_args())


def measure(arguments: argparse.Namespace) -> None:
    parameters = read_grid(arguments.config)
    row = next(row for row in parameters["rows"] if row["name"] == arguments.row)
    cache, table, _ = read_patches(parameters, arguments.data, arguments.out)
    scores: dict[tuple[str, str], list[list[float]]] = {}
    for seed in parameters["seeds"]:
        settings = settings_of(parameters["training"], row, seed)
        names = tuple(settings.bands)
        for record in recorded(parameters, arguments.out, row, seed):
            parts = fold_parts(table, record["fold"], hold_out(parameters))
            model = trained_network(
                arguments.out / f"{file_name(row['name'], record['fold'], seed)}.safetensors", settings
            )
            sides = [np.flatnonzero(part & table["scored"]) for part in (parts.in_scene, parts.test)]
            for side, rows in enumerate(sides):
                images, masks = PatchBatches(cache, rows, names, torch.device("cpu")).batch(torch.arange(len(rows)))
                pairs = [landslide_probabilities(model, some, [PUBLISHED, TURNED], names) for some in images.split(8)]
                truth = masks.numpy().astype(bool)
                for kind, parts_of in zip(
                    ("one prediction", "mean of the turned"), zip(*pairs, strict=True), strict=True
                ):
                    probability = torch.cat(parts_of).numpy()
                    for name, way in ways().items():
                        scores.setdefault((kind, name), [[], []])[side].append(f1(way(probability), truth))
            print(f"seed {seed}, cluster {record['fold']} done", flush=True)
    for (kind, name), sides_of in scores.items():
        print(f"| {kind} | {name} | {np.mean(sides_of[1]):.1f} | {np.mean(sides_of[0]):.1f} |")


if __name__ == "__main__":
    main()
