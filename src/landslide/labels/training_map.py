"""The map of a training set: per scene, its out-of-fold predictions as rasters and polygons beside its labels."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.windows import Window

from landslide.errors import ConfigurationError
from landslide.files import atomic_write, sha256
from landslide.inference.own_code import CODE
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.labels.candidates import LAYERS as CANDIDATE_LAYERS
from landslide.labels.predictions import Predictions, predict_out_of_fold
from landslide.labels.registered import Unseen, unseen_patches
from landslide.labels.scene_layers import SEEN, PlacedScene, SceneLayers, place_scenes
from landslide.locks import locked
from landslide.mapping.map_folder import (
    KEPT_NOTE,
    PRODUCTS,
    SUMMARY,
    FinishedMap,
    existing_map,
    finish,
    recover,
    writing_map,
)
from landslide.mapping.plan import digest
from landslide.mapping.settings import MappingSettings
from landslide.metrics.counts import confusion_counts, scores
from landslide.products.geotiff import LANDSLIDE, MASK_COLOURS, NOT_ANALYSED, write_raster
from landslide.products.map_info import Column, MapInfo
from landslide.products.polygons import class_polygons, landslide_polygons, source_table
from landslide.products.raw_files import NO_DATA, row_slices
from landslide.products.vectors import LAYERS, write_geopackage
from landslide.scenes.rasters import gdal_environment
from landslide.schema import PATCH_SIZE
from landslide.tiling.tiles import tiled_scenes
from landslide.tracking import registry
from landslide.tracking.runs import MlflowClient

_CELLS = ("true_negatives", "false_positives", "false_negatives", "true_positives")
_BLENDING = "each patch by the network that has not seen it; overlapping patches averaged"
_PATCH_COLUMNS = {
    "patch": Column("int", "Number of the patch"),
    "fold": Column("int", "Fold of the network that predicts it; 0: all networks do, -1: none has not seen it"),
    "differing": Column("float", "Share of its pixels of which prediction and label differ", "", 4),
}
_KINDS = {
    **{name: LAYERS[name] for name in ("landslides", "source")},
    "labels": CANDIDATE_LAYERS["labels"],
    "patches": replace(CANDIDATE_LAYERS["patches"], columns=_PATCH_COLUMNS),
}


@dataclass(frozen=True)
class TrainingMapPlan:
    """What decides the map of a training set.

    Attributes:
        unseen: The patches and the model.
        scenes: Where the patches lie.
        settings: Threshold, test-time augmentation and minimum area; the other settings have no effect.
        notes: What people should know, as lines.
    """

    unseen: Unseen
    scenes: tuple[PlacedScene, ...]
    settings: MappingSettings
    notes: tuple[str, ...]

    @property
    def augmentation(self) -> TestTimeAugmentation:
        """Test-time augmentation; by default that of the model, on which its thresholds were chosen."""
        return self.settings.augmentation or self.unseen.ensemble.members[0].prediction.augmentation

    def identity(self, scene: PlacedScene) -> dict[str, Any]:
        """Return what the map of a scene depends on, as plain values."""
        table, tags = self.unseen.every, self.unseen.tags
        grid = scene.grid
        settings = {name: getattr(self.settings, name) for name in ("threshold", "min_area")}
        return {
            "patches": digest(table[["number", "image_md5", "mask_md5", "fold"]].to_numpy().tolist()),
            "grid": [grid.crs.to_wkt(), *grid.transform[:6], scene.rows.tolist(), scene.tops.tolist()],
            "model": [registry.MODEL_NAME, tags["version"], tags.get("run_id")],
            "settings": settings | {"augmentation": self.augmentation},
            "code": CODE,
        }


def plan_training_map(
    client: MlflowClient, model: str, root: Path, settings: MappingSettings, folder: Path
) -> TrainingMapPlan:
    """Find out which patches of a training set a registered version predicts out of fold, and where they lie.

    Args:
        client: The tracking client.
        model: Version, alias or `models:/` address.
        root: Folder of the data set, with the coordinates that `landslide data tile` writes.
        settings: Threshold, test-time augmentation and minimum area.
        folder: Folder for the downloaded model, which is needed as long as the plan is.

    Raises:
        ConfigurationError: The model is a folder.
        RegistryError: There is no such version.
        ComparisonError: Its networks have seen all patches that they would predict.
        DataError: A file is missing or damaged, or the patches have no coordinates.
    """
    if Path(model).is_dir():
        raise ConfigurationError(
            f"The model {model} is a folder, so nobody knows which patches its networks have seen.",
            remedy="Give a version or alias of the registry (`landslide models list`), whose fold table is recorded.",
        )
    unseen = unseen_patches(client, model, root, folder)
    folds = dict(zip(unseen.table["number"].tolist(), unseen.table["fold"].tolist(), strict=True))
    scenes = tuple(place_scenes(root, unseen.every, folds))
    covered, known = np.sum([_covered_and_unseen(scene) for scene in scenes], axis=0).tolist()
    notes = list(unseen.notes)
    if known < covered:
        notes.append(
            f"{100 * (1 - known / covered):.1f} % of the ground is not predicted: it lies in patches that are left "
            "out, or in overlapping patches of several folds, so that every network may have seen it"
        )
    return TrainingMapPlan(unseen, scenes, settings, tuple(notes))


def _covered_and_unseen(scene: PlacedScene) -> tuple[int, int]:
    """Count the pixels in patches, and those of them that are predicted out of fold."""
    counts = np.sum([[layer.sum() for layer in scene.unseen(rows)] for rows in row_slices(scene.grid.height)], axis=0)
    return int(counts[0]), int(counts[1])


def describe_training_plan(plan: TrainingMapPlan) -> list[str]:
    """Return what was understood of a training set, as lines."""
    unseen = plan.unseen
    members = unseen.ensemble.members
    threshold = plan.settings.threshold
    lines = [
        f"{unseen.root}",
        f"  patches        {len(unseen.every):,}, {len(unseen.table):,} of them predicted out of fold",
        f"  model          {registry.MODEL_NAME} {unseen.tags['version']}, {len(members)} networks, stored bands "
        f"{', '.join(unseen.ensemble.settings.stored)}",
        f"  threshold      {'of each network' if threshold is None else f'{threshold:.4f}'}",
        f"  augmentation   {plan.augmentation}",
    ]
    for scene in plan.scenes:
        grid = scene.grid
        lines.append(
            f"  scene          {scene.name}: {len(scene.rows):,} patches on {grid.width} x {grid.height} pixels of "
            f"{grid.pixel_size[0]:.2f} x {grid.pixel_size[1]:.2f} m, {grid.crs.to_string()}"
        )
    return lines + [f"  note           {text}" for text in plan.notes]


def make_training_map(
    plan: TrainingMapPlan,
    output: Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], object] = lambda text: None,
    start: Callable[[int], Callable[[int], object]] = lambda total: lambda n: None,
) -> list[FinishedMap]:
    """Make the maps of the scenes of a training set; those that are there already stay.

    Every map is made in `.<scene>.training.partial` beside its folder, which gets its name when it is complete.

    Args:
        plan: What decides the maps.
        output: The folder of the maps; that of a scene is `output/<scene name>`.
        overwrite: Replace other maps.
        say: Called with lines for people.
        start: Called with the number of patches; what it returns is called with the number just predicted.

    Returns:
        One map per scene. `summary.json` has the scores by pixel: each pixel counts once, and only if it is predicted.

    Raises:
        MapExistsError: A folder holds another map, a damaged one, or none. Nothing was predicted then.
        LockedError: Another process is making a map of one of these scenes.
        DataError: Something cannot be read or written.
        PredictionError: An answer is not finite.
    """
    with ExitStack() as stack:
        stack.enter_context(writing_map(plan.unseen.root.name, output))
        output.mkdir(parents=True, exist_ok=True)
        there: dict[str, FinishedMap | None] = {}
        for scene in plan.scenes:
            final, work, done = _folders(output, scene.name)
            stack.enter_context(locked(output / f".{scene.name}.lock", wait=False))
            if kept := recover(work, done, final):
                say(KEPT_NOTE.format(kept))
            there[scene.name] = existing_map(final, plan.identity(scene), overwrite=overwrite)
        if None in there.values():
            for note in plan.notes:
                say(f"note: {note}")
            unseen = plan.unseen
            found = predict_out_of_fold(
                unseen.ensemble, unseen.root, unseen.table,
                augmentation=plan.augmentation, progress=start(len(unseen.table)),
            )  # fmt: skip
        return [there[scene.name] or _make(plan, scene, found, output, say) for scene in plan.scenes]


def _folders(output: Path, name: str) -> tuple[Path, Path, Path]:
    return output / name, output / f".{name}.training.partial", output / f".{name}.training.done"


def _make(
    plan: TrainingMapPlan, scene: PlacedScene, found: Predictions, output: Path, say: Callable[[str], object]
) -> FinishedMap:
    final, work, done = _folders(output, scene.name)
    shutil.rmtree(work, ignore_errors=True)
    (work / PRODUCTS).mkdir(parents=True)
    try:
        layers = SceneLayers(scene, plan.unseen.every, found, plan.settings.threshold)
        with gdal_environment():
            summary = _write_products(plan, layers, work, work / PRODUCTS)
        if kept := finish(work, done, final):
            say(KEPT_NOTE.format(kept))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return FinishedMap(final, summary, new=True)


def _write_products(plan: TrainingMapPlan, layers: SceneLayers, work: Path, folder: Path) -> dict[str, Any]:
    """Write everything that a finished map holds; return the summary."""
    scene, info = layers.scene, _info(plan, layers)
    counts = _write_rasters(layers, info, work, folder)
    landslides, below_minimum = landslide_polygons(folder, info, None)
    labels = class_polygons(folder / "labels.tif", LANDSLIDE)
    tables = {
        "landslides": landslides,
        "labels": labels,
        "patches": _patches(plan, scene, folder),
        "source": source_table(scene.grid, info),
    }
    write_geopackage(folder / "landslides.gpkg", tables, info.created, _KINDS)
    covered, _ = _covered_and_unseen(scene)
    pixels = int(counts.sum())
    thresholds = {
        str(fold): threshold
        for fold, threshold in sorted(zip(scene.folds.tolist(), layers.thresholds, strict=True))
        if threshold is not None
    }
    summary = {
        "scene": info.scene,
        "source": info.source,
        "sensor": info.sensor,
        "level": info.level,
        "image_datetime": info.image_datetime and info.image_datetime.isoformat(),
        "model": info.model,
        "model_version": info.model_version,
        "model_address": info.model_address,
        "augmentation": info.augmentation,
        "threshold_by_fold": thresholds,
        "min_area_m2": info.minimum_area,
        "patches": len(scene.rows),
        "patches_predicted": int((scene.folds != SEEN).sum()),
        "pixels": pixels,
        "pixels_not_predicted": covered - pixels,
        "counts": dict(zip(_CELLS, counts.ravel().tolist(), strict=True)),
        "scores": scores(counts) if pixels else None,
        "landslides": len(landslides),
        "below_minimum": below_minimum,
        "area_m2": round(float(landslides["area_m2"].sum()), 1),
        "labels": len(labels),
        "labels_area_m2": round(float(labels["area_m2"].sum()), 1),
        "notes": list(plan.notes),
        "created": info.created.isoformat(timespec="seconds"),
        "landslide_version": info.landslide_version,
        "identity": json.loads(json.dumps(plan.identity(scene), default=str)),
    }
    summary["digests"] = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    with atomic_write(folder / SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _write_rasters(layers: SceneLayers, info: MapInfo, work: Path, folder: Path) -> npt.NDArray[np.int64]:
    """Write the rasters, and return the confusion counts of the predicted pixels."""
    grid = layers.scene.grid
    tags = {"SCENE": info.scene, "MODEL": f"{info.model} {info.model_version}"}
    for name, text, nodata, coloured in (
        ("probability", "landslide probability, out of fold", NO_DATA, False),
        ("uncertainty", "standard deviation of the probability", NO_DATA, False),
        ("mask", "0 no landslide, 1 landslide, 255 not predicted", NOT_ANALYSED, True),
        ("labels", "0 no landslide, 1 landslide, 255 not in the set", NOT_ANALYSED, True),
    ):
        write_raster(
            work / f"{name}.tiled.tif", folder / f"{name}.tif", grid, partial(_layer, layers, name),
            {**tags, "LAYER": text}, nodata, MASK_COLOURS if coloured else None,
        )  # fmt: skip
    counts = np.zeros((2, 2), np.int64)
    for rows in row_slices(grid.height):
        found = layers.rows(rows)
        known = found.mask != NOT_ANALYSED
        counts += confusion_counts(found.mask[known], found.labels[known])
    return counts


def _layer(layers: SceneLayers, name: str, rows: slice) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = getattr(layers.rows(rows), name)
    return values


def _patches(plan: TrainingMapPlan, scene: PlacedScene, folder: Path) -> gpd.GeoDataFrame:
    """Return the outlines of the patches with the columns `_PATCH_COLUMNS`."""
    outlines, differing = [], []
    with rasterio.open(folder / "mask.tif") as mask, rasterio.open(folder / "labels.tif") as labels:
        for top, left in zip(scene.tops.tolist(), scene.lefts.tolist(), strict=True):
            window = Window(left, top, PATCH_SIZE, PATCH_SIZE)
            predicted, labelled = mask.read(1, window=window), labels.read(1, window=window)
            known = predicted != NOT_ANALYSED
            differing.append((predicted != labelled)[known].mean() if known.any() else np.nan)
            west, north = scene.grid.transform @ (left, top)
            east, south = scene.grid.transform @ (left + PATCH_SIZE, top + PATCH_SIZE)
            outlines.append(shapely.box(west, south, east, north))
    columns = {
        "patch": plan.unseen.every["number"].to_numpy()[scene.rows],
        "fold": scene.folds,
        "differing": np.round(differing, 4),
    }
    return gpd.GeoDataFrame(columns, geometry=outlines, crs=scene.grid.crs.to_wkt())


def _info(plan: TrainingMapPlan, layers: SceneLayers) -> MapInfo:
    unseen, name = plan.unseen, layers.scene.name
    said = tiled_scenes(unseen.root).get(name, {})
    when = said.get("datetime")
    used = [threshold for threshold in layers.thresholds if threshold is not None]
    return MapInfo(
        scene=name,
        source=str(unseen.root.resolve()),
        sensor=said.get("sensor"),
        level=said.get("level"),
        image_datetime=when and datetime.fromisoformat(when),
        processing_baseline=None,
        model=registry.MODEL_NAME,
        model_version=unseen.tags["version"],
        model_address=registry.address(unseen.tags["version"]),
        threshold=float(np.mean(used)) if used else unseen.ensemble.threshold,
        minimum_area=plan.settings.min_area,
        blending=_BLENDING,
        augmentation=plan.augmentation,
        created=datetime.now(UTC),
        landslide_version=version("landslide"),
    )


def describe_training_map(maps: Sequence[FinishedMap]) -> str:
    """Return the maps of a training set as a short text, with the scores over all of its scenes."""
    lines = []
    for one in maps:
        found = one.summary
        there = "" if one.new else " (it was there already)"
        lines += [
            f"{found['scene']}: {found['patches_predicted']:,} of {found['patches']:,} patches predicted by networks "
            f"that have not seen them; {found['landslides']:,} predicted landslides, {found['labels']:,} labelled",
            f"map: {one.folder}{there}",
        ]
    counts = np.sum([[one.summary["counts"][cell] for cell in _CELLS] for one in maps], axis=0).reshape(2, 2)
    if counts.any():
        found = scores(counts)
        lines.append(
            f"all {int(counts.sum()):,} predicted pixels, out of fold: macro F1 {100 * found['f1_macro']:.2f} %, "
            f"landslide F1 {100 * found['f1_landslide']:.2f} %, mIoU {100 * found['miou']:.2f} %"
        )
    lines.append("look at it: landslides.gpkg in QGIS, with the layers landslides (predicted) and labels")
    return "\n".join(lines)
