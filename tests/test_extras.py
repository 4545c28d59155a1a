"""Missing packages and the extras that bring them."""

import sys

import pytest

from landslide.__main__ import main
from landslide.extras import missing_extra


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("h5py", "training"),
        ("yaml", "training"),
        ("segmentation_models_pytorch", "training"),
        ("mlflow.pyfunc", "pipelines"),
        ("dvc.repo", "pipelines"),
        ("kfp", "kubeflow"),
    ],
)
def test_a_missing_module_is_in_an_extra(module, extra):
    error = missing_extra(ModuleNotFoundError(name=module))
    assert f"pip install '.[{extra}]'" in str(error)


@pytest.mark.parametrize("module", ["numpy", "landslide.cli.gone", "some_module", ""])
def test_a_missing_module_is_in_no_extra(module):
    assert missing_extra(ModuleNotFoundError(name=module)) is None


def test_the_module_runs_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["landslide", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: landslide ")
