"""Which labels are probably wrong: labelled and predicted landslides compared object by object, out of fold.

An object is a landslide that is labelled, predicted, or both: connected pixels of the union of the two. Its score is

    sum over its pixels of (-log p(label)) (1 - 2 d) / (number of its pixels) ** 0.75

where p is the probability that the network gives to what the label says, and d the standard deviation of the landslide
probability. The exponent lies between a sum, by which all large landslides come first, and a mean, by which all small
ones do; it was chosen by experiment, as docs/explanation/results.md tells.

A patch is judged by what other folds say alone: the network that predicts it, the calibration of the probabilities that
are shown, and the thresholds of confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 70, 2021) come from them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.labels.objects import label_objects
from landslide.labels.predictions import Predictions

_LOGITS = np.linspace(-10, 10, 401)  # centres of the bins in which pixels are counted
_STEPS = 50  # of Newton's method, at most
_SMALL_STEP = 1e-6
_SMALLEST = 1e-6  # probability of a label that surprises most
_EXPONENT = 0.75
_BARELY = 0.1  # share of a label: with less of it predicted, the label is in doubt and not its outline

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class FoldReference:
    """What other folds say, for the patches of one fold.

    Attributes:
        slope: Calibrated logits are `slope` times the network's logits plus `offset` (Platt scaling).
        offset: See there.
        landslide: Mean calibrated probability of labelled landslide pixels: a pixel without label is confidently a
            landslide from here on.
        background: Mean calibrated probability of the other pixels: a labelled pixel is confidently none up to here.
    """

    slope: float
    offset: float
    landslide: float
    background: float

    def calibrated(self, probability: Array) -> npt.NDArray[np.float64]:
        """Return calibrated probabilities, of the same shape."""
        return _sigmoid(self.slope * _logit(probability) + self.offset)

    def contradicted(self, probability: Array, label: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which pixels are confidently of the other class than their label says, of the same shape."""
        p = self.calibrated(probability)
        return np.asarray(np.where(label, p <= self.background, p >= self.landslide))


@dataclass(frozen=True)
class Noise:
    """The estimate of confident learning: wrong pixels among the labels.

    Attributes:
        false_landslide: Share of labelled landslide pixels that are none.
        missed_landslide: Share of the other pixels that are landslides.
    """

    false_landslide: float
    missed_landslide: float


def references(predictions: Predictions) -> dict[int, FoldReference]:
    """Compute for every fold what the other folds say.

    Args:
        predictions: Out-of-fold predictions of at least two folds.

    Returns:
        By fold. Patches that no member has seen (fold 0) are judged by all folds.
    """
    folds = predictions.table["fold"].to_numpy()
    counts = {int(fold): _counts(predictions, folds == fold) for fold in np.unique(folds)}
    if len(counts) == 1:  # nothing else is there to judge by
        return {fold: _reference(of_fold) for fold, of_fold in counts.items()}
    everything = np.sum(list(counts.values()), axis=0)
    return {fold: _reference(everything - of_fold) for fold, of_fold in counts.items()}


def _counts(predictions: Predictions, chosen: npt.NDArray[np.bool_]) -> Array:
    """Count pixels by label and logit, (2, bins)."""
    counts = np.zeros((2, len(_LOGITS)))
    for row in np.flatnonzero(chosen):
        known = np.isfinite(predictions.probability[row])
        logits, labels = _logit(predictions.probability[row][known]), predictions.masks[row][known]
        bins = np.rint((logits - _LOGITS[0]) / (_LOGITS[1] - _LOGITS[0])).astype(int)
        for label in (0, 1):
            counts[label] += np.bincount(bins[labels == label], minlength=len(_LOGITS))
    return counts


def _reference(counts: Array) -> FoldReference:
    slope, offset = _platt(counts)
    probability = _sigmoid(slope * _LOGITS + offset)
    background, landslide = (
        float((probability * of_label).sum() / of_label.sum()) if of_label.sum() else float(label)
        for label, of_label in enumerate(counts)
    )
    return FoldReference(slope, offset, landslide, background)


def _platt(counts: Array) -> tuple[float, float]:
    """Fit slope and offset of the logits by maximum likelihood (Platt, 1999), by Newton's method with halved steps.

    A slope of 1 and an offset of 0 count as one more observation: without it, labels that the logits separate perfectly
    have no best slope.
    """
    n, positive = counts.sum(axis=0), counts[1]
    design = np.stack([_LOGITS, np.ones_like(_LOGITS)])
    start = np.array([1.0, 0.0])

    def loss(fitted: Array) -> float:
        x = fitted @ design
        return float((n * np.logaddexp(0, x) - positive * x).sum() + ((fitted - start) ** 2).sum() / 2)

    fitted = start
    for _ in range(_STEPS):
        p = _sigmoid(fitted @ design)
        gradient = design @ (n * p - positive) + fitted - start
        step = np.linalg.solve(design * (n * p * (1 - p)) @ design.T + np.eye(2), gradient)
        while loss(fitted - step) > loss(fitted) and np.abs(step).max() > _SMALL_STEP:
            step = step / 2
        fitted = fitted - step
        if np.abs(step).max() < _SMALL_STEP:
            break
    return float(fitted[0]), float(fitted[1])


def _logit(probability: Array) -> npt.NDArray[np.float64]:
    p = np.clip(probability.astype(np.float64), 1e-12, 1 - 1e-12)
    return np.asarray(np.clip(np.log(p) - np.log1p(-p), _LOGITS[0], _LOGITS[-1]))


def _sigmoid(x: Array) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.asarray(np.exp(-np.logaddexp(0, -x)))


def noise(predictions: Predictions, by_fold: Mapping[int, FoldReference]) -> Noise:
    """Estimate how many labels are wrong, by pixels that are confidently of the other class.

    Args:
        predictions: Out-of-fold predictions.
        by_fold: The result of `references`.
    """
    wrong, labelled = np.zeros(2), np.zeros(2)
    for row, fold in enumerate(predictions.table["fold"].tolist()):
        label = predictions.masks[row] != 0
        confident = by_fold[fold].contradicted(predictions.probability[row], label)
        for kind, chosen in enumerate((label, ~label)):
            wrong[kind] += confident[chosen].sum()
            labelled[kind] += (chosen & np.isfinite(predictions.probability[row])).sum()
    shares = wrong / np.maximum(labelled, 1)
    return Noise(float(shares[0]), float(shares[1]))


def audited_objects(predictions: Predictions, by_fold: Mapping[int, FoldReference]) -> pd.DataFrame:
    """Compare all labelled and predicted landslides, the most suspicious label first.

    Args:
        predictions: Out-of-fold predictions.
        by_fold: The result of `references`.

    Returns:
        One row per object, by falling score; equal scores in the order of the patches. Columns row (of the
        predictions), object (its number in `union_objects`), kind (one of `landslide.labels.candidates.KINDS`), score,
        objects (numbers of the labelled landslides in it, as text), pixels (of the polygon that is judged), probability
        and deviation (their means in these pixels), overlap (intersection over union), label_pixels,
        predicted_pixels, doubtful_label and doubtful_ground: labelled and other pixels that are confidently the
        opposite.
    """
    found = [
        audited
        for row, fold in enumerate(predictions.table["fold"].tolist())
        for audited in _audited(predictions, row, by_fold[fold])
    ]
    table = pd.DataFrame(found, columns=list(_OBJECT_COLUMNS)).astype(_OBJECT_COLUMNS)
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


_OBJECT_COLUMNS = {
    **{"row": int, "object": int, "kind": object, "score": float, "objects": object, "pixels": int},
    **{"probability": float, "deviation": float, "overlap": float, "label_pixels": int, "predicted_pixels": int},
    **{"doubtful_label": int, "doubtful_ground": int},
}


def predicted_mask(predictions: Predictions, row: int) -> npt.NDArray[np.bool_]:
    """Return where landslides are predicted in a patch, (128, 128)."""
    return np.asarray(predictions.probability[row] >= predictions.threshold[row])


def union_objects(predictions: Predictions, row: int) -> npt.NDArray[np.int32]:
    """Number the objects of a patch that are labelled or predicted, (128, 128), 0 elsewhere."""
    return label_objects((predictions.masks[row] != 0) | predicted_mask(predictions, row))


def _audited(predictions: Predictions, row: int, reference: FoldReference) -> Iterator[dict[str, Any]]:
    """Yield the objects of one patch; pixels without a prediction say nothing."""
    known = np.isfinite(predictions.probability[row])
    label, predicted = predictions.masks[row] != 0, predicted_mask(predictions, row)
    together, labelled = union_objects(predictions, row), label_objects(label)
    p = reference.calibrated(predictions.probability[row])
    sure = np.clip(1 - 2 * predictions.deviation[row].astype(np.float64), 0, 1)
    of_network = predictions.probability[row].astype(np.float64)
    surprise = -np.log(np.clip(np.where(label, of_network, 1 - of_network), _SMALLEST, 1)) * sure
    doubtful = reference.contradicted(predictions.probability[row], label)
    for number in range(1, int(together.max()) + 1):
        here = together == number
        judged = here & known
        if not judged.any():
            continue
        numbers = np.unique(labelled[here & label]).tolist()
        n_label, n_predicted = int((judged & label).sum()), int((judged & predicted).sum())
        shared = int((judged & label & predicted).sum())
        kind = (
            "missing"
            if not numbers
            else "no_landslide"
            if max(shared, n_predicted / 2) < _BARELY * n_label
            else "outline"
        )
        shown = here & (label if kind == "no_landslide" else predicted)
        yield {
            "row": row,
            "object": number,
            "kind": kind,
            "score": float(surprise[judged].sum() / judged.sum() ** _EXPONENT),
            "objects": ",".join(map(str, numbers)),
            "pixels": int(shown.sum()),
            "probability": float(p[shown & known].mean()),
            "deviation": float(predictions.deviation[row][shown & known].mean()),
            "overlap": shared / int(judged.sum()),
            "label_pixels": n_label,
            "predicted_pixels": n_predicted,
            "doubtful_label": int((doubtful & here & label).sum()),
            "doubtful_ground": int((doubtful & here & ~label).sum()),
        }
