"""Takes apart the fall of the scores from the training's own ground to other ground.

    python experiments/real_rgb.py train experiments/real_rgb_clusters.yaml --data DIR --out RESULTS
    python experiments/fall.py experiments/real_rgb_clusters.yaml --data DIR --out RESULTS --row "Lite U-Net, ImageNet"

Prints Markdown tables from the networks of a row: landslide F1 on the in-scene part and on the test cluster; there, at
the best threshold, with bands standardised by the test cluster's own statistics, and with batch normalisation by the
test cluster's own statistics; recall by the size of landslides; and on which ground false alarms are. With
`folds.scored`, these are the test patches that are not scored: what is learned here may change the recipe.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from real_rgb import (
    file_name,
    hold_out,
    markdown,
    messages,
    protocol,
    read_grid,
    read_patches,
    recorded,
    refuse_unknown_rows,
    settings_of,
    trained_network,
)
from torch import Tensor, nn

from landslide.bands.batches import PatchBatches
from landslide.bands.cache import BandCache
from landslide.bands.statistics import band_statistics
from landslide.folds.parts import fold_parts
from landslide.inference.prediction import landslide_probability
from landslide.metrics.thresholds import threshold_counts
from landslide.training.settings import TrainingSettings

Rows = npt.NDArray[np.int64]

_SIZES = (0, 30, 100, 300, 1_000, np.inf)  # pixels of 100 square metres
_BATCH = 16
_BRIGHT = 50  # mean of the three bands, about the median of all patches


def with_input_statistics(model: Any, cache: BandCache, rows: Rows, bands: tuple[str, ...]) -> None:
    """Standardise the input of a network by the statistics of some patches, in place."""
    mean, std = band_statistics(cache, rows, bands)
    model.mean.copy_(torch.from_numpy(mean)[:, None, None])
    model.std.copy_(torch.from_numpy(std)[:, None, None])


def with_batch_statistics(model: Any, cache: BandCache, rows: Rows, bands: tuple[str, ...]) -> None:
    """Replace the statistics of batch normalisation by the means over batches of some patches, in place."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean of all batches
        layer.train()
    source = PatchBatches(cache, rows, bands, torch.device("cpu"))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for part in order.split(_BATCH):
            model(source.batch(part)[0])
    for layer in layers:
        layer.eval()


def probabilities(
    model: nn.Module, cache: BandCache, rows: Rows, bands: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, probabilities and masks of some patches."""
    source = PatchBatches(cache, rows, bands, torch.device("cpu"))
    images, masks, found = [], [], []
    for part in torch.arange(len(rows)).split(_BATCH):
        image, mask = source.batch(part)
        images.append(image)
        masks.append(mask)
        found.append(landslide_probability(model, image))
    return torch.cat(images), torch.cat(found), torch.cat(masks)


def f1(probability: Tensor, masks: Tensor, threshold: float = 0.5) -> float:
    """Return the landslide F1 in points."""
    called = probability >= threshold
    hits = int((called & (masks > 0)).sum())
    return 200 * hits / max(int(called.sum()) + int((masks > 0).sum()), 1)


def best_f1(probability: Tensor, masks: Tensor) -> float:
    """Return the landslide F1 in points at the best threshold."""
    _, counts = threshold_counts(probability, masks)
    hits, false, missed = (counts[:, i, j].astype(float) for i, j in ((1, 1), (0, 1), (1, 0)))
    return float((200 * hits / np.maximum(2 * hits + false + missed, 1)).max())


def recall_by_size(probability: Tensor, masks: Tensor) -> list[tuple[int, int]]:
    """Return, for every class of size, the pixels of its landslides and those of them that are found."""
    found = np.zeros((len(_SIZES) - 1, 2), np.int64)
    for called, mask in zip((probability >= 0.5).numpy(), masks.numpy().astype(np.uint8), strict=True):
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        areas = statistics[:, cv2.CC_STAT_AREA]
        hits = np.bincount(labels[called], minlength=len(areas))
        kinds = np.digitize(areas[1:], _SIZES) - 1
        np.add.at(found, kinds, np.stack([areas[1:], hits[1:]], axis=1))
    return [(int(pixels), int(hits)) for pixels, hits in found]


def ground(images: Tensor, bands: tuple[str, ...]) -> dict[str, npt.NDArray[np.bool_]]:
    """Divide the pixels of 8-bit RGB patches by colour."""
    red, green = (images[:, bands.index(name)].numpy() for name in ("B4", "B3"))
    brightness = images[:, [bands.index(name) for name in ("B4", "B3", "B2")]].mean(dim=1).numpy()
    bright = brightness > _BRIGHT
    green_ground = green > red
    return {
        "dark and green: forest, shadow": ~bright & green_ground,
        "bright and green: meadow, fields": bright & green_ground,
        "dark and red: bare in shadow": ~bright & ~green_ground,
        "bright and red: bare ground, river beds, roofs": bright & ~green_ground,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--row", required=True)
    arguments = parser.parse_args()
    with messages():
        take_apart(arguments)


def take_apart(arguments: argparse.Namespace) -> None:
    parameters = read_grid(arguments.config)
    refuse_unknown_rows([arguments.row], parameters)
    row = next(row for row in parameters["rows"] if row["name"] == arguments.row)
    settings = settings_of(parameters["training"], row, 0)
    if not protocol(parameters):
        raise SystemExit(f"{arguments.config} tests on contiguous folds, which are no other ground.")
    if not settings.standardize or not {"B4", "B3", "B2"} <= set(settings.bands):
        raise SystemExit(f"{arguments.row!r} has no standardised bands B4, B3 and B2, which this analysis needs.")
    cache, table, _ = read_patches(parameters, arguments.data, arguments.out)
    if "scored" in parameters["folds"]:
        table["scored"] = ~table["scored"]
    lines, sizes, colours = [], [], {}
    for seed in parameters["seeds"]:
        settings = settings_of(parameters["training"], row, seed)
        for record in recorded(parameters, arguments.out, row, seed):
            parts = fold_parts(table, record["fold"], hold_out(parameters))
            near, far = (np.flatnonzero(part & table["scored"]) for part in (parts.in_scene, parts.test))
            path = arguments.out / f"{file_name(row['name'], record['fold'], seed)}.safetensors"
            scores = analysed(path, cache, settings, near, far, record["scores"]["threshold"], sizes, colours)
            lines.append([str(seed), str(record["fold"]), *scores])
    if not lines:
        raise SystemExit(f"{arguments.out} has no finished training of {arguments.row!r}.\n  -> Train it first.")
    print(scores_table(lines))
    print(size_table(sizes))
    print(colour_table(colours))


def analysed(
    weights: Path, cache: BandCache, settings: TrainingSettings, near: Rows, far: Rows, threshold: float,
    sizes: list[Any], colours: dict[str, Any],
) -> list[float]:  # fmt: skip
    """Return the scores of one network in scene (near) and elsewhere (far); append what is found by size and colour."""
    names = tuple(settings.bands)
    model = trained_network(weights, settings)
    sides = [probabilities(model, cache, rows, names) for rows in (near, far)]
    sizes.append(tuple(recall_by_size(probability, masks) for _, probability, masks in sides))
    for side, (images, probability, masks) in enumerate(sides):
        landslide, called = (masks > 0).numpy(), (probability >= 0.5).numpy()
        for name, where in ground(images, names).items():
            total = colours.setdefault(name, np.zeros((2, 3), np.int64))
            total[side] += [int(part.sum()) for part in (where, where & landslide, where & called & ~landslide)]
    (_, here, here_masks), (_, there, masks) = sides
    changed = []
    for change in (with_input_statistics, with_batch_statistics):
        other = trained_network(weights, settings)
        change(other, cache, far, names)
        changed.append(f1(probabilities(other, cache, far, names)[1], masks))
    return [
        f1(here, here_masks), f1(there, masks), f1(there, masks, threshold), best_f1(there, masks), *changed,
        100 * float(here_masks.float().mean()), 100 * float(masks.float().mean()),
    ]  # fmt: skip


def scores_table(lines: list[list[Any]]) -> str:
    heading = [
        "seed", "cluster", "in scene", "elsewhere", "at the stored threshold", "at the best threshold",
        "own input statistics", "own batch normalisation", "landslides in scene, %", "landslides elsewhere, %",
    ]  # fmt: skip
    means = ["mean", "", *np.mean([line[2:] for line in lines], axis=0).tolist()]
    return markdown([heading, *([*line[:2], *(f"{value:.1f}" for value in line[2:])] for line in [*lines, means])])


def size_table(sizes: list[Any]) -> str:
    near, far = (np.sum([pair[side] for pair in sizes], axis=0) for side in (0, 1))
    rows = [["landslides of", "share of the landslide pixels, in scene", "found", "share, elsewhere", "found"]]
    for k, (low, high) in enumerate(pairwise(_SIZES)):
        name = f"{low:g} to {high:g} pixels" if np.isfinite(high) else f"more than {low:g} pixels"
        cells = [[100 * side[k, 0] / side[:, 0].sum(), 100 * side[k, 1] / max(side[k, 0], 1)] for side in (near, far)]
        rows.append([name, *(f"{value:.0f} %" for value in np.ravel(cells))])
    return markdown(rows)


def colour_table(colours: dict[str, Any]) -> str:
    heading = ["ground"]
    for side in ("in scene", "elsewhere"):
        heading += [f"{side}: share of the pixels", "of the landslides", "of the false alarms", "called falsely"]
    totals = np.sum(list(colours.values()), axis=0)
    rows = [heading]
    for name, counts in colours.items():
        cells = []
        for side in (0, 1):
            pixels, landslides, false = counts[side]
            cells += [f"{100 * value:.0f} %" for value in counts[side] / totals[side]]
            cells.append(f"{100 * false / max(pixels - landslides, 1):.2f} %")
        rows.append([name, *cells])
    return markdown(rows)


if __name__ == "__main__":
    main()
