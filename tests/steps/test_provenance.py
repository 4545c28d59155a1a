"""The lineage of a run: the commit, and whether code differs from it; unknown if git does not say."""

import subprocess
from pathlib import Path

import pytest

from steps import provenance

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A git checkout with code, a data pin and a configuration."""
    root = tmp_path / "checkout"
    for name in ("src/landslide/code.py", "steps/step.py", "data.dvc", "configs/demo.yaml", "requirements.lock"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("before\n")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.delenv("LANDSLIDE_GIT_COMMIT", raising=False)
    monkeypatch.setattr(provenance, "ROOT", root)
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "c")
    return root


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def code_state() -> tuple[str, str]:
    tags = provenance.lineage_tags()
    assert tags["mlflow.source.git.commit"] == tags["git_commit"]
    return tags["git_commit"], tags["git_dirty"]


def test_changed_code_is_dirty(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_state() == (commit, "false")
    (checkout / "src" / "landslide" / "code.py").write_text("after\n")
    assert code_state() == (commit, "true")


def test_data_configuration_and_untracked_files_are_no_code(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "data.dvc").write_text("outs: new labels\n")
    (checkout / "configs" / "demo.yaml").write_text("after\n")
    (checkout / ".data.4711.partial").mkdir()
    (checkout / ".data.4711.partial" / "image_1.h5").write_text("x")
    (checkout / "src" / "notes.txt").write_text("x")
    assert code_state() == (commit, "false")


def test_checkout_of_another_owner_is_unknown_with_the_words_of_git(checkout, monkeypatch, caplog):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git then answers as if it belonged to another user
    assert code_state() == ("unknown", "unknown")
    assert "dubious ownership" in caplog.text
    assert f"git config --global --add safe.directory {checkout}" in caplog.text
    monkeypatch.setenv("LANDSLIDE_GIT_COMMIT", "c" * 40)
    assert code_state() == ("c" * 40, "unknown")


def test_machine_without_git_and_repository_without_commits_are_unknown(checkout, monkeypatch, caplog, tmp_path):
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        assert code_state() == ("unknown", "unknown")
    assert "No such file or directory: 'git'" in caplog.text
    git(checkout, "update-ref", "-d", "HEAD")
    assert code_state() == ("unknown", "unknown")
    assert "Needed a single revision" in caplog.text


def test_repository_that_the_environment_names_is_not_asked(checkout, monkeypatch, tmp_path):
    commit = git(checkout, "rev-parse", "HEAD")
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert code_state() == (commit, "false")
