"""`landslide train`."""

from pathlib import Path

import click

from landslide.cli.checkout import module_of_checkout
from landslide.cli.key_values import parse_key_values


@click.command("train", epilog="Example: landslide train -c configs/demo.yaml --set training.loss=cross_entropy")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path), required=True, help="The configuration, a file of configs/."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, such as training.epochs=5; may be repeated. The value is read as YAML.",
)
def train_command(config: Path, changes: tuple[str, ...]) -> None:
    """Run the training pipeline, with some settings changed.

    The run is recorded with all its settings, as if they were in a file. `landslide report` shows its scores.
    """
    parsed = parse_key_values(changes, "--set")
    click.echo("Loading the libraries; this takes some seconds.", err=True)
    module_of_checkout("pipelines.training").training_pipeline.run_changed(config, parsed)
