"""A tiny fold on ten generated patches: its settings and rows, and functions that run in other processes."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from landslide.bands.cache import BandCache, open_cache
from landslide.folds.parts import FoldRows
from landslide.training.augmentation import AugmentationSettings
from landslide.training.epochs import FoldTrainer
from landslide.training.fold import FoldResult, FoldTask, TrainingSettings, train_fold
from landslide.training.optimizers import CosineSchedule

BANDS = ("B2", "B3", "B4", "ndvi", "slope")
TRAINING, SELECTION, OTHERS = np.array([0, 1, 2, 4, 5]), np.array([3, 7]), np.array([6, 8, 9])

TINY = TrainingSettings(
    bands=BANDS,
    model_options={"width": 4, "head_width": 4},
    epochs=2,
    batch_size=2,
    crop=32,
    augmentation=AugmentationSettings(plain_epochs=0, max_pastes=2),
    device="cpu",
)
# Everything that has its own state or counts steps.
AVERAGED = {"average_decay": 0.8, "schedule": CosineSchedule(), "positive_share": 0.5}


def train_four_epochs(
    cache: BandCache,
    checkpoints: Path,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    averaged: bool = False,
) -> FoldResult:
    """Train the fold for four epochs of two batches."""
    settings = replace(TINY, epochs=4, **(AVERAGED if averaged else {}))
    return train_fold(FoldTask(cache, FoldRows(TRAINING, SELECTION), BANDS, settings, checkpoints), on_epoch=on_epoch)


def train_until_killed(cache: Path, checkpoints: Path, fatal: int, averaged: bool) -> None:
    """Train four epochs in this process, which is killed at the beginning of a batch, counted from 1."""
    torch.set_num_threads(1)
    original, done = FoldTrainer._training_batch, 0

    def training_batch(self, *arguments):
        nonlocal done
        done += 1
        if done == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)

    FoldTrainer._training_batch = training_batch
    train_four_epochs(open_cache(cache), checkpoints, averaged=averaged)


def append_epoch(path: Path, record: dict[str, float]) -> None:
    """Append the record of an epoch to a file of JSON lines."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
