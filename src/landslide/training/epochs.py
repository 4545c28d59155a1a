"""The epochs of one fold: batches, steps, and the scores after them.

Each epoch seeds its own random numbers from (seed, epoch), so it does not depend on how the process came to it.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from landslide.bands.batches import PatchBatches, prefetch
from landslide.errors import TrainingError
from landslide.metrics.counts import confusion_counts, scores
from landslide.models import main_logits
from landslide.training.augmentation import Augmentation
from landslide.training.distributed import sum_over_devices
from landslide.training.losses import Loss, create_loss, identity, multi_head_loss
from landslide.training.sampling import epoch_order
from landslide.training.settings import TrainingSettings

EPOCH_METRICS: dict[str, str] = {
    "train_loss": "Mean loss of the epoch's training patches.",
    "train_augmented": "1 if the epoch's patches were augmented, else 0 (`augmentation.plain_epochs`).",
    "learning_rate": "Learning rate in the middle of the epoch.",
    "epoch_seconds": "Seconds of training, without scoring.",
    "epoch_processor_seconds": "Processor seconds of this process for the same.",
    "validation_<score>": "Score of the selection part at threshold 0.5, if it is tested after this epoch.",
    "validation_loss": "Loss of the selection part.",
    "validation_half_epoch_<score>": "Score or loss of the selection part at half of the epoch, if it is tested there.",
    "test_<score>": "Score of the test fold, with `training.monitor_test_fold`.",
    "test_loss": "Loss of the test fold, with `training.monitor_test_fold`.",
    "test_half_epoch_<score>": "Score or loss of the test fold at half of the epoch, likewise.",
}
"""What is recorded after every epoch (`training.test_schedule` says when parts are tested)."""

NOT_FINITE = "Lower the learning rate, use precision: 32-true, or set training.standardize: true."
"""What to do about a loss that is not finite."""

logger = logging.getLogger(__name__)


class FoldTrainer:
    """Trains and scores epoch by epoch, on one device or as one of several processes.

    Args:
        fabric: Device, precision and the other processes.
        settings: How to train.
        data: Batches by part: `training`; `validation` and `test`, which are scored after every epoch if they hold
            patches.
        positive: (n,) boolean: which training patches hold landslides.
        model: The network.
        average: The moving average of its weights, which is scored in its place; None without one.
        wrapped: The network as Fabric runs it.
        optimizer: The optimizer as Fabric runs it.
        label: What is trained, for messages.
    """

    def __init__(
        self,
        fabric: Fabric,
        settings: TrainingSettings,
        data: Mapping[str, PatchBatches],
        positive: Tensor,
        *,
        model: nn.Module,
        average: AveragedModel | None,
        wrapped: nn.Module,
        optimizer: Any,
        label: str,
    ) -> None:
        self.fabric, self.settings, self.label = fabric, settings, label
        self.model, self.average, self.wrapped, self.optimizer = model, average, wrapped, optimizer
        self.scored: nn.Module = model if average is None else average.module
        self.training = data["training"]
        self.scored_parts = {part: batches for part, batches in data.items() if part != "training" and len(batches)}
        self.positive = positive
        self.donor_pool = torch.nonzero(self.positive).squeeze(1)
        self.augmentation = Augmentation(settings.augmentation, self.training.band_names, self.training.band_settings)
        self.loss: Loss = create_loss(settings.loss, device_sum=sum_over_devices if fabric.world_size > 1 else identity)
        self.local_loss: Loss = create_loss(settings.loss)

    def epoch(
        self, epoch: int, *, at_half: Callable[[dict[str, float]], None] = lambda record: None
    ) -> dict[str, float]:
        """Train one epoch, then score the parts that are scored, if the schedule says so; return the record of all.

        Args:
            epoch: Counted from 0.
            at_half: Called with the scores at half of the epoch, if the schedule has a test there.
        """
        schedule, half_scores = self.settings.test_schedule, {}
        rank = self.fabric.global_rank
        order, generator = (  # equal on all ranks: each draws for the whole batch and takes its share
            torch.Generator().manual_seed(_epoch_seed(self.settings.seed, epoch)) for _ in range(2)
        )
        torch.manual_seed(_epoch_seed(self.settings.seed, epoch, rank))  # dropout
        drawn = epoch_order(
            self.positive, self.settings.positive_share, order, shuffled=self.settings.order == "shuffled"
        )
        batches = _batches(drawn, self.settings.batch_size)
        half = len(batches) // 2 if schedule.at_half_of(epoch + 1) else 0
        started, started_processor = time.perf_counter(), time.process_time()
        loss_sum = torch.zeros((), device=self.fabric.device)
        augment = epoch < self.settings.epochs - self.settings.augmentation.plain_epochs
        made: Iterator[tuple[Tensor, Tensor]]
        made = (self._training_batch(indices, generator, augment) for indices in batches)
        if self._reads_ahead():
            made = prefetch(made)
        bar = tqdm(
            zip(batches, made, strict=True),
            total=len(batches),
            desc=f"{self.label} epoch {epoch + 1}/{self.settings.epochs}",
            leave=False,
            disable=None if self.fabric.is_global_zero else True,
            mininterval=0.5,
        )
        self._train_mode(epoch)
        shown = float("-inf")
        for number, (indices, (images, masks)) in enumerate(bar):
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.rate(epoch + (number + 0.5) / len(batches))
            loss = multi_head_loss(self.wrapped(images), masks, self.loss, self.settings.head_weights)
            self.fabric.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average is not None:
                self.average.update_parameters(self.model)
            loss_sum += loss.detach() * len(indices)
            if not bar.disable and time.monotonic() > shown + 0.5:  # on a GPU, each look at the loss waits for it
                shown = time.monotonic()
                bar.set_postfix(loss=f"{loss.item():.3f}")
            if number + 1 == half:
                paused, paused_processor = time.perf_counter(), time.process_time()
                half_scores = self._score_parts("_half_epoch")
                at_half(half_scores)
                self._train_mode(epoch)
                started += time.perf_counter() - paused
                started_processor += time.process_time() - paused_processor
        train_loss = float(self._reduce(loss_sum, "mean")) / len(self.positive)
        seconds, processor_seconds = time.perf_counter() - started, time.process_time() - started_processor
        if not np.isfinite(train_loss):
            raise TrainingError(
                f"{self.label}: the loss of epoch {epoch + 1} is {train_loss}.",
                remedy=NOT_FINITE,
            )
        rate = self.settings.rate(epoch + 0.5)
        record = {
            "train_loss": train_loss,
            "train_augmented": float(augment and self.settings.augmentation.mode != "none"),
            "learning_rate": rate,
            "epoch_seconds": seconds,
            "epoch_processor_seconds": processor_seconds,
            **half_scores,
            **(self._score_parts() if schedule.after(epoch + 1) else {}),
        }
        if self.fabric.is_global_zero:
            plain = "" if augment or self.settings.augmentation.mode == "none" else " (not augmented)"
            tested = (
                ""
                if "validation_loss" not in record
                else (
                    f"  validation: loss {record['validation_loss']:.4f}  "
                    f"F1 {100 * record['validation_f1_macro']:.2f} %  "
                    f"landslide F1 {100 * record['validation_f1_landslide']:.2f} %  "
                    f"mIoU {100 * record['validation_miou']:.2f} %"
                )
            )
            tqdm.write(f"{self.label}  epoch {epoch + 1}/{self.settings.epochs}  loss {train_loss:.4f}{plain}{tested}")
        return record

    def _train_mode(self, epoch: int) -> None:
        """Switch the network to training, but for batch normalisation in the epochs in which it is frozen."""
        self.wrapped.train()
        if epoch >= self.settings.epochs - self.settings.frozen_batch_norm_epochs:
            for layer in batch_norm_layers(self.model):
                layer.eval()

    def _reads_ahead(self) -> bool:
        """Return whether to prefetch batches: on a GPU, if the patches do not fit into its memory."""
        return self.fabric.device.type != "cpu" and not self.training.resident

    def _training_batch(self, indices: Tensor, generator: torch.Generator, augment: bool) -> tuple[Tensor, Tensor]:
        """Return this process's share of a batch, augmented."""
        settings = self.settings.augmentation
        indices, share = _share(indices, self.fabric.global_rank, self.fabric.world_size)
        images, masks = self._crop(*self.training.batch(indices[share]), generator)
        if not augment or settings.mode == "none":
            return images, masks
        donors = []
        if len(self.donor_pool):
            for _ in range(settings.max_pastes):
                draw = torch.randint(len(self.donor_pool), (len(indices),), generator=generator)
                donors.append(self._crop(*self.training.batch(self.donor_pool[draw[share]]), generator))
        return self.augmentation(images, masks, donors, self.augmentation.draw(len(indices), generator)[share])

    def _crop(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Crop all patches of a batch to the same random window."""
        size = self.settings.crop
        if size is None or size >= images.shape[-1]:
            return images, masks
        top, left = torch.randint(images.shape[-1] - size + 1, (2,), generator=generator).tolist()
        window = (..., slice(top, top + size), slice(left, left + size))
        return images[window].contiguous(memory_format=torch.channels_last), masks[window]

    def _score_parts(self, when: str = "") -> dict[str, float]:
        """Score at threshold 0.5: the selection part as `validation<when>_*`, a monitored test fold as `test...`."""
        self.wrapped.eval()
        self.scored.eval()
        record: dict[str, float] = {}
        for part, batches in self.scored_parts.items():
            record |= {f"{part}{when}_{name}": value for name, value in self._score(batches).items()}
        return record

    def _score(self, batches: PatchBatches) -> dict[str, float]:
        """Return scores and loss of a part, shared out over the devices; all are NaN if the loss is not finite."""
        device, n = self.fabric.device, len(batches)
        counts, loss_sum = torch.zeros(2, 2, dtype=torch.int64, device=device), torch.zeros((), device=device)
        mine = torch.arange(self.fabric.global_rank, n, self.fabric.world_size)
        with torch.inference_mode():
            for indices in mine.split(self.settings.batch_size):
                if len(indices) == 0:
                    continue
                images, masks = batches.batch(indices)
                with self.fabric.autocast():
                    logits = self.scored(images)
                counts += confusion_counts(main_logits(logits, images.shape[-1]).argmax(dim=1), masks)
                loss = multi_head_loss(logits, masks, self.local_loss, self.settings.head_weights)
                loss_sum += loss * len(indices)
        counts, loss_sum = self._reduce(counts, "sum"), self._reduce(loss_sum, "sum")
        found = scores(counts.cpu().numpy()) | {"loss": float(loss_sum) / n}
        if not np.isfinite(found["loss"]):  # the counts of such logits mean nothing
            logger.warning("%s: the loss of a test is %s; this test is not selected.", self.label, found["loss"])
            return dict.fromkeys(found, float("nan"))
        return found

    def _reduce(self, tensor: Tensor, operation: str) -> Tensor:
        """Combine a tensor over the devices."""
        reduced = self.fabric.all_reduce(tensor, reduce_op=operation)
        assert isinstance(reduced, Tensor)
        return reduced


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Divide patches into batches; a single one left over joins the last, as batch normalisation needs two."""
    batches = list(order.split(size))
    if len(batches) > 1 and size > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _share(indices: Tensor, rank: int, n: int) -> tuple[Tensor, slice]:
    """Return a batch and the part of it that one of n processes has.

    A batch smaller than n repeats patches, so that no process idles.
    """
    if len(indices) < n:
        indices = indices.repeat(-(-n // len(indices)))
    start, end = (len(indices) * r // n for r in (rank, rank + 1))
    return indices, slice(start, end)


def batch_norm_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of batch normalisation of a network, whatever their dimensions."""
    return [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def _epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    digest = hashlib.sha256(f"{seed} {epoch} {rank}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
