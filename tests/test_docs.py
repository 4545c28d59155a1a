"""The documentation is correct: its links, commands, settings and names exist."""

import dataclasses
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

from landslide.bands.formulas import BandSettings
from landslide.cli import main
from landslide.retraining.promotion import PromotionSettings
from landslide.schema import STORED_DIVISORS
from landslide.training.settings import TrainingSettings
from stacks.commands import stack_group
from steps.settings import DataSettings, EvaluationSettings, FoldSettings, RegistrationSettings, RetrainingSettings

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "mlflow" / "README.md", *DOCS]
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which also names removed things
CODE = ("src", "steps", "pipelines", "stacks", "configs", "deploy", "mlflow", "benchmarks", "experiments", ".github")
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SETTINGS = {
    "data": DataSettings,
    "bands": BandSettings,
    "folds": FoldSettings,
    "training": TrainingSettings,
    "evaluation": EvaluationSettings,
    "registration": RegistrationSettings,
    "retraining": RetrainingSettings,
    "promotion": PromotionSettings,
}
_BLOCK = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return _BLOCK.sub("", text)


def links(page: Path) -> list[str]:
    """Return the targets of the links and pictures of a page."""
    return _LINK.findall(_SPAN.sub("code", prose(page.read_text())))


def target(page: Path, link: str) -> tuple[Path, str]:
    path, _, anchor = link.partition("#")
    return (page.parent / path).resolve() if path else page, anchor


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    found: Counter[str] = Counter()
    names = []
    for heading in _HEADING.findall(prose(page.read_text())):
        text = _LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.append(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return frozenset(names)


def code_lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page: lines of its blocks, continued ones joined, and its spans of code."""
    text = page.read_text()
    for language, block in _BLOCK.findall(text):
        if language in ("", "bash"):
            yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    for span in _SPAN.findall(prose(text)):
        yield " ".join(span.split())


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the arguments of every call of a program in the code of a page."""
    for line in code_lines(page):
        line = re.sub(r"(^|\s)#.*", "", line).replace('"', " ").replace("'", " ")
        for part in re.split(r"&&|\|\||[;|()]", line):
            words = part.split()
            words = words[words.index("landslide") :] if "docker" in words and "landslide" in words else words
            while words and (re.fullmatch(r"[A-Z_]+=\S*", words[0]) or words[:2] == ["landslide", "landslide"]):
                words = words[1:]
            if words[:2] == ["sudo", "-u"]:
                words = [word for word in words[3:] if "=" not in word]
            if len(words) > 1 and words[0] == program:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings_that_exist(page):
    broken = []
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, anchor = target(page, link)
        if not path.is_relative_to(ROOT) or not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_index():
    reached, waiting = set(), [ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += {target(page, link)[0] for link in links(page)} & set(DOCS)
    assert [page_id(page) for page in DOCS if page not in reached] == []


def test_every_configuration_is_described():
    text = "\n".join(page.read_text() for page in DOCS)
    configurations = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
    assert configurations
    assert [name for name in configurations if not re.search(rf"\b{name}\b", text)] == []


def test_configurations_in_the_pages_exist():
    named = {name for page in CURRENT for name in re.findall(r"configs/([a-z][\w]*\.yaml)", page.read_text())}
    examples = {"mine.yaml"}
    assert sorted(name for name in named - examples if not (ROOT / "configs" / name).exists()) == []


@pytest.mark.parametrize("page", CURRENT, ids=page_id)
def test_commands_of_landslide_exist_with_their_options(page):
    unknown = []
    for words in commands(page, "landslide"):
        command: click.Command = main
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = stack_group if command is main and rest[0] == "stack" else command.commands.get(rest[0])
            if found is None:
                unknown.append(" ".join(words))
                break
            command, rest = found, rest[1:]
        options = {"--help", *(name for parameter in command.params for name in parameter.opts)}
        unknown += [f"{' '.join(words)}: {word}" for word in rest if word.startswith("--") and word not in options]
    assert unknown == []


@pytest.mark.parametrize("page", CURRENT, ids=page_id)
def test_targets_of_make_exist(page):
    named = {words[0] for words in commands(page, "make") if re.fullmatch(r"[a-z][a-z-]*", words[0])}
    assert named <= MAKE_TARGETS


def test_commands_are_found_in_the_pages():
    assert sum(1 for page in CURRENT for _ in commands(page, "landslide")) > 50
    assert sum(1 for page in CURRENT for _ in commands(page, "make")) > 15
    runner = ROOT / "docs" / "how-to" / "retrain-on-a-schedule.md"
    assert ["health", "--gpu"] in list(commands(runner, "landslide"))
    assert ["setup"] in list(commands(runner, "make"))
    image = ROOT / "docs" / "how-to" / "build-the-image.md"
    assert ["health", "--gpu"] in list(commands(image, "landslide"))


@pytest.mark.parametrize("page", CURRENT, ids=page_id)
def test_settings_exist(page):
    text = page.read_text()
    named = re.findall(rf"`({'|'.join(SETTINGS)})\.(?!dvc|yaml)(\w+)", prose(text))  # except files
    for language, block in _BLOCK.findall(text):
        parameters = (yaml.safe_load(block) or {}).get("parameters", {}) if language == "yaml" else {}
        named += [(group, key) for group in SETTINGS.keys() & parameters.keys() for key in parameters[group]]
    fields = {group: {field.name for field in dataclasses.fields(kind)} for group, kind in SETTINGS.items()}
    unknown = [f"{group}.{name}" for group, name in named if name not in fields[group]]
    assert unknown == []


@pytest.mark.parametrize("page", CURRENT, ids=page_id)
def test_names_of_the_library_exist(page):
    unknown = []
    for name in re.findall(r"\b(landslide(?:\.\w+)+)", "\n".join(_SPAN.findall(prose(page.read_text())))):
        found: object = importlib.import_module("landslide")
        for part in name.split(".")[1:]:
            if not hasattr(found, part) and isinstance(found, ModuleType):
                try:
                    importlib.import_module(f"{found.__name__}.{part}")
                except ImportError:
                    unknown.append(name)
                    break
            found = getattr(found, part)
    assert unknown == []


def test_pages_named_in_code_and_messages_exist():
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*") if path.suffix != ".pyc" and path.is_file()]
    files += [ROOT / "Dockerfile", *CURRENT]
    named = {name for file in files for name in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(errors="ignore"))}
    assert len(named) > 5
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_page_of_the_bands_has_the_numbers_they_are_divided_by():
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \|$", (ROOT / "docs/reference/bands.md").read_text(), re.MULTILINE)
    assert {name: float(value) for name, value in rows} == STORED_DIVISORS
