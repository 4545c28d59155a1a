"""Compares networks and recipes on real RGB patches, under one protocol, with only the library.

    python experiments/real_rgb.py train configs/real_rgb.yaml --data DIR --out RESULTS
    python experiments/real_rgb.py table configs/real_rgb.yaml --out RESULTS

DIR contains h5 pairs with the bands that the configuration declares. The configuration is a grid for
`ablation_pipeline` (docs/how-to/run-an-ablation.md); training needs neither ZenML nor MLflow. For every seed and fold,
all rows are trained; finished trainings are skipped and interrupted ones resumed, so the command may be stopped at any
time. Results with different settings or data are refused. Each training writes three files to RESULTS: settings,
learning curves and scores (JSON), the counts of every test patch (CSV), and the weights. `table` needs the first two,
which are kept in docs/results.

With `folds.scheme: contiguous`, the test folds are ground of the same scene. `cluster` and `scene` test on other
ground, with the settings n_folds, seed, gap and in_scene_fraction of docs/reference/folds.md. Each training is then
scored on its in-scene part as well, in the same record (`<score>_in_scene`) and in a second CSV file, and `table` shows
both.

Search for a recipe on folds that are not reported: `--without 1 3` excludes the patches of these folds, which then
cannot be test folds either.
"""

import argparse
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import reduce
from itertools import product
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from tabulate import tabulate
from torch import nn

from landslide import strict_yaml
from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings
from landslide.data.band_statistics import patch_statistics
from landslide.data.digests import directory_digest
from landslide.data.positions import Positions
from landslide.data.table import patch_table
from landslide.errors import DataError, LandslideError
from landslide.evaluation.figures import calibration_figure, thresholds_figure
from landslide.evaluation.scores import (
    FoldEvaluator,
    in_scene_scores,
    patch_report,
    prediction_variants,
    selection_gap,
    threshold_table,
)
from landslide.files import atomic_write
from landslide.folds.parts import FoldRows, HoldOut, fold_parts, inner_validation
from landslide.folds.schemes import ELSEWHERE, assign
from landslide.inference.batches import predict_batches
from landslide.inference.prediction import PredictionSettings
from landslide.metrics.bootstrap import resampling_blocks
from landslide.metrics.calibration import Calibration
from landslide.metrics.counts import patch_counts
from landslide.models import ModelSpec, build_model
from landslide.models.complexity import complexity
from landslide.schema import POSITION_COLUMNS
from landslide.tracking.descriptions import side_by_side_columns
from landslide.training.augmentation import AugmentationSettings
from landslide.training.fold import FoldResult, FoldTask, TrainingSettings, device_of, train_fold
from landslide.training.optimizers import CosineSchedule, StepSchedule
from landslide.training.settings import SelectionSchedule

if TYPE_CHECKING:
    from landslide.ablation.table import AblationRow

HELD_OUT = {"n_folds": 5, "seed": 0, "gap": 1, "in_scene_fraction": 0.1}  # settings of folds of other ground
CELLS = ["tn", "fp", "fn", "tp"]
TURNS = "flips_and_rotations"
HEADINGS = {"f1_macro": "F1", "miou": "mIoU", "f1_landslide": "landslide F1"}


def settings_of(common: dict[str, Any], row: dict[str, Any], seed: int) -> TrainingSettings:
    """Merge the training settings of a row over the common ones, as the ablation pipeline does."""
    changes = row.get("training", {})
    if "model" in changes:
        common = {**common, "model_options": {}}
    if changes.get("schedule", {}).get("kind") not in (None, common.get("schedule", {}).get("kind")):
        common = {**common, "schedule": {}}
    if changes.get("augmentation", {}).get("mode") == "none":
        common = {**common, "augmentation": {}}
    merged = {**common, **changes, "seed": seed}
    for name in ("model_options", "augmentation", "prediction", "head_weights", "schedule", "test_schedule"):
        if name in merged:
            merged[name] = {**common.get(name, {}), **changes.get(name, {})}
    merged["augmentation"] = AugmentationSettings(**merged.get("augmentation", {}))
    merged["prediction"] = PredictionSettings(**merged.get("prediction", {}))
    merged["test_schedule"] = SelectionSchedule(**merged.get("test_schedule", {}))
    merged["bands"] = tuple(merged["bands"])
    if "schedule" in merged:
        merged["schedule"] = schedule_of(**merged["schedule"])
    return TrainingSettings(**merged)


def schedule_of(kind: str, **values: Any) -> StepSchedule | CosineSchedule:
    """Build the schedule of a kind.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind == "cosine":
        return CosineSchedule(**values)
    if kind != "steps":
        raise ValueError(f"training.schedule.kind is {kind!r}; it has to be steps or cosine")
    return StepSchedule(**{name: tuple(map(tuple, rates)) for name, rates in values.items()})


@contextmanager
def messages() -> Iterator[None]:
    """End the script with the message of an error that the user can act on, without a traceback."""
    try:
        yield
    except LandslideError as error:
        raise SystemExit(str(error)) from error


def read_grid(path: Path) -> dict[str, Any]:
    """Read a grid; exit with a message if it is none, or has settings that these scripts do not support."""
    try:
        parameters: dict[str, Any] = strict_yaml.load(path.read_text(), str(path))["parameters"]
        refuse_unsupported(parameters)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from error
    except (KeyError, AttributeError, TypeError) as error:
        raise SystemExit(f"{path} is no grid: {type(error).__name__}: {error}") from error
    except (ValueError, LandslideError) as error:
        raise SystemExit(f"{path}: {error}") from error
    return parameters


def refuse_unsupported(parameters: dict[str, Any]) -> None:
    """Check a grid.

    Raises:
        ValueError: If it has settings that these scripts do not support, or folds that do not exist.
        ConfigurationError: If a setting is out of range.
    """
    read = {
        "grid": (parameters, {"name", "data", "bands", "folds", "seeds", "training", "evaluation", "rows"}),
        "bands": (parameters["bands"], {"stored"}),
        "folds": (parameters["folds"], {"scheme", "trained", "scored", "left_out", *HELD_OUT}),
        "evaluation": (parameters.get("evaluation", {}), {"test_time_augmentation"}),
        **{str(row["name"]): (row, {"name", "paper", "training"}) for row in parameters["rows"]},
        "data": (parameters["data"], {"root", "positions"}),
    }
    for name, (values, known) in read.items():
        if unknown := set(values) - known:
            raise ValueError(f"{name} has {min(unknown)!r}, which this script does not know.")
    if not (parameters["rows"] and parameters["seeds"] and parameters["folds"]["trained"]):
        raise ValueError("rows, seeds or folds.trained is empty, so there is nothing to train.")
    if (positions := parameters["data"].get("positions", "auto")) not in get_args(Positions):
        raise ValueError(f"data.positions is {positions!r}; it has to be one of {', '.join(get_args(Positions))}.")
    BandSettings(stored=tuple(parameters["bands"]["stored"]))
    for row, seed in product(parameters["rows"], parameters["seeds"]):
        if not isinstance(row["name"], str):
            raise TypeError(f"the name {row['name']!r} of a row is no text")
        settings = settings_of(parameters["training"], row, seed)
        if settings.selection != "inner_validation":
            raise ValueError(f"{row['name']} has another selection than inner_validation.")
        if settings.prediction != PredictionSettings():
            raise ValueError(f"{row['name']} has a training.prediction, and rows are scored in the usual variants.")
    if parameters.get("evaluation", {}).get("test_time_augmentation", TURNS) != TURNS:
        raise ValueError(f"evaluation.test_time_augmentation has to be {TURNS}.")
    folds = parameters["folds"]
    if folds.get("scheme", "contiguous") not in ("contiguous", *ELSEWHERE):
        raise ValueError(f"folds.scheme has to be contiguous, {' or '.join(ELSEWHERE)}.")
    if folds.get("scheme", "contiguous") == "contiguous" and (unused := set(folds) - {"scheme", "trained"}):
        raise ValueError(f"folds.{min(unused)} has no effect with contiguous folds.")
    if unknown := set(folds["trained"]) - set(range(1, folds.get("n_folds", 5) + 1)):
        raise ValueError(f"folds.trained has {min(unknown)}, and there are {folds.get('n_folds', 5)} folds.")
    for name in ("scored", "left_out"):
        if unknown := set(folds.get(name, [])) - set(range(1, 6)):
            raise ValueError(f"folds.{name} has {min(unknown)}, and there are 5 contiguous folds.")
    hold_out(parameters)


def file_name(row: str, fold: int, seed: int) -> str:
    return f"{''.join(c if c.isalnum() else '_' for c in row)}-fold{fold}-seed{seed}"


def train(arguments: argparse.Namespace) -> None:
    parameters = read_grid(arguments.config)
    refuse_unknown_rows(arguments.only, parameters)
    if unknown := set(arguments.folds) - set(parameters["folds"]["trained"]):
        raise SystemExit(f"--folds has {min(unknown)}, on which the grid does not test. Change folds.trained.")
    if unknown := set(arguments.seeds) - set(parameters["seeds"]):
        raise SystemExit(f"--seeds has {min(unknown)}, which the grid does not have. Change seeds.")
    if both := set(arguments.without) & set(parameters["folds"]["trained"]):
        raise SystemExit(f"Fold {min(both)} is left out, and the grid tests on it. Change folds.trained.")
    cache, table, digest = read_patches(parameters, arguments.data, arguments.out)
    kept = ~table["fold"].isin([0, *arguments.without]).to_numpy()
    for seed in arguments.seeds or parameters["seeds"]:
        for fold in arguments.folds or parameters["folds"]["trained"]:
            for row in parameters["rows"]:
                if arguments.only and row["name"] not in arguments.only:
                    continue
                settings = settings_of(parameters["training"], row, seed)
                facts = {"row": row["name"], "data_version": digest, "without_folds": arguments.without}
                facts |= {"fold": fold, "settings": plain(settings), **protocol(parameters)}
                path = arguments.out / file_name(row["name"], fold, seed)
                if path.with_suffix(".json").exists():
                    load_record(path.with_suffix(".json"), facts)
                else:
                    train_one(cache, table, kept, settings, hold_out(parameters), fold, path, facts)


def read_patches(parameters: dict[str, Any], data: Path, out: Path) -> tuple[BandCache, pd.DataFrame, str]:
    """Return the bands of all patches, their table with fold and whether scored, and the digest of the data."""
    bands = BandSettings(stored=tuple(parameters["bands"]["stored"]))
    table = patch_table(data, positions=parameters["data"].get("positions", "auto"))
    table = table.assign(fold=folds_of(parameters, data, table), scored=scored(parameters, table))
    digest = directory_digest(data)[0]
    return ensure_cache(out / "caches", data, table, digest, bands), table, digest


def trained_network(weights: Path, settings: TrainingSettings) -> nn.Module:
    """Return the network of a finished training; exit if its weights are not there."""
    if not weights.exists():
        raise SystemExit(f"{weights} is missing; the record beside it does not hold the network.\n  -> Train it again.")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise damaged(weights) from error
    spec = ModelSpec(settings.model, tuple(settings.bands), dict(settings.model_options))
    if settings.standardize:
        mean, std = (tuple(tensors[name].flatten().tolist()) for name in ("mean", "std"))
        spec = replace(spec, mean=mean, std=std)
    return build_model(spec, tensors)


def protocol(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return what a record says about the folds; nothing if they are contiguous."""
    folds = HELD_OUT | parameters["folds"]
    if folds.get("scheme", "contiguous") == "contiguous":
        return {}
    return {"folds": {name: value for name, value in folds.items() if name != "trained"}}


def hold_out(parameters: dict[str, Any]) -> HoldOut:
    """Return what is not trained on beside a test fold."""
    folds = protocol(parameters).get("folds", {})
    return HoldOut(**{name: folds[name] for name in ("gap", "in_scene_fraction", "seed") if name in folds})


def folds_of(parameters: dict[str, Any], data: Path, table: pd.DataFrame) -> np.ndarray:
    """Return the fold of every patch, 0 for those that are left out."""
    folds = protocol(parameters).get("folds", {"scheme": "contiguous", "n_folds": 5, "seed": 0})
    used = ~in_contiguous_folds(table, folds.get("left_out", []))
    part, statistics = table[used], None
    if folds["scheme"] == "cluster":
        statistics = patch_statistics(data, part["image"].tolist(), len(parameters["bands"]["stored"]))
    positions = part[list(POSITION_COLUMNS)]
    found = np.zeros(len(table), np.int64)
    found[used] = assign(
        part["number"].tolist(), scheme=folds["scheme"], n_folds=folds["n_folds"], seed=folds["seed"],
        scenes=None if positions.isna().any(axis=None) else positions, statistics=statistics,
    )  # fmt: skip
    return found


def in_contiguous_folds(table: pd.DataFrame, folds: list[int]) -> np.ndarray:
    """Return which patches are in some of the five contiguous folds."""
    return np.isin(assign(table["number"].tolist(), scheme="contiguous"), folds)


def scored(parameters: dict[str, Any], table: pd.DataFrame) -> np.ndarray:
    """Return which patches are scored when they are tested."""
    if "scored" not in parameters["folds"]:
        return np.ones(len(table), bool)
    return in_contiguous_folds(table, parameters["folds"]["scored"])


def refuse_unknown_rows(names: list[str], parameters: dict[str, Any]) -> None:
    """Exit with a message if the grid does not have all of these rows."""
    if unknown := set(names) - {row["name"] for row in parameters["rows"]}:
        raise SystemExit(f"The grid has no row {min(unknown)!r}.")


def plain(settings: TrainingSettings) -> dict[str, Any]:
    """Return settings as plain JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def load_record(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a finished training; exit with a message if its settings or data differ from `wanted`."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        settings = found["settings"]  # settings newer than the record have their defaults
        recorded = found | {"settings": plain(settings_of({}, {"training": settings}, settings["seed"]))}
        other = [name for name, value in wanted.items() if recorded.get(name) != value]
        if {"data_version", "scores", "fold"} - set(found):
            raise KeyError("data_version, scores or fold")
    except (ValueError, KeyError, TypeError, AttributeError, LandslideError) as error:
        raise damaged(path) from error
    if other:
        raise SystemExit(f"{path} was trained with other values of {other[0]}.\n  -> Delete it, or use another folder.")
    return found


def damaged(path: Path) -> DataError:
    return DataError(f"{path} is missing or damaged.", remedy=f"Delete {path.with_suffix('.json')} and train again.")


def train_one(
    cache: BandCache,
    table: pd.DataFrame,
    kept: np.ndarray,
    settings: TrainingSettings,
    held: HoldOut,
    fold: int,
    path: Path,
    facts: dict[str, Any],
) -> None:
    """Train, score and record one fold; its JSON file is written last."""
    used = np.flatnonzero(kept)
    parts = fold_parts(table.iloc[used], fold, held)
    rows = used[parts.remaining]
    chosen = inner_validation(table.iloc[rows], fraction=settings.validation_fraction, seed=settings.seed)
    tested = np.flatnonzero((table["fold"] == fold) & table["scored"])
    task = FoldTask(
        cache=cache,
        rows=FoldRows(rows[~chosen], rows[chosen], tested),
        bands=tuple(settings.bands),
        settings=settings,
        checkpoints=path.with_suffix(".checkpoints"),
        label=path.name,
    )
    result = train_fold(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(result.weights, path.with_suffix(".safetensors"))
    facts |= score_one(cache, table.iloc[tested], settings, result, path.with_suffix(".csv"))
    if parts.in_scene.any():
        part = table.iloc[used[parts.in_scene]].assign(fold=fold)
        facts["scores"] |= score_in_scene(cache, part, settings, result, path.with_suffix(".in_scene.csv"))
    with atomic_write(path.with_suffix(".json")) as unfinished:
        unfinished.write_text(json.dumps(facts, indent=1))
    shutil.rmtree(task.checkpoints, ignore_errors=True)


def score_one(
    cache: BandCache, tested: pd.DataFrame, settings: TrainingSettings, result: FoldResult, counts: Path
) -> dict[str, Any]:
    """Predict the tested patches in every variant; write their counts and return the other facts to record."""
    bands, device = tuple(settings.bands), device_of(settings)
    rows = tested.index.to_numpy(np.int64)
    model = build_model(result.spec, load_file(result.weights))
    heads = len(model(torch.zeros(1, len(bands), 128, 128)))
    variants = prediction_variants(PredictionSettings(), several_heads=heads > 1, test_time_augmentation=TURNS)
    evaluator, cells = FoldEvaluator(threshold=result.threshold), {variant: [] for variant in variants if variant}
    for _, predicted, masks in predict_batches(model, cache, rows, bands, variants, device=device):
        evaluator.add(predicted, masks)
        for variant, of_variant in cells.items():
            of_variant.append(patch_counts(predicted[variant], masks).reshape(-1, 4))
    evaluated = evaluator.evaluation()
    report = patch_report(tested.drop(columns="scored"), {int(tested["fold"].iloc[0]): evaluated})
    for variant, of_variant in cells.items():
        report[[f"{cell}{variant}" for cell in CELLS]] = np.concatenate(of_variant)
    report.drop(columns="detection_score").to_csv(counts, index=False)
    cost = complexity(settings.model, len(bands), settings.model_options)
    return {
        "seed": settings.seed,
        "epoch": result.epoch,
        "training_seconds": sum(record["epoch_seconds"] for record in result.history),
        "processor_seconds": sum(record["epoch_processor_seconds"] for record in result.history),
        "parameters": cost.parameters,
        "gflop": cost.gflop,
        "machine": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "scores": evaluated.scores | selection_gap(result.history, result.epoch, settings.select_by),
        "thresholds": evaluated.threshold_counts.reshape(-1, 4).tolist(),
        "calibration": {name: np.asarray(v).tolist() for name, v in asdict(evaluated.calibration).items()},
        "history": result.history,
    }


def score_in_scene(
    cache: BandCache, part: pd.DataFrame, settings: TrainingSettings, result: FoldResult, counts: Path
) -> dict[str, float]:
    """Predict the in-scene part; write the counts of its patches and return its scores."""
    model = build_model(result.spec, load_file(result.weights))
    evaluator, own_way = FoldEvaluator(threshold=result.threshold), {"": PredictionSettings()}
    rows, device = part.index.to_numpy(np.int64), device_of(settings)
    for _, predicted, masks in predict_batches(model, cache, rows, tuple(settings.bands), own_way, device=device):
        evaluator.add(predicted, masks)
    evaluated = evaluator.evaluation()
    patch_report(part, {int(part["fold"].iloc[0]): evaluated}).to_csv(counts, index=False)
    return in_scene_scores(evaluated)


def recorded(
    parameters: dict[str, Any], out: Path, row: dict[str, Any], seed: int, variant: str = ""
) -> list[dict[str, Any]]:
    """Return the finished trainings of a row with a seed: the records with the counts of the test patches."""
    wanted = {"settings": plain(settings_of(parameters["training"], row, seed)), "without_folds": []}
    wanted |= protocol(parameters)
    records = []
    for fold in parameters["folds"]["trained"]:
        path = out / f"{file_name(row['name'], fold, seed)}.json"
        if path.exists():
            records.append(load_record(path, wanted))
            wanted["data_version"] = records[-1]["data_version"]
            cells = dict(zip([f"{cell}{variant}" for cell in CELLS], CELLS, strict=True))
            try:
                patches = pd.read_csv(path.with_suffix(".csv"))
                first = patches.columns.get_loc("tn")
                records[-1]["patches"] = patches[[*patches.columns[:first], *cells]].rename(columns=cells)
            except (OSError, ValueError, KeyError) as error:
                raise damaged(path.with_suffix(".csv")) from error
    return records


def finished_rows(parameters: dict[str, Any], out: Path, variant: str, seconds: str) -> "list[AblationRow]":
    """Return the rows with the seeds whose folds are all trained, with the counts of one prediction variant."""
    from landslide.ablation.table import AblationRow, TrainedRow  # imports MLflow, which training does not need

    wanted = set(parameters["folds"]["trained"])
    tags = {"folds_trained": ", ".join(map(str, sorted(wanted))), "selection": "inner_validation"}
    tags |= {"fold_scheme": parameters["folds"].get("scheme", "contiguous")}
    rows, versions = [], set()
    for row in parameters["rows"]:
        trained = []
        for seed in parameters["seeds"]:
            records = recorded(parameters, out, row, seed, variant)
            if {record["fold"] for record in records} == wanted:
                patches = pd.concat([record["patches"] for record in records]).sort_values("number", ignore_index=True)
                patches["block"] = resampling_blocks(patches)
                used = sum(record[seconds] for record in records)
                trained.append(
                    TrainedRow(seed, "", tags, patches, used, "", {} if variant else other_variants(records))
                )
                versions.add(records[0]["data_version"])
                cost = records[0]["parameters"], records[0]["gflop"]
        if trained:
            rows.append(AblationRow(row["name"], {}, *cost, tuple(trained)))
    if len(versions) > 1:
        raise SystemExit(f"{out} has trainings on different data: {', '.join(sorted(versions))}.")
    return rows


def other_variants(records: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean over the folds of the scores of the other prediction variants that a network has."""
    from landslide.ablation.table import SCORES, VARIANTS

    scores = [record["scores"] for record in records]
    names = [f"{score}{variant}" for score in SCORES for variant in VARIANTS]
    return {name: float(np.mean([of_fold[name] for of_fold in scores])) for name in names if name in scores[0]}


def print_tables(arguments: argparse.Namespace) -> None:
    """Print the tables of all finished trainings, and draw calibration and thresholds of one row."""
    from landslide.ablation.report import render_markdown
    from landslide.ablation.table import ablation_table

    parameters = read_grid(arguments.config)
    refuse_unknown_rows([*filter(None, [arguments.gains_of, arguments.figures])], parameters)
    for variant, title in (("", "One prediction per patch"), ("_tta", "Mean of the eight symmetries")):
        rows = finished_rows(parameters, arguments.out, variant, arguments.seconds)
        if not rows:
            raise SystemExit(f"{arguments.out} has no row of {arguments.config} that is trained on all folds.")
        print(render_markdown(ablation_table(rows), title, ""))
        print(f"Training: {arguments.seconds.replace('_', ' ')} of all folds.\n")
        if arguments.gains_of:
            print(gains(rows, arguments.gains_of))
    print(every_training(parameters, arguments.out, arguments.seconds))
    print(selection_gaps(parameters, arguments.out))
    for row in parameters["rows"]:
        if row["name"] == arguments.figures:
            records = [one for seed in parameters["seeds"] for one in recorded(parameters, arguments.out, row, seed)]
            if not records:
                raise SystemExit(f"{row['name']!r} has no finished training to draw.")
            draw(records, arguments.out)


def gains(rows: "list[AblationRow]", name: str) -> str:
    """Return as Markdown by how many points a row exceeds each other row, with intervals."""
    from landslide.ablation.table import ablation_table

    found = [row for row in rows if row.name == name]
    if not found:
        raise SystemExit(f"{name!r} is not trained on all folds yet.")
    lines = [[f"gain of {name} over", *(f"{heading} [95 %]" for heading in HEADINGS.values())]]
    for other in rows:
        if other.name != name:
            gain = ablation_table([other, *found]).iloc[1]
            values = ([gain[f"{score}_gain{end}"] for end in ("", "_low", "_high")] for score in HEADINGS)
            lines.append([other.name, *("{:+.2f} [{:+.2f}, {:+.2f}]".format(*value) for value in values)])
    return markdown(lines)


def every_training(parameters: dict[str, Any], out: Path, seconds: str) -> str:
    """Return the scores of every finished training as Markdown, with one prediction per patch."""
    elsewhere = ELSEWHERE.get(parameters["folds"].get("scheme", "contiguous"))
    columns = dict(HEADINGS)
    if elsewhere is not None:
        columns = {name: ", ".join(heading) for name, heading in side_by_side_columns(elsewhere).items()}
    lines = [["training", "seed", "fold", *columns.values(), "epoch", seconds.replace("_", " ")]]
    for row in parameters["rows"]:
        for seed in parameters["seeds"]:
            for one in recorded(parameters, out, row, seed):
                values = [f"{100 * one['scores'].get(name, np.nan):.2f}" for name in columns]
                cells = [row["name"], str(seed), str(one["fold"]), *values, str(one["epoch"]), f"{one[seconds]:.0f}"]
                lines.append(cells)
    return markdown(lines)


def selection_gaps(parameters: dict[str, Any], out: Path) -> str:
    """Return as Markdown by how many points the best epoch on the test fold exceeds the chosen epoch."""
    lines = [["chosen on the test fold", "trainings", *HEADINGS.values()]]
    for row in parameters["rows"]:
        scores = [one["scores"] for seed in parameters["seeds"] for one in recorded(parameters, out, row, seed)]
        if gaps := [of_fold for of_fold in scores if "f1_macro_selection_gap" in of_fold]:
            means = [np.mean([100 * gap[f"{name}_selection_gap"] for gap in gaps]) for name in HEADINGS]
            lines.append([row["name"], str(len(gaps)), *(f"{mean:+.2f}" for mean in means)])
    return markdown(lines) if len(lines) > 1 else ""


def markdown(lines: list[list[str]]) -> str:
    """Return a table whose first line has the headings."""
    heading, *rows = lines
    alignment = ["left", *["right"] * (len(heading) - 1)]
    return tabulate(rows, heading, tablefmt="pipe", colalign=alignment, disable_numparse=True) + "\n"


def draw(records: list[dict[str, Any]], folder: Path) -> None:
    """Draw calibration and threshold sweep of the trainings of a row together."""
    sums = [
        Calibration(**{name: np.asarray(value) for name, value in record["calibration"].items()}) for record in records
    ]
    total = reduce(add, sums)
    calibration_figure({f"{len(records)} trainings": total.table()}).savefig(folder / "calibration.png", dpi=110)
    counts = np.sum([record["thresholds"] for record in records], axis=0).reshape(-1, 2, 2)
    tuned = [record["scores"]["threshold"] for record in records]
    thresholds_figure(threshold_table(counts), tuned).savefig(folder / "thresholds.png", dpi=110)
    print(total.scores())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train the missing rows, seeds and folds")
    training.add_argument("config", type=Path)
    training.add_argument("--data", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--without", type=int, nargs="*", default=[], help="folds whose patches are excluded")
    training.add_argument("--only", nargs="*", default=[], help="names of rows")
    training.add_argument("--seeds", type=int, nargs="*", default=[], help="seeds, to run side by side")
    training.add_argument("--folds", type=int, nargs="*", default=[], help="test folds, likewise")
    training.set_defaults(run=train)
    tables = commands.add_parser("table", help="print the tables of all finished trainings")
    tables.add_argument("config", type=Path)
    tables.add_argument("--out", type=Path, required=True)
    tables.add_argument("--seconds", choices=["training_seconds", "processor_seconds"], default="processor_seconds")
    tables.add_argument("--gains-of", metavar="ROW", help="print by how much this row exceeds each other row")
    tables.add_argument("--figures", metavar="ROW", help="draw calibration.png and thresholds.png of this row")
    tables.set_defaults(run=print_tables)
    arguments = parser.parse_args()
    with messages():
        arguments.run(arguments)


if __name__ == "__main__":
    main()
