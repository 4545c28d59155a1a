"""Every test session has its own ZenML, MLflow and cache state in a temporary folder."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_HOME = Path(tempfile.mkdtemp(prefix="landslide-tests-"))

# Set before any import of ZenML or MLflow, which read these when they are imported.
os.environ.update(
    {
        "LANDSLIDE_HOME": str(_HOME),
        "ZENML_CONFIG_PATH": str(_HOME / "zenml"),
        "ZENML_REPOSITORY_PATH": str(_HOME / "zenml"),
        "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_AUTO_OPEN_DASHBOARD": "false",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{_HOME / 'mlflow.db'}",
        "MLFLOW_REGISTRY_URI": f"sqlite:///{_HOME / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GOMP_SPINCOUNT": "10000",
        "OMP_NUM_THREADS": "1",  # threads that wait for each other take longer than tiny networks do
        "DVC_NO_ANALYTICS": "1",
    }
)


# The slowest files start first, so that no worker is left with one of them at the end.
_LONGEST = (
    "pipelines/test_retraining.py", "pipelines/test_training.py", "pipelines/test_demo.py", "stacks/test_kubeflow.py",
    "pipelines/test_trials.py", "pipelines/test_ablation.py", "tracking/test_reproduction.py", "mlflow/test_server.py",
    "training/test_fold.py",
)  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files of slow tests to select the others: most of them import ZenML and MLflow."""
    if "not slow" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    all_slow = re.search(r"^pytestmark = \[?pytest\.mark\.slow", collection_path.read_text(), re.MULTILINE)
    return True if all_slow else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: position for position, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get("/".join(item.path.parts[-2:]), len(order)))


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def home() -> Path:
    """The session's LANDSLIDE_HOME."""
    return _HOME


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real patches; tests skip if it is missing."""
    folder = Path(os.environ.get("LANDSLIDE_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real Landslide4Sense patches in {folder} (set LANDSLIDE_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def stack() -> str:
    """The embedded ZenML stack, registered once per session."""
    import tests.support.installed_packages  # noqa: F401
    from stacks.local import register_local_stack

    return register_local_stack()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """An empty MLflow database: copying one is quick, creating one takes seconds."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    uri = f"sqlite:///{path}"
    MlflowClient(uri, uri).search_experiments()
    return path


@pytest.fixture(scope="session")
def new_home(tmp_path_factory, empty_store) -> Callable[[], Path]:
    """Create a new LANDSLIDE_HOME with the databases that the first command would create."""
    from tests.support import commands, pipeline_runs

    first = tmp_path_factory.mktemp("home")
    create = ["python", "-c", "from zenml.client import Client; Client().active_stack_model"]
    done = commands.run(create, cwd=first, env=pipeline_runs.cli_environment(first))
    assert done.returncode == 0, done.stderr
    (first / "zenml" / "config.yaml").unlink()  # it names the folder
    shutil.copy2(empty_store, first / "mlflow.db")
    return lambda: Path(shutil.copytree(first, tmp_path_factory.mktemp("home"), dirs_exist_ok=True))


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory) -> Path:
    """Ten generated patches of two scenes. No test changes them."""
    from landslide.data.demo import generate

    folder = tmp_path_factory.mktemp("tiny") / "data"
    generate(folder, scenes=((2, 3), (2, 2)))
    return folder


@pytest.fixture
def store(empty_store, tmp_path) -> str:
    """The address of an MLflow store for this test only."""
    return f"sqlite:///{shutil.copy2(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="module")
def one_thread():
    """Torch with one thread: threads that wait for each other take longer than tiny networks do."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
