"""What the last epochs are worth: their mean, another end of the same training, statistics, and a shallower encoder.

    OMP_NUM_THREADS=1 python experiments/last_epochs.py train --data DIR --out RESULTS [--depth 4] [--seeds 0 1]
    OMP_NUM_THREADS=1 python experiments/last_epochs.py end --data DIR --out RESULTS
    OMP_NUM_THREADS=1 python experiments/last_epochs.py score --data DIR --out RESULTS

`end` trains epochs 9 to 12 again, on other batches. The row is `mild colours` of experiments/real_rgb_search.yaml, with
the weights of epochs 8 to 12. Printed is the landslide F1 at threshold 0.5 elsewhere and in scene, as the mean of the
trainings.
"""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from landslide import models
from landslide.bands.batches import PatchBatches
from landslide.folds.parts import fold_parts, inner_validation
from landslide.inference.prediction import landslide_probability
from landslide.metrics.counts import patch_counts, scores
from landslide.models import lite_unet
from landslide.training import epochs, fold
from landslide.training.augmentation import Augmentation
from landslide.training.checkpoints import Progress
from landslide.training.sampling import evenly_spaced

GRID, ROW = Path(__file__).with_name("real_rgb_search.yaml"), "mild colours"
KEPT, BRANCH = range(8, 13), 8


class _ShallowLiteUNet(lite_unet.LiteUNet):
    """Without the deepest levels of the encoder: 4 halvings of the resolution, or 3, in place of 5."""

    depth = 4

    def __init__(self, in_channels: int, *, width: int = 16, **options: Any) -> None:
        super().__init__(in_channels, width=width, **options)
        channels = self.encoder.feature_info.channels()
        self.decoder = nn.ModuleList(list(self.decoder)[5 - self.depth :])
        self.decoder[0] = lite_unet._conv_bn_relu(
            channels[self.depth - 1] + channels[self.depth - 2], lite_unet._DECODER[5 - self.depth] * width
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        skips = [self.full_resolution(x), *self.encoder(x)[: self.depth]]
        x = skips.pop()
        for convolution in self.decoder:
            skip = skips.pop()
            x = convolution(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
        return self.heads(x)


class _Search:
    """The trainings of the search."""

    def __init__(self, data: Path, out: Path, seeds: list[int]) -> None:
        self.parameters = read_grid(GRID)
        (self.row,) = (row for row in self.parameters["rows"] if row["name"] == ROW)
        self.out, self.seeds, self.folds = out, seeds, self.parameters["folds"]["trained"]
        self.cache, self.table, self.digest = read_patches(self.parameters, data, out)
        self.used = np.flatnonzero(~self.table["fold"].isin([0]).to_numpy())

    def kept(self, name: str, fold_: int, seed: int) -> Path:
        return self.out / "epochs" / file_name(name, fold_, seed)

    def train(self, name: str) -> None:
        for seed in self.seeds:
            for fold_ in self.folds:
                path = self.out / file_name(name, fold_, seed)
                if path.with_suffix(".json").exists():
                    continue
                self.current, self.origin = self.kept(name, fold_, seed), self.kept(ROW, fold_, seed)
                settings = settings_of(self.parameters["training"], self.row, seed)
                facts = {"row": name, "data_version": self.digest, "without_folds": [], "fold": fold_}
                facts |= {"settings": plain(settings), **protocol(self.parameters)}
                train_one(
                    self.cache, self.table, ~self.table["fold"].isin([0]).to_numpy(), settings,
                    hold_out(self.parameters), fold_, path, facts,
                )  # fmt: skip

    def keep_epochs(self) -> None:
        save = fold.save

        def saved(directory: Path, progress: Progress, weights: Any, state: Any) -> None:
            save(directory, progress, weights, state)
            self.current.mkdir(parents=True, exist_ok=True)
            if progress.epoch in KEPT:
                stem = directory / f"epoch-{progress.epoch:04d}"
                shutil.copyfile(stem.with_suffix(".safetensors"), self.current / f"{progress.epoch}.safetensors")
                if progress.epoch == BRANCH:
                    shutil.copyfile(stem.with_suffix(".optimizer.pt"), self.current / "optimizer.pt")
                    (self.current / "progress.json").write_text(json.dumps(vars(progress)))

        fold.save = saved

    def branch(self) -> None:
        """Begin after epoch 8 of the row, with other random numbers."""
        load, seed_of = fold.load_last, epochs._epoch_seed

        def loaded(directory: Path, fingerprint: str) -> Any:
            if (found := load(directory, fingerprint)) is not None:
                return found
            progress = json.loads((self.origin / "progress.json").read_text())
            progress |= {"fingerprint": fingerprint, "best_epoch": 0, "best_scores": {}}
            state = torch.load(self.origin / "optimizer.pt", weights_only=True)
            return Progress(**progress), load_file(self.origin / f"{BRANCH}.safetensors"), state

        fold.load_last = loaded
        epochs._epoch_seed = lambda seed, epoch, rank=0: seed_of(seed + 1000, epoch, rank)

    def parts(self, fold_: int) -> dict[str, Any]:
        found = fold_parts(self.table.iloc[self.used], fold_, hold_out(self.parameters))
        elsewhere = (self.table["fold"] == fold_) & self.table["scored"]
        return {"elsewhere": np.flatnonzero(elsewhere), "in scene": self.used[found.in_scene]}

    def training_batches(self, fold_: int, settings: Any) -> PatchBatches:
        rows = self.used[fold_parts(self.table.iloc[self.used], fold_, hold_out(self.parameters)).remaining]
        chosen = inner_validation(self.table.iloc[rows], fraction=settings.validation_fraction, seed=settings.seed)
        rows = evenly_spaced(rows[~chosen], settings.max_patches)
        return PatchBatches(self.cache, rows, tuple(settings.bands), torch.device("cpu"))


def with_statistics(model: nn.Module, data: PatchBatches, settings: Any, *, pastes: bool, colours: bool) -> nn.Module:
    """Compute the statistics of batch normalisation anew, on training patches that are varied so, in place."""
    layers = epochs.batch_norm_layers(model)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    varied = settings.augmentation
    varied = varied if colours else replace(varied, illumination=0.0, band_gain=0.0, haze=0.0)
    varied = varied if pastes else replace(varied, max_pastes=0)
    augmentation = Augmentation(varied, data.band_names, data.band_settings)
    generator = torch.Generator().manual_seed(5)
    with torch.inference_mode():
        for indices in torch.randperm(len(data), generator=generator).split(settings.batch_size):
            images, masks = data.batch(indices)
            if pastes or colours:
                n, shape = len(data), (varied.max_pastes, len(indices))
                donors = [data.batch(drawn) for drawn in torch.randint(n, shape, generator=generator)]
                images, masks = augmentation(images, masks, donors, augmentation.draw(len(indices), generator))
            model(images)
    return model.eval()


def probabilities(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([landslide_probability(model, some) for some in images.split(8)])


def joined(files: list[Path], settings: Any, work: Path) -> nn.Module:
    """The network whose weights are the mean of several."""
    weights = [load_file(file) for file in files]
    mean = {name: torch.stack([one[name].double() for one in weights]).mean(0).to(value.dtype)
            for name, value in weights[0].items()}  # fmt: skip
    save_file(mean, work)
    return trained_network(work, settings)


def _at(folder: Path, epoch: int, settings: Any) -> nn.Module:
    return trained_network(folder / f"{epoch}.safetensors", settings)


def score(search: _Search) -> None:
    found: dict[str, dict[str, list[float]]] = {}
    for fold_ in search.folds:
        for seed in search.seeds:
            settings = settings_of(search.parameters["training"], search.row, seed)
            data = search.training_batches(fold_, settings)
            here, other = (search.kept(name, fold_, seed) for name in (ROW, "end"))
            last = {
                "pasted and coloured": (True, True), "coloured": (False, True), "pasted": (True, False),
                "plain": (False, False),
            }  # fmt: skip
            networks = {f"epoch {epoch}": [_at(here, epoch, settings)] for epoch in KEPT}
            networks["mean of epochs 9 to 11"] = [_at(here, epoch, settings) for epoch in (9, 10, 11)]
            networks["mean of epochs 8 to 12"] = [_at(here, epoch, settings) for epoch in KEPT]
            networks["mean of two ends, epoch 11"] = [_at(here, 11, settings), _at(other, 11, settings)]
            files = [here / "11.safetensors", other / "11.safetensors"]
            networks["weights of two ends, epoch 11"] = [joined(files, settings, search.out / "joined.safetensors")]
            for name, (pastes, colours) in last.items():
                for epoch in (11, 12):
                    model = with_statistics(_at(here, epoch, settings), data, settings, pastes=pastes, colours=colours)
                    networks[f"epoch {epoch}, statistics of {name} patches"] = [model]
            for part, rows in search.parts(fold_).items():
                source = PatchBatches(search.cache, rows, tuple(settings.bands), torch.device("cpu"))
                images, masks = source.batch(torch.arange(len(rows)))
                for name, members in networks.items():
                    mean = torch.stack([probabilities(model, images) for model in members]).mean(0)
                    value = scores(patch_counts(mean, masks).sum(axis=0))["f1_landslide"]
                    found.setdefault(name, {}).setdefault(part, []).append(100 * value)
    for name, of_parts in found.items():
        print(name, *(f"{part} {np.mean(values):.1f}" for part, values in of_parts.items()), sep="  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["train", "end", "score"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--depth", type=int, default=5, choices=[3, 4, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    with messages():
        search = _Search(arguments.data, arguments.out, arguments.seeds)
        if arguments.do == "score":
            score(search)
            return
        name = ROW if arguments.do == "train" else "end"
        if arguments.depth < 5:
            _ShallowLiteUNet.depth = arguments.depth
            for table in (value for value in vars(models).values() if isinstance(value, dict)):
                if table.get("lite_unet") is lite_unet.LiteUNet:
                    table["lite_unet"] = _ShallowLiteUNet
            name = f"{name}, depth {arguments.depth}"
        search.keep_epochs()
        if arguments.do == "end":
            search.branch()
        search.train(name)


if __name__ == "__main__":
    main()
