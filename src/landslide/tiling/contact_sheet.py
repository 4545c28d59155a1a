"""Contact sheets: patches with the outlines of their landslides, on one picture."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from landslide.data.patches import PatchFiles, find_patches, read_mask, read_stored
from landslide.errors import DataError, first_few
from landslide.evaluation.figures import rgb_composite
from landslide.files import atomic_write
from landslide.schema import ORIGINAL_BANDS

_OURS = {"Software": "landslide"}
_MARK = b"tEXtSoftware\0landslide"  # of a PNG file with these metadata, near its begin: it may be replaced
_OUTLINE = "#ff2fa0"
_COLUMNS = 6
_SHOWN = 24  # patches, unless they are named
_PANEL = 2.2  # inches
_WITHOUT = 4  # one patch of so many is one without landslides

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True)
class Sample:
    """A picture with landslides.

    Attributes:
        title: What stands above it.
        picture: (H, W, 3) in [0, 1].
        landslide: (H, W) where landslides are.
    """

    title: str
    picture: npt.NDArray[np.float64]
    landslide: npt.NDArray[np.bool_]


def draw_contact_sheet(
    folder: Path, path: Path, *, bands: Sequence[str] | None = None, numbers: Sequence[int] = ()
) -> str:
    """Draw training patches of a data set with their numbers, the outlines and the share of their landslides.

    Args:
        folder: The data set; nothing in it changes.
        path: The PNG file, outside of the folder.
        bands: The bands of the images in stored order; None for the 14 of Landslide4Sense, or unknown ones.
        numbers: The patches; none for those with most landslides, and some without.

    Returns:
        What was drawn, as a line for people.

    Raises:
        DataError: A patch is missing or cannot be read, or the path is somebody else's file.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{path} lies in the data set {folder}.", remedy="Choose a name outside of it.")
    refuse_picture(path)
    patches = {patch.number: patch for patch in find_patches(folder)}
    if missing := [str(number) for number in numbers if number not in patches]:
        raise DataError(
            f"{folder} has no training patch {first_few(missing)}.",
            remedy=f"It has {len(patches):,}, from {min(patches)} to {max(patches)}.",
        )
    masks = {number: read_mask(_mask_of(patches[number])) for number in numbers or patches}
    pixels = {number: int(mask.sum()) for number, mask in masks.items()}
    chosen = list(dict.fromkeys(numbers)) or choose(pixels, _SHOWN)
    names = tuple(bands or _bands_of(patches[chosen[0]].image))
    samples = [
        Sample(
            f"{number}: {100 * pixels[number] / masks[number].size:.2f} %",
            picture_of(read_stored(patches[number].image, len(names)), names),
            masks[number] != 0,
        )
        for number in chosen
    ]
    write_picture(sheet_figure(samples), path)
    text = f"drew {len(chosen):,} of {len(patches):,} patches, {sum(pixels[n] > 0 for n in chosen):,} with landslides"
    return text if {"B4", "B3", "B2"} <= set(names) else f"{text}; in gray: --bands would name B4, B3 and B2"


def picture_of(image: npt.NDArray[Any], bands: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return an image in true colours if it has B4, B3 and B2, otherwise its first band in gray.

    Args:
        image: (H, W, C); what is not finite is shown as the median of its band.
        bands: The C names.

    Returns:
        (H, W, 3) in [0, 1].
    """
    values = np.moveaxis(image, -1, 0).astype(np.float64)
    for band in values:
        finite = np.isfinite(band)
        band[~finite] = np.median(band[finite]) if finite.any() else 0
    return rgb_composite(values, bands)


def choose(landslide_pixels: Mapping[_K, int], n: int) -> list[_K]:
    """Choose samples: those with most landslides, and some without.

    Args:
        landslide_pixels: Pixels of landslides by sample.
        n: How many are wanted.
    """
    positive = sorted((one for one, pixels in landslide_pixels.items() if pixels), key=lambda k: -landslide_pixels[k])
    negative = [one for one, pixels in landslide_pixels.items() if not pixels]
    n_negative = min(len(negative), max(n // _WITHOUT, n - len(positive)))
    spread = [negative[i * len(negative) // n_negative] for i in range(n_negative)]
    return positive[: n - n_negative] + spread


def sheet_figure(samples: Sequence[Sample]) -> Figure:
    """Draw samples in rows, landslides as outlines."""
    columns = min(_COLUMNS, len(samples))
    figure, axes = _panels(-(-len(samples) // columns), columns)
    for axis, sample in zip(axes, samples, strict=False):
        _show(axis, sample.title, sample.picture)
        _outline(axis, sample.landslide)
    return figure


def pairs_figure(samples: Sequence[Sample]) -> Figure:
    """Draw one sample per row: the picture, and beside it the landslides over it."""
    figure, axes = _panels(len(samples), 2, size=2 * _PANEL)
    for left, right, sample in zip(axes[::2], axes[1::2], samples, strict=True):
        _show(left, sample.title, sample.picture)
        covered = np.zeros((*sample.landslide.shape, 4))
        covered[sample.landslide] = (1.0, 0.18, 0.63, 0.45)
        _show(right, f"landslides: {100 * sample.landslide.mean():.2f} %", sample.picture)
        right.imshow(covered, interpolation="nearest")
        _outline(right, sample.landslide)
    return figure


def write_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file; a file that this function wrote is replaced.

    Raises:
        DataError: The path is another file, or no PNG file.
    """
    refuse_picture(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata=_OURS)


def refuse_picture(path: Path) -> None:
    """Refuse a path where somebody else's file lies, or of another kind.

    Raises:
        DataError: It is one.
    """
    if path.suffix.lower() != ".png":
        raise DataError(f"{path} is no name of a PNG file.", remedy="Give a name that ends in .png.")
    if not path.exists() and not path.is_symlink():
        return
    if path.is_symlink() or not path.is_file() or _MARK not in path.read_bytes()[:1000]:
        raise DataError(
            f"{path} exists and was not drawn by this command.", remedy="Choose another name for the picture."
        )


def _mask_of(patch: PatchFiles) -> Path:
    assert patch.mask is not None  # of training patches
    return patch.mask


def _bands_of(image: Path) -> tuple[str, ...]:
    """Return the bands of images of which only the number of bands is known."""
    try:
        with h5py.File(image, "r") as file:
            n_bands = file["img"].shape[-1]
    except Exception:  # reading the image says what is wrong with it
        n_bands = len(ORIGINAL_BANDS)
    return ORIGINAL_BANDS if n_bands == len(ORIGINAL_BANDS) else tuple(f"band {i}" for i in range(1, n_bands + 1))


def _panels(rows: int, columns: int, size: float = _PANEL) -> tuple[Figure, list[Axes]]:
    title = 0.3
    width, height = columns * size, rows * (size + title)
    figure = Figure(figsize=(width, height), dpi=120)
    top = {"left": 0.05 / width, "right": 1 - 0.05 / width, "bottom": 0.05 / height, "top": 1 - title / height}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**top, "wspace": 0.03, "hspace": title / size})
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, list(axes.flat)


def _show(axis: Axes, title: str, picture: npt.NDArray[np.float64]) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(title, fontsize=7, pad=3)


def _outline(axis: Axes, landslide: npt.NDArray[np.bool_]) -> None:
    if landslide.any():
        closed = np.pad(landslide, 1).astype(float)  # or what touches an edge would be open there
        rows, columns = (np.arange(-1, side + 1) for side in landslide.shape)
        axis.contour(columns, rows, closed, levels=[0.5], colors=_OUTLINE, linewidths=0.9)
        axis.set(xlim=(-0.5, landslide.shape[1] - 0.5), ylim=(landslide.shape[0] - 0.5, -0.5))
