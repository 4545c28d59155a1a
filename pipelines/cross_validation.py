"""The common part of all training pipelines: the folds, side by side, and their evaluation."""

import json
from functools import lru_cache
from typing import Any

from landslide.bands.formulas import BandSettings, resolve_bands
from landslide.inference.symmetries import gradient_channels
from landslide.models.complexity import resolutions, without_memory
from landslide.schema import PATCH_SIZE
from landslide.training.augmentation import Augmentation
from landslide.training.fold import TrainingSettings, refuse_freezing
from landslide.training.losses import HEAD_WEIGHTS, head_shares
from landslide.training.settings import refuse_head_settings_without_effect
from steps.evaluate import evaluate
from steps.settings import EvaluationSettings, FoldSettings
from steps.train_fold import train_fold


def cross_validate(
    *,
    run: Any,
    fold_table: Any,
    patches: Any,
    start_from: Any,
    bands: BandSettings,
    folds: FoldSettings,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    train: Any = train_fold,
    prefix: str = "",
) -> tuple[list[Any], Any]:
    """Add one training step per fold to the pipeline, and their evaluation.

    Args:
        run: Output of `open_run`.
        fold_table: The patches with their folds.
        patches: Output of `build_bands`.
        start_from: Registered version to start from, empty to train from scratch.
        bands: Band settings.
        folds: How many folds there are, which of them are trained, and what is held out with each.
        training: Training settings.
        evaluation: What is drawn.
        train: The step that trains a fold.
        prefix: Prefix of the step names, for pipelines with several cross-validations.

    Returns:
        The outputs of the trained folds in the order of their numbers, and of the evaluation.

    Raises:
        ConfigurationError: If the patches do not provide the bands, the network cannot be built, the bands cannot be
            rotated and the settings ask for rotations, or there are no statistics of batch normalisation to freeze.
    """
    # Otherwise each fold would find the fault, or the evaluation hours later.
    input_bands(bands, training, evaluation, from_scratch=start_from == "")
    fold_runs = [
        train(
            fold=fold, fold_table=fold_table, patches=patches, cross_validation_run=run, training=training,
            start_from=start_from, hold_out=folds.hold_out, id=f"{prefix}train_fold_{fold}",
        )
        for fold in folds.trained_folds
    ]  # fmt: skip
    scores = evaluate(
        fold_runs=fold_runs, trained_folds=folds.trained_folds, fold_table=fold_table, patches=patches,
        cross_validation_run=run, evaluation=evaluation, hold_out=folds.hold_out, id=f"{prefix}evaluate",
    )  # fmt: skip
    return fold_runs, scores


def input_bands(
    bands: BandSettings, training: TrainingSettings, evaluation: EvaluationSettings, *, from_scratch: bool = True
) -> tuple[str, ...]:
    """Return the bands that the networks see, after a check that they and the network fit the settings.

    The network is built without memory.

    Args:
        bands: Band settings.
        training: Training settings.
        evaluation: In which variants is predicted.
        from_scratch: Whether the networks surely start from scratch.

    Raises:
        ConfigurationError: If a selected band is unavailable, if there is no such network or it does not take its
            options or patches of this size, if only one gradient band is selected and patches are to be rotated, if
            light or colours are to change and no band is a reflectance, if there are no statistics of batch
            normalisation to freeze, or if a setting of bands or heads has no effect.
    """
    names = resolve_bands(training.bands, bands.names)
    bands.refuse_settings_without_effect()
    size = training.crop or PATCH_SIZE
    heads = _heads(training.model, len(names), json.dumps(training.model_options, sort_keys=True), size)
    if training.prediction.heads != "main" or training.head_weights != HEAD_WEIGHTS:
        refuse_head_settings_without_effect(training, heads)
    head_shares(heads, size, training.head_weights)
    Augmentation(training.augmentation, names, bands)
    if training.frozen_batch_norm_epochs:
        network = without_memory(training.model, len(names), training.model_options)
        refuse_freezing(training, network, from_scratch=from_scratch)
    if {evaluation.test_time_augmentation, training.prediction.augmentation} != {"none"}:
        gradient_channels(names)
    return names


@lru_cache
def _heads(model: str, n_bands: int, options: str, size: int) -> list[str]:
    """Return the resolutions of a network's heads; the options come as JSON, so that equal ones are built once."""
    return resolutions(model, n_bands, json.loads(options), size=size)
