"""Write the pages of docs/reference from the code: `make docs`.

Settings come from the signatures of the pipelines, and from the settings classes with the docstrings of their fields;
commands from their help; metrics from the descriptions beside the code that records them.
"""

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import click
import yaml

from landslide.cli import main as landslide_command
from landslide.evaluation.scores import SCORES, SUFFIXES
from landslide.tracking.metric_keys import key
from landslide.training.epochs import EPOCH_METRICS
from pipelines.ablation import ablation_pipeline
from pipelines.mapping import mapping_pipeline
from pipelines.retraining import retraining_pipeline
from pipelines.training import training_pipeline

FOLDER = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by `make docs`. Edit the docstrings in the code instead. -->"
_PIPELINES = (training_pipeline, ablation_pipeline, retraining_pipeline, mapping_pipeline)


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    found = {"settings.md": _settings(), "commands.md": _commands(), "metrics.md": _metrics()}
    return {name: "\n\n".join([_NOTE, *parts]) + "\n" for name, parts in found.items()}


def _settings() -> Iterator[str]:
    yield (
        "# Settings\n\nA run configuration (`configs/*.yaml`) holds the parameters of a pipeline under `parameters`. "
        "Unknown names are refused, and so are values that have no effect."
    )
    groups: dict[str, type] = {}
    for function in (pipeline.entrypoint for pipeline in _PIPELINES):
        docstring, parameters = inspect.getdoc(function), inspect.signature(function).parameters.values()
        yield f"## {function.__name__}\n\n{docstring.partition('Args:')[0].strip()}"
        described = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", docstring, re.MULTILINE))
        yield _table("parameter", [(p.name, p.annotation, p.default, described[p.name]) for p in parameters])
        groups |= {p.name: group for p in parameters for group in _groups(p.annotation)}
    for name, group in groups.items():
        yield from _group(name, group, "##")


def _group(name: str, settings: type, level: str) -> Iterator[str]:
    """Describe the fields of a settings class, then those of the classes among them."""
    yield f"{level} {name}\n\n{inspect.getdoc(settings)}"
    described, fields = field_docstrings(settings), dataclasses.fields(settings)
    yield _table("setting", [(f.name, f.type, _default(f), described[f.name]) for f in fields])
    for field in fields:
        for group in (groups := _groups(field.type)):
            kind = f", kind: {group.kind}" if len(groups) > 1 else ""
            yield from _group(f"{name}.{field.name}{kind}", group, "###")


def field_docstrings(settings: type) -> dict[str, str]:
    """Return the docstring below each field of a settings class."""
    pairs = pairwise(ast.parse(inspect.getsource(settings)).body[0].body)
    return {a.target.id: b.value.value for a, b in pairs if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)}


def _groups(kind: Any) -> list[type]:
    """Return the settings classes in a type."""
    return [kind] if dataclasses.is_dataclass(kind) else [group for part in get_args(kind) for group in _groups(part)]


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _table(heading: str, rows: list[tuple[str, Any, Any, str]]) -> str:
    lines = [f"| {heading} | type | default | |", "|---|---|---|---|"]
    for name, kind, default, text in rows:
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        short = re.sub(r"(\w+\.)+(?=\w)", "", inspect.formatannotation(kind))
        short = re.sub(r"Literal\[(.*?)\]", lambda values: values[1].replace(", ", " | "), short).replace("|", r"\|")
        lines.append(f"| `{name}` | `{short}` | {_value(default)} | {' '.join(text.split())} |")
    return "\n".join(lines)


def _value(default: Any) -> str:
    """Return a default as YAML; of a settings class only what differs from its own defaults."""
    if default in (inspect.Parameter.empty, dataclasses.MISSING):
        return "required"
    if dataclasses.is_dataclass(default):
        fields = [field for field in dataclasses.fields(default) if getattr(default, field.name) != _default(field)]
        return _value({field.name: getattr(default, field.name) for field in fields}) if fields else "below"
    text = yaml.safe_dump(json.loads(json.dumps(default)), default_flow_style=True, width=10**6)
    return f"`{text.strip().removesuffix('...').strip()}`"


def _commands(
    command: click.Command = landslide_command, name: str = "landslide", parent: click.Context | None = None
) -> Iterator[str]:
    settings = {"info_name": name.split()[-1], "parent": parent, "terminal_width": 100, **command.context_settings}
    context = click.Context(command, **settings)
    yield from ["# Commands"] if parent is None else []
    yield f"## {name}\n\n```\n{command.get_help(context)}\n```"
    for child, below in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(below, f"{name} {child}", context)


def _metrics() -> Iterator[str]:
    yield (
        "# Metrics\n\nThe scores that MLflow records; [Evaluation](../explanation/evaluation.md) defines them. "
        "Without an ending, a score is at threshold 0.5, predicted in the network's own way. The run of a "
        "cross-validation has the mean over the folds.\n\nReports and code use these names. MLflow groups its charts "
        "by what is in front of a slash: all but the seven scores at threshold 0.5 and their `_std` are in groups; F1, "
        "mIoU and landslide F1 are also in the first one, `at 0.5/`."
    )
    of_endings = {ending: f"f1_macro{ending}" for ending in SUFFIXES}
    for heading, described, names in (
        ("score", SCORES, {}),
        ("ending", SUFFIXES, of_endings),
        ("of every epoch", EPOCH_METRICS, {}),
    ):
        lines = [f"| {heading} | in MLflow | |", "|---|---|---|"]
        lines += [f"| `{name}` | `{key(names.get(name, name))}` | {described[name]} |" for name in described]
        yield "\n".join(lines)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in pages().items():
        (FOLDER / file).write_text(text)
