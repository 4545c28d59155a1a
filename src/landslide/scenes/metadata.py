"""What the metadata of a Sentinel-2 product say: level, quantification, offsets, special values, files.

Nothing is concluded from a date or a processing baseline. Since baseline 04.00 a product lists an offset for each
band; without a list the format defines no offset (Sentinel-2 Products Specification Document, issue 14.9 and later,
`RADIO_ADD_OFFSET`, `BOA_ADD_OFFSET`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from xml.etree import ElementTree

from landslide.errors import DataError

Level = Literal["L1C", "L2A"]

BAND_IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
"""The bands in the order of the metadata's `band_id`."""

_LEVELS: dict[str, Level] = {"Level-1C": "L1C", "Level-2A": "L2A", "Level-2Ap": "L2A"}
_REMEDY = "Download the product again, or give the values with --quantification and --offset and the band files only."


@dataclass(frozen=True)
class ProductMetadata:
    """Metadata of one product.

    Attributes:
        level: "L1C" (top of the atmosphere) or "L2A" (surface reflectance).
        name: Product id without `.SAFE`; None if the file does not say it.
        baseline: Processing baseline, such as "05.10".
        sensor: Such as "Sentinel-2A".
        datetime: Start of sensing, UTC.
        quantification: reflectance = (digital number + offset) / quantification.
        offsets: Offset of each band, in digital numbers; keys as in `BAND_IDS`.
        nodata: Digital number of pixels without data.
        saturated: Digital number of saturated pixels.
        granules: How many granules (tiles) the product has.
        images: Files of the images relative to the product's folder, without their ending.
    """

    level: Level
    name: str | None
    baseline: str | None
    sensor: str | None
    datetime: datetime | None
    quantification: float
    offsets: Mapping[str, float]
    nodata: float | None
    saturated: float | None
    granules: int
    images: tuple[str, ...]


def parse_product_metadata(xml: bytes, where: str) -> ProductMetadata:
    """Read `MTD_MSIL1C.xml` or `MTD_MSIL2A.xml`, of any version of the format.

    Args:
        xml: Content of the file.
        where: Its path, for messages.

    Raises:
        DataError: It is no XML, no metadata of such a product, has no quantification, or offsets for some bands only.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise DataError(f"{where} is not readable XML: {error}.", remedy="Download the product again.") from error
    level = _LEVELS.get(_text(root, "PROCESSING_LEVEL") or "")
    if level is None:
        found = _text(root, "PROCESSING_LEVEL")
        raise DataError(
            f"{where} is no metadata of a Sentinel-2 L1C or L2A product: PROCESSING_LEVEL is {found or 'missing'}.",
            remedy="Give a product of level L1C or L2A, with its MTD_MSIL1C.xml or MTD_MSIL2A.xml.",
        )
    special = _special_values(root, where)
    return ProductMetadata(
        level=level,
        name=(_text(root, "PRODUCT_URI") or "").removesuffix(".SAFE") or None,
        baseline=_text(root, "PROCESSING_BASELINE"),
        sensor=_text(root, "SPACECRAFT_NAME"),
        datetime=_time(root, where),
        quantification=_quantification(root, level, where),
        offsets=_offsets(root, level, where),
        nodata=special.get("NODATA"),
        saturated=special.get("SATURATED"),
        granules=len([e for e in root.iter() if _tag(e) in ("Granule", "Granules")]),
        images=tuple((e.text or "").strip() for e in root.iter() if _tag(e) in ("IMAGE_FILE", "IMAGE_ID")),
    )


def _tag(element: ElementTree.Element) -> str:
    """Name of an element without its namespace, which differs between versions."""
    return element.tag.rpartition("}")[2]


def _text(root: ElementTree.Element, tag: str) -> str | None:
    return next(((e.text or "").strip() or None for e in root.iter() if _tag(e) == tag), None)


def _number(text: str | None, what: str, where: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{where}: {what} is {text!r}, not a number.", remedy=_REMEDY)
    return number


def _time(root: ElementTree.Element, where: str) -> datetime | None:
    text = _text(root, "DATATAKE_SENSING_START") or _text(root, "PRODUCT_START_TIME")
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{where}: the time of sensing is {text!r}, not a date.", remedy=_REMEDY) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _quantification(root: ElementTree.Element, level: Level, where: str) -> float:
    tag = "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE"
    text = _text(root, tag)
    if text is None and level == "L2A":  # before baseline 02.07
        tag, text = "L2A_BOA_QUANTIFICATION_VALUE", _text(root, "L2A_BOA_QUANTIFICATION_VALUE")
    if text is None:
        raise DataError(f"{where} has no quantification ({tag}).", remedy=_REMEDY)
    value = _number(text, tag, where)
    if value <= 0:
        raise DataError(f"{where}: {tag} is {text}; it must be above 0.", remedy=_REMEDY)
    return value


def _offsets(root: ElementTree.Element, level: Level, where: str) -> dict[str, float]:
    tag = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    elements = [element for element in root.iter() if _tag(element) == tag]
    offsets: dict[str, float] = {}
    for element in elements:
        number = element.get("band_id", "")
        if not (number.isdecimal() and int(number) < len(BAND_IDS)):
            raise DataError(f"{where}: {tag} has the band_id {number!r}; expected 0 to 12.", remedy=_REMEDY)
        band = BAND_IDS[int(number)]
        value = _number(element.text, f"{tag} of {band}", where)
        if offsets.setdefault(band, value) != value:
            raise DataError(f"{where}: {tag} of {band} is both {offsets[band]:g} and {value:g}.", remedy=_REMEDY)
    if not elements:
        return dict.fromkeys(BAND_IDS, 0.0)
    if missing := [band for band in BAND_IDS if band not in offsets]:
        raise DataError(f"{where}: {tag} is missing for {', '.join(missing)}.", remedy=_REMEDY)
    return offsets


def _special_values(root: ElementTree.Element, where: str) -> dict[str, float]:
    values = {}
    for element in (e for e in root.iter() if _tag(e) == "Special_Values"):
        name = _text(element, "SPECIAL_VALUE_TEXT")
        if name is not None:
            values[name.upper()] = _number(_text(element, "SPECIAL_VALUE_INDEX"), f"the special value {name}", where)
    return values
