"""A generated Sentinel-2 scene with landslides and its elevation model, in the layouts that people have.

The ground is that of the demo data set. The files are those of a real product: digital numbers with the offset that
the metadata states, bands of 10, 20 and 60 m, lossless JPEG 2000.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pystac
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import shapes
from shapely.geometry import mapping, shape

from landslide.data.demo import PATCH, PIXEL, scene
from landslide.scenes.grid import Grid
from landslide.scenes.rasters import gdal_as_os_error, writing
from landslide.scenes.resampling import axes, bilinear

Layout = Literal["SAFE", "bands", "stack", "STAC item"]
Array = npt.NDArray[Any]

QUANTIFICATION = 10_000
TAKEN = datetime(2024, 6, 12, 4, 47, 1, tzinfo=UTC)
_NODATA, _SATURATED = 0, 65535
_DEGREE = 8.983152841195215e-05  # ten metres along the equator
_MARGIN = 12  # pixels around the scene that the elevation model covers
_CLOUD = 6500  # digital number of a thick cloud in all bands
# Centre and radius as shares of the scene: cloud, cirrus, shadow, snow.
_DISCS = ((0.25, 0.3, 0.14), (0.75, 0.3, 0.1), (0.42, 0.42, 0.12), (0.8, 0.8, 0.08))

# In the order of the product's band_id. The demo has no B8A: it is as B8 at 20 m.
_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_DEMO_BAND = dict(zip(_BANDS, (0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11), strict=True))
_PIXELS = dict(zip(_BANDS, (6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 6, 2, 2), strict=True))  # of 10 m
_EARTH_SEARCH = dict(
    zip(
        _BANDS,
        (
            *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09"),
            *("cirrus", "swir16", "swir22"),
        ),
        strict=True,
    )
)
_TIFF = {"driver": "GTiff", "compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256}
_JP2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}


@dataclass(frozen=True)
class _Ground:
    """What the sensor sees: digital numbers with the offset of each band, and the classes of the ground."""

    grid: Grid
    numbers: dict[str, Array]  # uint16, at each band's own resolution
    cloud: Array  # bool, at 20 m, likewise below
    cirrus: Array
    shadow: Array
    snow: Array
    taken: datetime


def write_demo_scene(
    folder: Path,
    *,
    layout: Layout = "SAFE",
    rows: int = 3,
    columns: int = 3,
    crop: tuple[int, int] | None = None,
    crs: str = "EPSG:32645",
    origin: tuple[float, float] | None = None,
    seed: int = 0,
    clouds: bool = False,
    product_offset: int = -1000,
    level: Literal["L1C", "L2A"] = "L1C",
    dem_crs: str | None = None,
) -> Path:
    """Write a generated scene; beside it `dem.tif` (elevation, m) and `landslides.gpkg` (its true landslides).

    The same arguments give the same pixels in every layout; a stack has the bands of 20 and 60 m at 10 m, bilinear.

    Args:
        folder: A folder; it is created, and files of the same names are replaced.
        layout: "SAFE": a product folder with metadata and JPEG 2000; "bands": a folder of one GeoTIFF per band;
            "stack": one GeoTIFF; "STAC item": an item with the asset names of Earth Search. The GeoTIFFs state
            their scale and offset.
        rows: Height in patches of 128 pixels.
        columns: Width, likewise.
        crop: Height and width in pixels of the upper left part to keep; any size.
        crs: Reference system: UTM, north or south, or longitude and latitude.
        origin: Coordinates of the upper left corner in this system.
        seed: Seed of the terrain; each has a date of its own, so that the names of products differ.
        clouds: Add a cloud with its shadow, cirrus and snow, and the product's classification of them.
        product_offset: What the metadata says is to be added to the digital numbers; 0 leaves the list of offsets
            out, as products did before processing baseline 04.00.
        level: "L2A" has no B10.
        dem_crs: Reference system of the elevation model, if it is another one.

    Returns:
        The scene, as `open_scene` takes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    height, width = crop or (rows * PATCH, columns * PATCH)
    grid = _grid(CRS.from_user_input(crs), origin, height, width)
    full_height, full_width = max(rows * PATCH, height), max(columns * PATCH, width)
    image, mask, elevation = scene(seed, 1, full_height + 2 * _MARGIN, full_width + 2 * _MARGIN)
    inside = slice(_MARGIN, _MARGIN + height), slice(_MARGIN, _MARGIN + width)
    ground = _observe(image, grid, clouds, product_offset, level, TAKEN + timedelta(days=5 * (seed % 1000)))
    _write_elevation(folder / "dem.tif", elevation, grid, dem_crs)
    _write_landslides(folder / "landslides.gpkg", mask[inside], grid)
    if layout == "SAFE":
        return _write_safe(folder, ground, product_offset, level, clouds)
    if layout == "bands":
        return _write_bands(folder / "bands", ground, product_offset)
    if layout == "stack":
        return _write_stack(folder / "stack.tif", ground, product_offset)
    return _write_item(folder, ground, product_offset, level, clouds)


def _grid(crs: CRS, origin: tuple[float, float] | None, height: int, width: int) -> Grid:
    if crs.is_geographic:
        west, north = origin or (86.0, 28.2)
        return Grid(crs, Affine(_DEGREE, 0, west, 0, -_DEGREE, north), width, height)
    south = crs.to_dict().get("south") or 32700 < (crs.to_epsg() or 0) < 32761
    west, north = origin or (399_960.0, 7_300_000.0 if south else 3_100_020.0)
    return Grid(crs, Affine(PIXEL, 0, west, 0, -PIXEL, north), width, height)


def _observe(image: Array, grid: Grid, clouds: bool, product_offset: int, level: str, taken: datetime) -> _Ground:
    """Return the digital numbers of the bands at their own resolutions, clouds included."""
    bands = image[..., :12].astype(np.float64)
    cloud, cirrus, shadow, snow = (
        _disc(image.shape, grid, *disc) if clouds else np.zeros(image.shape[:2], bool) for disc in _DISCS
    )
    bands[shadow] *= 0.5
    bands[snow, :9] = 5500
    bands[cirrus] += 400
    bands[cloud] = _CLOUD
    numbers = {}
    for name in _BANDS:
        if level == "L2A" and name == "B10":
            continue
        mean = _means(bands[..., _DEMO_BAND[name]], grid, _PIXELS[name])
        numbers[name] = np.clip(np.rint(mean) - product_offset, 1, _SATURATED - 1).astype(np.uint16)
    names = ("cloud", "cirrus", "shadow", "snow")
    at_20_m = {
        name: _means(layer.astype(np.float64), grid, 2) >= 0.5
        for name, layer in zip(names, (cloud, cirrus, shadow, snow), strict=True)
    }
    return _Ground(grid, numbers, **at_20_m, taken=taken)


def _disc(shape: tuple[int, ...], grid: Grid, row: float, column: float, radius: float) -> Array:
    y, x = np.ogrid[-_MARGIN : shape[0] - _MARGIN, -_MARGIN : shape[1] - _MARGIN]
    return np.hypot(y - row * grid.height, x - column * grid.width) < radius * min(grid.height, grid.width)


def _means(values: Array, grid: Grid, pixels: int) -> Array:
    """Means of blocks from the upper left corner of the scene; the last blocks may reach beyond its edges."""
    height, width = -(-grid.height // pixels), -(-grid.width // pixels)
    part = values[_MARGIN : _MARGIN + height * pixels, _MARGIN : _MARGIN + width * pixels]
    result: Array = part.reshape(height, pixels, width, pixels).mean(axis=(1, 3))
    return result


def _profile(grid: Grid, values: Array, pixels: int = 1) -> dict[str, Any]:
    return {
        "crs": grid.crs,
        "transform": grid.transform @ Affine.scale(pixels),
        "height": values.shape[-2],
        "width": values.shape[-1],
        "count": 1 if values.ndim == 2 else len(values),
        "dtype": values.dtype,
    }


def _write_elevation(path: Path, elevation: Array, grid: Grid, dem_crs: str | None) -> None:
    transform = grid.transform @ Affine.translation(-_MARGIN, -_MARGIN)
    values = elevation.astype(np.float32)
    profile = _profile(grid, values) | {"transform": transform, "nodata": -9999.0}
    if dem_crs is not None:
        warped, transform = rasterio.warp.reproject(
            values,
            src_crs=grid.crs,
            src_transform=transform,
            dst_crs=dem_crs,
            dst_nodata=-9999.0,
            resampling=Resampling.bilinear,
        )
        profile |= {"crs": dem_crs, "transform": transform, "height": warped.shape[-2], "width": warped.shape[-1]}
        values = warped.reshape(warped.shape[-2:])
    with writing(path), rasterio.open(path, "w", **(_TIFF | profile)) as dataset:
        dataset.write(values, 1)


def _write_landslides(path: Path, mask: Array, grid: Grid) -> None:
    polygons = [shape(polygon) for polygon, _ in shapes(mask, mask=mask > 0, connectivity=8, transform=grid.transform)]
    path.unlink(missing_ok=True)
    gpd.GeoDataFrame({"id": range(1, len(polygons) + 1)}, geometry=polygons, crs=grid.crs).to_file(
        path, layer="landslides"
    )


# --- layouts ------------------------------------------------------------------------------------------------


def _write_safe(folder: Path, ground: _Ground, product_offset: int, level: str, clouds: bool) -> Path:
    zone = (ground.grid.crs.to_epsg() or 0) % 100 if ground.grid.crs.is_projected else 0
    tile, time, baseline = f"T{zone:02d}XXX", f"{ground.taken:%Y%m%dT%H%M%S}", "0510" if product_offset else "0301"
    product = f"S2A_MSI{level}_{time}_N{baseline}_R076_{tile}_{time}"
    granule = f"GRANULE/{level}_{tile}_A046869_{time}"
    root = folder / f"{product}.SAFE"
    files = {}
    for name, values in ground.numbers.items():
        metres = 10 * _PIXELS[name]
        where = (
            f"IMG_DATA/R{metres}m/{tile}_{time}_{name}_{metres}m"
            if level == "L2A"
            else f"IMG_DATA/{tile}_{time}_{name}"
        )
        files[name] = f"{granule}/{where}"
        _write_jp2(root / f"{files[name]}.jp2", values, ground.grid, _PIXELS[name])
    if level == "L2A":
        files["SCL"] = f"{granule}/IMG_DATA/R20m/{tile}_{time}_SCL_20m"
        _write_jp2(root / f"{files['SCL']}.jp2", _scene_classification(ground), ground.grid, 2)
    elif clouds:
        layers = np.stack([_coarser(layer) for layer in (ground.cloud, ground.cirrus, ground.snow)]).astype(np.uint8)
        _write_jp2(root / f"{granule}/QI_DATA/MSK_CLASSI_B00.jp2", layers, ground.grid, 6)
    metadata = _product_metadata(
        product, list(files.values()), product_offset, level, f"{baseline[:2]}.{baseline[2:]}", ground.taken
    )
    (root / f"MTD_MSI{level}.xml").write_text(metadata, encoding="utf-8")
    return root


def _write_jp2(path: Path, values: Array, grid: Grid, pixels: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gdal_as_os_error(path), rasterio.open(path, "w", **(_JP2 | _profile(grid, values, pixels))) as dataset:
        dataset.write(values if values.ndim == 3 else values[None])


def _scene_classification(ground: _Ground) -> Array:
    """Sen2Cor's classes: vegetation, shadow of clouds, snow, cirrus, cloud."""
    classes = np.full(ground.cloud.shape, 4, np.uint8)
    for code, layer in ((3, ground.shadow), (11, ground.snow), (10, ground.cirrus), (9, ground.cloud)):
        classes[layer] = code
    return classes


def _coarser(layer: Array) -> Array:
    """From 20 m to 60 m: pixels of which some part is marked."""
    height, width = (-(-size // 3) * 3 for size in layer.shape)
    padded = np.pad(layer, ((0, height - layer.shape[0]), (0, width - layer.shape[1])))
    return np.asarray(padded.reshape(height // 3, 3, width // 3, 3).any(axis=(1, 3)))


def _product_metadata(
    product: str, files: list[str], product_offset: int, level: str, baseline: str, taken: datetime
) -> str:
    """The part of a product's metadata that the values and the files depend on, in the format of ESA."""
    time = f"{taken:%Y-%m-%dT%H:%M:%S}.024Z"
    name = "BOA" if level == "L2A" else "RADIO"
    offsets = "\n".join(
        f'<{name}_ADD_OFFSET band_id="{i}">{product_offset}</{name}_ADD_OFFSET>' for i in range(len(_BANDS))
    )
    offset_list = "BOA_ADD_OFFSET_VALUES_LIST" if level == "L2A" else "Radiometric_Offset_List"
    quantification = (
        "<QUANTIFICATION_VALUES_LIST>"
        f'<BOA_QUANTIFICATION_VALUE unit="none">{QUANTIFICATION}</BOA_QUANTIFICATION_VALUE>'
        "</QUANTIFICATION_VALUES_LIST>"
        if level == "L2A"
        else f'<QUANTIFICATION_VALUE unit="none">{QUANTIFICATION}</QUANTIFICATION_VALUE>'
    )
    special = "\n".join(
        f"<Special_Values><SPECIAL_VALUE_TEXT>{text}</SPECIAL_VALUE_TEXT>"
        f"<SPECIAL_VALUE_INDEX>{value}</SPECIAL_VALUE_INDEX></Special_Values>"
        for text, value in (("NODATA", _NODATA), ("SATURATED", _SATURATED))
    )
    images = "\n".join(f"<IMAGE_FILE>{file}</IMAGE_FILE>" for file in files)
    schema = f"https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level[1:]}.xsd"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level[1:]}_User_Product xmlns:n1="{schema}">
<n1:General_Info>
<Product_Info>
<PRODUCT_START_TIME>{time}</PRODUCT_START_TIME>
<PRODUCT_STOP_TIME>{time}</PRODUCT_STOP_TIME>
<PRODUCT_URI>{product}.SAFE</PRODUCT_URI>
<PROCESSING_LEVEL>Level-{level[1:]}</PROCESSING_LEVEL>
<PRODUCT_TYPE>S2MSI{level[1:]}</PRODUCT_TYPE>
<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<Datatake><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME><DATATAKE_SENSING_START>{time}</DATATAKE_SENSING_START></Datatake>
<Product_Organisation><Granule_List><Granule imageFormat="JPEG2000">
{images}
</Granule></Granule_List></Product_Organisation>
</Product_Info>
<Product_Image_Characteristics>
{special}
{quantification}
{f"<{offset_list}>{offsets}</{offset_list}>" if product_offset else ""}
</Product_Image_Characteristics>
</n1:General_Info>
</n1:Level-{level[1:]}_User_Product>
"""


def _write_tiff(path: Path, values: Array, grid: Grid, product_offset: int, pixels: int, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = _TIFF | _profile(grid, values, pixels) | {"nodata": _NODATA}
    with writing(path), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
        dataset.descriptions = names
        dataset.scales = [1 / QUANTIFICATION] * len(names)
        dataset.offsets = [product_offset / QUANTIFICATION] * len(names)


def _write_bands(folder: Path, ground: _Ground, product_offset: int) -> Path:
    for name, values in ground.numbers.items():
        _write_tiff(folder / f"{name}.tif", values[None], ground.grid, product_offset, _PIXELS[name], [name])
    return folder


def _write_stack(path: Path, ground: _Ground, product_offset: int) -> Path:
    grid = ground.grid
    layers = [
        bilinear(values, *axes(grid.transform @ Affine.scale(_PIXELS[name]), values.shape, grid))
        for name, values in ground.numbers.items()
    ]
    _write_tiff(path, np.stack(layers), grid, product_offset, 1, list(ground.numbers))
    return path


def _write_item(folder: Path, ground: _Ground, product_offset: int, level: str, clouds: bool) -> Path:
    _write_bands(folder / "assets", ground, product_offset)
    outline, bounds = ground.grid.geojson_outline
    item = pystac.Item(
        id=f"S2A_45XXX_{ground.taken:%Y%m%d}_0_{level}",
        geometry=mapping(outline),
        bbox=bounds,
        datetime=ground.taken,
        properties={"platform": "sentinel-2a", "s2:product_type": f"S2MSI{level[1:]}"},
        stac_extensions=["https://stac-extensions.github.io/raster/v1.1.0/schema.json"],
    )
    item.properties["s2:processing_baseline"] = "05.10" if product_offset else "03.01"
    scaling = {"nodata": _NODATA, "scale": 1 / QUANTIFICATION, "offset": product_offset / QUANTIFICATION}
    for name in ground.numbers:
        asset = pystac.Asset(f"./assets/{name}.tif", media_type=pystac.MediaType.GEOTIFF, roles=["data"])
        asset.extra_fields["raster:bands"] = [scaling | {"data_type": "uint16"}]
        item.add_asset(_EARTH_SEARCH[name], asset)
    if level == "L2A" and clouds:
        classes = _scene_classification(ground)
        classified = folder / "assets" / "SCL.tif"
        profile = _TIFF | _profile(ground.grid, classes, 2)
        with writing(classified), rasterio.open(classified, "w", **profile) as dataset:
            dataset.write(classes, 1)
        item.add_asset("scl", pystac.Asset("./assets/SCL.tif", media_type=pystac.MediaType.GEOTIFF, roles=["data"]))
    path = folder / "item.json"
    item.save_object(include_self_link=False, dest_href=str(path))
    return path
