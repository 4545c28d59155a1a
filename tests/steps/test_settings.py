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
        {"scheme": "scene_blocked", "table": "t.csv"},  # still leaves out the tiles adjacent to the test fold
    ],
)
def test_fold_settings_with_an_effect_are_accepted(values):
    FoldSettings(**values)


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
