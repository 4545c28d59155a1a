"""`landslide data import`."""

import shlex
from pathlib import Path
from typing import Any

import click

from landslide.cli.band_option import bands_option

_PATH = click.Path(path_type=Path)


@click.command(
    "import",
    epilog="Example: landslide data import DIR --images 'img/*.png' --masks 'mask/*.png' -o OUT --bands B4,B3,B2",
)
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("--images", metavar="GLOB", required=True, help="The images, as a quoted pattern below DIR: 'img/*.tif'.")
@click.option("--masks", metavar="GLOB", required=True, help="The masks.")
@click.option("-o", "--output", type=_PATH, required=True, help="Folder of the patches: new or empty.")
@bands_option
@click.option(
    "--landslide",
    metavar="VALUE,...",
    help="Values of the masks that are landslides: 1, 2,5, 0.5..1, '#ff0000'  [default: 1 or 255 beside 0]",
)
@click.option("--image-key", help="Name of the image in HDF5 and .npz files with several arrays.")
@click.option("--mask-key", help="Name of the mask in them.")
@click.option("--dry-run", is_flag=True, help="Only say what was understood; write no patches.")
@click.option("--preview", type=_PATH, metavar="FILE.png", help="Draw four pairs, each mask over its image.")
def import_command(
    folder: Path, output: Path, bands: tuple[str, ...] | None, dry_run: bool, preview: Path | None, **options: Any
) -> None:
    """Turn images and masks that you already have into patches.

    They may be PNG, JPEG, TIFF, NumPy or HDF5 files, and are paired by their names. Patches of 128 x 128 pixels are cut
    from them, never resampled, and written in the Landslide4Sense layout; names.csv says where each comes from.
    """
    from landslide.schema import ORIGINAL_BANDS
    from landslide.tiling.contact_sheet import refuse_picture
    from landslide.tiling.importing import ImportSettings, draw_preview, plan_import, write_import
    from landslide.tiling.new_folder import refuse_output

    if preview is not None and preview.resolve().is_relative_to(output.resolve()):
        raise click.UsageError("the preview lies in the folder of the patches, which must be empty")
    refuse_output(output)
    if preview is not None:
        refuse_picture(preview)
    plan = plan_import(folder, ImportSettings(bands=bands or ORIGINAL_BANDS, **options))
    click.echo(plan.describe())
    plan.refuse_faults()
    if preview is not None:
        draw_preview(plan, preview)
        click.echo(f"drew {preview}")
    if dry_run:
        click.echo("nothing was written: a dry run")
        return
    write_import(plan, output)
    declared = "" if bands is None else f" --bands {','.join(bands)}"
    click.echo(f"{output}: patches: {plan.n_patches:,}")
    click.echo(f"take it into use: landslide data use {shlex.quote(str(output))}{declared}")
