"""`landslide models list | compare | rollback | reproduce ...`."""

import json

import click

_as_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group("models")
def models_group() -> None:
    """List, compare, roll back and reproduce registered models."""


@models_group.command("list")
@_as_json
def list_versions(as_json: bool) -> None:
    """List the registered versions, newest first."""
    from landslide import registry, tracking
    from landslide.home import default_tracking_uri

    table = registry.versions(tracking.connect(default_tracking_uri()))
    if as_json:
        click.echo(table.to_json(orient="records", date_format="iso", indent=2))
        return
    if table.empty:
        click.echo("No model is registered yet.")
        return
    for name in registry.SCORES:
        table[name] = [f"{100 * value:.2f}" for value in table[name]]
    for name, width in (("data_version", 8), ("git_commit", 8), ("run_id", 8), ("decision", 60)):
        table[name] = [value if len(value) <= width else value[:width] for value in table[name]]
    table["created"] = [f"{value:%Y-%m-%d %H:%M}" for value in table["created"]]
    click.echo(table.to_string(index=False))


@models_group.command()
@click.argument("a")
@click.argument("b")
@_as_json
def compare(a: str, b: str, as_json: bool) -> None:
    """Compare versions A and B, given by number or alias: scores, data, settings, code."""
    from landslide import tracking
    from landslide.home import default_tracking_uri
    from landslide.version_comparison import compare as compare_versions

    comparison = compare_versions(tracking.connect(default_tracking_uri()), a, b)
    click.echo(json.dumps(comparison.to_json(), indent=2) if as_json else comparison.render())


@models_group.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def rollback(dry_run: bool) -> None:
    """Return to the version that the champion replaced; repeated, one further back."""
    from landslide import registry, tracking
    from landslide.home import default_tracking_uri

    client = tracking.connect(default_tracking_uri())
    left, restored = registry.before_champion(client) if dry_run else registry.rollback(client)
    name = f"{registry.MODEL_NAME} {'would return' if dry_run else 'returned'}"
    click.echo(f"{name} from version {left} to version {restored} (@{registry.CHAMPION}).")
