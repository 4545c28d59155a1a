"""Training of one fold: fit, checkpoint, resume.

Lightning Fabric takes care of device, precision and several GPUs; the loop is ours. Each epoch seeds its own
random numbers from (seed, epoch), so an epoch does not depend on how the process came to it: N epochs, a kill
and N more give the same weights as 2N epochs, bit for bit on one CPU and on a GPU in deterministic mode.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from landslide import checkpoint
from landslide.augment import Augmentation, AugmentationSettings
from landslide.band_statistics import band_statistics
from landslide.batches import PatchBatches
from landslide.cache import BandCache, open_cache
from landslide.checkpoint import Progress
from landslide.errors import ConfigurationError, TrainingError
from landslide.losses import HEAD_WEIGHTS, LOSS_NAMES, Loss, create_loss, multi_head_loss
from landslide.metrics import METRIC_NAMES, confusion_counts, scores
from landslide.models import ModelSpec, build_model, main_logits
from landslide.prediction import predict_rows, select_threshold

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a fold is trained; the defaults are the paper's (section V and the authors' code).

    Attributes:
        bands: Band group or names (see `landslide.bands.resolve_bands`).
        model: Network name (see `landslide.models.create_model`).
        model_options: The network's own options, such as `width`.
        standardize: Subtract mean and divide by standard deviation of the training part, band by band. The paper
            feeds bands as stored.
        loss: Loss name (see `landslide.losses.create_loss`).
        head_weights: Weight of each head by its resolution for 128-pixel input.
        epochs: Passes over the training part.
        batch_size: Patches a batch, over all devices together.
        crop: Side of random crops to train on, a multiple of 16; whole patches if None.
        optimizer: `adam` or `adamw`.
        optimizer_epsilon: Term in the denominator of Adam's update.
        weight_decay: Weight decay of the optimizer.
        learning_rates: Pairs (first epoch at which this rate ends, rate), epochs counted from 0; the last pair
            holds to the end.
        augmentation: Augmentation settings.
        selection: Where the epoch and the threshold are chosen: on an `inner_validation` part of the training
            folds, or on the `test_fold` itself, which is the paper's protocol and optimistic.
        select_by: Score by which the epoch and the threshold are chosen.
        validation_fraction: Share of the training patches in the inner validation part.
        seed: Seed of everything random.
        device: `auto` (GPU where there is one), `cpu` or `cuda`.
        devices: Number of devices, or `auto` for all GPUs or one CPU.
        precision: `auto` (bf16 on a GPU that has it, float32 otherwise) or a precision of Lightning Fabric.
        deterministic: Ask for deterministic GPU algorithms.
        compile: Compile the network with torch.compile.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    bands: str | tuple[str, ...] = "23"
    model: str = "rau_net"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    standardize: bool = False
    loss: str = "focal_iou"
    head_weights: Mapping[str, float] = field(default_factory=lambda: dict(HEAD_WEIGHTS))
    epochs: int = 65
    batch_size: int = 12
    crop: int | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    optimizer_epsilon: float = 1e-7
    weight_decay: float = 0.0
    learning_rates: tuple[tuple[int, float], ...] = (
        (8, 1e-4), (15, 5e-5), (20, 2e-5), (25, 1e-5), (30, 5e-6), (35, 2e-6), (42, 1e-6), (50, 5e-7), (65, 1e-7),
    )  # fmt: skip
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    selection: Literal["inner_validation", "test_fold"] = "inner_validation"
    select_by: str = "f1_macro"
    validation_fraction: float = 0.1
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int | Literal["auto"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    deterministic: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, ok, needed in (
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            (
                "crop",
                self.crop is None or (0 < self.crop <= 128 and self.crop % 16 == 0),
                "a multiple of 16 up to 128",
            ),
            ("validation_fraction", 0 < self.validation_fraction < 1, "between 0 and 1"),
            ("select_by", self.select_by in METRIC_NAMES, f"one of {', '.join(METRIC_NAMES)}"),
            ("loss", self.loss in LOSS_NAMES, f"one of {', '.join(LOSS_NAMES)}"),
            ("learning_rates", len(self.learning_rates) > 0, "at least one (epoch, rate) pair"),
            ("learning_rates", all(rate > 0 for _, rate in self.learning_rates), "rates above 0"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("optimizer_epsilon", self.optimizer_epsilon > 0, "above 0"),
            ("devices", self.devices == "auto" or self.devices >= 1, "auto or 1 or more"),
        ):
            if not ok:
                raise ConfigurationError(f"training.{name} is {getattr(self, name)!r}.", remedy=f"Set it to {needed}.")

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return next((rate for end, rate in self.learning_rates if epoch < end), self.learning_rates[-1][1])


@dataclass(frozen=True)
class FoldResult:
    """A trained fold.

    Attributes:
        spec: What rebuilds the network.
        weights: Weights of the selected epoch.
        epoch: The selected epoch, counted from 1.
        threshold: Landslide probability from which a pixel is called landslide, chosen on the selection part.
        history: One record of metrics an epoch.
    """

    spec: ModelSpec
    weights: Path
    epoch: int
    threshold: float
    history: list[dict[str, float]]


def train_fold(
    cache: BandCache,
    training_rows: npt.NDArray[np.int64],
    selection_rows: npt.NDArray[np.int64],
    settings: TrainingSettings,
    *,
    band_names: tuple[str, ...],
    checkpoints: Path,
    start: tuple[ModelSpec, Path] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    label: str = "training",
) -> FoldResult:
    """Train one fold, going on from its last checkpoint where there is one.

    Args:
        cache: The band cache.
        training_rows: Rows of the training part; statistics and donors come from these alone.
        selection_rows: Rows on which the epoch and the threshold are chosen.
        settings: Training settings.
        band_names: Names of the input bands.
        checkpoints: Folder of this fold's checkpoints.
        start: Specification and weights of a trained network to start from; freshly initialised if None. Its
            standardisation is kept. It must not have seen the patches that this fold leaves out.
        on_epoch: Called after every finished epoch with its record; must be picklable for several devices.
        label: Text in front of the progress bar.

    Returns:
        The selected weights, epoch and threshold, and the learning curves.

    Raises:
        TrainingError: If the loss is not finite, or a part is empty.
        ConfigurationError: If the device that the settings ask for is not there, or the network to start from is
            another one.
    """
    for part, rows in (("training", training_rows), ("selection", selection_rows)):
        if len(rows) == 0:
            raise TrainingError(f"The {part} part of this fold is empty.", remedy="Use more patches or fewer folds.")
    if start is None:
        spec, initial = _model_spec(cache, training_rows, settings, band_names), None
    else:
        spec, initial = start
        _refuse_other_network(spec, settings, band_names)
    job = _Job(
        cache.directory, training_rows, selection_rows, settings, spec, initial, checkpoints, on_epoch, label,
        fingerprint=_fingerprint(cache, training_rows, selection_rows, settings, spec, initial),
    )  # fmt: skip
    fabric = _fabric(settings)
    # As a partial: Fabric looks into arguments for modules, and into frozen dataclasses it cannot.
    fabric.launch(partial(_fit, job=job, cache=cache if fabric.world_size == 1 else None))
    resumed = checkpoint.load_last(checkpoints, job.fingerprint)
    if resumed is None:
        raise TrainingError(
            f"No checkpoint of the finished fold is in {checkpoints}.",
            remedy="Check that disk, then start again.",
        )
    progress = resumed[0]
    weights = checkpoint.best_weights(checkpoints, progress.best_epoch)
    model = build_model(spec, load_file(weights))
    probability = predict_rows(
        model, cache, selection_rows, band_names, device=device_of(settings), batch_size=settings.batch_size
    )
    threshold = select_threshold(probability, cache.masks[selection_rows], settings.select_by)
    return FoldResult(spec, weights, progress.best_epoch, threshold, progress.history)


@dataclass(frozen=True)
class _Job:
    """What a training process needs; picklable, because several GPUs mean several processes."""

    cache_directory: Path
    training_rows: npt.NDArray[np.int64]
    selection_rows: npt.NDArray[np.int64]
    settings: TrainingSettings
    spec: ModelSpec
    initial: Path | None
    checkpoints: Path
    on_epoch: Callable[[dict[str, float]], None] | None
    label: str
    fingerprint: str


def _model_spec(
    cache: BandCache,
    training_rows: npt.NDArray[np.int64],
    settings: TrainingSettings,
    band_names: tuple[str, ...],
) -> ModelSpec:
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    if settings.standardize:
        means, deviations = band_statistics(cache, training_rows, band_names)
        mean, std = tuple(means.tolist()), tuple(np.where(deviations == 0, 1.0, deviations).tolist())
    return ModelSpec(name=settings.model, options=dict(settings.model_options), bands=band_names, mean=mean, std=std)


def _refuse_other_network(spec: ModelSpec, settings: TrainingSettings, band_names: tuple[str, ...]) -> None:
    trained = (spec.name, dict(spec.options), spec.bands, spec.mean is not None)
    wanted = (settings.model, dict(settings.model_options), band_names, settings.standardize)
    for name, found, asked in zip(("model", "model_options", "bands", "standardize"), trained, wanted, strict=True):
        if found != asked:
            raise ConfigurationError(
                f"The network to start from has training.{name} {found!r}, and the settings ask for {asked!r}.",
                remedy="Ask for the same network, or train from scratch.",
            )


def _fingerprint(
    cache: BandCache,
    training_rows: npt.NDArray[np.int64],
    selection_rows: npt.NDArray[np.int64],
    settings: TrainingSettings,
    spec: ModelSpec,
    initial: Path | None,
) -> str:
    parts: list[Any] = [cache.directory.name, training_rows.tolist(), selection_rows.tolist(), asdict(settings)]
    parts += [spec.to_dict(), checkpoint.sha256(initial) if initial is not None else None]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def device_of(settings: TrainingSettings) -> torch.device:
    """Return the device on which one process computes under these settings.

    Raises:
        ConfigurationError: If the settings ask for a GPU and none is there.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "training.device is cuda, and torch finds no CUDA device.",
            remedy="Check the driver with nvidia-smi, or set training.device: auto.",
        )
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


def _fabric(settings: TrainingSettings) -> Fabric:
    cuda = device_of(settings).type == "cuda"
    available = torch.cuda.device_count() if cuda else 1
    devices = available if settings.devices == "auto" else settings.devices
    if cuda and devices > available:
        raise ConfigurationError(
            f"training.devices is {devices}, and torch finds {available} GPUs.",
            remedy="Set training.devices: auto, or a number that is there.",
        )
    precision: Any = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    return Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_spawn",
        precision=precision,
    )


def _fit(fabric: Fabric, job: _Job, cache: BandCache | None) -> None:
    """Train in this process; with several devices, one process each runs this."""
    cache = cache or open_cache(job.cache_directory)
    settings = job.settings
    if settings.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        model = build_model(job.spec).to(memory_format=torch.channels_last)
        if job.initial is not None:
            model.load_state_dict(load_file(job.initial))
        optimizer = _optimizer(model, settings)
        resumed = checkpoint.load_last(job.checkpoints, job.fingerprint)
        progress = Progress(job.fingerprint)
        if resumed is not None:
            progress, weights, optimizer_state = resumed
            model.load_state_dict(weights)
            logger.info("%s: going on after epoch %d.", job.label, progress.epoch)
        compiled: Any = torch.compile(model) if settings.compile else model
        wrapped, wrapped_optimizer = fabric.setup(compiled, optimizer)
        if resumed is not None:
            optimizer.load_state_dict(optimizer_state)
            if job.on_epoch is not None and fabric.is_global_zero:
                for record in progress.history:  # the last one may not have been reported before the kill
                    job.on_epoch(record)
        trainer = _FoldTrainer(fabric, job, cache, model, wrapped, wrapped_optimizer)
        while progress.epoch < settings.epochs:
            record = trainer.epoch(progress.epoch)
            progress.epoch += 1
            record["epoch"] = progress.epoch
            progress.history.append(record)
            score = record[f"validation_{settings.select_by}"]
            if score > progress.best_score:
                progress.best_score, progress.best_epoch = score, progress.epoch
            if fabric.is_global_zero:
                checkpoint.save(job.checkpoints, progress, model.state_dict(), optimizer.state_dict())
                if job.on_epoch is not None:
                    job.on_epoch(record)
            fabric.barrier()


def _optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(
        model.parameters(),
        lr=settings.learning_rate(0),
        eps=settings.optimizer_epsilon,
        weight_decay=settings.weight_decay,
    )


class _FoldTrainer:
    """The loop over the batches of one epoch, training and validation."""

    def __init__(
        self,
        fabric: Fabric,
        job: _Job,
        cache: BandCache,
        model: nn.Module,
        wrapped: nn.Module,
        optimizer: Any,
    ) -> None:
        self.fabric, self.settings, self.label = fabric, job.settings, job.label
        self.model, self.wrapped, self.optimizer = model, wrapped, optimizer
        bands = job.spec.bands
        self.training = PatchBatches(cache, job.training_rows, bands, fabric.device)
        self.selection = PatchBatches(cache, job.selection_rows, bands, fabric.device)
        self.n_training, self.n_selection = len(job.training_rows), len(job.selection_rows)
        positive = [i for i, row in enumerate(job.training_rows) if cache.masks[row].any()]
        self.donor_pool = torch.tensor(positive, dtype=torch.int64)
        self.augmentation = Augmentation(job.settings.augmentation, bands)
        self.loss: Loss = create_loss(job.settings.loss)

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, counted from 0, then score the selection part; return the record of both."""
        rank = self.fabric.global_rank
        order = torch.Generator().manual_seed(_epoch_seed(self.settings.seed, epoch))  # equal on all ranks
        generator = torch.Generator().manual_seed(_epoch_seed(self.settings.seed, epoch, rank))
        torch.manual_seed(_epoch_seed(self.settings.seed, epoch, rank))  # dropout
        rate = self.settings.learning_rate(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batches = torch.randperm(self.n_training, generator=order).split(self.settings.batch_size)
        total = torch.zeros((), device=self.fabric.device)
        bar = tqdm(
            batches,
            desc=f"{self.label} epoch {epoch + 1}/{self.settings.epochs}",
            leave=False,
            disable=None if self.fabric.is_global_zero else True,
            mininterval=0.5,
        )
        self.wrapped.train()
        for number, indices in enumerate(bar):
            shards = _shards(indices, self.fabric.world_size)
            augment = epoch < self.settings.epochs - self.settings.augmentation.plain_epochs
            images, masks = self._training_batch(shards[rank], generator, augment)
            loss = multi_head_loss(self.wrapped(images), masks, self.loss, self.settings.head_weights)
            self.fabric.backward(loss)
            self.optimizer.step()
            self.optimizer.zero_grad()
            total += loss.detach() * len(indices)
            if number % 10 == 0 and not bar.disable:
                bar.set_postfix(loss=f"{loss.item():.3f}")
        train_loss = float(self._reduce(total, "mean")) / self.n_training
        if not np.isfinite(train_loss):
            raise TrainingError(
                f"{self.label}: the loss of epoch {epoch + 1} is {train_loss}.",
                remedy="Lower training.learning_rates, use precision: 32-true, or set training.standardize: true.",
            )
        record = {"train_loss": train_loss, "learning_rate": rate, **self._validate()}
        if self.fabric.is_global_zero:
            tqdm.write(
                f"{self.label}  epoch {epoch + 1}/{self.settings.epochs}  loss {train_loss:.4f}  validation: "
                f"loss {record['validation_loss']:.4f}  F1 {record['validation_f1_macro']:.4f}  "
                f"landslide F1 {record['validation_f1_landslide']:.4f}  mIoU {record['validation_miou']:.4f}"
            )
        return record

    def _training_batch(self, indices: Tensor, generator: torch.Generator, augment: bool) -> tuple[Tensor, Tensor]:
        settings = self.settings.augmentation
        images, masks = self._crop(*self.training.batch(indices), generator)
        if not augment or settings.mode == "none":
            return images, masks
        donors = []
        if len(self.donor_pool):
            for _ in range(settings.max_pastes):
                draw = torch.randint(len(self.donor_pool), (len(indices),), generator=generator)
                donors.append(self._crop(*self.training.batch(self.donor_pool[draw]), generator))
        return self.augmentation(images, masks, donors, generator)

    def _crop(self, images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut one random window a batch out of every patch of it."""
        size = self.settings.crop
        if size is None or size >= images.shape[-1]:
            return images, masks
        top, left = torch.randint(images.shape[-1] - size + 1, (2,), generator=generator).tolist()
        window = (..., slice(top, top + size), slice(left, left + size))
        return images[window].contiguous(memory_format=torch.channels_last), masks[window]

    def _validate(self) -> dict[str, float]:
        """Score the selection part at threshold 0.5, its patches shared out over the devices."""
        self.wrapped.eval()
        if self.fabric.world_size > 1:  # batch statistics differ between devices; the saved ones are the first's
            for buffer in self.model.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))
        device = self.fabric.device
        counts, total = torch.zeros(2, 2, dtype=torch.int64, device=device), torch.zeros((), device=device)
        mine = torch.arange(self.fabric.global_rank, self.n_selection, self.fabric.world_size)
        with torch.inference_mode():
            for indices in mine.split(self.settings.batch_size):
                if len(indices) == 0:
                    continue
                images, masks = self.selection.batch(indices)
                with self.fabric.autocast():
                    logits = self.model(images)
                counts += confusion_counts(main_logits(logits, images.shape[-1]).argmax(dim=1), masks)
                total += multi_head_loss(logits, masks, self.loss, self.settings.head_weights) * len(indices)
        counts, total = self._reduce(counts, "sum"), self._reduce(total, "sum")
        record = {f"validation_{name}": value for name, value in scores(counts.cpu().numpy()).items()}
        return record | {"validation_loss": float(total) / self.n_selection}

    def _reduce(self, tensor: Tensor, operation: str) -> Tensor:
        """Combine a tensor over the devices."""
        reduced = self.fabric.all_reduce(tensor, reduce_op=operation)
        assert isinstance(reduced, Tensor)
        return reduced


def _shards(indices: Tensor, n: int) -> tuple[Tensor, ...]:
    """Divide a batch between n devices; a batch smaller than n repeats patches, so that none idles."""
    return indices.repeat(-(-n // len(indices))).tensor_split(n) if len(indices) < n else indices.tensor_split(n)


def _epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    digest = hashlib.sha256(f"{seed} {epoch} {rank}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
