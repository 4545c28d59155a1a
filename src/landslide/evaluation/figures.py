"""Figures: overlays of prediction and mask, uncertainty, curves by threshold and by epoch, calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

# Colours that colour-blind readers can tell apart, and that show on vegetation.
HIT, MISS, FALSE_ALARM = "#00c8ff", "#ff2fa0", "#ffd400"


def rgb_composite(
    bands: npt.NDArray[Any], names: Sequence[str], percentiles: tuple[float, float] = (1.0, 99.0)
) -> npt.NDArray[np.float64]:
    """Return a true-colour picture of a patch, each channel stretched between its percentiles.

    Args:
        bands: (N, H, W) bands of one patch.
        names: Their names; without B4, B3, B2 the first band is shown in gray.
        percentiles: Lower and upper percentile of the stretch.

    Returns:
        (H, W, 3) float64 in [0, 1].
    """
    wanted = ("B4", "B3", "B2") if {"B4", "B3", "B2"} <= set(names) else (names[0],) * 3
    channels = np.stack([bands[list(names).index(n)] for n in wanted], axis=-1).astype(np.float64)
    low, high = np.percentile(channels, percentiles, axis=(0, 1))
    stretched = (channels - low) / np.maximum(high - low, 1e-9)
    return np.asarray(np.clip(stretched, 0.0, 1.0), np.float64)


def overlay(
    picture: npt.NDArray[np.float64], mask: npt.NDArray[Any], prediction: npt.NDArray[Any], strength: float = 0.75
) -> npt.NDArray[np.float64]:
    """Colour hits, misses and false alarms on a picture.

    Args:
        picture: (H, W, 3) in [0, 1].
        mask: (H, W) true landslides.
        prediction: (H, W) predicted landslides.
        strength: Opacity of the colours.

    Returns:
        (H, W, 3) in [0, 1].
    """
    true, predicted = np.asarray(mask) != 0, np.asarray(prediction) != 0
    result = picture.copy()
    for colour, where in ((HIT, true & predicted), (MISS, true & ~predicted), (FALSE_ALARM, ~true & predicted)):
        result[where] = (1 - strength) * result[where] + strength * np.array(to_rgb(colour))
    return result


def prediction_figure(
    patches: Sequence[tuple[str, npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[Any]]], threshold: float = 0.5
) -> Figure:
    """Draw image, mask, probability and overlay of some patches, a row each.

    Args:
        patches: Title, picture (H, W, 3), mask (H, W) and landslide probability (H, W) of each patch.
        threshold: Probability from which a pixel is called landslide in the overlay.
    """
    columns = ("image", "mask", "probability", "prediction")
    figure = Figure(figsize=(2.6 * len(columns), 2.6 * len(patches) + 0.7), layout="constrained")
    axes = figure.subplots(len(patches), len(columns), squeeze=False)
    for row, (title, picture, mask, probability) in enumerate(patches):
        shown = (picture, mask, probability, overlay(picture, mask, probability >= threshold))
        for column, (name, content) in enumerate(zip(columns, shown, strict=True)):
            axis = axes[row, column]
            _show(axis, content, name, with_title=row == 0)
        axes[row, 0].set_ylabel(title, fontsize=9)
    handles = [Patch(color=c, label=n) for c, n in ((HIT, "hit"), (MISS, "miss"), (FALSE_ALARM, "false alarm"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def uncertainty_figure(
    patches: Sequence[tuple[str, npt.NDArray[np.float64], npt.NDArray[Any] | None, npt.NDArray[Any], npt.NDArray[Any]]],
) -> Figure:
    """Draw image, mask, mean probability and its standard deviation over the members of an ensemble, one row per patch.

    Args:
        patches: Title, picture (H, W, 3), mask (H, W) or None, mean and standard deviation (H, W) of each patch, as
            `landslide.inference.ensemble.Ensemble.predict` gives them. The column of the masks is left out if no
            patch has one. Standard deviations share a scale up to 0.5, the most that probabilities can have.
    """
    with_masks = any(mask is not None for _, _, mask, _, _ in patches)
    columns = ("image", "mask", "probability", "uncertainty") if with_masks else ("image", "probability", "uncertainty")
    figure = Figure(figsize=(2.6 * len(columns) + 0.8, 2.6 * len(patches) + 0.3), layout="constrained")
    axes = figure.subplots(len(patches), len(columns), squeeze=False)
    for row, (title, picture, mask, mean, deviation) in enumerate(patches):
        shown = {"image": picture, "mask": mask, "probability": mean, "uncertainty": deviation}
        for column, name in enumerate(columns):
            if shown[name] is None:
                axes[row, column].set_axis_off()
                continue
            image = _show(axes[row, column], shown[name], name, with_title=row == 0)
            if name == "uncertainty":
                figure.colorbar(image, ax=axes[row, column], shrink=0.85)
        axes[row, 0].set_ylabel(title, fontsize=9)
    return figure


def _curves(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """Return a figure of this size in inches, with margins for labels and titles, and its axes.

    Matplotlib's constrained layout draws everything twice, which takes longer than all else about a figure.
    """
    figure = Figure(figsize=(width, height))
    margins = {"left": 0.65 / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": 1 - 0.35 / height}
    return figure, figure.subplots(gridspec_kw={**margins, "wspace": 0.25, "hspace": 0.08}, **subplots)


def _show(axis: Any, content: Any, name: str, *, with_title: bool) -> Any:
    """Show a picture (H, W, 3), or a map (H, W) in the colours of its kind."""
    maps = {"mask": ("gray", 1.0), "probability": ("magma", 1.0), "uncertainty": ("viridis", 0.5)}
    colours = dict(zip(("cmap", "vmax"), maps[name], strict=True)) | {"vmin": 0} if content.ndim == 2 else {}
    axis.set_xticks([])
    axis.set_yticks([])
    if with_title:
        axis.set_title(name, fontsize=10)
    return axis.imshow(content, interpolation="nearest", **colours)


def precision_recall_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw precision over recall of the landslide class.

    Args:
        curves: Tables of `landslide.evaluation.scores.threshold_table` by label.
    """
    figure, axis = _curves(5.2, 4.6)
    for label, curve in curves.items():
        axis.plot(curve["recall"], curve["precision"], label=label, linewidth=1.5)
        usual = curve.iloc[(curve["threshold"] - 0.5).abs().argmin()]
        axis.plot(usual["recall"], usual["precision"], "o", color=axis.lines[-1].get_color(), markersize=5)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    axis.set_title("Landslide class by threshold (dots: 0.5)", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def thresholds_figure(table: pd.DataFrame, tuned: Sequence[float] = ()) -> Figure:
    """Draw the scores over the threshold.

    Args:
        table: What `landslide.evaluation.scores.threshold_table` returned.
        tuned: Thresholds that were chosen on selection parts, to mark.
    """
    figure, axis = _curves(5.6, 4.2)
    names = {"f1_macro": "F1 (macro)", "miou": "mIoU", "f1_landslide": "F1 (landslide)"}
    for name, label in names.items():
        axis.plot(table["threshold"], table[name], label=label, linewidth=1.5)
    for i, threshold in enumerate(tuned):
        axis.axvline(threshold, color="gray", linewidth=0.8, linestyle=":", label=None if i else "chosen on validation")
    axis.axvline(0.5, color="black", linewidth=0.8, label="0.5")
    axis.set(xlabel="threshold", ylabel="score", xlim=(0, 1), ylim=(0, 1.01))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def calibration_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the observed frequency of landslides over the predicted probability, and the pixels of each bin.

    Args:
        tables: Tables of `landslide.metrics.calibration.Calibration.table` by label.
    """
    figure, (above, below) = _curves(5.2, 5.8, nrows=2, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--", label="as often as predicted")
    for label, table in tables.items():
        filled = table[table["pixels"] > 0]
        above.plot(filled["mean_probability"], filled["observed_frequency"], "o-", label=label, markersize=4)
        edges = np.append(table["low"], table["high"].iloc[-1])
        below.stairs(table["pixels"].clip(lower=0.5), edges, baseline=0.5, linewidth=1.2)
    above.set(ylabel="observed frequency", xlim=(0, 1), ylim=(0, 1))
    above.grid(alpha=0.3)
    above.legend(fontsize=8)
    below.set(xlabel="predicted landslide probability", ylabel="pixels", yscale="log")
    below.grid(alpha=0.3)
    return figure


def roc_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw how many patches with and without a landslide are called positive.

    Args:
        curves: Tables of `landslide.metrics.detection.roc_curve` by label.
    """
    figure, axis = _curves(4.8, 4.6)
    axis.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--", label="by chance")
    for label, curve in curves.items():
        axis.plot(curve["false_positive_rate"], curve["true_positive_rate"], label=label, linewidth=1.5)
        usual = curve[curve["threshold"] >= 0.5].iloc[-1]
        x, y = usual["false_positive_rate"], usual["true_positive_rate"]
        axis.plot(x, y, "o", color=axis.lines[-1].get_color(), markersize=5)
    axis.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.01))
    axis.set_title("Patches with a landslide by threshold (dots: 0.5)", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def learning_curves_figure(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw training loss, validation loss and validation F1 over the epochs.

    Epochs without augmentation are shaded: patches are easier there, so that the training loss jumps.

    Args:
        histories: The epochs' records of `landslide.training.fold` by label.
    """
    panels = (("train_loss", "training loss"), ("validation_loss", "validation loss"),
              ("validation_f1_macro", "validation F1 (macro)"),
              ("validation_f1_landslide", "validation F1 (landslide)"))  # fmt: skip
    figure, axes = _curves(13.2, 3.8, ncols=len(panels))
    plain = {r["epoch"] for history in histories.values() for r in history if r.get("train_augmented") == 0}
    augmented = {r["epoch"] for history in histories.values() for r in history if r.get("train_augmented") == 1}
    for axis, (key, title) in zip(axes, panels, strict=True):
        for label, history in histories.items():
            shown = [r for r in history if key in r]
            axis.plot([r["epoch"] for r in shown], [r[key] for r in shown], label=label, linewidth=1.5)
        if augmented:
            for number, epoch in enumerate(sorted(plain - augmented)):
                shading = None if number else "not augmented"
                axis.axvspan(epoch - 0.5, epoch + 0.5, color="black", alpha=0.08, linewidth=0, label=shading)
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure


def differences_figure(differences: pd.DataFrame, margin: float) -> Figure:
    """Draw how the bootstrap differences between challenger and champion are distributed.

    Args:
        differences: What `landslide.retraining.promotion.bootstrap` returned.
        margin: By how much the challenger has to be better.
    """
    n_panels = len(differences.columns)
    figure, axes = _curves(4.4 * n_panels, 3.4, ncols=n_panels, squeeze=False)
    for axis, name in zip(axes.flat, differences.columns, strict=True):
        axis.hist(100 * differences[name], bins=60, color="#4477aa")
        axis.axvline(100 * margin, color="#cc3311", linewidth=1.5, label=f"margin {100 * margin:g} points")
        axis.axvline(0.0, color="black", linewidth=0.8)
        axis.set(xlabel=f"{name}: challenger minus champion, points", ylabel="resamples")
        axis.legend(fontsize=8)
    return figure
