"""`landslide data audit`."""

from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(path_type=Path)


@click.command("audit", epilog="Example: landslide data audit data -o audit")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("-o", "--output", type=_FOLDER, default="audit", show_default=True, help="Folder of the result.")
@click.option("-n", "--number", type=click.IntRange(1), default=200, show_default=True, help="Labels that are listed.")
@click.option("--model", default="champion", show_default=True, help="Version, alias or models:/ address.")
@click.option(
    "--augmentation",
    type=click.Choice(["none", "rotations", "flips_and_rotations"]),
    default="flips_and_rotations",
    show_default=True,
    help="How often each patch is predicted, turned and mirrored: 1, 4 or 8 times.",
)
@click.option(
    "--positions",
    type=click.Choice(["auto", "landslide4sense", "none"]),
    default="auto",
    show_default=True,
    help="Where positions come from, as data.positions in a configuration.",
)
def audit_command(folder: Path, output: Path, number: int, model: str, augmentation: Any, positions: Any) -> None:
    """Find labels of DIR that are probably wrong.

    The members of a registered model predict the patches that they were not trained on. Landslides that are labelled
    and probably none, missing ones, and outlines that are off are ranked. The output has a page with pictures for a
    browser (audit.html), the polygons for QGIS (candidates.gpkg) and a table (candidates.csv). Nothing in DIR changes:
    `landslide data apply` reads the verdicts.
    """
    from tqdm.auto import tqdm

    from landslide.data.digests import directory_digest
    from landslide.labels.audit_report import describe_audit, refuse_folder, write_audit
    from landslide.labels.registered import predict_registered
    from landslide.paths import default_tracking_uri
    from landslide.tracking import runs

    if output.resolve().is_relative_to(folder.resolve()):
        raise click.BadParameter(f"{output} lies in the data set {folder}", param_hint="--output")
    refuse_folder(output)

    def say(text: str) -> None:
        click.echo(f"note: {text}", err=True)

    with tqdm(desc="patches", unit="patch", disable=None) as bar:

        def start(total: int) -> Any:
            bar.reset(total)
            return bar.update

        predictions, version = predict_registered(
            runs.connect(default_tracking_uri()),
            model,
            folder,
            positions=positions,
            augmentation=augmentation,
            say=say,
            start=start,
        )
    about = {"data": str(folder.resolve()), "data_version": directory_digest(folder)[0], "model_version": version}
    about |= {"augmentation": augmentation, "positions": positions}
    click.echo(describe_audit(write_audit(predictions, output, most=number, about=about, say=say)))
