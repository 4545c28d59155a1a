"""Four other ways to train the Lite U-Net, on the folds of the search (docs/explanation/results.md).

    python experiments/other_training.py VARIANT --data DIR --out RESULTS [--folds 3 4] [--seeds 0 1]

VARIANT is one of

    recipe        as configs/best.yaml trains
    orthogonal    convolutions are updated by their momentum made orthogonal (Muon: Jordan et al., 2024), scaled to
                  the size of Adam's updates (Liu et al., "Muon is Scalable for LLM Training", 2025); the rest by Adam
    deep          two more heads in training, at a half and a quarter of the resolution, a quarter of the loss each
                  (Lee et al., "Deeply-Supervised Nets", 2015)
    cut           a rectangle of another patch of the batch, with its labels, in half of the patches (Yun et al.,
                  "CutMix", 2019)
    sharpness     each step takes the gradient 0.05 uphill (Foret et al., "Sharpness-Aware Minimization", 2021)

The parts of the library are replaced while the script runs.
"""

import argparse
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments import real_rgb
from landslide.models.lite_unet import LiteUNet
from landslide.training import epochs, fold

GRID = Path(__file__).with_name("real_rgb_search.yaml")
ROW = "mild colours"
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
UPHILL = 0.05


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return a matrix whose singular values are about 1, by five Newton-Schulz steps."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class OrthogonalUpdates(torch.optim.Optimizer):
    """Muon for convolutions over more than one channel, Adam for everything else."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        parameters = list(parameters)
        matrices = [p for p in parameters if p.ndim == 4 and p.shape[1] > 1 and p.shape[0] > 2]
        others = [p for p in parameters if not any(p is matrix for matrix in matrices)]
        super().__init__(
            [{"params": matrices, "orthogonal": True}, {"params": others, "orthogonal": False}], {"lr": lr}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Update the weights."""
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if group["orthogonal"]:
                    momentum = state.setdefault("momentum", torch.zeros_like(p)).lerp_(p.grad, 0.1)
                    update = torch.lerp(p.grad, momentum, 0.9).reshape(len(p), -1)
                    size = 0.2 * max(update.shape) ** 0.5
                    p.add_(orthogonalized(update).reshape(p.shape), alpha=-group["lr"] * size)
                else:
                    state["steps"] = n = state.get("steps", 0) + 1
                    mean = state.setdefault("mean", torch.zeros_like(p)).lerp_(p.grad, 0.1)
                    square = state.setdefault("square", torch.zeros_like(p)).lerp_(p.grad**2, 0.001)
                    p.addcdiv_(mean / (1 - 0.9**n), (square / (1 - 0.999**n)).sqrt() + 1e-8, value=-group["lr"])


def use_orthogonal(settings: dict[str, Any]) -> None:
    fold.create_optimizer = lambda name, parameters, *, rate, **_: OrthogonalUpdates(parameters, rate)


def use_deep(settings: dict[str, Any]) -> None:
    begin = LiteUNet.__init__

    @wraps(begin)
    def initialize(self: LiteUNet, in_channels: int, *, width: int = 16, **options: Any) -> None:
        begin(self, in_channels, width=width, **options)
        self.further_heads = nn.ModuleList([nn.Conv2d(width, 2, 1), nn.Conv2d(2 * width, 2, 1)])

    def forward(self: LiteUNet, x: Tensor) -> dict[str, Tensor]:
        skips = [self.full_resolution(x), *self.encoder(x)]
        x, levels = skips.pop(), []
        for convolution in self.decoder:
            skip = skips.pop()
            x = convolution(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="nearest"), skip], dim=1))
            levels.append(x)
        logits: dict[str, Tensor] = self.heads(x)
        if self.training:
            for head, level in zip(self.further_heads, levels[-2:-4:-1], strict=True):
                logits[str(level.shape[-1])] = head(level)
        return logits

    LiteUNet.__init__, LiteUNet.forward = initialize, forward
    settings["head_weights"] = {"128": 0.5, "64": 0.25, "32": 0.25}


def use_cut(settings: dict[str, Any]) -> None:
    whole = epochs.FoldTrainer._training_batch

    def batch(self: Any, indices: Tensor, generator: torch.Generator, augment: bool) -> tuple[Tensor, Tensor]:
        images, masks = whole(self, indices, generator, augment)
        if not augment:
            return images, masks
        mixed, mixed_masks = images.clone(), masks.clone()
        for i, other in enumerate(torch.randperm(len(images), generator=generator).tolist()):
            if torch.rand((), generator=generator) < 0.5:
                sides = torch.randint(32, 96, (2,), generator=generator).tolist()
                starts = [int(torch.randint(0, 129 - side, (1,), generator=generator)) for side in sides]
                part = (..., *(slice(start, start + side) for start, side in zip(starts, sides, strict=True)))
                mixed[i][part], mixed_masks[i][part] = images[other][part], masks[other][part]
        return mixed, mixed_masks

    epochs.FoldTrainer._training_batch = batch


def use_sharpness(settings: dict[str, Any]) -> None:
    begin, plain_loss = epochs.FoldTrainer.__init__, epochs.multi_head_loss
    batch: dict[str, Tensor] = {}

    def loss_of(logits: Any, masks: Tensor, *rest: Any) -> Tensor:
        batch["masks"] = masks
        return plain_loss(logits, masks, *rest)

    def initialize(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self.wrapped.register_forward_pre_hook(lambda _, images: batch.update(images=images[0]))
        downhill: Callable[[], Any] = self.optimizer.step
        normalizations = [m for m in self.model.modules() if isinstance(m, nn.BatchNorm2d)]

        def step() -> None:
            weights = [p for p in self.model.parameters() if p.grad is not None]
            with torch.no_grad():
                norm = torch.stack([p.grad.norm() for p in weights]).norm()
                moves = [p.grad * (UPHILL / (norm + 1e-12)) for p in weights]
                torch._foreach_add_(weights, moves)
            self.optimizer.zero_grad()
            momenta = [m.momentum for m in normalizations]
            for m in normalizations:
                m.momentum = 0.0  # the statistics are those of the first pass
            logits = self.wrapped(batch["images"])
            self.fabric.backward(plain_loss(logits, batch["masks"], self.loss, self.settings.head_weights))
            for m, momentum in zip(normalizations, momenta, strict=True):
                m.momentum = momentum
            with torch.no_grad():
                torch._foreach_sub_(weights, moves)
            downhill()

        self.optimizer.step = step

    epochs.FoldTrainer.__init__, epochs.multi_head_loss = initialize, loss_of


VARIANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "recipe": lambda settings: None,
    "orthogonal": use_orthogonal,
    "deep": use_deep,
    "cut": use_cut,
    "sharpness": use_sharpness,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    parameters = real_rgb.read_grid(GRID) | {"seeds": arguments.seeds}
    row = next(row for row in parameters["rows"] if row["name"] == ROW)
    VARIANTS[arguments.variant](row["training"])
    parameters["rows"] = [{**row, "name": arguments.variant}]
    real_rgb.read_grid = lambda path: parameters
    options = argparse.Namespace(config=GRID, data=arguments.data, out=arguments.out, only=[], without=[])
    options.folds, options.seeds = arguments.folds, arguments.seeds
    real_rgb.train(options)


if __name__ == "__main__":
    main()
