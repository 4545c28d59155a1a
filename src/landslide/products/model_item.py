"""A registered model as a STAC Item, by the Machine Learning Model extension.

Source: https://github.com/stac-extensions/mlm, version 1.5.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import torch
from safetensors.torch import load_file

from landslide.bands.formulas import BandSettings
from landslide.inference.ensemble import Member, load_members
from landslide.models import build_model
from landslide.products.stac_item import multihash
from landslide.schema import PATCH_SIZE, STORED_DIVISORS

MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

_TASKS = ["semantic-segmentation"]
_UNITS = {"slope": "degree", "dem": "metre"}


def model_item(folder: Path, *, name: str, version: str, address: str, created: datetime) -> pystac.Item:
    """Describe an ensemble for catalogues: its input bands with their scaling, its output, weights and threshold.

    Args:
        folder: The folder that `landslide.inference.ensemble.save_ensemble` wrote.
        name: Name of the registered model.
        version: Its version.
        address: Where the model is registered, such as `models:/NAME/VERSION`.
        created: When the model was registered, with its time zone.

    Returns:
        An Item without a place: the model is not tied to one. Its assets are files of `folder`, by their names.

    Raises:
        RegistryError: If a file of the ensemble is missing or damaged.
    """
    members, settings = load_members(folder, any_code=True)
    networks = [build_model(member.spec, load_file(member.weights)) for member in members]
    architectures = list(dict.fromkeys(member.spec.name for member in members))
    item = pystac.Item(
        id=f"{name}-{version}",
        geometry=None,
        bbox=None,
        datetime=created,
        properties={
            "title": f"{name}, version {version}",
            "description": "Landslide probability of Sentinel-2 patches, the mean of an ensemble, and its uncertainty",
            "version": version,
            "bands": _bands(members, settings),
            "mlm:name": re.sub(r"[^a-zA-Z0-9_.\-\s]", "-", name),
            "mlm:architecture": ", ".join(architectures),
            "mlm:tasks": _TASKS,
            "mlm:framework": "PyTorch",
            "mlm:framework_version": str(torch.__version__),
            "mlm:memory_size": sum(member.weights.stat().st_size for member in members),
            "mlm:total_parameters": sum(
                parameter.numel() for network in networks for parameter in network.parameters()
            ),
            "mlm:accelerator": "cuda",
            "mlm:accelerator_constrained": False,
            "mlm:accelerator_summary": "Runs on a CPU, faster on an NVIDIA GPU",
            "mlm:input": [_input(settings)],
            "mlm:output": _outputs(),
            "mlm:hyperparameters": _hyperparameters(members, settings),
        },
        stac_extensions=[MLM, _FILE],
    )
    for member in members:
        item.add_asset(member.weights.stem, _weights(member, settings))
    item.add_asset(
        "ensemble",
        pystac.Asset("./ensemble.json", "Members and bands", media_type="application/json", roles=["metadata"]),
    )
    item.add_link(pystac.Link(pystac.RelType.VIA, address, title="The registered model"))
    return item


def _bands(members: Sequence[Member], settings: BandSettings) -> list[dict[str, Any]]:
    """Describe the stored bands, with the mean and standard deviation that the networks use, averaged over members."""
    bands = []
    for name in settings.stored:
        band: dict[str, Any] = {"name": name, "gsd": 10, "description": _description(name)}
        if name in _UNITS:
            band["unit"] = _UNITS[name]
        used = [
            (member.spec.mean[member.spec.bands.index(name)], member.spec.std[member.spec.bands.index(name)])
            for member in members
            if name in member.spec.bands and member.spec.mean is not None and member.spec.std is not None
        ]
        if used:
            mean, std = np.mean(used, axis=0).tolist()
            band["statistics"] = {"mean": mean, "stddev": std}
        bands.append(band)
    return bands


def _description(name: str) -> str:
    if name == "dem":
        return f"Elevation in metres, divided by {STORED_DIVISORS[name]}"
    if name == "slope":
        return f"Slope in degrees, divided by {STORED_DIVISORS[name]}"
    return f"Sentinel-2 {name}, reflectance x 10,000, divided by {STORED_DIVISORS[name]}"


def _input(settings: BandSettings) -> dict[str, Any]:
    return {
        "name": "patch",
        "description": "Patches of 10 m pixels. Reflectance x 10,000, degrees and metres are divided by the values of "
        "value_scaling; the model computes further bands and standardises by itself.",
        "bands": [{"name": name} for name in settings.stored],
        "input": {
            "shape": [-1, len(settings.stored), PATCH_SIZE, PATCH_SIZE],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "scale", "value": STORED_DIVISORS[name]} for name in settings.stored],
        "resize_type": None,
    }


def _outputs() -> list[dict[str, Any]]:
    result = {"shape": [-1, PATCH_SIZE, PATCH_SIZE], "dim_order": ["batch", "height", "width"], "data_type": "float32"}
    classes = [
        {"value": 0, "name": "none", "description": "No landslide"},
        {"value": 1, "name": "landslide", "description": "Landslide"},
    ]
    return [
        {
            "name": "probability",
            "description": "Landslide probability, the mean of the members; a landslide from the threshold",
            "tasks": _TASKS,
            "result": result,
            "classification:classes": classes,
        },
        {
            "name": "uncertainty",
            "description": "Standard deviation of the landslide probability over the members",
            "tasks": _TASKS,
            "result": result,
            "classification:classes": [],
        },
    ]


def _hyperparameters(members: Sequence[Member], settings: BandSettings) -> dict[str, Any]:
    return {
        "threshold": float(np.mean([member.threshold for member in members])),
        "members": len(members),
        "bands": list(members[0].spec.bands),
        "band_settings": settings.to_dict(),
        "heads": members[0].prediction.heads,
        "test_time_augmentation": members[0].prediction.augmentation,
    }


def _weights(member: Member, settings: BandSettings) -> pystac.Asset:
    return pystac.Asset(
        f"./{member.weights.name}",
        f"Weights of the member without fold {member.fold}",
        media_type="application/octet-stream; application=safetensors",
        roles=["mlm:model", "mlm:weights"],
        extra_fields={
            "bands": [{"name": name} for name in settings.stored],
            "mlm:artifact_type": "safetensors.torch.save_file",
            "file:size": member.weights.stat().st_size,
            "file:checksum": multihash(member.weights),
        },
    )
