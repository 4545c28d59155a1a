"""`landslide data tile`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from landslide.cli.scene_options import band_names, scene_options, settings_of_scenes

_FILE = click.Path(path_type=Path)


@click.command("tile", epilog="Example: landslide data tile S2A.SAFE --dem dem.tif --labels polygons.gpkg -o patches")
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@click.option(
    "--labels",
    "label_files",
    multiple=True,
    type=_FILE,
    required=True,
    help="Polygons (GeoPackage, Shapefile, GeoJSON, FlatGeobuf) or a raster: one for all scenes, or one for each.",
)
@click.option("-o", "--output", type=_FILE, required=True, help="Folder of the patches: new, or cut by this command.")
@click.option("--layer", help="Layer of the polygons, if there are several.")
@click.option("--where", help="Only these polygons: a condition as in SQL, such as checked = 1.")
@click.option("--date-field", help="Attribute with the date of the event; events after the scene are left out.")
@click.option(
    "--burn",
    type=click.Choice(["centre", "area"]),
    default="centre",
    show_default=True,
    help="A pixel is a landslide if its centre is in a polygon, or by its covered share.",
)
@click.option("--min-share", type=float, help="That share, for --burn area  [default: 0.5]")
@click.option("--allow-empty", is_flag=True, help="Accept a scene without any polygon: somebody looked.")
@click.option("--stride", type=int, default=128, show_default=True, help="Pixels from one window to the next.")
@click.option("--min-valid", type=float, default=1.0, show_default=True, help="Share of a window that must be valid.")
@click.option(
    "--bands",
    "stored",
    callback=band_names,
    metavar="B4,B3,...",
    help="Bands of the patches, in order  [default: the 14 of Landslide4Sense]",
)
@click.option(
    "--units",
    type=click.Choice(["landslide4sense", "digital_numbers", "reflectance"]),
    default="landslide4sense",
    show_default=True,
    help="What the patches hold, as bands.units in a configuration.",
)
@scene_options("--raster-bands")
def tile_command(
    scenes: tuple[str, ...],
    label_files: tuple[Path, ...],
    output: Path,
    dem: tuple[Path, ...],
    stride: int,
    min_valid: float,
    stored: tuple[str, ...] | None,
    units: Any,
    **options: Any,
) -> None:
    """Cut scenes and their labels into training patches.

    A SCENE is what `landslide map` takes. Patches of 128 x 128 pixels are written in the Landslide4Sense layout, with
    their place in scenes.csv. Called again with further scenes or new polygons, only the patches change that have to.
    """
    if len(label_files) not in (1, len(scenes)):
        raise click.UsageError(f"scenes: {len(scenes)}, files of labels: {len(label_files)}; give one, or one for each")
    from landslide.scenes.scene import open_scene
    from landslide.schema import ORIGINAL_BANDS
    from landslide.tiling.sources import LabelSettings
    from landslide.tiling.tiles import LabelledScene, TileSettings, describe_set, tile_scenes

    reading, exclusions = settings_of_scenes(options)
    settings = TileSettings(stride=stride, min_valid=min_valid, stored=stored or ORIGINAL_BANDS, units=units)
    files = label_files if len(label_files) > 1 else label_files * len(scenes)
    given = [
        LabelledScene(open_scene(source, **asdict(reading)), file) for source, file in zip(scenes, files, strict=True)
    ]
    result = tile_scenes(
        given, output, settings=settings, labels=LabelSettings(**options), exclusions=exclusions,
        dem=tuple(map(str, dem)), say=click.echo,
    )  # fmt: skip
    click.echo(describe_set(result))
