from pathlib import Path

import pytest

from tests.support.patch_sets import write_patch_set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound set of the patches 1, 2 and 10 (which have as many landslide pixels) in the Zenodo layout."""
    return write_patch_set(tmp_path / "set")
