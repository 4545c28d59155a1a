"""`landslide models list | compare | score | promote | rollback | export | reproduce`.

`download` and `verify` serve `reproduce`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

_as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_DECISION_WIDTH = 30  # that a terminal shows at least, as long as there are columns to leave out


@click.group("models", epilog="Example: landslide models list")
def models_group() -> None:
    """List, compare, roll back and reproduce registered models."""


@models_group.command("list", epilog="Example: landslide models list")
@_as_json
def list_versions(as_json: bool) -> None:
    """List the registered versions, newest first.

    Scores are in percent; those with _in_scene are of ground like that of the training, the others of what the
    column tested_on says (docs/reference/folds.md). The decision says why a version is in service or not. A terminal
    shows what fits into its width; --json gives everything.
    """
    from landslide.paths import default_tracking_uri
    from landslide.tracking import registry, runs

    table = registry.versions(runs.connect(default_tracking_uri()))
    if as_json:
        click.echo(table.to_json(orient="records", date_format="iso", indent=2))
        return
    if table.empty:
        click.echo("No model is registered yet.")
        return
    if not table["tested_on"].any():
        table = table.drop(columns=[*registry.IN_SCENE_SCORES, "tested_on"])
    for name in (name for name in (*registry.SCORES, *registry.IN_SCENE_SCORES) if name in table):
        table[name] = ["-" if value != value else f"{100 * value:.2f}" for value in table[name]]
    for name in ("data_version", "git_commit"):
        table[name] = [value[:8] for value in table[name]]
    table["created"] = [f"{value:%Y-%m-%d %H:%M}" for value in table["created"]]
    # Last, because it may be longer than a terminal is wide.
    rows = zip(table["aliases"], table.pop("decision"), table.pop("rolled_back"), strict=True)
    table["decision"] = [
        f"rolled back on {when[:10]}, before that {decision}" if when else _without_alias(decision, aliases)
        for aliases, decision, when in rows
    ]
    columns = table.drop(columns="run_id")
    click.echo(
        _fit(
            {str(name): columns[name].tolist() for name in columns},
            shutil.get_terminal_size().columns if sys.stdout.isatty() else None,
        )
    )


def _without_alias(decision: str, aliases: str) -> str:
    """Return the reason of a decision, with the alias in front if the version does not have it any more."""
    alias, separator, reason = decision.partition(": ")
    return reason if separator and alias in aliases.split(", ") else decision


def _fit(columns: dict[str, list[Any]], width: int | None) -> str:
    """Return columns as a table of at most `width` characters: if need be fewer columns, the last in three lines."""
    from tabulate import tabulate

    shown = dict(columns)
    text = ""
    for dropped in ("", "git_commit", "created", "selection", "miou_in_scene", "miou", "data_version"):
        shown.pop(dropped, None)
        text = tabulate(shown, list(shown), tablefmt="plain", disable_numparse=True)
        heading = text.split("\n", 1)[0]
        if width is None or heading.index("decision") + _DECISION_WIDTH <= width:
            break
    if width is None or max(map(len, text.split("\n"))) <= width:
        return text
    last = max(width - heading.index("decision"), 8)
    shown["decision"] = ["\n".join(wrap(one, last, max_lines=3, placeholder=" …")) for one in shown["decision"]]
    return str(tabulate(shown, list(shown), tablefmt="plain", disable_numparse=True))


@models_group.command(epilog="Example: landslide models compare champion challenger")
@click.argument("a")
@click.argument("b")
@_as_json
def compare(a: str, b: str, as_json: bool) -> None:
    """Compare scores, data, settings and code of two versions.

    A and B are numbers, aliases or models:/ addresses.
    """
    from landslide.paths import default_tracking_uri
    from landslide.tracking import runs
    from landslide.tracking.version_diff import compare as compare_versions

    comparison = compare_versions(runs.connect(default_tracking_uri()), a, b)
    click.echo(json.dumps(comparison.to_json(), indent=2) if as_json else comparison.render())


@models_group.command(epilog="Example: landslide models score champion DIR --split test")
@click.argument("version")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["validation", "test"]), required=True, help="Which held-out split of DIR.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write it to this file, .json or .csv."
)
@_as_json
def score(version: str, folder: Path, split: Any, output: Path | None, as_json: bool) -> None:
    """Score VERSION on held-out patches in DIR.

    The official validation or test patches score the ensemble and each of its members. DIR must hold their masks, and
    the version must not have been trained on any of the patches. The result is recorded in an MLflow run with the tag
    role=held_out_evaluation.
    """
    from tqdm.auto import tqdm

    from landslide.paths import default_tracking_uri
    from landslide.tracking import held_out, runs

    if output is not None and output.suffix not in (".json", ".csv"):
        raise click.BadParameter(f"{output} ends neither in .json nor in .csv", param_hint="--output")
    with tqdm(desc="patches", unit="patch", disable=None) as bar:
        client = runs.connect(default_tracking_uri())
        found = held_out.score(client, version, folder, split, progress=bar.update)
    text = json.dumps(found.to_json(), indent=2)
    click.echo(text if as_json else found.render())
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(found.table.to_csv(index=False) if output.suffix == ".csv" else f"{text}\n")


@models_group.command(epilog="Example: landslide models promote 3 --reason 'checked in the field'")
@click.argument("version")
@click.option("--reason", required=True, help="Why; it is recorded with the version.")
def promote(version: str, reason: str) -> None:
    """Put VERSION into service without a comparison."""
    reason = " ".join("".join(c if c.isprintable() else " " for c in reason).split())  # it is a cell of a table
    if not reason:
        raise click.BadParameter("it is empty; say why", param_hint="--reason")
    from landslide.paths import default_tracking_uri
    from landslide.tracking import registry, runs

    client = runs.connect(default_tracking_uri())
    number = registry.version(client, version)["version"]
    registry.apply_decision(client, number, registry.Decision(registry.CHAMPION, f"promoted manually: {reason}"))
    click.echo(f"{registry.MODEL_NAME} version {number} is in service (@{registry.CHAMPION}).")


@models_group.command(epilog="Example: landslide models rollback --dry-run")
@click.option("--dry-run", is_flag=True, help="Only print the versions.")
def rollback(dry_run: bool) -> None:
    """Return to the version that the champion replaced.

    Repeat it to go further back.
    """
    from landslide.paths import default_tracking_uri
    from landslide.tracking import registry, runs

    client = runs.connect(default_tracking_uri())
    left, restored = registry.previous_champion(client)
    for text in registry.warnings_of_return(client, left, restored):
        click.echo(f"WARNING: {text}", err=True)
    if not dry_run:
        registry.rollback(client)
    name = f"{registry.MODEL_NAME} {'would return' if dry_run else 'returned'}"
    origin = f"from version {left}" if left else "(no version is in service: the champion was deleted)"
    click.echo(f"{name} {origin} to version {restored} (@{registry.CHAMPION}).")


@models_group.command(epilog="Example: landslide models export champion --format onnx -o model.onnx")
@click.argument("version")
@click.option("--format", "kind", type=click.Choice(["onnx"]), default="onnx", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file.")
def export(version: str, kind: str, output: Path) -> None:
    """Write VERSION as one file for other programs.

    VERSION is a number, an alias, or the folder of a model. An ONNX file takes patches as they are stored and gives the
    landslide probability; the QGIS plugin Deepness reads its metadata. The networks must see stored bands only.
    """
    import tempfile

    import torch

    from landslide.mapping.model import open_model
    from landslide.mapping.onnx_export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        model = open_model(version, Path(folder), torch.device("cpu"))
        export_onnx(model.ensemble, output)
    click.echo(f"wrote {output}: {', '.join(model.settings.stored)} in, landslide probability out")


@models_group.command(epilog="Example: landslide models reproduce champion --run")
@click.argument("version")
@click.option("--run", is_flag=True, help="Execute the commands.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    help="Folder of the git worktree  [default: LANDSLIDE_HOME/reproductions/version-N]",
)
def reproduce(version: str, run: bool, into: Path | None) -> None:
    """Print the commands that rebuild VERSION, or run them.

    They compare the result with the recorded version. The exit code is 1 if the scores or the weights differ.
    """
    from landslide.errors import RegistryError
    from landslide.paths import default_tracking_uri, home
    from landslide.tracking import reproduction, runs

    project = Path.cwd()
    source = reproduction.origin(runs.connect(default_tracking_uri()), version)
    into = (into or home() / "reproductions" / f"version-{source.version}").resolve()
    lines = reproduction.commands(source, project, into)
    obstacles = reproduction.obstacles(source)
    if not run:
        for text in obstacles:
            click.echo(f"# WARNING: {text}; the result may differ")
        click.echo("\n".join(lines))
        return
    if obstacles:
        raise RegistryError(
            f"Version {source.version} cannot be rebuilt exactly: {'; '.join(obstacles)}.",
            remedy="Without --run the commands are printed; follow them as far as they lead.",
        )
    reproduction.check_worktree(source, project, into)
    programs = Path(sys.executable).parent  # holds `landslide` and `zenml`
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", "\n".join(lines)], env=environment)
    raise click.exceptions.Exit(1 if done.returncode else 0)


@models_group.command(epilog="Example: landslide models download champion /tmp/rebuilt")
@click.argument("version")
@click.argument("folder", metavar="HOME", type=click.Path(path_type=Path))
def download(version: str, folder: Path) -> None:
    """Write configuration and folds of VERSION to HOME/recorded.

    A reproduction with that LANDSLIDE_HOME reads them.
    """
    from landslide.paths import default_tracking_uri
    from landslide.tracking import reproduction, runs

    uri = default_tracking_uri()
    source = reproduction.origin(runs.connect(uri), version)
    click.echo(f"wrote {reproduction.download(uri, source, folder.resolve())}")


@models_group.command(epilog="Example: landslide models verify 1 sqlite:////tmp/rebuilt/mlflow.db")
@click.argument("version")
@click.argument("store")
@click.option(
    "--tolerance", default=0.0, help="Accept score differences up to this (scores go from 0 to 1), and other weights."
)
def verify(version: str, store: str, tolerance: float) -> None:
    """Compare VERSION with its reproduction in another STORE.

    That is the last cross-validation in this MLflow store. All scores and all weights are compared. The exit code is 1
    if they differ.
    """
    from landslide.paths import default_tracking_uri
    from landslide.tracking import reproduction, runs

    uri = default_tracking_uri()
    agreement = reproduction.verify(uri, reproduction.origin(runs.connect(uri), version), store)
    click.echo(agreement.render())
    click.echo(f"version {version} {'is reproduced' if agreement.holds(tolerance) else 'is NOT reproduced'}")
    if not agreement.holds(tolerance):
        raise click.exceptions.Exit(1)
