"""A model for maps whose answers are known, and scenes on which it is right: bright landslides on dark ground."""

from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.crs import CRS
from safetensors.torch import save_file

from landslide.bands.formulas import BandSettings
from landslide.inference.ensemble import Member, save_ensemble
from landslide.models import ModelSpec, build_model

BANDS = ("B4", "B3", "B2")
SETTINGS = BandSettings(stored=BANDS, units="reflectance", dtype="float32")


def ground(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return reflectance (3, H, W) float32 of dark ground with bright ellipses, and their mask (H, W) uint8."""
    noise = np.random.default_rng(seed)
    rows, columns = np.indices((height, width))
    mask = np.zeros((height, width), np.uint8)
    for _ in range(max(2, height * width // 6000)):
        row, column, angle = noise.uniform(0, height), noise.uniform(0, width), noise.uniform(0, np.pi)
        along = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        across = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
        mask[(along / noise.uniform(8, 20)) ** 2 + (across / noise.uniform(4, 8)) ** 2 < 1] = 1
    image = 0.05 + 0.2 * mask + noise.normal(0, 0.005, (3, height, width))
    return image.astype(np.float32), mask


def bright_ensemble(folder: Path) -> Path:
    """Save an ensemble of `bright_members`, and return its folder."""
    save_ensemble(folder / "ensemble", bright_members(folder), SETTINGS)
    return folder / "ensemble"


def bright_members(folder: Path) -> list[Member]:
    """Save two U-Nets whose weights are set so that bright is a landslide.

    B4 passes along the skip connection of the first level; the other levels, with random weights, add a little, so that
    an answer depends on the window around the pixel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    members = []
    for fold, edge in ((1, 0.15), (2, 0.16)):
        torch.manual_seed(fold)
        spec = ModelSpec("unet", BANDS, {"width": 4})
        state = build_model(spec).state_dict()
        for convolution in ("encoder.0.0.0", "encoder.0.1.0", "decoder.3.0.0", "decoder.3.1.0"):
            state[f"{convolution}.weight"].mul_(0.01 if convolution == "decoder.3.0.0" else 0)
            state[f"{convolution}.weight"][0, 0, 1, 1] = 1
            state[f"{convolution}.bias"].zero_()
        state["heads.same_resolution.weight"].zero_()
        state["heads.same_resolution.weight"][1, 0] = 60
        state["heads.same_resolution.bias"].copy_(torch.tensor([0, -60 * edge]))
        weights = folder / f"fold-{fold}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights)
        members.append(Member(fold, spec, 0.5, weights))
    return members


def write_stack(path: Path, image: np.ndarray, crs: str, transform: Affine, **tags: str) -> Path:
    """Write reflectance (3, H, W) as digital numbers with their scale, offset and band names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.rint(image * 10_000 + 1000).astype(np.uint16)
    count, height, width = numbers.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=count, dtype="uint16", nodata=0,
        crs=CRS.from_user_input(crs), transform=transform,
    ) as target:  # fmt: skip
        target.write(numbers)
        target.descriptions = BANDS
        target.scales, target.offsets = (1e-4,) * count, (-0.1,) * count
        target.update_tags(**tags)
    return path
