"""Metadata of products: every real file, and damaged ones."""

from datetime import UTC, datetime

import pytest

from landslide.errors import DataError
from landslide.scenes.metadata import BAND_IDS, parse_product_metadata
from tests.support.sentinel2 import sentinel2_folder


@pytest.fixture(scope="module")
def sentinel2(real_data):
    return sentinel2_folder(real_data)


REAL = [
    ("product-metadata/S2A_MSIL1C_20210908*/MTD_MSIL1C.xml", "L1C", "03.01", "Sentinel-2A", 0, 14),
    ("product-metadata/L1C_N0510/MTD_MSIL1C.xml", "L1C", "05.10", "Sentinel-2A", -1000, 14),
    ("product-metadata/S2A_MSIL2A_20190212*/MTD_MSIL2A.xml", "L2A", "02.12", "Sentinel-2A", 0, 35),
    ("product-metadata/S2B_MSIL2A_20220413*/MTD_MSIL2A.xml", "L2A", "04.00", "Sentinel-2B", -1000, 36),
    ("product-metadata/S2A_MSIL2A_20230625*/MTD_MSIL2A.xml", "L2A", "05.09", "Sentinel-2A", -1000, 36),
    ("l2a-stack/MTD_MSIL2A.xml", "L2A", "05.10", "Sentinel-2B", -1000, 36),
]


@pytest.mark.parametrize(("pattern", "level", "baseline", "sensor", "offset", "images"), REAL)
def test_real_metadata(sentinel2, pattern, level, baseline, sensor, offset, images):
    (path,) = sentinel2.glob(pattern)
    metadata = parse_product_metadata(path.read_bytes(), str(path))
    assert (metadata.level, metadata.baseline, metadata.sensor) == (level, baseline, sensor)
    assert metadata.name == (path.parent.stem if path.parent.suffix == ".SAFE" else metadata.name)
    assert metadata.name.startswith(f"S2{sensor[-1]}_MSI{level}")
    assert metadata.quantification == 10000
    assert dict(metadata.offsets) == dict.fromkeys(BAND_IDS, offset)
    assert (metadata.nodata, metadata.saturated) == (0, 65535)
    assert (metadata.granules, len(metadata.images)) == (1, images)
    assert metadata.datetime.strftime("%Y%m%dT%H%M%S") == metadata.name.split("_")[2]


def test_every_real_file_is_in_the_list(sentinel2):
    listed = {path for pattern, *_ in REAL for path in sentinel2.glob(pattern)}
    assert listed == set(sentinel2.rglob("MTD_MSI*.xml"))


XML = """<a:Level-1C_User_Product xmlns:a="urn:any"><a:General_Info><PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>
<PRODUCT_START_TIME>2024-01-01T12:00:00+02:00</PRODUCT_START_TIME>
<QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>{offsets}</a:General_Info></a:Level-1C_User_Product>"""


def offsets(values):
    return "".join(f'<RADIO_ADD_OFFSET band_id="{band}">{value}</RADIO_ADD_OFFSET>' for band, value in values)


def test_offsets_belong_to_their_band_ids_in_any_order():
    values = [(band, -band) for band in reversed(range(13))]
    metadata = parse_product_metadata(XML.format(offsets=offsets(values)).encode(), "x.xml")
    assert metadata.offsets["B1"] == 0
    assert metadata.offsets["B8A"] == -8
    assert metadata.offsets["B12"] == -12
    assert metadata.datetime == datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert metadata.name is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{offsets}", offsets((b, -1000) for b in range(13) if b not in (8, 12)), "missing for B8A, B12"),
        ("{offsets}", offsets([*((b, -1000) for b in range(13)), (3, 0)]), "B4 is both -1000 and 0"),
        ("{offsets}", offsets([(13, -1000)]), "band_id '13'"),
        ("{offsets}", offsets([(0, "x")]), "RADIO_ADD_OFFSET of B1 is 'x', not a number"),
        ("10000", "0", "must be above 0"),
        ("10000", "nan", "'nan', not a number"),
        ("<QUANTIFICATION_VALUE>10000</QUANTIFICATION_VALUE>", "", "no quantification"),
        ("Level-1C<", "Level-1B<", "PROCESSING_LEVEL is Level-1B"),
        ("2024-01-01T12", "yesterday", "not a date"),
        ("</a:General_Info>", "", "not readable XML"),
    ],
)
def test_damaged_metadata_name_the_file_and_the_fault(old, new, message):
    damaged = XML.replace(old, new).replace("{offsets}", "")
    with pytest.raises(DataError, match=message) as error:
        parse_product_metadata(damaged.encode(), "MTD_MSIL1C.xml")
    assert "MTD_MSIL1C.xml" in error.value.what
