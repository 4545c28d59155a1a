"""Pixels that are left out, at the places where the scene, a mask or an area says so."""

import shutil
import zipfile

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS
from scipy.ndimage import distance_transform_edt

from landslide.errors import ConfigurationError, DataError
from landslide.scenes.demo_scene import write_demo_scene
from landslide.scenes.exclusion_polygons import area_polygons, read_mask_polygons
from landslide.scenes.exclusions import ExclusionSettings, cloud_source
from landslide.scenes.grid import Grid
from landslide.scenes.reader import SceneReader
from landslide.scenes.reasons import Reason
from landslide.scenes.scene import open_scene

HEIGHT, WIDTH = 290, 130
SMALL = {"rows": 1, "columns": 1, "crop": (HEIGHT, WIDTH)}
LEFT, TOP = 399_960, 3_100_020


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return open_scene(write_demo_scene(tmp_path_factory.mktemp("stack"), layout="stack", **SMALL))


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    return write_demo_scene(tmp_path_factory.mktemp("product"), clouds=True, **SMALL)


def reasons_of(scene, bands=("B4",), work_folder=None, margin=0, **settings):
    """The reasons of the whole scene; they are the same row by row."""
    with SceneReader(scene, bands, ExclusionSettings(margin=margin, **settings), work_folder=work_folder) as reader:
        _, whole = reader.read(0, HEIGHT)
        for row in (127, 256, 255, 0, HEIGHT - 1):
            assert (reader.read(row, row + 1)[1][0] == whole[row]).all()
    return whole


def upscaled(layer, factor):
    return np.kron(layer, np.ones((factor, factor), layer.dtype))[:HEIGHT, :WIDTH]


def test_classification_mask_of_l1c(product):
    scene = open_scene(product)
    assert cloud_source(scene, ExclusionSettings()) == "classification mask (MSK_CLASSI)"
    with rasterio.open(scene.classification.clouds) as dataset:
        opaque, cirrus, snow = (upscaled(layer, 6) for layer in dataset.read())
    clouds = reasons_of(scene)
    assert (clouds == np.where(opaque | cirrus, Reason.CLOUD, 0)).all()
    assert (clouds == Reason.CLOUD).mean() > 0.02
    with_snow = reasons_of(scene, snow=True)
    assert (with_snow == np.where(opaque | cirrus, Reason.CLOUD, snow * Reason.SNOW)).all()
    assert (with_snow == Reason.SNOW).any()
    assert not reasons_of(scene, clouds="none").any()
    assert (reasons_of(scene, clouds="none", snow=True) == snow * Reason.SNOW).all()


@pytest.mark.parametrize("margin", [60, 205])
def test_clouds_and_snow_are_grown_by_the_margin(product, margin):
    scene = open_scene(product)
    narrow = reasons_of(scene, snow=True)
    wide = reasons_of(scene, snow=True, margin=margin)
    distance = 10 * distance_transform_edt(narrow != Reason.CLOUD)  # metres, between the centres of pixels
    assert (wide[distance <= margin - 10] == Reason.CLOUD).all()
    assert (wide[distance > margin + 20] != Reason.CLOUD).all()
    assert (wide == Reason.SNOW).sum() > (narrow == Reason.SNOW).sum()
    assert (wide >= narrow).all()


def test_a_margin_out_of_range_is_refused(product):
    with pytest.raises(ConfigurationError, match="margin around clouds is -1 m"):
        reasons_of(open_scene(product), margin=-1)


def test_scene_classification_of_l2a(tmp_path):
    scene = open_scene(write_demo_scene(tmp_path, clouds=True, level="L2A", **SMALL))
    assert cloud_source(scene, ExclusionSettings()) == "scene classification (SCL)"
    with rasterio.open(scene.classification.scene.path, "r") as dataset:
        profile, classes = dataset.profile, dataset.read(1)
    assert {3, 4, 9, 10, 11} == set(np.unique(classes))
    classes[0, :12] = range(12)
    with rasterio.open(scene.classification.scene.path, "w", **profile, QUALITY="100", REVERSIBLE="YES") as dataset:
        dataset.write(classes, 1)
    expected = {
        0: Reason.NO_DATA,
        1: Reason.DEFECTIVE,
        3: Reason.CLOUD_SHADOW,
        **dict.fromkeys((8, 9, 10), Reason.CLOUD),
    }
    table = np.array([expected.get(i, 0) for i in range(12)], np.uint8)
    assert (reasons_of(scene) == upscaled(table[classes], 2)).all()
    table[11] = Reason.SNOW
    assert (reasons_of(scene, snow=True) == upscaled(table[classes], 2)).all()
    table[:] = 0
    table[:2] = Reason.NO_DATA, Reason.DEFECTIVE
    assert (reasons_of(scene, clouds="none") == upscaled(table[classes], 2)).all()


GML = """<?xml version="1.0"?><eop:Mask xmlns:eop="http://www.opengis.net/eop/2.0" xmlns:gml="http://www.opengis.net/gml/3.2">
{envelope}<eop:maskMembers>{members}</eop:maskMembers></eop:Mask>"""
ENVELOPE = '<gml:boundedBy><gml:Envelope srsName="urn:ogc:def:crs:EPSG:8.7.1:{epsg}"></gml:Envelope></gml:boundedBy>'
MEMBER = """<eop:MaskFeature><eop:maskType>OPAQUE</eop:maskType><eop:extentOf><gml:Polygon>
<gml:exterior><gml:LinearRing>
<gml:posList srsDimension="2">{outline}</gml:posList></gml:LinearRing></gml:exterior><gml:interior><gml:LinearRing>
<gml:posList srsDimension="2">{hole}</gml:posList></gml:LinearRing></gml:interior>
</gml:Polygon></eop:extentOf></eop:MaskFeature>"""


def ring(rows, columns):
    """Coordinates around rows and columns of the scene."""
    x, y = [LEFT + 10 * column for column in columns], [TOP - 10 * row for row in rows]
    return f"{x[0]} {y[0]} {x[1]} {y[0]} {x[1]} {y[1]} {x[0]} {y[1]} {x[0]} {y[0]}"


def gml(members=None, epsg=32645, envelope=ENVELOPE):
    if members is None:
        members = MEMBER.format(outline=ring((240, 280), (20, 70)), hole=ring((250, 260), (30, 40)))
    return GML.format(envelope=envelope.format(epsg=epsg), members=members)


@pytest.mark.parametrize("zipped", [False, True])
def test_cloud_polygons_of_older_products(tmp_path, zipped):
    product = write_demo_scene(tmp_path, **SMALL)
    quality = next(product.rglob("IMG_DATA")).parent / "QI_DATA"
    quality.mkdir()
    (quality / "MSK_CLOUDS_B00.gml").write_text(gml())
    if zipped:
        product = shutil.make_archive(str(tmp_path / "zipped"), "zip", product.parent, product.name)
    scene = open_scene(product)
    assert cloud_source(scene, ExclusionSettings()) == "cloud polygons (MSK_CLOUDS)"
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[240:280, 20:70] = Reason.CLOUD
    expected[250:260, 30:40] = 0
    assert (reasons_of(scene) == expected).all()
    assert not reasons_of(scene, clouds="none").any()
    with pytest.raises(ConfigurationError, match="nothing says where snow is"):
        reasons_of(scene, snow=True)


def test_cloud_polygons_without_clouds_in_another_zone_and_damaged(tmp_path, stack):
    path = tmp_path / "MSK_CLOUDS_B00.gml"
    path.write_text(gml("", envelope=""))
    assert read_mask_polygons(str(path), stack.grid) == []
    path.write_text(gml(epsg=32644))
    ((kind, polygon),) = read_mask_polygons(str(path), stack.grid)
    assert kind == "OPAQUE"
    there = gpd.GeoSeries([shapely.box(LEFT + 200, TOP - 2800, LEFT + 700, TOP - 2400)], crs=32644).to_crs(32645)[0]
    assert polygon.symmetric_difference(there).area == pytest.approx(100 * 100, rel=0.02)  # the hole
    path.write_text(gml().replace("<gml:Polygon>", '<gml:Polygon srsName="EPSG:32645">'))  # another spelling
    assert len(read_mask_polygons(str(path), stack.grid)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<x", "cannot be read"),
        (gml(envelope=""), "reference system is missing"),
        (gml().replace("MaskFeature", "Feature"), "polygons that are in no MaskFeature"),
        (gml().replace('srsDimension="2"', 'srsDimension="3"', 1), "a posList has 10 numbers for points of 3"),
        (gml().replace('srsDimension="2"', 'srsDimension="0"'), "points of 0"),
        (gml().replace('srsDimension="2"', 'srsDimension="-1"'), "points of -1"),
        (gml().replace("OPAQUE", ""), "a mask has no type"),
        (gml().replace(f"{LEFT + 200} ", "nan ", 1), "cannot be read"),
        (gml().replace('version="1.0"', 'version="1.0" encoding="UTF-99"'), "unknown encoding"),
    ],
)
def test_damaged_mask_polygons_are_named(tmp_path, stack, content, message):
    path = tmp_path / "MSK_CLOUDS_B00.gml"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_mask_polygons(str(path), stack.grid)
    assert "--clouds none" in error.value.remedy


def test_a_damaged_mask_in_a_zip_is_named(tmp_path, stack):
    with zipfile.ZipFile(tmp_path / "product.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("MSK_DEFECT_B11.gml", gml() + " " * 5_000)
    content = bytearray((tmp_path / "product.zip").read_bytes())
    content[80:140] = bytes(60)
    (tmp_path / "product.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"MSK_DEFECT_B11\.gml cannot be read") as error:
        read_mask_polygons(f"/vsizip/{tmp_path}/product.zip/MSK_DEFECT_B11.gml", stack.grid)
    assert "take this file out" in error.value.remedy


def test_defects_of_the_needed_bands(tmp_path):
    product = write_demo_scene(tmp_path, clouds=True, **SMALL)
    quality = next(product.rglob("QI_DATA"))
    layers = np.zeros((8, HEIGHT // 2, WIDTH // 2), np.uint8)
    for layer in range(8):
        layers[layer, 0, layer] = 1
    profile = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "count": 8, "dtype": "uint8"}
    transform, crs = Affine(20, 0, LEFT, 0, -20, TOP), CRS.from_epsg(32645)
    with rasterio.open(
        quality / "MSK_QUALIT_B11.jp2", "w", height=145, width=65, crs=crs, transform=transform, **profile
    ) as dataset:
        dataset.write(layers)
    scene = open_scene(product)
    assert not reasons_of(scene, clouds="none").any()
    row = reasons_of(scene, ("B4", "B11"), clouds="none")[0, :16:2]
    assert row.tolist() == [0, 0, Reason.DEFECTIVE, 0, Reason.DEFECTIVE, Reason.NO_DATA, 0, Reason.DEFECTIVE]


def test_defects_of_older_products(tmp_path):
    """Polygons of the needed bands; degraded and partially corrected pixels stay."""
    product = write_demo_scene(tmp_path, **SMALL)
    quality = next(product.rglob("IMG_DATA")).parent / "QI_DATA"
    quality.mkdir()
    kinds = {
        "DEFECT": ["QT_DEFECTIVE_PIXELS"],
        "NODATA": ["QT_NODATA_PIXELS", "QT_PARTIALLY_CORRECTED_PIXELS"],
        "SATURA": ["QT_SATURATED_PIXELS_L1A", "QT_SATURATED_PIXELS_L1B"],
        "TECQUA": ["MSI_LOST", "MSI_DEG"],
    }
    expected, row = np.zeros((HEIGHT, WIDTH), np.uint8), 0
    for file, types in kinds.items():
        members = ""
        for kind in types:
            member = MEMBER.format(outline=ring((row, row + 4), (0, 20)), hole=ring((row + 1, row + 2), (1, 2)))
            members += member.replace("OPAQUE", kind)
            if kind in ("QT_DEFECTIVE_PIXELS", "QT_NODATA_PIXELS", "QT_SATURATED_PIXELS_L1A", "MSI_LOST"):
                expected[row : row + 4, :20] = Reason.NO_DATA if kind == "QT_NODATA_PIXELS" else Reason.DEFECTIVE
                expected[row + 1, 1] = 0
            row += 10
        (quality / f"MSK_{file}_B11.gml").write_text(gml(members))
        (quality / f"MSK_{file}_B12.gml").write_text(gml("", envelope=""))
    scene = open_scene(product)
    assert (reasons_of(scene, ("B4", "B11", "B12")) == expected).all()
    assert not reasons_of(scene, ("B4", "B12")).any()


# --- masks and areas ------------------------------------------------------------------------------------------


def write_mask(path, values, transform, crs, **options):
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": values.dtype,
        "height": values.shape[0],
        "width": values.shape[1],
    }
    with rasterio.open(path, "w", crs=crs, transform=transform, **(profile | options)) as dataset:
        dataset.write(values, 1)
    return path


def test_raster_masks(tmp_path, stack):
    """At another resolution, smaller than the scene, with values that mean no data."""
    values = np.zeros((10, 5), np.uint8)
    values[0], values[1, 1], values[9] = 255, 7, 1
    grid = Affine(50, 0, LEFT, 0, -50, TOP - 500)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[50:100, :25] = upscaled(values, 5)[:50, :25] != 0
    path = write_mask(tmp_path / "water.tif", values, grid, "EPSG:32645")
    assert (reasons_of(stack, masks=(path,)) == expected * Reason.MASKED).all()
    expected[50:55] = 0
    path = write_mask(tmp_path / "water255.tif", values, grid, "EPSG:32645", nodata=255)
    assert (reasons_of(stack, masks=(path,)) == expected * Reason.MASKED).all()
    with rasterio.open(
        tmp_path / "picture.tif", "w", driver="GTiff", width=5, height=10, count=3, dtype="uint8", crs="EPSG:32645",
        transform=grid, photometric="RGB",
    ) as target:  # fmt: skip
        target.write(np.stack([values] * 3))
    with pytest.raises(DataError, match=r"picture\.tif has 3 bands"):
        reasons_of(stack, masks=(tmp_path / "picture.tif",))
    with pytest.raises(DataError, match=r"water\.tif has no coordinate reference system"):
        reasons_of(stack, masks=(write_mask(tmp_path / "water.tif", values, grid, None),))
    with pytest.raises(DataError, match=r"water\.tif is not georeferenced"):
        reasons_of(stack, masks=(write_mask(tmp_path / "water.tif", values, Affine.identity(), None),))


@pytest.mark.parametrize(
    ("suffix", "crs"),
    [
        (".gpkg", "EPSG:32645"),
        (".gpkg", "EPSG:32644"),
        (".shp", "EPSG:32644"),
        (".shp", "EPSG:4326"),
        (".geojson", "EPSG:4326"),
    ],
)
def test_polygons_as_mask_and_as_area(tmp_path, stack, crs, suffix):
    box = shapely.segmentize(shapely.box(LEFT + 101, TOP - 2701, LEFT + 499, TOP - 2001), 50)
    path = tmp_path / f"polygons{suffix}"
    gpd.GeoDataFrame(geometry=[box], crs=32645).to_crs(crs).to_file(path)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[200:270, 10:50] = True
    assert (reasons_of(stack, masks=(path,)) == np.where(inside, Reason.MASKED, 0)).all()
    assert (reasons_of(stack, area=path) == np.where(inside, 0, Reason.OUTSIDE_AREA)).all()


def test_bounding_box_in_longitude_and_latitude(stack):
    west, south, east, north = stack.grid.footprint.bounds
    middle = (west + east) / 2
    reasons = reasons_of(stack, area=f"{west - 1},{south - 1},{middle},{north + 1}")
    x = LEFT + 10 * (np.arange(WIDTH) + 0.5)
    for row in (0, 150, HEIGHT - 1):
        y = np.full(WIDTH, TOP - 10 * (row + 0.5))
        longitude, _ = rasterio.warp.transform("EPSG:32645", "EPSG:4326", x, y)
        outside = np.array(longitude) > middle
        assert 0.4 < outside.mean() < 0.6
        assert ((reasons[row] == Reason.OUTSIDE_AREA) == outside).all()


def test_highest_reason_counts(product, tmp_path):
    scene = open_scene(product)
    everywhere = tmp_path / "all.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(*scene.grid.bounds)], crs=32645).to_file(everywhere)
    reasons = reasons_of(scene, masks=(everywhere,))
    assert set(np.unique(reasons)) == {Reason.MASKED, Reason.CLOUD}


def test_an_area_without_the_centre_of_a_pixel_is_refused(stack, tmp_path):
    _, south, east, north = stack.grid.bounds
    for name, polygon in {
        "inside a pixel": shapely.box(LEFT + 6, TOP - 19, LEFT + 9, TOP - 16),
        "at the edge": shapely.box(east, south, east + 100, north),
    }.items():
        gpd.GeoDataFrame(geometry=[polygon], crs=32645).to_file(tmp_path / f"{name}.gpkg")
        with pytest.raises(DataError, match=r"covers the centre of no pixel|lies outside the scene"):
            reasons_of(stack, area=tmp_path / f"{name}.gpkg")
    pixel = shapely.box(LEFT + 10 * 129, TOP - 10 * HEIGHT, LEFT + 10 * 130, TOP - 10 * (HEIGHT - 1))
    gpd.GeoDataFrame(geometry=[pixel], crs=32645).to_file(tmp_path / "pixel.gpkg")
    assert (reasons_of(stack, area=tmp_path / "pixel.gpkg") != Reason.OUTSIDE_AREA).sum() == 1


@pytest.mark.parametrize(
    ("area", "error", "message"),
    [
        ("10,20,11,21", DataError, "area 10,20,11,21 lies outside the scene, which covers longitude 85.9"),
        ("11,20,10,21", ConfigurationError, "no bounding box"),
        ("10,20,11,95", ConfigurationError, "no bounding box"),
        ("missing.gpkg", DataError, "There is no file missing.gpkg"),
        ("1,2,3", ConfigurationError, "The area 1,2,3 is no bounding box"),
        ("nan,2,3,4", ConfigurationError, "no bounding box"),
        ("-60,5,60,40", DataError, "lies outside the scene"),
        ("170,5,-170,40", DataError, "lies outside the scene"),
    ],
)
def test_areas_that_cannot_be_used(stack, area, error, message):
    with pytest.raises(error, match=message):
        reasons_of(stack, area=area)


def test_vector_files_that_cannot_be_used(tmp_path, stack):
    path = tmp_path / "x.gpkg"
    path.write_text("nothing")
    with pytest.raises(DataError, match=r"x\.gpkg cannot be read"):
        reasons_of(stack, area=path)
    points = tmp_path / "points.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.Point(86, 28)], crs=4326).to_file(points)
    with pytest.raises(DataError, match=r"points\.gpkg has no polygons"):
        reasons_of(stack, masks=(points,))
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match=r"supported file format\.\n"):
        reasons_of(stack, area=text)
    bare = tmp_path / "bare.shp"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(bare)
    bare.with_suffix(".prj").unlink()
    with pytest.raises(DataError, match=r"bare\.shp has no coordinate reference system"):
        reasons_of(stack, masks=(bare,))
    bare.with_suffix(".shx").unlink()
    with pytest.raises(DataError, match=r"bare\.shp cannot be read: Unable to open") as error:
        reasons_of(stack, masks=(bare,))
    assert ".shp with its .shx" in error.value.remedy


@pytest.mark.parametrize("box", ["0,0,180,80", "0,-60,150,70", "-180,0,180,84", "-180,-90,180,90", "80,20,-110,40"])
@pytest.mark.parametrize("as_file", [False, True])
def test_areas_that_are_far_larger_than_the_scene(tmp_path, stack, box, as_file):
    """The scene's reference system has no coordinates for much of them."""
    area = box
    if as_file:
        west, south, east, north = map(float, box.split(","))
        east += 360 * (east < west)
        area = tmp_path / "area.geojson"
        gpd.GeoDataFrame(geometry=[shapely.box(west, south, east, north)], crs=4326).to_file(area)
    assert not reasons_of(stack, area=area).any()
    (polygon,) = area_polygons(ExclusionSettings(area=area), stack.grid)
    assert polygon.equals(shapely.box(*stack.grid.bounds))


@pytest.mark.parametrize("as_file", [False, True])
def test_areas_across_180_degrees_of_longitude(tmp_path, as_file):
    grid = Grid(CRS.from_epsg(32760), Affine(10, 0, 818_700, 0, -10, 8_118_000), 200, 200)
    lonlat = Transformer.from_crs(32760, 4326, always_xy=True)
    (west, _), (east, _) = (lonlat.transform(818_700 + x, 8_117_000) for x in (500, 1500))
    assert west > 179 > -179 > east
    boxes = [shapely.box(west, -18, 180, -16), shapely.box(-180, -18, east, -16)]
    area = f"{west},-18,{east},-16"
    if as_file:
        area = tmp_path / "area.geojson"
        gpd.GeoDataFrame(geometry=[shapely.MultiPolygon(boxes)], crs=4326).to_file(area)
    polygons = area_polygons(ExclusionSettings(area=area), grid)
    assert sum(polygon.area for polygon in polygons) == pytest.approx(1000 * 2000, rel=0.01)
    bounds = shapely.total_bounds(np.array(polygons))
    assert bounds == pytest.approx((819_200, 8_116_000, 820_200, 8_118_000), abs=50)


def test_masks_beside_the_scene_are_told(tmp_path, stack):
    beside = tmp_path / "beside.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(LEFT - 500, TOP - 500, LEFT, TOP)], crs=32645).to_file(beside)
    raster = write_mask(
        tmp_path / "raster.tif", np.ones((5, 5), np.uint8), Affine(10, 0, LEFT, 0, -10, TOP + 50), "EPSG:32645"
    )
    inside = write_mask(
        tmp_path / "inside.tif", np.ones((5, 5), np.uint8), Affine(10, 0, LEFT, 0, -10, TOP + 40), "EPSG:32645"
    )
    with SceneReader(stack, ["B4"], ExclusionSettings(masks=(beside, raster, inside))) as reader:
        assert reader.notes == [
            f"the mask {path} lies outside the scene, so it leaves nothing out" for path in (beside, raster)
        ]
        assert (reader.read(0, HEIGHT)[1] == Reason.MASKED).sum() == 5


def test_the_layer_with_polygons_is_taken_and_several_are_refused(tmp_path, stack):
    path = tmp_path / "layers.gpkg"
    box = shapely.box(LEFT, TOP - 100, LEFT + 100, TOP)
    gpd.GeoDataFrame(geometry=[box.centroid], crs=32645).to_file(path, layer="points")
    gpd.GeoDataFrame(geometry=[box], crs=32645).to_file(path, layer="water")
    pyogrio.write_dataframe(pd.DataFrame({"styleName": ["x"]}), path, layer="layer_styles", append=True)
    assert (reasons_of(stack, masks=(path,)) == Reason.MASKED).sum() == 100
    gpd.GeoDataFrame(geometry=[box], crs=32645).to_file(path, layer="roads")
    for settings in ({"masks": (path,)}, {"area": path}):
        with pytest.raises(DataError, match=r"layers\.gpkg has 2 layers of polygons: water, roads"):
            reasons_of(stack, **settings)
