import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from landslide.bands.formulas import BandSettings
from landslide.errors import ConfigurationError
from landslide.inference.ensemble import Ensemble
from landslide.inference.prediction import PredictionSettings
from landslide.mapping.onnx_export import export_onnx
from tests.support import versions

pytestmark = pytest.mark.slow

SETTINGS = BandSettings(dtype="float32")


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 3, (3, 14, 128, 128)).astype(np.float32)


@pytest.mark.parametrize("augmentation", ["none", "flips_and_rotations"])
def test_an_exported_ensemble_gives_equal_probabilities(tmp_path, images, augmentation):
    prediction = PredictionSettings(heads="main", augmentation=augmentation)
    members = [replace(m, prediction=prediction) for m in versions.members(tmp_path / "members")]
    ensemble = Ensemble(members, SETTINGS, torch.device("cpu"))
    export_onnx(ensemble, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"patches": images})
    np.testing.assert_allclose(found[:, 0], ensemble.predict(images)[0], atol=5e-5)
    assert found.std() > 0.05


def test_an_exported_ensemble_has_what_deepness_reads(tmp_path):
    ensemble = Ensemble(versions.members(tmp_path / "members"), SETTINGS, torch.device("cpu"))
    export_onnx(ensemble, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["model_type"] == "Segmentor"
    assert metadata["class_names"] == {"0": "no landslide", "1": "landslide"}
    assert metadata["resolution"] == 1000
    assert metadata["seg_thresh"] == ensemble.threshold
    assert metadata["bands"] == list(SETTINGS.stored)
    shapes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes[0][1:] == [14, 128, 128]
    assert shapes[1][1:] == [1, 128, 128]
    assert len(model.graph.output) == 1


def test_networks_on_computed_bands_are_refused_with_the_reason(tmp_path):
    members = versions.members(tmp_path / "members", bands=("B4", "gray", "ndvi"))
    with pytest.raises(ConfigurationError, match="gray, ndvi, which this package computes with OpenCV") as caught:
        export_onnx(Ensemble(members, SETTINGS, torch.device("cpu")), tmp_path / "model.onnx")
    assert "landslide map" in caught.value.remedy
    assert not (tmp_path / "model.onnx").exists()
