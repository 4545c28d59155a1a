"""`landslide data next`."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from landslide.cli.scene_options import scene_options, settings_of_scenes

if TYPE_CHECKING:
    from landslide.labels.proposals import Candidates, LabelledSet
    from landslide.mapping.model import MapModel

_FILE = click.Path(path_type=Path)


@click.command("next", epilog="Example: landslide data next S2A.SAFE --dem dem.tif --labelled patches -o next")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("-o", "--output", type=_FILE, default="next", show_default=True, help="A new folder.")
@click.option("-n", "number", type=click.IntRange(1), default=50, show_default=True, help="Tiles to propose.")
@click.option("--model", default="champion", show_default=True, help="Version, alias, models:/ address, or folder.")
@click.option(
    "--labelled",
    type=_FILE,
    help="Data set that is labelled already: its windows are not proposed, nor what looks like its patches.",
)
@click.option("--min-valid", type=float, default=1.0, show_default=True, help="Share of a window that must be valid.")
@scene_options("--raster-bands")
def next_command(
    sources: tuple[str, ...],
    output: Path,
    number: int,
    model: str,
    labelled: Path | None,
    min_valid: float,
    dem: tuple[Path, ...],
    **options: Any,
) -> None:
    """Propose which tiles to label next.

    A SOURCE is a scene that `landslide map` takes, or one data set: its images without masks are proposed, and those
    with masks count as labelled. The tiles are ranked by the model's uncertainty, by the expected area of landslides,
    and by how much they differ from those that are labelled or ranked before them. They are the windows that `landslide
    data tile` cuts. The folder gets next.gpkg for QGIS, coverage.gpkg and random.gpkg to compare with, and next.csv
    with all tiles.
    """
    import tempfile
    from datetime import UTC, datetime

    from landslide.labels import proposals
    from landslide.labels.choosing import Windows
    from landslide.mapping.model import open_model
    from landslide.tiling.new_folder import refuse_output

    refuse_output(output)
    sets = [Path(source) for source in sources if proposals.is_patch_folder(source)]
    for root in (*sets, *([labelled] if labelled else [])):
        if output.resolve().is_relative_to(root.resolve()):
            raise click.BadParameter(f"{output} lies in the data set {root}", param_hint="--output")
    with tempfile.TemporaryDirectory() as folder:
        loaded = open_model(model, Path(folder))
        done = proposals.LabelledSet(labelled, loaded) if labelled is not None else None
        images = list(done.images) if done is not None else []
        if any(map(proposals.is_patch_folder, sources)):
            root = _only_set(sources, options, dem)
            images += proposals.images_with_masks(root)
            candidates = proposals.images_without_masks(root, loaded, _bar("images"))
        else:
            candidates = _of_scenes(sources, loaded, min_valid, dem, done, options)
        known: Windows | None = proposals.describe_images(images, loaded, _bar("labelled")) if images else None
        frame = proposals.ranked(candidates, known)
    ticked = done.tiles(frame["scene"].unique().tolist()) if done is not None else None
    proposals.write_proposal(output, frame, number, datetime.now(UTC), ticked)
    shown = min(number, len(frame))
    click.echo(f"{output}: {shown} of {len(frame)} tiles, to be compared with {len(images)} labelled patches")
    if frame.crs is None:
        click.echo(f"draw the masks of the images that {output / 'next.csv'} lists first")
        return
    tiles = shlex.quote(str(output / "next.gpkg"))
    click.echo(f"in QGIS, draw all landslides in the tiles of {tiles}, and tick `labelled` of each finished tile; then")
    click.echo(f'landslide data tile SCENE --labels POLYGONS --area {tiles} --area-where "labelled = 1" -o DIR')


def _only_set(sources: tuple[str, ...], options: dict[str, Any], dem: tuple[Path, ...]) -> Path:
    """Return the one data set; refuse what would have no effect."""
    from landslide.errors import ConfigurationError
    from landslide.mapping.settings import SceneSettings
    from landslide.scenes.exclusions import ExclusionSettings

    if len(sources) > 1:
        raise ConfigurationError(
            f"One of the {len(sources)} sources is a data set.", remedy="Give either scenes or one data set."
        )
    if dem or settings_of_scenes(options) != (SceneSettings(), ExclusionSettings()):
        raise ConfigurationError(
            f"{sources[0]} is a data set, and there are options of scenes (--dem, --area, --mask, ...).",
            remedy="Leave them out.",
        )
    return Path(sources[0])


def _of_scenes(
    sources: tuple[str, ...],
    model: "MapModel",
    min_valid: float,
    dem: tuple[Path, ...],
    labelled: "LabelledSet | None",
    options: dict[str, Any],
) -> "Candidates":
    """Describe the windows of scenes."""
    from tqdm.auto import tqdm

    from landslide.labels.proposals import windows_of_scenes
    from landslide.mapping.plan import make_plan
    from landslide.mapping.settings import MappingSettings
    from landslide.scenes.scene import open_scene, refuse_equal_names
    from landslide.tiling.tiles import TileSettings

    TileSettings(min_valid=min_valid)  # refuses a wrong one
    reading, exclusions = settings_of_scenes(options)
    scenes = [open_scene(source, **asdict(reading)) for source in sources]
    refuse_equal_names([scene.name for scene in scenes], sources)
    plans = [make_plan(scene, model, MappingSettings(), exclusions, tuple(map(str, dem))) for scene in scenes]
    return windows_of_scenes(plans, min_valid=min_valid, labelled=labelled, say=tqdm.write, start=_bar("windows"))


def _bar(unit: str) -> Any:
    """Return what makes a progress bar on a terminal."""
    from tqdm.auto import tqdm

    return lambda total: tqdm(total=total, unit=f" {unit}", disable=None).update
