"""Training of one fold: fit, checkpoint, resume.

Lightning Fabric takes care of device, precision and several GPUs; the loop is ours. An epoch does not depend on how the
process came to it (`landslide.training.epochs`): N epochs, a kill and N more give the same weights as 2N epochs, bit
for bit on one CPU and on a GPU in deterministic mode.
"""

import hashlib
import json
import logging
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from landslide.bands.batches import PatchBatches
from landslide.bands.cache import BandCache
from landslide.bands.statistics import band_statistics
from landslide.errors import ConfigurationError, TrainingError
from landslide.files import sha256
from landslide.folds.parts import FoldRows
from landslide.inference.batches import predict_batches
from landslide.metrics.detection import patch_scores, select_detection_threshold
from landslide.metrics.selection import recorded_tests, replaces, selection_scores
from landslide.metrics.thresholds import select_threshold, threshold_counts
from landslide.models import ModelSpec, build_model
from landslide.training.checkpoints import Progress, best_weights, load_last, save, save_weights
from landslide.training.distributed import synchronize_batch_norm
from landslide.training.epochs import NOT_FINITE, FoldTrainer, batch_norm_layers
from landslide.training.optimizers import create_optimizer
from landslide.training.sampling import evenly_spaced
from landslide.training.settings import TrainingSettings as TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """A trained fold.

    Attributes:
        spec: What rebuilds the network.
        weights: Weights of the selected epoch.
        epoch: The selected epoch, counted from 1; 36.5 at half of the 37th.
        threshold: Landslide probability from which a pixel is called landslide, chosen on the selection part.
        detection_threshold: Score from which a patch is said to hold a landslide, chosen there as well.
        history: One record of metrics an epoch.
    """

    spec: ModelSpec
    weights: Path
    epoch: float
    threshold: float
    detection_threshold: float
    history: list[dict[str, float]]


@dataclass(frozen=True)
class FoldTask:
    """One fold to train. Picklable, because several GPUs mean several processes.

    Attributes:
        cache: The band cache.
        rows: Its rows by part.
        bands: Names of the input bands.
        settings: Training settings.
        checkpoints: Folder of this fold's checkpoints.
        start: Specification and weights of a trained network to start from; freshly initialised if None. Its
            standardisation is kept. It must not have seen the patches that this fold leaves out.
        label: Text in front of the progress bar.
    """

    cache: BandCache
    rows: FoldRows
    bands: tuple[str, ...]
    settings: TrainingSettings
    checkpoints: Path
    start: tuple[ModelSpec, Path] | None = None
    label: str = "training"

    @property
    def monitored_rows(self) -> npt.NDArray[np.int64]:
        """The rows of the test fold if they are scored after every epoch, although nothing is chosen on them."""
        return self.rows.test if self.settings.monitor_test_fold else self.rows.test[:0]

    def fingerprint(self, spec: ModelSpec) -> str:
        """Return the digest of everything that determines the weights; only such checkpoints are resumed."""
        parts: list[Any] = [self.cache.directory.name, self.rows.training.tolist(), self.rows.selection.tolist()]
        parts += [asdict(self.settings), spec.to_dict(), sha256(self.start[1]) if self.start else None]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def train_fold(task: FoldTask, *, on_epoch: Callable[[dict[str, float]], None] | None = None) -> FoldResult:
    """Train one fold, resuming from its last checkpoint if there is one.

    Args:
        task: The fold.
        on_epoch: Called after every finished epoch with its record; must be picklable for several devices.

    Returns:
        The selected weights, epoch and thresholds, and the learning curves.

    Raises:
        TrainingError: If the loss is not finite, no test that may be chosen is, or a part is empty.
        ConfigurationError: If the device that the settings ask for is unavailable, the network to start from is
            another one, or a network without batch normalisation is to freeze it.
    """
    for part, rows in (("training", task.rows.training), ("selection", task.rows.selection)):
        if len(rows) == 0:
            raise TrainingError(f"The {part} part of this fold is empty.", remedy="Use more patches or fewer folds.")
    settings = task.settings
    used = evenly_spaced(task.rows.training, settings.max_patches)
    task = replace(task, rows=replace(task.rows, training=used))
    if task.start is None:
        spec = _model_spec(task)
    else:
        spec = task.start[0]
        _refuse_other_network(spec, settings, task.bands)
    fabric = _fabric(settings)
    # A partial, because Fabric searches the arguments for modules and fails on frozen dataclasses.
    fabric.launch(partial(_fit, task=task, spec=spec, on_epoch=on_epoch))
    resumed = load_last(task.checkpoints, task.fingerprint(spec))
    if resumed is None:
        raise TrainingError(
            f"No checkpoint of the finished fold is in {task.checkpoints}.",
            remedy="Check that disk, then start again.",
        )
    progress = resumed[0]
    if not progress.best_epoch:
        raise TrainingError(
            f"{task.label}: the loss of the selection part is not finite after any epoch that may be chosen.",
            remedy=NOT_FINITE + (" Or leave out training.selection_epochs." if settings.selected_after else ""),
        )
    weights = best_weights(task.checkpoints, progress.best_epoch)
    threshold, detection_threshold = _thresholds(build_model(spec, load_file(weights)), task)
    return FoldResult(spec, weights, progress.best_epoch, threshold, detection_threshold, progress.history)


def _thresholds(model: nn.Module, task: FoldTask) -> tuple[float, float]:
    """Choose the thresholds of segmentation and of detection on the selection part."""
    counts: npt.NDArray[np.int64] | None = None
    detection = array("d")
    settings, rows = task.settings, task.rows.selection
    batches = predict_batches(
        model,
        task.cache,
        rows,
        task.bands,
        {"": settings.prediction},
        device=device_of(settings),
        batch_size=settings.batch_size,
    )
    for _, predicted, masks in batches:
        thresholds, of_batch = threshold_counts(predicted[""], masks)
        counts = of_batch if counts is None else counts + of_batch
        detection.frombytes(patch_scores(predicted[""]).tobytes())
    assert counts is not None
    truth = np.array([bool(task.cache.masks[row].any()) for row in rows])
    return (
        select_threshold(thresholds, counts, selection_scores(settings.select_by)[0]),
        select_detection_threshold(np.array(detection, np.float64), truth),
    )


def _model_spec(task: FoldTask) -> ModelSpec:
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    settings = task.settings
    if settings.standardize:
        means, deviations = band_statistics(task.cache, task.rows.training, task.bands)
        mean, std = tuple(means.tolist()), tuple(np.where(deviations == 0, 1.0, deviations).tolist())
    return ModelSpec(name=settings.model, options=dict(settings.model_options), bands=task.bands, mean=mean, std=std)


def _refuse_other_network(spec: ModelSpec, settings: TrainingSettings, band_names: tuple[str, ...]) -> None:
    trained = (spec.name, dict(spec.options), spec.bands, spec.mean is not None)
    wanted = (settings.model, dict(settings.model_options), band_names, settings.standardize)
    for name, found, asked in zip(("model", "model_options", "bands", "standardize"), trained, wanted, strict=True):
        if found != asked:
            raise ConfigurationError(
                f"The network to start from has training.{name} {found!r}, and the settings ask for {asked!r}.",
                remedy="Ask for the same network, or train from scratch.",
            )


def refuse_freezing(settings: TrainingSettings, model: nn.Module, *, from_scratch: bool) -> None:
    """Refuse to freeze statistics of batch normalisation that there are not.

    Args:
        settings: Training settings.
        model: The network, with or without memory.
        from_scratch: Whether it starts from scratch, so that its statistics come from this training.

    Raises:
        ConfigurationError: The network has no batch normalisation, or would have no statistics.
    """
    if settings.frozen_batch_norm_epochs and not batch_norm_layers(model):
        raise ConfigurationError(
            f"training.frozen_batch_norm_epochs is set, and {settings.model} has no batch normalisation.",
            remedy="Leave it out, or choose another network.",
        )
    if settings.frozen_batch_norm_epochs == settings.epochs and from_scratch:
        raise ConfigurationError(
            "training.frozen_batch_norm_epochs is training.epochs: batch normalisation would have no statistics.",
            remedy="Set training.frozen_batch_norm_epochs below training.epochs.",
        )


def device_of(settings: TrainingSettings) -> torch.device:
    """Return the device on which one process computes under these settings.

    Raises:
        ConfigurationError: If the settings ask for a GPU and there is none.
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
            remedy="Set training.devices: auto, or at most that number.",
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


def _fit(fabric: Fabric, task: FoldTask, spec: ModelSpec, on_epoch: Callable[[dict[str, float]], None] | None) -> None:
    """Train in this process; with several devices, one process each runs this."""
    settings = task.settings
    if settings.deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        model = build_model(spec).to(memory_format=torch.channels_last)
        refuse_freezing(settings, model, from_scratch=task.start is None)
        if task.start is not None:
            model.load_state_dict(load_file(task.start[1]))
        if fabric.world_size > 1:
            model = synchronize_batch_norm(model, fabric.device)
        optimizer = create_optimizer(
            settings.optimizer,
            model.parameters(),
            rate=settings.rate(0),
            epsilon=settings.optimizer_epsilon,
            weight_decay=settings.weight_decay,
        )
        fingerprint = task.fingerprint(spec)
        resumed = load_last(task.checkpoints, fingerprint)
        progress = Progress(fingerprint)
        if resumed is not None:
            progress, weights, state = resumed
            model.load_state_dict(state.get("weights", weights))
            logger.info("%s: resuming after epoch %d.", task.label, progress.epoch)
        compiled: Any = torch.compile(model) if settings.compile else model
        wrapped, wrapped_optimizer = fabric.setup(compiled, optimizer)
        average = _average(model, settings)  # a copy of the model on its device
        if resumed is not None:
            if average is not None:
                average.module.load_state_dict(weights)
                average.n_averaged.fill_(state["averaged_steps"])
            optimizer.load_state_dict(state["optimizer"])
            if on_epoch is not None and fabric.is_global_zero:
                for record in progress.history:  # the last one may not have been reported before the kill
                    on_epoch(record)
        rows = {"training": task.rows.training, "validation": task.rows.selection, "test": task.monitored_rows}
        data = {part: PatchBatches(task.cache, chosen, task.bands, fabric.device) for part, chosen in rows.items()}
        positive = torch.tensor([bool(task.cache.masks[row].any()) for row in task.rows.training])
        trainer = FoldTrainer(
            fabric, settings, data, positive, model=model, average=average, wrapped=wrapped,
            optimizer=wrapped_optimizer, label=task.label,
        )  # fmt: skip

        def select(record: dict[str, float]) -> bool:
            """Keep the newest test of a record as the best, if it is; return whether it is."""
            tests = recorded_tests([record], "validation")
            if not tests or tests[-1]["epoch"] <= settings.selected_after:
                return False
            if not replaces(tests[-1], progress.best_scores, settings.select_by):
                return False
            progress.best_epoch, progress.best_scores = tests[-1].pop("epoch"), tests[-1]
            return True

        def at_half(half_scores: dict[str, float]) -> None:
            if select({**half_scores, "epoch": progress.epoch + 1}) and fabric.is_global_zero:
                save_weights(task.checkpoints, progress.best_epoch, trainer.scored.state_dict())

        while progress.epoch < settings.epochs:
            record = trainer.epoch(progress.epoch, at_half=at_half)
            progress.epoch += 1
            record["epoch"] = progress.epoch
            progress.history.append(record)
            select(record)
            if fabric.is_global_zero:
                state = {"optimizer": optimizer.state_dict()}
                if average is not None:
                    state |= {"weights": model.state_dict(), "averaged_steps": int(average.n_averaged)}
                save(task.checkpoints, progress, trainer.scored.state_dict(), state)
                if on_epoch is not None:
                    on_epoch(record)
            fabric.barrier()


def _average(model: nn.Module, settings: TrainingSettings) -> AveragedModel | None:
    """Return the exponential moving average of weights and buffers, if the settings ask for one."""
    if settings.average_decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay), use_buffers=True)
