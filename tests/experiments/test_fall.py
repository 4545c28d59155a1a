"""The analysis of the fall of scores on other ground."""

import sys

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from landslide.bands.batches import PatchBatches
from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings
from landslide.data import demo
from landslide.data.table import patch_table
from landslide.models import ModelSpec, build_model
from tests.support import pipeline_runs
from tests.support.experiments import load

pytestmark = pytest.mark.slow

EXPERIMENTS = pipeline_runs.ROOT / "experiments"
BANDS = ("B4", "B3", "B2")


@pytest.fixture(scope="module")
def fall():
    return load("fall")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    demo.generate(folder, scenes=((2, 3),))
    return ensure_cache(folder / "caches", folder, patch_table(folder), "demo", BandSettings())


def network() -> nn.Module:
    torch.manual_seed(0)
    spec = ModelSpec("unet", BANDS, {"width": 4}, (1.0, 1.0, 1.0), (0.1, 0.1, 0.1))
    return build_model(spec, build_model(spec).state_dict())


def test_input_statistics_are_those_of_the_patches(fall, cache):
    model, rows = network(), np.array([1, 4])
    fall.with_input_statistics(model, cache, rows, BANDS)
    images, _ = PatchBatches(cache, rows, BANDS, torch.device("cpu")).batch(torch.arange(2))
    standardised = (images - model.mean) / model.std
    assert standardised.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert (standardised.std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3


def test_batch_statistics_are_those_of_the_patches(fall, cache):
    model, rows = network(), np.arange(6)
    untouched = {name: value.clone() for name, value in model.named_parameters()}
    fall.with_batch_statistics(model, cache, rows, BANDS)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    seen = []
    first.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    model(PatchBatches(cache, rows, BANDS, torch.device("cpu")).batch(torch.arange(6))[0])
    torch.testing.assert_close(first.running_mean, seen[0].mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-3)
    assert not model.training
    assert not any(layer.training for layer in model.modules())
    assert all(torch.equal(value, untouched[name]) for name, value in model.named_parameters())


def test_recall_is_counted_by_the_size_of_each_landslide(fall):
    masks, probability = torch.zeros(2, 40, 40, dtype=torch.int64), torch.zeros(2, 40, 40)
    masks[0, :2, :10] = 1  # 20 pixels, all found
    masks[0, 10:20, 10:20] = 1  # 100 pixels, of which 30 are found
    masks[1, :35, :35] = 1  # 1,225 pixels, none found
    probability[0, :2, :10] = probability[0, 10:13, 10:20] = 0.9
    probability[1, 38:] = 0.9  # false alarms
    assert fall.recall_by_size(probability, masks) == [(20, 20), (0, 0), (100, 30), (0, 0), (1225, 0)]


def test_the_best_threshold_scores_at_least_as_well_as_a_half(fall):
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(3, 32, 32, generator=generator) > 0.8).long()
    probability = (0.2 * torch.rand(3, 32, 32, generator=generator) + 0.15 * masks).clamp(0, 1)
    assert fall.f1(probability, masks) == 0
    assert fall.best_f1(probability, masks) == pytest.approx(85, abs=10)
    assert fall.f1(probability, masks, 0.2) == pytest.approx(fall.best_f1(probability, masks), abs=1)


def test_every_pixel_has_one_ground(fall):
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    kinds = np.stack(list(fall.ground(images, BANDS).values()))
    assert (kinds.sum(axis=0) == 1).all()
    assert kinds.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("folds", "training", "named"),
    [
        ({"scheme": "contiguous", "trained": [1]}, {"bands": list(BANDS), "standardize": True}, "contiguous folds"),
        ({"scheme": "cluster", "trained": [1]}, {"bands": list(BANDS)}, "no standardised bands B4, B3 and B2"),
        ({"scheme": "cluster", "trained": [1]}, {"bands": ["B8"], "standardize": True}, "no standardised bands B4"),
    ],
)
def test_a_grid_that_cannot_be_taken_apart_is_refused(folds, training, named, fall, tmp_path, monkeypatch):
    config = tmp_path / "grid.yaml"
    grid = {"data": {}, "bands": {"stored": ["B4", "B3", "B2", "B8"]}, "folds": folds, "seeds": [0]}
    config.write_text(yaml.safe_dump({"parameters": grid | {"training": training, "rows": [{"name": "U-Net"}]}}))
    words = [config, "--row", "U-Net", "--data", tmp_path, "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["fall", *map(str, words)])
    with pytest.raises(SystemExit, match=named):
        fall.main()


@pytest.mark.soak
def test_the_tables_come_from_the_networks_of_a_row(fall, tmp_path, capsys):
    import h5py
    import real_rgb

    data, out, config = tmp_path / "data", tmp_path / "out", tmp_path / "grid.yaml"
    demo.generate(data, scenes=((4, 5),))
    for path in (data / "TrainData" / "img").iterdir():
        with h5py.File(path, "r+") as file:
            colours = file["img"][()][..., [3, 2, 1]]
            del file["img"]
            file["img"] = colours
    training = {
        "bands": list(BANDS), "standardize": True, "epochs": 2, "batch_size": 4, "model": "unet",
        "model_options": {"width": 4}, "schedule": {"kind": "cosine", "peak": 1e-2}, "augmentation": {"mode": "none"},
    }  # fmt: skip
    folds = {"scheme": "cluster", "n_folds": 2, "gap": 0, "in_scene_fraction": 0.2, "trained": [1], "scored": [1, 3]}
    grid = {"data": {"positions": "auto"}, "bands": {"stored": list(BANDS)}, "folds": folds, "seeds": [0]}
    config.write_text(yaml.safe_dump({"parameters": grid | {"training": training, "rows": [{"name": "U-Net"}]}}))
    for module, words in ((real_rgb, ["train", config]), (fall, [config, "--row", "U-Net"])):
        sys.argv = ["experiment", *map(str, words), "--data", str(data), "--out", str(out)]
        module.main()
    printed = capsys.readouterr().out
    assert printed.count("| mean") == 1
    assert "bright and red" in printed
