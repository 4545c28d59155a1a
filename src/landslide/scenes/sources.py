"""What a user's path holds: a product (SAFE), a folder of bands, or one raster with several bands.

Nothing is read here except metadata and the names of bands.
"""

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal

from landslide.errors import ConfigurationError, DataError, first_few
from landslide.scenes.band_names import SCENE_CLASSIFICATION, band_of_file, band_of_text
from landslide.scenes.metadata import Level, ProductMetadata, parse_product_metadata
from landslide.scenes.rasters import open_raster
from landslide.schema import ORIGINAL_BANDS

Kind = Literal["SAFE", "bands", "stack", "STAC item"]

SENTINEL2_BANDS = ORIGINAL_BANDS[:12]
"""B1 to B12, without B8A."""

_IMAGES = (".jp2", ".tif", ".tiff", ".vrt")
_METADATA = re.compile(r"MTD_MSIL(1C|2A)\.xml")
_QUALITY = re.compile(r"MSK_QUALIT_(B\w\w)\.(?:jp2|tif)")
_QUALITY_VECTORS = re.compile(r"MSK_(?:TECQUA|DEFECT|NODATA|SATURA)_(B\w\w)\.gml")


@dataclass(frozen=True)
class Image:
    """One band of a raster.

    Attributes:
        path: What GDAL opens.
        index: Number of the band, from 1.
    """

    path: str
    index: int = 1


@dataclass(frozen=True)
class Classification:
    """The product's own layers of what is no clear ground.

    Attributes:
        scene: Scene classification of L2A (SCL).
        clouds: MSK_CLASSI_B00, three layers: opaque clouds, cirrus, snow.
        cloud_vectors: MSK_CLOUDS_B00.gml, polygons of clouds before processing baseline 04.00.
        quality: MSK_QUALIT of each band, eight layers of defects.
        quality_vectors: MSK_TECQUA, MSK_DEFECT, MSK_NODATA and MSK_SATURA of each band, polygons of defects before
            processing baseline 04.00.
    """

    scene: Image | None = None
    clouds: str | None = None
    cloud_vectors: str | None = None
    quality: Mapping[str, str] = field(default_factory=dict)
    quality_vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """All files."""
        single = [self.scene.path if self.scene else None, self.clouds, self.cloud_vectors]
        return (*filter(None, single), *self.quality.values(), *chain.from_iterable(self.quality_vectors.values()))


@dataclass(frozen=True)
class Source:
    """A scene before its rasters are opened.

    Attributes:
        name: Product id, or name of the file or folder.
        kind: How it is stored.
        images: The bands that are there, keys as in `SENTINEL2_BANDS`.
        missing: Bands that the metadata name and that are not there, with the expected file.
        classification: Layers of clouds and defects.
        metadata: The product's metadata, if there are any.
        metadata_path: Where they are, or the item that says `scaling`.
        scaling: Scale and offset of each band from a STAC item (reflectance = digital number * scale + offset).
        offset_fault: Why the item's offset cannot be trusted, as a sentence.
        level: Processing level, from a STAC item; likewise below.
        baseline: Processing baseline.
        sensor: Satellite.
        time: Time of sensing.
    """

    name: str
    kind: Kind
    images: Mapping[str, Image]
    missing: Mapping[str, str] = field(default_factory=dict)
    classification: Classification = Classification()
    metadata: ProductMetadata | None = None
    metadata_path: str = ""
    scaling: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    offset_fault: str | None = None
    level: Level | None = None
    baseline: str | None = None
    sensor: str | None = None
    time: datetime | None = None


def local_source(path: Path, bands: Sequence[str] | None) -> Source:
    """Return what a local file or folder holds.

    Args:
        path: A SAFE folder, its zip or its metadata file; a folder of band files; or a raster.
        bands: Names of the bands of one raster, if its own descriptions do not name them.

    Raises:
        DataError: There is no scene, or it is incomplete or ambiguous.
        ConfigurationError: `bands` do not fit.
    """
    if not path.exists():
        raise DataError(f"There is no scene {path}.", remedy="Check the path of the scene.")
    if _METADATA.fullmatch(path.name) and (path.parent / "GRANULE").is_dir():
        path = path.parent
    products = sorted(path.glob("*.SAFE")) if path.is_dir() and path.suffix != ".SAFE" else []
    if len(products) == 1:
        path = products[0]
    if len(products) > 1:
        raise DataError(
            f"{path} holds {len(products)} products: {first_few([product.name for product in products])}.",
            remedy="Give the .SAFE folders themselves, one after another.",
        )
    if path.is_file() and path.suffix.lower() != ".zip":
        return _stack(path, bands)
    if bands is not None:
        raise ConfigurationError(
            f"{path} has one file per band, so names of bands cannot be given.",
            remedy="Leave --bands out; the names of the files say which bands they are.",
        )
    if path.is_file():
        return _product(path.stem, f"/vsizip/{path.resolve()}", _zip_content(path))
    if path.suffix == ".SAFE" or (path / "GRANULE").is_dir():
        return _product(path.resolve().name, str(path), _folder_content(path))
    return _bands(path)


# --- SAFE ---------------------------------------------------------------------------------------------------


def _folder_content(folder: Path) -> dict[str, bytes | None]:
    """Return the files of a folder, relative to it, with the content of those that are metadata."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() if _METADATA.fullmatch(file.name) else None
        for file in files
    }


def _zip_content(path: Path) -> dict[str, bytes | None]:
    """Likewise for a zip file."""
    remedy = "Download the zip file again, or unpack it yourself and give the .SAFE folder."
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if any(entry.flag_bits & 1 for entry in entries):
                raise DataError(
                    f"{path} is encrypted.", remedy="Unpack it with its password and give the .SAFE folder."
                )
            return {
                entry.filename: archive.read(entry) if _METADATA.fullmatch(PurePosixPath(entry.filename).name) else None
                for entry in entries
            }
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError) as error:  # RuntimeError: its compression
        raise DataError(f"{path} is not a readable zip file: {error}.", remedy=remedy) from error


def _product(name: str, root: str, content: Mapping[str, bytes | None]) -> Source:
    where, metadata = _only_metadata(root, content)
    if metadata is None:
        raise DataError(
            f"{root} has no MTD_MSIL1C.xml or MTD_MSIL2A.xml.",
            remedy="Give the complete product. For band files without metadata give their folder (IMG_DATA), "
            "--quantification and --offset.",
        )
    if metadata.granules > 1:
        raise DataError(
            f"{where} has {metadata.granules} granules; a scene is one.",
            remedy="Give the folder IMG_DATA of one granule, --quantification and --offset.",
        )
    folder = PurePosixPath(where).relative_to(root).parent
    stems = {str(PurePosixPath(file).with_suffix("")): file for file in content if file.lower().endswith(_IMAGES)}
    named = [str(folder / image) for image in metadata.images]
    there = [stems[image] for image in named if image in stems]
    images = _by_band([f"{root}/{file}" for file in there])
    absent = {band_of_file(image + ".jp2")[0]: f"{root}/{image}" for image in named if image not in stems}
    missing = {band: file for band, file in absent.items() if band in SENTINEL2_BANDS and band not in images}
    if not set(images) & set(SENTINEL2_BANDS):
        names = first_few([PurePosixPath(file).name for file in missing.values()], 3)
        raise DataError(
            f"{where} names band files that are missing: {names}.",
            remedy="Download the product again; its folder GRANULE has the bands.",
        )
    return Source(
        name=metadata.name or name,
        kind="SAFE",
        images=images,
        missing=missing,
        classification=_classification(root, content, images),
        metadata=metadata,
        metadata_path=where,
    )


def _only_metadata(root: str, content: Mapping[str, bytes | None]) -> tuple[str, ProductMetadata | None]:
    """Return the path and the content of the only product metadata among files; None if there are none."""
    found = [(file, xml) for file, xml in content.items() if xml is not None]
    if len(found) > 1:
        raise DataError(
            f"{root} has metadata of several products: {first_few([file for file, _ in found])}.",
            remedy="Leave only the metadata of this scene there.",
        )
    if not found:
        return "", None
    file, xml = found[0]
    where = f"{root}/{file}"
    return where, parse_product_metadata(xml, where)


def _classification(root: str, files: Iterable[str], images: Mapping[str, Image]) -> Classification:
    names = {PurePosixPath(file).name: f"{root}/{file}" for file in files}
    quality = {band_of_text(m[1]): path for name, path in names.items() if (m := _QUALITY.fullmatch(name))}
    vectors: dict[str, tuple[str, ...]] = {}
    for name, path in sorted(names.items()):
        if (m := _QUALITY_VECTORS.fullmatch(name)) and (band := band_of_text(m[1])) in SENTINEL2_BANDS:
            vectors[band] = (*vectors.get(band, ()), path)
    return Classification(
        scene=images.get(SCENE_CLASSIFICATION),
        clouds=names.get("MSK_CLASSI_B00.jp2") or names.get("MSK_CLASSI_B00.tif"),
        cloud_vectors=names.get("MSK_CLOUDS_B00.gml"),
        quality={band: path for band, path in quality.items() if band in SENTINEL2_BANDS},
        quality_vectors=vectors,
    )


# --- band files and stacks ----------------------------------------------------------------------------------


def _bands(folder: Path) -> Source:
    files = [file for pattern in ("*", "R[126]0m/*") for file in sorted(folder.glob(pattern)) if file.is_file()]
    content = {
        file.relative_to(folder).as_posix(): file.read_bytes() if _METADATA.fullmatch(file.name) else None
        for file in files
    }
    images = _by_band([str(file) for file in files if file.suffix.lower() in _IMAGES])
    if not set(images) & set(SENTINEL2_BANDS):
        found = first_few([file.name for file in files]) or "no file"
        raise DataError(
            f"{folder} has no raster named by a Sentinel-2 band; found {found}.",
            remedy="Name the files by their band, such as B02.tif or T33UUU_20170216T102101_B8A.jp2, "
            "or give one raster, a .SAFE folder or a STAC item.",
        )
    where, metadata = _only_metadata(str(folder), content)
    return Source(
        name=folder.resolve().name,
        kind="bands",
        images=images,
        classification=_classification(str(folder), content, images),
        metadata=metadata,
        metadata_path=where,
    )


def _by_band(files: Iterable[str]) -> dict[str, Image]:
    """Return the finest file of each band, without B8A."""
    finest: dict[str, tuple[int, str]] = {}
    for file in files:
        band, metres = band_of_file(file)
        if band is None or band == "B8A":
            continue
        metres = metres or 0
        other = finest.get(band)
        if other is not None and other[0] == metres:
            raise DataError(
                f"{file} and {other[1]} are both band {band}.",
                remedy="Leave one file per band in the folder.",
            )
        if other is None or metres < other[0]:
            finest[band] = metres, file
    return {band: Image(file) for band, (_, file) in finest.items()}


def _stack(path: Path, bands: Sequence[str] | None) -> Source:
    with open_raster(str(path)) as dataset:
        descriptions = list(dataset.descriptions)
    if bands is not None and len(bands) != len(descriptions):
        raise ConfigurationError(
            f"{path} has {len(descriptions)} bands; {len(bands)} names are given.",
            remedy="Give one name per band of the raster, in its order; '-' for a band to skip.",
        )
    unknown = [text for text in bands or () if text != "-" and band_of_text(text) is None]
    if unknown:
        raise ConfigurationError(
            f"Unknown names of bands: {', '.join(unknown)}.",
            remedy="Known are B1 to B12, B8A, SCL and '-' for a band to skip.",
        )
    images: dict[str, Image] = {}
    for index, text in enumerate(bands or descriptions, start=1):
        band = band_of_text(text)
        if band is None or band == "B8A":
            continue
        if band in images:
            raise DataError(
                f"{path}: bands {images[band].index} and {index} are both {band}.",
                remedy="Give the right names with --bands; '-' for a band to skip.",
            )
        images[band] = Image(str(path), index)
    if not set(images) & set(SENTINEL2_BANDS):
        found = first_few([text or "no name" for text in descriptions])
        raise DataError(
            f"{path}: no band has the name of a Sentinel-2 band; found {found}.",
            remedy="Give the names in the order of the raster, such as --bands B2,B3,B4,B8.",
        )
    beside = {
        file.name: file.read_bytes() for file in path.parent.glob("MTD_MSIL*.xml") if _METADATA.fullmatch(file.name)
    }
    where, metadata = _only_metadata(str(path.parent), beside)
    return Source(
        name=path.stem,
        kind="stack",
        images=images,
        classification=Classification(scene=images.get(SCENE_CLASSIFICATION)),
        metadata=metadata,
        metadata_path=where,
    )
