"""The 26 bands of a patch: `landslide.bands.formulas.engineer` compared with plain float64 code; one core, then all.

Both sides start from the array as stored, (128, 128, 14) float64, and end with (26, 128, 128) float32; the results
are compared before anything is timed. A round is one pass over all patches; `64 patches at once` computes the medians
of 64 patches together, as building a cache does.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks import patches
from benchmarks.measure import Comparison, PlainProcess, in_turn
from landslide.bands.formulas import BandSettings, engineer, engineer_each
from landslide.data.patches import find_patches, read_stored

TOGETHER = 64
AT_ONCE = f"{TOGETHER} patches at once"
SETTINGS = BandSettings()


def plain(image: np.ndarray) -> np.ndarray:
    """Compute every band in float64 by a separate expression."""
    image = np.ascontiguousarray(np.transpose(image.astype(np.float64), (2, 0, 1)))
    blue, green, red, nir, swir_1, swir_2 = (image[i] for i in (1, 2, 3, 7, 10, 11))

    def scaled(x: np.ndarray) -> np.ndarray:
        return (x - x.min()) / (x.max() - x.min()) if x.max() > x.min() else np.zeros_like(x)

    def index(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.clip((a - b) / np.maximum(a + b, 1e-8), -1, 1)

    gray = (blue + green + red) / 3
    gray_8bit = (scaled(gray) * 255).astype(np.uint8)
    engineered = [
        scaled(red),
        scaled(green),
        scaled(blue),
        index(nir, red),
        index(nir, swir_1),
        index(nir, swir_2),
        gray,
        cv2.blur(gray_8bit, (10, 10)) / 255,
        cv2.medianBlur(gray_8bit, 15) / 255,
        cv2.Sobel(scaled(gray), cv2.CV_64F, 1, 0, ksize=5) / 27.32,
        cv2.Sobel(scaled(gray), cv2.CV_64F, 0, 1, ksize=5) / 27.32,
        cv2.Canny(gray_8bit, 150, 227) / 255,
    ]
    return np.concatenate([image, np.stack(engineered)]).astype(np.float32)


def read(root: Path) -> list[np.ndarray]:
    """Read the patches of a folder, as stored, repeated to `TOGETHER` images."""
    images = [read_stored(patch.image) for patch in find_patches(root)]
    return (images * TOGETHER)[:TOGETHER]


def plain_pass(root: Path):
    """Return a function that runs `plain` on all patches of a folder."""
    cv2.setNumThreads(1)
    return partial(each, plain, read(root))


def each(function, images: list) -> None:
    for image in images:
        function(image)


def at_once(images: list[np.ndarray]) -> list[np.ndarray]:
    """Compute all bands of several patches, as `landslide.bands.build.compute_rows` does."""
    return list(engineer_each(images, SETTINGS))


def run(quick: bool) -> list[Comparison]:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        what, root = patches.source(Path(folder))
        images = read(root)
        separate_process = PlainProcess(plain_pass, root)
        for image, result in zip(images, at_once(images), strict=True):
            np.testing.assert_array_equal(engineer(image), plain(image))
            np.testing.assert_array_equal(result, plain(image))
        sides = {
            "plain float64, memory not kept": separate_process,
            "plain float64": partial(each, plain, images),
            "engineer": partial(each, engineer, images),
            AT_ONCE: partial(at_once, images),
        }
        rounds = 5 if quick else 25
        seconds = in_turn(sides, rounds)
        separate_process.close()
    facts = {"patches": f"{len(images)} ({what}, repeated)", "rounds": rounds}
    one_core = Comparison(
        name="bands, one core",
        unit="ms per patch",
        values={name: 1e3 * value / len(images) for name, value in seconds.items()},
        reference="plain float64, memory not kept",
        ours=AT_ONCE,
        goal=1.5,
        limit=1.1,
        facts=facts,
    )
    return [one_core, all_cores(images, rounds, facts)]


def all_cores(images: list[np.ndarray], rounds: int, facts: dict) -> Comparison:
    """Compare one thread with one thread per core."""
    cores = os.cpu_count() or 1
    many = [images] * 2 * cores
    with ThreadPoolExecutor(cores) as pool:

        def threads() -> None:
            list(pool.map(at_once, many))

        seconds = in_turn({"one thread": partial(each, at_once, many), f"{cores} threads": threads}, rounds)
    return Comparison(
        name=f"bands, {cores} cores",
        unit="ms per patch",
        values={name: 1e3 * value / (len(many) * len(images)) for name, value in seconds.items()},
        reference="one thread",
        ours=f"{cores} threads",
        goal=1.8 if cores == 2 else None,
        facts=facts,
    )
