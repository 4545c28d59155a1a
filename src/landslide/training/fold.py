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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from landslide.bands.cache import BandCache, open_cache
from landslide.bands.statistics import band_statistics
from landslide.errors import ConfigurationError, TrainingError
from landslide.files import sha256
from landslide.inference.prediction import predict_batches
from landslide.metrics.detection import patch_scores, select_detection_threshold
from landslide.metrics.thresholds import select_threshold, threshold_counts
from landslide.models import ModelSpec, build_model
from landslide.training.checkpoints import Progress, best_weights, load_last, save
from landslide.training.distributed import synchronize_batch_norm
from landslide.training.epochs import FoldTrainer
from landslide.training.optimizers import create_optimizer
from landslide.training.sampling import spread
from landslide.training.settings import TrainingSettings as TrainingSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoldResult:
    """A trained fold.

    Attributes:
        spec: What rebuilds the network.
        weights: Weights of the selected epoch.
        epoch: The selected epoch, counted from 1.
        threshold: Landslide probability from which a pixel is called landslide, chosen on the selection part.
        detection_threshold: Score from which a patch is said to hold a landslide, chosen there as well.
        history: One record of metrics an epoch.
    """

    spec: ModelSpec
    weights: Path
    epoch: int
    threshold: float
    detection_threshold: float
    history: list[dict[str, float]]


def train_fold(
    cache: BandCache,
    training_rows: npt.NDArray[np.int64],
    selection_rows: npt.NDArray[np.int64],
    settings: TrainingSettings,
    *,
    band_names: tuple[str, ...],
    checkpoints: Path,
    test_rows: npt.NDArray[np.int64] | None = None,
    start: tuple[ModelSpec, Path] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    label: str = "training",
) -> FoldResult:
    """Train one fold, going on from its last checkpoint where there is one.

    Args:
        cache: The band cache.
        training_rows: Rows of the training part; statistics and donors come from these alone, and with
            `settings.max_patches` from those of them that are used.
        selection_rows: Rows on which the epoch and the threshold are chosen.
        settings: Training settings.
        band_names: Names of the input bands.
        checkpoints: Folder of this fold's checkpoints.
        test_rows: Rows of the test fold, scored after every epoch where `settings.monitor_test_fold` asks for it and
            the epoch is not chosen on them anyway.
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
    training_rows = spread(training_rows, settings.max_patches)
    monitored = np.empty(0, np.int64)
    if test_rows is not None and settings.monitor_test_fold and settings.selection != "test_fold":
        monitored = test_rows
    if start is None:
        spec, initial = _model_spec(cache, training_rows, settings, band_names), None
    else:
        spec, initial = start
        _refuse_other_network(spec, settings, band_names)
    job = _Job(
        cache.directory, training_rows, selection_rows, monitored, settings, spec, initial, checkpoints, on_epoch,
        label,
        fingerprint=_fingerprint(cache, training_rows, selection_rows, settings, spec, initial),
    )  # fmt: skip
    fabric = _fabric(settings)
    # As a partial: Fabric looks into arguments for modules, and into frozen dataclasses it cannot.
    fabric.launch(partial(_fit, job=job, cache=cache if fabric.world_size == 1 else None))
    resumed = load_last(checkpoints, job.fingerprint)
    if resumed is None:
        raise TrainingError(
            f"No checkpoint of the finished fold is in {checkpoints}.",
            remedy="Check that disk, then start again.",
        )
    progress = resumed[0]
    weights = best_weights(checkpoints, progress.best_epoch)
    model = build_model(spec, load_file(weights))
    threshold, detection_threshold = _thresholds(model, cache, selection_rows, settings, band_names)
    return FoldResult(spec, weights, progress.best_epoch, threshold, detection_threshold, progress.history)


def _thresholds(
    model: nn.Module,
    cache: BandCache,
    rows: npt.NDArray[np.int64],
    settings: TrainingSettings,
    band_names: tuple[str, ...],
) -> tuple[float, float]:
    """Choose the thresholds of segmentation and of detection on the selection part."""
    counts: npt.NDArray[np.int64] | None = None
    detection = array("d")
    ways = {"": settings.prediction}
    batches = predict_batches(
        model, cache, rows, band_names, ways, device=device_of(settings), batch_size=settings.batch_size
    )
    for _, predicted, masks in batches:
        thresholds, of_batch = threshold_counts(predicted[""], masks)
        counts = of_batch if counts is None else counts + of_batch
        detection.frombytes(patch_scores(predicted[""]).tobytes())
    assert counts is not None
    truth = np.array([bool(cache.masks[row].any()) for row in rows])
    return (
        select_threshold(thresholds, counts, settings.select_by),
        select_detection_threshold(np.array(detection, np.float64), truth),
    )


@dataclass(frozen=True)
class _Job:
    """What a training process needs; picklable, because several GPUs mean several processes."""

    cache_directory: Path
    training_rows: npt.NDArray[np.int64]
    selection_rows: npt.NDArray[np.int64]
    monitored_rows: npt.NDArray[np.int64]
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
    parts += [spec.to_dict(), sha256(initial) if initial is not None else None]
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
        if fabric.world_size > 1:
            model = synchronize_batch_norm(model, fabric.device)
        optimizer = create_optimizer(
            settings.optimizer,
            model.parameters(),
            rate=settings.rate(0),
            epsilon=settings.optimizer_epsilon,
            weight_decay=settings.weight_decay,
        )
        resumed = load_last(job.checkpoints, job.fingerprint)
        progress = Progress(job.fingerprint)
        if resumed is not None:
            progress, weights, state = resumed
            model.load_state_dict(state.get("weights", weights))
            logger.info("%s: going on after epoch %d.", job.label, progress.epoch)
        compiled: Any = torch.compile(model) if settings.compile else model
        wrapped, wrapped_optimizer = fabric.setup(compiled, optimizer)
        average = _average(model, settings)  # a copy of the model where it is now
        if resumed is not None:
            if average is not None:
                average.module.load_state_dict(weights)
                average.n_averaged.fill_(state["averaged_steps"])
            optimizer.load_state_dict(state["optimizer"])
            if job.on_epoch is not None and fabric.is_global_zero:
                for record in progress.history:  # the last one may not have been reported before the kill
                    job.on_epoch(record)
        parts = {"training": job.training_rows, "validation": job.selection_rows, "test": job.monitored_rows}
        trainer = FoldTrainer(
            fabric, settings, cache, parts, job.spec.bands, model, average, wrapped, wrapped_optimizer, job.label
        )
        while progress.epoch < settings.epochs:
            record = trainer.epoch(progress.epoch)
            progress.epoch += 1
            record["epoch"] = progress.epoch
            progress.history.append(record)
            score = record[f"validation_{settings.select_by}"]
            if score > progress.best_score:
                progress.best_score, progress.best_epoch = score, progress.epoch
            if fabric.is_global_zero:
                state = {"optimizer": optimizer.state_dict()}
                if average is not None:
                    state |= {"weights": model.state_dict(), "averaged_steps": int(average.n_averaged)}
                save(job.checkpoints, progress, trainer.scored.state_dict(), state)
                if job.on_epoch is not None:
                    job.on_epoch(record)
            fabric.barrier()


def _average(model: nn.Module, settings: TrainingSettings) -> AveragedModel | None:
    """Return the exponential moving average of weights and buffers, if the settings ask for one."""
    if settings.average_decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay), use_buffers=True)
