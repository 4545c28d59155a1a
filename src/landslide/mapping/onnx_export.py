"""An ensemble as one ONNX file, for programs without this package, such as the QGIS plugin Deepness."""

import json
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.files import atomic_write
from landslide.inference.ensemble import Ensemble
from landslide.inference.prediction import PredictionSettings, probability_of_heads
from landslide.inference.symmetries import SYMMETRIES
from landslide.schema import PATCH_SIZE

_OPSET = 17
_CENTIMETRES = 1000  # of a pixel, the unit of Deepness


class _Probability(nn.Module):
    """Stored patches in, mean landslide probability over the members out."""

    columns: Tensor

    def __init__(self, models: Sequence[nn.Module], settings: Sequence[PredictionSettings], columns: list[int]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.settings = settings
        self.register_buffer("columns", torch.tensor(columns))

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, H, W) of images (N, stored bands, H, W)."""
        bands = images[:, self.columns]
        size = (PATCH_SIZE, PATCH_SIZE)
        found = []
        for model, settings in zip(self.models, self.settings, strict=True):
            symmetries = SYMMETRIES[settings.augmentation]
            parts = []
            for symmetry in symmetries:
                moved = _turned(bands, symmetry.quarter_turns)
                moved = moved.flip(-1) if symmetry.mirrored else moved
                answer = probability_of_heads(_by_side(model(moved)), size, settings.heads)
                parts.append(_turned(answer.flip(-1) if symmetry.mirrored else answer, -symmetry.quarter_turns))
            found.append(torch.stack(parts).mean(dim=0))
        return torch.stack(found).mean(dim=0)[:, None]


def _turned(images: Tensor, quarter_turns: int) -> Tensor:
    """Rotate images (..., H, W) counter-clockwise by operations that ONNX has."""
    for _ in range(quarter_turns % 4):
        images = images.transpose(-2, -1).flip(-2)
    return images


def _by_side(logits: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the heads by their sides again: while it is traced, a network sees no plain numbers."""
    return {str(int(head.shape[-1])): head for head in logits.values()}


def export_onnx(ensemble: Ensemble, path: Path) -> None:
    """Write an ensemble as an ONNX file with the metadata that Deepness reads.

    Input `patches` is (N, stored bands, 128, 128) float32, values as stored in the patch files; output `probability`
    is (N, 1, 128, 128), the mean landslide probability of the members. Unlike `Ensemble.predict` it does not round
    bands to float16, and pixels without a value are not left out.

    Args:
        ensemble: The ensemble, on a CPU.
        path: The file.

    Raises:
        ConfigurationError: If its networks see bands that are computed from others: filters of OpenCV have no equal in
            ONNX, and bands scaled by their patch would be computed from other patches.
    """
    settings, bands = ensemble.settings, ensemble.members[0].spec.bands
    computed = [name for name in bands if name not in settings.stored]
    if computed:
        raise ConfigurationError(
            f"The model's networks see {', '.join(computed)}, which this package computes with OpenCV and NumPy from "
            "the stored bands; an ONNX file cannot.",
            remedy="Train networks on stored bands only (training.bands: 14, or a list such as [B4, B3, B2]), or use "
            "the model with `landslide map` or `mlflow models serve`.",
        )
    columns = [settings.stored.index(name) for name in bands]
    wrapped = _Probability(ensemble.models, [member.prediction for member in ensemble.members], columns).eval()
    example = torch.zeros(1, len(settings.stored), PATCH_SIZE, PATCH_SIZE)
    buffer = BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The new exporter needs a further package and cannot trace every layer of ours.
        warnings.simplefilter("ignore")  # also of traced sizes, which are those of the example and are wanted
        torch.onnx.export(
            wrapped, (example,), cast(Any, buffer), dynamo=False, opset_version=_OPSET, input_names=["patches"],
            output_names=["probability"], dynamic_axes={"patches": {0: "patch"}, "probability": {0: "patch"}},
        )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    for key, value in {
        "model_type": "Segmentor",
        "class_names": {0: "no landslide", 1: "landslide"},
        "resolution": _CENTIMETRES,
        "tile_size": PATCH_SIZE,
        "tiles_overlap": 50,
        "seg_thresh": ensemble.threshold,
        "seg_small_segment": 0,
        "bands": list(settings.stored),
        "units": getattr(settings, "units", "landslide4sense"),
    }.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        onnx.save_model(model, str(temporary))
