"""The 26 bands, and three more on request: names, groups, formulas.

Bands 1-14 are stored in the patch files; bands 15-26 are computed from six of them (paper, section IV-A and
Table II). Where the paper leaves a formula open, the defaults of `BandSettings` are what its authors computed:
"Gaussian" is a 10x10 box blur, "median" is 15x15, and the filters see an 8-bit gray scaled per patch.

Everything here is a pure function of one patch: nothing is estimated from the data set, so no fold can leak
into another through a band. All arithmetic that decides a rounding (the 8-bit gray) is done in float64.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from landslide.errors import ConfigurationError, refuse_settings_without_effect
from landslide.schema import ORIGINAL_BANDS, STORED_DIVISORS

Floats: TypeAlias = npt.NDArray[np.float64]

ENGINEERED_BANDS: tuple[str, ...] = (
    "red_normalized",
    "green_normalized",
    "blue_normalized",
    "ndvi",
    "ndmi",
    "nbr",
    "gray",
    "gaussian",
    "median",
    "gradient_x",
    "gradient_y",
    "canny",
)
BAND_NAMES: tuple[str, ...] = (*ORIGINAL_BANDS, *ENGINEERED_BANDS)
"""The paper's 26 bands, in its order."""
GLOBAL_RGB_BANDS: tuple[str, ...] = ("red_global", "green_global", "blue_global")
"""Bands that exist only with `BandSettings.global_rgb`."""

# The groups of the paper's Table IV take the first n bands; Sentinel-2 only is the 23 without slope and DEM; `rgb` are
# the nine bands of the authors' RGB set: as stored, scaled patch by patch, scaled alike in all patches.
BAND_GROUPS: dict[str, tuple[str, ...]] = {
    **{str(n): BAND_NAMES[:n] for n in (14, 17, 21, 23, 25, 26)},
    "sentinel_only": tuple(name for name in BAND_NAMES[:23] if name not in ("slope", "dem")),
    "rgb": ("B4", "B3", "B2", *ENGINEERED_BANDS[:3], *GLOBAL_RGB_BANDS),
}

_GRAY_BANDS = ("gray", "gaussian", "median", "gradient_x", "gradient_y", "canny")
SOURCES: dict[str, tuple[str, ...]] = {  # stored bands of each formula, of an index in the order of its terms
    "red_normalized": ("B4",),
    "green_normalized": ("B3",),
    "blue_normalized": ("B2",),
    "ndvi": ("B8", "B4"),
    "ndmi": ("B8", "B11"),
    "nbr": ("B8", "B12"),
    **dict.fromkeys(_GRAY_BANDS, ("B2", "B3", "B4")),
    "red_global": ("B4",),
    "green_global": ("B3",),
    "blue_global": ("B2",),
}
# Digital number of Sentinel-2 that is 1 in the global RGB bands: a reflectance of 0.6 (authors' record).
_GLOBAL_RGB_MAXIMUM = 6_000.0
# A 5x5 Sobel response of the 0-1 gray, brought to about [-1, 1] (the authors' constant).
_SOBEL_SCALE = 27.32
_MIN_DENOMINATOR = 1e-8
# Number of pixels from which OpenCV uses a median algorithm whose time does not grow with the kernel.
_LARGE_IMAGE = 1 << 20
# Number of patches in one median call. That algorithm needs at least 58 patches of 128 x 128.
_BLOCK = 64
# One array per thread for the patch in float64. With a new array per patch, the C library would return memory to the
# system and request it again, which costs more than all the formulas.
_own = threading.local()


@dataclass(frozen=True, kw_only=True)
class BandSettings:
    """How the engineered bands are computed and stored. Part of the cache key."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    stored: tuple[str, ...] = ORIGINAL_BANDS
    """The bands in the patch files, in file order: distinct names out of the 14 of Landslide4Sense."""
    reflectance: bool = False
    """Compute the indices from reflectance, that is, with the publishers' divisors multiplied back. The authors' code
    takes the values as stored. The stored bands themselves stay as they are."""
    blur: Literal["box", "gaussian"] = "box"
    """The filter of the band `gaussian`: `box` as in the authors' code, `gaussian` as the paper's text says (Table
    II)."""
    blur_kernel: int = 10
    """Side of the blur kernel in pixels, 1 or more, odd for `gaussian`. 10 in the paper."""
    median_kernel: int = 15
    """Side of the median kernel in pixels, odd, 3 or more. 15 in the authors' code."""
    canny_low: float = 150.0
    """Lower hysteresis threshold of the Canny edges, on gray from 0 to 255 (authors' code)."""
    canny_high: float = 227.0
    """Upper hysteresis threshold of the Canny edges, on gray from 0 to 255 (authors' code)."""
    global_rgb: bool = False
    """Also compute `red_global`, `green_global` and `blue_global`, last in the order of the bands: digital numbers from
    0 to 6,000 scaled to 0-1 and clipped, with one scale for all patches (authors' record). They are for values that
    are divided by the publishers' means; 8-bit RGB would be 1 nearly everywhere."""
    level: Literal["L1C", "L2A"] = "L1C"
    """Processing level of the reflectance in the patch files: `L1C` at the top of the atmosphere, as in
    Landslide4Sense, or `L2A` at the surface. Bands do not depend on it; a map of a scene of the other level gives a
    warning."""
    units: Literal["landslide4sense", "digital_numbers", "reflectance"] = "landslide4sense"
    """What the patch files hold, so that scenes are brought to the same: digital numbers, degrees and metres divided by
    the publishers' means (`landslide4sense`) or not (`digital_numbers`, reflectance x 10,000), or `reflectance` from 0
    to 1. Bands do not depend on it."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number format of the band cache on disk. float16 keeps 11 significant bits."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.stored if name not in ORIGINAL_BANDS]
        if unknown or not self.stored or len(set(self.stored)) != len(self.stored):
            raise ConfigurationError(
                f"bands.stored lists {list(self.stored)}: unknown {unknown}, or empty, or a name twice.",
                remedy=f"Use distinct names out of {', '.join(ORIGINAL_BANDS)}, in the order of the files.",
            )
        if self.blur_kernel < 1 or (self.blur == "gaussian" and self.blur_kernel % 2 == 0):
            raise ConfigurationError(
                f"bands.blur_kernel is {self.blur_kernel} for blur {self.blur}.",
                remedy="Use a positive kernel side, odd for blur: gaussian.",
            )
        if self.median_kernel < 3 or self.median_kernel % 2 == 0:
            raise ConfigurationError(
                f"bands.median_kernel is {self.median_kernel}.", remedy="Use an odd kernel side of 3 or more."
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The bands that these settings give, in order: see `available_bands`."""
        return available_bands(self.stored, global_rgb=self.global_rgb)

    def refuse_settings_without_effect(self) -> None:
        """Refuse settings of bands that the stored ones do not give.

        Only configurations are checked for these; a registered model loads with the settings it was trained with.

        Raises:
            ConfigurationError: If a setting of a band that does not exist is set.
        """
        for bands, names in (
            (("gray",), ("blur", "blur_kernel", "median_kernel", "canny_low", "canny_high")),
            (("ndvi", "ndmi", "nbr"), ("reflectance",)),
            (GLOBAL_RGB_BANDS, ("global_rgb",)),
        ):
            if not set(bands) & set(self.names):
                because = f"{' or '.join(bands)} cannot be computed from bands.stored"
                refuse_settings_without_effect(self, "bands", names, because=because)

    @property
    def reach(self) -> dict[str, int]:
        """Distance in pixels at which a pixel still changes a band, for each band that depends on neighbouring pixels.

        `canny` compares 3x3 gradients with those of the neighbours: two pixels. Its hysteresis can propagate along an
        edge without limit, which is not counted. The scale of the 8-bit gray depends on the whole patch, which is not
        counted either.
        """
        return {
            "gaussian": self.blur_kernel // 2,
            "median": self.median_kernel // 2,
            "gradient_x": 2,
            "gradient_y": 2,
            "canny": 2,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BandSettings":
        """Return the settings that `to_dict` wrote, also if they went through JSON."""
        return cls(**{**values, "stored": tuple(values["stored"])})


def available_bands(stored: Sequence[str] = ORIGINAL_BANDS, *, global_rgb: bool = False) -> tuple[str, ...]:
    """Return which of the 26 bands exist for patches that store `stored`, stored bands first.

    An engineered band exists where every band of its formula is stored: RGB patches have no NDVI. With `global_rgb`
    the `GLOBAL_RGB_BANDS` of the stored colours follow.
    """
    engineered = (*ENGINEERED_BANDS, *GLOBAL_RGB_BANDS) if global_rgb else ENGINEERED_BANDS
    return (*stored, *(name for name in engineered if set(SOURCES[name]) <= set(stored)))


def source_bands(names: Sequence[str]) -> tuple[str, ...]:
    """Return the stored bands from which bands are computed, in the order of `ORIGINAL_BANDS`."""
    needed = {source for name in names for source in SOURCES.get(name, (name,))}
    return tuple(name for name in ORIGINAL_BANDS if name in needed)


def resolve_bands(selection: str | int | Sequence[str], available: Sequence[str] = BAND_NAMES) -> tuple[str, ...]:
    """Turn a band selection into band names.

    Args:
        selection: A group (`14`, `17`, `21`, `23`, `25`, `26`, `sentinel_only`, `rgb`), `all` for every available
            band, or a list of names.
        available: The bands to choose from, as `BandSettings.names` and `available_bands` give them.

    Returns:
        The names in the order of the selection.

    Raises:
        ConfigurationError: On an unknown group or name, a repeated name, or a band that is not available.
    """
    if isinstance(selection, str | int):
        group = str(selection)
        if group == "all":
            return tuple(available)
        if group not in BAND_GROUPS:
            raise ConfigurationError(
                f"There is no band group {group!r}.",
                remedy=f"Use one of {', '.join(BAND_GROUPS)}, all, or a list of band names.",
            )
        names = BAND_GROUPS[group]
    else:
        names = tuple(selection)
    missing = [name for name in names if name not in available]
    if missing and set(missing) <= set(GLOBAL_RGB_BANDS):
        raise ConfigurationError(
            f"The band selection {selection!r} asks for {', '.join(missing)}, which are not computed by default.",
            remedy="Set bands.global_rgb: true; the patches have to store B4, B3 and B2.",
        )
    if missing or not names or len(set(names)) != len(names):
        raise ConfigurationError(
            f"The band selection {selection!r} asks for {missing or list(names)}, which these patches do not "
            f"offer or which is empty or repeats a band.",
            remedy=f"Choose distinct names out of {', '.join(available)}.",
        )
    return names


def engineer(
    image: npt.NDArray[Any], settings: BandSettings | None = None, names: Sequence[str] | None = None
) -> npt.NDArray[np.float32]:
    """Compute bands of one patch or of each patch of a batch (paper, section IV-A, Table II).

    Args:
        image: A patch (H, W, C) as in the files or (C, H, W), or a batch (N, H, W, C) or (N, C, H, W); any real
            dtype, values as stored. C is the number of bands in `settings.stored`, 14 by default.
        settings: Formula settings; the defaults are the authors' computation.
        names: The bands to compute, out of `settings.names`; all of them by default.

    Returns:
        (B, H, W) float32 for a patch, (N, B, H, W) for a batch: the bands in the order of `names`. By default these are
        the stored bands unchanged, then the engineered ones, in the order of `settings.names`, which for 14 stored
        bands and no `global_rgb` is `BAND_NAMES`. Always finite for a finite image: a constant patch gives zeros
        wherever a formula divides by its range.

    Raises:
        ValueError: If the shape does not fit the declared bands, or if the settings do not give a band.
    """
    settings = settings or BandSettings()
    names = settings.names if names is None else names
    image = _channels_first(np.asarray(image), len(settings.stored))
    if image.ndim == 3:
        return next(engineer_each([image], settings, names=names))
    bands = np.empty((len(image), len(names), *image.shape[2:]), np.float32)
    for target, computed in zip(bands, engineer_each(image, settings, names=names), strict=True):
        target[:] = computed
    return bands


def engineer_each(
    images: Iterable[npt.NDArray[Any]],
    settings: BandSettings,
    convert: Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]] = lambda bands: bands,
    names: Sequence[str] | None = None,
) -> Iterator[npt.NDArray[Any]]:
    """Compute the bands of patches that are read one at a time, so that not all of them are in memory.

    Args:
        images: Patches of one shape, each (H, W, C) or (C, H, W) as for `engineer`.
        settings: Formula settings.
        convert: Changes the number format of the bands (B, H, W) of a patch before the next one is read. Several
            patches are in memory at a time; in float16 they take half of it.
        names: The bands to compute, as for `engineer`.

    Yields:
        The bands (B, H, W) of each patch, as `engineer` returns them, in the number format of `convert`.

    Raises:
        ValueError: If a shape does not fit the declared bands, or if the settings do not give a band.
    """
    names = settings.names if names is None else names
    if unknown := set(names) - set(settings.names):
        raise ValueError(f"These settings give no {', '.join(sorted(unknown))}.")
    remaining = iter(images)
    while block := [
        (convert(bands), gray)
        for bands, gray in (_all_but_median(image, settings, names) for image in islice(remaining, _BLOCK))
    ]:
        if "median" in names:
            row = names.index("median")
            medians = _medians([gray for _, gray in block if gray is not None], settings.median_kernel)
            for (bands, _), median in zip(block, medians, strict=True):
                bands[row] = _unit(median)
        while block:  # yielded arrays do not stay in memory
            yield block.pop(0)[0]


class _Gray:
    """The gray of a patch: the mean of blue, green and red, (H, W) float64."""

    def __init__(self, band: Mapping[str, Floats]) -> None:
        self.plain = band["B2"] + band["B3"]
        self.plain += band["B4"]
        self.plain /= 3.0

    @cached_property
    def scaled(self) -> Floats:
        """Scaled to 0-1."""
        return _min_max(self.plain)

    @cached_property
    def eight_bits(self) -> npt.NDArray[np.uint8]:
        """Scaled to 0-255 and truncated, as the authors' code does; uint8."""
        return (self.scaled * 255.0).astype(np.uint8)


def _all_but_median(
    image: npt.NDArray[Any], settings: BandSettings, names: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8] | None]:
    """Compute bands of one patch except `median`; return them and, if `median` is among them, the 8-bit gray."""
    stored = _channels_first(image, len(settings.stored))
    band = dict(zip(settings.stored, _as_float64(stored), strict=True))
    gray = _Gray(band) if set(_GRAY_BANDS) & set(names) else None
    out = np.empty((len(names), *stored.shape[1:]), np.float32)
    for target, name in zip(out, names, strict=True):
        if name in band:
            target[:] = band[name]
        elif name.endswith("_normalized"):
            target[:] = _min_max(band[SOURCES[name][0]])
        elif name in GLOBAL_RGB_BANDS:
            (source,) = SOURCES[name]
            target[:] = np.clip(band[source] * (STORED_DIVISORS[source] / _GLOBAL_RGB_MAXIMUM), 0.0, 1.0)
        elif name in ("ndvi", "ndmi", "nbr"):
            target[:] = _normalized_difference(*(_index_input(band, n, settings) for n in SOURCES[name]))
        elif gray is not None and name != "median":
            target[:] = _gray_feature(name, gray, settings)
    return out, gray.eight_bits if gray is not None and "median" in names else None


def _medians(grays: Sequence[npt.NDArray[np.uint8]], kernel: int) -> Iterable[npt.NDArray[Any]]:
    """Return the median-filtered grays.

    For an image of 2^20 pixels or more, OpenCV uses another algorithm for the same median, which for 15x15 is twice as
    fast (docs/performance.md). Therefore patches are tiled into one large image. Each patch has its
    edges replicated as far as the kernel reaches, as OpenCV does at the borders of an image.
    """
    reach = kernel // 2
    height, width = grays[0].shape
    shape = (height, len(grays), width + 2 * reach)
    if math.prod(shape) < _LARGE_IMAGE:
        return [cv2.medianBlur(gray, kernel) for gray in grays]
    strip, inside = np.empty(shape, np.uint8), slice(reach, reach + width)
    for i, gray in enumerate(grays):
        strip[:, i, inside] = gray
        strip[:, i, :reach], strip[:, i, reach + width :] = gray[:, :1], gray[:, -1:]
    filtered = cv2.medianBlur(strip.reshape(height, -1), kernel).reshape(shape)
    return filtered[:, :, inside].transpose(1, 0, 2)


def _channels_first(image: npt.NDArray[Any], n_bands: int) -> npt.NDArray[Any]:
    """Return a view (C, H, W) of a patch, (N, C, H, W) of a batch."""
    if image.ndim in (3, 4) and image.shape[-3] == n_bands:
        return image
    if image.ndim in (3, 4) and image.shape[-1] == n_bands:
        return np.moveaxis(image, -1, -3)
    raise ValueError(
        f"A patch of {n_bands} bands has shape (H, W, {n_bands}) or ({n_bands}, H, W), a batch (N, H, W, {n_bands}) or "
        f"(N, {n_bands}, H, W), not {image.shape}."
    )


def _as_float64(stored: npt.NDArray[Any]) -> Floats:
    """Return a patch (C, H, W) as a contiguous float64 array.

    The thread's next call overwrites it: nothing that is returned to a user may be a view of it.
    """
    planes: Floats | None = getattr(_own, "planes", None)
    if planes is None or planes.shape != stored.shape:
        planes = _own.planes = np.empty(stored.shape)
    pixels = stored.transpose(1, 2, 0)
    if pixels.flags.c_contiguous and pixels.dtype == np.float64:
        cv2.transpose(pixels.reshape(-1, len(stored)), planes.reshape(len(stored), -1))
    else:
        planes[:] = stored
    return planes


def _index_input(band: Mapping[str, Floats], name: str, settings: BandSettings) -> Floats:
    return band[name] * STORED_DIVISORS[name] if settings.reflectance else band[name]


def _min_max(x: Floats) -> Floats:
    low, high = x.min(), x.max()
    if not high > low:
        return np.zeros_like(x)
    scaled: Floats = x - low
    scaled /= high - low
    return scaled


def _normalized_difference(a: Floats, b: Floats) -> Floats:
    ratio, denominator = a - b, a + b
    ratio /= np.clip(denominator, _MIN_DENOMINATOR, np.inf, out=denominator)
    np.clip(ratio, -1.0, 1.0, out=ratio)
    return ratio


def _unit(eight_bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Divide by 255; for all 256 values float32 gives what float64 and rounding give."""
    unit: npt.NDArray[np.float32] = np.divide(eight_bits, 255, dtype=np.float32)
    return unit


def _gray_feature(name: str, gray: _Gray, settings: BandSettings) -> npt.NDArray[Any]:
    """Return gray, blur, Sobel x, Sobel y or Canny, (H, W)."""
    kernel = (settings.blur_kernel, settings.blur_kernel)
    if name == "gray":
        return gray.plain
    if name == "gaussian":
        if settings.blur == "gaussian":
            return _unit(cv2.GaussianBlur(gray.eight_bits, kernel, 0))
        return _unit(cv2.blur(gray.eight_bits, kernel))
    if name == "canny":
        return _unit(cv2.Canny(gray.eight_bits, settings.canny_low, settings.canny_high))
    dx, dy = (1, 0) if name == "gradient_x" else (0, 1)
    return cv2.Sobel(gray.scaled, cv2.CV_64F, dx, dy, ksize=5) / _SOBEL_SCALE
