"""Measures `landslide data audit`: known errors are put among the labels of a data set, and looked for.

    source activate.sh
    python experiments/label_audit.py corrupt --data DIR --out RESULTS    # RESULTS/data: a tenth of the labels wrong
    python experiments/label_audit.py train --data RESULTS/data --config configs/own_rgb.yaml --out RESULTS
    python experiments/label_audit.py measure --out RESULTS --name rgb --folds 2 3 5
    python experiments/label_audit.py first --data DIR --out RESULTS      # of networks that were trained on DIR itself
    python experiments/label_audit.py write                               # the tables of docs/explanation/results.md

DIR contains h5 pairs with the bands that the configuration declares. `train` trains the networks of five contiguous
folds on the wrong labels; finished folds are skipped and interrupted ones resumed. `measure` ranks all labelled and
predicted landslides out of fold and counts how early the errors come. The formula of the score was chosen with folds 1
and 4 of the RGB patches, by networks trained on unchanged labels, and with the demo set of seed 0; so the other folds
are measured, and a demo set of seed 1.
"""

import argparse
import json
import math
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import h5py
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import yaml
from earlier_recipe import EARLIER
from pydantic import TypeAdapter

from landslide.bands.build import ensure_cache
from landslide.bands.formulas import BandSettings, resolve_bands
from landslide.data.digests import directory_digest
from landslide.data.patches import read_mask, write_array
from landslide.data.table import patch_table
from landslide.folds.parts import fold_rows
from landslide.folds.schemes import assign
from landslide.inference.ensemble import Ensemble, Member, load_members, save_ensemble
from landslide.labels.audit import audited_objects, noise, predicted_mask, references, union_objects
from landslide.labels.candidates import KINDS, VERDICTS
from landslide.labels.objects import label_objects
from landslide.labels.predictions import Predictions, predict_out_of_fold
from landslide.metrics.bootstrap import resampling_blocks
from landslide.tiling.contact_sheet import picture_of
from landslide.training.fold import FoldTask, TrainingSettings, train_fold

Mask = npt.NDArray[np.bool_]

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "results" / "label_audit.json"
FIRST = ROOT / "docs" / "results" / "audit_first_40.csv"
IMAGE = ROOT / "docs" / "images" / "audit_first_40.jpg"
PAGE = ROOT / "docs" / "explanation" / "results.md"
SHOWN = 40

N_FOLDS = 5
SHARE = 0.1  # of the labels that are made wrong
SMALLEST = 10  # pixels of a label that is made wrong
APART = 3  # pixels between a false label and others
TRIALS = 200  # places for a false label
TOP = (20, 50, 100, 200)
RESAMPLES = 1000
CHANGES = {"epochs": 12, "max_patches": 400}  # of three-band configurations, so that two cores need minutes


def train(arguments: argparse.Namespace) -> None:
    """Train the folds, and save each as an ensemble of one member."""
    parameters = yaml.safe_load(arguments.config.read_text())["parameters"]
    table, digest = fold_table(arguments.data)
    bands = BandSettings(**{name: tuple(value) for name, value in parameters.get("bands", {}).items()})
    settings = training_settings(parameters)
    cache = ensure_cache(arguments.out / "caches", arguments.data, table, digest, bands)
    for fold in arguments.folds:
        folder = arguments.out / f"fold-{fold}"
        if folder.exists():
            continue
        task = FoldTask(
            cache=cache,
            rows=fold_rows(table, fold, validation_fraction=settings.validation_fraction, seed=settings.seed),
            bands=resolve_bands(settings.bands, bands.names),
            settings=settings,
            checkpoints=arguments.out / f"fold-{fold}.checkpoints",
            label=f"fold {fold}",
        )
        result = train_fold(task)
        save_ensemble(folder, [Member(fold, result.spec, result.threshold, result.weights)], bands)


def fold_table(data: Path) -> tuple[pd.DataFrame, str]:
    """Return the patches with their contiguous folds, and the version of the data."""
    table = patch_table(data)
    return table.assign(fold=assign(table["number"].tolist(), scheme="contiguous", n_folds=N_FOLDS)), directory_digest(
        data
    )[0]


def training_settings(parameters: dict[str, Any]) -> TrainingSettings:
    changes = EARLIER | CHANGES if "stored" in parameters.get("bands", {}) else {}
    return TypeAdapter(TrainingSettings).validate_python(parameters["training"] | changes)


def corrupt(arguments: argparse.Namespace) -> None:
    """Copy a data set with a known tenth of its labels made wrong, and write down which."""
    rng = np.random.default_rng(arguments.seed)
    data, out = arguments.data, arguments.out / "data"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(data, out)
    table = patch_table(data)
    masks = np.stack([read_mask(data / path) for path in table["mask"]])
    wrong = masks.copy()
    objects = [
        (patch, number)
        for patch, mask in enumerate(masks)
        for number in np.flatnonzero(np.bincount(label_objects(mask).ravel())[1:] >= SMALLEST) + 1
    ]
    chosen = rng.permutation(len(objects))[: round(SHARE * len(objects))]
    errors, region = [], np.zeros_like(masks, dtype=np.uint16)
    for order, index in enumerate(chosen.tolist()):
        patch, number = objects[index]
        kind = ERRORS[order % len(ERRORS)]
        shape = label_objects(masks[patch]) == number
        changed = WRONG[kind](shape, patch, wrong[patch], data / table["image"][patch], rng)
        if changed is None:
            continue  # no room for it
        before = wrong[patch].copy()
        if kind != "added":
            wrong[patch][shape] = 0
        wrong[patch][changed] = 1
        seen = shape | changed if kind != "added" else changed
        region[patch][seen] = len(errors) + 1
        pixels = int((before != wrong[patch]).sum())
        errors.append({"number": int(table["number"][patch]), "kind": kind, "pixels": pixels})
    for patch, path in enumerate(table["mask"]):
        if (wrong[patch] != masks[patch]).any():
            write_array(out / path, "mask", wrong[patch])
    pd.DataFrame(errors, index=range(1, len(errors) + 1)).to_csv(arguments.out / "errors.csv", index_label="error")
    np.savez_compressed(arguments.out / "errors.npz", region=region)
    counts = pd.Series([error["kind"] for error in errors]).value_counts()
    print(
        f"{len(errors)} of {len(objects)} labels are wrong: " + ", ".join(f"{n} {kind}" for kind, n in counts.items())
    )


def read_all(image: Path) -> npt.NDArray[Any]:
    """Return (128, 128, C), whatever the number of bands."""
    with h5py.File(image) as file:
        return np.asarray(file["img"], np.float64)


def deleted(shape: Mask, *_: Any) -> Mask:
    """The landslide is not drawn."""
    return np.zeros_like(shape)


def added(shape: Mask, patch: int, mask: npt.NDArray[np.uint8], image: Path, rng: np.random.Generator) -> Mask | None:
    """The shape is drawn once more, where the ground looks most like the landslide."""
    del patch
    values = read_all(image)
    values = (values - values.mean(axis=(0, 1))) / (values.std(axis=(0, 1)) + 1e-9)
    like = values[shape].mean(axis=0)
    free = cv2.dilate(mask, np.ones((2 * APART + 1,) * 2, np.uint8)) == 0
    best, smallest = None, np.inf
    rows, columns = np.nonzero(shape)
    for _ in range(TRIALS):
        turned = rows - rows.min(), columns - columns.min()
        top, left = (int(rng.integers(0, 128 - axis.max())) for axis in turned)
        place = turned[0] + top, turned[1] + left
        distance = np.abs(values[place].mean(axis=0) - like).mean()
        if free[place].all() and distance < smallest:
            best, smallest = place, distance
    if best is None:
        return None
    drawn = np.zeros_like(shape)
    drawn[best] = True
    return drawn


def shifted(shape: Mask, patch: int, mask: Any, image: Path, rng: np.random.Generator) -> Mask:
    """The outline is drawn beside the landslide, by half of its width and at least three pixels."""
    del patch, mask, image
    by = max(3.0, 0.5 * math.sqrt(shape.sum()))
    angle = rng.uniform(0, 2 * math.pi)
    moved = np.float32([[1, 0, round(by * math.cos(angle))], [0, 1, round(by * math.sin(angle))]])
    return cv2.warpAffine(shape.astype(np.uint8), moved, shape.shape[::-1], flags=cv2.INTER_NEAREST) != 0


def dilated(shape: Mask, *_: Any) -> Mask:
    """The outline is drawn too wide, by a third of its width and at least two pixels."""
    by = max(2, round(math.sqrt(shape.sum()) / 3))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    return cv2.dilate(shape.astype(np.uint8), kernel) != 0


WRONG = {"deleted": deleted, "added": added, "shifted": shifted, "dilated": dilated}
ERRORS = ("deleted", "added", "shifted", "deleted", "added", "dilated")  # a third each: missing, false, off


def measure(arguments: argparse.Namespace) -> None:
    """Rank the labels of the corrupted data set, and add the result to the record."""
    data = arguments.out / "data"
    predictions, chosen = predicted(data, arguments.out, arguments.folds)
    objects = audited_objects(predictions, references(predictions))
    region = np.load(arguments.out / "errors.npz")["region"][chosen]
    errors = pd.read_csv(arguments.out / "errors.csv", index_col="error")
    kind = errors["kind"][errors["number"].isin(predictions.table["number"])]
    found = [errors_in(predictions, region, one) for one in objects.to_dict("records")]
    cells = [cross_entropy(predictions, one) for one in objects.to_dict("records")]
    orders = {
        "audit": objects["score"].to_numpy(),
        "loss, mean of the pixels": np.array([np.mean(cell) for cell in cells]),
        "loss, sum of the pixels": np.array([np.sum(cell) for cell in cells]),
        "random": np.random.default_rng(0).random(len(objects)),
    }
    blocks = resampling_blocks(predictions.table)[objects["row"]]
    of_error = dict(zip(predictions.table["number"], resampling_blocks(predictions.table), strict=True))
    error_blocks = errors["number"][kind.index].map(of_error).to_numpy()
    ranked = {name: Ranked(score, found, kind.index.tolist()) for name, score in orders.items()}
    draws = resampled(ranked, blocks, error_blocks)
    entry = {
        "data_version": directory_digest(data)[0],
        "torch": torch.__version__,
        "folds": arguments.folds,
        "patches": len(predictions.table),
        "objects": len(objects),
        "errors": kind.value_counts().sort_index().to_dict(),
        "noise": asdict(noise(predictions, references(predictions))),
        "rankings": {
            name: {
                "average_precision": round(one.average_precision(), 4),
                "interval": np.percentile(draws[name], [2.5, 97.5]).round(4).tolist(),
                "gain_of_audit": np.percentile(draws["audit"] - draws[name], [2.5, 97.5]).round(4).tolist(),
                "precision_at": {str(k): round(float(one.hit[:k].mean()), 4) for k in TOP},
                "looked_at_for_half": one.looked_at(0.5),
                "found_in": {str(k): {each: int(one.within(k, kind, each)) for each in sorted(set(kind))} for k in TOP},
            }
            for name, one in ranked.items()
        },
    }
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    RECORD.write_text(json.dumps({**record, arguments.name: entry}, indent=1) + "\n")
    print(json.dumps(entry, indent=1))


def predicted(data: Path, out: Path, folds: list[int]) -> tuple[Predictions, npt.NDArray[np.bool_]]:
    """Predict patches of folds out of fold, unless a file holds the answers; return also which patches these are."""
    table, _ = fold_table(data)
    chosen = table["fold"].isin(folds).to_numpy()
    path = out / "predictions.npz"
    ensemble = joined_ensemble(out, folds)
    part = table[chosen].reset_index(drop=True)
    if not path.exists():
        found = predict_out_of_fold(ensemble, data, part)
        np.savez(path, probability=found.probability, deviation=found.deviation)
    saved = np.load(path)
    threshold = {member.fold: member.threshold for member in ensemble.members}
    return Predictions(
        data,
        ensemble.settings.stored,
        part,
        np.stack([read_mask(data / mask) for mask in part["mask"]]),
        saved["probability"],
        saved["deviation"],
        part["fold"].map(threshold).to_numpy(),
    ), chosen


def joined_ensemble(out: Path, folds: list[int]) -> Ensemble:
    """Return the networks of folds as one ensemble."""
    members, settings = [], BandSettings()
    for fold in folds:
        alone, settings = load_members(out / f"fold-{fold}", any_code=True)
        members += alone
    return Ensemble(members, settings)


def errors_in(predictions: Predictions, region: npt.NDArray[Any], one: dict[Any, Any]) -> list[int]:
    """Return the errors that somebody sees who looks at an object: half of the smaller one of the two is shared."""
    here = union_objects(predictions, one["row"]) == one["object"]
    errors = region[one["row"]]
    return [
        int(error)
        for error in np.unique(errors[here])
        if error and (here & (errors == error)).sum() >= 0.5 * min(here.sum(), (errors == error).sum())
    ]


def cross_entropy(predictions: Predictions, one: dict[Any, Any]) -> npt.NDArray[np.float64]:
    """Return the loss of the pixels of an object, as training computes it without weights."""
    here = union_objects(predictions, one["row"]) == one["object"]
    p = predictions.probability[one["row"]][here].astype(np.float64)
    label = predictions.masks[one["row"]][here] != 0
    return -np.log(np.clip(np.where(label, p, 1 - p), 1e-6, 1))


class Ranked:
    """Objects in the order of a score.

    Args:
        score: (n,) the largest is looked at first; of equal scores the first.
        found: The errors that each object shows.
        errors: Numbers of all errors.
    """

    def __init__(self, score: npt.NDArray[Any], found: list[list[int]], errors: list[int]) -> None:
        self.order = np.argsort(-score, kind="stable")
        self.hit = np.array([bool(found[index]) for index in self.order])
        first: dict[int, int] = {}
        for rank, index in enumerate(self.order):
            for error in found[index]:
                first.setdefault(error, rank)
        self.errors = errors
        self.rank = np.array([first.get(error, -1) for error in errors])  # of the first object that shows it

    def average_precision(
        self, of_object: npt.NDArray[Any] | None = None, of_error: npt.NDArray[Any] | None = None
    ) -> float:
        """Return the mean over the errors of the precision where each is found; 0 for those that no object shows.

        Args:
            of_object: (n,) weights of the objects, as they were given; 1 if None.
            of_error: Weights of the errors; 1 if None.
        """
        weights = np.ones(len(self.order)) if of_object is None else of_object[self.order]
        total = np.maximum(np.cumsum(weights), 1e-9)
        precision = np.cumsum(weights * self.hit) / total
        found = np.where(self.rank >= 0, precision[self.rank], 0)
        return float(np.average(found, weights=of_error))

    def looked_at(self, share: float) -> int | None:
        """Return how many objects show this share of all errors; None if all of them do not."""
        ranks = np.sort(self.rank[self.rank >= 0])
        wanted = math.ceil(share * len(self.rank))
        return int(ranks[wanted - 1]) + 1 if len(ranks) >= wanted else None

    def within(self, k: int, kind: "pd.Series[str]", each: str) -> int:
        """Return how many errors of a kind the first k objects show."""
        return int(((self.rank >= 0) & (self.rank < k) & (kind.to_numpy() == each)).sum())


def resampled(
    ranked: dict[str, Ranked], blocks: npt.NDArray[Any], error_blocks: npt.NDArray[Any]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the average precision of resamples of blocks of neighbouring patches, the same for all rankings."""
    rng = np.random.default_rng(0)
    names = np.unique(np.concatenate([blocks, error_blocks]))
    draws: dict[str, list[float]] = {name: [] for name in ranked}
    while len(draws["random"]) < RESAMPLES:
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        of_object, of_error = (times[np.searchsorted(names, of)] for of in (blocks, error_blocks))
        if of_error.any():
            for name, one in ranked.items():
                draws[name].append(one.average_precision(of_object, of_error))
    return {name: np.array(values) for name, values in draws.items()}


def first(arguments: argparse.Namespace) -> None:
    """Draw the first labels of the ranking of unchanged data, and list them; what somebody wrote about them stays."""
    predictions, _ = predicted(arguments.data, arguments.out, list(range(1, N_FOLDS + 1)))
    objects = audited_objects(predictions, references(predictions))[:SHOWN]
    numbers = predictions.table["number"].to_numpy()[objects["row"]]
    ids = [f"p{number}-{one}" for number, one in zip(numbers, objects["object"], strict=True)]
    table = objects[["kind", "score", "label_pixels", "predicted_pixels", "probability"]].round(3).assign(id=ids)
    said = pd.read_csv(FIRST, keep_default_na=False).set_index("id") if FIRST.exists() else pd.DataFrame()
    for name in ("verdict", "comment"):
        table[name] = [said[name].get(one, "") if name in said else "" for one in ids]
    table.insert(0, "rank", range(1, len(table) + 1))
    table.to_csv(FIRST, index=False, lineterminator="\n")
    columns = 8
    figure, axes = plt.subplots(-(-SHOWN // columns), columns, figsize=(12, 8), layout="constrained")
    for axis, one, described in zip(axes.flat, objects.to_dict("records"), table.to_dict("records"), strict=True):
        row = one["row"]
        image = read_all(arguments.data / predictions.table["image"][row])
        axis.imshow(picture_of(image, predictions.stored), interpolation="nearest")
        here = union_objects(predictions, row) == one["object"]
        shapes = {"#ff2fa0": predictions.masks[row] != 0, "#00e5ff": predicted_mask(predictions, row)}
        for colour, pixels in shapes.items():
            shape = here & pixels
            if shape.any():
                axis.contour(shape.astype(float), [0.5], colors=colour, linewidths=0.9)
        axis.set_title(f"{described['rank']} {described['verdict']}", fontsize=8, pad=2)
        axis.set_axis_off()
    figure.savefig(IMAGE, dpi=100, pil_kwargs={"quality": 85})
    plt.close(figure)


def write(arguments: argparse.Namespace) -> None:
    """Write the tables of the page from the record."""
    del arguments
    PAGE.write_text(filled(PAGE.read_text(), json.loads(RECORD.read_text()), pd.read_csv(FIRST)))


def filled(page: str, record: dict[str, Any], shown: pd.DataFrame) -> str:
    """Return the page with its marked parts written from the record and from the verdicts on the first labels."""

    def part(found: re.Match[str]) -> str:
        text = verdicts_of(shown) if found[2] == "first" else table_of(record[found[2]])
        return f"{found[1]}{text}{found[3]}"

    return re.sub(r"(<!-- audit: (\w+) -->\n\n).*?(\n\n<!-- end -->)", part, page, flags=re.DOTALL)


def verdicts_of(shown: pd.DataFrame) -> str:
    """Return how many of the first labels got which verdict, as Markdown."""
    lines = ["| listed as | wrong | right | unsure |", "|---|---:|---:|---:|"]
    for kind, text in KINDS.items():
        verdicts = shown["verdict"][shown["kind"] == kind]
        lines.append(f"| {text} | " + " | ".join(str((verdicts == one).sum()) for one in VERDICTS) + " |")
    return "\n".join(lines)


def table_of(entry: dict[str, Any]) -> str:
    """Return the result on one data set as Markdown."""
    errors = ", ".join(f"{n} {kind}" for kind, n in entry["errors"].items())
    total = sum(entry["errors"].values())
    top = [str(k) for k in TOP if k <= entry["objects"]]
    columns = ["average precision [95 %]", "audit gains [95 %]", *(f"precision at {k}" for k in top)]
    columns.append("looked at for half of the errors")
    best = entry["rankings"]["audit"]
    lines = [
        f"{entry['patches']:,} patches with {entry['objects']:,} labelled or predicted landslides; {total} errors "
        f"({errors}).",
        "",
        f"| ranked by | {' | '.join(columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, one in entry["rankings"].items():
        low, high = (f"{100 * value:.1f}" for value in one["interval"])
        gain = [best["average_precision"] - one["average_precision"], *one["gain_of_audit"]]
        cells = [f"{100 * one['average_precision']:.1f} [{low}, {high}]"]
        cells.append("" if one is best else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in gain)))
        cells += [f"{100 * one['precision_at'][k]:.0f} %" for k in top]
        half = one["looked_at_for_half"]
        lines.append(f"| {name} | {' | '.join(cells)} | {'more than all' if half is None else f'{half:,}'} |")
    found = best["found_in"][top[-1]]
    shown = ", ".join(f"{n} of {entry['errors'][kind]} {kind}" for kind, n in found.items())
    return "\n".join([*lines, "", f"The first {top[-1]} of the audit show {shown}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train the folds that are missing")
    training.add_argument("--data", type=Path, required=True)
    training.add_argument("--config", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--folds", type=int, nargs="*", default=list(range(1, N_FOLDS + 1)))
    training.set_defaults(run=train)
    making = commands.add_parser("corrupt", help="copy the data set with wrong labels")
    making.add_argument("--data", type=Path, required=True)
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--seed", type=int, default=0)
    making.set_defaults(run=corrupt)
    measuring = commands.add_parser("measure", help="rank the labels, and count how early the errors come")
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--name", required=True, help="of the data set in the record")
    measuring.add_argument("--folds", type=int, nargs="*", default=list(range(1, N_FOLDS + 1)), help="their patches")
    measuring.set_defaults(run=measure)
    drawing = commands.add_parser("first", help="draw and list the first labels of unchanged data")
    drawing.add_argument("--data", type=Path, required=True)
    drawing.add_argument("--out", type=Path, required=True)
    drawing.set_defaults(run=first)
    commands.add_parser("write", help="write the tables of the page").set_defaults(run=write, out=None)
    arguments = parser.parse_args()
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
