"""Weights of a U-Net that was trained to find clouds from Sentinel-2 and Landsat 8, from the package ukis-csmask.

The package (DLR, Apache-2.0) brings four ONNX files, for four and for six bands of level 1C and 2A. Their initialisers
are the weights, in float16, of `Unet` of segmentation_models.pytorch with an EfficientNet-B4.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from landslide.errors import ConfigurationError
from landslide.models.stored_weights import StoredWeights

ARCHITECTURE, ENCODER = "unet", "efficientnet-b4"
LEVELS = {"csmask": "l1c", "csmask_l2a": "l2a"}

_BANDS = ("B2", "B3", "B4", "B8", "B11", "B12")
_PREFIX = "model."


def read(weights: str, bands: Sequence[str]) -> StoredWeights:
    """Read the weights of encoder and decoder, float32, without those of the head.

    Args:
        weights: A key of `LEVELS`.
        bands: Names of our bands. With B11 or B12 among them, the weights are those of six bands, else of four.

    Raises:
        ConfigurationError: If a package or the file is missing, or the file is damaged.
    """
    folder = package_folder(weights)
    import onnx

    known = _BANDS if {"B11", "B12"} & set(bands) else _BANDS[:4]
    path = folder / f"model_{len(known)}b_{LEVELS[weights]}.onnx"
    if not path.is_file():
        raise _not_installed(weights, f"the file {path.name} of the package ukis-csmask")
    tensors = {}
    try:
        for initializer in onnx.load(str(path)).graph.initializer:
            name = initializer.name.removeprefix(_PREFIX)
            if name.startswith(("encoder.", "decoder.")):
                tensors[name] = torch.from_numpy(onnx.numpy_helper.to_array(initializer).astype("float32"))
    except Exception as error:  # OSError, ValueError, or an error of protobuf, which only onnx requires
        raise _damaged(path) from error
    if not tensors:
        raise _damaged(path)
    return StoredWeights(path, tensors, "encoder._conv_stem.weight", known)


def package_folder(weights: str) -> Path:
    """Return the folder of the package ukis-csmask, without importing it.

    Raises:
        ConfigurationError: If it is not installed, or onnx, which reads its files, is not.
    """
    for module, package in {"ukis_csmask": "ukis-csmask", "onnx": "onnx"}.items():
        if find_spec(module) is None:
            raise _not_installed(weights, f"the package {package}")
    specification = find_spec("ukis_csmask")
    if specification is None or specification.origin is None:
        raise _not_installed(weights, "the package ukis-csmask")
    return Path(specification.origin).parent


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path}, a file of the package ukis-csmask, cannot be read or holds no weights.",
        remedy="Install the package again: pip install --force-reinstall --no-deps ukis-csmask.",
    )


def _not_installed(weights: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"encoder_weights is {weights!r}, and {what} is not installed.",
        remedy="Install the extra clouds, in the project's checkout: pip install '.[clouds]', or leave encoder_weights "
        "out to start from random weights.",
    )
