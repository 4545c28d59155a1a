"""Colours of a map, the same in QGIS, in the picture and on the page."""

from landslide.scenes.reasons import Reason

CONFIDENCE_COLOURS = {"high": "#d7191c", "medium": "#fd8d3c", "low": "#ffd92f"}

REASON_COLOURS = {
    Reason.TOO_LITTLE_VALID: "#a6761d",
    Reason.SNOW: "#17becf",
    Reason.MASKED: "#31a354",
    Reason.CLOUD_SHADOW: "#54278f",
    Reason.CLOUD: "#3182bd",
    Reason.DEFECTIVE: "#c51b8a",
    Reason.IMPOSSIBLE_VALUE: "#e6ab02",
    Reason.NO_DATA: "#525252",
    Reason.OUTSIDE_AREA: "#969696",
}

FOOTPRINT_COLOUR = "#252525"
AREA_COLOUR = "#005a9c"
CANDIDATE_COLOURS = ("#e31a1c", "#00b8d9", "#ffb000")
"""Of labels that may be wrong: no landslide, missing, outline."""
