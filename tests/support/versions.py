"""Registered versions without training: real runs, networks of width 4 with random weights, fold tables."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import torch
from safetensors.torch import save_file

from landslide.bands.formulas import BandSettings
from landslide.inference.ensemble import Member
from landslide.metrics.counts import METRIC_NAMES
from landslide.models import ModelSpec, build_model
from landslide.tracking import registry, runs
from tests.support.patch_tables import build_patch_table, digests

DATA_VERSION = "a" * 32 + ".dir"


def members(folder: Path, seed: int = 0, bands: tuple[str, ...] = ("B4", "slope")) -> list[Member]:
    """Two networks with random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    specification = ModelSpec(name="unet", options={"width": 4}, bands=bands)
    found = []
    for fold in (1, 2):
        torch.manual_seed(10 * seed + fold)
        weights = {name: tensor.contiguous() for name, tensor in build_model(specification).state_dict().items()}
        path = folder / f"fold-{seed}-{fold}.safetensors"
        save_file(weights, path)
        found.append(Member(fold, specification, 0.5, path))
    return found


def fold_table(folds: tuple[int, ...] = (1, 1, 2, 2)) -> pd.DataFrame:
    """The fold table of patches in these folds, without positions."""
    n = len(folds)
    return build_patch_table(n, folds=folds).assign(mask_md5=digests(range(101, n + 101)))


def add_version(
    client: runs.MlflowClient,
    folder: Path,
    *,
    seed: int = 0,
    score: float = 0.5,
    bands: tuple[str, ...] = ("B4", "slope"),
    table: pd.DataFrame | None = None,
    params: dict[str, Any] | None = None,
    texts: dict[str, str] | None = None,
    with_code: bool = False,
    networks: list[Member] | None = None,
    settings: BandSettings | None = None,
    **tags: str,
) -> str:
    """Record a cross-validation, register its ensemble, and return the version; no alias is given."""
    table = fold_table() if table is None else table
    tags = {
        "data_version": DATA_VERSION,
        "fold_table": str(pd.util.hash_pandas_object(table).sum()),
        "selection": "inner_validation",
        "git_commit": "c" * 40,
        "git_dirty": "false",
        "requirements_lock": "l" * 64,
        **tags,
    }
    run_id = runs.open_cross_validation(
        client,
        uuid4().hex,
        name="test",
        params=params or {"training": {"epochs": 3, "seed": seed}},
        tags={name: value for name, value in tags.items() if name != "data_version"},
        data_version=tags["data_version"],
        data_source="data",
    )
    scores = dict.fromkeys(METRIC_NAMES, score)
    runs.log_scores(client, run_id, {**scores, **{f"{name}_std": 0.01 for name in scores}})
    for name, text in {"fold_table.csv": table.to_csv(index=False), **(texts or {})}.items():
        runs.log_text(client, run_id, text, name)
    with runs.recording(run_id):
        networks = networks or members(folder / "weights", seed, bands)
        uri = runs.log_model(networks, settings or BandSettings(), "float64", {}, with_code=with_code)
    runs.set_tags(client, run_id, {"evaluated": "2020-01-01", "requested": "2020-01-01"})
    return registry.register(
        client, uri, {"run_id": run_id, **tags, **{name: f"{value:.6f}" for name, value in scores.items()}}
    )
