"""Figures: the overlay's colours per pixel, the picture's range, and rendering without warnings."""

import io
import itertools
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from landslide.evaluation.figures import (
    FALSE_ALARM,
    HIT,
    MISS,
    calibration_figure,
    differences_figure,
    learning_curves_figure,
    overlay,
    precision_recall_figure,
    prediction_figure,
    rgb_composite,
    roc_figure,
    thresholds_figure,
    uncertainty_figure,
)
from landslide.evaluation.scores import threshold_table
from landslide.metrics.calibration import calibration
from landslide.metrics.detection import roc_curve
from landslide.metrics.thresholds import threshold_counts


@pytest.fixture
def case():
    """Picture, mask and prediction of 16 x 16 pixels, in which all four outcomes occur."""
    rng = np.random.default_rng(0)
    picture, mask, prediction = rng.random((16, 16, 3)), rng.random((16, 16)) < 0.3, rng.random((16, 16)) < 0.3
    assert len(np.unique(2 * mask + prediction)) == 4
    return picture, mask, prediction


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
@pytest.mark.parametrize("strength", [0.0, 0.4, 0.75, 1.0])
def test_each_outcome_has_its_colour_at_its_pixels(case, dtype, strength):
    picture, mask, prediction = case
    before = picture.copy()
    result = overlay(picture, mask.astype(dtype), prediction.astype(dtype), strength)
    for row in range(16):
        for column in range(16):
            colour = {(1, 1): HIT, (1, 0): MISS, (0, 1): FALSE_ALARM}.get((mask[row, column], prediction[row, column]))
            expected = picture[row, column]
            if colour is not None:
                expected = (1 - strength) * expected + strength * np.array(to_rgb(colour))
            np.testing.assert_allclose(result[row, column], expected, atol=1e-12)
    np.testing.assert_array_equal(picture, before)
    assert ((result >= 0) & (result <= 1)).all()


def test_the_three_colours_differ():
    colours = np.array([to_rgb(colour) for colour in (HIT, MISS, FALSE_ALARM)])
    distances = [np.abs(colours[i] - colours[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 0.5


def test_the_picture_scales_red_green_and_blue_to_0_and_1():
    names = ("B1", "B2", "B3", "B4")
    bands = np.random.default_rng(0).normal(size=(4, 20, 20)).astype(np.float16)
    picture = rgb_composite(bands, names, (0, 100))
    assert picture.shape == (20, 20, 3)
    assert picture.dtype == np.float64
    assert (picture.min(), picture.max()) == (0.0, 1.0)
    for channel, band in enumerate((3, 2, 1)):
        values = bands[band].astype(np.float64)
        np.testing.assert_allclose(picture[..., channel], (values - values.min()) / np.ptp(values))
    stretched = rgb_composite(bands, names)
    assert (stretched.min(), stretched.max()) == (0.0, 1.0)
    assert (stretched == 1.0).sum() > 3, "the brightest hundredth is saturated"


def test_without_rgb_bands_the_first_band_is_gray():
    bands = np.random.default_rng(0).random((2, 8, 8))
    picture = rgb_composite(bands, ("slope", "B4"), (0, 100))
    expected = (bands[0] - bands[0].min()) / np.ptp(bands[0])
    for channel in range(3):
        np.testing.assert_allclose(picture[..., channel], expected)


def test_a_constant_patch_is_a_black_picture():
    picture = rgb_composite(np.full((3, 8, 8), 7.0), ("B2", "B3", "B4"))
    assert (picture == 0).all()


def draw_predictions(n: int) -> Figure:
    rng = np.random.default_rng(0)
    patches = [
        (f"patch {i}", rng.random((32, 32, 3)), rng.random((32, 32)) < 0.2, rng.random((32, 32))) for i in range(n)
    ]
    return prediction_figure(patches, threshold=0.7)


def by_threshold(probability: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    return threshold_table(threshold_counts(probability, masks)[1])


def draw_precision_recall(empty: bool = False) -> Figure:
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 32, 32), bool) if empty else rng.random((2, 32, 32)) < 0.2
    return precision_recall_figure(
        {"fold 1": by_threshold(rng.random((2, 32, 32)), masks), "fold 2": by_threshold(masks * 0.9, masks)}
    )


def draw_thresholds() -> Figure:
    rng = np.random.default_rng(0)
    masks = rng.random((2, 32, 32)) < 0.2
    return thresholds_figure(by_threshold(0.3 * rng.random((2, 32, 32)) + 0.5 * masks, masks), [0.4, 0.6])


def draw_calibration(empty: bool = False) -> Figure:
    rng = np.random.default_rng(0)
    probability = rng.random((2, 32, 32)) * (0.05 if empty else 1)
    return calibration_figure({"all": calibration(probability, rng.random((2, 32, 32)) < probability).table()})


def draw_roc(low: bool = False) -> Figure:
    rng = np.random.default_rng(0)
    truth = rng.random(50) < 0.5
    scores = rng.random(50) * 0.6 + 0.4 * truth
    return roc_figure({"all": roc_curve(scores * (0.4 if low else 1), truth)})


def draw_uncertainty(masks: bool) -> Figure:
    rng = np.random.default_rng(0)
    maps = rng.random((2, 3, 32, 32))
    return uncertainty_figure(
        [
            (f"patch {i}", rng.random((32, 32, 3)), maps[i, 0] < 0.2 if masks and i == 0 else None, *maps[i, 1:])
            for i in range(2)
        ]
    )


def draw_learning_curves(epochs: int, loss: float = 1.0) -> Figure:
    record = {"train_loss": loss, "validation_loss": loss, "validation_f1_macro": 0.5, "validation_f1_landslide": 0.1}
    history = [record | {"epoch": e + 1, "train_augmented": float(e < 3)} for e in range(epochs)]
    return learning_curves_figure({f"fold {k}": history for k in (1, 2)})


def draw_differences(*names: str) -> Figure:
    rng = np.random.default_rng(0)
    return differences_figure(pd.DataFrame({name: rng.normal(0, 0.001, 2000) for name in names}), margin=0.005)


FIGURES = {
    "one prediction": lambda: draw_predictions(1),
    "three predictions": lambda: draw_predictions(3),
    "precision and recall": draw_precision_recall,
    "precision and recall without landslides": lambda: draw_precision_recall(empty=True),
    "scores by threshold": draw_thresholds,
    "calibration": draw_calibration,
    "calibration with empty bins": lambda: draw_calibration(empty=True),
    "ROC": draw_roc,
    "ROC below 0.5": lambda: draw_roc(low=True),
    "uncertainty": lambda: draw_uncertainty(masks=True),
    "uncertainty without masks": lambda: draw_uncertainty(masks=False),
    "learning curves": lambda: draw_learning_curves(5),
    "learning curves of one epoch": lambda: draw_learning_curves(1),
    "learning curves of a tiny loss": lambda: draw_learning_curves(5, loss=1.2345e-5),
    "learning curves of a large loss": lambda: draw_learning_curves(5, loss=123_456.7),
    "differences": lambda: draw_differences("f1_landslide", "f1_macro"),
    "differences of one score": lambda: draw_differences("f1_landslide"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_render_without_warnings(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        buffer = io.BytesIO()
        FIGURES[name]().savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert len(buffer.getvalue()) > 5_000


@pytest.mark.parametrize("name", FIGURES)
def test_labels_are_inside_the_figure_and_panels_do_not_overlap(name):
    figure = FIGURES[name]()
    FigureCanvasAgg(figure).draw()
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    for one, other in itertools.combinations(boxes, 2):
        overlap = Bbox.intersection(one, other)
        assert overlap is None or min(overlap.width, overlap.height) < 1, (one, other)  # pixels


def test_learning_curves_shade_the_epochs_without_augmentation_and_tick_whole_epochs():
    for axis in draw_learning_curves(5).axes:
        assert [(patch.get_x(), patch.get_width()) for patch in axis.patches] == [(3.5, 1), (4.5, 1)]
        assert all(tick == round(tick) for tick in axis.get_xticks())
    history = [{"epoch": 1, "train_loss": 1.0, "train_augmented": 0.0}]  # never augmented: nothing to explain
    assert not any(axis.patches for axis in learning_curves_figure({"fold 1": history}).axes)


def test_the_prediction_figure_shows_its_inputs():
    figure = draw_predictions(2)
    axes = np.array(figure.axes).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ["image", "mask", "probability", "prediction"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["patch 0", "patch 1"]
    picture, mask, probability, colours = (np.asarray(axis.images[0].get_array()) for axis in axes[1])
    np.testing.assert_allclose(colours, overlay(picture, mask, probability >= 0.7))
    assert axes[0, 2].images[0].get_clim() == (0, 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hit", "miss", "false alarm"]


def test_precision_recall_curves_show_their_values():
    axis = draw_precision_recall().axes[0]
    lines = {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"fold 1", "fold 2"}
    rng = np.random.default_rng(0)
    masks = rng.random((2, 32, 32)) < 0.2
    table = by_threshold(rng.random((2, 32, 32)), masks)
    np.testing.assert_array_equal(lines["fold 1"].get_xdata(), table["recall"])
    np.testing.assert_array_equal(lines["fold 1"].get_ydata(), table["precision"])


def test_the_calibration_shows_filled_bins_over_their_mean_probability():
    axis = draw_calibration(empty=True).axes[0]
    line = next(line for line in axis.lines if line.get_label() == "all")
    assert len(line.get_xdata()) == 1
    assert 0 < line.get_xdata()[0] < 0.05


def test_the_calibration_shows_the_pixels_of_every_bin():
    values, edges, _ = draw_calibration().axes[1].patches[0].get_data()
    assert np.sum(values) == 2 * 32 * 32
    np.testing.assert_allclose(edges, np.arange(11) / 10)


def test_the_sweep_marks_the_chosen_thresholds():
    axis = draw_thresholds().axes[0]
    marked = [line.get_xdata()[0] for line in axis.lines if len(set(line.get_xdata())) == 1]
    assert marked == [0.4, 0.6, 0.5]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["F1 (macro)", "mIoU", "F1 (landslide)", "chosen on validation", "0.5"]


def test_the_roc_curve_is_dotted_at_one_half():
    axis = draw_roc().axes[0]
    curve, dot = axis.lines[1:]
    truth = np.random.default_rng(0).random(50) < 0.5
    assert curve.get_label() == "all"
    scores = np.random.default_rng(0)
    scores.random(50)
    answer = scores.random(50) * 0.6 + 0.4 * truth >= 0.5
    assert dot.get_xdata()[0] == pytest.approx((answer & ~truth).sum() / (~truth).sum())
    assert dot.get_ydata()[0] == pytest.approx((answer & truth).sum() / truth.sum())


@pytest.mark.parametrize("masks", [True, False])
def test_the_uncertainty_figure_shows_masks_if_given(masks):
    figure = draw_uncertainty(masks)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    expected = ["image", "mask", "probability", "uncertainty"]
    assert titles == (expected if masks else ["image", "probability", "uncertainty"])
    shown = [axis for axis in figure.axes if axis.images and axis.get_title() in ("probability", "uncertainty")]
    assert [axis.images[0].get_clim() for axis in shown] == [(0, 1), (0, 0.5)]
