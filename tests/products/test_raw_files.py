"""Rows of raw files."""

from pathlib import Path

import numpy as np
import pytest

from landslide.errors import DataError
from landslide.products.raw_files import RAW_TYPES, count_reasons, read_rows, row_slices
from landslide.scenes.reasons import Reason

HEIGHT, WIDTH = 1_100, 40


@pytest.fixture
def raw(tmp_path):
    random = np.random.default_rng(0)
    codes = [Reason.ANALYSED, Reason.CLOUD, Reason.OUTSIDE_AREA]
    written = {
        name: random.choice(codes, (HEIGHT, WIDTH)).astype(dtype)
        if name == "reasons"
        else random.integers(0, 10_000, (HEIGHT, WIDTH), dtype)
        for name, dtype in RAW_TYPES.items()
    }
    for name, values in written.items():
        values.tofile(tmp_path / f"{name}.raw")
    return written


def test_rows_are_those_that_were_written_and_their_file_is_not_mapped(raw, tmp_path):
    for name, values in raw.items():
        found = [read_rows(tmp_path, name, rows, WIDTH) for rows in row_slices(HEIGHT)]
        assert len(found) == 3
        assert (np.concatenate(found) == values).all()
        assert found[0].dtype == values.dtype
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_reasons_are_counted_inside_the_area_of_interest(raw, tmp_path):
    inside = raw["reasons"] != Reason.OUTSIDE_AREA
    counts, pixels = count_reasons(tmp_path, HEIGHT, WIDTH)
    assert pixels == inside.sum()
    assert counts == {Reason.CLOUD.text: (raw["reasons"] == Reason.CLOUD).sum()}


def test_a_file_that_has_lost_rows_is_not_taken_for_a_smaller_map(raw, tmp_path):
    with pytest.raises(DataError, match=r"reasons\.raw is damaged: it has lost rows") as caught:
        count_reasons(tmp_path, HEIGHT + 1, WIDTH)
    assert caught.value.remedy.startswith(f"Delete the folder {tmp_path}")


def test_a_code_that_is_no_reason_is_damage(raw, tmp_path):
    raw["reasons"][700, 3] = len(Reason)
    raw["reasons"].tofile(tmp_path / "reasons.raw")
    with pytest.raises(DataError, match="it has codes that are no reasons"):
        count_reasons(tmp_path, HEIGHT, WIDTH)
