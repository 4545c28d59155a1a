"""Splitting by a recorded fold table: the same folds, or an error with the reason."""

import h5py
import numpy as np
import pandas as pd
import pytest

from landslide.bands.formulas import BandSettings
from landslide.data import demo
from landslide.data.table import patch_table
from landslide.errors import ConfigurationError, DataError
from landslide.folds.schemes import SCHEMES
from steps.data_access import PatchSource
from steps.measure_bands import measure_bands
from steps.settings import DataSettings, FoldSettings
from steps.split import split
from tests.support.patch_tables import build_patch_table

pytestmark = pytest.mark.slow

# Folds that no scheme produces.
FOLDS = [1, 2, 2, 1, 2, 1, 1]


@pytest.fixture
def patches() -> pd.DataFrame:
    return build_patch_table(len(FOLDS), pixels=np.arange(len(FOLDS)))


@pytest.fixture
def recorded(patches, tmp_path):
    path = tmp_path / "fold_table.csv"
    patches.assign(fold=FOLDS).sample(frac=1, random_state=0).to_csv(path, index=False)
    return path


def split_by(path, patches: pd.DataFrame, n_folds: int = 2) -> pd.DataFrame:
    return split.entrypoint(patch_table=patches, folds=FoldSettings(n_folds=n_folds, table=str(path)))


def test_recorded_folds_are_restored_in_patch_order(recorded, patches):
    table = split_by(recorded, patches)
    assert table["fold"].tolist() == FOLDS
    assert table["fold"].dtype == np.int64
    by_scheme = split.entrypoint(patch_table=patches, folds=FoldSettings(n_folds=2))
    assert table.dtypes.equals(by_scheme.dtypes)  # so that equal tables have equal digests


def test_a_recorded_table_that_divides_scenes_is_no_table_of_whole_scenes(recorded):
    def divided(scenes: list[int]) -> pd.DataFrame:
        table = build_patch_table(len(FOLDS), [(scene, 0, at) for at, scene in enumerate(scenes)])
        return split.entrypoint(
            table.assign(positive_pixels=1), FoldSettings(n_folds=2, scheme="scene", table=str(recorded))
        )

    with pytest.raises(ConfigurationError, match=r"2 scenes are in several folds: 4, 5\.(.|\n)*whole scenes"):
        divided([4, 4, 5, 5, 6, 7, 8])
    assert divided(FOLDS)["fold"].tolist() == FOLDS


def test_patches_missing_from_the_table_are_named(recorded, patches):
    patches.loc[[2, 4], "image_md5"] = "f" * 32
    with pytest.raises(DataError, match=r"2 of 7 patches .*: 3, 5\.(.|\n)*data version"):
        split_by(recorded, patches)


def test_equal_images_are_distinguished_by_number(patches, tmp_path):
    patches["image_md5"] = "0" * 32
    patches.assign(fold=FOLDS).to_csv(tmp_path / "table.csv")
    folds = FoldSettings(n_folds=2, table=str(tmp_path / "table.csv"), allow_duplicates=True)
    assert split.entrypoint(patch_table=patches, folds=folds)["fold"].tolist() == FOLDS


def test_an_image_in_two_folds_is_refused_unless_allowed(patches):
    patches.loc[6, "image_md5"] = patches.loc[0, "image_md5"]
    patches.loc[5, "image_md5"] = patches.loc[4, "image_md5"]  # in one fold
    with pytest.raises(DataError, match=r"1 image.*: 1 \(fold 2\) = 7 \(fold 1\)(.|\n)*folds\.allow_duplicates"):
        split.entrypoint(patch_table=patches, folds=FoldSettings(n_folds=2))
    allowed = split.entrypoint(patch_table=patches, folds=FoldSettings(n_folds=2, allow_duplicates=True))
    assert allowed["fold"].tolist() == [2, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("n_folds", [3, 5])
def test_different_number_of_folds_is_refused(recorded, patches, n_folds):
    with pytest.raises(ConfigurationError, match=rf"\[1, 2\], not 1 to {n_folds}(.|\n)*folds\.n_folds"):
        split_by(recorded, patches, n_folds)


@pytest.mark.parametrize("text", [None, "", "number,fold\n1,1\n"], ids=["absent", "empty", "without images"])
def test_invalid_fold_table_file_is_named(text, patches, tmp_path):
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"folds\.table .*table\.csv(.|\n)*image_md5"):
        split_by(path, patches)


def test_spatial_folds_have_a_gap_and_those_elsewhere_an_in_scene_part():
    held_out = {scheme: FoldSettings(scheme=scheme).hold_out for scheme in SCHEMES}
    assert [scheme for scheme in SCHEMES if held_out[scheme].gap == 1] == ["scene_blocked", "scene", "cluster"]
    assert [scheme for scheme in SCHEMES if held_out[scheme].in_scene_fraction == 0.1] == ["scene", "cluster"]
    blocked = FoldSettings(scheme="scene_blocked", gap=2).hold_out
    assert (blocked.gap, blocked.in_scene_fraction) == (2, 0)


def test_cluster_folds_come_from_the_stored_bands(tmp_path):
    """Dark and bright tiles alternate in blocks, and the folds follow the images, not the place or the landslides."""
    demo.generate(tmp_path, scenes=((8, 8),))
    table = patch_table(tmp_path)
    bright = ((table["row"] // 2 + table["column"] // 2) % 2 == 1).to_numpy()
    for image in table["image"][bright]:
        with h5py.File(tmp_path / image, "r+") as file:
            file["img"][...] *= 3
    patches = PatchSource(data=DataSettings(root=str(tmp_path)), version="0" * 32, bands=BandSettings())
    folds = FoldSettings(scheme="cluster", n_folds=2, seed=1)
    statistics = measure_bands.entrypoint(patch_table=table, patches=patches)
    fold = split.entrypoint(patch_table=table, folds=folds, band_statistics=statistics)["fold"].to_numpy()
    assert (fold == 1 + bright).all() or (fold == 2 - bright).all()


def test_masks_without_any_landslide_are_refused():
    with pytest.raises(DataError, match="None of the 7 masks has a landslide"):
        split.entrypoint(patch_table=build_patch_table(7, pixels=np.zeros(7, int)), folds=FoldSettings(n_folds=2))
