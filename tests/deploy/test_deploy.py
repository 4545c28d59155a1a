"""Unattended operation: workflows, timer, crontab, images and the compose file match the documentation."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from docker.utils import exclude_paths

from tests.support import pipeline_runs

ROOT = pipeline_runs.ROOT
COMMAND = "zenml pipeline run pipelines.retraining.retraining_pipeline -c configs/retrain.yaml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SERVICE, TIMER = (ROOT / "deploy" / f"landslide-retraining.{kind}" for kind in ("service", "timer"))
CRONTAB = ROOT / "deploy" / "crontab"
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "mlflow" / "Dockerfile"]
COMPOSE = ROOT / "mlflow" / "compose.yaml"
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN|WEBHOOK")


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _check(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile in order, with continued lines joined: [("FROM", "python:..."), ...]."""
    lines = [line for line in dockerfile.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines()]


# ---- public schemas and linters


def test_workflows_follow_the_github_schema():
    _check(_tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_workflows_pass_actionlint():
    _check(_tool("actionlint"), *WORKFLOWS)


def test_compose_file_follows_its_schema():
    _check(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=["landslide", "mlflow"])
def test_dockerfiles_pass_hadolint(dockerfile):
    _check(_tool("hadolint"), "--no-color", dockerfile)


def test_systemd_accepts_the_units():
    _check(_tool("systemd-analyze"), "verify", "--man=no", SERVICE, TIMER)


# ---- one command, four variants


@pytest.mark.parametrize("file", [WORKFLOWS[-1], SERVICE, CRONTAB], ids=lambda path: path.name)
def test_runner_runs_only_the_retraining_pipeline(file):
    text = "\n".join(line for line in file.read_text().splitlines() if not line.lstrip().startswith("#"))
    assert re.findall(r"\bzenml [^'\n]*", text) == [COMMAND]
    assert not re.search(r"\b(dvc|mlflow|python3?|landslide (data|models|stack|report)) ", text)


def test_image_runs_the_same_command():
    assert shlex.join(json.loads(dict(_instructions(DOCKERFILES[0]))["CMD"])) == COMMAND


# ---- the workflow


@pytest.fixture(scope="module")
def retrain() -> dict:
    return yaml.safe_load((ROOT / ".github" / "workflows" / "retrain.yml").read_text())


def test_workflow_runs_nightly_without_overlap_and_with_minimal_permissions(retrain):
    triggers = retrain[True]  # YAML 1.1 reads `on` as a truth value
    assert set(triggers) == {"schedule", "workflow_dispatch"}
    assert triggers["workflow_dispatch"]["inputs"]["force"]["default"] is False
    assert retrain["permissions"] == {"contents": "read"}
    assert retrain["concurrency"]["cancel-in-progress"] is False
    job = retrain["jobs"]["retrain"]
    assert job["runs-on"] == ["self-hosted", "gpu"]
    assert 60 <= job["timeout-minutes"] <= 720
    checkout = job["steps"][0]["with"]
    assert checkout == {"ref": "main", "clean": False, "persist-credentials": False}
    assert "/work" not in job["env"]["LANDSLIDE_HOME"]
    assert job["env"]["LANDSLIDE_HOME"].endswith("'/var/lib/landslide' }}")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_read_secrets_from_the_environment_and_pin_actions(workflow):
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        for name, value in job.get("env", {}).items():
            if SECRET.search(name):
                assert value == f"${{{{ secrets.{name} }}}}"
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[a-z-]+@(v\d+|[0-9a-f]{40})", step.get("uses", "actions/none@v1"))
            assert "${{" not in step.get("run", "")  # expressions in scripts are an injection


@pytest.mark.parametrize("report", ["# Retraining: promoted\n", None])
def test_summary_is_the_report_or_a_note_that_it_is_missing(report, retrain, tmp_path):
    if report is not None:
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / "retraining.md").write_text(report)
    (step,) = [step for step in retrain["jobs"]["retrain"]["steps"] if step["name"] == "Summary"]
    assert step["if"] == "always()"
    summary = tmp_path / "summary.md"
    environment = {**os.environ, "LANDSLIDE_HOME": str(tmp_path), "GITHUB_STEP_SUMMARY": str(summary)}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", step["run"]], env=environment, check=True)
    assert summary.read_text() == (report or summary.read_text())
    assert report is not None or "before it wrote a report" in summary.read_text()


def test_workflow_puts_only_the_report_of_a_retraining_away(retrain, tmp_path):
    for name in ("retraining.md", "retraining.json", "ablation/table3/table.md"):
        (tmp_path / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports" / name).write_text("x")
    (step,) = [step for step in retrain["jobs"]["retrain"]["steps"] if "report away" in step["name"]]
    subprocess.run(["bash", "-ec", step["run"]], env={**os.environ, "LANDSLIDE_HOME": str(tmp_path)}, check=True)
    left = [path.relative_to(tmp_path / "reports").as_posix() for path in (tmp_path / "reports").rglob("*.*")]
    assert left == ["ablation/table3/table.md"]


def test_ci_runs_the_project_script_on_both_python_versions():
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


# ---- timer and crontab


def test_service_has_a_time_limit_and_accepts_the_exit_code_of_a_second_retraining():
    settings = re.findall(r"^(\w+)=(.*)$", SERVICE.read_text(), re.MULTILINE)
    single = dict(settings)
    assert single["Type"] == "oneshot"
    assert single["SuccessExitStatus"] == "75"
    assert single["TimeoutStartSec"] == "10h"
    assert [value for name, value in settings if name == "ExecStartPre"] == [
        "/usr/bin/git pull --ff-only",
        "/usr/bin/make setup",
        "/bin/bash -c 'source ./activate.sh && exec landslide health --gpu'",
    ]
    assert single["MemoryMax"] == "90%"
    assert "Persistent=true" in TIMER.read_text()


@pytest.fixture
def night(tmp_path) -> tuple[list[str], dict[str, str], Path]:
    """The crontab line as cron runs it, but in a small checkout that records the commands that run in it."""
    upstream, checkout, home = (tmp_path / name for name in ("upstream", "checkout", "home"))
    home.mkdir()
    upstream.mkdir()
    (upstream / "Makefile").write_text("setup:\n\techo setup >> happened\n")
    (upstream / "activate.sh").write_text(
        'zenml() { echo "zenml $*" "$SECRET" >> happened; }; exec() { "$@"; }\n'
        'landslide() { echo "landslide $*" >> happened; [[ ! -e no_gpu ]]; }\n'
    )
    (tmp_path / "environment").write_text("SECRET=from-the-file\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in ([*git, "init", "-q"], [*git, "add", "."], [*git, "commit", "-q", "-m", "c"]):
        subprocess.run(command, cwd=upstream, check=True)
    subprocess.run(["git", "clone", "-q", str(upstream), str(checkout)], check=True)
    line = CRONTAB.read_text().splitlines()[-1]
    assert line.startswith("0 1 * * * cd /srv/landslide && ")
    assert "%" not in line  # cron reads it as a new line
    line = line.removeprefix("0 1 * * * ")
    line = line.replace("/srv/landslide", str(checkout)).replace("/etc/landslide", str(tmp_path))
    return ["bash", "-c", line], {**os.environ, "LANDSLIDE_HOME": str(home)}, checkout


def test_cron_pulls_sets_up_and_runs_with_secrets_from_the_file(night):
    command, environment, checkout = night
    assert subprocess.run(command, env=environment).returncode == 0
    assert (checkout / "happened").read_text() == f"setup\nlandslide health --gpu\n{COMMAND} from-the-file\n"


def test_cron_does_not_retrain_without_a_gpu(night):
    command, environment, checkout = night
    (checkout / "no_gpu").touch()
    assert subprocess.run(command, env=environment).returncode not in (0, 75)
    assert COMMAND not in (checkout / "happened").read_text()


def test_cron_runs_nothing_if_the_pull_fails(night):
    command, environment, checkout = night
    shutil.rmtree(checkout.parent / "upstream")
    assert subprocess.run(command, env=environment).returncode not in (0, 75)
    assert not (checkout / "happened").exists()


def test_cron_exits_if_another_retraining_is_running(night):
    command, environment, checkout = night
    lock = Path(environment["LANDSLIDE_HOME"]) / "retraining.cron.lock"
    assert subprocess.run(["flock", lock, *command], env=environment).returncode == 75
    assert not (checkout / "happened").exists()


def test_logrotate_rotates_the_log_of_the_crontab():
    log = re.search(r">> \"\$LANDSLIDE_HOME/(\S+)\"", CRONTAB.read_text())[1]
    assert f"/var/lib/landslide/{log} {{" in (ROOT / "deploy" / "logrotate").read_text()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_no_page_puts_a_password_on_a_command_line(page):
    assert not re.search(r"(?i)--\w*(password|secret_?key)\S*=|--env \S*(PASSWORD|KEY)=", page.read_text())


# ---- images


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=["landslide", "mlflow"])
def test_images_pin_base_and_package_hashes_and_have_no_secrets_or_root_user(dockerfile):
    instructions = _instructions(dockerfile)
    (base,) = [value for name, value in instructions if name == "FROM"]
    assert re.fullmatch(r"python:3\.12\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base)
    assert re.search(r"--require-hashes -r requirements\.lock", " ".join(value for _, value in instructions))
    assert [value for name, value in instructions if name == "USER"][-1] == "10001"
    set_here = " ".join(value for name, value in instructions if name in ("ARG", "ENV"))
    assert not SECRET.search(set_here)
    assert "HEALTHCHECK" in dict(instructions)


def test_image_has_the_environment_of_activate_sh():
    command = ["bash", "-c", f"source {ROOT}/activate.sh && env -0"]
    environment = {"PATH": os.environ["PATH"], "LANDSLIDE_HOME": "/var/lib/landslide"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    activated = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
    # Derived from LANDSLIDE_TRACKING_URI, which the code reads itself; or only for the shell.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PATH", "PWD", "SHLVL", "_"):
        activated.pop(name, None)
    set_here = " ".join(value for name, value in _instructions(DOCKERFILES[0]) if name == "ENV")
    image = dict(part.split("=", 1) for part in shlex.split(set_here))
    assert {name: value.replace(str(ROOT), "/app") for name, value in activated.items()}.items() <= image.items()


def test_image_contains_code_but_no_data_state_or_secrets(tmp_path):
    wanted = {
        "activate.sh", "configs/retrain.yaml", "data.dvc", ".dvc/config", "pipelines/retraining.py", "pyproject.toml",
        "requirements.lock", "src/landslide/bands/formulas.py", "stacks/kubeflow.py", "steps/ingest.py", "LICENSE",
        "NOTICE",
    }  # fmt: skip
    kept_out = {
        "data/TrainData/img/image_1.h5", ".git/config", ".dvc/config.local", ".dvc/cache/files/md5/ab/cd", ".env",
        "mlflow/.env", ".landslide/mlflow.db", ".venv/pyvenv.cfg", "reports/metrics.json", "tests/conftest.py",
        "src/landslide/__pycache__/bands.pyc", "src/.env", "notes.txt",
    }  # fmt: skip
    for name in wanted | kept_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sent = {name for name in exclude_paths(str(tmp_path), patterns) if (tmp_path / name).is_file()}
    assert sent == wanted


def test_mlflow_folder_is_not_a_package():
    assert not (ROOT / "mlflow" / "__init__.py").exists()


# ---- the tracking server


def test_no_password_of_the_tracking_server_has_a_default():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    secrets = {
        name: value
        for service in services.values()
        for name, value in service["environment"].items()
        if SECRET.search(name)
    }
    assert secrets
    for name, value in secrets.items():
        assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
    example = (ROOT / "mlflow" / "environment.example").read_text()
    assigned = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert set(assigned) == {value[2 : value.index(":")] for value in secrets.values()}
    assert not any(assigned.values())


def test_services_are_pinned_checked_restarted_and_only_reachable_locally():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), name
        assert service["restart"] == "unless-stopped"
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
        assert "mem_limit" in service
        assert "healthcheck" in service or "build" in service  # the image that is built here has its own health check
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["${MLFLOW_BIND:-127.0.0.1:5000}:5000"]


def test_server_has_the_locked_client_versions():
    pins = r"^([a-z0-9-]+)==([^ ;\\]+)"
    text = (ROOT / "mlflow" / "requirements.lock").read_text()
    server = dict(re.findall(pins, text, re.MULTILINE))
    clients = re.findall(pins, (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {"mlflow", "psycopg2-binary", "boto3", "flask-wtf"} <= set(server)
    assert set(server.items()) <= set(clients)
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")
    assert yaml.safe_load(COMPOSE.read_text())["services"]["mlflow"]["image"].endswith(f":{server['mlflow']}")
