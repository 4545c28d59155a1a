"""The option `--bands` of commands about patches."""

import click


def _band_list(ctx: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Validate `--bands B4,B3,B2` against the names of the stored bands."""
    from landslide.schema import ORIGINAL_BANDS

    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in ORIGINAL_BANDS]:
        raise click.BadParameter(f"unknown band {unknown[0]!r}; there are {', '.join(ORIGINAL_BANDS)}")
    if len(set(names)) < len(names):
        raise click.BadParameter(f"a band occurs twice in {text}")
    return names


bands_option = click.option(
    "--bands",
    metavar="B4,B3,B2",
    callback=_band_list,
    help="The bands of the images in stored order, if they are not the 14 of Landslide4Sense.",
)
