"""A Sentinel-2 scene: its bands, how their numbers become reflectance, and its grid.

Whatever the layout, `open_scene` checks that the bands belong together before anything is computed.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from landslide.errors import ConfigurationError, DataError
from landslide.scenes.grid import Grid
from landslide.scenes.metadata import Level
from landslide.scenes.rasters import gdal_environment, open_raster, refuse_without_place
from landslide.scenes.sources import SENTINEL2_BANDS, Classification, Image, Kind, Source, local_source
from landslide.scenes.stac_input import is_remote, stac_source

_METRES = (1.0, 200.0)  # pixel sizes that can be mapped
_CONCEIVABLE = (0.01, 50_000.0)  # others tell that reference system and coordinates do not fit each other


@dataclass(frozen=True)
class Band:
    """One band; reflectance = digital number * scale + offset.

    Attributes:
        path: What GDAL opens.
        index: Number of the band in the file, from 1.
        scale: Reflectance per digital number.
        offset: Reflectance at digital number 0.
        nodata: Digital number of pixels without data; NaN and infinite values never have data.
        saturated: Digital number of saturated pixels.
    """

    path: str
    index: int
    scale: float
    offset: float
    nodata: float | None
    saturated: float | None


@dataclass(frozen=True)
class Scene:
    """A scene as a user gave it.

    Attributes:
        name: Product id, or the name of the file or folder; letters and digits of any script, `.`, `_`, `-` only.
        source: What the user gave.
        kind: "SAFE", "bands", "stack" or "STAC item".
        level: "L1C" (top of the atmosphere) or "L2A" (surface reflectance); None if unknown.
        baseline: Processing baseline, such as "05.10".
        sensor: Such as "Sentinel-2A".
        datetime: Time of sensing, UTC.
        grid: Grid of the finest band.
        bands: The bands that are there, keys B1 to B12.
        missing: Bands that the metadata name and that are not there, with the expected file.
        classification: The product's own layers of clouds and defects.
        scaling: What says the scale and the offset: a file, "tags of the rasters", or "options".
    """

    name: str
    source: str
    kind: Kind
    level: Level | None
    baseline: str | None
    sensor: str | None
    datetime: datetime | None
    grid: Grid
    bands: Mapping[str, Band]
    missing: Mapping[str, str]
    classification: Classification
    scaling: str

    @property
    def remote(self) -> bool:
        """Whether bands are read over a network."""
        return any(band.path.startswith(("/vsicurl/", "/vsis3/")) for band in self.bands.values())


def open_scene(
    source: str | Path,
    *,
    quantification: float | None = None,
    offset: float | None = None,
    bands: Sequence[str] | None = None,
    level: Level | None = None,
) -> Scene:
    """Open a scene and check that it is complete and consistent; no pixels are read.

    reflectance = (digital number + offset) / quantification. Both come from the product's metadata, the STAC item or
    the scale and offset tags of the rasters. Only if these do not say them, the options have to.

    Args:
        source: SAFE folder or its zip; folder of rasters named by band; one raster with several bands; file or
            http(s) address of a STAC Item.
        quantification: Digital numbers per unit of reflectance, 1 for reflectance itself.
        offset: What is added to the digital numbers, such as -1000 since processing baseline 04.00.
        bands: Names of the bands of one raster, in its order; "-" skips a band.
        level: Processing level, if the metadata do not say it.

    Raises:
        DataError: The scene is missing, damaged, incomplete, or its bands do not fit together.
        ConfigurationError: An option is needed, or contradicts the metadata; or the address is none.
    """
    text = str(source)
    if quantification is not None and not (quantification > 0 and math.isfinite(quantification)):
        raise ConfigurationError(
            f"--quantification is {quantification:g}.", remedy="Give a number above 0, such as 10000."
        )
    if offset is not None and not math.isfinite(offset):
        raise ConfigurationError(f"--offset is {offset:g}.", remedy="Give a number, such as 0 or -1000.")
    if not text.strip():
        raise ConfigurationError("The path of a scene is empty.", remedy="Give the path of a file or a folder.")
    if "://" in text and not is_remote(text):
        raise ConfigurationError(
            f"{text} is an address of a kind that cannot be opened.",
            remedy="Download the scene and give its path, or give the http(s) address of a STAC Item, whose assets may "
            "be in S3.",
        )
    if is_remote(text) or Path(text).suffix.lower() in (".json", ".geojson"):
        if bands is not None:
            raise ConfigurationError(f"{text} names its bands, so names cannot be given.", remedy="Leave --bands out.")
        found = stac_source(text)
    else:
        found = local_source(Path(text), bands)
    images = {band: found.images[band] for band in SENTINEL2_BANDS if band in found.images}
    remote = any(image.path.startswith("/vsi") for image in images.values())
    with gdal_environment(remote=remote):
        opened = {band: _inspect(band, image, found, quantification, offset) for band, image in images.items()}
    grid = _common_grid({band: (images[band], grid) for band, (_, grid, _) in opened.items()})
    said_by = {said for _, _, said in opened.values()}
    return Scene(
        name=re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", found.name)).strip(".") or "scene",
        source=text,
        kind=found.kind,
        level=_level(found, level),
        baseline=found.metadata.baseline if found.metadata else found.baseline,
        sensor=found.metadata.sensor if found.metadata else found.sensor,
        datetime=found.metadata.datetime if found.metadata else found.time,
        grid=grid,
        bands={band: opened_band for band, (opened_band, _, _) in opened.items()},
        missing=found.missing,
        classification=found.classification,
        scaling=" and ".join(sorted(said_by)),
    )


def refuse_equal_names(names: Sequence[str], sources: Sequence[str]) -> None:
    """Refuse scenes of one name: what is made of them would lie in one place.

    Raises:
        ConfigurationError: Two of the names are equal.
    """
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigurationError(
                f"{sources[names.index(name)]} and {sources[number]} have the name {name}, and so would their results.",
                remedy="Leave one out, or rename it.",
            )


def _level(found: Source, given: Level | None) -> Level | None:
    stated = found.metadata.level if found.metadata else found.level
    if given is not None and stated is not None and given != stated:
        raise ConfigurationError(
            f"--level is {given}, but {found.metadata_path} says {stated}.", remedy="Leave --level out."
        )
    return stated or given


def _inspect(
    name: str, image: Image, found: Source, quantification: float | None, offset: float | None
) -> tuple[Band, Grid, str]:
    """Open one band; return it, its grid and what says its scale."""
    with open_raster(image.path) as dataset:
        if found.kind != "stack" and dataset.count != 1:
            raise DataError(
                f"{image.path} has {dataset.count} bands; expected band {name} only.",
                remedy="Give a raster with several bands by its own path, with --bands if needed.",
            )
        grid = _checked_grid(image.path, dataset)
        scale, shift, said = _scaling(name, image, dataset, found, quantification, offset)
        nodata, saturated = _special_values(image, dataset, found)
    return Band(image.path, image.index, scale, shift, nodata, saturated), grid, said


def _scaling(
    name: str, image: Image, dataset: DatasetReader, found: Source, quantification: float | None, offset: float | None
) -> tuple[float, float, str]:
    """Return the scale and the offset in reflectance, and what says them."""
    scale, shift, said, fault = _stated_scaling(name, image, dataset, found)
    if scale is not None and quantification is not None and not math.isclose(scale * quantification, 1, rel_tol=1e-6):
        raise ConfigurationError(
            f"--quantification is {quantification:g}, but {said} says {1 / scale:g} for {name}.",
            remedy="Leave --quantification out, or correct the metadata.",
        )
    if scale is not None and shift is not None and offset is not None:
        if not math.isclose(shift, offset * scale, rel_tol=1e-6, abs_tol=1e-9):
            raise ConfigurationError(
                f"--offset is {offset:g}, but {said} says {shift / scale:g} for {name}.",
                remedy="Leave --offset out, or correct the metadata.",
            )
        return scale, shift, said
    if scale is not None and shift is not None:
        return scale, shift, said
    if scale is None and quantification is None:
        raise ConfigurationError(
            fault
            or f"{image.path}: nothing says how its numbers become reflectance"
            + (
                ", not even the STAC item."
                if found.kind == "STAC item"
                else "; there is no MTD_MSIL1C.xml or MTD_MSIL2A.xml."
            ),
            remedy="Give --quantification and --offset: 10000 and the product's offset (0, or -1000 since processing "
            "baseline 04.00) for digital numbers, 1 and 0 for reflectance.",
        )
    if offset is None:
        raise ConfigurationError(
            fault or found.offset_fault or f"{image.path}: nothing says which offset its digital numbers have.",
            remedy="Give --offset: 0 if the values contain no offset, otherwise what is to be added, such as -1000.",
        )
    if scale is not None:
        return scale, offset * scale, f"{said} and options"
    assert quantification is not None
    return 1 / quantification, offset / quantification, "options"


def _stated_scaling(
    name: str, image: Image, dataset: DatasetReader, found: Source
) -> tuple[float | None, float | None, str, str | None]:
    """Return the scale and offset that the metadata, the item or the raster's tags state, as far as they do.

    The third value is what says them, the fourth why they cannot be trusted; then there are none.
    """
    tagged = dataset.scales[image.index - 1], dataset.offsets[image.index - 1]
    has_tags = tagged != (1.0, 0.0)  # GDAL gives these values if there are no tags
    tags_say = f"the tags of {image.path} say scale {tagged[0]:g} and offset {tagged[1]:g}"
    if found.metadata is not None:
        q = found.metadata.quantification
        stated = 1 / q, found.metadata.offsets[name] / q
        if has_tags and not np.allclose(tagged, stated, rtol=1e-6, atol=1e-9):
            raise DataError(
                f"{found.metadata_path} says scale {stated[0]:g} and offset {stated[1]:g} for {name}, but {tags_say}.",
                remedy="Move the metadata file away if it belongs to other rasters; otherwise correct the tags.",
            )
        return stated[0], None if found.offset_fault else stated[1], found.metadata_path, None
    scale, offset = found.scaling.get(name, (None, None))
    if (scale, offset) != (None, None):
        item_says = f"{found.metadata_path} says " + " and ".join(
            f"{what} {value:g}" for what, value in (("scale", scale), ("offset", offset)) if value is not None
        )
        if not _usable(scale, offset):
            return None, None, "", f"{item_says} for {name}, which cannot be."
        pairs = [(a, b) for a, b in zip((scale, offset), tagged, strict=True) if a is not None]
        if has_tags and not all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in pairs):
            return None, None, "", f"{item_says} for {name}, but {tags_say}."
        return scale, offset, found.metadata_path, None
    if has_tags and not _usable(*tagged):
        return None, None, "", f"{tags_say[:1].upper()}{tags_say[1:]}, which cannot be."
    return (*tagged, "tags of the rasters", None) if has_tags else (None, None, "", None)


def _usable(scale: float | None, offset: float | None) -> bool:
    """Whether numbers can become reflectance by these values, as far as they are known."""
    return (scale is None or (math.isfinite(scale) and scale > 0)) and (offset is None or math.isfinite(offset))


def _special_values(image: Image, dataset: DatasetReader, found: Source) -> tuple[float | None, float | None]:
    """Return the digital numbers that mean no data and saturated.

    The raster's own nodata value comes first, then the metadata's. Integers without either are taken as in the format
    of Sentinel-2: 0 is no data, and 65535 of 16 bits is saturated.
    """
    nodata = dataset.nodatavals[image.index - 1]
    if nodata is not None and math.isnan(nodata):
        nodata = None
    integers = np.issubdtype(dataset.dtypes[image.index - 1], np.integer)
    if found.metadata is not None:
        return found.metadata.nodata if nodata is None else nodata, found.metadata.saturated
    saturated = 65535.0 if dataset.dtypes[image.index - 1] == "uint16" else None
    nodata = 0.0 if nodata is None and integers else nodata
    return nodata, None if nodata == saturated else saturated


def _checked_grid(path: str, dataset: DatasetReader) -> Grid:
    refuse_without_place(dataset)
    transform = dataset.transform
    assign = "assign the right one to a GeoTIFF: rio edit-info --crs EPSG:32633 FILE."
    if not (dataset.crs.is_projected or dataset.crs.is_geographic):
        raise DataError(
            f"{path}: the reference system {_short(dataset.crs)} is neither projected nor geographic.",
            remedy=assign[0].upper() + assign[1:],
        )
    width, height = math.hypot(transform.a, transform.d), math.hypot(transform.b, transform.e)
    warp = (
        f"Warp it to a grid with north up: gdalwarp -r bilinear -tr {width:.10g} {height:.10g} FILE NEW_FILE (of "
        "GDAL's command line tools; rio warp loses the names and scales of bands)."
    )
    if transform.b != 0 or transform.d != 0:
        raise DataError(f"{path} is rotated.", remedy=warp)
    if transform.a <= 0 or transform.e >= 0:
        raise DataError(
            f"{path} is flipped: rows have to run from north to south, columns from west to east.", remedy=warp
        )
    grid = Grid(dataset.crs, transform, dataset.width, dataset.height)
    west, south, east, north = grid.footprint.bounds
    fits = all(map(math.isfinite, (west, south, east, north))) and south >= -90 and north <= 90
    if not fits or not all(_CONCEIVABLE[0] <= size <= _CONCEIVABLE[1] for size in grid.pixel_size):
        left, top = transform @ (0, 0)
        raise DataError(
            f"{path}: coordinates from ({left:g}, {top:g}) with steps of {transform.a:g} do not fit the reference "
            f"system {_short(dataset.crs)}.",
            remedy=assign[0].upper() + assign[1:],
        )
    if not all(_METRES[0] <= size <= _METRES[1] for size in grid.pixel_size):
        raise DataError(
            f"{path} has pixels of {grid.pixel_size[0]:.3g} x {grid.pixel_size[1]:.3g} m in {_short(dataset.crs)}; a "
            f"scene has pixels of {_METRES[0]:g} to {_METRES[1]:g} m.",
            remedy="Give the image with its original pixels, of 10 to 60 m for Sentinel-2. If its size is not true, "
            + assign,
        )
    return grid


def _common_grid(grids: Mapping[str, tuple[Image, Grid]]) -> Grid:
    """Return the grid of the finest band, after checking that all bands cover the same ground."""
    first, (first_image, grid) = min(grids.items(), key=lambda item: item[1][1].transform.a)
    for band, (image, other) in grids.items():
        if other.crs != grid.crs:
            raise DataError(
                f"{band} ({image.path}) has the reference system {_short(other.crs)}, {first} ({first_image.path}) "
                f"has {_short(grid.crs)}.",
                remedy="Give bands of one scene in one reference system.",
            )
        steps = (other.transform.a, -other.transform.e, other.transform.a, -other.transform.e)
        differences = [abs(a - b) / step for a, b, step in zip(other.bounds, grid.bounds, steps, strict=True)]
        if max(differences) > 1 + 1e-6:
            raise DataError(
                f"{band} ({image.path}) covers {_extent(other)}, {first} ({first_image.path}) covers {_extent(grid)}: "
                f"{max(differences):.1f} pixels of {band} apart.",
                remedy="Give bands of one scene, cut to the same extent.",
            )
    return grid


def _short(crs: CRS) -> str:
    return str(crs.to_string())[:60]


def _extent(grid: Grid) -> str:
    west, south, east, north = grid.bounds
    return f"{west:.10g} to {east:.10g} by {south:.10g} to {north:.10g}"
