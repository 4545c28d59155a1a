"""The mosaic of real patches: its record, the page that shows it, and how its tiles are joined and measured."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from landslide.data.positions import landslide4sense_positions
from tests.support.experiments import load
from tests.support.pipeline_runs import ROOT

RECORD = json.loads((ROOT / "docs" / "results" / "rgb_mosaic.json").read_text())


@pytest.fixture(scope="module")
def mosaic():
    return load("rgb_mosaic")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """All official patches, with a landslide in each."""
    return landslide4sense_positions().reset_index(names="number").assign(positive_pixels=1)


def test_the_page_shows_the_record(mosaic):
    page = mosaic.PAGE.read_text()
    assert page.count("<!-- mosaic: ") == 2
    assert mosaic.filled(page, RECORD) == page
    for change in ({"epoch": 1}, {"near_pixels": 9}):
        assert mosaic.filled(page, RECORD | change) != page


def test_what_the_page_says_in_words_follows_from_the_record(mosaic):
    text = mosaic.PAGE.read_text().split("## Across tile borders")[1].split("\n## ")[0]
    text = " ".join(text.split())
    edges, wrong, scores = RECORD["edges"], RECORD["wrong"], RECORD["scores"]
    times = [f"{edges[name]['across'] / edges['truth']['across']:.1f}" for name in ("tiles", "blended")]
    assert re.findall(r"(\d\.\d) times", text) == times
    gains = [100 * (scores["blended"][name] - scores["tiles"][name]) for name in ("f1_macro", "f1_landslide")]
    assert "gain {:.1f} points of macro F1 and {:.1f} of landslide F1".format(*gains) in text
    removed = 100 * (1 - wrong["blended"]["near"] / wrong["tiles"]["near"])
    share = RECORD["near_share"]
    assert f"blending removes {removed:.0f} % of the wrong pixels" in text
    assert f"and {100 * (1 - share):.0f} % of the pixels are elsewhere" in text
    fewer = {place: wrong["tiles"][place] - wrong["blended"][place] for place in ("near", "elsewhere")}
    assert fewer["near"] * share > fewer["elsewhere"] * (1 - share)
    assert RECORD["largest_difference_from_single_patches"] <= 0.00005001


def test_the_record_is_of_the_present_settings(mosaic):
    present = json.loads(json.dumps(mosaic.asdict(mosaic.training_settings())))
    recorded = RECORD["settings"] | {"augmentation": present["augmentation"] | RECORD["settings"]["augmentation"]}
    assert {name: present[name] for name in recorded} == recorded
    assert present["augmentation"]["band_gain"] == 0  # newer than the record
    block = {"scene": mosaic.SCENE, "rows": [32, 50], "columns": [12, 21]}
    assert RECORD["block"] == block
    assert RECORD["patches"]["block"] == 19 * 10
    assert RECORD["pixels"] == [19 * 128, 10 * 128]


def test_neither_the_block_nor_its_neighbours_train_or_validate(mosaic, table):
    block = mosaic.block_rows(table)
    assert table["number"].iloc[[block[0], block[1], block[10], block[-1]]].tolist() == [1325, 1326, 1366, 2072]
    rows, adjacent = mosaic.parts(table, block, mosaic.training_settings())
    used = table.iloc[np.concatenate([rows.training, rows.selection])]
    near = (used["scene"] == 1) & used["row"].between(31, 51) & used["column"].between(11, 22)
    assert not near.any()
    assert adjacent.sum() == 21 * 12 - 190
    assert len(used) == len(set(used["number"])) == 3799 - 21 * 12
    assert len(rows.selection) > 300


def test_a_missing_tile_is_named(mosaic, table):
    with pytest.raises(SystemExit, match=r"2 of the 190 tiles .* scene 1, row 32, column 13"):
        mosaic.block_rows(table[~table["number"].isin([1326, 1366])])


def test_tiles_are_joined_row_by_row(mosaic):
    tiles = np.arange(190)[:, None, None, None] * np.ones((2, 128, 128), int)
    tiles[0, 1, 5, 7] = -1
    whole = mosaic.joined(tiles)
    assert whole.shape == (2, 2432, 1280)
    assert (whole[:, 0, 0].tolist(), whole[0, 0, 128], whole[0, 128, 0], whole[0, -1, -1]) == ([0, 0], 1, 10, 189)
    assert whole[1, 5, 7] == -1


def test_pixels_near_borders_and_edges_across_them(mosaic):
    near = mosaic.near_borders(256, 384)
    centres = np.indices((256, 384)) + 0.5
    distance = np.min([abs(centres[0] - 128), abs(centres[1] - 128), abs(centres[1] - 256)], axis=0)
    np.testing.assert_array_equal(near, distance < 8)
    mask = np.zeros((256, 384), np.uint8)
    mask[:128, :128] = 1
    mask[200, 300] = 1
    pairs_across, pairs_inside = 384 + 2 * 256, 254 * 384 + 381 * 256
    found = mosaic.edges(mask)
    assert found == {"across": round(256 / pairs_across, 6), "inside": round(4 / pairs_inside, 6)}
