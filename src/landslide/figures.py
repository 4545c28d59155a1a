"""Figures: overlays of prediction and mask, precision-recall curves, learning curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Colours that stay apart for colour-blind readers and on vegetation.
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
            colours = {} if content.ndim == 3 else {"cmap": "gray" if name == "mask" else "magma", "vmin": 0, "vmax": 1}
            axis.imshow(content, interpolation="nearest", **colours)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(name, fontsize=10)
        axes[row, 0].set_ylabel(title, fontsize=9)
    handles = [Patch(color=c, label=n) for c, n in ((HIT, "hit"), (MISS, "miss"), (FALSE_ALARM, "false alarm"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def precision_recall_figure(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw precision over recall of the landslide class.

    Args:
        curves: Tables of `landslide.evaluation.precision_recall` by label.
    """
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axis = figure.subplots()
    for label, curve in curves.items():
        axis.plot(curve["recall"], curve["precision"], label=label, linewidth=1.5)
        usual = curve.iloc[(curve["threshold"] - 0.5).abs().argmin()]
        axis.plot(usual["recall"], usual["precision"], "o", color=axis.lines[-1].get_color(), markersize=5)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    axis.set_title("Landslide class by threshold (dots: 0.5)", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def learning_curves_figure(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Draw training loss and validation F1 over the epochs.

    Args:
        histories: The epochs' records of `landslide.training` by label.
    """
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = (("train_loss", "training loss"), ("validation_f1_macro", "validation F1 (macro)"),
              ("validation_f1_landslide", "validation F1 (landslide)"))  # fmt: skip
    for axis, (key, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for label, history in histories.items():
            axis.plot([r["epoch"] for r in history], [r[key] for r in history], label=label, linewidth=1.5)
        axis.set(xlabel="epoch", title=title)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure


def differences_figure(differences: pd.DataFrame, margin: float) -> Figure:
    """Draw how the bootstrap differences between challenger and champion are distributed.

    Args:
        differences: What `landslide.comparison.bootstrap` returned.
        margin: By how much the challenger has to be better.
    """
    figure = Figure(figsize=(4.4 * len(differences.columns), 3.4), layout="constrained")
    axes = figure.subplots(1, len(differences.columns), squeeze=False)[0]
    for axis, name in zip(axes, differences.columns, strict=True):
        axis.hist(differences[name], bins=60, color="#4477aa")
        axis.axvline(margin, color="#cc3311", linewidth=1.5, label=f"margin {margin:g}")
        axis.axvline(0.0, color="black", linewidth=0.8)
        axis.set(xlabel=f"{name}: challenger minus champion", ylabel="resamples")
        axis.legend(fontsize=8)
    return figure
