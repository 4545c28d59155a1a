"""`landslide stack`: register the stacks on which the pipelines run."""

from typing import Any

import click

_EXAMPLE = (
    "Example: landslide stack register kubeflow --bucket s3://BUCKET/FOLDER --registry HOST/PATH --mlflow-url URL"
)


@click.group("stack", context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLE)
def stack_group() -> None:
    """Register the ZenML stacks on which the pipelines run."""


@stack_group.group(epilog=_EXAMPLE)
def register() -> None:
    """Register a stack, or update it; repeating it changes nothing."""


@register.command(epilog=_EXAMPLE)
@click.option("--name", default="landslide-kubeflow", show_default=True, help="Name of the stack.")
@click.option("--kubeflow-url", default="", metavar="URL", help="Kubeflow Pipelines, for example https://HOST/pipeline")
@click.option("--kubernetes-context", default="", metavar="NAME", help="Instead: a context of your kubeconfig.")
@click.option("--namespace", default="kubeflow", show_default=True, help="Namespace of Kubeflow Pipelines.")
@click.option("--bucket", required=True, metavar="s3://BUCKET/FOLDER", help="Where the artifacts go.")
@click.option("--s3-endpoint", default="", metavar="URL", help="Address of S3-compatible storage other than AWS.")
@click.option("--s3-secret", default="", metavar="SECRET", help="ZenML secret with access_key and secret_key.")
@click.option("--registry", required=True, metavar="HOST/PATH", help="Container registry of the image of the steps.")
@click.option("--mlflow-url", required=True, metavar="URL", help="The MLflow server.")
@click.option("--mlflow-secret", default="", metavar="SECRET", help="ZenML secret with username and password.")
@click.option(
    "--secret", "secrets", multiple=True, metavar="SECRET",
    help="ZenML secret whose keys become environment variables of every step; may be repeated.",
)  # fmt: skip
@click.option("--activate", is_flag=True, help="Make it the active stack.")
def kubeflow(activate: bool, **options: Any) -> None:
    """Register a Kubeflow stack at the connected ZenML server.

    Credentials are given as names of ZenML secrets, never as values.
    """
    from stacks.kubeflow import KubeflowStack, register_kubeflow_stack

    stack = KubeflowStack(**options)
    changed = register_kubeflow_stack(stack, activate=activate)
    click.echo(f"stack {stack.name}: {'registered' if changed else 'unchanged'}")
