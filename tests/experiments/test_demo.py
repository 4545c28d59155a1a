"""The record of the demo: the pages of the documentation show its figures, and its seeds agree."""

import json

import numpy as np
import yaml

from tests.support.experiments import load
from tests.support.pipeline_runs import ROOT

RECORD = json.loads((ROOT / "docs" / "results" / "demo.json").read_text())


def script():
    return load("demo")


def test_pages_show_the_recorded_figures():
    demo = script()
    for path in demo.PAGES:
        page = path.read_text()
        assert page.count("<!-- demo: ") >= 1
        assert demo.filled(page, RECORD) == page
    changed = json.loads(json.dumps(RECORD))
    changed["seeds"]["1"]["mean"]["f1_macro"] += 0.01
    assert all(demo.filled(path.read_text(), changed) != path.read_text() for path in demo.PAGES)


def test_record_is_of_the_present_configuration():
    training = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())["parameters"]["training"]
    changes, rates = RECORD["short"]["changes"], training["schedule"]["rates"]
    assert changes["training.epochs"] == training["epochs"] // 2
    assert changes["training.schedule.rates"] == [[epoch // 2, rate] for epoch, rate in rates]
    assert sorted(RECORD["seeds"]) == ["1", "2", "3"]


def test_scores_of_the_seeds_are_within_a_few_points():
    for name in ("f1_macro", "miou", "f1_landslide"):
        scores = [one["mean"][name] for one in RECORD["seeds"].values()]
        assert np.ptp(scores) < 0.06, name
