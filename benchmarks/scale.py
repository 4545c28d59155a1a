"""Time and memory from files to scores by number of patches: time should be linear, memory constant.

The patches have three bands and are links to a few files. Each size runs in a separate process, which also records its
anonymous memory (without memory maps). Stages: digests and table, folds, band cache, one epoch of batches, scores.
"""

import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from benchmarks import patches
from benchmarks.measure import Comparison
from landslide.bands.batches import PatchBatches
from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings
from landslide.data.digests import directory_digest
from landslide.data.patches import find_patches, read_mask, read_stored
from landslide.data.table import patch_table
from landslide.evaluation.scores import FoldEvaluator
from landslide.folds.schemes import assign
from landslide.inference.batches import predict_batches
from landslide.inference.prediction import PredictionSettings

BANDS = ("B4", "B3", "B2")
BATCH = 12
MEGABYTES = 400.0


def run(quick: bool) -> list[Comparison]:
    sizes = (100, 500) if quick else (500, 5_000, 50_000)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _, root = patches.source(folder)
        rgb = three_bands(root, folder / "rgb")
        measured = {}
        for n in sizes:
            needed = n * 128**2 * (len(BandSettings(stored=BANDS).names) * 2 + 1)
            if needed > 0.8 * shutil.disk_usage(folder).free:
                print(f"{n} patches are skipped: their cache takes {needed / 1e9:.0f} GB")
                continue
            data = patches.repeated(rgb, folder / f"data{n}", n)
            measured[n] = in_process(data, folder / f"caches{n}")
            shutil.rmtree(folder / f"caches{n}")
        smallest = f"{min(measured)} patches"
        largest = f"{max(measured)} patches"
        for stage in next(iter(measured.values())):
            is_memory = stage.startswith("memory")
            values = {f"{n} patches": found[stage] / (1 if is_memory else n) for n, found in measured.items()}
            results.append(
                Comparison(
                    name=f"scale, {stage}",
                    unit="MB" if is_memory else "ms per patch",
                    values=values,
                    reference=smallest,
                    ours=largest,
                    limit=MEGABYTES if is_memory else None,
                )
            )
    return results


def three_bands(root: Path, folder: Path) -> Path:
    """Write the patches of a folder with only red, green and blue, as 8 bits."""
    for kind in ("img", "mask"):
        (folder / "TrainData" / kind).mkdir(parents=True)
    for number, patch in enumerate(find_patches(root), start=1):
        colours = np.clip(read_stored(patch.image)[..., [3, 2, 1]] * 60, 0, 255).astype(np.uint8)
        with h5py.File(folder / f"TrainData/img/image_{number}.h5", "w") as file:
            file["img"] = colours
        with h5py.File(folder / f"TrainData/mask/mask_{number}.h5", "w") as file:
            file["mask"] = read_mask(patch.mask)
    return folder


def in_process(data: Path, caches: Path) -> dict[str, float]:
    """Run the stages in a separate process; return milliseconds by stage, and megabytes of memory."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=stages, args=(data, caches, theirs))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    return found


def stages(data: Path, caches: Path, connection: Connection) -> None:
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    before, watch = anonymous_megabytes(), Watch()

    def timed(stage: str, work: Callable):
        start = time.perf_counter()
        result = work()
        found[stage] = 1e3 * (time.perf_counter() - start)
        return result

    settings = BandSettings(stored=BANDS)
    digest, digests = timed("digests", lambda: directory_digest(data))
    table = timed("table", lambda: patch_table(data, digests=digests, positions="none"))
    names = [str(number) for number in table["number"]]
    timed("folds", lambda: assign(names, scheme="contiguous"))
    cache = timed("cache", lambda: ensure_cache(caches, data, table, digest, settings))
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))
    batches = PatchBatches(cache, np.arange(len(table)), BANDS, torch.device("cpu"))
    timed("epoch of batches", lambda: [batches.batch(part) and None for part in order.split(BATCH)])
    timed("prediction and scores", lambda: score(cache, len(table)))
    found["memory, anonymous"] = watch.end() - before
    connection.send(found)


class OnePixel(nn.Module):
    """A network of one 1 x 1 convolution, so that the time around the network dominates."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(len(BANDS), 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (B, 2, H, W)."""
        return {str(x.shape[-1]): self.head(x)}


def score(cache: BandCache, n: int) -> dict[str, float]:
    """Predict and score all patches."""
    evaluator = FoldEvaluator(threshold=0.4)
    variants = {"": PredictionSettings()}
    for _, predicted, masks in predict_batches(
        OnePixel(), cache, np.arange(n), BANDS, variants, device=torch.device("cpu")
    ):
        evaluator.add(predicted, masks)
    return evaluator.evaluation().scores


def anonymous_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1e3


class Watch:
    """Records the largest anonymous memory of this process until `end` is called."""

    def __init__(self) -> None:
        self._most, self._over = anonymous_megabytes(), threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._over.wait(0.02):
            self._most = max(self._most, anonymous_megabytes())

    def end(self) -> float:
        """Return the largest memory in use, in megabytes."""
        self._over.set()
        self._thread.join()
        return self._most
