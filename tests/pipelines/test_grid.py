"""The rows of an ablation: the settings of each, and errors that are found before training."""

import pytest

import pipelines.grid
from landslide.bands.formulas import BandSettings
from landslide.errors import ConfigurationError
from landslide.training.augmentation import AugmentationSettings
from landslide.training.fold import TrainingSettings
from landslide.training.optimizers import CosineSchedule, StepSchedule
from pipelines.grid import RowSettings
from steps.settings import EvaluationSettings, FoldSettings

pytestmark = pytest.mark.slow


def expand_rows(*rows, seeds=None, bands=None, evaluation=None, **training):
    common = TrainingSettings(**{"model": "unet", "bands": "14", "model_options": {"width": 4}, **training})
    return pipelines.grid.expand_rows(
        [RowSettings(**row) for row in rows],
        bands=BandSettings(**bands or {}),
        folds=FoldSettings(),
        training=common,
        evaluation=EvaluationSettings(**evaluation or {}),
        seeds=seeds,
    )


def test_row_overrides_only_the_settings_that_it_names():
    plain, changed = expand_rows(
        {"name": "plain"},
        {
            "name": "changed",
            "training": {"loss": "iou", "augmentation": {"flips": True}, "model_options": {"heads": 3}},
            "folds": {"trained": [2]},
            "bands": {"median_kernel": 5},
        },
        epochs=7,
    )
    (training,) = changed.trainings
    assert (training.loss, training.epochs, training.bands) == ("iou", 7, "14")
    assert training.augmentation.flips
    assert training.augmentation.plain_epochs == plain.trainings[0].augmentation.plain_epochs
    assert training.model_options == {"width": 4, "heads": 3}
    assert (changed.folds.trained, changed.bands.median_kernel) == ((2,), 5)
    assert (plain.folds.trained, plain.trainings[0].model_options) == (None, {"width": 4})


def test_row_overrides_or_replaces_the_common_schedule():
    cosine = CosineSchedule(peak=0.01, warmup_epochs=2)
    same, lower, steps = expand_rows(
        {"name": "same"},
        {"name": "lower", "training": {"schedule": {"peak": 0.001}}},
        {"name": "steps", "training": {"schedule": {"kind": "steps", "rates": [[7, 0.1]]}}},
        schedule=cosine,
    )
    assert same.trainings[0].schedule == cosine
    assert lower.trainings[0].schedule == CosineSchedule(peak=0.001, warmup_epochs=2)
    assert steps.trainings[0].schedule == StepSchedule(rates=((7, 0.1),))


def test_row_without_augmentation_drops_the_common_augmentation_settings():
    (found,) = expand_rows(
        {"name": "r", "training": {"augmentation": {"mode": "none"}}}, augmentation=AugmentationSettings(flips=True)
    )
    assert found.trainings[0].augmentation == AugmentationSettings(mode="none")


def test_common_seed_together_with_seeds_is_refused():
    with pytest.raises(ConfigurationError, match=r"training\.seed is 4 and has no effect: the grid has seeds"):
        expand_rows({"name": "r"}, seeds=[1, 2], seed=4)


def test_row_with_another_network_drops_the_common_model_options():
    (found,) = expand_rows({"name": "r", "training": {"model": "rau_net", "bands": "23"}}, model_options={"heads": 3})
    assert found.trainings[0].model_options == {}
    assert found.parameters == 24_876_294


def test_rgb_band_set_requires_the_global_bands():
    of_fourteen, of_nine = expand_rows(
        {"name": "14"}, {"name": "rgb", "bands": {"global_rgb": True}, "training": {"bands": "rgb"}}
    )
    assert of_fourteen.parameters - of_nine.parameters == 5 * 9 * 4  # 3 x 3 weights per band in the first layer
    with pytest.raises(ConfigurationError, match=r"\(rgb\).*red_global"):
        expand_rows({"name": "rgb", "training": {"bands": "rgb"}})


@pytest.mark.parametrize(
    ("evaluation", "training"),
    [
        ({"test_time_augmentation": "rotations"}, {}),
        ({}, {"prediction": {"augmentation": "flips_and_rotations"}}),
        ({}, {"augmentation": {"mode": "consistent"}}),
    ],
)
def test_rotations_without_both_gradients_are_refused_before_training(evaluation, training):
    both, one = {"name": "both"}, {"name": "one", "training": {"bands": ["B4", "gradient_x"], **training}}
    with pytest.raises(ConfigurationError, match=r"rows\[1\] \(one\): .*only gradient_x"):
        expand_rows(both, one, evaluation=evaluation)
    assert len(expand_rows(both, {**one, "training": {"bands": ["B4", "gradient_x"]}})) == 2


def test_changed_colours_of_terrain_are_refused_before_training():
    row = {"name": "terrain", "training": {"bands": ["slope", "dem"], "augmentation": {"haze": 0.1}}}
    with pytest.raises(ConfigurationError, match=r"rows\[1\] \(terrain\): .*none of the selected bands"):
        expand_rows({"name": "paper"}, row)


@pytest.mark.parametrize(
    ("training", "named"),
    [
        ({"model_options": {"attention": "multi_head"}, "crop": 64}, "got 64 x 64"),
        ({"model_options": {"heads": 3}, "head_weights": {"256": 0, "128": 0, "64": 0}}, "has a weight"),
        ({"model": "lite_unet", "model_options": {"encoder_weights": "ImageNet"}}, "encoder_weights is 'ImageNet'"),
        ({"epochs": True}, r"training\.epochs is true"),
        ({"model_options": {"normalization": "affine"}, "frozen_batch_norm_epochs": 2}, "has no batch normalisation"),
        ({"epochs": 5, "frozen_batch_norm_epochs": 5}, "would have no statistics"),
        ({"model": "smp:Unet:resnet18", "model_options": {"encoder_weights": "imagnet"}}, "no weights 'imagnet'"),
        ({"model": "smp:Unet:resnet18", "model_options": {"encoder_weights": "csmask"}}, "no weights 'csmask'"),
    ],
)
def test_errors_of_the_first_batch_are_found_before_training(training, named):
    with pytest.raises(ConfigurationError, match=rf"rows\[0\] \(a\): .*{named}"):
        expand_rows({"name": "a", "training": training})


def test_every_row_is_trained_with_every_seed():
    rows = expand_rows({"name": "a"}, {"name": "b", "training": {"loss": "iou"}}, seeds=[3, 5])
    assert [[training.seed for training in row.trainings] for row in rows] == [[3, 5], [3, 5]]
    assert [training.loss for training in rows[1].trainings] == ["iou", "iou"]


@pytest.mark.parametrize(
    ("last", "seeds", "expected"),
    [
        (
            {"name": "x", "training": {"epochz": 3}},
            None,
            [r"rows\[1\] \(x\)", "training.epochz", "Did you mean 'epochs'"],
        ),
        ({"name": "x", "training": {"augmentation": {"mod": 1}}}, None, ["training.augmentation.mod", "'mode'"]),
        ({"name": "x", "training": {"schedule": {"kind": "cosine", "peek": 1}}}, None, ["schedule.peek", "'peak'"]),
        (
            {"name": "x", "training": {"schedule": {"kind": "line"}}},
            None,
            ["training.schedule is", "'steps', 'cosine'"],
        ),
        ({"name": "x", "training": {"schedule": {"kind": "cosine", "rates": [[1, 1]]}}}, None, ["schedule.rates"]),
        ({"name": "x", "training": {"schedule": "cosine"}}, None, [r"\(x\)", "schedule is 'cosine'", "kind: cosine"]),
        ({"name": "x", "training": {"learning_rates": [[1, 1]]}}, None, ["training.learning_rates", "kind: steps"]),
        ({"name": "x", "training": {"epochs": "many"}}, None, [r"\(x\)", "training.epochs is 'many'"]),
        ({"name": "x", "training": {"epochs": 0}}, None, [r"\(x\)", "training.epochs is 0"]),
        ({"name": "x", "training": {"loss": "guess"}}, None, [r"\(x\)", "no loss 'guess'"]),
        ({"name": "x", "training": {"model_options": {"depth": 9}}}, None, [r"\(x\)", "depth"]),
        ({"name": "x", "training": {"bands": "99"}}, None, [r"\(x\)", "band group '99'"]),
        ({"name": "x", "folds": {"schema": "random"}}, None, ["folds.schema", "'scheme'"]),
        ({"name": "x", "folds": {"trained": [6]}}, None, [r"\(x\)", "from 1 to 5"]),
        ({"name": "x", "bands": {"blurr": "box"}}, None, ["bands.blurr", "'blur'"]),
        ({"name": "x", "bands": {"stored": ["B4"]}}, None, ["bands.stored", "common"]),
        ({"name": "x", "paper": {"f1": 70}}, None, [r"row 'x'", "paper.f1", "f1_macro"]),
        ({"name": "x", "paper": {"miou": 160}}, None, ["paper.miou is 160", "percent"]),
        ({"name": "First!"}, None, ["the name of another row, 'first'"]),
        ({"name": "?"}, None, ["letters or digits"]),
        ({"name": "x"}, [1, 1], [r"seeds is \[1, 1\]"]),
        ({"name": "x", "training": {"seed": 4}}, [1, 2], ["sets training.seed"]),
    ],
)
def test_errors_in_the_last_row_are_found_before_training(last, seeds, expected):
    with pytest.raises(ConfigurationError) as caught:
        expand_rows({"name": "first"}, last, seeds=seeds)
    for text in expected:
        assert caught.match(text)


def test_grid_without_rows_is_refused():
    with pytest.raises(ConfigurationError, match="no rows"):
        expand_rows()
