"""A ZenML pipeline with strict configurations and short error messages.

ZenML ignores unknown keys of a run configuration and reports a failed step by a traceback. Here an unknown key is an
error before the run starts, and a failed run ends with the message of the original error.
"""

import inspect
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

import click
import yaml
from pydantic import ValidationError
from zenml.client import Client
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.pipelines.pipeline_definition import Pipeline

from landslide import full_disk, strict_yaml
from landslide.errors import ConfigurationError, LandslideError, LockedError
from landslide.locks import locked
from landslide.paths import home
from landslide.termination import Terminated, exit_on_sigterm
from landslide.tracking import open_runs
from pipelines.console import without_repetitions

_ERROR_IN_TRACEBACK = re.compile(r"^landslide\.[\w.]+Error: ", re.MULTILINE)


class PipelineError(click.ClickException):
    """A pipeline that did not start or did not finish; the message gives the reason and the remedy."""


class BusyError(PipelineError):
    """Another run of the same pipeline is active; exit code 75 (a temporary failure, as in sysexits.h)."""

    exit_code = os.EX_TEMPFAIL


class ConfiguredPipeline(Pipeline):
    """A pipeline whose run configuration is checked key by key."""

    exclusive: bool = False
    _config_path: str | None = None
    _config_name: str | None = None

    def run_changed(self, config: Path, changes: Mapping[str, Any]) -> None:
        """Run the pipeline with a configuration, some of whose parameters are changed.

        Args:
            config: A run configuration (configs/*.yaml), which stays as it is.
            changes: Values by parameter, with dots between the levels, such as `training.epochs`.

        Raises:
            ConfigurationError: If the configuration cannot be read, or a change is below a value that has no settings.
            PipelineError: As a run with a file raises it.
        """
        content = _read(config)
        content["parameters"] = content.get("parameters") or {}
        for key, value in changes.items():
            _change(content["parameters"], key, value, str(config))
        name = " ".join([str(config), *(f"--set {key}={_flow(value)}" for key, value in changes.items())])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, config.name)
            path.write_text(yaml.safe_dump(content, sort_keys=False))
            self.with_options(config_path=str(path), config_name=name)()

    def with_options(  # type: ignore[override]
        self, config_path: str | None = None, config_name: str | None = None, **kwargs: Any
    ) -> "ConfiguredPipeline":
        """Return a copy with other options.

        Args:
            config_path: A run configuration (configs/*.yaml).
            config_name: What messages call it; its path if None.
            **kwargs: Options of ZenML.

        Raises:
            PipelineError: If the file is no YAML mapping or has unknown keys.
        """
        try:
            if config_path is not None:
                _check_values(Path(config_path), config_name or config_path, self.entrypoint)
        except LandslideError as error:
            raise PipelineError(str(error)) from error
        configured = cast(ConfiguredPipeline, super().with_options(config_path=config_path, **kwargs))
        configured._config_path, configured._config_name = config_path, config_name or config_path
        return configured

    def prepare(self, *args: Any, **kwargs: Any) -> None:
        """Build the graph of steps from the configuration.

        Raises:
            PipelineError: If a parameter is unknown or out of range, or settings name an unknown step.
        """
        where = self._config_name or f"the call of {self.name}"
        try:
            super().prepare(*args, **kwargs)
            self._check_step_names(where)
        except LandslideError as error:
            raise PipelineError(f"{where}: {error}") from error
        except ValueError as error:
            if isinstance(error.__cause__, ValidationError):
                raise PipelineError(describe(error.__cause__, where, "parameters", self.entrypoint)) from error
            raise

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the pipeline.

        Raises:
            PipelineError: If a step fails; the message is the step's own.
            BusyError: If the pipeline is exclusive and runs already.
            Terminated: If SIGTERM arrives; the same call resumes.
        """
        try:
            lock = locked(home() / f"{self.name}.lock", wait=False) if self.exclusive else nullcontext()
            with exit_on_sigterm(), lock, open_runs.closing(), without_repetitions():
                return self._call(*args, **kwargs)
        except LockedError as error:
            raise BusyError(f"{self.name} runs already: {error}") from None
        except Terminated:
            click.echo("Stopped by SIGTERM; the same command resumes.", err=True)
            raise
        except KeyboardInterrupt:
            click.echo("Stopped by Ctrl-C; the same command resumes.", err=True)
            raise
        except click.ClickException:
            raise
        except Exception as error:
            if explained := full_disk.explain(error):
                raise PipelineError(str(explained)) from error
            raise

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        before = _last_run_id(self.name)
        try:
            return super().__call__(*args, **kwargs)
        except LandslideError as error:
            raise PipelineError(str(error)) from error
        except RuntimeError as error:
            messages = _failures(self.name, before)
            if not messages:
                raise
            raise PipelineError("\n".join(messages)) from error

    def _check_step_names(self, where: str) -> None:
        named = (_read(Path(self._config_path)).get("steps") if self._config_path else None) or {}
        unknown = sorted(set(named) - set(self.invocations))
        if unknown:
            raise ConfigurationError(
                f"{', '.join(f'steps.{name}' for name in unknown)}: no step of {self.name}.",
                remedy=f"The steps are {', '.join(self.invocations)}.",
            )


def configured_pipeline(*, exclusive: bool = False, **options: Any) -> Callable[..., ConfiguredPipeline]:
    """Make a function a pipeline; decorator. The pipeline has the function's name.

    Args:
        exclusive: Let only one run of it at a time work in one `LANDSLIDE_HOME`.
        **options: Options of ZenML, such as hooks.
    """

    def decorate(entrypoint: Callable[..., Any]) -> ConfiguredPipeline:
        pipeline = ConfiguredPipeline(name=entrypoint.__name__, entrypoint=entrypoint, **options)
        pipeline.exclusive = exclusive
        return pipeline

    return decorate


def _read(path: Path) -> dict[str, Any]:
    if path.exists() and not (path.is_file() or path.is_dir()):  # it would be waited for, and it is read twice
        raise ConfigurationError(
            f"{path} is a pipe, a socket or a device.", remedy="Give the path of a file; configs/ has examples."
        )
    try:
        content = strict_yaml.load(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}.", remedy="Correct the path; configs/ has examples."
        ) from error
    except (UnicodeError, yaml.reader.ReaderError) as error:
        raise ConfigurationError(f"{path} is no text in UTF-8: {error}", remedy="Save the file as UTF-8.") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", remedy="Mend the YAML file.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds no settings.", remedy="See configs/demo.yaml for an example.")
    return content


def _change(parameters: Any, key: str, value: Any, where: str) -> None:
    """Set a value in nested mappings, which are created if they are missing."""
    *groups, last = key.split(".")
    for depth, group in enumerate(groups, 1):
        below = parameters.get(group)
        if not (below is None or isinstance(below, dict)):
            raise ConfigurationError(
                f"{where}: parameters.{'.'.join(groups[:depth])} is {_flow(below)}, so there is no {key}.",
                remedy=f"Set the whole of it, such as --set {'.'.join(groups[:depth])}=VALUE.",
            )
        parameters[group] = parameters = below if below is not None else {}
    parameters[last] = value


def _flow(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10**6)).removesuffix("\n").removesuffix("\n...")


def _check_values(path: Path, name: str, settings: Callable[..., Any]) -> None:
    content = _read(path)
    known = list(PipelineRunConfiguration.model_fields)
    if unknown := [key for key in content if key not in known]:
        suggestions = " ".join(_suggestion(str(key), known) for key in unknown)
        raise ConfigurationError(f"{name}: unknown key {', '.join(map(repr, unknown))}.", remedy=suggestions)
    try:
        refuse_no_numbers(content.get("parameters"), "parameters", settings)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error.what}", remedy=error.remedy) from error


def refuse_no_numbers(values: Any, place: str, settings: Callable[..., Any]) -> None:
    """Refuse what pydantic takes for a number: true and false are 1 and 0 to it, and numbers may be infinite.

    Args:
        values: What a configuration holds there.
        place: Where that is, such as `parameters`.
        settings: What it is for: the function of a pipeline, or a settings class.

    Raises:
        ConfigurationError: With the place of the value.
    """
    for where, value, kinds in _leaves(values, [settings], place):
        number_needed = bool({int, float}.intersection(kinds)) and not {bool, str}.intersection(kinds)
        if isinstance(value, bool) and number_needed:
            raise ConfigurationError(f"{where} is {str(value).lower()}.", remedy="Set it to a number.")
        if isinstance(value, float) or (isinstance(value, str) and number_needed):
            try:
                finite = math.isfinite(float(value))
            except ValueError:  # no number, as pydantic says
                continue
            if not finite:
                raise ConfigurationError(f"{where} is {value}.", remedy="Set it to a finite number.")


def _leaves(value: Any, kinds: Sequence[Any], place: str) -> Iterator[tuple[str, Any, Sequence[Any]]]:
    """Yield the values in nested mappings and lists, with their places and the types that they may have."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, [inside for kind in kinds for inside in _inside(kind, key)], f"{place}.{key}")
    elif isinstance(value, list):
        for number, below in enumerate(value):
            inside = [inside for kind in kinds for inside in _inside(kind, number)]
            yield from _leaves(below, inside, f"{place}[{number}]")
    else:
        yield place, value, kinds


def _inside(kind: Any, part: str | int) -> list[Any]:
    """Return the types that a value at a key or a position of a type may have; none if it has no such part."""
    if named := _named(kind):
        return _alternatives(named.get(str(part)))
    arguments = get_args(kind)
    if get_origin(kind) is Mapping:
        return _alternatives(arguments[1])
    if get_origin(kind) is tuple and Ellipsis not in arguments:
        return [inside for argument in arguments[int(part) : int(part) + 1] for inside in _alternatives(argument)]
    return _alternatives(arguments[0]) if get_origin(kind) in (list, tuple, Sequence) else []


def _alternatives(kind: Any) -> list[Any]:
    """Return the types of which a value of a type may be: more than one for a union."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        return [alternative for argument in get_args(kind) for alternative in _alternatives(argument)]
    return [kind]


def _suggestion(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}."


def describe(error: ValidationError, where: str, root: str, settings: Callable[..., Any]) -> str:
    """Describe which settings are wrong, with the valid names in their place.

    Args:
        error: The error of pydantic.
        where: The file, in front of every line; none if empty.
        root: Name of the validated object, such as `parameters`.
        settings: The validated object: the function of a pipeline, or a settings class.
    """
    lines = []
    where = f"{where}: " if where else ""
    for fault in error.errors():
        below, known = _located(settings, fault["loc"])
        place = root + below
        if fault["type"] == "unexpected_keyword_argument":
            lines.append(f"{where}unknown key {place}.")
            lines.append(f"  -> {_suggestion(str(fault['loc'][-1]), known)}")
        else:
            lines.append(f"{where}{place} is {fault['input']!r}: {fault['msg']}.")
            remedy = "Correct the value; docs/reference/settings.md lists the allowed ones."
            if fault["type"] == "string_type" and isinstance(fault["input"], int | float):
                remedy = f"Put it in quotes: '{fault['input']}'. A shell needs other quotes around: \"KEY='VALUE'\"."
            lines.append(f"  -> {remedy}")
    return "\n".join(lines)


def _located(settings: Any, place: Sequence[str | int]) -> tuple[str, list[str]]:
    """Return a place below a function or a settings class as text, and the valid names at its end."""
    text, known = "", []
    for part in place:
        kinds = {kind.kind: kind for kind in get_args(getattr(settings, "__origin__", None))}  # of an Annotated union
        if part in kinds:  # pydantic puts the kind into the place, a configuration does not
            settings = kinds[str(part)]
            continue
        known = list(_named(settings))
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
        inside = get_args(settings) if isinstance(part, int) else [_named(settings).get(str(part))]
        settings = inside[0] if inside else None
    return text, known


def _named(settings: Any) -> dict[str, Any]:
    """Return the type by name of the parameters of a function, or of the fields of a settings class."""
    if hasattr(settings, "__dataclass_fields__"):
        return {name: field.type for name, field in settings.__dataclass_fields__.items()}
    if not inspect.isfunction(settings):
        return {}
    return {p.name: p.annotation for p in inspect.signature(settings).parameters.values()}


def _last_run_id(pipeline: str) -> Any:
    runs = Client().list_pipeline_runs(pipeline=pipeline, sort_by="desc:created", size=1).items
    return runs[0].id if runs else None


def _failures(pipeline: str, before: Any) -> list[str]:
    """Return the errors of the failed steps of the run that just ended."""
    runs = Client().list_pipeline_runs(pipeline=pipeline, sort_by="desc:created", size=1).items
    if not runs or runs[0].id == before:
        return []
    messages = []
    for name, step in Client().get_pipeline_run(runs[0].id).steps.items():
        if step.exception_info is not None:
            traceback = step.exception_info.traceback.strip()
            *_, text = _ERROR_IN_TRACEBACK.split(traceback)  # the last error, with all its lines
            if text == traceback:
                explained = full_disk.explain_text(traceback)
                text = str(explained) if explained else traceback.splitlines()[-1]
            messages.append(f"step {name}: {text.strip()}")
    return messages
