"""The scores of the same patches in other light and colours."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from landslide.data import demo
from landslide.schema import ORIGINAL_BANDS
from tests.support.experiments import FOLDER, load
from tests.support.pipeline_runs import ROOT

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "explanation" / "results.md"


@pytest.fixture(scope="module")
def colours():
    return load("other_colours")


class Bright(nn.Module):
    """Calls a pixel a landslide if its first band is above 100."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        called = (x[:, 0] > 100).float()
        return {"128": 10 * torch.stack([1 - called, called], dim=1)}


def test_a_change_is_one_factor_and_offset_for_each_band(colours):
    drawn = colours.changes(3)
    assert len(drawn) == 8
    images = torch.arange(0, 250, 10).float().expand(2, 3, 5, 25).clone()
    for factors, offsets in drawn:
        other = colours.changed(images, (factors, offsets))
        assert torch.equal(other, other.round())
        assert other.min() >= 0
        assert other.max() <= 255
        inside = (other > 0) & (other < 255)
        expected = images * factors + offsets
        assert (other - expected)[inside].abs().max() <= 0.5
    assert len({tuple(factors.flatten().tolist()) for factors, _ in drawn}) == 8
    assert all(torch.equal(a[0], b[0]) for a, b in zip(drawn, colours.changes(3), strict=True))
    logs = np.log([factors.flatten().numpy() for factors, _ in drawn])
    assert 0.1 < logs.mean(axis=1).std() < 0.5  # the light of the whole patch
    assert 0.05 < (logs - logs.mean(axis=1, keepdims=True)).std() < 0.25  # the colour


def test_a_network_that_goes_by_brightness_loses_in_other_light(colours):
    images, masks = torch.full((3, 3, 128, 128), 80.0), torch.zeros(3, 128, 128, dtype=torch.int64)
    images[:, :, :40, :40], masks[:, :40, :40] = 120.0, 1
    assert colours.landslide_f1(Bright(), images, masks) == 1
    darker = (torch.full((3, 1, 1), 0.7), torch.zeros(3, 1, 1))
    assert colours.landslide_f1(Bright(), colours.changed(images, darker), masks) == 0


def test_without_trainings_there_is_no_table(colours, tmp_path, monkeypatch):
    demo.generate(tmp_path / "data", scenes=((4, 5),))
    config = tmp_path / "grid.yaml"
    folds = {"scheme": "contiguous", "trained": [1]}
    grid = {"data": {}, "bands": {"stored": list(ORIGINAL_BANDS)}, "folds": folds, "seeds": [0]}
    training = {"bands": ["B4", "B3", "B2"]}
    config.write_text(yaml.safe_dump({"parameters": grid | {"training": training, "rows": [{"name": "U-Net"}]}}))
    words = [config, "--data", tmp_path / "data", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["other_colours", *map(str, words)])
    with pytest.raises(SystemExit, match="has no finished training of the grid"):
        colours.main()
    for content in ("{", "[]", "null", '{"U_Net-fold1-seed0": 3}'):
        (tmp_path / "out" / "other_colours.json").write_text(content)
        with pytest.raises(SystemExit, match=r"other_colours\.json is damaged"):
            colours.main()


@pytest.mark.parametrize("name", ["search", "clusters"])
def test_the_page_shows_the_record(name, colours):
    parameters = colours.read_grid(FOLDER / f"real_rgb_{name}.yaml")
    record = json.loads((ROOT / "docs" / "results" / name / "other_colours.json").read_text())
    table = colours.shown(parameters, record)
    assert table.strip() in PAGE.read_text()
    assert len(table.splitlines()) == 2 + len({training.partition("-")[0] for training in record})
