"""Fixtures of the tests of maps."""

import pytest
import torch

from landslide.mapping.model import open_model
from tests.support.map_models import bright_ensemble


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """A model to which bright ground is a landslide."""
    folder = tmp_path_factory.mktemp("bright")
    return open_model(str(bright_ensemble(folder)), folder, torch.device("cpu"))
