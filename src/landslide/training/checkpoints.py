"""Checkpoints of one fold: atomic and verified; the last two and the best are kept.

    <directory>/epoch-0007.safetensors   weights and buffers
                epoch-0007.optimizer.pt  optimizer state (tensors and numbers only)
                epoch-0007.json          written last: digests of both, history, best epoch
                epoch-0006-half.safetensors   weights at half of the seventh epoch, if they were the best

A checkpoint counts only with its JSON file, and only while the digests match: safetensors notices a truncated
file but not flipped bits. Random states need no file, because every epoch seeds its own from the run's seed.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from landslide.errors import TrainingError
from landslide.files import atomic_write, sha256

logger = logging.getLogger(__name__)

KEPT = 2


@dataclass
class Progress:
    """How far a fold has come.

    Attributes:
        fingerprint: Digest of settings and data; a checkpoint of another fingerprint is not resumed.
        epoch: Number of finished epochs.
        best_epoch: The selected epoch so far, counted from 1; 6.5 at half of the seventh, 0 before the first.
        best_scores: Its scores and loss.
        history: One record of metrics a finished epoch.
    """

    fingerprint: str
    epoch: int = 0
    best_epoch: float = 0
    best_scores: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def save(directory: Path, progress: Progress, weights: dict[str, Tensor], optimizer_state: dict[str, Any]) -> None:
    """Save a checkpoint of the epoch that `progress` says, then prune older ones.

    Args:
        directory: The fold's checkpoint folder, created if needed.
        progress: Includes the epoch just finished.
        weights: State of the model.
        optimizer_state: State of the optimizer.

    Raises:
        TrainingError: If it cannot be written, as on a full disk; the older checkpoints are then still there.
    """
    stem = directory / _stem(progress.epoch)
    weights_digest = save_weights(directory, progress.epoch, weights)
    optimizer_digest = _write(stem.with_suffix(".optimizer.pt"), lambda path: torch.save(optimizer_state, path))
    manifest = {
        **vars(progress),
        "weights_sha256": weights_digest,
        "optimizer_sha256": optimizer_digest,
        "best_sha256": weights_digest
        if progress.best_epoch == progress.epoch
        else _manifest_digest(directory, progress),
    }
    _write(stem.with_suffix(".json"), lambda path: path.write_text(json.dumps(manifest)))
    _prune(directory, progress)


def save_weights(directory: Path, epoch: float, weights: dict[str, Tensor]) -> str:
    """Save weights alone, as those that a test at half of an epoch selects; return their SHA-256.

    Args:
        directory: The fold's checkpoint folder, created if needed.
        epoch: Epochs trained, 6.5 at half of the seventh.
        weights: State of the model.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    return _write(best_weights(directory, epoch), lambda path: save_file(contiguous, path))


def load_last(directory: Path, fingerprint: str) -> tuple[Progress, dict[str, Tensor], dict[str, Any]] | None:
    """Load the newest whole checkpoint of this fingerprint.

    Returns:
        Progress, weights and optimizer state; None if there is nothing to resume from. A damaged checkpoint
        is logged, and the previous one is used.
    """
    for manifest_path, manifest in _manifests(directory, fingerprint):
        try:
            _verify(manifest_path.with_suffix(".safetensors"), manifest["weights_sha256"])
            _verify(manifest_path.with_suffix(".optimizer.pt"), manifest["optimizer_sha256"])
            if manifest["best_epoch"]:
                _verify(best_weights(directory, manifest["best_epoch"]), manifest["best_sha256"])
            weights = load_file(manifest_path.with_suffix(".safetensors"))
            optimizer = torch.load(manifest_path.with_suffix(".optimizer.pt"), weights_only=True)
            progress = Progress(**{name: manifest[name] for name in Progress.__dataclass_fields__})
        except (OSError, ValueError, KeyError) as error:
            logger.warning("Checkpoint %s is damaged (%s); trying the previous one.", manifest_path, error)
            continue
        return progress, weights, optimizer
    return None


def best_weights(directory: Path, best_epoch: float) -> Path:
    """Return the path of the selected epoch's weights."""
    return directory / f"{_stem(best_epoch)}.safetensors"


def _stem(epoch: float) -> str:
    return f"epoch-{int(epoch):04d}{'' if epoch == int(epoch) else '-half'}"


def _write(path: Path, writer: Callable[[Path], object]) -> str:
    """Write a file atomically; return its SHA-256."""
    try:
        with atomic_write(path) as temporary:
            writer(temporary)
            return sha256(temporary)
    except (OSError, SafetensorError, RuntimeError) as error:  # each writer reports a full disk in its own way
        raise TrainingError(
            f"The checkpoint {path} cannot be written: {error}.",
            remedy="Free disk space, or make the folder writable; the same command resumes.",
        ) from error


def _verify(path: Path, digest: str) -> None:
    if sha256(path) != digest:
        raise ValueError(f"{path.name} does not match its digest")


def _manifests(directory: Path, fingerprint: str) -> list[tuple[Path, dict[str, Any]]]:
    """Return the readable manifests of this fingerprint, newest first; a damaged one is reported in the log."""
    found = []
    for path in sorted(directory.glob("epoch-*.json"), reverse=True):
        try:
            manifest = json.loads(path.read_text())
            if manifest["fingerprint"] == fingerprint:
                found.append((path, manifest))
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("Checkpoint %s is damaged (%s); trying the previous one.", path, error)
    return found


def _manifest_digest(directory: Path, progress: Progress) -> str:
    """Return the digest of the best epoch's weights, from the newest manifest that knows it; empty if there is none."""
    if not progress.best_epoch:
        return ""
    for _, manifest in _manifests(directory, progress.fingerprint):
        if manifest.get("best_epoch") == progress.best_epoch:
            return str(manifest["best_sha256"])
    return sha256(best_weights(directory, progress.best_epoch))


def _prune(directory: Path, progress: Progress) -> None:
    """Keep the last two checkpoints of this fingerprint and the weights that either of them calls the best."""
    manifests = _manifests(directory, progress.fingerprint)[:KEPT]
    kept = {path.stem for path, _ in manifests}
    best = {_stem(manifest["best_epoch"]) for _, manifest in manifests}
    for path in directory.glob("epoch-*"):
        stem = path.name.split(".")[0]
        if stem not in kept and not (stem in best and path.suffix == ".safetensors"):
            path.unlink(missing_ok=True)
