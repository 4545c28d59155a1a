"""Runs the commands that read the records, which must work, or explain themselves, after every pipeline."""

from pathlib import Path

from click.testing import CliRunner

from landslide.cli import main


def check(folder: Path, version: str | None, **environment: str) -> None:
    """Run every command that changes no decision.

    Args:
        folder: An empty folder for their files.
        version: A registered version; None if none is registered, which the commands about one must say.
        **environment: Variables of the store.
    """
    name = version or "999"
    everywhere = [
        ["report", "--out", str(folder / "reports")],
        ["models", "list"],
        ["models", "list", "--json"],
        ["health"],
        ["home", "relocate"],
    ]
    of_a_version = [
        ["models", "compare", name, name],
        ["models", "reproduce", name],
        ["models", "download", name, str(folder / "rebuilt")],
    ]
    for command in everywhere + of_a_version:
        done = CliRunner().invoke(main, command, env=environment, catch_exceptions=False)
        assert "Traceback" not in done.output
        if command in everywhere or version is not None:
            assert done.exit_code == 0, (command, done.output)
        else:
            assert done.exit_code == 1, (command, done.output)
            assert done.output.count("Error: ") == 1
            assert "\n  -> " in done.output
