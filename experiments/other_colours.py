"""Scores trained networks on the same test patches in other light and colours, as in another scene.

    python experiments/real_rgb.py train experiments/real_rgb_search.yaml --data DIR --out RESULTS
    python experiments/other_colours.py experiments/real_rgb_search.yaml --data DIR --out RESULTS

Light and colours differ between scenes, by the sun, the air and the ground, and are the same within one. So all test
patches are changed alike: each band is multiplied by a common factor exp(N(0, 0.25)) and its own, exp(N(0, 0.15)), and
N(0, 5) digital numbers of eight bits are added. Eight such changes are drawn once. The spread is assumed, not measured:
this compares recipes, and is no forecast for a scene. Writes other_colours.json to RESULTS and prints a table.
"""

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_rgb import (
    file_name,
    load_record,
    markdown,
    messages,
    plain,
    protocol,
    read_grid,
    read_patches,
    settings_of,
    trained_network,
)
from torch import Tensor, nn

from landslide.bands.batches import PatchBatches
from landslide.files import atomic_write, sha256
from landslide.inference.prediction import landslide_probability
from landslide.metrics.counts import patch_counts, scores

_CHANGES, _SEED, _BATCH = 8, 7, 16
_COMMON, _OWN, _OFFSET = 0.25, 0.15, 5.0


def changes(bands: int) -> list[tuple[Tensor, Tensor]]:
    """Return the factors and offsets of each change, (bands, 1, 1)."""
    rng = np.random.default_rng(_SEED)
    drawn = []
    for _ in range(_CHANGES):
        factors = np.exp(rng.normal(0, _COMMON) + rng.normal(0, _OWN, bands))
        drawn.append((factors, rng.normal(0, _OFFSET, bands)))
    return [tuple(torch.tensor(part, dtype=torch.float32)[:, None, None] for part in one) for one in drawn]  # type: ignore[misc]


def changed(images: Tensor, change: tuple[Tensor, Tensor]) -> Tensor:
    """Return 8-bit patches (B, C, H, W) in other colours, rounded and cut off at 0 and 255."""
    factors, offsets = change
    return (images * factors + offsets).round().clamp(0, 255)


def landslide_f1(model: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Return the landslide F1 at threshold 0.5."""
    counts = np.zeros((2, 2), np.int64)
    for some, truth in zip(images.split(_BATCH), masks.split(_BATCH), strict=True):
        counts += patch_counts(landslide_probability(model, some), truth).sum(axis=0)
    return scores(counts)["f1_landslide"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with messages():
        print(scored(read_grid(arguments.config), arguments.data, arguments.out))


def scored(parameters: dict[str, Any], data: Path, out: Path) -> str:
    """Score all trainings that are not scored yet, and return the table of all; exit if there is no training."""
    cache, table, digest = read_patches(parameters, data, out)
    record = out / "other_colours.json"
    known: dict[str, Any] = read_record(record) if record.exists() else {}
    wanted = {"data_version": digest, **protocol(parameters)}
    for row, seed, fold in product(parameters["rows"], parameters["seeds"], parameters["folds"]["trained"]):
        path = out / f"{file_name(row['name'], fold, seed)}.json"
        weights = path.with_suffix(".safetensors")
        if not path.exists() or not weights.exists():
            continue
        settings = settings_of(parameters["training"], row, seed)
        load_record(path, wanted | {"settings": plain(settings)})
        if known.get(path.stem, {}).get("weights") == (digest_of_weights := sha256(weights)):
            continue
        names = tuple(settings.bands)
        rows = np.flatnonzero((table["fold"] == fold) & table["scored"])
        images, masks = PatchBatches(cache, rows, names, torch.device("cpu")).batch(torch.arange(len(rows)))
        if not torch.equal(images, images.round().clamp(0, 255)):
            raise SystemExit(f"{data} has no patches of eight bits, for which these changes are defined.")
        model, others = trained_network(weights, settings), (changed(images, one) for one in changes(len(names)))
        found = [landslide_f1(model, some, masks) for some in (images, *others)]
        known[path.stem] = {"weights": digest_of_weights, "own": found[0], "changed": found[1:]}
        with atomic_write(record) as unfinished:
            unfinished.write_text(json.dumps(known, indent=1))
    if not known:
        raise SystemExit(f"{out} has no finished training of the grid with its weights.\n  -> Train it first.")
    return shown(parameters, known)


def read_record(path: Path) -> dict[str, Any]:
    """Return the scores that are known; exit if the file is damaged."""
    try:
        known: dict[str, Any] = json.loads(path.read_text())
        if not all({"weights", "own", "changed"} <= set(one) for one in known.values()):
            raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"{path} is damaged.\n  -> Delete it; the trainings are scored again.") from error
    return known


def shown(parameters: dict[str, Any], known: dict[str, Any]) -> str:
    """Return the mean landslide F1 of every row whose trainings are all known, in own and in other colours."""
    lines = [["landslide F1", "own colours", "other colours: mean", "lowest", "highest"]]
    for row in parameters["rows"]:
        names = [file_name(row["name"], f, s) for s in parameters["seeds"] for f in parameters["folds"]["trained"]]
        if all(name in known for name in names):
            own = np.mean([known[name]["own"] for name in names])
            others = np.mean([known[name]["changed"] for name in names], axis=0)
            values = [own, others.mean(), others.min(), others.max()]
            lines.append([row["name"], *(f"{100 * value:.1f}" for value in values)])
    return markdown(lines)


if __name__ == "__main__":
    main()
