"""Maps of whole scenes against a plain script: time and peak memory, each in a process of its own.

The plain script holds the scene in memory, predicts one window at a time and averages what overlaps. Both sides have
the same networks, windows and overlap. Memory is measured with a small network on three bands, whose windows are
quick, so that it is that of the method; time with the Lite U-Net of configs/best.yaml on 2,000 pixels, once per side,
because a scene has a thousand windows.

TerraTorch is a further side if `TERRATORCH_PYTHON` names the Python of an environment with terratorch,
rasterio, opencv-python-headless, safetensors and timm. It has the same networks, windows, overlap and batch size, and
the largest and the 99th percentile of the difference to our map are printed.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window
from safetensors.torch import save_file

from benchmarks.measure import Comparison
from landslide.bands.formulas import BandSettings
from landslide.data.demo import scene as demo_ground
from landslide.inference.ensemble import Member, load_ensemble, save_ensemble
from landslide.models import ModelSpec, build_model
from landslide.schema import STORED_DIVISORS

if TYPE_CHECKING:
    from landslide.mapping.networks import Precision

MEGABYTES = 2_000.0
FULL_TILE = 10_980
_SIDE, _STEP = 128, 64
_BANDS = tuple(STORED_DIVISORS)[:12]
_GROUND = 512
LITE = ("lite_unet", {"encoder_weights": None}, (*_BANDS, "gray", "gaussian", "median", "ndvi"))
_PEER = os.environ.get("TERRATORCH_PYTHON", "")
_SMALL = ("unet", {"width": 4}, ("B4", "B3", "B2"))


def run(quick: bool) -> list[Comparison]:
    """Compare both sides for squares of several sizes."""
    sizes = (256, 512) if quick else (1_000, 4_000, FULL_TILE)
    timed, members = (sizes[0], 1) if quick else (2_000, 5)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lite = write_ensemble(folder / "lite", *LITE, members)
        small = write_ensemble(folder / "small", *_SMALL, 1)
        scenes = {size: write_scene(folder / f"{size}.tif", size) for size in {*sizes, timed}}
        peers = ["terratorch"] if _PEER else []
        seconds = {side: measured(side, scenes[timed], lite, folder)[0] for side in ("plain", "ours", *peers)}
        seconds["ours, bfloat16"] = measured("ours_bfloat16", scenes[timed], lite, folder)[0]
        windows = len(starts(timed)) ** 2
        results.append(
            Comparison(
                name=f"map, {members} Lite U-Nets, {timed} pixels",
                unit="ms a window",
                values={side: 1000 * value / windows for side, value in seconds.items()},
                reference="plain",
                ours="ours",
                goal=3.0,
                facts={"windows": windows},
            )
        )
        if peers:
            maps = [rasterio.open(folder / f"out.{side}.tif").read(1).astype(float) for side in ("ours", *peers)]
            difference = np.abs(maps[0] / 10_000 - maps[1])
            print(f"difference to TerraTorch: largest {difference.max():.4f}, 99th percentile "
                  f"{np.percentile(difference, 99):.5f}", flush=True)  # fmt: skip
        projected = seconds["ours"] / windows * len(starts(FULL_TILE)) ** 2 / 60
        print(f"a full tile of {FULL_TILE} pixels would take {projected:.0f} minutes", flush=True)
        for size in sizes:
            sides = ["plain", "ours", *(peers if size < FULL_TILE else [])]
            memory = {side: measured(side, scenes[size], small, folder) for side in sides}
            for unit, index in (("MB", 1), ("s", 0)):
                results.append(
                    Comparison(
                        name=f"map, {'peak memory' if index else 'time'}, small network, {size} pixels",
                        unit=unit,
                        values={side: one[index] for side, one in memory.items()},
                        reference="plain",
                        ours="ours",
                        limit=MEGABYTES if index else None,
                        facts={"pixels per second": round(size * size / memory["ours"][0])},
                    )
                )
    return results


def write_ensemble(folder: Path, name: str, options: dict, bands: tuple[str, ...], members: int) -> Path:
    """Save networks with random weights; return the folder of the ensemble."""
    folder.mkdir()
    found = []
    for fold in range(1, members + 1):
        torch.manual_seed(fold)
        spec = ModelSpec(name, bands, options)
        path = folder / f"{fold}.safetensors"
        save_file({key: value.contiguous() for key, value in build_model(spec).state_dict().items()}, path)
        found.append(Member(fold, spec, 0.5, path))
    save_ensemble(folder / "ensemble", found, BandSettings())
    return folder / "ensemble"


def write_scene(path: Path, size: int) -> Path:
    """Write a square of 12 bands of digital numbers by repeating a generated one."""
    ground, _, _ = demo_ground(0, 1, _GROUND, _GROUND)
    bands = np.ascontiguousarray(ground[..., :12].transpose(2, 0, 1)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", width=size, height=size, count=12, dtype="uint16", crs="EPSG:32645",
        transform=Affine(10, 0, 399_960, 0, -10, 3_100_020), tiled=True, blockxsize=512, blockysize=512, BIGTIFF="YES",
    ) as target:  # fmt: skip
        target.descriptions = _BANDS
        target.scales, target.offsets = (1e-4,) * 12, (0.0,) * 12
        for y in range(0, size, _GROUND):
            for x in range(0, size, _GROUND):
                height, width = min(_GROUND, size - y), min(_GROUND, size - x)
                target.write(bands[:, :height, :width], window=Window(x, y, width, height))
    return path


def starts(size: int) -> list[int]:
    """Where windows start along an axis."""
    return [*range(0, size - _SIDE, _STEP), size - _SIDE]


def measured(side: str, scene: Path, ensemble: Path, folder: Path, device: str = "cpu") -> tuple[float, float]:
    """Run one side in a process; return its seconds without the start of Python, and its peak memory in MB."""
    python, environment = sys.executable, dict(os.environ)
    if side == "terratorch":
        python, environment["PYTHONPATH"] = _PEER, os.pathsep.join(["src", "."])
    command = [python, "-m", "benchmarks.map", side, str(scene), str(ensemble), str(folder / f"out.{side}.tif"), device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    return seconds, megabytes


def _whole_scene(path: Path) -> tuple[np.ndarray, dict]:
    """Read a scene into memory, in the units of the patches: (14, H, W) float32, and the profile of the file."""
    with rasterio.open(path) as source:
        image = np.zeros((14, *source.shape), np.float32)
        for i, name in enumerate(_BANDS):
            image[i] = source.read(i + 1) / np.float32(STORED_DIVISORS[name])
        return image, source.profile


def _write_map(path: Path, values: np.ndarray, profile: dict) -> None:
    profile.update(count=1, dtype="float32", driver="GTiff")
    with rasterio.open(path, "w", **profile) as target:
        target.write(values, 1)


def plain(scene: Path, ensemble: Path, out: Path, device: str) -> None:
    """The plain script."""
    model = load_ensemble(ensemble, torch.device(device))
    image, profile = _whole_scene(scene)
    total, count = np.zeros(image.shape[1:], np.float32), np.zeros(image.shape[1:], np.float32)
    for y in starts(image.shape[1]):
        for x in starts(image.shape[2]):
            part = np.s_[y : y + _SIDE, x : x + _SIDE]
            total[part] += model.predict(image[None, :, *part])[0][0]
            count[part] += 1
    _write_map(out, total / count, profile)


def terratorch(scene: Path, ensemble: Path, out: Path, device: str) -> None:
    """TerraTorch's tiled inference."""
    from terratorch.tasks.tiled_inference import tiled_inference

    model = load_ensemble(ensemble, torch.device(device))
    image, profile = _whole_scene(scene)

    def forward(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(model.predict(batch.numpy(), batch_size=len(batch))[0])[:, None]

    found = tiled_inference(
        forward, torch.from_numpy(image)[None], crop=_SIDE, stride=_STEP, delta=0, padding=False, batch_size=8
    )
    _write_map(out, found[0, 0].numpy(), profile)


def ours(scene: Path, ensemble: Path, out: Path, device: str, precision: "Precision" = "float32") -> None:
    """`landslide map`, with all its products."""
    from landslide.mapping.model import open_model
    from landslide.mapping.plan import make_plan
    from landslide.mapping.scene_map import default_workers, map_scene
    from landslide.mapping.settings import MappingSettings
    from landslide.scenes.exclusions import ExclusionSettings
    from landslide.scenes.scene import open_scene

    maps = out.with_suffix("")
    model = open_model(str(ensemble), maps, torch.device(device))
    # Random networks give random polygons by the million; none of them counts here.
    settings = MappingSettings(threshold=0.9999, precision=precision)
    plan = make_plan(open_scene(scene), model, settings, ExclusionSettings(), ())
    finished = map_scene(plan, maps, workers=default_workers(model), overwrite=True)
    print(f"prediction: {finished.summary['seconds']:.1f} s", file=sys.stderr, flush=True)
    shutil.copy(finished.folder / "probability.tif", out)
    shutil.rmtree(maps)


if __name__ == "__main__":
    side, *paths, device = sys.argv[1:]
    started = time.perf_counter()
    scene_file, ensemble_folder, target = map(Path, paths)
    if side == "plain":
        plain(scene_file, ensemble_folder, target, device)
    elif side == "terratorch":
        terratorch(scene_file, ensemble_folder, target, device)
    else:
        ours(scene_file, ensemble_folder, target, device, "bfloat16" if side == "ours_bfloat16" else "float32")
    print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
