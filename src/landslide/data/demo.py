"""The demo data set: generated terrain with landslides, in the Landslide4Sense format.

It is deterministic to the byte on any machine. Random numbers are hashes of coordinates. Arithmetic is + - * / and sqrt
on float64, which IEEE 754 rounds in one way only. Every band is rounded to the integer that the sensor would deliver
before it is divided by the published divisor. Therefore this module may not use NumPy's random generators,
transcendental functions, or floating-point sums over arrays: the data version that `data.dvc` pins depends on it.

A scene is generated as a whole and then cut into patches: relief, slope and illumination, land cover, landslides that
run down the relief, reflectance of 12 Sentinel-2 bands with noise.
"""

import csv
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landslide.data.patches import write_array
from landslide.errors import ConfigurationError, DataError
from landslide.schema import STORED_DIVISORS

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PATCH = 128  # pixels
PIXEL = 10.0  # metres
DEFAULT_SCENES = ((6, 5), (4, 7), (2, 11), (4, 5))  # rows, columns; the last is the last fifth: unseen ground
# The digest of the default set, as data.dvc pins it; it changes with every byte that this module generates.
DEMO_VERSION = "9a493a1e846b2972c9b743be42a110f5.dir"
LANDSLIDE_SHARE = 0.0225  # of the pixels; 2.318 % in the real training set

DIVISORS = tuple(STORED_DIVISORS.values())

Spectrum = tuple[int, ...]  # reflectance times 10,000 of B1-B12


@dataclass(frozen=True)
class Country:
    """What the terrain of a seed looks like from above.

    Attributes:
        haze: What the atmosphere adds to every pixel.
        forest: Spectrum at full sun, like the following ones.
        meadow: Likewise.
        bare: Bare ground is one spectrum, whether a field, a river bed or a landslide.
        rock: Likewise.
        water: Likewise.
        sun: Unit vector to the sun along rows, along columns and up.
    """

    haze: Spectrum
    forest: Spectrum
    meadow: Spectrum
    bare: Spectrum
    rock: Spectrum
    water: Spectrum
    sun: tuple[float, float, float]


COUNTRIES = {
    # Green, with the sun in the south-east. Orders of magnitude as in the real patches.
    1: Country(
        haze=(870, 590, 380, 210, 220, 200, 180, 170, 90, 4, 30, 20),
        forest=(110, 120, 230, 150, 390, 1400, 1850, 1850, 740, 6, 960, 400),
        meadow=(150, 210, 400, 310, 680, 1800, 2300, 2420, 940, 8, 1600, 800),
        bare=(340, 520, 710, 900, 1050, 1380, 1550, 1560, 780, 14, 2050, 1560),
        rock=(330, 500, 640, 740, 800, 900, 960, 960, 560, 22, 1350, 1150),
        water=(110, 120, 120, 80, 70, 60, 50, 45, 20, 2, 25, 15),
        sun=(0.5, 0.5, 0.70710678),
    ),
    # South of the equator: drier, on red soil rich in iron and dark rock, dusty, with a lower sun in the north-east.
    2: Country(
        haze=(1010, 710, 480, 290, 290, 260, 230, 220, 110, 5, 38, 26),
        forest=(120, 130, 250, 170, 420, 1390, 1800, 1820, 730, 6, 1030, 440),
        meadow=(170, 240, 440, 350, 730, 1790, 2230, 2350, 930, 8, 1720, 890),
        bare=(250, 350, 580, 1090, 1300, 1510, 1660, 1740, 870, 15, 2350, 1800),
        rock=(260, 380, 470, 530, 570, 620, 650, 660, 400, 18, 950, 850),
        water=(160, 200, 270, 260, 190, 110, 90, 80, 40, 2, 35, 20),
        sun=(-0.48, 0.64, 0.6),
    ),
}


def generate(
    destination: Path, *, seed: int = 0, country: int = 1, scenes: Sequence[tuple[int, int]] = DEFAULT_SCENES
) -> None:
    """Write a generated data set in the Landslide4Sense layout, completely or not at all.

    `TrainData/img/image_N.h5` holds `img`, float64 (128, 128, 14); `TrainData/mask/mask_N.h5` holds `mask`,
    uint8 (128, 128), 1 on a landslide; `scenes.csv` lists scene (from 1), row and column (from 0) of every N.
    N runs from 1 over the scenes in row-major order.

    Args:
        destination: A folder that is missing or empty.
        seed: Seed; another seed gives another terrain.
        country: Key of `COUNTRIES`; another country gives other spectra of the same terrain and landslides.
        scenes: (rows, columns) of each scene, counted in patches.

    Raises:
        DataError: The destination is not empty, is no folder, or cannot be written.
        ConfigurationError: A scene has no rows or no columns, or there is no scene; or there is no such country.
    """
    if not scenes or any(rows < 1 or columns < 1 for rows, columns in scenes):
        raise ConfigurationError(
            f"scenes = {list(scenes)}: each scene needs at least one row and one column of patches.",
            remedy="Give pairs of positive numbers, for example (4, 5).",
        )
    if country not in COUNTRIES:
        raise ConfigurationError(
            f"country = {country}: there is no such country.",
            remedy=f"Choose one of {', '.join(map(str, COUNTRIES))}.",
        )
    destination = Path(destination).resolve()
    _refuse_what_is_not_empty(destination)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        _write_all(partial, seed, COUNTRIES[country], scenes)
        partial.rename(destination)
    except OSError as error:
        _refuse_what_is_not_empty(destination)  # another process was quicker
        raise DataError(
            f"{destination} cannot be written: {error}.",
            remedy="Choose a folder that you may write to, on a disk with 2 MB of free space per patch.",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def scene(
    seed: int, number: int, height: int, width: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Floats]:
    """Return one scene of the first country as a whole.

    Args:
        seed: Seed; another seed gives another terrain.
        number: Number of the scene, from 1; another number gives another terrain.
        height: Rows, in pixels of 10 m.
        width: Columns.

    Returns:
        The bands before they are divided, int16 (height, width, 14): digital numbers of B1-B12, slope in degrees,
        elevation in metres; the landslide mask, uint8 (height, width); and the elevation before it is rounded,
        float64 (height, width).
    """
    random = _Random(seed, number, height, width)
    bands, mask = _scene(random, COUNTRIES[1])
    return bands, mask, _relief(random)[1]


def _refuse_what_is_not_empty(destination: Path) -> None:
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if os.path.lexists(destination):
        raise DataError(
            f"{destination} exists and is not an empty folder.",
            remedy="Choose a new folder, or move its content away.",
        )


def _write_all(folder: Path, seed: int, country: Country, scenes: Sequence[tuple[int, int]]) -> None:
    for kind in ("img", "mask"):
        (folder / "TrainData" / kind).mkdir(parents=True)
    positions: list[tuple[int, int, int, int]] = []
    for scene, (rows, columns) in enumerate(scenes, start=1):
        image, mask = _scene(_Random(seed, scene, rows * PATCH, columns * PATCH), country)
        for row in range(rows):
            for column in range(columns):
                n = len(positions) + 1
                tile = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
                write_array(folder / f"TrainData/img/image_{n}.h5", "img", image[tile] / np.array(DIVISORS))
                write_array(folder / f"TrainData/mask/mask_{n}.h5", "mask", mask[tile])
                positions.append((n, scene, row, column))
    with (folder / "scenes.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("n", "scene", "row", "column"), *positions])


def _scene(random: "_Random", country: Country) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return the integer bands (H, W, 14) and the landslide mask (H, W) of one scene."""
    height, elevation = _relief(random)
    gradient = _gradient(elevation)
    steepness = np.sqrt(gradient[0] * gradient[0] + gradient[1] * gradient[1])
    layers = _land_cover(random, height, country)
    bare, mask = _landslides(random, gradient, steepness, rock=layers[-1][1])
    bands = _reflectance(random, country, [*layers, (country.bare, bare)], _illumination(gradient, country.sun))
    bands += [_degrees(steepness), elevation]
    return np.stack([_rounded(band).astype(np.int16) for band in bands], axis=-1), mask


# --- random numbers and noise -------------------------------------------------------------------------------


def _hash(*words: "int | npt.NDArray[Any]") -> npt.NDArray[np.uint64]:
    """Mix integers into 64 bits: a chain of SplitMix64 steps (Steele, Lea and Flood, 2014)."""
    state = np.zeros(1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = state + np.asarray(word).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


@dataclass(frozen=True)
class _Random:
    """The random numbers of one scene of (height, width) pixels, by name and coordinates."""

    seed: int
    scene: int
    height: int
    width: int

    def bits(self, name: str, *coordinates: "int | npt.NDArray[Any]") -> npt.NDArray[np.uint64]:
        seed = np.array(self.seed % 2**64, dtype=np.uint64)
        return _hash(seed, self.scene, zlib.crc32(name.encode()), *coordinates)

    def uniform(self, name: str, *coordinates: "int | npt.NDArray[Any]") -> Floats:
        """Return numbers in [0, 1), one for each of the broadcast coordinates."""
        return (self.bits(name, *coordinates) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def number(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * float(self.uniform(name)[0])

    def noise(self, name: str, wavelength: int, octaves: int = 1, persistence: float = 0.5) -> Floats:
        """Return fractal value noise (height, width) in [0, 1); octaves halve the wavelength (pixels)."""
        total, weight, weights = np.zeros((self.height, self.width)), 1.0, 0.0
        for octave in range(octaves):
            total += weight * self._octave(f"{name} {octave}", wavelength >> octave)
            weights += weight
            weight *= persistence
        return total / weights

    def _octave(self, name: str, wavelength: int) -> Floats:
        offset = self.bits(name, np.arange(2)) % np.uint64(wavelength)  # separates the lattices of the octaves
        (top, y), (left, x) = (
            _lattice(size, wavelength, int(start))
            for size, start in zip((self.height, self.width), offset, strict=True)
        )
        knots = self.uniform(name, np.arange(top[-1] + 2)[:, None], np.arange(left[-1] + 2))
        rows = knots[top] + y[:, None] * (knots[top + 1] - knots[top])
        before = rows[:, left]
        return before + x * (rows[:, left + 1] - before)


def _lattice(size: int, wavelength: int, offset: int) -> tuple[Integers, Floats]:
    """Return for each pixel the lattice point before it and the smoothed way (0 to 1) to the next one."""
    pixel = np.arange(size) + offset
    knot = pixel // wavelength
    return knot, _smooth((pixel - knot * wavelength) / wavelength)


def _smooth(t: Floats) -> Floats:
    """Perlin's (2002) quintic step, flat to second order at 0 and 1."""
    return t * t * t * (t * (t * 6.0 - 15.0) + 10.0)


def _ramp(values: Floats, low: float, high: float) -> Floats:
    """Smooth step from 0 at `low` to 1 at `high`; falls where high < low."""
    return _smooth(np.minimum(np.maximum((values - low) / (high - low), 0.0), 1.0))


def _rounded(values: Floats) -> Integers:
    return np.floor(values + 0.5).astype(np.int64)


# --- relief -------------------------------------------------------------------------------------------------


def _relief(random: _Random) -> tuple[Floats, Floats]:
    """Return the height above the valley floor (0 to about 1) and the elevation in metres, both (H, W)."""
    rolling = random.noise("relief", 256, octaves=7, persistence=0.42)
    ridged = 1.0 - np.abs(2.0 * random.noise("ridges", 256, octaves=5, persistence=0.4) - 1.0)
    height = np.maximum(0.55 * rolling + 0.45 * ridged - 0.46, 0.0) / 0.4
    height = height * height / (height + 0.05)  # the valley sides rise gently from a flat floor
    plain = 30.0 * random.noise("plain", 256, octaves=4)
    base, relief = random.number("base", 500.0, 1000.0), random.number("relief", 900.0, 1500.0)
    return height, base + plain + relief * height


def _gradient(elevation: Floats) -> tuple[Floats, Floats]:
    """Return the rise per metre along rows and along columns, by central differences."""
    padded = np.pad(elevation, 1, mode="edge")
    down = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / (2.0 * PIXEL)
    right = (padded[1:-1, 2:] - padded[1:-1, :-2]) / (2.0 * PIXEL)
    return down, right


def _degrees(steepness: Floats) -> Floats:
    """Return the angle in degrees of a rise per metre, to 0.1 degree.

    A convergent of the arctangent's continued fraction (Abramowitz and Stegun 4.4.43), mirrored above 1.
    """
    t = np.where(steepness > 1.0, 1.0 / np.maximum(steepness, 1.0), steepness)
    square = t * t
    radians = t * (105.0 + 55.0 * square) / (105.0 + 90.0 * square + 9.0 * square * square)
    degrees: Floats = radians * 57.29577951308232
    return np.where(steepness > 1.0, 90.0 - degrees, degrees)


def _illumination(gradient: tuple[Floats, Floats], sun: tuple[float, float, float]) -> Floats:
    """Return diffuse and direct light relative to flat ground, the latter by Lambert's cosine law."""
    down, right = gradient
    cosine: Floats = (sun[2] - sun[0] * down - sun[1] * right) / np.sqrt(1.0 + down * down + right * right)
    return 0.3 + 0.7 * np.maximum(cosine, 0.0) / sun[2]


# --- land cover ---------------------------------------------------------------------------------------------

Layer = tuple[Spectrum, Floats]  # a spectrum and the share of each pixel (0 to 1) that it covers


def _land_cover(random: _Random, height: Floats, country: Country) -> list[Layer]:
    """Return the layers over the forest, from the lowest to the topmost, which is rock."""
    floor = _ramp(height, 0.03, 0.01)
    open_land = _ramp(random.noise("meadows", 128, octaves=5) + 0.4 * height, 0.66, 0.76)
    meadow = np.maximum(open_land, floor)
    clearing = 0.4 * _ramp(random.noise("clearings", 64, octaves=3), 0.74, 0.78)
    bed = np.abs(random.noise("river", 256, octaves=4) - 0.5)
    gravel = floor * _ramp(bed, 0.03, 0.02)
    water = floor * _ramp(bed, 0.006, 0.003)
    crags = _ramp(random.noise("crags", 64, octaves=5, persistence=0.6) + 0.55 * height, 1.02, 1.12)
    return [
        (country.meadow, meadow),
        (country.bare, clearing),
        (country.bare, floor * _bare_fields(random)),
        (country.bare, gravel),
        (country.water, water),
        (country.rock, crags),
    ]


def _bare_fields(random: _Random) -> Floats:
    """Return the bare share (H, W) of a patchwork of fields about 150 by 250 metres large."""
    y, x = np.arange(random.height)[:, None], np.arange(random.width)
    bend = 24.0 * random.noise("field bend", 64, octaves=2)
    across = np.floor((0.8 * y + 0.6 * x + bend) / 15.0).astype(np.int64)
    along = np.floor((0.8 * x - 0.6 * y + bend) / 25.0).astype(np.int64)
    ploughed = random.uniform("ploughed", across, along)
    return np.where(ploughed < 0.4, 0.6 + ploughed, 0.0)


# --- landslides ---------------------------------------------------------------------------------------------


def _landslides(
    random: _Random, gradient: tuple[Floats, Floats], steepness: Floats, rock: Floats
) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Return the share of each pixel (H, W) that landslides laid bare, and their mask.

    The likeliest sources slide, one after another, until landslides cover their share of the scene.
    """
    bare, mask = np.zeros(rock.shape), np.zeros(rock.shape, dtype=np.uint8)
    roughness = random.noise("roughness", 8, octaves=2)
    for source in _sources(random, steepness, rock):
        if np.count_nonzero(mask) >= LANDSLIDE_SHARE * mask.size:
            break
        if not mask.flat[source]:
            length = 16 + int(56 * random.uniform("length", source)[0])
            track = _track(source, length, gradient)
            discs = _discs(track, length, 2.6 + 3.2 * float(random.uniform("width", source)[0]), roughness)
            age = float(random.uniform("age", source)[0])
            fresh = 0.7 + 0.375 * age if age < 0.8 else 0.45 + (age - 0.8)  # the rest is half overgrown
            for window, depth in discs:
                mask[window] |= depth >= 0.0
                bare[window] = np.maximum(bare[window], fresh * _ramp(depth, -0.8, 0.8))
    return bare, mask


def _sources(random: _Random, steepness: Floats, rock: Floats) -> list[int]:
    """Return the flat indices of pixels where slides may start, the likeliest first: steep, in clusters.

    Landslides of one earthquake or storm come in clusters; slow noise represents the shaking or the rain.
    Rock holds. One pixel in a hundred is a candidate.
    """
    luck = 100.0 * random.uniform("luck", np.arange(steepness.size))
    candidates = np.flatnonzero(luck < 1.0)
    ground = 3.0 * _ramp(steepness, 0.2, 0.5) - rock + 0.7 * random.noise("trigger", 128, octaves=2)
    score = _rounded(1e9 * (ground.ravel() + 0.5 * luck)[candidates])
    return [int(pixel) for pixel in candidates[np.argsort(-score, kind="stable")]]


def _track(source: int, length: int, gradient: tuple[Floats, Floats]) -> list[tuple[float, float]]:
    """Return the pixels (y, x) of a steepest descent with momentum, until flat ground or the border."""
    down, right = gradient
    rows, columns = down.shape
    y, x = float(source // columns), float(source % columns)
    dy, dx = -6.0 * float(down.flat[source]), -6.0 * float(right.flat[source])
    track = [(y, x)]
    while len(track) < length:
        rise_y, rise_x = float(down[int(y), int(x)]), float(right[int(y), int(x)])
        dy, dx = 0.85 * dy - rise_y, 0.85 * dx - rise_x  # debris does not follow every dent
        speed = float(np.sqrt(dy * dy + dx * dx))
        if speed < 1.0:  # the speed that a constant slope of 0.15 maintains
            break
        y, x = y + dy / speed, x + dx / speed
        if not (0.0 <= y < rows and 0.0 <= x < columns):
            break
        track.append((y, x))
    return track


def _discs(
    track: list[tuple[float, float]], length: int, width: float, roughness: Floats
) -> Iterator[tuple[tuple[slice, slice], Floats]]:
    """Yield a window and each pixel's depth inside the ragged margin, in pixels, for each step of a track.

    Radii (pixels) grow quickly from the crown, are widest after a third of the way and taper to the toe.
    """
    for step, (y, x) in enumerate(track):
        way = (step + 1.0) / (length + 1.0)
        taper = 0.3 + 4.7 * way * (1.0 - way) * (1.0 - way)
        radius = width * taper * (0.6 + 0.8 * roughness[int(y), int(x)])
        top, left = max(int(y - radius - 1.0), 0), max(int(x - radius - 1.0), 0)
        window = slice(top, int(y + radius + 2.0)), slice(left, int(x + radius + 2.0))
        rows, columns = roughness[window].shape
        dy = np.arange(top, top + rows)[:, None] - y
        dx = np.arange(left, left + columns) - x
        yield window, radius - np.sqrt(dy * dy + dx * dx) * (0.7 + 0.6 * roughness[window])


# --- reflectance at the sensor -----------------------------------------------------------------------------------


def _reflectance(random: _Random, country: Country, layers: list[Layer], light: Floats) -> list[Floats]:
    """Return the 12 bands (H, W) of the layers over forest, lit, under haze and with the sensor's noise."""
    texture = 0.7 + 0.6 * random.noise("texture", 64, octaves=6, persistence=0.8)
    greenness = 0.6 + 0.8 * random.noise("greenness", 128, octaves=3)
    haze = 0.9 + 0.2 * random.noise("haze", 256)
    pixels = np.arange(light.size).reshape(light.shape)
    bands = []
    for band in range(12):
        ground = np.full(light.shape, float(country.forest[band]))
        if 5 <= band <= 8:  # red edge to water vapour: where leaves are bright
            ground *= greenness
        for spectrum, share in layers:
            ground += share * (spectrum[band] - ground)
        if band % 4 == 0:
            bits = random.bits(f"sensor {band}", pixels)
        sixteen = (bits >> np.uint64(16 * (band % 4))).astype(np.int64) & 0xFFFF
        noise = ((sixteen & 255) + (sixteen >> 8)) / 255.0 - 1.0  # triangular, -1 to 1
        bands.append(np.maximum(haze * country.haze[band] + light * texture * ground * (1 + 0.08 * noise), 1.0))
    return bands
