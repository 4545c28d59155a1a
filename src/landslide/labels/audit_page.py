"""An audit as one page that opens in a browser without a network: image, label, prediction, buttons for verdicts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd

from landslide.data.patches import read_stored
from landslide.files import atomic_write
from landslide.labels.audit import predicted_mask, union_objects
from landslide.labels.candidates import CHANGES, KINDS, VERDICTS
from landslide.labels.predictions import Predictions
from landslide.products.colours import CANDIDATE_COLOURS
from landslide.products.page_data import image_uri, probability_colours, script_json
from landslide.tiling.contact_sheet import picture_of

_TEMPLATE = Path(__file__).with_name("audit_page.html")
_PLACEHOLDER = "{{data}}"


def write_audit_page(
    path: Path, predictions: Predictions, candidates: gpd.GeoDataFrame, listed: pd.DataFrame, about: Mapping[str, Any]
) -> None:
    """Write an audit as one HTML file that needs nothing else.

    Args:
        path: The file; an older one is replaced when the new one is complete.
        predictions: Out-of-fold predictions.
        candidates: With the columns of `landslide.labels.candidates.COLUMNS`, by rank.
        listed: The same objects in the same order, as `audited_objects` returns them.
        about: The data set (`data`), its version (`data_version`) and the model (`model_version`).

    Raises:
        OSError: If the file cannot be written.
    """
    rows = listed["row"].tolist()
    patches = {
        str(predictions.table["number"].iloc[row]): {
            "image": image_uri(_picture(predictions, row)),
            "probability": image_uri(_coloured(predictions.probability[row])),
            "label": _edges(predictions.masks[row] != 0),
            "prediction": _edges(predicted_mask(predictions, row)),
        }
        for row in sorted(set(rows))
    }
    shown = ("id", "rank", "kind", "score", "reason", "patch", "scene", "pixels", "deviation")
    items = candidates[list(shown)].to_dict("records")
    for item, row, number in zip(items, rows, listed["object"].tolist(), strict=True):
        item["box"] = _box(union_objects(predictions, row) == number)
    data = {
        "about": {name: str(about.get(name, "")) for name in ("data", "data_version", "model_version")},
        "kinds": {
            kind: [text, colour, CHANGES[kind]]
            for (kind, text), colour in zip(KINDS.items(), CANDIDATE_COLOURS, strict=True)
        },
        "verdicts": dict(VERDICTS),
        "patches": patches,
        "candidates": items,
    }
    page = _TEMPLATE.read_text(encoding="utf-8").replace(_PLACEHOLDER, script_json(data))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _picture(predictions: Predictions, row: int) -> npt.NDArray[np.uint8]:
    image = read_stored(predictions.root / predictions.table["image"].iloc[row], len(predictions.stored))
    return (255 * picture_of(image, predictions.stored)).round().astype(np.uint8)


def _coloured(probability: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return (H, W, 4) colours of a probability; they are opaque where there is one."""
    known = np.isfinite(probability)
    colours = probability_colours((np.where(known, probability, 0).clip(0, 1) * 255).round().astype(np.uint8))
    return np.dstack([colours, np.where(known, 255, 0).astype(np.uint8)])


def _edges(pixels: npt.NDArray[np.bool_]) -> str:
    """Return the edges between pixels that are and pixels that are not, as an SVG path in pixels."""
    padded = np.pad(pixels, 1)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    parts = [f"M{x} {y}h{n}" for y, x, n in _runs(across)] + [f"M{x} {y}v{n}" for x, y, n in _runs(down.T)]
    return "".join(parts)


def _runs(lines: npt.NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Return line, start and length of the runs of true values in each line."""
    changes = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    line, start = np.nonzero(changes == 1)
    _, stop = np.nonzero(changes == -1)
    return list(zip(line.tolist(), start.tolist(), (stop - start).tolist(), strict=True))


def _box(pixels: npt.NDArray[np.bool_]) -> list[int]:
    """Return left, top, width and height."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return [int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)]
