"""No library reports its use: those that would keep an identity or a count for it in the home folder keep none."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

USED = {
    "mlflow": "mlflow.set_tracking_uri('sqlite:///runs.db'); mlflow.set_experiment('a'); mlflow.start_run()",
    "onnxruntime": "onnxruntime.get_device()",
    "openvino": "openvino.Core()",
}


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("ours", [True, False], ids=["with this package", "without it, as a check of the test"])
def test_nothing_is_kept_in_the_home_folder(tmp_path, name, ours):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    program = f"import {'landslide, ' if ours else ''}{name}; {USED[name]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
    }  # nothing by which tests or CI are known
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=work, check=True, capture_output=True)
    assert (list(home.rglob("*")) == []) == ours
