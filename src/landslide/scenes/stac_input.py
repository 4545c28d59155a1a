"""A scene from a STAC Item: asset names of Earth Search, Planetary Computer and the Copernicus Data Space.

The scale and the offset come from the item (STAC 1.1 or the extension raster), otherwise from the product's metadata
that the item links.
"""

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pystac
import requests

from landslide.errors import DataError, RemoteError, first_few
from landslide.scenes.band_names import SCENE_CLASSIFICATION, band_of_file, band_of_text
from landslide.scenes.metadata import Level, ProductMetadata, parse_product_metadata
from landslide.scenes.rasters import gdal_path
from landslide.scenes.sources import SENTINEL2_BANDS, Classification, Image, Source

_TIMEOUT = 30  # seconds
_METADATA_ASSETS = ("product_metadata", "product-metadata")
_RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff")
_APPLIED = "earthsearch:boa_offset_applied"

_KINDS: Mapping[type, str] = {str: "a text", dict: "an object", list: "a list"}

Scaling = tuple[float | None, float | None]


def is_remote(source: str) -> bool:
    """Whether this is an http(s) address."""
    return source.startswith(("http://", "https://"))


def stac_source(source: str) -> Source:
    """Return what a STAC Item says of its scene.

    Args:
        source: Path or http(s) address of the item.

    Raises:
        RemoteError: The address does not answer.
        DataError: It is no item, or has no assets of Sentinel-2 bands.
    """
    item = _read_item(source)
    assets = _band_assets(item, source)
    if not set(assets) & set(SENTINEL2_BANDS):
        raise DataError(
            f"{source} has no asset of a Sentinel-2 band; found {first_few(sorted(item.assets)) or 'no asset'}.",
            remedy="Give an item of a Sentinel-2 collection, with assets such as red and nir or B04 and B08.",
        )
    images = {band: Image(gdal_path(_address(asset, source))) for band, asset in assets.items()}
    scaling = {band: _scaling(asset) for band, asset in assets.items() if band != SCENE_CLASSIFICATION}
    metadata_path, metadata = "", None
    if any(scale is None or offset is None for scale, offset in scaling.values()):
        metadata_path, metadata = _product_metadata(item, source)
    offsets = metadata.offsets.values() if metadata else [offset for _, offset in scaling.values()]
    offset_fault = None
    if item.properties.get(_APPLIED) is True and any(offsets):
        says = metadata_path or "its bands"
        offset_fault = f"{source} contradicts itself: {_APPLIED} is true, but the offset of {says} is not 0."
        scaling = {band: (scale, None) for band, (scale, _) in scaling.items()}
    return Source(
        name=item.id,
        kind="STAC item",
        images=images,
        classification=Classification(scene=images.get(SCENE_CLASSIFICATION)),
        metadata=metadata,
        metadata_path=metadata_path or source,
        scaling={} if metadata else scaling,
        offset_fault=offset_fault,
        level=_level(item),
        baseline=_text(item.properties, "s2:processing_baseline", "processing:version"),
        sensor=(_text(item.properties, "platform") or "").title().replace("-2a", "-2A").replace("-2b", "-2B") or None,
        time=item.datetime or item.common_metadata.start_datetime,
    )


def _read(address: str) -> bytes:
    """Read a small file from a path or an http(s) address."""
    if not is_remote(address):
        try:
            return Path(address).read_bytes()
        except OSError as error:
            raise DataError(f"{address} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    try:
        answer = requests.get(address, timeout=_TIMEOUT)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise RemoteError(
            f"{address} cannot be read: {error}.",
            remedy="Check the address and the network; an item of the Planetary Computer has to be signed.",
        ) from error
    return answer.content


def _read_item(source: str) -> pystac.Item:
    try:
        content = json.loads(_read(source))
        if not isinstance(content, dict) or content.get("type") != "Feature":
            raise ValueError("it is no GeoJSON feature")
        _check_fields(content)
        item = pystac.Item.from_dict(content)
        item.common_metadata.start_datetime  # noqa: B018  # read now, so that a wrong one is known as the item's
        return item
    except (ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError) as error:
        raise DataError(
            f"{source} is not a readable STAC Item: {error}.",
            remedy="Give the address or the file of an item, not of a collection or of a search; a field that is wrong "
            "or missing has to be corrected in it.",
        ) from error


def _check_fields(item: dict[str, Any]) -> None:
    """Refuse an item that lacks a field, or has one of a wrong type.

    Raises:
        ValueError: It says which one.
    """
    fields: dict[str, type] = {"id": str, "stac_version": str, "properties": dict, "links": list, "assets": dict}
    _check_types("", item, fields, optional={"collection": str})
    for key, asset in item["assets"].items():
        _check_types(f"asset {key}: ", asset, {"href": str}, optional={"type": str})
    for number, link in enumerate(item["links"], start=1):
        _check_types(f"link {number}: ", link, {"href": str, "rel": str}, optional={})


def _check_types(where: str, content: Any, fields: Mapping[str, type], optional: Mapping[str, type]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where}{json.dumps(content)[:40]} is not an object")
    for name, kind in {**fields, **optional}.items():
        if name in fields and name not in content:
            raise ValueError(f"{where}the field {name} is missing")
        value = content.get(name)
        if not isinstance(value, kind) and not (name in optional and value is None):
            raise ValueError(f"{where}{name} is {json.dumps(value)[:40]}, not {_KINDS[kind]}")


def _band_assets(item: pystac.Item, source: str) -> dict[str, pystac.Asset]:
    """Return the finest raster asset of each band, without B8A."""
    finest: dict[str, tuple[int, str, pystac.Asset]] = {}
    for key, asset in item.assets.items():
        band = band_of_text(key)
        if band is None or band == "B8A" or not (asset.media_type or _RASTERS[0]).startswith(_RASTERS):
            continue
        metres = band_of_file(key)[1] or 0
        if band not in finest or metres < finest[band][0]:
            finest[band] = metres, key, asset
        elif metres == finest[band][0]:
            raise DataError(
                f"{source}: the assets {finest[band][1]} and {key} are both band {band}.",
                remedy="Keep one asset per band in the item.",
            )
    return {band: asset for band, (_, _, asset) in finest.items()}


def _address(asset: pystac.Asset, source: str) -> str:
    if is_remote(source):
        return urljoin(source, asset.href)
    if "://" in asset.href:
        return asset.href
    return posixpath.normpath(posixpath.join(posixpath.dirname(str(Path(source).absolute())), asset.href))


def _scaling(asset: pystac.Asset) -> Scaling:
    """Scale and offset of the asset's first band: STAC 1.1 `bands`, the asset itself, or `raster:bands`."""
    fields = asset.extra_fields
    for key, prefix in (("bands", "raster:"), ("raster:bands", "")):
        entries = fields.get(key)
        if isinstance(entries, list) and entries and isinstance(entries[0], dict):
            scaling = _pair(entries[0], prefix)
            if scaling != (None, None):
                return scaling
    return _pair(fields, "raster:")


def _pair(fields: dict[str, Any], prefix: str) -> Scaling:
    scale, offset = (fields.get(f"{prefix}{name}") for name in ("scale", "offset"))
    return (
        float(scale) if isinstance(scale, int | float) else None,
        float(offset) if isinstance(offset, int | float) else None,
    )


def _product_metadata(item: pystac.Item, source: str) -> tuple[str, ProductMetadata | None]:
    """The product's metadata that the item links, if they can be read."""
    for key in _METADATA_ASSETS:
        if key in item.assets:
            address = _address(item.assets[key], source)
            try:
                content = _read(address)
            except DataError:  # then the options have to say it
                return "", None
            return address, parse_product_metadata(content, address)
    return "", None


def _level(item: pystac.Item) -> Level | None:
    """The level that a property or the collection names."""
    named = (_text(item.properties, "s2:product_type"), item.collection_id, _text(item.properties, "processing:level"))
    for text in named:
        compact = (text or "").upper().replace("-", "")
        if compact.endswith("1C") or "L1C" in compact:
            return "L1C"
        if compact.endswith("2A") or "L2A" in compact:
            return "L2A"
    return None


def _text(properties: dict[str, Any], *keys: str) -> str | None:
    return next((properties[key] for key in keys if isinstance(properties.get(key), str)), None)
