"""Other ends of a training and other changes of light, and what networks find on real scenes without landslides.

    OMP_NUM_THREADS=1 python experiments/ends.py train --data DIR --out RESULTS [--only ROW] [--seeds 0 1 2]
    OMP_NUM_THREADS=1 python experiments/ends.py score --data DIR --out RESULTS [--scene B04 B03 B02 | --stack FILE]...

Settings as in experiments/real_rgb_search.yaml. `score` prints the mean landslide F1 at threshold 0.5 elsewhere and in
scene, of the networks alone and of the mean of their probabilities over the seeds, and the share of the pixels that
they call a landslide on scenes: three files of one band each, or one of level 2A with bands named B02 to B04.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from real_rgb import (
    file_name,
    hold_out,
    messages,
    plain,
    protocol,
    read_grid,
    read_patches,
    settings_of,
    train_one,
    trained_network,
)
from torch import Tensor

from landslide.bands.batches import PatchBatches
from landslide.folds.parts import fold_parts
from landslide.inference.prediction import landslide_probability
from landslide.metrics.counts import patch_counts, scores
from landslide.training.epochs import FoldTrainer

GRID = Path(__file__).with_name("real_rgb_search.yaml")


def row(illumination: float, band_gain: float, haze: float, *, plain: int = 2, **training: Any) -> dict[str, Any]:
    colours = {"illumination": illumination, "band_gain": band_gain, "haze": haze, "plain_epochs": plain}
    return {"augmentation": colours, "frozen_batch_norm_epochs": 2, **training}


ROWS = {
    "mild colours": row(0.3, 0.15, 0.1),
    "strong light": row(0.5, 0.15, 0.2),
    "strong colours": row(0.5, 0.3, 0.2),
    "stronger colours": row(0.9, 0.45, 0.3),
    "mild colours, 24 epochs": row(0.3, 0.15, 0.1, epochs=24),
    "mild colours, end without pastes": row(0.3, 0.15, 0.1, plain=0),
}


def leave_out_pastes_at_the_end() -> None:
    epoch = FoldTrainer.epoch

    def without(self: FoldTrainer, number: int, **more: Any) -> dict[str, float]:
        if number + self.settings.frozen_batch_norm_epochs >= self.settings.epochs:
            self.augmentation.settings = replace(self.settings.augmentation, max_pastes=0)
        return epoch(self, number, **more)

    FoldTrainer.epoch = without  # type: ignore[method-assign]


def windows(bands: np.ndarray) -> Tensor:
    """Return the windows (N, 3, 128, 128) of a scene (3, H, W) in eight bits, each scaled by its own maximum."""
    found = []
    for top in range(0, bands.shape[1] - 127, 128):
        for left in range(0, bands.shape[2] - 127, 128):
            window = bands[:, top : top + 128, left : left + 128]
            found.append(np.floor(window * 255 / window.max()))
    return torch.tensor(np.array(found), dtype=torch.float32)


def read_stack(path: Path) -> Tensor:
    """Return the four windows in the corners of a scene of level 2A, whose values lie 1000 too high."""
    with rasterio.open(path) as file:
        bands = np.nan_to_num(file.read([file.descriptions.index(name) + 1 for name in ("B04", "B03", "B02")]) - 1000)
    corners = [bands[:, y : y + 128, x : x + 128] for y in (0, bands.shape[1] - 128) for x in (0, bands.shape[2] - 128)]
    return torch.cat([windows(corner) for corner in corners])


def probability(model: torch.nn.Module, images: Tensor) -> Tensor:
    return torch.cat([landslide_probability(model, some) for some in images.split(16)])


def score(parameters: dict[str, Any], data: Path, out: Path, scenes: dict[str, Tensor]) -> None:
    cache, table, _ = read_patches(parameters, data, out)
    used = np.flatnonzero(table["fold"] != 0)
    for name, training in ROWS.items():
        found = defaultdict(list)
        for fold in parameters["folds"]["trained"]:
            parts = fold_parts(table.iloc[used], fold, hold_out(parameters))
            rows = {
                "elsewhere": np.flatnonzero((table["fold"] == fold) & table["scored"]),
                "in scene": used[parts.in_scene],
            }
            networks = []
            for seed in parameters["seeds"]:
                path = out / f"{file_name(name, fold, seed)}.safetensors"
                if path.exists():
                    settings = settings_of(parameters["training"], {"name": name, "training": training}, seed)
                    networks.append(trained_network(path, settings))
            if not networks:
                continue
            for part, chosen in rows.items():
                batches = PatchBatches(cache, chosen, ("B4", "B3", "B2"), torch.device("cpu"))
                images, masks = batches.batch(torch.arange(len(chosen)))
                all_of_them = [probability(model, images) for model in networks]
                f1 = [scores(patch_counts(one, masks).sum(axis=0))["f1_landslide"] for one in all_of_them]
                mean = torch.stack(all_of_them).mean(dim=0)
                found[part] += f1
                found[f"{part}, mean"].append(scores(patch_counts(mean, masks).sum(axis=0))["f1_landslide"])
            for scene, images in scenes.items():
                found[scene] += [float((probability(model, images) >= 0.5).float().mean()) for model in networks]
        if found:
            print(name, {part: (round(100 * float(np.mean(some)), 2), len(some)) for part, some in found.items()})


def train(parameters: dict[str, Any], data: Path, out: Path, only: list[str]) -> None:
    cache, table, digest = read_patches(parameters, data, out)
    for name in only:
        if name.endswith("without pastes"):
            leave_out_pastes_at_the_end()
        for seed in parameters["seeds"]:
            for fold in parameters["folds"]["trained"]:
                path = out / file_name(name, fold, seed)
                if path.with_suffix(".json").exists():
                    continue
                settings = settings_of(parameters["training"], {"name": name, "training": ROWS[name]}, seed)
                facts = {"row": name, "data_version": digest, "without_folds": [], "fold": fold}
                facts |= {"settings": plain(settings), **protocol(parameters)}
                kept = (table["fold"] != 0).to_numpy()
                train_one(cache, table, kept, settings, hold_out(parameters), fold, path, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["train", "score"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--scene", type=Path, nargs=3, action="append", default=[])
    parser.add_argument("--stack", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    parameters = read_grid(GRID) | {"seeds": arguments.seeds}
    with messages():
        if arguments.action == "train":
            train(parameters, arguments.data, arguments.out, arguments.only)
        else:
            scenes = {
                str(paths[0]): windows(np.stack([rasterio.open(path).read(1).astype(float) for path in paths]))
                for paths in arguments.scene
            } | {str(path): read_stack(path) for path in arguments.stack}
            score(parameters, arguments.data, arguments.out, scenes)


if __name__ == "__main__":
    main()
