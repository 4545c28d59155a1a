"""The step cache covers exactly the source that a step uses."""

import ast

from steps.code import ROOT, code_digest, source_files


def test_training_does_not_depend_on_figures_and_evaluation_does():
    assert "src/landslide/figures.py" not in source_files("steps.train_fold")
    assert "src/landslide/figures.py" in source_files("steps.evaluate")


def test_the_band_cache_does_not_depend_on_losses_and_training_does():
    assert "src/landslide/losses.py" not in source_files("steps.build_bands")
    assert "src/landslide/losses.py" in source_files("steps.train_fold")
    assert "src/landslide/bands.py" in source_files("steps.build_bands")


def test_imports_are_followed_through_packages_and_other_modules():
    files = source_files("steps.train_fold")
    # training -> models -> rau_net -> blocks, and cache -> bands
    for name in ("models/__init__.py", "models/rau_net.py", "models/blocks.py", "bands.py", "augment.py"):
        assert f"src/landslide/{name}" in files
    assert "steps/train_fold.py" in files
    assert "steps/settings.py" in files


def test_every_dependency_is_a_file_of_the_project():
    for step in ("ingest", "build_bands", "split", "open_run", "train_fold", "evaluate", "register"):
        for file in source_files(f"steps.{step}"):
            assert (ROOT / file).is_file()


def test_the_split_depends_on_little():
    files = set(source_files("steps.split"))
    assert "src/landslide/folds.py" in files
    assert not files & {f"src/landslide/{name}.py" for name in ("bands", "training", "losses", "cache", "tracking")}


def test_digests_differ_where_the_sources_differ():
    assert code_digest("steps.train_fold") == code_digest("steps.train_fold")
    assert code_digest("steps.train_fold") != code_digest("steps.split")


def test_the_library_imports_mlflow_in_two_modules_and_zenml_and_dvc_nowhere():
    importing = {"mlflow": set(), "zenml": set(), "dvc": set()}
    for path in (ROOT / "src" / "landslide").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.split(".")[0] for name in names} & importing.keys():
                importing[name].add(path.name)
    assert importing == {"mlflow": {"tracking.py", "serving.py"}, "zenml": set(), "dvc": set()}
