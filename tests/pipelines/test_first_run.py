"""Commands that come first in a new checkout or a new LANDSLIDE_HOME, also two at once."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import yaml

from landslide.data import demo, project
from landslide.data.digests import directory_digest
from tests.support import commands, pipeline_runs

pytestmark = pytest.mark.slow

CONNECT = "import sys; from landslide.tracking import runs; print(runs.connect(sys.argv[1]).search_experiments())"


def run_together(command: list[str], cwd: Path, environment: dict[str, str], n: int = 2) -> None:
    """Start a command several times at once; each must succeed."""

    def start(number: int) -> BaseProcess:
        log = cwd / f"log-{number}.txt"
        return commands.start(command, cwd=cwd, env=environment, stdout=log, stderr=log)

    processes = [start(number) for number in range(n)]
    for number, process in enumerate(processes):
        process.join()
        assert process.exitcode == 0, (cwd / f"log-{number}.txt").read_text()


def test_set_up_twice_at_once_in_a_new_home_registers_one_stack(tmp_path):
    environment = pipeline_runs.cli_environment(tmp_path / "home")
    environment["PYTHONPATH"] += f":{pipeline_runs.ROOT}"
    run_together(["python", "-m", "stacks.local"], tmp_path, environment)
    listed = commands.run(["zenml", "stack", "list"], cwd=tmp_path, env=environment)
    assert listed.returncode == 0, listed.stderr
    assert "landslide" in listed.stdout


def test_first_connections_at_once_create_one_store(tmp_path):
    environment = pipeline_runs.cli_environment(tmp_path / "home")
    run_together(["python", "-c", CONNECT, f"sqlite:///{tmp_path}/mlflow.db"], tmp_path, environment, n=3)


@pytest.fixture
def small_demo(tmp_path, monkeypatch) -> Path:
    """A checkout without git that pins a demo set of a few patches."""
    generate = demo.generate
    generate(tmp_path / "reference", scenes=((1, 2),))
    version = directory_digest(tmp_path / "reference")[0]
    monkeypatch.setattr(demo, "generate", lambda folder: generate(folder, scenes=((1, 2),)))
    monkeypatch.setattr(demo, "DEMO_VERSION", version)
    monkeypatch.setenv("LANDSLIDE_HOME", str(tmp_path / "home"))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "data.dvc").write_text(yaml.safe_dump({"outs": [{"md5": version, "path": "data"}]}))
    return checkout


def test_empty_data_folder_is_filled(small_demo):
    (small_demo / "data").mkdir()
    assert project.prepare(small_demo).startswith("generated the demo set")
    assert directory_digest(small_demo / "data")[0] == demo.DEMO_VERSION
    assert project.prepare(small_demo).startswith("./data holds the version that data.dvc pins")


def test_two_first_runs_in_one_checkout_generate_the_data_once(small_demo):
    with ThreadPoolExecutor(2) as pool:
        reports = sorted(pool.map(project.prepare, [small_demo, small_demo]))
    assert [report.split()[0] for report in reports] == ["./data", "generated"]
    assert directory_digest(small_demo / "data")[0] == demo.DEMO_VERSION
    assert {path.name for path in small_demo.iterdir()} == {"data", "data.dvc"}


def test_dvc_stages_need_neither_data_nor_a_reports_folder(tiny_set, tmp_path):
    stages = yaml.safe_load((pipeline_runs.ROOT / "dvc.yaml").read_text())["stages"]
    assert all("data" not in stage.get("deps", ()) for stage in stages.values())  # DVC wants dependencies to exist
    shutil.copytree(tiny_set, tmp_path / "data")  # what `data prepare` would bring
    shutil.copy2(pipeline_runs.ROOT / "data.dvc", tmp_path)
    environment = pipeline_runs.cli_environment(tmp_path / "home")
    for name in ("data", "check"):
        command = ["bash", "-c", stages[name]["cmd"]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "reports").iterdir()} == {"check.json", "data.yaml"}
