"""The bare library predicts without the extras, and each extra names the packages that its code imports."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

import mlflow
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from landslide.bands.formulas import BAND_NAMES, BandSettings
from landslide.data import demo
from landslide.data.patches import read_stored
from landslide.data.table import patch_table
from landslide.errors import ConfigurationError
from landslide.inference.ensemble import load_ensemble, save_ensemble
from landslide.models import ModelSpec, create_model
from landslide.tracking import runs
from tests.support.versions import members
from tests.support.wheels import build_wheel

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("training", "mapping", "pipelines", "kubeflow")
OURS = {"landslide", "steps", "pipelines", "stacks"}
NOT_LOCKED = {"ukis_csmask", "terratorch"}  # the extra `clouds`, and networks that need a package of their own
WITH_CLOUDS = "csmask.py"  # reads files of the extra `clouds`, which includes `mapping`
WITH_MLFLOW = ("tracking", "retraining")

_PREDICT = """
import sys
folder, *blocked = sys.argv[1:]
sys.modules.update(dict.fromkeys(blocked))
from pathlib import Path
import numpy as np
from landslide.inference.ensemble import load_ensemble
from landslide.models import MODEL_NAMES, create_model, required_packages
for name in MODEL_NAMES:
    if not required_packages(name):
        create_model(name, 3)
answers = load_ensemble(Path(folder, "ensemble")).predict(np.load(f"{folder}/images.npy"))
np.save(f"{folder}/answers.npy", np.stack(answers))
"""
_SERVE = """
import sys
import mlflow, numpy as np
folder, model = sys.argv[1:]
answer = mlflow.pyfunc.load_model(model).predict(np.load(f"{folder}/images.npy"))
np.save(f"{folder}/answers.npy", np.stack([answer["probability"], answer["uncertainty"]]))
"""
_COMMAND = """
import sys
blocked, *sys.argv[1:] = sys.argv[1:]
sys.modules[blocked] = None
from landslide.__main__ import main
main()
"""


def requirements(extra: str | None = None) -> set[str]:
    """Names of direct requirements of the bare library, or of an extra and those that it builds on."""
    named = list(PROJECT["dependencies"])
    for name in EXTRAS[: EXTRAS.index(extra) + 1] if extra else ():
        named += PROJECT["optional-dependencies"][name]
    return {canonicalize_name(Requirement(text).name) for text in named} - {"landslide"}


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Names of installed packages and of all their requirements, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name not in found:
            found.add(name)
            needed = map(Requirement, metadata.requires(name) or ())
            waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


@cache
def packages_by_module() -> dict[str, set[str]]:
    return {module: set(map(canonicalize_name, names)) for module, names in metadata.packages_distributions().items()}


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names of the foreign modules that a file imports."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) and node.name == "__get_pydantic_core_schema__":
            continue  # called by pydantic only
        waiting += ast.iter_child_nodes(node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from {name.partition(".")[0] for name in names} - OURS - NOT_LOCKED - sys.stdlib_module_names


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A folder with an ensemble of all 26 bands and two patches as they are stored."""
    folder = tmp_path_factory.mktemp("saved")
    demo.generate(folder / "data", scenes=((1, 2),))
    table = patch_table(folder / "data")
    images = np.stack([read_stored(folder / "data" / image).transpose(2, 0, 1) for image in table["image"]])
    np.save(folder / "images.npy", images)
    save_ensemble(folder / "ensemble", members(folder, bands=BAND_NAMES), BandSettings())
    return folder


def check_answers(saved: Path, python: str | Path, code: str, *arguments: str, cwd: Path) -> None:
    """Run code that predicts, in a folder, and compare its answers with those of this process."""
    command = [python, "-c", code, saved, *arguments]
    done = subprocess.run(command, cwd=cwd, env={"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = np.load(saved / "answers.npy")
    (saved / "answers.npy").unlink()
    expected = load_ensemble(saved / "ensemble").predict(np.load(saved / "images.npy"))
    assert expected[1].max() > 0.01, "members that agree would prove little"
    np.testing.assert_allclose(answers, expected, atol=1e-6)


# ---- declared requirements


def test_the_bare_library_requires_four_packages():
    assert requirements() == {"numpy", "opencv-python-headless", "safetensors", "torch"}


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        ("training", "src/landslide"),
        ("mapping", "src/landslide/mapping"),
        ("mapping", "src/landslide/labels"),
        ("mapping", "src/landslide/scenes"),
        ("mapping", "src/landslide/tiling"),
        ("mapping", "src/landslide/products"),
        ("pipelines", "."),
        ("kubeflow", "stacks"),
    ],
)
def test_an_extra_requires_the_packages_that_its_code_imports(extra, part):
    folders = [ROOT / part] if part != "." else [ROOT / folder for folder in ("src", "steps", "pipelines")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    if extra == "training":
        apart = {*WITH_MLFLOW, "scenes", "tiling", "products", "mapping", "labels"}
        files = [path for path in files if path.relative_to(ROOT / part).parts[0] not in apart]
        files = [path for path in files if path.name != WITH_CLOUDS]
    assert len(files) > 2
    required = requirements() | requirements(extra)
    for path in files:
        missing = [name for name in imported(path) if not packages_by_module().get(name, set()) & required]
        assert missing == [], path


def test_locked_versions_are_within_the_required_ranges():
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))
    extras = {name: texts for name, texts in PROJECT["optional-dependencies"].items() if name != "clouds"}  # not locked
    named = [*PROJECT["dependencies"], *(text for texts in extras.values() for text in texts)]
    for requirement in map(Requirement, named):
        if requirement.name != "landslide":
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


# ---- without the packages of the extras


def modules_without(packages: set[str]) -> list[str]:
    """Installed modules that belong to neither these packages nor their requirements."""
    kept = with_dependencies(packages) | {"landslide"}
    return [name for name, found in packages_by_module().items() if not found & kept]


def test_a_saved_ensemble_predicts_with_every_other_package_blocked(saved):
    blocked = modules_without(requirements())
    assert {"pandas", "h5py", "mlflow", "zenml", "dvc", "kfp", "boto3", "pydantic", "timm", "click"} <= set(blocked)
    check_answers(saved, sys.executable, _PREDICT, *blocked, cwd=ROOT / "src")


def test_training_imports_need_little_more_than_the_bare_library():
    blocked = modules_without(requirements() | {"h5py", "lightning-fabric", "pandas", "tqdm"})
    assert {"matplotlib", "yaml", "pydantic", "timm", "mlflow"} <= set(blocked)
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1:])); import landslide.training.fold"
    done = subprocess.run([sys.executable, "-c", code, *blocked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("click", "training", ["--help"]),
        ("h5py", "training", ["data", "check", "."]),
        ("yaml", "training", ["data", "prepare"]),
        ("dvc", "pipelines", ["data", "pull", "0123456789abcdef", "folder"]),
        ("mlflow", "pipelines", ["report"]),
        (
            "zenml",
            "pipelines",
            ["stack", "register", "kubeflow", "--bucket", "s3://b", "--registry", "r", "--mlflow-url", "http://m"],
        ),
    ],
)
def test_a_command_without_its_package_names_the_extra(missing, extra, arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("LANDSLIDE_ROOT", str(ROOT))
    command = [sys.executable, "-c", _COMMAND, missing, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("Error: ")
    assert f"pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_module_outside_the_extras_raises_the_original_error(tmp_path):
    command = [sys.executable, "-c", _COMMAND, "landslide.cli.report", "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "ModuleNotFoundError" in done.stderr
    assert "pip install" not in done.stderr


def test_health_names_the_extra_that_is_missing(tmp_path):
    environment = {**os.environ, "LANDSLIDE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _COMMAND, "mlflow", "health"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("ok      torch")
    assert "FAILED  tracking" in done.stdout
    assert "pip install '.[pipelines]'" in done.stdout


@pytest.mark.parametrize(
    ("network", "module", "remedy"),
    [
        ("lite_unet", "timm", "pip install timm"),
        ("smp:Unet:resnet18", "segmentation_models_pytorch", "pip install segmentation-models-pytorch timm"),
        ("terratorch:UNetDecoder:prithvi_eo_v2_tiny_tl", "terratorch", "pip install terratorch"),
    ],
)
def test_a_network_without_its_package_names_the_package_to_install(network, module, remedy, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=f"needs the package {module}") as error:
        create_model(network, 3)
    assert remedy in error.value.remedy


# ---- in an empty environment


def environment_with(folder: Path, *requirements: str | Path) -> Path:
    """Create an environment that has locked versions of some requirements, from uv's cache; return its Python."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip(f"{uv}, by which `make setup` installs, does not exist")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [uv, "pip", "install", "--quiet", "--offline", "--python", python, "--constraint", LOCK, *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if "disabled" in done.stderr:  # the network is, as asked for
        pytest.skip(f"uv's cache lacks a locked package: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return python


def test_the_bare_library_predicts_in_an_environment_with_nothing_else(saved, tmp_path):
    python = environment_with(tmp_path / "bare", build_wheel(tmp_path))
    check_answers(saved, python, _PREDICT, cwd=tmp_path)
    command = subprocess.run([python.with_name("landslide"), "--help"], capture_output=True, text=True)
    assert command.returncode == 1
    assert "pip install '.[training]'" in command.stderr


@pytest.mark.parametrize(
    ("networks", "more"),
    [
        (["unet"], set()),
        (["unet", "lite_unet"], {"timm"}),
        (["smp:Unet:resnet18"], {"segmentation-models-pytorch", "timm"}),
    ],
)
def test_a_registered_model_requires_the_bare_library_mlflow_and_its_networks_packages(networks, more, store, tmp_path):
    (member, _) = members(tmp_path)
    logged = [replace(member, spec=ModelSpec(name=name, bands=member.spec.bands)) for name in networks]
    run_id = runs.create_run(runs.connect(store), "test", {}, {})
    with runs.recording(run_id):
        model = runs.log_model(logged, BandSettings(), "float64", {}, with_code=True)
    text = Path(mlflow.artifacts.download_artifacts(model), "requirements.txt").read_text()
    versions = {name: metadata.version(name) for name in requirements() | {"mlflow"} | more}
    assert dict(line.split("==") for line in text.splitlines()) == versions


@pytest.mark.soak
def test_a_registered_model_serves_in_an_environment_of_its_requirements(saved, store, tmp_path):
    run_id = runs.create_run(runs.connect(store), "test", {}, {})
    with runs.recording(run_id):
        model = runs.log_model(members(saved, bands=BAND_NAMES), BandSettings(), "float64", {}, with_code=True)
    folder = Path(mlflow.artifacts.download_artifacts(model, dst_path=str(tmp_path)))
    python = environment_with(tmp_path / "serving", "--requirement", folder / "requirements.txt")
    check_answers(saved, python, _SERVE, str(folder), cwd=tmp_path)
