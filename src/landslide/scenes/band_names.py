"""Which Sentinel-2 band a name means: of a file, of a band of a raster, of an asset."""

import re
from pathlib import PurePosixPath

# Common names of the STAC extension eo, as Earth Search uses them for assets.
COMMON_NAMES = {
    "coastal": "B1", "blue": "B2", "green": "B3", "red": "B4", "rededge1": "B5", "rededge2": "B6", "rededge3": "B7",
    "nir": "B8", "nir08": "B8A", "nir09": "B9", "cirrus": "B10", "swir16": "B11", "swir22": "B12",
}  # fmt: skip

SCENE_CLASSIFICATION = "SCL"
"""The layer of scene classes of an L2A product."""

_BAND = r"B(0?[1-9]|1[0-2]|0?8A)"
_TEXT = re.compile(rf"{_BAND}(?![0-9A-Z]).*", re.IGNORECASE)
_FILE = re.compile(rf"(?:.*[_\-. ])?(?:{_BAND}|(SCL))(?:[_\-. ]([1-6]0)m)?", re.IGNORECASE)


def band_of_text(text: str | None) -> str | None:
    """Return B1 to B12, B8A or SCL for the description of a band or the key of an asset; None if it is none.

    Known are B2, b02, `B4, central wavelength 665 nm`, `B02_10m`, and common names such as red and swir16.
    """
    text = (text or "").strip()
    if text.lower() in COMMON_NAMES:
        return COMMON_NAMES[text.lower()]
    if text.upper().partition("_")[0] == SCENE_CLASSIFICATION:
        return SCENE_CLASSIFICATION
    found = _TEXT.fullmatch(text)
    return _name(found[1]) if found else None


def band_of_file(path: str) -> tuple[str | None, int | None]:
    """Return the band of a file such as B02.tif or T33UUU_20170216T102101_B8A_20m.jp2, and its resolution in metres.

    Either is None if the name does not say it. Masks of a product (MSK_QUALIT_B04.jp2) are no bands.
    """
    if PurePosixPath(path).name.startswith("MSK_"):
        return None, None
    found = _FILE.fullmatch(PurePosixPath(path).stem)
    if found is None:
        return None, None
    return _name(found[1]) if found[1] else SCENE_CLASSIFICATION, int(found[3]) if found[3] else None


def _name(number: str) -> str:
    return "B" + number.upper().lstrip("0")
