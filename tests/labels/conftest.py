"""What several tests of labels share."""

from pathlib import Path

import pytest

from landslide.data import demo


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Six patches of generated ground in one scene, with labels."""
    root = tmp_path_factory.mktemp("set") / "data"
    demo.generate(root, scenes=((2, 3),))
    return root
