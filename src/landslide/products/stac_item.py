"""The products of a map as a STAC Item."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
import shapely

from landslide.files import atomic_write, sha256
from landslide.products.map_info import MapInfo
from landslide.scenes.grid import Grid
from landslide.scenes.reasons import Reason

EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "classification/v2.0.0", "file/v2.1.0", "processing/v1.2.0")
]

_LAUNCH = datetime(2015, 6, 23, tzinfo=UTC)  # of Sentinel-2A: no image is older
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_PERCENT = {"data_type": "uint16", "nodata": 65535, "raster:scale": 0.0001, "raster:offset": 0}
_CLASSES = [
    {"value": 0, "name": "none", "description": "No landslide"},
    {"value": 1, "name": "landslide", "description": "Landslide", "color_hint": "D7191C"},
    {"value": 255, "name": "not_analysed", "description": "Not analysed", "nodata": True},
]
# Title, media type, role and further fields of each product.
_ASSETS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "probability.tif": ("Landslide probability", _COG, "data", _PERCENT),
    "uncertainty.tif": ("Standard deviation of the probability over the ensemble", _COG, "data", _PERCENT),
    "mask.tif": (
        "Landslides, and what was not analysed",
        _COG,
        "data",
        {"data_type": "uint8", "nodata": 255, "classification:classes": _CLASSES},
    ),
    "reasons.tif": (
        "Why pixels are not analysed",
        _COG,
        "data",
        {
            "data_type": "uint8",
            "classification:classes": [
                {"value": reason.value, "name": reason.name.lower(), "description": reason.text.capitalize()}
                for reason in Reason
            ],
        },
    ),
    "landslides.gpkg": ("Polygons with attributes", "application/geopackage+sqlite3", "data", {}),
    "landslides.geojson": ("Landslides with attributes", "application/geo+json", "data", {}),
    "quicklook.png": ("Picture", "image/png", "overview", {}),
    "map.html": ("Page that opens offline", "text/html", "overview", {}),
    "summary.json": ("Summary", "application/json", "metadata", {}),
}


def write_item(path: Path, info: MapInfo, grid: Grid, summary: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Write the STAC Item of a map.

    Args:
        path: The file, beside the products; an older one is replaced when the new one is complete.
        info: Where the map comes from. If the time of the image is unknown, the item says that it was taken between
            the launch of Sentinel-2A and the making of the map.
        grid: The scene.
        summary: Further properties, such as the number of landslides, by name; the item puts `landslide:` before it.
        files: The products, in the folder of the item. The digests of those that exist are computed here; the summary
            is written later, and holds the digest of the item.

    Raises:
        OSError: If a product cannot be read or the item cannot be written.
    """
    outline, bounds = grid.geojson_outline
    unknown = info.image_datetime is None
    item = pystac.Item(
        id=f"{info.scene}-landslides",
        geometry=shapely.geometry.mapping(outline),
        bbox=bounds,
        datetime=info.image_datetime,
        start_datetime=_LAUNCH if unknown else None,
        end_datetime=info.created if unknown else None,
        properties=_properties(info, grid, summary),
        stac_extensions=EXTENSIONS,
    )
    for file in files:
        title, media_type, role, fields = _ASSETS[file.name]
        digest = {"file:size": file.stat().st_size, "file:checksum": multihash(file)} if file.exists() else {}
        item.add_asset(
            file.stem if file.suffix == ".tif" else file.name,
            pystac.Asset(f"./{file.name}", title, media_type=media_type, roles=[role], extra_fields=fields | digest),
        )
    for address, title in ((info.source, "The scene"), (info.model_address, "The model")):
        item.add_link(pystac.Link(pystac.RelType.DERIVED_FROM, _uri(address), title=title))
    with atomic_write(path) as temporary:
        content = item.to_dict(include_self_link=False, transform_hrefs=False)
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def multihash(path: Path) -> str:
    """Return the SHA-256 of a file as STAC writes it, with the code of the algorithm and the length before it."""
    return f"1220{sha256(path)}"


def _properties(info: MapInfo, grid: Grid, summary: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "title": f"Landslides in {info.scene}",
        "created": info.created.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "gsd": round(max(grid.pixel_size), 3),
        "proj:code": ":".join(grid.crs.to_authority()) if grid.crs.to_authority() else None,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.transform)[:6],
        "proj:bbox": list(grid.bounds),
        "processing:software": {"landslide": info.landslide_version},
        "landslide:threshold": info.threshold,
        "landslide:minimum_area": info.minimum_area,
        "landslide:model": f"{info.model} {info.model_version}".rstrip(),
        **{f"landslide:{name}": value for name, value in summary.items()},
    }
    if properties["proj:code"] is None:
        properties["proj:wkt2"] = grid.crs.to_wkt()
    if info.sensor is not None:
        properties["platform"] = info.sensor.lower()
    if info.level is not None:
        properties["processing:level"] = info.level.replace("L1C", "L1").replace("L2A", "L2")
    return properties


def _uri(address: str) -> str:
    """Return an address as it is, and a path as a file URI."""
    return address if ":/" in address else Path(address).absolute().as_uri()
