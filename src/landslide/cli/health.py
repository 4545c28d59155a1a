"""`landslide health`."""

import os

import click

# A check has to end soon; training waits longer for a server that comes back.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@click.command("health", epilog="Example: landslide health --gpu")
@click.option("--gpu", is_flag=True, help="A machine without a GPU is a failure.")
def health_command(gpu: bool) -> None:
    """Check that libraries, state and stores work.

    The libraries load, LANDSLIDE_HOME can be written, and the stores of MLflow and ZenML answer. The exit code is 1
    when one of these fails.
    """
    from landslide.operations.health import findings

    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    failed = 0
    for finding in findings(need_gpu=gpu):
        click.echo(f"{'ok    ' if finding.ok else 'FAILED'}  {finding.name}: {finding.text}")
        failed += not finding.ok
    if failed:
        raise click.exceptions.Exit(1)
