"""The pages of docs/reference agree with the code."""

import runpy

import pytest

from landslide.bands.formulas import BAND_GROUPS
from landslide.folds.schemes import SCHEMES
from landslide.metrics.counts import METRIC_NAMES
from landslide.models import MODEL_NAMES
from landslide.training.losses import LOSS_NAMES
from landslide.training.settings import TrainingSettings
from steps.settings import FoldSettings, RegistrationSettings
from tests.support import pipeline_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def generator() -> dict:
    return runpy.run_path(str(pipeline_runs.ROOT / "docs" / "generate.py"))


def test_committed_reference_pages_are_up_to_date(generator):
    folder = pipeline_runs.ROOT / "docs" / "reference"
    pages = generator["pages"]()
    for name, text in pages.items():
        assert (folder / name).read_text() == text, f"{name} is stale: run make docs"


@pytest.mark.parametrize(
    ("settings", "field", "names"),
    [
        (TrainingSettings, "bands", [*BAND_GROUPS, "all"]),
        (TrainingSettings, "model", MODEL_NAMES),
        (TrainingSettings, "loss", LOSS_NAMES),
        (TrainingSettings, "select_by", METRIC_NAMES),
        (RegistrationSettings, "metric", METRIC_NAMES),
        (FoldSettings, "scheme", SCHEMES),
    ],
)
def test_a_setting_that_takes_a_name_lists_all_of_them(generator, settings, field, names):
    text = generator["field_docstrings"](settings)[field]
    assert [name for name in names if f"`{name}`" not in text] == []
