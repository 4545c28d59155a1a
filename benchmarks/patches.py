"""Patches for benchmarks: links to the real sample if it is available, otherwise to generated patches."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from landslide.data import demo
from landslide.data.patches import find_patches
from landslide.data.table import patch_table

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def source(folder: Path) -> tuple[str, Path]:
    """Return a description and the root of the patches: real (LANDSLIDE_REAL_DATA), or 24 generated in `folder`."""
    real = Path(os.environ.get("LANDSLIDE_REAL_DATA", SHARED)) / "landslide4sense-sample"
    if real.is_dir():
        return "real patches", real
    made = folder / "generated"
    if not made.is_dir():
        demo.generate(made, scenes=((4, 6),))
    return "generated patches", made


@contextmanager
def data_set(n: int) -> Iterator[tuple[Path, str, Path, pd.DataFrame]]:
    """Yield a temporary folder, a description of its n patches, their data set, and their table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        what, root = source(folder)
        data = repeated(root, folder / "data", n)
        yield folder, f"{n} ({what}, repeated)", data, patch_table(data)


def repeated(source_root: Path, folder: Path, n: int) -> Path:
    """Return a data set of n patches that are links to those of another, repeated in order."""
    sources = list(find_patches(source_root))
    for kind in ("img", "mask"):
        (folder / "TrainData" / kind).mkdir(parents=True)
    for number in range(1, n + 1):
        patch = sources[(number - 1) % len(sources)]
        (folder / f"TrainData/img/image_{number}.h5").symlink_to(patch.image.resolve())
        (folder / f"TrainData/mask/mask_{number}.h5").symlink_to(patch.mask.resolve())
    return folder
