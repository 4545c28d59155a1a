"""`landslide map`."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from landslide.cli.scene_options import scene_options, settings_of_scenes
from landslide.errors import ConfigurationError, LandslideError, first_few

if TYPE_CHECKING:
    from landslide.mapping.map_folder import FinishedMap
    from landslide.mapping.plan import MapPlan

_FILE = click.Path(path_type=Path)
_OF_PATCHES = {  # options that a folder of patches takes, too
    *("scenes", "output", "model", "threshold", "augmentation", "min_area"),
    *("overwrite", "dry_run", "as_json", "help"),
}


@click.command(
    "map",
    epilog="Example: landslide map S2A_MSIL1C_20240612T044701.SAFE --dem dem.tif -o maps",
)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True)
@scene_options("--bands")
@click.option("-o", "--output", type=_FILE, required=True, help="Folder of the maps: one folder for each scene.")
@click.option("--model", default="champion", show_default=True, help="Version, alias, models:/ address, or folder.")
@click.option("--threshold", type=float, help="Landslide probability of a landslide  [default: the model's]")
@click.option("--overlap", type=float, default=0.5, show_default=True, help="Share of overlap between windows.")
@click.option(
    "--augmentation",
    type=click.Choice(["none", "rotations", "flips_and_rotations"]),
    help="Test-time augmentation  [default: the model's]",
)
@click.option("--min-area", type=float, default=500.0, show_default=True, help="Minimum mapping unit in square metres.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "openvino", "pytorch"]),
    default="auto",
    show_default=True,
    help="What computes the networks; auto: OpenVINO on a CPU if the scene is not small.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 is up to twice as fast and changes probabilities by thousandths, here and there more.",
)
@click.option("--workers", type=click.IntRange(1), help="Threads that predict  [default: one per core]")
@click.option("--record", is_flag=True, help="Record each map as an MLflow run with the tag role=mapping.")
@click.option("--overwrite", is_flag=True, help="Replace maps of other settings.")
@click.option(
    "--dry-run", is_flag=True, help="Only say what was understood and would be done, and about how long it takes."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summaries as JSON, one a line.")
@click.pass_context
def map_command(
    ctx: click.Context,
    /,
    scenes: tuple[str, ...],
    dem: tuple[Path, ...],
    output: Path,
    model: str,
    workers: int | None,
    record: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Map landslides in Sentinel-2 scenes.

    A SCENE is a product (a SAFE folder or its zip, L1C or L2A), a folder of rasters named by band, one raster with
    several bands, or a STAC Item. An interrupted map continues where it was when the command is repeated. A scene that
    fails does not stop the others.

    Instead of scenes, one folder of training patches that `landslide data tile` cut may be given. Each patch is then
    predicted by the network of the registered model that has not seen it, and the map of each scene has the labels
    beside these predictions.
    """
    import tempfile

    from landslide.data.patches import holds_patches

    if any(holds_patches(Path(scene)) for scene in scenes):
        _map_training_set(ctx, scenes, output, model, overwrite, dry_run, as_json)
        return

    from landslide.mapping.model import open_model
    from landslide.mapping.plan import make_plan
    from landslide.mapping.report import describe_map, describe_plan
    from landslide.mapping.scene_map import default_workers
    from landslide.mapping.settings import MappingSettings
    from landslide.scenes.scene import open_scene, refuse_equal_names

    reading, exclusions = settings_of_scenes(options)
    mapping = MappingSettings(**options)
    with tempfile.TemporaryDirectory() as folder:
        loaded = open_model(model, Path(folder))
        workers = workers or default_workers(loaded)
        plans, failed = [], []

        def fail(scene: str, error: LandslideError) -> None:
            if len(scenes) == 1:
                raise error
            click.echo(f"Error: {error}", err=True)
            failed.append(scene)

        for source in scenes:  # all of them first: what cannot be read is said before the others take hours
            try:
                scene = open_scene(source, **asdict(reading))
                plans.append(make_plan(scene, loaded, mapping, exclusions, tuple(map(str, dem))))
            except LandslideError as error:
                fail(source, error)
        refuse_equal_names([plan.scene.name for plan in plans], [plan.scene.source for plan in plans])
        for plan in plans:
            try:
                if dry_run:
                    click.echo("\n".join(describe_plan(plan, workers, output, overwrite=overwrite)))
                    continue
                finished = _mapped(plan, output, workers, overwrite)
                run = None
                if record:
                    from landslide.mapping.record import record_map

                    run = record_map(finished)
                click.echo(json.dumps(finished.summary) if as_json else describe_map(finished, run))
            except LandslideError as error:
                fail(plan.scene.name, error)
    if failed:
        raise LandslideError(
            f"{len(failed)} of {len(scenes)} scenes failed: {first_few(failed)}.",
            remedy="Mend what is said above; the same command does the rest.",
        )


def _map_training_set(
    ctx: click.Context,
    folders: tuple[str, ...],
    output: Path,
    model: str,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Map the scenes of a training set."""
    import tempfile

    from tqdm.auto import tqdm

    from landslide.labels.training_map import (
        describe_training_map,
        describe_training_plan,
        make_training_map,
        plan_training_map,
    )
    from landslide.mapping.settings import MappingSettings
    from landslide.paths import default_tracking_uri
    from landslide.tracking.runs import connect

    if len(folders) > 1:
        raise ConfigurationError(
            f"{len(folders)} scenes and folders of patches are given together.",
            remedy="Give scenes, or one folder of patches; call the command once for each folder.",
        )
    without_effect = [
        option.opts[-1]
        for option in ctx.command.params
        if option.name not in _OF_PATCHES and ctx.get_parameter_source(str(option.name)) is not ParameterSource.DEFAULT
    ]
    if without_effect:
        raise ConfigurationError(
            f"{folders[0]} is a folder of patches, for which {first_few(without_effect, 20)} has no effect.",
            remedy="Leave it out: the patches were cut already.",
        )
    if output.resolve().is_relative_to(Path(folders[0]).resolve()):
        raise click.BadParameter(f"{output} lies in the data set {folders[0]}", param_hint="--output")
    settings = MappingSettings(**{name: ctx.params[name] for name in ("threshold", "augmentation", "min_area")})
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="patch", disable=None) as bar:
        client = connect(default_tracking_uri())
        plan = plan_training_map(client, model, Path(folders[0]), settings, Path(folder))
        if dry_run:
            click.echo("\n".join(describe_training_plan(plan)))
            return

        def start(total: int) -> Callable[[int], object]:
            bar.reset(total)
            return bar.update

        maps = make_training_map(
            plan, output, overwrite=overwrite, start=start, say=lambda text: bar.write(text, file=sys.stderr)
        )
    click.echo("\n".join(json.dumps(one.summary) for one in maps) if as_json else describe_training_map(maps))


def _mapped(plan: "MapPlan", output: Path, workers: int, overwrite: bool) -> "FinishedMap":
    """Make a map with a progress bar on a terminal; what there is to say goes to the error stream."""
    from tqdm.auto import tqdm

    from landslide.mapping.scene_map import map_scene

    name = plan.scene.name
    with tqdm(desc=name[:40], total=len(plan.windows), unit="window", disable=None) as bar:

        def progress(done: int, _total: int) -> None:
            if not bar.n:
                bar.initial = done  # of an interrupted map: the rate is that of this call
            bar.update(done - bar.n)

        return map_scene(
            plan, output, workers=workers, overwrite=overwrite, progress=progress,
            say=lambda text: bar.write(f"{name}: {text}", file=sys.stderr),
        )  # fmt: skip
