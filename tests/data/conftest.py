from pathlib import Path

import pytest

from tests.support.patch_sets import write_patch_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A valid set of the patches 1, 2 and 10, with 1, 2 and 10 landslide pixels, in the Zenodo layout."""
    return write_patch_set(tmp_path / "set")
