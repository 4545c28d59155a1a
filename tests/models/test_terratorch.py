"""Foundation models of TerraTorch, and their names and options without it."""

import copy
import sys

import pytest
import torch
from torch.nn import functional as F

from landslide.errors import ConfigurationError
from landslide.models import ModelSpec, build_model, create_model, required_packages, without_pretraining
from landslide.models.complexity import complexity, resolutions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

PRITHVI = "terratorch:UNetDecoder:prithvi_eo_v2_tiny_tl"
RESNET = "terratorch:UperNetDecoder:ssl4eos12_resnet18_sentinel2_all_moco"
BANDS = ("B4", "B8", "ndvi")


def test_a_missing_terratorch_is_named_before_training(monkeypatch):
    monkeypatch.delitem(sys.modules, "terratorch.models", raising=False)
    monkeypatch.setitem(sys.modules, "terratorch", None)
    for attempt in (lambda: create_model(PRITHVI, 3), lambda: complexity(PRITHVI, 3, {"pretrained": True})):
        with pytest.raises(ConfigurationError, match="needs the package terratorch") as error:
            attempt()
        assert "pip install terratorch" in error.value.remedy


@pytest.mark.parametrize("name", ["terratorch:prithvi_eo_v2_tiny_tl", "terratorch:a:b:c", "terratorch:"])
def test_an_incomplete_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="no name of a peer network") as error:
        complexity(name, 3)
    assert "terratorch:<Decoder>:<backbone>" in error.value.remedy


def test_pretrained_is_true_or_false():
    with pytest.raises(ConfigurationError, match="pretrained is 'yes'"):
        complexity(PRITHVI, 3, {"pretrained": "yes"})


def test_a_trained_network_needs_no_pretrained_weights():
    assert without_pretraining({"pretrained": True, "width": 4}) == {"pretrained": False, "width": 4}
    assert required_packages(PRITHVI) == ("terratorch",)


@pytest.mark.parametrize("name", [PRITHVI, RESNET])
def test_a_network_of_terratorch_is_trained_copied_and_rebuilt(name):
    pytest.importorskip("terratorch", reason="TerraTorch is no requirement")
    spec = ModelSpec(name, BANDS, {"pretrained": False})
    model = build_model(spec).train()
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    logits = model(x)
    assert {key: value.shape for key, value in logits.items()} == {"128": (2, 2, 128, 128)}
    F.cross_entropy(logits["128"], (x[:, 0] > 0.5).long()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    model.eval()
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.network.encoder.parameters():
            parameter.zero_()
        assert not torch.equal(changed(x)["128"], model(x)["128"])
        again = build_model(ModelSpec(name, BANDS, {"pretrained": True}), model.state_dict())
        assert torch.equal(again(x)["128"], model(x)["128"])
    assert resolutions(name, 3, {"pretrained": True}) == ["128"]
    assert complexity(name, 3).gflop > 0.5


def test_pretrained_backbones_get_the_bands_by_name():
    pytest.importorskip("terratorch", reason="TerraTorch is no requirement")
    backbone = build_model(ModelSpec(PRITHVI, BANDS)).network.encoder.backbone
    assert [getattr(band, "value", band) for band in backbone.model_bands] == ["RED", "NIR_NARROW", "ndvi"]
    with pytest.raises(ConfigurationError, match="the names are unknown"):
        create_model(PRITHVI, 3, pretrained=True)


@pytest.mark.parametrize("name", ["terratorch:UNetDecoder:resnet0", "terratorch:LinearDecoder:prithvi_eo_v2_tiny_tl"])
def test_other_decoders_and_backbones_are_refused(name):
    pytest.importorskip("terratorch", reason="TerraTorch is no requirement")
    with pytest.raises(ConfigurationError, match=r"The network option (decoder|backbone) is"):
        complexity(name, 3)
