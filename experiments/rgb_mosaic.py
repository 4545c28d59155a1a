"""Maps a mosaic of real RGB patches as one scene, to see what happens across the borders of its tiles.

    source activate.sh
    python experiments/rgb_mosaic.py map --data DIR --out RESULTS    # the record, and the picture of the documentation
    python experiments/rgb_mosaic.py write                           # its tables in docs/explanation/results.md

DIR contains h5 pairs of the bands B4, B3 and B2 with the official patch numbers. The tiles of a block without gaps are
joined to a GeoTIFF and mapped twice by a network that has not seen them: in overlapping windows that are blended, and
in windows that are the tiles. An interrupted training is resumed.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import torch
import yaml
from affine import Affine
from earlier_recipe import EARLIER
from pydantic import TypeAdapter

from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings
from landslide.data.digests import directory_digest
from landslide.data.patches import read_image, read_mask
from landslide.data.table import patch_table
from landslide.errors import LandslideError
from landslide.folds.parts import FoldRows, adjacent_to, inner_validation
from landslide.inference.ensemble import Member, save_ensemble
from landslide.mapping.model import MapModel, open_model
from landslide.mapping.plan import make_plan
from landslide.mapping.scene_map import default_workers, map_scene
from landslide.mapping.settings import MappingSettings
from landslide.metrics.counts import confusion_counts, scores
from landslide.products.raw_files import SCALE
from landslide.scenes.exclusions import ExclusionSettings
from landslide.scenes.scene import open_scene
from landslide.schema import PATCH_SIZE
from landslide.training.fold import FoldResult, FoldTask, TrainingSettings, train_fold

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "own_rgb.yaml"
CHANGES = {"epochs": 8, "max_patches": 400}  # of its training settings, so that two cores need minutes
RECORD = ROOT / "docs" / "results" / "rgb_mosaic.json"
IMAGE = ROOT / "docs" / "images" / "rgb_mosaic.png"
PAGE = ROOT / "docs" / "explanation" / "results.md"

SCENE, ROWS, COLUMNS = 1, range(32, 51), range(12, 22)  # every tile of this block is there
SHOWN = (slice(8, 11), slice(6, 10))  # the 3 x 4 tiles of the block in which the two maps differ most
NEAR = 8  # pixels on either side of a tile border
OVERLAPS = {"blended": 0.5, "tiles": 0.0}
# The files do not say where the scene lies: this corner is made up.
CRS, CORNER = "EPSG:32645", Affine(10, 0, 400_000, 0, -10, 3_100_000)
# The 8-bit values of the patches are taken for digital numbers, and the mosaic's tags say the same scale.
BANDS = BandSettings(stored=("B4", "B3", "B2"), units="digital_numbers")
REFLECTANCE = 1e-4  # of one digital number


def make(data: Path, out: Path) -> None:
    """Train, map the mosaic twice, and write the record and the picture."""
    table = patch_table(data, positions="landslide4sense")
    block = block_rows(table)
    settings = training_settings()
    rows, adjacent = parts(table, block, settings)
    digest = directory_digest(data)[0]
    result = train(data, out, table, digest, rows, settings)
    model = saved_model(out, result)
    images = np.stack([read_image(data / table["image"][row], len(BANDS.stored)) for row in block])
    image = joined(images)
    truth = joined(np.stack([read_mask(data / table["mask"][row]) for row in block]))
    scene = write_mosaic(out, image, truth)
    maps = {name: mapped(scene, model, out, name, overlap) for name, overlap in OVERLAPS.items()}
    alone = joined(model.ensemble.predict(images)[0])
    record = {
        "settings": json.loads(json.dumps(asdict(settings))),
        "data_version": digest,
        "torch": torch.__version__,
        "block": {"scene": SCENE, "rows": [ROWS[0], ROWS[-1]], "columns": [COLUMNS[0], COLUMNS[-1]]},
        "patches": {
            "block": len(block),
            "adjacent": int(adjacent.sum()),
            "training": min(len(rows.training), settings.max_patches or len(rows.training)),
            "validation": len(rows.selection),
        },
        "epoch": result.epoch,
        "threshold": round(result.threshold, 6),
        "pixels": list(truth.shape),
        "landslide_share": round(float(truth.mean()), 6),
        "largest_difference_from_single_patches": round(float(np.abs(maps["tiles"][0] - alone).max()), 6),
        **measured(truth, {name: mask for name, (_, mask) in maps.items()}),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    draw(image, truth, {name: probability for name, (probability, _) in maps.items()})
    print(json.dumps(record, indent=1))


def block_rows(table: pd.DataFrame) -> list[int]:
    """Return the rows of the block's tiles in the patch table, row by row of tiles; exit if one is missing."""
    places = {tuple(place): row for row, place in enumerate(table[["scene", "row", "column"]].itertuples(index=False))}
    wanted = [(SCENE, row, column) for row in ROWS for column in COLUMNS]
    if missing := [place for place in wanted if place not in places]:
        raise SystemExit(
            f"{len(missing)} of the {len(wanted)} tiles of the block are missing, the first of them in scene "
            f"{missing[0][0]}, row {missing[0][1]}, column {missing[0][2]}.\n  -> Use the real RGB patches with their "
            "official numbers."
        )
    return [places[place] for place in wanted]


def training_settings() -> TrainingSettings:
    """Return the training settings of the configuration with the changes."""
    values = yaml.safe_load(CONFIG.read_text())["parameters"]["training"]
    return TypeAdapter(TrainingSettings).validate_python(values | EARLIER | CHANGES)


def parts(
    table: pd.DataFrame, block: Iterable[int], settings: TrainingSettings
) -> tuple[FoldRows, npt.NDArray[np.bool_]]:
    """Divide the patches: the block is tested, and its neighbours neither train nor validate."""
    test = np.zeros(len(table), bool)
    test[list(block)] = True
    adjacent = adjacent_to(table, test)
    others = np.flatnonzero(~test & ~adjacent)
    chosen = inner_validation(table.iloc[others], fraction=settings.validation_fraction, seed=settings.seed)
    return FoldRows(others[~chosen], others[chosen], np.flatnonzero(test)), adjacent


def train(
    data: Path, out: Path, table: pd.DataFrame, digest: str, rows: FoldRows, settings: TrainingSettings
) -> FoldResult:
    """Train the network, or resume its training."""
    cache = ensure_cache(out / "caches", data, table, digest, BANDS)
    task = FoldTask(
        cache=cache,
        rows=rows,
        bands=tuple(settings.bands),
        settings=settings,
        checkpoints=out / "checkpoints",
        label="mosaic",
    )
    return train_fold(task)


def saved_model(out: Path, result: FoldResult) -> MapModel:
    """Save the network as an ensemble of one, and open it as `landslide map --model FOLDER` does."""
    folder = out / "ensemble"
    shutil.rmtree(folder, ignore_errors=True)
    member = Member(1, result.spec, result.threshold, result.weights, detection_threshold=result.detection_threshold)
    save_ensemble(folder, [member], BANDS)
    return open_model(str(folder), out)


def joined(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Join the tiles of the block, (tiles, ..., 128, 128), to (..., height, width)."""
    tiles = np.moveaxis(tiles.reshape(len(ROWS), len(COLUMNS), *tiles.shape[1:]), (0, 1), (-4, -2))
    return tiles.reshape(*tiles.shape[:-4], len(ROWS) * PATCH_SIZE, len(COLUMNS) * PATCH_SIZE)


def write_mosaic(out: Path, image: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Path:
    """Write the image as a scene, and the truth beside it; return the path of the scene."""
    if not image.all():
        raise SystemExit("The mosaic has pixels of value 0, which would count as no data.")
    profile = {"driver": "GTiff", "dtype": "uint8", "crs": CRS, "transform": CORNER, "compress": "deflate"}
    profile |= {"height": image.shape[1], "width": image.shape[2]}
    path = out / "rgb_mosaic.tif"
    with rasterio.open(path, "w", count=len(image), nodata=0, **profile) as target:
        target.write(image.astype(np.uint8))
        target.descriptions = BANDS.stored
        target.scales, target.offsets = (REFLECTANCE,) * len(image), (0.0,) * len(image)
    with rasterio.open(out / "rgb_mosaic_truth.tif", "w", count=1, **profile) as target:
        target.write(truth.astype(np.uint8), 1)
    return path


def mapped(
    scene: Path, model: MapModel, out: Path, name: str, overlap: float
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Map the mosaic as `landslide map` does; return probability and mask (H, W)."""
    plan = make_plan(open_scene(scene, level="L1C"), model, MappingSettings(overlap=overlap), ExclusionSettings(), ())
    finished = map_scene(plan, out / name, workers=default_workers(model), overwrite=True, say=print)
    with (
        rasterio.open(finished.folder / "probability.tif") as probability,
        rasterio.open(finished.folder / "mask.tif") as mask,
    ):
        return probability.read(1) * SCALE, mask.read(1)


def measured(truth: npt.NDArray[Any], masks: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """Return scores of the masks, and shares of pixels near tile borders and elsewhere."""
    near = near_borders(*truth.shape)

    def shares(different: npt.NDArray[Any]) -> dict[str, float]:
        return {"near": round(float(different[near].mean()), 6), "elsewhere": round(float(different[~near].mean()), 6)}

    return {
        "near_pixels": NEAR,
        "near_share": round(float(near.mean()), 6),
        "scores": {
            name: {key: round(value, 6) for key, value in scores(confusion_counts(mask, truth)).items()}
            for name, mask in masks.items()
        },
        "wrong": {name: shares(mask != truth) for name, mask in masks.items()},
        "different": shares(masks["blended"] != masks["tiles"]),
        "edges": {name: edges(mask) for name, mask in {"truth": truth, **masks}.items()},
    }


def near_borders(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return which pixels are within `NEAR` pixels of a border between two tiles, (height, width)."""

    def along(length: int) -> npt.NDArray[np.bool_]:
        pixel = np.arange(length)
        between = (pixel >= NEAR) & (pixel < length - NEAR)  # the edge of the mosaic is no such border
        return between & ((pixel + NEAR) % PATCH_SIZE < 2 * NEAR)

    return along(height)[:, None] | along(width)


def edges(mask: npt.NDArray[Any]) -> dict[str, float]:
    """Return which share of the pairs of adjacent pixels has two classes: across tile borders, and inside tiles."""
    across, inside = [], []
    for changes in (np.diff(mask.astype(np.int8), axis=0) != 0, (np.diff(mask.astype(np.int8), axis=1) != 0).T):
        border = np.arange(1, len(changes) + 1) % PATCH_SIZE == 0
        across.append(changes[border].ravel())
        inside.append(changes[~border].ravel())
    return {
        name: round(float(np.concatenate(parts).mean()), 6) for name, parts in (("across", across), ("inside", inside))
    }


def draw(image: npt.NDArray[Any], truth: npt.NDArray[Any], maps: dict[str, Any]) -> None:
    """Draw image, truth and both predictions of some tiles, with their borders."""
    rows, columns = (slice(part.start * PATCH_SIZE, part.stop * PATCH_SIZE) for part in SHOWN)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    colours = np.moveaxis(image[:, rows, columns], 0, -1).astype(np.float64)
    panels = {
        "image": np.clip(colours / np.percentile(colours, 99), 0, 1),
        "truth": truth[rows, columns],
        "probability, overlapping windows blended": maps["blended"][rows, columns],
        "probability, tile by tile": maps["tiles"][rows, columns],
    }
    figure, axes = plt.subplots(2, 2, figsize=(9.8, 10.4 * height / width), layout="constrained")
    for axis, (title, values) in zip(axes.flat, panels.items(), strict=True):
        axis.imshow(values, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        for border in range(PATCH_SIZE, height, PATCH_SIZE):
            axis.axhline(border - 0.5, color="0.5", linewidth=0.4)
        for border in range(PATCH_SIZE, width, PATCH_SIZE):
            axis.axvline(border - 0.5, color="0.5", linewidth=0.4)
    figure.savefig(IMAGE, dpi=80)


def write() -> None:
    """Write the figures of the record into the page."""
    PAGE.write_text(filled(PAGE.read_text(), json.loads(RECORD.read_text())))


def filled(page: str, record: dict[str, Any]) -> str:
    """Return the page with its marked parts written from the record."""
    written = {"facts": facts, "scores": score_table}

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}{written[found[2]](record)}{found[3]}"

    return re.sub(r"(<!-- mosaic: (\w+) -->\n\n).*?(\n\n<!-- end -->)", part, page, flags=re.DOTALL)


def facts(record: dict[str, Any]) -> str:
    """Return as Markdown what was mapped by which network."""
    settings, patches, block = record["settings"], record["patches"], record["block"]
    (top, bottom), (left, right) = block["rows"], block["columns"]
    height, width = record["pixels"]
    lines = [
        "| | |",
        "|---|---|",
        f"| mosaic | rows {top} to {bottom} and columns {left} to {right} of scene {block['scene']}, counted from 0: "
        f"{patches['block']} tiles, {height:,} x {width:,} pixels, {100 * record['landslide_share']:.1f} % landslide |",
        f"| network | the recipe of `configs/own_rgb.yaml` with {settings['epochs']} epochs of {patches['training']} "
        f"training patches, seed {settings['seed']} |",
        f"| chosen on inner validation | epoch {record['epoch']:g} and threshold {record['threshold']:.2f}, on "
        f"{patches['validation']} patches |",
        f"| left out of both | the mosaic, and the {patches['adjacent']} tiles around it |",
        f"| data | digest `{record['data_version']}` |",
    ]
    return "\n".join(lines)


def score_table(record: dict[str, Any]) -> str:
    """Return the figures of both maps as Markdown."""

    def row(name: str, values: dict[str, float]) -> str:
        return f"| {name} | " + " | ".join(f"{100 * values[one]:.2f}" for one in OVERLAPS) + " |"

    def edge(place: str) -> dict[str, float]:
        return {name: record["edges"][name][place] for name in OVERLAPS}

    def wrong(place: str) -> dict[str, float]:
        return {name: record["wrong"][name][place] for name in OVERLAPS}

    def score(name: str) -> dict[str, float]:
        return {one: record["scores"][one][name] for one in OVERLAPS}

    near, truth = record["near_pixels"], record["edges"]["truth"]
    lines = [
        "| in % | 50 % overlap, blended | tile by tile |",
        "|---|---|---|",
        row("macro F1", score("f1_macro")),
        row("landslide F1", score("f1_landslide")),
        row(f"wrong pixels, within {near} pixels of a tile border", wrong("near")),
        row("wrong pixels, elsewhere", wrong("elsewhere")),
        row(f"edges across tile borders (truth: {100 * truth['across']:.2f})", edge("across")),
        row(f"edges inside tiles (truth: {100 * truth['inside']:.2f})", edge("inside")),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    mapping = commands.add_parser("map", help="train, map the mosaic, and write record and picture")
    mapping.add_argument("--data", type=Path, required=True)
    mapping.add_argument("--out", type=Path, required=True)
    mapping.set_defaults(run=lambda arguments: make(arguments.data, arguments.out))
    commands.add_parser("write", help="write the tables of the page").set_defaults(run=lambda arguments: write())
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except LandslideError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
