"""A version that was trained with another formula than this code has: it is read by its own code, or refused."""

import json
import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings
from landslide.data import demo
from landslide.data.patches import read_stored
from landslide.data.table import patch_table
from landslide.errors import ConfigurationError, RegistryError
from landslide.inference.ensemble import Ensemble, load_ensemble, load_members, recorded_code
from landslide.inference.own_code import CODE, code_digest
from landslide.retraining.out_of_fold import predict_unseen
from landslide.tracking import held_out, registry, runs
from tests.support import commands, pipeline_runs
from tests.support.versions import fold_table

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

_OTHER_CODE = """
import sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from landslide.data.patches import find_patches, read_stored
from landslide.inference.ensemble import load_ensemble
from landslide.tracking import held_out, registry, runs
from tests.support.versions import add_version

store, data = Path(sys.argv[1]), Path(sys.argv[2])
client = runs.connect(f"sqlite:///{store / 'mlflow.db'}")
add_version(client, store, bands=("B4", "gray"), with_code=True)
ensemble = load_ensemble(registry.fetch("1", store / "fetched"))
images = np.stack([read_stored(patch.image) for patch in find_patches(data)]).transpose(0, 3, 1, 2)
np.save(store / "expected.npy", ensemble.predict(images)[0])
held_out.score(client, "1", data, "train").table.to_pickle(store / "scores.pkl")
formulas = Path(sys.modules["landslide.bands.formulas"].__file__)
text = formulas.read_text()
try:
    formulas.write_text(text + "# changed while the process runs")
    add_version(client, store, with_code=True)
except Exception as error:
    (store / "refusal.txt").write_text(str(error))
formulas.write_text(text)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("own") / "data"
    demo.generate(root, scenes=((1, 4),))
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory, empty_store, data) -> Path:
    """The folder of a store in which other code registered version 1, with its predictions and scores."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy2(empty_store, folder / "mlflow.db")
    shutil.copytree(pipeline_runs.ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    formulas = folder / "src" / "landslide" / "bands" / "formulas.py"
    assert "self.plain /= 3.0" in formulas.read_text()
    formulas.write_text(formulas.read_text().replace("self.plain /= 3.0", "self.plain /= 1.5"))
    environment = pipeline_runs.cli_environment(folder) | {"PYTHONPATH": f"{folder / 'src'}:{pipeline_runs.ROOT}"}
    done = commands.run(["python", "-c", _OTHER_CODE, str(folder), str(data)], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def client(store):
    return runs.connect(f"sqlite:///{store / 'mlflow.db'}")


@pytest.fixture(scope="module")
def images(data) -> np.ndarray:
    return np.stack([read_stored(data / image) for image in patch_table(data)["image"]]).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def expected(store) -> np.ndarray:
    """What the code that trained the version predicts."""
    return np.load(store / "expected.npy")


@pytest.fixture
def fetched(client, tmp_path) -> Path:
    """The folder of the ensemble, with the code of the version where the model has it."""
    return registry.fetch("1", tmp_path / "fetched")


def test_this_code_would_read_the_version_otherwise(fetched, images, expected):
    assert recorded_code(fetched) != CODE
    misread = Ensemble(*load_members(fetched, any_code=True)).predict(images)[0]
    assert np.abs(misread - expected).max() > 0.01


def test_registered_model_predicts_by_its_own_code(client, images, expected):
    module, serving = sys.modules["landslide.inference.ensemble"], registry.address("1")
    np.testing.assert_array_equal(mlflow.pyfunc.load_model(serving).predict(images)["probability"], expected)
    assert sys.modules["landslide.inference.ensemble"] is module
    from landslide.bands import formulas

    assert Path(formulas.__file__).is_relative_to(pipeline_runs.ROOT)


def test_held_out_scores_are_those_of_its_own_code(client, store, data):
    import pandas as pd

    found = held_out.score(client, "1", data, "train").table
    pd.testing.assert_frame_equal(found, pd.read_pickle(store / "scores.pkl"), check_exact=True)


def test_comparison_predicts_by_its_own_code(fetched, data, tmp_path, expected):
    table = patch_table(data).assign(fold=[1, 1, 2, 2], scene=np.nan, row=np.nan, column=np.nan)
    cache = ensure_cache(tmp_path / "caches", data, patch_table(data), "demo", BandSettings())
    ensemble = load_ensemble(fetched)
    assert not isinstance(ensemble, Ensemble)
    predicted = np.zeros_like(expected)
    seen = fold_table()
    for part, probability, masks in predict_unseen(
        ensemble, cache, table, np.arange(4), seen, model="champion", root=data
    ):
        predicted[part] = probability.numpy()
        np.testing.assert_array_equal(masks, cache.masks[part])
    alone = [type(ensemble)([member], ensemble.settings) for member in ensemble.members]
    stored = np.stack([read_stored(data / image) for image in table["image"]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(predicted[:2], alone[0].predict(stored[:2])[0])
    np.testing.assert_array_equal(predicted[2:], alone[1].predict(stored[2:])[0])


def test_training_does_not_start_from_it(client, tmp_path):
    from steps.train_fold import _member

    with pytest.raises(ConfigurationError, match=r"other formulas or networks(.|\n)*Start from scratch"):
        _member("1", 1, BandSettings(), tmp_path)


def test_without_its_code_it_is_refused(fetched, tmp_path):
    alone = shutil.copytree(fetched, tmp_path / "alone" / "artifacts" / "ensemble")
    with pytest.raises(RegistryError, match=r"saved by other code(.|\n)*Download the whole model"):
        load_ensemble(alone)


def test_damaged_code_is_refused(fetched):
    formulas = fetched.parents[1] / "code" / "landslide" / "bands" / "formulas.py"
    formulas.write_text(formulas.read_text() + "#")
    with pytest.raises(RegistryError, match="is not the code"):
        load_ensemble(fetched)


def test_model_of_an_older_release_is_read_by_the_code_beside_it(fetched, images, expected):
    content = json.loads((fetched / "ensemble.json").read_text())
    del content["code"]
    (fetched / "ensemble.json").write_text(json.dumps(content))
    package = fetched.parents[1] / "code" / "landslide"
    ensemble = package / "inference" / "ensemble.py"
    ensemble.write_text(ensemble.read_text().replace("if code != CODE and not any_code:", "if False:"))
    assert recorded_code(fetched) is None
    np.testing.assert_array_equal(load_ensemble(fetched).predict(images)[0], expected)


def test_version_records_the_digest_of_its_code(client, store):
    digest = code_digest(store / "src" / "landslide")
    assert digest != CODE
    assert mlflow.pyfunc.load_model(registry.address("1")).metadata.metadata["code"] == digest


def test_code_that_changed_during_the_training_is_not_registered(store):
    refusal = (store / "refusal.txt").read_text()
    assert "was changed while this process ran" in refusal
    assert "Start the pipeline again" in refusal


def test_digest_covers_all_modules_that_predict(tmp_path):
    code = (
        "import sys, landslide.inference.ensemble\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'landslide'))"
    )
    done = commands.run(["python", "-c", code], cwd=tmp_path, env=pipeline_runs.cli_environment(tmp_path))
    package = pipeline_runs.ROOT / "src" / "landslide"
    modules = {Path(file).relative_to(package).as_posix() for file in done.stdout.split()}
    neutral = {"__init__.py", "bands/__init__.py", "inference/__init__.py", "errors.py", "files.py"}
    copy = Path(shutil.copytree(package, tmp_path / "landslide", ignore=shutil.ignore_patterns("__pycache__")))
    for name in sorted(modules - neutral - {"inference/own_code.py"}):
        file = copy / name
        before, text = code_digest(copy), file.read_text()
        file.write_text(text + "\n")
        assert code_digest(copy) != before, name
        file.write_text(text)
