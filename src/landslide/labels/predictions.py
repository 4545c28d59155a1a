"""Out-of-fold predictions of a data set: every patch by a network that has not seen it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.data.patches import read_mask, read_stored
from landslide.inference.ensemble import Ensemble
from landslide.inference.symmetries import SYMMETRIES, TestTimeAugmentation
from landslide.schema import PATCH_SIZE

_CHUNK = 16


@dataclass(frozen=True)
class Predictions:
    """Out-of-fold predictions.

    Attributes:
        root: Folder of the data set.
        stored: The bands of its images.
        table: The predicted patches (n): the columns of `landslide.data.table.patch_table`, and fold; that is 0 for a
            patch which no member has seen.
        masks: (n, 128, 128) uint8, the labels.
        probability: (n, 128, 128) float32, landslide probability; NaN where an image is not finite.
        deviation: (n, 128, 128) float32, its standard deviation over the members that predict a patch and over the
            turned and mirrored patches.
        threshold: (n,) landslide probability from which a pixel is a landslide, of the members that predict the patch.
    """

    root: Path
    stored: tuple[str, ...]
    table: pd.DataFrame
    masks: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    deviation: npt.NDArray[np.float32]
    threshold: npt.NDArray[np.float64]


def predict_out_of_fold(
    ensemble: Ensemble,
    root: Path,
    table: pd.DataFrame,
    *,
    augmentation: TestTimeAugmentation = "flips_and_rotations",
    progress: Callable[[int], object] = lambda n: None,
) -> Predictions:
    """Predict patches out of fold: a patch of fold k by the member that left out fold k.

    Args:
        ensemble: The fold models; also one of other code (see `landslide.inference.ensemble.load_ensemble`).
        root: Folder of the data set.
        table: Patches with their folds; fold 0 is predicted by all members together. Every other fold has a member.
        augmentation: Each patch is predicted this often, turned and mirrored. Its deviation tells how sure a single
            member is.
        progress: Called with the number of patches just predicted.

    Raises:
        DataError: If an image or a mask cannot be read.
        PredictionError: If an answer is not finite.
    """
    alone = {member.fold: _plain(ensemble, [member]) for member in ensemble.members}
    together = _plain(ensemble, list(ensemble.members))
    stored = tuple(ensemble.settings.stored)
    shape = (len(table), PATCH_SIZE, PATCH_SIZE)
    masks = np.empty(shape, np.uint8)
    probability, deviation = np.empty(shape, np.float32), np.empty(shape, np.float32)
    threshold = np.empty(len(table))
    folds = table["fold"].to_numpy()
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        predicting = alone[int(fold)] if fold else together
        threshold[rows] = predicting.threshold
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            images = np.stack([read_stored(root / table["image"].iloc[row], len(stored)) for row in part])
            masks[part] = [read_mask(root / table["mask"].iloc[row]) for row in part]
            probability[part], deviation[part] = _moved_mean(predicting, images.transpose(0, 3, 1, 2), augmentation)
            progress(len(part))
    return Predictions(root, stored, table.reset_index(drop=True), masks, probability, deviation, threshold)


def _plain(ensemble: Ensemble, members: list[Any]) -> Ensemble:
    """Return an ensemble of these members without test-time augmentation of its own."""
    plain = [replace(member, prediction=replace(member.prediction, augmentation="none")) for member in members]
    return type(ensemble)(plain, ensemble.settings, ensemble.device)


def _moved_mean(
    ensemble: Ensemble, images: npt.NDArray[Any], augmentation: TestTimeAugmentation
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation over turned and mirrored patches and over members.

    The stored bands are turned, so that gradients are computed from turned patches.
    """
    symmetries = SYMMETRIES[augmentation]
    mean, square = np.zeros((2, len(images), *images.shape[2:]))
    for symmetry in symmetries:
        moved = np.rot90(images, symmetry.quarter_turns, axes=(-2, -1))
        moved = moved[..., ::-1] if symmetry.mirrored else moved
        answers = ensemble.predict(np.ascontiguousarray(moved))
        back = [answer[..., ::-1] if symmetry.mirrored else answer for answer in answers]
        found, of_members = (np.rot90(answer, -symmetry.quarter_turns, axes=(-2, -1)).astype(float) for answer in back)
        mean += found
        square += found**2 + of_members**2
    mean /= len(symmetries)
    return mean, np.sqrt(np.maximum(square / len(symmetries) - mean**2, 0))
