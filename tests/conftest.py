"""Every test session has its own ZenML, MLflow and cache state in a temporary folder."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from filelock import FileLock

import tests.support.quicker_libraries  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
_HOME = Path(tempfile.mkdtemp(prefix="landslide-tests-"))
_STORE = f"sqlite:///{_HOME / 'mlflow.db'}"

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
        "MLFLOW_TRACKING_URI": _STORE,
        "MLFLOW_REGISTRY_URI": _STORE,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GOMP_SPINCOUNT": "10000",
        "OMP_NUM_THREADS": "1",  # threads that wait for each other take longer than tiny networks do
        "DVC_NO_ANALYTICS": "1",
    }
)


# The slowest files start first, so that no worker is left with one of them at the end.
_LONGEST = (
    "pipelines/test_training.py", "pipelines/test_retraining.py", "pipelines/test_demo.py", "training/test_fold.py",
    "pipelines/test_trials.py", "data/test_dvc.py", "mlflow/test_server.py", "data/test_landslide4sense.py",
    "stacks/test_kubeflow.py", "pipelines/test_deletions.py", "bands/test_cache.py", "models/test_cpu_layers.py",
    "pipelines/test_ablation.py", "steps/test_decide.py",
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


@pytest.fixture(scope="module", autouse=True)
def _session_store() -> Iterator[None]:
    """Let each file of tests begin with the session's MLflow store: `mlflow.set_tracking_uri` changes the variable."""
    yield
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri(_STORE)
        mlflow.set_registry_uri(_STORE)
    os.environ.update({"MLFLOW_TRACKING_URI": _STORE, "MLFLOW_REGISTRY_URI": _STORE})


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
def shared(tmp_path_factory) -> Path:
    """A folder that all workers share, for what takes seconds to create and is quick to copy."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def empty_store(shared) -> Path:
    """An empty MLflow database."""
    path = shared / "mlflow.db"
    with FileLock(shared / "mlflow.lock"):
        if not path.exists():
            from mlflow.tracking import MlflowClient

            uri = f"sqlite:///{path}"
            MlflowClient(uri, uri).search_experiments()
    return path


@pytest.fixture(scope="session")
def empty_zenml(shared) -> Path:
    """The ZENML_CONFIG_PATH of a LANDSLIDE_HOME, as the first command creates it."""
    from tests.support import commands, pipeline_runs

    with FileLock(shared / "zenml.lock"):
        if not (shared / "zenml").exists():
            create = ["python", "-c", "from zenml.client import Client; Client().active_stack_model"]
            done = commands.run(create, cwd=shared, env=pipeline_runs.cli_environment(shared))
            assert done.returncode == 0, done.stderr
            config = shared / "zenml" / "config.yaml"
            identity = yaml.safe_load(config.read_text())["user_id"]  # without it the database is taken for a server's
            config.write_text(yaml.safe_dump({"user_id": identity}))  # all else is about this folder
    return shared / "zenml"


@pytest.fixture(scope="session")
def stack(empty_zenml) -> str:
    """The embedded ZenML stack, registered once per session."""
    from zenml.config.global_config import GlobalConfiguration

    import tests.support.installed_packages  # noqa: F401
    from stacks.local import register_local_stack

    if not (_HOME / "zenml" / "local_stores").exists():  # no test of this worker has used ZenML yet
        shutil.copytree(empty_zenml, _HOME / "zenml", dirs_exist_ok=True)
        identity = yaml.safe_load((empty_zenml / "config.yaml").read_text())["user_id"]
        GlobalConfiguration().user_id = UUID(identity)
    return register_local_stack()


@pytest.fixture(scope="session")
def new_home(tmp_path_factory, empty_zenml, empty_store) -> Callable[[], Path]:
    """Create a new LANDSLIDE_HOME with the databases that the first command would create."""

    def create() -> Path:
        home = tmp_path_factory.mktemp("home")
        shutil.copytree(empty_zenml, home / "zenml")
        shutil.copy2(empty_store, home / "mlflow.db")
        return home

    return create


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
