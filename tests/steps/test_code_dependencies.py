"""The step cache covers exactly the source files that a step uses."""

import ast

import pytest

from steps.code_dependencies import ROOT, code_digest, source_files

pytestmark = pytest.mark.slow


def test_evaluation_depends_on_figures_and_training_does_not():
    assert "src/landslide/evaluation/figures.py" not in source_files("steps.train_fold")
    assert "src/landslide/evaluation/figures.py" in source_files("steps.evaluate")


def test_training_depends_on_losses_and_the_band_cache_does_not():
    assert "src/landslide/training/losses.py" not in source_files("steps.build_bands")
    assert "src/landslide/training/losses.py" in source_files("steps.train_fold")
    assert "src/landslide/bands/formulas.py" in source_files("steps.build_bands")


def test_imports_are_followed_through_packages_and_other_modules():
    files = source_files("steps.train_fold")
    # training -> models -> rau_net -> blocks, and cache -> bands
    for name in (
        "models/__init__.py", "models/rau_net.py", "models/blocks.py", "bands/formulas.py",
        "training/augmentation.py", "training/__init__.py", "__init__.py",
    ):  # fmt: skip
        assert f"src/landslide/{name}" in files
    assert "steps/train_fold.py" in files
    assert "steps/settings.py" in files


def test_every_dependency_is_a_file_of_the_project():
    for step in ("ingest", "build_bands", "split", "open_run", "train_fold", "evaluate", "register"):
        for file in source_files(f"steps.{step}"):
            assert (ROOT / file).is_file()


def test_split_depends_on_few_modules():
    files = set(source_files("steps.split"))
    assert "src/landslide/folds/schemes.py" in files
    unused = tuple(f"src/landslide/{package}/" for package in ("bands", "training", "tracking"))
    assert not [file for file in files if file.startswith(unused)]


def test_digests_differ_if_the_sources_differ():
    assert code_digest("steps.train_fold") == code_digest("steps.train_fold")
    assert code_digest("steps.train_fold") != code_digest("steps.split")


def test_only_tracking_and_retraining_use_mlflow_and_no_module_uses_zenml_or_dvc():
    importing = {"mlflow": set(), "zenml": set(), "dvc": set()}
    for path in (ROOT / "src" / "landslide").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names} & importing.keys():
                importing[name].add(path.relative_to(ROOT / "src" / "landslide").parts[0])
    assert importing == {"mlflow": {"tracking"}, "zenml": set(), "dvc": set()}
