"""ResNets pretrained without labels on SSL4EO-S12: Sentinel-2 images of level 1C from all over the world, 13 bands.

Wang et al., IEEE Geoscience and Remote Sensing Magazine 11(3), 2023 (doi 10.1109/MGRS.2023.3281651). The project
TorchGeo publishes the weights under the names of timm's ResNets (CC BY 4.0). They are read from the folder of
`torch.hub`, and downloaded to it if they are missing.
"""

from http.client import HTTPException
from pathlib import Path

import torch

from landslide.errors import ConfigurationError
from landslide.files import sha256
from landslide.models.stored_weights import StoredWeights

BANDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")

_HUB = "https://hf.co/torchgeo/"
ADDRESSES = {
    ("ssl4eo_s12_moco", "resnet18"): f"{_HUB}resnet18_sentinel2_all_moco/resolve/"
    "5b8cddc9a14f3844350b7f40b85bcd32aed75918/resnet18_sentinel2_all_moco-59bfdff9.pth",
    ("ssl4eo_s12_moco", "resnet50"): f"{_HUB}resnet50_sentinel2_all_moco/resolve/"
    "da4f3c9dbe09272eb902f3b37f46635fa4726879/resnet50_sentinel2_all_moco-df8b932e.pth",
    ("ssl4eo_s12_dino", "resnet50"): f"{_HUB}resnet50_sentinel2_all_dino/resolve/"
    "d7f14bf5530d70ac69d763e58e77e44dbecfec7c/resnet50_sentinel2_all_dino-d6c330e9.pth",
}
"""Where the weights are published, by their name and the encoder; the file name ends with digits of the SHA-256."""


def read(weights: str, encoder: str) -> StoredWeights:
    """Read the weights of an encoder, after a download if they are not on disk.

    Args:
        weights: The first part of a key of `ADDRESSES`.
        encoder: The second part.

    Raises:
        ConfigurationError: If the download fails, or the file is damaged.
    """
    address = ADDRESSES[weights, encoder]
    path = Path(torch.hub.get_dir(), "checkpoints", address.rpartition("/")[2])
    digits = path.stem.rpartition("-")[2]
    if not path.exists():
        _download(weights, address, path, digits)
    if not _has_digits(path, digits):
        raise ConfigurationError(
            f"{path}, the weights {weights!r} of {encoder!r}, is damaged or another file: its SHA-256 does not begin "
            f"with {digits}, or it cannot be read.",
            remedy=f"Delete it; it is downloaded again from {address}.",
        )
    stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = {f"encoder.{name}": value for name, value in stored.items() if not name.startswith("fc.")}
    return StoredWeights(path, tensors, "encoder.conv1.weight", BANDS)


def _has_digits(path: Path, digits: str) -> bool:
    try:
        return sha256(path).startswith(digits)
    except OSError:
        return False


def _download(weights: str, address: str, path: Path, digits: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), hash_prefix=digits, progress=False)
    except (OSError, RuntimeError, HTTPException) as error:
        raise ConfigurationError(
            f"encoder_weights is {weights!r}, and {path.name} could not be downloaded: {error}",
            remedy=f"Download {address} elsewhere and put the file into {path.parent}, or leave encoder_weights out to "
            "start from random weights.",
        ) from error
