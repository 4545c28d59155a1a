"""Searches for a recipe that holds on ground which no training patch comes from.

    python experiments/other_ground.py search --data DIR --out RESULTS
    python experiments/other_ground.py effects --out RESULTS

DIR holds the real RGB patches as h5 pairs. Contiguous folds 1 and 3 are left out: on them the recipe is scored later.
The others are divided into four clusters. Every training draws for each factor of `FACTORS`, with equal chances, whether
it is on; so all trainings tell about every factor. `effects` fits the scores by the factors and the clusters, by least
squares. Several processes may search at once: each training is claimed by a file. Finished ones are skipped.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from real_rgb import plain, settings_of, train_one
from safetensors.torch import load_file
from tabulate import tabulate

from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings
from landslide.data.band_statistics import patch_statistics
from landslide.data.digests import directory_digest
from landslide.data.table import patch_table
from landslide.evaluation.scores import FoldEvaluator
from landslide.folds.parts import HoldOut
from landslide.folds.schemes import assign
from landslide.inference.batches import predict_batches
from landslide.inference.prediction import PredictionSettings
from landslide.models import ModelSpec, build_model
from landslide.training.fold import TrainingSettings, device_of

CLUSTERS = 4
SCORED_LATER = (1, 3)
HELD = HoldOut(gap=1, in_scene_fraction=0.15)
TRAININGS = 400
CE = "cross_entropy_per_pixel+iou"
CHANGES = {
    "base": {},
    "ce": {"loss": CE},
    "x2": {"model_options": {"enlarge": 2}},
    "ema995": {"average_decay": 0.995},
    "patchnorm": {"model_options": {"patch_norm": True}},
    "epochs24": {"epochs": 24},
    "haze": {"augmentation": {"haze": 0.5}},
    "rate2e-3": {"schedule": {"peak": 2e-3}},
    "b4": {"batch_size": 4},
    "b4ce": {"batch_size": 4, "loss": CE},
    "b4rate5e-4": {"batch_size": 4, "schedule": {"peak": 5e-4}},
    "gn": {"model_options": {"group_norm": True}},
    "frozen": {"model_options": {"frozen_norm": True}},
    "gnfrozen": {"model_options": {"group_norm": True, "frozen_norm": True}},
    "radio": {"augmentation": {"gain": 0.15, "haze": 0.3, "illumination": 0.3}},
    "lite2": {"model_options": {"encoder": "lite2"}},
    "nopastes": {"augmentation": {"max_pastes": 0}},
    "flips": {"augmentation": {"flips": True}},
    "csmask3e-4": {
        "model": "smp:Unet:efficientnet-b4",
        "model_options": {"encoder_weights": "csmask"},
        "schedule": {"peak": 3e-4},
    },
}
ORDER = [
    ("b4", 0),
    ("b4ce", 0),
    ("b4rate5e-4", 0),
    ("base", 0),
    ("gn", 0),
    ("frozen", 0),
    ("ce", 0),
    ("patchnorm", 0),
    ("gnfrozen", 0),
    ("radio", 0),
    ("ema995", 0),
    ("base", 1),
    ("gn", 1),
]
ARMS = [(a, c, s) for a, s in ORDER for c in (3, 4)]
EXTRA = ((), ("flips", "warp", "gain", "illumination"))

FACTORS: dict[str, dict[str, Any]] = {
    "flips": {"augmentation": {"flips": True}},
    "warp": {"augmentation": {"warp": 0.5}},
    "gain": {"augmentation": {"gain": 0.3}},
    "illumination": {"augmentation": {"illumination": 0.3}},
    "haze": {"augmentation": {"haze": 0.5}},
    "sharpness": {"augmentation": {"sharpness": 0.7}},
    "band dropout": {"augmentation": {"band_dropout": 0.2}},
    "statistics mixing": {"augmentation": {"statistics_mixing": 0.5}},
    "amplitude mixing": {"augmentation": {"amplitude_mixing": 0.5}},
    "no pastes": {"augmentation": {"max_pastes": 0}},
    "normalised per patch": {"model_options": {"patch_norm": True}},
    "drop path": {"model_options": {"drop_path": 0.2, "dropout": 0.3}},
    "b4": {"batch_size": 4},
    "b4ce": {"batch_size": 4, "loss": CE},
    "b4rate5e-4": {"batch_size": 4, "schedule": {"peak": 5e-4}},
    "gn": {"model_options": {"group_norm": True}},
    "frozen": {"model_options": {"frozen_norm": True}},
    "gnfrozen": {"model_options": {"group_norm": True, "frozen_norm": True}},
    "radio": {"augmentation": {"gain": 0.15, "haze": 0.3, "illumination": 0.3}},
    "lite2": {"model_options": {"encoder": "lite2"}},
    "average": {"average_decay": 0.98},
    "outlines": {"outline_smoothing": 1},
    "cross entropy": {"loss": "cross_entropy_per_pixel+iou"},
    "weight decay": {"optimizer": "adamw", "weight_decay": 0.1},
    "rate 5e-4": {"schedule": {"peak": 5e-4}},
    "batch of 16": {"batch_size": 16},
}


def merged(common: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Merge nested settings."""
    result = dict(common)
    for name, value in changes.items():
        result[name] = merged(result[name], value) if isinstance(value, dict) and name in result else value
    return result


def design() -> pd.DataFrame:
    """Return which factors are on in every training, one row each: columns of booleans, and the cluster."""
    rng = np.random.default_rng(16)
    rows = []
    for _ in range(TRAININGS // 8):
        halves = np.stack([rng.permutation(8) < 4 for _ in FACTORS], axis=1)
        rows.append(pd.DataFrame(halves, columns=list(FACTORS)).assign(cluster=np.arange(8) % CLUSTERS + 1))
    return pd.concat(rows, ignore_index=True)


def read(data: Path, out: Path) -> tuple[Any, pd.DataFrame, np.ndarray, str]:
    """Return the cache, the table with the cluster of every patch that may be used, and which may."""
    table = patch_table(data, positions="landslide4sense")
    usable = ~np.isin(assign(table["number"].tolist(), scheme="contiguous", n_folds=5), SCORED_LATER)
    part = table[usable]
    statistics = patch_statistics(data, part["image"].tolist(), 3)
    fold = np.zeros(len(table), np.int64)
    fold[usable] = assign(
        part["number"].tolist(), scheme="cluster", n_folds=CLUSTERS, seed=0, scenes=part[["scene", "row", "column"]],
        statistics=statistics,
    )  # fmt: skip
    digest = directory_digest(data)[0]
    cache = ensure_cache(out / "caches", data, table, digest, BandSettings(stored=("B4", "B3", "B2")))
    return cache, table.assign(fold=fold), usable, digest


def claimed(path: Path) -> bool:
    """Claim a training; return False if it was before."""
    try:
        path.with_suffix(".claimed").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def search(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    parameters = yaml.safe_load(Path("configs/real_rgb.yaml").read_text())["parameters"]
    common = {**parameters["training"], "model": "lite_unet", "model_options": {"encoder_weights": "imagenet"}}
    common |= {"max_patches": arguments.patches, "epochs": arguments.epochs, "monitor_test_fold": False}
    cache, table, usable, digest = read(arguments.data, arguments.out)
    drawn = design()
    others = [(1000 + i, {**{n: n in EXTRA[i % 2] for n in FACTORS}, "cluster": i // 2 + 1}) for i in range(8)]
    jobs = list(drawn.iterrows())
    if arguments.arms:
        jobs = [(f"{arm}-{c}-{seed}", arm, c, seed) for arm, c, seed in ARMS]
        return arms(jobs, common, cache, table, usable, digest, arguments)
    if arguments.all:
        jobs, others = [(0, {**dict.fromkeys(FACTORS, True), "cluster": 4})], others[:1]
    jobs[12:12] = others
    for number, on in jobs:
        path = arguments.out / f"search-{number:03d}"
        if time.monotonic() - started > arguments.seconds:
            break
        if not claimed(path):
            continue
        changes = [FACTORS[name] for name in FACTORS if on[name]]
        training = common
        for change in changes:
            training = merged(training, change)
        if number >= 1000:
            training = {**training, "model": "smp:Unet:efficientnet-b4", "model_options": {"encoder_weights": "csmask"}}
        try:
            settings = settings_of({}, {"training": training}, number)
            facts = {"on": [name for name in FACTORS if on[name]], "fold": int(on["cluster"]), "data_version": digest}
            train_one(
                cache,
                table.assign(scored=True),
                usable,
                settings,
                HELD,
                int(on["cluster"]),
                path,
                facts | {"settings": plain(settings)},
            )
            adapt(cache, table, settings, int(on["cluster"]), path)
        except Exception as error:
            path.with_suffix(".failed").write_text(repr(error))
            print(number, repr(error), flush=True)
        print(f"{number} {time.monotonic() - started:.0f} s", flush=True)


def arms(jobs, common, cache, table, usable, digest, arguments) -> None:
    import real_rgb

    real_rgb.prediction_variants = lambda *a, **k: {"": PredictionSettings()}
    started = time.monotonic()
    for name, arm, cluster, seed in jobs:
        path = arguments.out / f"arm-{name}"
        if time.monotonic() - started > arguments.seconds:
            break
        if not claimed(path):
            continue
        training = merged(common, CHANGES[arm])
        if "model" in CHANGES[arm]:
            training["model_options"] = CHANGES[arm]["model_options"]
        if cluster < 0:
            training = {**training, "epochs": 16}
        settings = settings_of({}, {"training": training}, seed)
        facts = {"arm": arm, "fold": cluster, "data_version": digest, "settings": plain(settings)}
        here, fold = table, cluster
        if cluster < 0:  # trains on one cluster alone
            here, fold = table.assign(fold=np.where(table["fold"] == -cluster, 2, np.where(usable, 1, 0))), 1
        train_one(
            cache,
            here.assign(scored=True),
            usable,
            settings,
            HELD if cluster > 0 else HoldOut(in_scene_fraction=0.1),
            fold,
            path,
            facts,
        )
        print(f"{name} {time.monotonic() - started:.0f} s", flush=True)


def table_of_arms(arguments: argparse.Namespace) -> None:
    rows = []
    for path in sorted(arguments.out.glob("arm-*.json")):
        f = json.loads(path.read_text())
        counts = np.array(f["thresholds"], float)
        f1 = 2 * counts[:, 3] / np.maximum(2 * counts[:, 3] + counts[:, 1] + counts[:, 2], 1)
        rows.append(
            {
                "arm": f["arm"],
                "cluster": f["fold"],
                "seed": f["seed"],
                "elsewhere": 100 * f["scores"]["f1_landslide"],
                "best": 100 * f1.max(),
                "in scene": 100 * f["scores"]["f1_landslide_in_scene"],
                "epoch": f["epoch"],
                "s": f["training_seconds"],
            }
        )
    d = pd.DataFrame(rows)
    print(d.round(1).to_string())
    print(d.pivot_table(index="arm", columns="cluster", values=["elsewhere", "in scene"]).round(1).to_string())


def adapt(cache: Any, table: pd.DataFrame, settings: TrainingSettings, fold: int, path: Path) -> None:
    """Score the test fold with batch normalisation statistics of the test fold, whole and half."""
    facts = json.loads(path.with_suffix(".json").read_text())
    rows, device = np.flatnonzero(table["fold"] == fold), device_of(settings)
    weights = load_file(path.with_suffix(".safetensors"))
    mean, std = (tuple(weights[name].flatten().tolist()) for name in ("mean", "std"))
    spec = ModelSpec(settings.model, tuple(settings.bands), dict(settings.model_options), mean, std)
    facts["adapted"] = {}
    for share in (0.5, 1.0):
        model = build_model(spec, weights).to(device)
        with_statistics_of(model, cache, rows, tuple(settings.bands), device, share)
        evaluator = FoldEvaluator(threshold=0.5)
        for _, predicted, masks in predict_batches(
            model, cache, rows, tuple(settings.bands), {"": PredictionSettings()}, device=device
        ):
            evaluator.add(predicted, masks)
        evaluated = evaluator.evaluation()
        facts["adapted"][str(share)] = evaluated.scores
    path.with_suffix(".json").write_text(json.dumps(facts))


def with_statistics_of(
    model: Any, cache: Any, rows: np.ndarray, bands: tuple[str, ...], device: Any, share: float
) -> None:
    """Move the statistics of batch normalisation towards those of some patches, in place."""
    from landslide.bands.batches import PatchBatches

    layers = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    before = [(m.running_mean.clone(), m.running_var.clone()) for m in layers]
    for m in layers:
        m.reset_running_stats()
        m.momentum = None
        m.train()
    source = PatchBatches(cache, rows, bands, device, resident=False)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for part in order.split(16):
            model(source.batch(part)[0])
    for m, (mean, var) in zip(layers, before, strict=True):
        m.running_mean.lerp_(mean, 1 - share)
        m.running_var.lerp_(var, 1 - share)
        m.eval()


def collected(out: Path) -> pd.DataFrame:
    """Return the scores of every finished training with its factors."""
    rows = []
    for path in sorted(out.glob("search-*.json")):
        facts = json.loads(path.read_text())
        s = facts["scores"]
        row = {name: name in facts["on"] for name in FACTORS} | {"cluster": facts["fold"]}
        row["csmask"] = facts["settings"]["model"] != "lite_unet"
        row |= {"elsewhere": s["f1_landslide"], "in scene": s["f1_landslide_in_scene"], "tta": s["f1_landslide_tta"]}
        counts = np.array(facts["thresholds"], float)  # tn fp fn tp by threshold
        f1 = 2 * counts[:, 3] / np.maximum(2 * counts[:, 3] + counts[:, 1] + counts[:, 2], 1)
        row |= {"best threshold": f1.max()}
        row |= {f"adapted {share}": v["f1_landslide"] for share, v in facts.get("adapted", {}).items()}
        row |= {"epoch": facts["epoch"], "seconds": facts["training_seconds"]}
        rows.append(row)
    return pd.DataFrame(rows)


def effects(arguments: argparse.Namespace) -> None:
    found = collected(arguments.out)
    print(found[found["csmask"]].drop(columns=list(FACTORS)).to_markdown())
    found = found[~found["csmask"]].drop(columns="csmask")
    numbers = [c for c in found.columns if c not in FACTORS and c not in ("cluster", "epoch", "seconds")]
    print(found.groupby("cluster")[numbers].mean().mul(100).round(1).to_markdown())
    design_matrix = np.column_stack(
        [
            found[list(FACTORS)].to_numpy(float) - 0.5,
            *(found["cluster"] == c for c in sorted(found["cluster"].unique())),
        ]
    ).astype(float)
    lines = []
    for target in ("elsewhere", "tta", "adapted 0.5", "in scene"):
        y = 100 * found[target].to_numpy(float)
        ok = np.isfinite(y)
        x = design_matrix[ok]
        beta, *_ = np.linalg.lstsq(x, y[ok], rcond=None)
        rest = y[ok] - x @ beta
        sigma = np.sqrt((rest**2).sum() / (len(rest) - x.shape[1]))
        error = sigma * np.sqrt(np.diag(np.linalg.pinv(x.T @ x)))
        lines.append([f"{b:+.1f} ± {e:.1f}" for b, e in zip(beta[: len(FACTORS)], error, strict=False)])
    print(len(found), "trainings, residual", round(float(sigma), 2))
    print(tabulate(list(zip(FACTORS, *lines, strict=True)), ["factor", "elsewhere", "tta", "adapted half", "in scene"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("search")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--seconds", type=float, default=1e9)
    one.add_argument("--patches", type=int, default=400)
    one.add_argument("--epochs", type=int, default=12)
    one.add_argument("--all", action="store_true")
    one.add_argument("--arms", action="store_true")
    one.set_defaults(run=search)
    two = commands.add_parser("effects")
    two.add_argument("--out", type=Path, required=True)
    two.set_defaults(run=effects)
    three = commands.add_parser("arms")
    three.add_argument("--out", type=Path, required=True)
    three.set_defaults(run=table_of_arms)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
