"""Training of one fold: bit-exact resuming, no leaks between parts, selection, and explained errors."""

import json
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from landslide.bands.batches import prefetch
from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache, cache_family, cache_key
from landslide.bands.formulas import BandSettings
from landslide.data import demo
from landslide.data.table import patch_table
from landslide.errors import ConfigurationError, TrainingError
from landslide.folds.parts import FoldRows
from landslide.inference.prediction import PredictionSettings
from landslide.metrics.counts import METRIC_NAMES, confusion_counts, scores
from landslide.metrics.detection import select_detection_threshold
from landslide.metrics.thresholds import select_threshold, threshold_counts
from landslide.models import ModelSpec, build_model
from landslide.training import epochs, fold
from landslide.training.augmentation import Augmentation, AugmentationSettings
from landslide.training.epochs import EPOCH_METRICS, FoldTrainer, _batches
from landslide.training.fold import FoldResult, FoldTask, TrainingSettings, train_fold
from landslide.training.losses import create_loss, multi_head_loss
from landslide.training.optimizers import CosineSchedule, StepSchedule
from landslide.training.settings import SelectionSchedule
from tests.support.fold_training import (
    BANDS,
    OTHERS,
    SELECTION,
    TINY,
    TRAINING,
    append_epoch,
    train_four_epochs,
    train_until_killed,
)  # fmt: skip
from tests.support.predictions import predict_rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


AFFINE = {**TINY.model_options, "normalization": "affine", "initialization": "keras", "dropout": 0.0}


@pytest.fixture(scope="session")
def demo_caches(tmp_path_factory) -> Path:
    """The folder of the band cache of ten generated patches."""
    root = tmp_path_factory.mktemp("training")
    demo.generate(root / "data", scenes=((2, 3), (2, 2)))
    ensure_cache(root / "caches", root / "data", patch_table(root / "data"), "demo", BandSettings())
    return root / "caches"


@pytest.fixture(scope="session")
def cache(demo_caches) -> BandCache:
    opened = ensure_cache(demo_caches, demo_caches / "nowhere", None, "demo", BandSettings())
    positive = opened.masks.any(axis=(1, 2))
    assert positive[TRAINING].sum() >= 2, "donors are needed"
    assert positive[SELECTION].any(), "selection needs landslides"
    assert positive[OTHERS].any(), "the leak test needs donors that must not be drawn"
    return opened


@pytest.fixture
def fit(cache, tmp_path):
    """Train the tiny network with some settings changed."""

    def fit(folder: str = "fold", *, on=cache, rows=TRAINING, selection=SELECTION, on_epoch=None, **changes):
        settings = replace(TINY, **changes)
        task = FoldTask(on, FoldRows(rows, selection), BANDS, settings, tmp_path / folder)
        return train_fold(task, on_epoch=on_epoch)

    return fit


def with_rows(cache: BandCache, **rows) -> BandCache:
    """A copy of the cache in memory."""
    return replace(cache, bands=np.array(cache.bands), masks=np.array(cache.masks), **rows)


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted(folder.glob("epoch-*.safetensors"))[-1])


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in record.items() if not name.endswith("seconds")} for record in history]


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []


# ---- a fold from start to end


def test_a_trained_fold_is_complete_and_every_epoch_is_reported(fit, cache):
    records = []
    result = fit(on_epoch=records.append, epochs=3)
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert result.history == records
    expected = {"epoch", "train_loss", "learning_rate", "epoch_seconds", "epoch_processor_seconds", "validation_loss"}
    expected |= {"train_augmented"}
    expected |= {f"validation_{m}" for m in METRIC_NAMES}
    described = {name.replace("<score>", metric) for name in EPOCH_METRICS for metric in METRIC_NAMES}
    half = {name for name in described if "_half_epoch_" in name}
    assert expected - {"epoch"} == {name for name in described - half if not name.startswith("test_")}
    for record in records:
        assert set(record) == expected
        assert np.isfinite(list(record.values())).all()
    assert result.spec.bands == BANDS
    best = max(records, key=lambda record: record["validation_f1_macro"])
    assert result.epoch == best["epoch"]
    model = build_model(result.spec, load_file(result.weights))
    probability = predict_rows(model, cache, SELECTION, BANDS, device=torch.device("cpu"))
    # Validation inside the loop and the later prediction use the same network on the same pixels.
    again = scores(confusion_counts(probability > 0.5, cache.masks[SELECTION]))
    assert again["f1_macro"] == pytest.approx(best["validation_f1_macro"], abs=1e-4)
    assert result.threshold == select_threshold(*threshold_counts(probability, cache.masks[SELECTION]), "f1_macro")
    truth = cache.masks[SELECTION].any(axis=(1, 2))
    assert result.detection_threshold == select_detection_threshold(probability.max(axis=(1, 2)), truth)


def test_the_log_has_the_scores_of_every_epoch_in_percent(fit, capsys):
    records = []
    fit(on_epoch=records.append)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert len(lines) == len(records) == TINY.epochs
    for line, record in zip(lines, records, strict=True):
        assert f"F1 {100 * record['validation_f1_macro']:.2f} %" in line
        assert f"mIoU {100 * record['validation_miou']:.2f} %" in line


def test_training_learns(fit):
    losses = [r["train_loss"] for r in fit(epochs=6, schedule=StepSchedule(rates=((99, 3e-3),))).history]
    assert losses[-1] < 0.8 * losses[0]


def test_the_network_is_in_training_mode_at_the_start_of_every_epoch(fit, monkeypatch):
    modes = []
    original = FoldTrainer._training_batch

    def spy(self, *arguments):
        modes.append(self.model.training)
        return original(self, *arguments)

    monkeypatch.setattr(FoldTrainer, "_training_batch", spy)
    fit()
    assert modes == [True] * 4  # two epochs of two batches


def test_every_training_patch_is_seen_once_per_epoch(fit, monkeypatch):
    seen = []
    original = FoldTrainer._training_batch
    monkeypatch.setattr(
        FoldTrainer,
        "_training_batch",
        lambda self, indices, *rest: seen.append(indices.tolist()) or original(self, indices, *rest),
    )
    fit()
    first, second = ([index for batch in part for index in batch] for part in (seen[:2], seen[2:]))
    assert sorted(first) == sorted(second) == list(range(len(TRAINING)))
    assert first != second


def test_equal_seeds_give_equal_weights_and_other_seeds_different_ones(fit, tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(folder, seed=seed)
    assert_equal(last_weights(tmp_path / "a"), last_weights(tmp_path / "b"))
    a, c = last_weights(tmp_path / "a"), last_weights(tmp_path / "c")
    assert not torch.equal(a["stem.0.weight"], c["stem.0.weight"])


def test_a_part_without_landslides_trains_without_donors(fit, cache):
    empty = with_rows(cache)
    empty.masks[TRAINING] = 0
    assert np.isfinite(fit(on=empty, epochs=1).history[0]["train_loss"])


def test_augmentation_uses_the_band_settings_of_the_cache(fit, cache, monkeypatch):
    given, settings = [], BandSettings(blur_kernel=31)
    monkeypatch.setattr(epochs, "Augmentation", lambda *arguments: given.append(arguments) or Augmentation(*arguments))
    fit(on=with_rows(cache, settings=settings), epochs=1)
    assert given == [(TINY.augmentation, BANDS, settings)]


@pytest.mark.parametrize("changes", [{"model": "unet", "model_options": {"width": 4}}, {"crop": None, "epochs": 1}])
def test_training_with_one_head_or_whole_patches(fit, changes):
    assert np.isfinite([r["train_loss"] for r in fit(**changes).history]).all()


# ---- resuming


@pytest.mark.parametrize("averaged", [False, True])
def test_a_killed_training_resumes_bit_for_bit(cache, tmp_path, averaged):
    whole = train_four_epochs(cache, tmp_path / "whole", averaged=averaged)
    resumed_in = tmp_path / "killed"
    # Two batches per epoch: the sixth is the second of the third epoch.
    process = torch.multiprocessing.get_context("fork").Process(
        target=train_until_killed, args=(cache.directory, resumed_in, 6, averaged)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name for path in resumed_in.glob("*.json")) == ["epoch-0001.json", "epoch-0002.json"]
    records = []
    resumed = train_four_epochs(cache, resumed_in, records.append, averaged)
    assert_equal(last_weights(resumed_in), last_weights(tmp_path / "whole"))
    states = [torch.load(tmp_path / name / "epoch-0004.optimizer.pt") for name in ("whole", "killed")]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert without_times(resumed.history) == without_times(whole.history)
    assert resumed.history == records, "epochs before the kill are reported again"
    assert (resumed.epoch, resumed.threshold) == (whole.epoch, whole.threshold)
    assert_equal(load_file(resumed.weights), load_file(whole.weights))


def test_a_finished_fold_is_not_trained_again(fit, monkeypatch):
    first = fit()
    monkeypatch.setattr(FoldTrainer, "epoch", lambda *_: pytest.fail("trained again"))
    records = []
    again = fit(on_epoch=records.append)
    assert (again.history, again.epoch, again.threshold) == (first.history, first.epoch, first.threshold)
    assert records == first.history


@pytest.mark.parametrize("changes", [{"seed": 1}, {"rows": TRAINING[:4]}, {"selection": SELECTION[:1]}])
def test_a_checkpoint_of_other_settings_or_rows_is_not_resumed(fit, changes):
    fit(epochs=1)
    records = []
    fit(epochs=2, on_epoch=records.append, **changes)
    assert [record["epoch"] for record in records] == [1, 2]


def test_a_shorter_run_ignores_the_checkpoints_of_a_longer_one(fit, tmp_path):
    fit(epochs=3)
    fit("fresh", epochs=1, seed=1)
    result = fit(epochs=1, seed=1)
    assert result.epoch == 1
    assert_equal(load_file(result.weights), last_weights(tmp_path / "fresh"))


# ---- no leaks


def test_rows_of_other_parts_do_not_change_the_training(fit, cache, tmp_path):
    fit("clean", standardize=True)
    poisoned = with_rows(cache)
    poisoned.bands[OTHERS] = np.nan
    poisoned.bands[SELECTION] = 1000.0
    poisoned.masks[OTHERS] = poisoned.masks[SELECTION] = 1
    result = fit("poisoned", on=poisoned, standardize=True)
    assert np.isfinite([record["train_loss"] for record in result.history]).all()
    assert_equal(last_weights(tmp_path / "clean"), last_weights(tmp_path / "poisoned"))


def test_donors_are_positive_training_patches(fit, cache, monkeypatch):
    trainers = []
    original = FoldTrainer.epoch
    monkeypatch.setattr(
        FoldTrainer, "epoch", lambda self, *rest, **more: trainers.append(self) or original(self, *rest, **more)
    )
    negative = with_rows(cache)
    negative.masks[TRAINING[1]] = 0
    fit(on=negative, epochs=1)
    donors = TRAINING[trainers[0].donor_pool.numpy()]
    assert donors.tolist() == [row for row in TRAINING if negative.masks[row].any()]
    assert TRAINING[1] not in donors


def test_statistics_come_from_the_training_rows(fit, cache):
    spec = fit(standardize=True, epochs=1).spec
    values = cache.bands[TRAINING][:, cache.columns(BANDS)].astype(np.float64)
    np.testing.assert_allclose(spec.mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(spec.std, values.std(axis=(0, 2, 3)), rtol=1e-9)
    assert fit("as stored", epochs=1).spec.mean is None


def test_a_constant_band_is_standardized_to_zero(fit, cache):
    constant = with_rows(cache)
    constant.bands[:, cache.columns(("slope",))] = 3.0
    result = fit(on=constant, standardize=True, epochs=1)
    assert (result.spec.mean[-1], result.spec.std[-1]) == (3.0, 1.0)
    assert np.isfinite(result.history[0]["train_loss"])


# ---- errors


def test_a_loss_that_is_not_finite_is_a_training_error(fit):
    with pytest.raises(TrainingError, match=r"loss of epoch \d is (nan|inf)") as error:
        fit(epochs=3, schedule=StepSchedule(rates=((99, 1e30),)))
    assert "learning rate" in error.value.remedy


def test_a_patch_that_is_not_finite_is_a_training_error(fit, cache):
    poisoned = with_rows(cache)
    poisoned.bands[TRAINING[2], :, 64, 64] = np.nan
    with pytest.raises(TrainingError, match="loss of epoch 1 is nan"):
        fit(on=poisoned, crop=None, epochs=1)


@pytest.mark.parametrize("part", ["rows", "selection"])
def test_an_empty_part_is_a_training_error(fit, part):
    with pytest.raises(TrainingError, match="is empty"):
        fit(**{part: np.array([], np.int64)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("crop", 0),
        ("crop", 40),
        ("crop", 144),
        ("crop", -16),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("select_by", "f1"),
        ("max_patches", 0),
        ("positive_share", 0.0),
        ("positive_share", 1.1),
        ("average_decay", 1.0),
        ("frozen_batch_norm_epochs", -1),
        ("selection_epochs", 0),
        ("weight_decay", -0.1),
        ("optimizer_epsilon", -1e-7),
        ("devices", 0),
    ],
)
def test_a_setting_out_of_range_is_a_configuration_error(name, value):
    with pytest.raises(ConfigurationError, match=rf"training\.{name} is ") as error:
        replace(TINY, **{name: value})
    assert error.value.remedy.startswith("Set it to ")


@pytest.mark.parametrize("changes", [{"rotation_probability": 1.1}, {"max_pastes": -1}, {"plain_epochs": -1}])
def test_an_augmentation_setting_out_of_range_is_a_configuration_error(changes):
    with pytest.raises(ConfigurationError, match="out of range"):
        AugmentationSettings(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_gpu_is_a_configuration_error(fit):
    with pytest.raises(ConfigurationError, match="finds no CUDA device") as error:
        fit(device="cuda")
    assert "training.device: auto" in error.value.remedy


def test_an_unknown_loss_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="hinge"):
        replace(TINY, loss="hinge")


def test_a_warm_up_as_long_as_the_training_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match=r"training\.schedule\.warmup_epochs is 2, and training\.epochs 2"):
        replace(TINY, schedule=CosineSchedule(warmup_epochs=2), epochs=2)


# ---- settings and selection


def test_the_default_schedule_is_the_published_one():
    published = {8: 1e-4, 15: 5e-5, 20: 2e-5, 25: 1e-5, 30: 5e-6, 35: 2e-6, 42: 1e-6, 50: 5e-7, 65: 1e-7}
    settings = TrainingSettings()
    for epoch in range(70):
        expected = next((rate for end, rate in published.items() if epoch < end), 1e-7)
        assert settings.rate(epoch) == settings.rate(epoch + 0.99) == expected, epoch


def test_the_other_defaults_are_the_published_ones():
    settings = TrainingSettings()
    assert (settings.epochs, settings.batch_size, settings.loss) == (65, 12, "focal_lin+iou")
    assert (settings.optimizer, settings.optimizer_epsilon, settings.weight_decay) == ("adam", 1e-7, 0.0)
    assert settings.head_weights == {"256": 0.25, "128": 0.5, "64": 0.25}
    augmentation = settings.augmentation
    assert (augmentation.rotation_probability, augmentation.max_pastes, augmentation.plain_epochs) == (0.7, 2, 4)
    assert not settings.standardize
    assert settings.selection == "inner_validation"


def test_each_epoch_has_its_learning_rate(fit):
    history = fit(epochs=3, schedule=StepSchedule(rates=((1, 1e-3), (2, 1e-4)))).history
    assert [record["learning_rate"] for record in history] == [1e-3, 1e-4, 1e-4]


def test_the_cosine_schedule_changes_with_every_batch(fit, monkeypatch):
    rates, original = [], torch.optim.Adam.step

    def step(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    history = fit(epochs=3, schedule=CosineSchedule(peak=1e-3, warmup_epochs=1)).history

    def expected(progress: np.ndarray) -> np.ndarray:
        falling = 0.5e-3 * (1 + np.cos(np.pi * (progress - 1) / 2))
        return np.where(progress < 1, 1e-3 * progress, falling)

    np.testing.assert_allclose(rates, expected((np.arange(6) + 0.5) / 2), rtol=1e-12)
    np.testing.assert_allclose([r["learning_rate"] for r in history], expected(np.arange(3) + 0.5), rtol=1e-12)


def test_reading_ahead_changes_nothing(fit, monkeypatch, tmp_path):
    changes = {"epochs": 2, "augmentation": AugmentationSettings(flips=True, plain_epochs=0)}
    plain = fit("plain", **changes)
    monkeypatch.setattr(FoldTrainer, "_reads_ahead", lambda self: True)
    made = []
    monkeypatch.setattr("landslide.training.epochs.prefetch", lambda items: made.append(1) or prefetch(items))
    ahead = fit("ahead", **changes)
    assert len(made) == 2
    assert without_times(ahead.history) == without_times(plain.history)
    assert_equal(load_file(ahead.weights), load_file(plain.weights))


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(fit, monkeypatch):
    states, original = [], FoldTrainer.epoch

    def epoch(self, number, **more):
        record = original(self, number, **more)
        states.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return record

    monkeypatch.setattr(FoldTrainer, "epoch", epoch)
    fit("free", epochs=4)
    fit("frozen", epochs=4, frozen_batch_norm_epochs=2, test_schedule=SelectionSchedule(half_epochs_from=3))
    free, frozen = states[:4], states[4:]
    for before in (0, 1):
        assert_equal(free[before], frozen[before])
    statistics = [name for name in frozen[1] if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(statistics) > 10
    for after in (2, 3):
        assert_equal({name: frozen[1][name] for name in statistics}, {name: frozen[after][name] for name in statistics})
    assert not any(torch.equal(free[1][name], free[2][name]) for name in statistics)
    scales = [name.replace("running_mean", "weight") for name in statistics if name.endswith("running_mean")]
    assert not any(torch.equal(frozen[1][name], frozen[3][name]) for name in scales)


def test_frozen_batch_norm_needs_statistics(fit):
    with pytest.raises(ConfigurationError, match="would have no statistics"):
        fit(epochs=2, frozen_batch_norm_epochs=2)
    with pytest.raises(ConfigurationError, match=r"frozen_batch_norm_epochs is 3, and training\.epochs 2"):
        replace(TINY, epochs=2, frozen_batch_norm_epochs=3)
    with pytest.raises(ConfigurationError, match="rau_net has no batch normalisation"):
        fit(
            model="rau_net",
            model_options={"width": 2, "head_width": 2, "normalization": "affine"},
            frozen_batch_norm_epochs=1,
        )


def test_a_trained_network_may_keep_its_statistics_throughout(fit_from, tmp_path, trained):
    fit_from(epochs=2, frozen_batch_norm_epochs=2)
    before, after = load_file(trained.weights), last_weights(tmp_path / "warm")
    statistics = [name for name in before if "running" in name]
    assert_equal({name: before[name] for name in statistics}, {name: after[name] for name in statistics})


def test_averaged_weights_are_scored_and_saved(fit, monkeypatch, tmp_path):
    weights, original = [], FoldTrainer._training_batch

    def training_batch(self, *arguments):  # the result of the previous step
        weights.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return original(self, *arguments)

    monkeypatch.setattr(FoldTrainer, "_training_batch", training_batch)
    state = ("plain", {}), ("averaged", {"average_decay": 0.7})
    for folder, changes in state:
        fit(folder, epochs=2, **changes)
    plain, averaged = weights[:4], weights[4:]
    for step in range(4):
        assert_equal(plain[step], averaged[step])
    after = [*plain[1:], last_weights(tmp_path / "plain")]
    expected = after[0]
    for step in after[1:]:
        expected = {
            name: 0.7 * value + 0.3 * step[name] if value.is_floating_point() else value
            for name, value in expected.items()
        }
    kept = last_weights(tmp_path / "averaged")
    floating = [name for name, value in kept.items() if value.is_floating_point()]
    assert len(floating) > 20
    for name in floating:
        torch.testing.assert_close(kept[name], expected[name], rtol=1e-5, atol=1e-6)


def test_the_average_is_copied_from_the_network_on_its_device(fit, monkeypatch):
    """Fabric moves the network to the device; here it also changes a weight, so that an earlier copy would differ."""
    original, mark = fold.Fabric.setup, 123.0

    def setup(self, module, *optimizers):
        with torch.no_grad():
            next(module.parameters()).fill_(mark)
        return original(self, module, *optimizers)

    monkeypatch.setattr(fold.Fabric, "setup", setup)
    trainers, epoch = [], FoldTrainer.epoch
    first = []
    monkeypatch.setattr(
        FoldTrainer,
        "epoch",
        lambda self, number, **more: (
            trainers.append(self) or first.append(next(self.scored.parameters()).clone()) or epoch(self, number, **more)
        ),
    )
    with pytest.raises(TrainingError):  # such weights do not train
        fit(average_decay=0.5, schedule=StepSchedule(rates=((9, 1e30),)))
    assert (first[0] == mark).all()


def test_thresholds_are_chosen_with_the_prediction_settings(fit, cache):
    turned = PredictionSettings(heads="average", augmentation="rotations")
    result = fit(prediction=turned, epochs=3)
    model = build_model(result.spec, load_file(result.weights))
    probability = predict_rows(model, cache, SELECTION, BANDS, device=torch.device("cpu"), prediction=turned)
    assert result.threshold == select_threshold(*threshold_counts(probability, cache.masks[SELECTION]), "f1_macro")
    plain = predict_rows(model, cache, SELECTION, BANDS, device=torch.device("cpu"))
    assert not np.allclose(plain, probability, atol=1e-3)


@pytest.mark.parametrize(("n", "size", "sizes"), [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1])])
def test_a_single_remaining_patch_joins_the_previous_batch(n, size, sizes):
    batches = _batches(torch.arange(n), size)
    assert [len(batch) for batch in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(n))


def test_batches_of_one_patch_are_kept():
    assert [len(batch) for batch in _batches(torch.arange(3), 1)] == [1, 1, 1]


def test_monitoring_the_test_fold_scores_it_and_changes_nothing_else(fit, cache, tmp_path):
    plain = fit("plain")
    settings = replace(TINY, monitor_test_fold=True)
    rows = FoldRows(TRAINING, SELECTION, OTHERS)
    monitored = train_fold(FoldTask(cache, rows, BANDS, settings, tmp_path / "monitored"))
    assert_equal(load_file(plain.weights), load_file(monitored.weights))
    shared = [{n: v for n, v in record.items() if not n.startswith("test_")} for record in monitored.history]
    assert without_times(shared) == without_times(plain.history)
    model = build_model(monitored.spec, last_weights(tmp_path / "monitored"))
    probability = predict_rows(model, cache, OTHERS, BANDS, device=torch.device("cpu"))
    expected = scores(confusion_counts(probability > 0.5, cache.masks[OTHERS]))
    assert monitored.history[-1]["test_f1_macro"] == pytest.approx(expected["f1_macro"], abs=1e-4)


def test_max_patches_limits_the_training_part(fit, cache, monkeypatch):
    trainers, original = [], FoldTrainer.epoch
    monkeypatch.setattr(
        FoldTrainer, "epoch", lambda self, *rest, **more: trainers.append(self) or original(self, *rest, **more)
    )
    spec = fit(max_patches=3, standardize=True, epochs=1).spec
    used = TRAINING[[0, 1, 3]]
    assert len(trainers[0].positive) == 3
    values = cache.bands[used][:, cache.columns(BANDS)].astype(np.float64)
    np.testing.assert_allclose(spec.mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize(
    "optimizer",
    ["adamw", *(pytest.param(name, marks=pytest.mark.soak) for name in ("nadam", "rmsprop", "adagrad", "sgd"))],
)
def test_every_optimizer_trains_and_resumes(fit, tmp_path, optimizer):
    def interrupt(record: dict[str, float]) -> None:
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    whole = fit("whole", optimizer=optimizer, weight_decay=0.01)
    with pytest.raises(KeyboardInterrupt):
        fit("killed", optimizer=optimizer, weight_decay=0.01, on_epoch=interrupt)
    resumed = fit("killed", optimizer=optimizer, weight_decay=0.01)
    assert without_times(whole.history) == without_times(resumed.history)
    assert_equal(last_weights(tmp_path / "killed"), last_weights(tmp_path / "whole"))


def test_the_last_epochs_are_not_augmented(fit, monkeypatch):
    augmented = []
    original = FoldTrainer._training_batch
    monkeypatch.setattr(
        FoldTrainer,
        "_training_batch",
        lambda self, indices, generator, augment: (
            augmented.append(augment) or original(self, indices, generator, augment)
        ),
    )
    result = fit(epochs=3, batch_size=5, augmentation=AugmentationSettings(plain_epochs=2))
    assert augmented == [True, False, False]
    assert [record["train_augmented"] for record in result.history] == [1, 0, 0]


@pytest.mark.parametrize(("scripted", "best"), [((0.3, 0.8, 0.5), 2), ((0.3, 0.8, 0.8), 2), ((0.9, 0.1, 0.2), 1)])
def test_the_weights_are_those_of_the_best_epoch(fit, monkeypatch, tmp_path, scripted, best):
    plain = AugmentationSettings(mode="none")
    fit("until then", epochs=best, augmentation=plain)
    original, values = FoldTrainer._score_parts, iter(scripted)
    monkeypatch.setattr(
        FoldTrainer, "_score_parts", lambda self, *when: original(self, *when) | {"validation_miou": next(values)}
    )
    result = fit(epochs=3, select_by="miou", augmentation=plain)
    assert result.epoch == best
    assert_equal(load_file(result.weights), last_weights(tmp_path / "until then"))


def test_the_record_tests_from_the_second_epoch_and_later_at_half_of_each(fit, monkeypatch, tmp_path):
    """Tests after epochs 2 and 3, at half of the fourth, which is the best, and after it."""
    original, seen = FoldTrainer._score_parts, []

    def scripted(self, when=""):
        seen.append((when, {name: tensor.clone() for name, tensor in self.model.state_dict().items()}))
        f1, miou = ((0.5, 0.5), (0.4, 0.5), (0.3, 0.6), (0.3, 0.6))[len(seen) - 1]
        found = original(self, when)
        return found | {f"validation{when}_f1_macro": f1, f"validation{when}_miou": miou}

    monkeypatch.setattr(FoldTrainer, "_score_parts", scripted)
    schedule = SelectionSchedule(first_epoch=2, half_epochs_from=4)
    result = fit(epochs=4, select_by="f1_macro or miou", test_schedule=schedule, model_options=AFFINE)
    assert [when for when, _ in seen] == ["", "", "_half_epoch", ""]
    assert result.epoch == 3.5
    assert_equal(load_file(result.weights), seen[2][1])
    assert not all(torch.equal(seen[2][1][name], tensor) for name, tensor in seen[3][1].items())
    tested = [{name for name in record if name.startswith("validation_")} for record in result.history]
    plain, half = ({f"validation{when}_{name}" for name in (*METRIC_NAMES, "loss")} for when in ("", "_half_epoch"))
    assert tested == [set(), plain, plain, plain | half]


@pytest.mark.parametrize(("epochs", "chosen"), [(1, 3.5), (2, 2.5), (9, 1), (None, 1)])
def test_the_epoch_is_chosen_among_the_last_ones_that_the_settings_allow(fit, monkeypatch, epochs, chosen):
    """Tests after the first two epochs, at half of the third and after it, and the same of the fourth."""
    original, made = FoldTrainer._score_parts, iter((0.9, 0.8, 0.7, 0.5, 0.6, 0.4))

    def scripted(self, when=""):
        return original(self, when) | {f"validation{when}_f1_macro": next(made)}

    monkeypatch.setattr(FoldTrainer, "_score_parts", scripted)
    schedule = SelectionSchedule(half_epochs_from=3)
    result = fit(epochs=4, selection_epochs=epochs, test_schedule=schedule)
    assert result.epoch == chosen
    assert len([record for record in result.history if "validation_f1_macro" in record]) == 4


def test_tests_at_half_of_an_epoch_do_not_change_the_training(fit, tmp_path):
    settings = {"epochs": 2, "batch_size": 1, "select_by": "miou"}
    often = fit("often", test_schedule=SelectionSchedule(half_epochs_from=1), **settings)
    usual = fit("usual", **settings)
    assert_equal(last_weights(tmp_path / "often"), last_weights(tmp_path / "usual"))
    for one, other in zip(without_times(often.history), without_times(usual.history), strict=True):
        assert {name: value for name, value in one.items() if "_half_epoch_" not in name} == other


@pytest.mark.parametrize(
    ("killed_in", "chosen_among"),
    [pytest.param("the first half", None, marks=pytest.mark.soak), ("the second half", None), ("the second half", 1)],
)
def test_a_training_with_the_records_tests_resumes_to_the_same_selection(fit, monkeypatch, killed_in, chosen_among):
    settings = {
        "epochs": 3, "selection_epochs": chosen_among, "batch_size": 1, "select_by": "f1_macro or miou",
        "order": "natural", "model_options": AFFINE,
        "test_schedule": SelectionSchedule(first_epoch=2, half_epochs_from=2),
    }  # fmt: skip
    whole = fit("whole", **settings)
    original, done, fatal = FoldTrainer._training_batch, [], {"the first half": 11, "the second half": 14}[killed_in]

    def training_batch(self, *arguments):
        done.append(arguments)
        if len(done) == fatal:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FoldTrainer, "_training_batch", training_batch)
        with pytest.raises(KeyboardInterrupt):
            fit("killed", **settings)
    resumed = fit("killed", **settings)
    assert without_times(resumed.history) == without_times(whole.history)
    assert resumed.epoch == whole.epoch
    assert_equal(load_file(resumed.weights), load_file(whole.weights))


def test_natural_order_gives_every_epoch_the_same_batches(fit, monkeypatch):
    batches, original = [], FoldTrainer._training_batch

    def training_batch(self, indices, *arguments):
        batches.append(TRAINING[indices].tolist())
        return original(self, indices, *arguments)

    monkeypatch.setattr(FoldTrainer, "_training_batch", training_batch)
    fit("natural", epochs=2, order="natural", batch_size=2)
    assert batches == [[0, 1], [2, 4, 5]] * 2
    batches.clear()
    fit("shuffled", epochs=2, batch_size=2)
    assert batches[:2] != batches[2:]


def test_an_epoch_whose_loss_is_not_finite_is_never_selected(fit, monkeypatch):
    """The network's last layer gets a NaN before the tests of the first and the last epoch, and loses it afterwards."""
    original, tested = FoldTrainer._score, []

    def score(self, batches):
        tested.append(len(tested) + 1)
        bias = self.scored.heads.same_resolution.bias
        kept = bias.detach().clone()
        if tested[-1] != 2:
            bias.data[0] = float("nan")
        try:
            return original(self, batches)
        finally:
            bias.data.copy_(kept)

    monkeypatch.setattr(FoldTrainer, "_score", score)
    result = fit(epochs=3)
    assert result.epoch == 2
    for record in result.history:
        values = [value for name, value in record.items() if name.startswith("validation_")]
        assert np.isfinite(values).all() == (record["epoch"] == 2)
        assert np.isnan(values).all() == (record["epoch"] != 2)


def test_an_early_finite_test_does_not_help_if_none_that_may_be_chosen_is(fit, monkeypatch):
    original, made = FoldTrainer._score_parts, iter((0.5, 0.6, float("nan")))

    def scripted(self, when=""):
        return original(self, when) | {"validation_f1_macro": next(made)}

    monkeypatch.setattr(FoldTrainer, "_score_parts", scripted)
    with pytest.raises(TrainingError, match="is not finite after any epoch that may be chosen") as error:
        fit(epochs=3, selection_epochs=1)
    assert "leave out training.selection_epochs" in error.value.remedy


def test_a_fold_without_any_finite_test_fails_with_a_remedy(fit):
    rates = StepSchedule(rates=((9, 1e30),))
    with pytest.raises(TrainingError, match="is not finite after any epoch") as error:
        fit(epochs=1, batch_size=9, schedule=rates, model_options={"width": 4, "normalization": "affine"})
    assert "Lower the learning rate" in error.value.remedy


@pytest.mark.parametrize("select_by", ["f1_macro", "miou", "f1_landslide", "recall_landslide"])
@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_is_the_best_of_a_brute_force_search(select_by, seed):
    rng = np.random.default_rng(seed)
    masks = (rng.random((2, 32, 32)) < 0.1).astype(np.uint8)
    probability = np.clip(0.3 * masks + rng.beta(1, 3, masks.shape), 0, 1).astype(np.float32)
    values = {}
    for step in range(100):
        values[step / 100] = scores(confusion_counts(probability >= step / 100, masks))[select_by]
    chosen = select_threshold(*threshold_counts(probability, masks), select_by)
    assert values[chosen] == max(values.values())
    ties = [threshold for threshold, value in values.items() if value == max(values.values())]
    assert abs(chosen - 0.5) == min(abs(threshold - 0.5) for threshold in ties)


def test_thresholds_are_chosen_on_all_batches_of_the_selection_part(fit, cache, monkeypatch):
    rows = np.concatenate([SELECTION, OTHERS])
    result = fit("several", batch_size=1, selection=rows)
    chosen = []
    monkeypatch.setattr(
        fold,
        "select_threshold",
        lambda thresholds, counts, by: chosen.append(counts) or select_threshold(thresholds, counts, by),
    )
    again = fit("several", batch_size=1, selection=rows)  # already trained: only the thresholds are chosen again
    model = build_model(result.spec, load_file(result.weights))
    probability = predict_rows(model, cache, rows, BANDS, device=torch.device("cpu"), batch_size=1)
    np.testing.assert_array_equal(chosen[0], threshold_counts(probability, cache.masks[rows])[1])
    truth = cache.masks[rows].any(axis=(1, 2))
    assert again.detection_threshold == select_detection_threshold(probability.max(axis=(1, 2)), truth)


def test_the_threshold_is_one_half_if_all_score_equally():
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, :4] = 1
    assert select_threshold(*threshold_counts(masks.astype(np.float32), masks), "f1_macro") == 0.5


# ---- several processes


# Batches of 3 and 2 patches: shares of different sizes.
ONE_RESULT = {
    "model_options": {"width": 4, "head_width": 4, "dropout": 0.0, "batch_norm_momentum": 0.1},
    "batch_size": 3, "optimizer": "sgd", "schedule": CosineSchedule(peak=0.01, warmup_epochs=0),
    "augmentation": AugmentationSettings(plain_epochs=0, flips=True, illumination=0.3),
}  # fmt: skip


@pytest.fixture(scope="module")
def two_process_result(cache, tmp_path_factory) -> tuple[FoldResult, list[dict[str, float]]]:
    """The result of training with two processes, and the epochs that they reported."""
    folder = tmp_path_factory.mktemp("two_processes")
    task = FoldTask(
        cache, FoldRows(TRAINING, SELECTION), BANDS, replace(TINY, devices=2, **ONE_RESULT), folder / "fold"
    )
    result = train_fold(task, on_epoch=partial(append_epoch, folder / "epochs"))
    return result, [json.loads(line) for line in (folder / "epochs").read_text().splitlines()]


def test_two_processes_train_together(two_process_result, cache):
    result, reported = two_process_result
    assert reported == result.history
    assert [record["epoch"] for record in result.history] == [1, 2]
    assert np.isfinite([record["train_loss"] for record in result.history]).all()
    model = build_model(result.spec, load_file(result.weights))
    probability = predict_rows(model, cache, SELECTION, BANDS, device=torch.device("cpu"))
    again = scores(confusion_counts(probability > 0.5, cache.masks[SELECTION]))
    recorded = result.history[result.epoch - 1]["validation_f1_macro"]
    assert again["f1_macro"] == pytest.approx(recorded, abs=1e-4), "the score is that of the saved weights"


def test_two_processes_train_to_the_result_of_one(fit, two_process_result):
    one, two = fit(**ONE_RESULT), two_process_result[0]
    for record, other in zip(without_times(one.history), without_times(two.history), strict=True):
        assert other["train_loss"] == pytest.approx(record["train_loss"], rel=1e-4)
        assert other["validation_f1_macro"] == pytest.approx(record["validation_f1_macro"], abs=1e-2)
    others = load_file(two.weights)
    for name, tensor in load_file(one.weights).items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_the_directory_of_a_cache_is_its_family_and_key(cache, demo_caches):
    assert cache.directory == demo_caches / cache_family(BandSettings()) / cache_key("demo", BandSettings())


# ---- warm start

PLAIN = {"width": 4, "head_width": 4, "dropout": 0.0}  # deterministic, so that results can be computed again


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory) -> FoldResult:
    """A network to start from: trained on other rows, standardised by their statistics."""
    settings = replace(TINY, standardize=True, model_options=PLAIN, schedule=StepSchedule(rates=((99, 3e-3),)))
    folder = tmp_path_factory.mktemp("trained")
    return train_fold(FoldTask(cache, FoldRows(OTHERS, SELECTION), BANDS, settings, folder))


@pytest.fixture
def fit_from(cache, tmp_path, trained):
    """Continue training that network as it is registered, with a specification from JSON."""

    def fit_from(folder: str = "warm", *, weights: Path = trained.weights, on_epoch=None, **changes) -> FoldResult:
        spec = ModelSpec.from_dict(json.loads(json.dumps(trained.spec.to_dict())))
        settings = replace(TINY, standardize=True, model_options=PLAIN, **changes)
        rows = FoldRows(TRAINING, SELECTION)
        task = FoldTask(cache, rows, BANDS, settings, tmp_path / folder, start=(spec, weights))
        return train_fold(task, on_epoch=on_epoch)

    return fit_from


def test_a_warm_start_begins_with_the_given_weights_and_statistics(cache, fit, fit_from, trained):
    # One batch of all patches and a tiny learning rate: the loss is that of the initial network.
    one_batch = {
        "epochs": 1, "batch_size": len(TRAINING), "crop": None, "schedule": StepSchedule(rates=((9, 1e-30),)),
        "augmentation": AugmentationSettings(mode="none"),
    }  # fmt: skip
    warm, cold = fit_from(**one_batch), fit("cold", standardize=True, model_options=PLAIN, **one_batch)
    network = build_model(trained.spec, load_file(trained.weights)).train()
    images = torch.from_numpy(cache.bands[TRAINING][:, cache.columns(BANDS)].astype(np.float32))
    masks = torch.from_numpy(cache.masks[TRAINING].astype(np.int64))
    with torch.no_grad():
        loss = float(multi_head_loss(network(images), masks, create_loss(TINY.loss), TINY.head_weights))
    assert warm.history[0]["train_loss"] == pytest.approx(loss, abs=1e-4)
    assert abs(cold.history[0]["train_loss"] - loss) > 0.01
    assert (warm.spec.mean, warm.spec.std) == (trained.spec.mean, trained.spec.std)
    assert cold.spec.mean != trained.spec.mean
    before, after = load_file(trained.weights), load_file(warm.weights)
    parameters = [name for name, _ in network.named_parameters()]
    assert_equal({name: before[name] for name in parameters}, {name: after[name] for name in parameters})


def test_an_interrupted_warm_start_resumes_bit_for_bit(fit_from, tmp_path, trained, monkeypatch):
    whole = fit_from("whole", epochs=3)
    moved = Path(shutil.copy(trained.weights, tmp_path / "fetched again.safetensors"))

    def interrupt(record: dict[str, float]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_from("killed", epochs=3, on_epoch=interrupt)
    records, epochs, original = [], [], FoldTrainer.epoch
    monkeypatch.setattr(
        FoldTrainer, "epoch", lambda self, epoch, **more: epochs.append(epoch) or original(self, epoch, **more)
    )
    resumed = fit_from("killed", epochs=3, weights=moved, on_epoch=records.append)
    assert epochs == [2], "the first two are not trained again, although the weights were fetched into another folder"
    assert records == resumed.history
    assert without_times(resumed.history) == without_times(whole.history)
    assert_equal(last_weights(tmp_path / "killed"), last_weights(tmp_path / "whole"))
    assert resumed.threshold == whole.threshold


def test_a_warm_start_from_other_weights_does_not_resume(fit_from, trained, tmp_path):
    other = {name: tensor * 1.01 for name, tensor in load_file(trained.weights).items()}
    save_file(other, tmp_path / "other.safetensors")
    first = fit_from(epochs=1)
    second = fit_from(epochs=1, weights=tmp_path / "other.safetensors")
    assert without_times(first.history) != without_times(second.history)
    fresh = fit_from("fresh", epochs=1, weights=tmp_path / "other.safetensors")
    assert without_times(second.history) == without_times(fresh.history)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "unet"}, r"training\.model 'rau_net', and the settings ask for 'unet'"),
        ({"model_options": {"width": 8, "head_width": 4}}, r"training\.model_options .*'width': 4.*'width': 8"),
        ({"standardize": False}, r"training\.standardize True, and the settings ask for False"),
    ],
)
def test_a_warm_start_from_another_network_is_a_configuration_error(cache, tmp_path, trained, changes, message):
    settings = replace(TINY, **{"standardize": True, "model_options": PLAIN} | changes)
    start = (trained.spec, trained.weights)
    with pytest.raises(ConfigurationError, match=message) as error:
        train_fold(FoldTask(cache, FoldRows(TRAINING, SELECTION), BANDS, settings, tmp_path, start=start))
    assert "train from scratch" in error.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_warm_start_from_a_network_of_other_bands_is_a_configuration_error(cache, tmp_path, trained):
    start = (trained.spec, trained.weights)
    settings = replace(TINY, standardize=True, model_options=PLAIN)
    with pytest.raises(ConfigurationError, match=r"training\.bands .*'slope'.* and the settings ask for \('B2',\)"):
        train_fold(FoldTask(cache, FoldRows(TRAINING, SELECTION), ("B2",), settings, tmp_path, start=start))
