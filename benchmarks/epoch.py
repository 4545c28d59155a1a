"""One training epoch of the same network on the same patches: the project's own, and TerraTorch's trainer.

TerraTorch is the second side if `TERRATORCH_PYTHON` names the Python of an environment with terratorch. Both train a
U-Net on a ResNet-34 from random weights on 14 bands with cross entropy and Adam, in float32, without augmentation and
validation, in batches of eight. Each runs in a process with one thread; the second of two epochs counts.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import patches
from benchmarks.measure import Comparison

BATCH, THREADS = 8, 1
_PEER = os.environ.get("TERRATORCH_PYTHON", "")


def run(quick: bool) -> list[Comparison]:
    """Compare the seconds of an epoch; nothing without TerraTorch."""
    if not _PEER:
        print("epoch: skipped, TERRATORCH_PYTHON names no Python")
        return []
    n, rounds = (32, 1) if quick else (96, 3)
    found: dict[str, list[float]] = {"TerraTorch": [], "ours": []}
    with patches.data_set(n) as (folder, what, data, _):
        peer = folder / "terratorch"
        for kind, files in (("images", "img"), ("annotations", "mask")):
            (peer / kind).mkdir(parents=True)
            for split in ("train", "validation", "test"):
                (peer / kind / split).symlink_to(data / "TrainData" / files)
        own = [sys.executable, "-m", "benchmarks.epoch", str(data)]
        theirs = [_PEER, str(Path(__file__).with_name("terratorch_epoch.py")), str(peer), str(BATCH), str(THREADS)]
        for _ in range(rounds):
            for side, command in (("TerraTorch", theirs), ("ours", own)):
                found[side].append(seconds(command))
    return [
        Comparison(
            name="one epoch of smp U-Net ResNet-34, 14 bands, one thread",
            unit="s",
            values={side: sorted(times)[rounds // 2] for side, times in found.items()},
            reference="TerraTorch",
            ours="ours",
            facts={"patches": what, "rounds": rounds, "batch": BATCH},
        )
    ]


def seconds(command: list[str]) -> float:
    """Run one side in a process with one thread, and return the seconds that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "TQDM_DISABLE": "1"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return float(printed.split("seconds")[-1])


def own_epoch(data: Path) -> None:
    """Train two epochs of one fold with the project's loop; print the seconds of the second."""
    import numpy as np
    import torch

    from landslide.bands.build import ensure_cache
    from landslide.bands.formulas import BandSettings
    from landslide.data.table import patch_table
    from landslide.folds.parts import FoldRows
    from landslide.schema import ORIGINAL_BANDS
    from landslide.training.augmentation import AugmentationSettings
    from landslide.training.fold import FoldTask, TrainingSettings, train_fold
    from landslide.training.settings import SelectionSchedule

    torch.set_num_threads(THREADS)
    table = patch_table(data)
    with tempfile.TemporaryDirectory() as folder:
        cache = ensure_cache(Path(folder), data, table, "benchmark", BandSettings())
        rows = np.arange(len(table))
        settings = TrainingSettings(
            bands="14", model="smp:Unet:resnet34", loss="cross_entropy_per_pixel", epochs=2, batch_size=BATCH,
            augmentation=AugmentationSettings(mode="none"), device="cpu", precision="32-true",
            test_schedule=SelectionSchedule(first_epoch=2),
        )  # fmt: skip
        parts = FoldRows(training=rows, selection=rows[:BATCH])
        result = train_fold(FoldTask(cache, parts, ORIGINAL_BANDS, settings, Path(folder) / "fold"))
    print("seconds", result.history[-1]["epoch_seconds"])


if __name__ == "__main__":
    own_epoch(Path(sys.argv[1]))
