"""activate.sh and the Makefile notice a path that cannot work, and a checkout or a home that was moved."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.pipeline_runs import ROOT


@pytest.fixture
def checkout(tmp_path) -> Path:
    root = tmp_path / "it's a checkout, #1 of $HOME (100%)"
    (root / ".venv").mkdir(parents=True)
    (root / ".venv" / ".complete").write_text(f"{root}\n")
    for name in ("Makefile", "activate.sh", "requirements.lock", "pyproject.toml"):
        shutil.copy2(ROOT / name, root / name)
    return root


def shell(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    if "LANDSLIDE_HOME" not in variables:
        environment.pop("LANDSLIDE_HOME", None)
    return subprocess.run(["bash", "-euc", command], cwd=cwd, env=environment, capture_output=True, text=True)


def test_checkout_and_home_with_unusual_characters_are_activated(checkout):
    done = shell('source activate.sh; printf "%s\n" "$MLFLOW_TRACKING_URI" "${PATH%%:*}"', checkout)
    assert done.stderr == ""
    assert done.stdout == f"sqlite:///{checkout}/.landslide/mlflow.db\n{checkout}/.venv/bin\n"


def test_variables_that_lead_elsewhere_are_unset_and_credentials_stay(checkout):
    elsewhere = {
        "ZENML_STORE_URL": "https://zenml.example.org", "ZENML_STORE_API_KEY": "k", "ZENML_ACTIVE_STACK_ID": "s",
        "ZENML_LOCAL_STORES_PATH": "/srv", "ZENML_SECRETS_STORE_TYPE": "aws", "ZENML_CONFIG_PATH": "/srv",
        "ZENML_REPOSITORY_PATH": "/srv", "MLFLOW_TRACKING_URI": "https://mlflow.example.org", "MLFLOW_RUN_ID": "r",
        "MLFLOW_REGISTRY_URI": "https://mlflow.example.org", "MLFLOW_EXPERIMENT_ID": "7", "GIT_DIR": "/srv/.git",
        "DVC_SITE_CACHE_DIR": "/srv",
    }  # fmt: skip
    kept = {
        "ZENML_LOGGING_VERBOSITY": "DEBUG", "ZENML_LOGGING_COLORS_DISABLED": "false", "MLFLOW_TRACKING_USERNAME": "u",
        "AWS_ACCESS_KEY_ID": "a",
    }  # fmt: skip
    done = shell("source activate.sh; env", checkout, **elsewhere, **kept)
    assert done.returncode == 0, done.stderr
    after = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    home = f"{checkout}/.landslide"
    assert {name: after[name] for name in elsewhere if name in after} == {
        "ZENML_CONFIG_PATH": f"{home}/zenml", "ZENML_REPOSITORY_PATH": f"{home}/zenml",
        "DVC_SITE_CACHE_DIR": f"{home}/dvc", "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "MLFLOW_REGISTRY_URI": f"sqlite:///{home}/mlflow.db",
    }  # fmt: skip
    assert kept.items() <= after.items()


def test_logs_have_no_colours(checkout):
    done = shell('source activate.sh; echo "$ZENML_LOGGING_COLORS_DISABLED"', checkout)
    assert done.stdout == "true\n"


def test_second_home_in_one_shell_has_its_own_folders(checkout, tmp_path):
    text = f"source activate.sh; export LANDSLIDE_HOME={tmp_path}/other; source activate.sh; env"
    done = shell(text, checkout)
    own = [line for line in done.stdout.splitlines() if f"{checkout}/.landslide" in line and "_HOME=" not in line]
    assert own == []
    assert f"MPLCONFIGDIR={tmp_path}/other/matplotlib" in done.stdout


def test_user_without_a_home_directory_gets_one(checkout):
    done = shell('unset HOME; source activate.sh; echo "$HOME"', checkout)
    assert done.stdout == f"{checkout}/.landslide\n"


@pytest.mark.parametrize("home", ["/tmp/what?", "/tmp/back\\slash", "/tmp/a%20b", "."])
def test_home_that_cannot_work_is_refused_before_anything_is_installed(home, checkout):
    (checkout / ".venv" / ".complete").unlink()
    for command in ("source activate.sh", "make setup"):
        refused = shell(command, checkout, LANDSLIDE_HOME=home)
        assert refused.returncode != 0
        assert "Choose another path" in refused.stderr
        assert "setting up" not in refused.stdout


def test_checkout_with_a_colon_is_refused(checkout, tmp_path):
    other = shutil.copytree(checkout, tmp_path / "a:b")
    refused = shell("make setup", other)
    assert refused.returncode != 0
    assert "':'" in refused.stderr


@pytest.mark.parametrize("copied", [True, False])
def test_environment_of_another_checkout_is_set_up_again(copied, checkout, tmp_path):
    assert "setting up" not in shell("make -n setup", checkout).stdout
    other = tmp_path / "other"
    shutil.copytree(checkout, other) if copied else checkout.rename(other)
    refused = shell("source activate.sh", other)
    assert refused.returncode != 0
    assert "Run: make setup" in refused.stderr
    assert "setting up" in shell("make -n setup", other).stdout


def test_moved_home_is_refused_with_the_command_that_repairs_it(checkout, tmp_path):
    home = tmp_path / "a home"
    (home / "zenml").mkdir(parents=True)
    (home / "zenml" / ".stack-registered").write_text(f"{home}\n")
    assert shell("source activate.sh", checkout, LANDSLIDE_HOME=str(home)).returncode == 0
    (tmp_path / "link").symlink_to(home)
    assert shell("source activate.sh", checkout, LANDSLIDE_HOME=str(tmp_path / "link")).returncode == 0
    moved = home.rename(tmp_path / "moved")
    for command in ("source activate.sh", "make run"):
        refused = shell(command, checkout, LANDSLIDE_HOME=str(moved))
        assert refused.returncode != 0
        assert "landslide home relocate" in refused.stderr
    assert not home.exists()


@pytest.mark.parametrize("target", ["run", "ablation", "night"])
@pytest.mark.parametrize(
    ("data", "fetched_by_pipeline"),
    [("{root: data, fetch: true}", True), ("{root: data}  # fetch: true", False), ("{fetch: false}", False)],
)
def test_data_that_the_pipeline_fetches_are_left_to_it(tmp_path, target, data, fetched_by_pipeline):
    config = tmp_path / "night.yaml"
    config.write_text(f"parameters:\n  data: {data}\n")
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {'0' * 32}.dir\n  path: data\n")
    recipe = subprocess.run(
        ["make", "-n", target, f"CONFIG={config}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = (line for line in recipe.splitlines() if "landslide data prepare" in line)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-eu", "-c", line.removeprefix("source ./activate.sh && ")],
        cwd=tmp_path, env={**os.environ, "PATH": path, "CONFIG": str(config)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode == 0) == fetched_by_pipeline, done.stderr
