"""`landslide networks`."""

from collections.abc import Hashable
from typing import Any

import click

from landslide.cli.key_values import parse_key_values

_HEADINGS = ("network", "bands", "parameters", "GFLOP", "recorded", "difference", "source")
_NUMBERS = ("bands", "parameters", "GFLOP", "recorded", "difference")


@click.command("networks", epilog="Example: landslide networks --model smp:Unet:resnet34 --bands 23")
@click.option("--model", metavar="NAME", help="Measure this network as well, for instance smp:Unet:resnet34.")
@click.option("--bands", default="14", show_default=True, help="Its input: a number of bands or a band group.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="One of its model_options: width=16.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "csv"]),
    default="text",
    show_default=True,
    help="Output.",
)
def networks_command(model: str | None, bands: str, options: tuple[str, ...], form: str) -> None:
    """List the compared networks with their size and cost.

    They are those of the paper and of its authors' record. Parameters are trainable parameters; next to ours are those
    of the paper or the authors' record. GFLOP are of the forward pass for one patch of 128 x 128 pixels, and a
    multiply-add counts as two.
    """
    from tabulate import tabulate

    from landslide.models.paper_networks import COMPARED_NETWORKS, ComparedNetwork, size_table

    if options and model is None:
        raise click.UsageError("--option belongs to a network: give --model as well.")
    own = () if model is None else (ComparedNetwork(model, _band_count(bands), parse_key_values(options, "--option")),)
    table = size_table((*own, *COMPARED_NETWORKS))
    if form == "csv":
        click.echo(table.to_csv(index=False), nl=False)
        return
    rows = [_cells(record) for record in table.astype(object).where(table.notna(), None).to_dict("records")]
    if form == "markdown":
        rows = [(f"`{network}`", *rest) for network, *rest in rows]
    alignment = ["right" if heading in _NUMBERS else "left" for heading in _HEADINGS]
    style = "pipe" if form == "markdown" else "plain"
    click.echo(tabulate(rows, _HEADINGS, tablefmt=style, colalign=alignment, disable_numparse=True))


def _band_count(bands: str) -> int:
    """Return the number of bands: the number itself, or the size of a band group."""
    from landslide.bands.formulas import BAND_GROUPS

    if bands in BAND_GROUPS:
        return len(BAND_GROUPS[bands])
    if not bands.isdecimal() or int(bands) == 0:
        raise click.BadParameter(
            f"{bands!r} is neither a number of bands nor one of {', '.join(BAND_GROUPS)}", param_hint="--bands"
        )
    return int(bands)


def _cells(record: dict[Hashable, Any]) -> tuple[str, ...]:
    recorded, difference = record["recorded"], record["difference"]
    return (
        record["network"],
        str(record["bands"]),
        f"{record['parameters']:,}",
        f"{record['gflop']:.1f}",
        "" if recorded is None else f"{recorded:,}" if recorded % 100_000 else f"{recorded / 1e6:.1f} M",
        "" if recorded is None else f"{difference:+,}" if difference else "0",
        record["source"],
    )
