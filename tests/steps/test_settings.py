"""Settings of steps that are invalid or would have no effect are refused with the reason."""

import pytest

from landslide.errors import ConfigurationError
from steps.settings import DataSettings, EvaluationSettings, FoldSettings

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("values", "named", "because"),
    [
        ({"seed": 3}, "seed is 3", "contiguous folds are not random"),
        ({"scheme": "random", "table": "t.csv"}, "scheme is 'random'", "folds.table"),
        ({"scheme": "stratified", "table": "t.csv"}, "scheme is 'stratified'", "folds.table"),
        ({"scheme": "scene_blocked", "seed": 3, "table": "t.csv"}, "seed is 3", "folds.table"),
        ({"seed": 3, "table": "t.csv"}, "seed is 3", "folds.table"),
        ({"gap": 2}, "gap is 2", "contiguous folds have no gap"),
        ({"scheme": "random", "gap": 0}, "gap is 0", "random folds have no gap"),
        ({"scheme": "scene", "in_scene_fraction": 0.0, "gap": 2}, "gap is 2", "no tile of a scene adjoins another"),
        ({"scheme": "scene", "in_scene_fraction": 0.0, "seed": 3}, "seed is 3", "scene folds are not random"),
        ({"scheme": "scene_blocked", "in_scene_fraction": 0.2}, "in_scene_fraction is 0.2", "scene_blocked folds test"),
        ({"scheme": "cluster", "in_scene_fraction": 0.0, "seed": 3, "table": "t.csv"}, "seed is 3", "folds.table"),
    ],
)
def test_fold_setting_without_effect_is_refused(values, named, because):
    with pytest.raises(ConfigurationError, match=rf"folds\.{named} and has no effect: .*{because}"):
        FoldSettings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"scheme": "random", "seed": 3},
        {"scheme": "contiguous", "seed": 0, "table": "t.csv"},
        {"scheme": "scene_blocked", "gap": 2, "table": "t.csv"},  # still leaves out tiles around the test fold
        {"scheme": "scene", "seed": 3, "gap": 2},  # of the in-scene part
        {"scheme": "scene", "in_scene_fraction": 0.0},
        {"scheme": "cluster", "in_scene_fraction": 0.0, "seed": 3, "gap": 0},
        {"scheme": "cluster", "in_scene_fraction": 0.5, "seed": 3, "table": "t.csv"},
    ],
)
def test_fold_settings_with_an_effect_are_accepted(values):
    FoldSettings(**values)


@pytest.mark.parametrize("values", [{"gap": -1}, {"gap": 1.5}, {"in_scene_fraction": 0.6}, {"in_scene_fraction": -0.1}])
def test_gap_and_in_scene_fraction_have_a_range(values):
    with pytest.raises(ConfigurationError, match=r"folds\.gap to 0 or more, in whole tiles(.|\n)*0 to 0\.5"):
        FoldSettings(scheme="cluster", **values)


def test_revision_without_repository_is_refused():
    with pytest.raises(ConfigurationError, match=r"data\.revision is 'labels' and has no effect: data\.repository"):
        DataSettings(fetch=True, revision="labels")
    DataSettings(fetch=True, repository="https://git.example.com/labels.git", revision="labels")


def test_overlays_without_figures_are_refused():
    with pytest.raises(ConfigurationError, match=r"evaluation\.overlays is 2 and has no effect: evaluation\.figures"):
        EvaluationSettings(figures=False, overlays=2)
    EvaluationSettings(figures=False)


@pytest.mark.parametrize("overlays", [0, -1])
def test_too_few_overlays_are_refused(overlays):
    with pytest.raises(ConfigurationError, match=rf"evaluation\.overlays is {overlays}(.|\n)*figures: false"):
        EvaluationSettings(overlays=overlays)
