"""Training on a GPU: the project's epochs compared with a plain loop, as patches/s and as a share of the bf16 peak.

The plain loop reads HDF5 files through a DataLoader that computes the bands, and trains PyTorch's own layers eagerly in
float32, with TF32 off and on. Ours is the last of three epochs of `landslide.training.fold.train_fold` with its
defaults on one GPU. All use the paper's batches of 12 patches and 23 bands.

The share of the dense bf16 peak counts the forward operations per patch three times (one forward and two backward
passes); the projection is the paper's five folds of 3,040 patches and 65 epochs, without evaluation.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import patches
from benchmarks.measure import Comparison
from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BAND_NAMES, BandSettings, engineer
from landslide.folds.parts import FoldRows
from landslide.models import create_model
from landslide.models.complexity import complexity
from landslide.training.augmentation import AugmentationSettings
from landslide.training.fold import FoldTask, TrainingSettings, train_fold
from landslide.training.losses import create_loss, multi_head_loss

BANDS = BAND_NAMES[:23]
BATCH = 12
PEAK_TFLOPS = {"NVIDIA H100 80GB HBM3": 989.0, "NVIDIA H200": 989.0}
PAPER_PATCHES = 5 * 3040 * 65
# Target share of the peak and target hours.
AIMS = {"rau_net": (0.35, 1.0), "unet": (0.25, 1 / 6)}
FULL_WIDTH: dict[str, dict[str, Any]] = {"rau_net": {}, "unet": {}, "smp:Unet:resnet34": {}}


class Files(Dataset):
    """Patches from their files, bands computed at every access."""

    def __init__(self, root: Path, table) -> None:
        self.images = [root / path for path in table["image"]]
        self.masks = [root / path for path in table["mask"]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        with h5py.File(self.images[i]) as file:
            image = engineer(file["img"][()])[: len(BANDS)]
        with h5py.File(self.masks[i]) as file:
            mask = file["mask"][()]
        return torch.from_numpy(image), torch.from_numpy(mask).long()


def plain_rate(
    name: str, options: dict[str, Any], loader: DataLoader, device: torch.device, *, steps: int, tf32: bool
) -> float:
    """Return the patches per second of the plain loop."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    model = create_model(name, len(BANDS), **options).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, eps=1e-7)
    loss_of = create_loss("focal_lin+iou")
    batches = endless_batches(loader)
    for _ in range(3):
        _plain_step(model, optimizer, loss_of, *next(batches), device)
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        _plain_step(model, optimizer, loss_of, *next(batches), device)
    _wait(device)
    rate = steps * BATCH / (time.perf_counter() - start)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    return rate


def endless_batches(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch after another, read from the files again each time."""
    while True:
        yield from loader


def _plain_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable, images: Tensor, masks: Tensor, device
) -> None:
    loss = multi_head_loss(model(images.to(device)), masks.to(device), loss_of)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def our_rate(name: str, options: dict[str, Any], cache, device: torch.device, **changes: Any) -> float:
    """Return the patches per second of the last of three epochs of a fold, without evaluation."""
    settings = TrainingSettings(
        bands="23",
        model=name,
        model_options=options,
        epochs=3,
        batch_size=BATCH,
        device=device.type,
        devices=1,
        augmentation=AugmentationSettings(plain_epochs=0),
        **changes,
    )
    rows = np.arange(len(cache.masks))
    with tempfile.TemporaryDirectory() as folder:
        parts = FoldRows(training=rows[BATCH:], selection=rows[:BATCH])
        result = train_fold(FoldTask(cache, parts, BANDS, settings, Path(folder) / "fold", label=name))
    return (len(rows) - BATCH) / result.history[-1]["epoch_seconds"]


def compare(
    networks: dict[str, dict[str, Any]],
    device: torch.device,
    *,
    n: int,
    steps: int,
    peak: float | None,
    compiled: bool = True,
) -> list[Comparison]:
    """Compare the loops for every network on n patches; `steps` steps of the plain loop are timed."""
    results = []
    with patches.data_set(n) as (folder, what, data, table):
        cache = ensure_cache(folder / "caches", data, table, "benchmark", BandSettings())
        loader = DataLoader(
            Files(data, table),
            batch_size=BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=min(8, os.cpu_count() or 1) if device.type == "cuda" else 0,
            pin_memory=device.type == "cuda",
        )
        for name, options in networks.items():
            sides: dict[str, Callable[[], float]] = {
                "plain float32, TF32 off": partial(plain_rate, name, options, loader, device, steps=steps, tf32=False),
                "plain float32, TF32 on": partial(plain_rate, name, options, loader, device, steps=steps, tf32=True),
                "ours": partial(our_rate, name, options, cache, device),
            }
            if compiled:
                sides["ours, compiled"] = partial(our_rate, name, options, cache, device, compile=True)
            rates = {}
            for side, rate_of in sides.items():
                rates[side] = rate_of()
                print(f"{name}, {side}: {rates[side]:.1f} patches/s", flush=True)
            best = max((side for side in rates if side.startswith("ours")), key=lambda side: rates[side])
            gflop = complexity(name, len(BANDS), options).gflop
            facts: dict[str, Any] = {"patches": what, "GFLOP forward": round(gflop, 1)}
            facts |= {f"{side}, patches/s": round(rate, 1) for side, rate in rates.items()}
            results.append(
                Comparison(
                    name=f"training, {name}, {device.type}",
                    unit="ms per patch",
                    values={side: 1e3 / rate for side, rate in rates.items()},
                    reference="plain float32, TF32 off",
                    ours=best,
                    goal=5.0,
                    facts=facts,
                )
            )
            share, hours = AIMS.get(name, (None, None))
            projected = {"paper's rate (10.9 per second)": PAPER_PATCHES / 10.9 / 3600}
            projected["ours"] = PAPER_PATCHES / rates[best] / 3600
            results.append(projection(name, projected, hours))
            if peak is not None:
                results.append(of_peak(name, 3 * gflop / peak, 1e3 / rates[best], share))
    return results


def projection(name: str, hours: dict[str, float], limit: float | None) -> Comparison:
    """Return the projected training time of the paper's five folds."""
    reference, ours = hours
    return Comparison(
        name=f"five folds, 65 epochs, {name}", unit="h", values=hours, reference=reference, ours=ours, limit=limit
    )


def of_peak(name: str, least: float, took: float, share: float | None) -> Comparison:
    """Compare the time per patch with the time that its operations take at the peak."""
    return Comparison(
        name=f"share of bf16 peak, {name}",
        unit="ms per patch",
        values={"at the peak": least, "ours": took},
        reference="at the peak",
        ours="ours",
        goal=share,
    )


def run(quick: bool) -> list[Comparison]:
    if not torch.cuda.is_available():
        print("gpu: skipped, torch finds no GPU here")
        return []
    name = torch.cuda.get_device_name()
    peak = PEAK_TFLOPS.get(name)
    networks = {"unet": FULL_WIDTH["unet"]} if quick else FULL_WIDTH
    if find_spec("segmentation_models_pytorch") is None:
        networks = {name: options for name, options in networks.items() if not name.startswith("smp:")}
    return compare(networks, torch.device("cuda"), n=252 if quick else 1212, steps=15 if quick else 40, peak=peak)
