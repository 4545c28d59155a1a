"""Options of commands that read scenes: how they are read, the elevation model, and what is left out."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from landslide.mapping.settings import SceneSettings
    from landslide.scenes.exclusions import ExclusionSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def band_names(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Split a list of names at its commas."""
    return None if text is None else tuple(name.strip() for name in text.split(","))


def scene_options(bands: str) -> Callable[[_Command], _Command]:
    """Return a decorator that adds the options.

    Args:
        bands: Name of the option that names the bands of a raster.
    """
    options = [
        click.option(
            "--dem", multiple=True, type=_FILE, help="Raster of elevations in metres, any grid; may be repeated."
        ),
        click.option("--area", help="Only this area: a polygon file, or west,south,east,north in degrees."),
        click.option("--area-where", help="Only these polygons of it: a condition as in SQL, such as labelled = 1."),
        click.option(
            "--mask", "masks", multiple=True, type=_FILE, help="Leave out what this raster or polygon file covers."
        ),
        click.option(
            "--clouds",
            type=click.Choice(["auto", "none", "csmask"]),
            default="auto",
            show_default=True,
            help="auto: the product's own classification; csmask: the package ukis-csmask.",
        ),
        click.option("--snow", is_flag=True, help="Leave out snow, too."),
        click.option(
            "--margin", type=float, default=60.0, show_default=True, help="Metres left out around clouds and snow."
        ),
        click.option(
            bands,
            "bands",
            callback=band_names,
            metavar="B2,B3,...",
            help="Bands of a raster without names; - skips one.",
        ),
        click.option("--quantification", type=float, help="Digital numbers of a reflectance of 1, if nothing says it."),
        click.option("--offset", type=float, help="What is added to digital numbers, if nothing says it."),
        click.option("--level", type=click.Choice(["L1C", "L2A"]), help="Processing level, if nothing says it."),
    ]

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_of_scenes(options: dict[str, Any]) -> tuple["SceneSettings", "ExclusionSettings"]:
    """Take from the options of a command how scenes are read, and what is left out."""
    from landslide.mapping.settings import SceneSettings
    from landslide.scenes.exclusions import ExclusionSettings

    reading = {name: options.pop(name) for name in ("bands", "quantification", "offset", "level")}
    left_out = {name: options.pop(name) for name in ("clouds", "snow", "margin", "area", "area_where")}
    masks = tuple(map(str, options.pop("masks")))
    return SceneSettings(**reading), ExclusionSettings(masks=masks, **left_out)
