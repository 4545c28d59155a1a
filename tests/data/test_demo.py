"""The generated data set: format, pinned bytes, and similarity to the real one."""

import csv
import hashlib
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from landslide.data import demo
from landslide.errors import ConfigurationError, DataError

SMALL = ((2, 2), (1, 3))
# If a byte of the data set changes, this digest and `data.dvc` have to change too.
SMALL_MD5 = "e6b0bcad3bec15baebf5c5132b54b20f"
SECOND_COUNTRY_MD5 = "302216302215926d8f22e7b314d8da77"


def digest(folder: Path) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        md5.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return md5.hexdigest()


def read(folder: Path, n: int) -> tuple[np.ndarray, np.ndarray]:
    with (
        h5py.File(folder / f"TrainData/img/image_{n}.h5") as image,
        h5py.File(folder / f"TrainData/mask/mask_{n}.h5") as mask,
    ):
        return image["img"][:], mask["mask"][:]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "small"
    demo.generate(folder, scenes=SMALL)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Integer bands (N, 128, 128, 14) and masks (N, 128, 128) of the default set."""
    folder = tmp_path_factory.mktemp("demo") / "whole"
    demo.generate(folder)
    count = sum(rows * columns for rows, columns in demo.DEFAULT_SCENES)
    patches = [read(folder, n) for n in range(1, count + 1)]
    images = np.stack([np.rint(image * demo.DIVISORS).astype(np.int16) for image, _ in patches])
    return images, np.stack([mask for _, mask in patches])


@pytest.fixture(scope="session")
def second_country(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "second"
    demo.generate(folder, country=2, scenes=SMALL)
    return folder


def test_bytes_equal_the_pinned_ones_on_every_machine(small: Path, second_country: Path) -> None:
    assert digest(small) == SMALL_MD5
    assert digest(second_country) == SECOND_COUNTRY_MD5


def test_equal_seeds_write_equal_bytes_and_other_seeds_different_ones(small: Path, tmp_path: Path) -> None:
    demo.generate(tmp_path / "again", scenes=SMALL)
    demo.generate(tmp_path / "other", scenes=SMALL, seed=1)
    assert digest(tmp_path / "again") == digest(small)
    assert digest(tmp_path / "other") != digest(small)


def test_another_country_has_other_spectra_of_the_same_terrain_and_landslides(
    small: Path, second_country: Path
) -> None:
    for n in range(1, 8):
        (first, mask), (second, other_mask) = read(small, n), read(second_country, n)
        np.testing.assert_array_equal(mask, other_mask)
        np.testing.assert_array_equal(first[..., 12:], second[..., 12:])  # slope, elevation
        assert (first[..., :12] != second[..., :12]).mean() > 0.8


def test_landslides_of_the_second_country_are_bare_among_drier_vegetation(small: Path, second_country: Path) -> None:
    def medians(folder: Path) -> tuple[float, float]:
        """The median NDVI on landslides and beside them."""
        patches = [read(folder, n) for n in range(1, 8)]
        index = ndvi(np.stack([image * demo.DIVISORS for image, _ in patches]))
        masks = np.stack([mask for _, mask in patches])
        return float(np.median(index[masks == 1])), float(np.median(index[masks == 0]))

    first, second = medians(small), medians(second_country)
    assert second[0] < second[1] - 0.1
    assert second[1] < first[1] - 0.05


@pytest.mark.parametrize("country", demo.COUNTRIES.values())
def test_countries_are_physically_plausible(country: demo.Country) -> None:
    """Leaves reflect near infrared, bare soil short-wave infrared, water little; haze is blue; the sun is up."""
    red, infrared, short_wave = 3, 7, 10
    for plants in (country.forest, country.meadow):
        assert plants[infrared] > 3 * plants[red]
    for ground in (country.bare, country.rock):
        assert ground[infrared] < 2 * ground[red]
        assert ground[short_wave] > ground[infrared]
    assert max(country.water) < 300
    assert list(country.haze[:4]) == sorted(country.haze[:4], reverse=True)
    assert all(isinstance(value, int) and 0 < value < 10_000 for value in (*country.forest, *country.bare))
    assert np.linalg.norm(country.sun) == pytest.approx(1.0, abs=1e-8)
    assert country.sun[2] > 0.5


@pytest.mark.parametrize("country", [0, 3, "2"])
def test_an_unknown_country_is_refused(tmp_path: Path, country: object) -> None:
    with pytest.raises(ConfigurationError, match="no such country") as caught:
        demo.generate(tmp_path / "data", country=country)
    assert "1, 2" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_files_have_the_official_format(small: Path) -> None:
    names = {path.relative_to(small).as_posix() for path in small.rglob("*") if path.is_file()}
    patches = {f"TrainData/{kind}_{n}.h5" for kind in ("img/image", "mask/mask") for n in range(1, 8)}
    assert names == patches | {"scenes.csv"}
    for n in range(1, 8):
        path = small / f"TrainData/img/image_{n}.h5"
        assert path.stat().st_size == 1_837_056
        with h5py.File(path) as file:
            image = file["img"]
            assert (list(file), image.shape, image.dtype.str) == (["img"], (128, 128, 14), "<f8")
            assert (image.chunks, image.compression, image.id.get_offset()) == (None, None, 2048)
            assert np.isfinite(image[:]).all()
        path = small / f"TrainData/mask/mask_{n}.h5"
        assert path.stat().st_size == 18_432
        with h5py.File(path) as file:
            mask = file["mask"]
            assert (list(file), mask.shape, mask.dtype) == (["mask"], (128, 128), np.uint8)
            assert (mask.chunks, mask.compression) == (None, None)
            assert set(np.unique(mask[:])) <= {0, 1}


def test_bands_are_integers_times_the_published_divisors(small: Path) -> None:
    image, _ = read(small, 1)
    physical = image * demo.DIVISORS
    assert np.abs(physical - np.rint(physical)).max() < 1e-9
    assert physical[..., :12].min() >= 1
    assert 0 <= physical[..., 12].min() <= physical[..., 12].max() <= 90


def test_scenes_csv_numbers_the_patches_of_each_scene_row_by_row(small: Path) -> None:
    with (small / "scenes.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["n", "scene", "row", "column"]
    places = [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (2, 0, 0), (2, 0, 1), (2, 0, 2)]
    expected = [(n, *place) for n, place in enumerate(places, start=1)]
    assert [tuple(map(int, row)) for row in rows[1:]] == expected


def test_neighbouring_patches_are_seamless(small: Path) -> None:
    one, right, below = (read(small, n)[0] * demo.DIVISORS for n in (1, 2, 3))
    for band in (7, 12, 13):  # near infrared, slope, elevation
        tile = one[..., band]
        inside = np.abs(np.diff(tile, axis=1)).mean(axis=0), np.abs(np.diff(tile, axis=0)).mean(axis=1)
        assert np.abs(right[:, 0, band] - tile[:, -1]).mean() <= 1.2 * inside[0].max()
        assert np.abs(below[0, :, band] - tile[-1]).mean() <= 1.2 * inside[1].max()


def test_slope_matches_the_elevation(small: Path) -> None:
    image, _ = read(small, 1)
    physical = image * demo.DIVISORS
    rise = np.hypot(*np.gradient(physical[..., 13], 10.0))
    error = np.degrees(np.arctan(rise)) - physical[..., 12]
    assert np.abs(error[1:-1, 1:-1]).mean() < 1.5  # elevation is rounded to whole metres


def test_degrees_approximate_the_arctangent() -> None:
    steepness = np.linspace(0.0, 5.0, 1001)
    assert np.abs(demo._degrees(steepness) - np.degrees(np.arctan(steepness))).max() < 0.1


@pytest.mark.parametrize("scenes", [(), ((0, 3),), ((2, 2), (1, -1))])
def test_scenes_without_patches_are_refused(tmp_path: Path, scenes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ConfigurationError, match="at least one row"):
        demo.generate(tmp_path / "data", scenes=scenes)
    assert not list(tmp_path.iterdir())


def test_a_non_empty_folder_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder") as caught:
        demo.generate(tmp_path / "data", scenes=((1, 1),))
    assert str(tmp_path / "data") in caught.value.what
    assert caught.value.remedy
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "precious.txt"]
    assert (tmp_path / "data" / "precious.txt").read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        demo.generate(tmp_path / "data", scenes=((1, 1),))
    with pytest.raises(DataError, match="cannot be written"):
        demo.generate(tmp_path / "data" / "below", scenes=((1, 1),))
    assert (tmp_path / "data").read_text() == "mine"


def test_a_folder_that_another_process_fills_meanwhile_is_refused_and_unchanged(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = demo._write_all

    def while_another_fills(folder: Path, *rest: Any) -> None:
        write(folder, *rest)
        shutil.copytree(small, tmp_path / "demo")

    monkeypatch.setattr(demo, "_write_all", while_another_fills)
    with pytest.raises(DataError, match="is not an empty folder"):
        demo.generate(tmp_path / "demo", scenes=((1, 1),))
    assert digest(tmp_path / "demo") == SMALL_MD5
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_an_empty_folder_and_missing_parents_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "not" / "yet"):
        demo.generate(folder, scenes=((1, 1),))
        assert (folder / "TrainData/mask/mask_1.h5").is_file()
        assert list(folder.parent.glob(".*")) == []


@pytest.mark.parametrize(
    ("fault", "raised"), [(OSError("disk full"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_an_interrupted_write_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException, raised: type[BaseException]
) -> None:
    write = demo.write_array

    def fail_at_the_third(path: Path, name: str, values: np.ndarray) -> None:
        if path.name == "image_2.h5":
            raise fault
        write(path, name, values)

    monkeypatch.setattr(demo, "write_array", fail_at_the_third)
    (tmp_path / "data").mkdir()
    with pytest.raises(raised):
        demo.generate(tmp_path / "data", scenes=((1, 2),))
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]


@pytest.mark.slow
def test_landslides_are_as_rare_as_in_the_real_set_and_in_every_scene(
    whole: tuple[np.ndarray, np.ndarray],
) -> None:
    _, masks = whole
    assert len(masks) == 100
    assert 0.018 <= masks.mean() <= 0.028
    assert 0.5 <= masks.any(axis=(1, 2)).mean() <= 0.7
    fifths = np.split(masks, 5)
    scenes = np.split(masks, np.cumsum([rows * columns for rows, columns in demo.DEFAULT_SCENES])[:-1])
    assert all(part.mean() > 0.005 for part in [*fifths, *scenes])


@pytest.mark.slow
def test_band_statistics_are_close_to_the_real_ones(whole: tuple[np.ndarray, np.ndarray]) -> None:
    images, _ = whole
    mean = (images / demo.DIVISORS).mean(axis=(0, 1, 2))
    std = (images / demo.DIVISORS).std(axis=(0, 1, 2))
    real_mean = (0.9257, 0.9227, 0.9541, 0.9596, 1.0228, 1.0426, 1.0358, 1.0468, 1.1699, 1.1736, 1.0495, 1.0370)
    real_std = (0.1410, 0.2207, 0.3184, 0.5724, 0.4601, 0.4465, 0.4651, 0.4948, 0.5133, 0.6836, 0.5323, 0.6628)
    np.testing.assert_allclose(mean, (*real_mean, 1.2511, 1.6495), rtol=0.25)
    assert ((std / (*real_std, 0.6784, 1.0727) > 1 / 3) & (std / (*real_std, 0.6784, 1.0727) < 3)).all()


@pytest.mark.slow
def test_landslides_are_steep_and_bare(whole: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = whole
    slide, rest = images[masks == 1].astype(float), images[masks == 0].astype(float)
    assert slide[:, 12].mean() > rest[:, 12].mean() + 2.0
    assert ndvi(slide).mean() < ndvi(rest).mean() - 0.2
    assert (slide[:, [3, 11]].mean(axis=0) > 1.5 * rest[:, [3, 11]].mean(axis=0)).all()  # red, SWIR


@pytest.mark.slow
def test_landslides_run_downhill(whole: tuple[np.ndarray, np.ndarray]) -> None:
    """A landslide is longer along the slope than across it."""
    images, masks = whole
    elevation = images[..., 13].astype(float)
    down, right = np.gradient(elevation, axis=(1, 2))
    along = across = 0.0
    for mask, rise in zip(masks.astype(float), np.stack([down, right], axis=1), strict=True):
        edge = np.stack(np.gradient(mask))
        along += np.abs((edge * rise).sum(axis=0)).sum()
        across += np.abs(edge[0] * rise[1] - edge[1] * rise[0]).sum()
    assert across > 1.2 * along  # most of the margin runs down the slope


@pytest.mark.slow
def test_no_ndvi_threshold_separates_the_landslides(whole: tuple[np.ndarray, np.ndarray]) -> None:
    images, masks = whole
    index = ndvi(images)
    slide, edges = np.histogram(index[masks == 1], bins=400, range=(-1, 1))
    rest, _ = np.histogram(index[masks == 0], bins=edges)
    f1 = 2 * slide.cumsum() / (slide.cumsum() + rest.cumsum() + slide.sum())
    assert 0.2 <= f1.max() <= 0.45


def ndvi(bands: np.ndarray) -> np.ndarray:
    red, infrared = bands[..., 3].astype(float), bands[..., 7].astype(float)
    return (infrared - red) / (infrared + red)
