"""Styles of the layers of a map for QGIS, as QML."""

from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from landslide.products.colours import (
    AREA_COLOUR,
    CANDIDATE_COLOURS,
    CONFIDENCE_COLOURS,
    FOOTPRINT_COLOUR,
    REASON_COLOURS,
)


def qgis_styles() -> dict[str, str]:
    """Return the QML of each layer by its name: symbols and labels of the legend."""
    filled = {value: _fill(colour, alpha=110) for value, colour in CONFIDENCE_COLOURS.items()}
    hatched = {reason.text: _hatch(colour) for reason, colour in REASON_COLOURS.items()}
    return {
        "landslides": _categories("confidence", filled),
        "not_analysed": _categories("reason", hatched),
        "image_footprint": _single(_outline(FOOTPRINT_COLOUR, "solid")),
        "area_of_interest": _single(_outline(AREA_COLOUR, "dash")),
        "source": _single(_outline(FOOTPRINT_COLOUR, "no")),
    }


def candidate_style(kinds: Mapping[str, str], verdicts: Mapping[str, str]) -> str:
    """Return the QML of candidates: a colour for each kind, and a list to choose the verdict from.

    Args:
        kinds: Description of each value of the attribute `kind`.
        verdicts: Description of each value that the attribute `verdict` may have.
    """
    colours = dict(zip(kinds, CANDIDATE_COLOURS, strict=True))
    symbols = {kind: _outline(colour, "solid", width=0.7) for kind, colour in colours.items()}
    choices = {"": "", **{text: value for value, text in verdicts.items()}}
    listed = "".join(
        f'<Option type="Map"><Option type="QString" name={quoteattr(text)} value={quoteattr(value)}/></Option>'
        for text, value in choices.items()
    )
    widget = (
        '<editWidget type="ValueMap"><config><Option type="Map"><Option type="List" name="map">'
        f"{listed}</Option></Option></config></editWidget>"
    )
    fields = f'<fieldConfiguration><field name="verdict">{widget}</field></fieldConfiguration>'
    return _categories("kind", symbols, fields)


def outline_style(colour: str) -> str:
    """Return the QML of polygons that are drawn as outlines."""
    return _single(_outline(colour, "solid"))


def ticked_style(attribute: str, colours: Mapping[str, str]) -> str:
    """Return the QML of outlines in one colour where a yes-or-no attribute is ticked, and in another elsewhere.

    Args:
        attribute: Name of the attribute.
        colours: Colour by text of the legend: first of those that are ticked, then of the others.
    """
    yes, no = colours
    expression = f"CASE WHEN {attribute} THEN '{yes}' ELSE '{no}' END"
    return _categories(expression, {text: _outline(colour, "solid", width=0.7) for text, colour in colours.items()})


def _categories(attribute: str, symbols: Mapping[str, str], fields: str = "") -> str:
    categories = "".join(
        f'<category value={quoteattr(value)} label={quoteattr(value)} symbol="{number}" render="true"/>'
        for number, value in enumerate(symbols)
    )
    drawn = "".join(_symbol(str(number), layers) for number, layers in enumerate(symbols.values()))
    return _style(
        f'<renderer-v2 type="categorizedSymbol" attr="{attribute}"><categories>{categories}</categories>'
        f"<symbols>{drawn}</symbols></renderer-v2>{fields}"
    )


def _single(layers: str) -> str:
    return _style(f'<renderer-v2 type="singleSymbol"><symbols>{_symbol("0", layers)}</symbols></renderer-v2>')


def _style(content: str) -> str:
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>"
        f'<qgis version="3.22" styleCategories="Symbology|Fields|Forms">{content}</qgis>'
    )


def _symbol(name: str, layers: str, kind: str = "fill") -> str:
    return f'<symbol name="{name}" type="{kind}" alpha="1">{layers}</symbol>'


def _layer(kind: str, options: Mapping[str, str], inner: str = "") -> str:
    listed = "".join(f'<Option type="QString" name="{name}" value="{value}"/>' for name, value in options.items())
    return f'<layer class="{kind}" enabled="1"><Option type="Map">{listed}</Option>{inner}</layer>'


def _rgba(colour: str, alpha: int = 255) -> str:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return f"{red},{green},{blue},{alpha}"


def _fill(colour: str, alpha: int) -> str:
    options = {"color": _rgba(colour, alpha), "style": "solid", "outline_color": _rgba(colour), "outline_width": "0.4"}
    return _layer("SimpleFill", options)


def _outline(colour: str, line: str, width: float = 0.4) -> str:
    return _layer(
        "SimpleFill",
        {"style": "no", "outline_color": _rgba(colour), "outline_style": line, "outline_width": f"{width:g}"},
    )


def _hatch(colour: str) -> str:
    line = _symbol("@0@0", _layer("SimpleLine", {"line_color": _rgba(colour), "line_width": "0.3"}), "line")
    pattern = {"angle": "45", "distance": "2", "color": _rgba(colour), "line_width": "0.3"}
    return _layer("LinePatternFill", pattern, line) + _layer(
        "SimpleFill", {"style": "no", "outline_color": _rgba(colour), "outline_width": "0.2"}
    )
