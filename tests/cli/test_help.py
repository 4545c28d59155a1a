"""The help of every command, and the completion of commands in shells."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from landslide.cli import main
from stacks.commands import stack_group


def commands(command: click.Command, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield names, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*names, name))


COMMANDS = dict(commands(main)) | dict(commands(stack_group, ("stack",)))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_help_has_an_example_that_the_command_accepts(names):
    shown, long = (CliRunner().invoke(main, [*names, option], catch_exceptions=False) for option in ("-h", "--help"))
    assert shown.exit_code == 0
    assert shown.stdout == long.stdout
    _, _, example = shown.stdout.partition("Example:")
    words = shlex.split(example.strip().removeprefix('eval "$(').removesuffix(')"'))
    assert tuple(words[: len(names) + 1]) == ("landslide", *names)
    context = main.make_context("landslide", words[1:])
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, context._protected_args + context.args)
        context = (stack_group if name == "stack" else command).make_context(name, rest, parent=context)


@pytest.mark.parametrize("names", [n for n, c in COMMANDS.items() if isinstance(c, click.Group)], ids=" ".join)
def test_summaries_are_whole_sentences_at_80_columns(names):
    shown = CliRunner().invoke(main, [*names, "--help"], env={"COLUMNS": "80"}).stdout
    lines = shown.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert lines
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "expected"),
    [(["comp"], "completion"), (["models", "roll"], "rollback"), (["data", "check", "--ba"], "--bands")],
)
def test_bash_completes_commands_and_options(typed, expected, tmp_path):
    program = tmp_path / "landslide"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m landslide "$@"\n')
    program.chmod(0o755)
    script = (
        f'PATH={shlex.quote(str(tmp_path))}:$PATH; eval "$(landslide completion bash)"\n'
        f"COMP_WORDS=(landslide {' '.join(typed)}); COMP_CWORD={len(typed)}\n"
        '_landslide_completion landslide; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == [expected], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_of_other_shells_names_the_command(shell):
    shown = CliRunner().invoke(main, ["completion", shell])
    assert shown.exit_code == 0
    assert "_LANDSLIDE_COMPLETE" in shown.stdout
