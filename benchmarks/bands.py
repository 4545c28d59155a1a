"""The 26 bands of a patch: `landslide.bands.engineer` against a plain float64 way, on one core.

    python benchmarks/bands.py

Both sides start from the array as stored, (128, 128, 14) float64, and end with (26, 128, 128) float32; the results
are compared before anything is timed. The sides take turns, one pass over all patches each, as in building a cache.
Uses the real patches where they are (LANDSLIDE_REAL_DATA), generated ones
otherwise.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from landslide import demo
from landslide.bands import engineer
from landslide.patches import find_patches, read_stored

ROUNDS = 15


def plain(image: np.ndarray) -> np.ndarray:
    """Compute every band in float64 with an expression of its own."""
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


def median_only(image: np.ndarray) -> np.ndarray:
    """Compute the 15x15 median alone: what no rearrangement of the rest can save."""
    return cv2.medianBlur(image, 15)


def milliseconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return (time.perf_counter() - start) * 1e3


def stored_patches(folder: Path) -> tuple[str, list[np.ndarray]]:
    """Read the real sample, or generate six patches."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    real = Path(os.environ.get("LANDSLIDE_REAL_DATA", default)) / "landslide4sense-sample"
    if not real.is_dir():
        demo.generate(folder / "data", scenes=((2, 3),))
    root = real if real.is_dir() else folder / "data"
    images = [read_stored(patch.image) for patch in find_patches(root)]
    return f"{len(images)} {'real' if real.is_dir() else 'generated'} patches", images


def main() -> None:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        what, images = stored_patches(Path(folder))
    for image in images:
        np.testing.assert_array_equal(engineer(image), plain(image))
    grays = [(plain(image)[20] * 60).astype(np.uint8) for image in images]
    times: dict[str, list[float]] = {"plain float64": [], "engineer": [], "the 15x15 median alone": []}
    for _ in range(ROUNDS):
        times["plain float64"] += [milliseconds(plain, image) for image in images]
        times["engineer"] += [milliseconds(engineer, image) for image in images]
        times["the 15x15 median alone"] += [milliseconds(median_only, gray) for gray in grays]
    print(f"{what}, {ROUNDS} rounds, one core, identical output")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:24} median {median:6.3f} ms a patch   fastest {min(times[name]):6.3f} ms")
    print(f"ratio of the medians     {medians['plain float64'] / medians['engineer']:.2f}")


if __name__ == "__main__":
    main()
