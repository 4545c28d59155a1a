"""A model as a STAC Item with the Machine Learning Model extension."""

import re
from datetime import UTC, datetime

import numpy as np
import pystac
import pystac.validation
import pytest
import torch
from safetensors.torch import load_file, save_file

from landslide.bands.formulas import BandSettings
from landslide.errors import RegistryError
from landslide.inference.ensemble import Member, load_ensemble, save_ensemble
from landslide.models import ModelSpec, build_model
from landslide.products.model_item import model_item
from landslide.schema import STORED_DIVISORS

STORED = ("B2", "B3", "B4", "B8", "B11", "B12", "slope", "dem")
BANDS = ("B2", "B3", "B4", "B8", "ndvi", "dem")
CREATED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    members = []
    for fold in (0, 1):
        mean = tuple(float(value + fold) for value in range(len(BANDS)))
        spec = ModelSpec("unet", BANDS, {"width": 4}, mean=mean, std=(2.0 + fold,) * len(BANDS))
        torch.manual_seed(fold)
        weights = path / f"fold-{fold}.safetensors"
        save_file({name: value.contiguous() for name, value in build_model(spec).state_dict().items()}, weights)
        members.append(Member(fold, spec, 0.4 + 0.2 * fold, weights))
    save_ensemble(path / "ensemble", members, BandSettings(stored=STORED))
    return path / "ensemble"


@pytest.fixture(scope="module")
def item(folder):
    address = "models:/landslide-segmentation/4"
    return model_item(folder, name="landslide-segmentation", version="4", address=address, created=CREATED)


def test_the_item_is_valid_stac(item):
    pystac.validation.validate_dict(item.to_dict(), extensions=[])


def test_input_and_output_are_those_of_the_ensemble(item, folder):
    (described,) = item.properties["mlm:input"]
    shape = described["input"]["shape"]
    assert [band["name"] for band in described["bands"]] == list(STORED)
    assert [scaling["value"] for scaling in described["value_scaling"]] == [STORED_DIVISORS[name] for name in STORED]
    patches = np.ones([1, *shape[1:]], described["input"]["data_type"])
    answers = load_ensemble(folder, torch.device("cpu")).predict(patches)
    outputs = item.properties["mlm:output"]
    assert [output["name"] for output in outputs] == ["probability", "uncertainty"]
    for answer, output in zip(answers, outputs, strict=True):
        assert answer.shape == (1, *output["result"]["shape"][1:])
        assert answer.dtype == output["result"]["data_type"]
        assert len(output["result"]["shape"]) == len(output["result"]["dim_order"])


def test_statistics_of_the_bands_are_means_over_the_members(item):
    bands = {band["name"]: band for band in item.properties["bands"]}
    assert list(bands) == list(STORED)
    assert bands["B3"]["statistics"] == {"mean": 1.5, "stddev": 2.5}
    assert "statistics" not in bands["B11"]  # the networks do not take it


def test_threshold_parameters_and_framework(item, folder):
    properties = item.properties
    assert properties["mlm:hyperparameters"]["threshold"] == pytest.approx(0.5)
    assert properties["mlm:hyperparameters"]["bands"] == list(BANDS)
    weights = [load_file(folder / f"member-{number}.safetensors") for number in (1, 2)]
    buffers = re.compile(r"running_|num_batches|^mean$|^std$")
    count = sum(value.numel() for member in weights for name, value in member.items() if not buffers.search(name))
    assert properties["mlm:total_parameters"] == count
    assert properties["mlm:framework_version"] == torch.__version__
    assert properties["mlm:architecture"] == "unet"


def test_the_weights_are_assets_of_the_model(item, folder):
    models = {name: asset for name, asset in item.assets.items() if "mlm:model" in asset.roles}
    assert list(models) == ["member-1", "member-2"]
    for asset in models.values():
        assert (folder / asset.href).stat().st_size == asset.extra_fields["file:size"]
        assert asset.extra_fields["mlm:artifact_type"] == "safetensors.torch.save_file"


def test_the_item_passes_the_model_classes_of_the_extension(item):
    """The package stac-model checks the fields with pydantic; its release 0.7 is for version 1.6 of the extension."""
    schema = pytest.importorskip("stac_model.schema", reason="the package stac-model is not installed")
    content = item.to_dict()["properties"]
    fields = {name.removeprefix("mlm:"): value for name, value in content.items() if name.startswith("mlm:")}
    checked = schema.MLModelProperties.model_validate(fields)
    assert checked.input[0].input.shape == [-1, len(STORED), 128, 128]
    broken = fields | {"input": [fields["input"][0] | {"value_scaling": [{"type": "scale"}]}]}
    with pytest.raises(ValueError, match="value"):
        schema.MLModelProperties.model_validate(broken)


def test_a_damaged_model_is_refused(folder, tmp_path):
    with pytest.raises(RegistryError, match="cannot be read"):
        model_item(tmp_path, name="none", version="1", address="models:/none/1", created=CREATED)
