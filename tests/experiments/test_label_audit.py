"""The measurement of the audit: its record and page, the errors that are put in, and how rankings are counted."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from landslide.data import demo
from landslide.data.patches import read_mask
from landslide.data.table import patch_table
from landslide.labels.candidates import VERDICTS
from tests.support.experiments import load

audit = load("label_audit")


def test_the_page_shows_the_record_and_the_verdicts():
    page, record = audit.PAGE.read_text(), json.loads(audit.RECORD.read_text())
    shown = pd.read_csv(audit.FIRST)
    assert page.count("<!-- audit: ") == 3
    assert audit.filled(page, record, shown) == page
    assert len(shown) == audit.SHOWN
    assert set(shown["verdict"]) <= set(VERDICTS)
    changed = json.loads(json.dumps(record))
    changed["rgb"]["rankings"]["audit"]["average_precision"] += 0.1
    assert audit.filled(page, changed, shown) != page
    assert audit.IMAGE.exists()


def test_known_errors_are_put_in(tmp_path):
    demo.generate(tmp_path / "data", scenes=((4, 5),))
    arguments = audit.argparse.Namespace(data=tmp_path / "data", out=tmp_path / "wrong", seed=3)
    arguments.out.mkdir()
    audit.corrupt(arguments)
    table = patch_table(arguments.data)
    errors = pd.read_csv(arguments.out / "errors.csv", index_col="error")
    region = np.load(arguments.out / "errors.npz")["region"]
    rows = dict(zip(table["number"], range(len(table)), strict=True))
    before, after = (
        np.stack([read_mask(folder / path) for path in table["mask"]])
        for folder in (arguments.data, arguments.out / "data")
    )
    changed = before != after
    assert len(errors) >= 3
    assert not changed[region == 0].any()
    for number, error in errors.iterrows():
        here = region[rows[error["number"]]] == number
        old, new = before[rows[error["number"]]][here], after[rows[error["number"]]][here]
        assert (old != new).sum() == error["pixels"] > 0
        match error["kind"]:
            case "deleted":
                assert old.all()
                assert not new.any()
            case "added":
                assert new.all()
                assert not old.any()
            case "dilated":
                assert (new >= old).all()


def ranked(scores, found, n):
    return audit.Ranked(np.array(scores, float), found, list(range(1, n + 1)))


def test_average_precision_is_that_of_scikit_learn_if_each_object_shows_one_error():
    rng = np.random.default_rng(0)
    score, hit = rng.random(50), rng.random(50) < 0.3
    found = [[int(hit[: i + 1].sum())] if hit[i] else [] for i in range(50)]
    one = ranked(score, found, int(hit.sum()))
    assert one.average_precision() == pytest.approx(average_precision_score(hit, score))
    weights = np.full(50, 3)
    assert one.average_precision(weights, np.full(int(hit.sum()), 3)) == pytest.approx(one.average_precision())


def test_errors_that_nothing_shows_count_as_missed():
    one = ranked([3, 2, 1], [[1], [], [1, 2]], 4)
    assert one.average_precision() == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert one.looked_at(0.5) == 3
    assert one.looked_at(0.75) is None
    kinds = pd.Series(["added", "deleted", "added", "added"], index=[1, 2, 3, 4])
    assert one.within(1, kinds, "added") == 1
    assert one.within(3, kinds, "deleted") == 1


def test_an_equal_ranking_has_no_gain_in_any_resample():
    score, found = [4, 3, 2, 1], [[1], [], [2], []]
    blocks, of_error = np.array([0, 0, 1, 2]), np.array([0, 1])
    draws = audit.resampled({"audit": ranked(score, found, 2), "random": ranked(score, found, 2)}, blocks, of_error)
    assert (draws["audit"] == draws["random"]).all()
    assert draws["audit"].std() > 0
