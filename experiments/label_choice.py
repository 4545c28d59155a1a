"""Measures how many labels are needed, if they are chosen by `landslide data next`, by coverage or at random.

    source activate.sh
    python experiments/label_choice.py run --data DIR --out RESULTS          # the trainings
    python experiments/label_choice.py write --out RESULTS                   # record, picture and tables of the page

DIR contains h5 pairs of the bands B4, B3 and B2 with the official patch numbers. The labels of one fold test; those of
the others are uncovered share by share: the first share is drawn at random, and each strategy chooses the next ones.
Every share trains a fresh network, with equally many patches seen whatever the share. Finished trainings are skipped
and interrupted ones resumed, so `run` may be stopped at any time; `--seeds 0` and `--seeds 1` may run side by side.
Without `--out`, `write` writes picture and page from the record in docs/results.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import yaml
from earlier_recipe import EARLIER
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn

from landslide.bands.build import ensure_cache
from landslide.bands.cache import BandCache
from landslide.bands.formulas import BandSettings
from landslide.data.digests import directory_digest
from landslide.data.patches import read_image
from landslide.data.table import patch_table
from landslide.errors import LandslideError
from landslide.folds.parts import FoldRows, inner_validation
from landslide.folds.schemes import assign
from landslide.inference.batches import predict_batches
from landslide.labels.choosing import Windows, rank_at_random, rank_by_coverage, rank_next, summarise
from landslide.metrics.bootstrap import fold_mean, fold_mean_draws, resampling_blocks
from landslide.metrics.counts import patch_counts, scores
from landslide.models import ModelSpec, build_model
from landslide.schema import PATCH_SIZE
from landslide.training.fold import FoldTask, TrainingSettings, device_of, train_fold

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "own_rgb.yaml"
RECORD = ROOT / "docs" / "results" / "label_choice.json"
IMAGE = ROOT / "docs" / "images" / "label_choice.png"
PAGE = ROOT / "docs" / "explanation" / "results.md"

BANDS = BandSettings(stored=("B4", "B3", "B2"))
TEST_FOLDS = {0: 1, 1: 3}  # by seed
SHARES = (5, 10, 20, 36, 60, 100)  # percent of the patches of the other folds
STRATEGIES = ("next", "random", "coverage")
SCRATCH = "scratch"  # the labels of the random strategy, and a network that starts from random weights
FIRST, LAST = "start", "all"  # names of the trainings that the strategies share
BUDGET = 4800  # training patches seen by each training
LEAST_EPOCHS = 3
SCORES = {"f1_macro": "macro F1", "f1_landslide": "landslide F1"}
POINT = 0.01


def run(arguments: argparse.Namespace) -> None:
    """Train what is missing."""
    torch.set_num_threads(1)  # two seeds run side by side, and the same numbers come out with any number of cores
    data, out = arguments.data, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    table = patch_table(data, positions="landslide4sense")
    digest = directory_digest(data)[0]
    cache = ensure_cache(out / "caches", data, table, digest, BANDS)
    table = table.assign(fold=assign(table["number"].tolist(), scheme="contiguous"), cache_row=range(len(table)))
    if arguments.patches:
        table = table.iloc[np.arange(arguments.patches) * len(table) // arguments.patches]
    for seed in arguments.seeds:
        experiment = Experiment(data, out, table, cache, seed, arguments.budget, digest)
        for share in arguments.scratch:
            experiment.scratch(share)
        if not arguments.scratch:
            experiment.run()


class Experiment:
    """The trainings of one seed.

    Args:
        data: Folder of the patches.
        out: Folder of the results.
        table: Patches with their fold and their row of the cache.
        cache: Their bands.
        seed: Of the first choice, of the random strategy and of the trainings; it decides the test fold as well.
        budget: Training patches that every training sees.
        digest: Digest of the data set.
    """

    def __init__(
        self, data: Path, out: Path, table: pd.DataFrame, cache: BandCache, seed: int, budget: int, digest: str
    ) -> None:
        self.data, self.out, self.cache, self.seed, self.budget, self.digest = data, out, cache, seed, budget, digest
        test = (table["fold"] == TEST_FOLDS[seed]).to_numpy()
        self.pool, self.test = table[~test].reset_index(drop=True), table[test].reset_index(drop=True)

    def run(self) -> None:
        """Train on every share of every strategy; the first and the last share only once."""
        at_random = rank_at_random(np.zeros(len(self.pool), bool), len(self.pool), seed=self.seed)
        first = np.isin(np.arange(len(self.pool)), at_random[: self.number(SHARES[0])])
        start = self.train(FIRST, SHARES[0], first)
        for strategy in STRATEGIES:
            labelled, previous = first, start
            for share in SHARES[1:-1]:
                labelled = self.choose(strategy, share, labelled, previous)
                previous = self.train(strategy, share, labelled)
        self.train(LAST, SHARES[-1], np.ones(len(self.pool), bool))

    def scratch(self, share: int) -> None:
        """Train on a share of the random strategy from random weights."""
        chosen = rank_at_random(np.zeros(len(self.pool), bool), self.number(share), seed=self.seed)
        self.train(SCRATCH, share, np.isin(np.arange(len(self.pool)), chosen))

    def number(self, share: int) -> int:
        """Return how many patches of the pool are labelled at a share in percent."""
        return max(3, round(len(self.pool) * share / 100))

    def choose(
        self, strategy: str, share: int, labelled: npt.NDArray[np.bool_], previous: dict[str, Any]
    ) -> npt.NDArray[np.bool_]:
        """Label more patches up to a share: return which are labelled then.

        The numbers of an earlier call with the same network are read from its file.
        """
        path = self.path(strategy, share).with_suffix(".chosen.json")
        wanted = {"budget": self.budget, "data_version": self.digest, "before": self.numbers(labelled)}
        if path.exists():
            found = json.loads(path.read_text())
            refuse_differences(path, found, wanted)
            return labelled | self.pool["number"].isin(found["chosen"]).to_numpy()
        began = time.process_time()
        missing = self.number(share) - int(labelled.sum())
        if strategy == "random":  # the first choice is the beginning of the same order
            added = rank_at_random(np.zeros(len(self.pool), bool), self.number(share), seed=self.seed)[-missing:]
        elif strategy == "coverage":
            added = rank_by_coverage(self.windows(None), labelled, missing).order
        else:
            added = rank_next(self.windows(self.network(previous)), labelled, missing).order
        chosen = self.numbers(np.isin(np.arange(len(self.pool)), added))
        write_json(path, wanted | {"chosen": chosen, "seconds": round(time.process_time() - began, 1)})
        return labelled | self.pool["number"].isin(chosen).to_numpy()

    def windows(self, model: nn.Module | None) -> Windows:
        """Describe the patches of the pool; without a network, all probabilities are 0."""
        parts = []
        rows = self.pool["cache_row"].to_numpy()
        batches = (
            predict_batches(model, self.cache, rows, self.bands, {"": self.settings().prediction}, device=self.device)
            if model is not None
            else ((slice(start, start + 12), {}, None) for start in range(0, len(rows), 12))
        )
        for part, predicted, _ in batches:
            images = np.stack([read_image(self.data / name, len(BANDS.stored)) for name in self.pool["image"][part]])
            blank = np.zeros((len(images), PATCH_SIZE, PATCH_SIZE))
            parts.append(summarise(images, predicted[""].cpu().numpy() if predicted else blank))
        return Windows.joined(parts)

    def network(self, training: dict[str, Any]) -> nn.Module:
        """Load the network of a finished training."""
        path = self.path(training["strategy"], training["share"])
        return build_model(ModelSpec.from_dict(training["spec"]), load_file(path.with_suffix(".safetensors")))

    def train(self, strategy: str, share: int, labelled: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Train on the labelled patches, score on the test fold, and record both; or read the record."""
        path = self.path(strategy, share)
        rows = self.rows(labelled)
        settings = self.settings(len(rows.training))
        if strategy == SCRATCH:
            settings = replace(settings, model_options={})
        facts = {
            "seed": self.seed,
            "fold": TEST_FOLDS[self.seed],
            "strategy": strategy,
            "share": share,
            "data_version": self.digest,
            "budget": self.budget,
            "settings": json.loads(json.dumps(asdict(settings))),
            "labelled": self.numbers(labelled),
        }
        if path.with_suffix(".json").exists():
            found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
            refuse_differences(path.with_suffix(".json"), found, facts)
            return found
        task = FoldTask(
            cache=self.cache,
            rows=rows,
            bands=self.bands,
            settings=settings,
            checkpoints=path.with_suffix(".checkpoints"),
            label=path.name,
        )
        result = train_fold(task)
        shutil.copyfile(result.weights, path.with_suffix(".safetensors"))
        model = build_model(result.spec, load_file(result.weights))
        counts = {"tuned": result.threshold, "half": 0.5}
        of_patches: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in counts}
        for _, predicted, masks in predict_batches(
            model, self.cache, rows.test, self.bands, {"": settings.prediction}, device=self.device
        ):
            for name, threshold in counts.items():
                of_patches[name].append(patch_counts(predicted[""], masks, threshold))
        cells = {name: np.concatenate(parts) for name, parts in of_patches.items()}
        facts |= {
            "spec": result.spec.to_dict(),
            "training_patches": len(rows.training),
            "epoch": result.epoch,
            "threshold": round(result.threshold, 6),
            "processor_seconds": round(sum(epoch["epoch_processor_seconds"] for epoch in result.history), 1),
            "torch": torch.__version__,
            "scores": rounded(scores(cells["tuned"].sum(axis=0))),
            "scores_half": rounded(scores(cells["half"].sum(axis=0))),
            "test": self.test["number"].tolist(),
            "blocks": resampling_blocks(self.test).tolist(),
            "counts": cells["tuned"].reshape(-1, 4)[:, 1:].tolist(),  # false positives, misses, hits
        }
        write_json(path.with_suffix(".json"), facts)
        shutil.rmtree(task.checkpoints)
        print(f"{path.name}: {facts['scores']}", flush=True)
        return json.loads(path.with_suffix(".json").read_text())

    def rows(self, labelled: npt.NDArray[np.bool_]) -> FoldRows:
        """Divide the labelled patches into training and inner validation, at least 2 patches."""
        table = self.pool[labelled]
        fraction = max(self.settings().validation_fraction, 2 / len(table))
        chosen = inner_validation(table, fraction=fraction, seed=self.seed)
        rows = table["cache_row"].to_numpy(np.int64)
        return FoldRows(rows[~chosen], rows[chosen], self.test["cache_row"].to_numpy(np.int64))

    def settings(self, training_patches: int = 1) -> TrainingSettings:
        """Return the settings of the configuration with the epochs of the budget."""
        epochs = max(LEAST_EPOCHS, round(self.budget / training_patches))
        return replace(configured(), epochs=epochs, seed=self.seed)

    @property
    def bands(self) -> tuple[str, ...]:
        """The input bands."""
        return tuple(configured().bands)

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return device_of(configured())

    def numbers(self, labelled: npt.NDArray[np.bool_]) -> list[int]:
        """Return the numbers of labelled patches."""
        return [int(number) for number in self.pool["number"][labelled]]

    def path(self, strategy: str, share: int) -> Path:
        """Return where a training is kept, without suffix."""
        return self.out / f"seed{self.seed}-{strategy}-{share:03d}"


def configured() -> TrainingSettings:
    """Return the training settings of the configuration."""
    values = yaml.safe_load(CONFIG.read_text())["parameters"]["training"]
    return TypeAdapter(TrainingSettings).validate_python(values | EARLIER)


def refuse_differences(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Exit if a file is of another run."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise SystemExit(f"{path} was made with other values of {name}.\n  -> Use another folder.")


def write_json(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content))
    unfinished.replace(path)


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in values.items()}


def write(arguments: argparse.Namespace) -> None:
    """Gather the record, if there is a folder of results, and write picture and page."""
    if arguments.out:
        RECORD.write_text(packed(gathered(arguments.out)))
    record = json.loads(RECORD.read_text())
    if arguments.scratch:
        add_scratch(record, arguments.scratch)
        RECORD.write_text(packed(record))
    draw(record)
    PAGE.write_text(filled(PAGE.read_text(), record))


def add_scratch(record: dict[str, Any], out: Path) -> None:
    """Put the finished trainings from random weights into a record, in place; exit if they are of another run."""
    record["trainings"] = [one for one in record["trainings"] if one["strategy"] != SCRATCH]
    for path in sorted(out.glob(f"seed*-{SCRATCH}-*.json")):
        found = json.loads(path.read_text())
        tested = record["tests"][str(found["seed"])]
        refuse_differences(path, found, {name: record[name] for name in ("data_version", "budget")} | tested)
        record["trainings"].append(described({"choice_seconds": 0.0, **found}))


def gathered(out: Path) -> dict[str, Any]:
    """Return the record of all finished trainings; exit if one is missing."""
    trainings = []
    for seed in TEST_FOLDS:
        for strategy, share in wanted_trainings():
            path = out / f"seed{seed}-{strategy}-{share:03d}.json"
            if not path.exists():
                raise SystemExit(f"{path} is missing.\n  -> Run the trainings to their end first.")
            trainings.append(json.loads(path.read_text()))
            choice = path.with_suffix(".chosen.json")
            trainings[-1]["choice_seconds"] = json.loads(choice.read_text())["seconds"] if choice.exists() else 0.0
    common = {name: trainings[0][name] for name in ("data_version", "budget", "torch")}
    settings = {name: value for name, value in trainings[0]["settings"].items() if name not in ("epochs", "seed")}
    tests = {str(one["seed"]): {name: one[name] for name in ("fold", "test", "blocks")} for one in trainings}
    return {**common, "settings": settings, "tests": tests, "trainings": [described(one) for one in trainings]}


def described(training: dict[str, Any]) -> dict[str, Any]:
    """Return what the record keeps of a training."""
    own = ("seed", "strategy", "share", "labelled", "training_patches", "epoch", "threshold", "processor_seconds")
    own += ("choice_seconds", "scores", "scores_half", "counts")
    return {name: training[name] for name in own} | {"epochs": training["settings"]["epochs"]}


def packed(record: dict[str, Any]) -> str:
    """Return a record as JSON with one line per training."""
    lines = ",\n".join(json.dumps(one, separators=(",", ":")) for one in record["trainings"])
    rest = json.dumps({name: value for name, value in record.items() if name != "trainings"})
    return f'{rest[:-1]},\n"trainings": [\n{lines}\n]}}\n'


def wanted_trainings() -> Iterable[tuple[str, int]]:
    """Yield strategy and share of each training of a seed."""
    yield FIRST, SHARES[0]
    for strategy in STRATEGIES:
        for share in SHARES[1:-1]:
            yield strategy, share
    yield LAST, SHARES[-1]


def name_of(strategy: str, share: int) -> str:
    """Return under which name the training of a strategy at a share is recorded."""
    if strategy == SCRATCH:
        return SCRATCH
    return {SHARES[0]: FIRST, SHARES[-1]: LAST}.get(share, strategy)


def of(record: dict[str, Any], strategy: str, share: int) -> list[dict[str, Any]]:
    """Return the trainings of a strategy at a share, by seed."""
    name = name_of(strategy, share)
    found = [one for one in record["trainings"] if (one["strategy"], one["share"]) == (name, share)]
    return sorted(found, key=lambda one: one["seed"])


def counts_of(record: dict[str, Any], strategy: str, share: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Return the counts (n, 2, 2) of all test patches of all seeds at the tuned threshold, their folds and blocks."""
    counts, folds, blocks = [], [], []
    for one in of(record, strategy, share):
        cells = np.array(one["counts"], np.int64)
        counts.append(np.column_stack([PATCH_SIZE**2 - cells.sum(axis=1), cells]).reshape(-1, 2, 2))
        tested = record["tests"][str(one["seed"])]
        folds.append(np.full(len(cells), tested["fold"]))
        blocks.append(np.array(tested["blocks"]) + 1_000_000 * one["seed"])
    return np.concatenate(counts), np.concatenate(folds), np.concatenate(blocks)


def mean_scores(record: dict[str, Any], strategy: str, share: int) -> dict[str, float]:
    """Return the mean scores of the seeds."""
    return fold_mean(*counts_of(record, strategy, share)[:2])


def difference(
    record: dict[str, Any], first: tuple[str, int], second: tuple[str, int]
) -> dict[str, tuple[float, float, float]]:
    """Return by how much the mean of the second exceeds the first, with a 95 % interval, for each of `SCORES`."""
    before, after = counts_of(record, *first), counts_of(record, *second)
    draws = fold_mean_draws(*after) - fold_mean_draws(*before)
    values = {name: fold_mean(*after[:2])[name] - fold_mean(*before[:2])[name] for name in SCORES}
    return {name: (values[name], *np.percentile(draws[name], [2.5, 97.5])) for name in SCORES}


def filled(page: str, record: dict[str, Any]) -> str:
    """Return the page with its marked parts written from the record."""
    parts = (facts, curves, differences, needed, pretraining)
    written = {write_part.__name__: write_part for write_part in parts}

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}{written[found[2]](record)}{found[3]}"

    return re.sub(r"(<!-- choice: (\w+) -->\n\n).*?(\n\n<!-- end -->)", part, page, flags=re.DOTALL)


def facts(record: dict[str, Any]) -> str:
    """Return as Markdown what was trained and tested."""
    first, last = of(record, "next", SHARES[0]), of(record, "next", SHARES[-1])
    pretrained = [one for one in record["trainings"] if one["strategy"] != SCRATCH]
    hours = sum(one["processor_seconds"] + one["choice_seconds"] for one in pretrained) / 3600
    tests = record["tests"].values()
    folds = " and ".join(str(tested["fold"]) for tested in tests)
    patches = " and ".join(str(len(tested["test"])) for tested in tests)
    pools = " and ".join(f"{len(one['labelled']):,}" for one in last)
    labelled = " and ".join(str(len(one["labelled"])) for one in first)
    epochs = [[one["epochs"] for one in group] for group in (first, last)]
    lines = [
        "| | |",
        "|---|---|",
        f"| tested on | contiguous folds {folds}, one per seed: {patches} patches |",
        f"| pool of labels | the other folds: {pools} patches; the first {SHARES[0]} % ({labelled}) are drawn at "
        "random |",
        f"| network | the recipe of `configs/own_rgb.yaml`, trained from the start at every share; each training sees "
        f"about {record['budget']:,} patches ({epochs[0][0]} epochs at {SHARES[0]} %, {epochs[1][0]} at "
        f"{SHARES[-1]} %) |",
        "| chosen on inner validation | epoch and threshold, on a tenth of the labelled patches |",
        f"| trainings | {len(pretrained)}, {hours:.1f} hours of one core with the choices |",
        f"| data | digest `{record['data_version']}` |",
    ]
    return "\n".join(lines)


def curves(record: dict[str, Any]) -> str:
    """Return picture and scores by share and strategy as Markdown."""
    heading = [f"{name}, {strategy}" for name in SCORES.values() for strategy in STRATEGIES]
    lines = [f"| labelled | {' | '.join(heading)} |", "|---|" + "---|" * len(heading)]
    for share in SHARES:
        found = {strategy: mean_scores(record, strategy, share) for strategy in STRATEGIES}
        cells = [f"{100 * found[strategy][name]:.1f}" for name in SCORES for strategy in STRATEGIES]
        lines.append(f"| {share} % | {' | '.join(cells)} |")
    picture = f"![Scores by the share of labelled patches](../images/{IMAGE.name})"
    return f"{picture}\n\n" + "\n".join(lines)


def differences(record: dict[str, Any]) -> str:
    """Return as Markdown by how many points `next` exceeds the controls."""
    others = STRATEGIES[1:]
    heading = [f"{name}, next over {other}" for name in SCORES.values() for other in others]
    lines = [f"| labelled | {' | '.join(heading)} |", "|---|" + "---|" * len(heading)]
    for share in SHARES[1:-1]:
        found = {other: difference(record, (other, share), ("next", share)) for other in others}
        lines.append(f"| {share} % | {' | '.join(points(found[other][name]) for name in SCORES for other in others)} |")
    return "\n".join(lines)


def pretraining(record: dict[str, Any]) -> str:
    """Return as Markdown the scores with and without pretraining, by share of labels drawn at random."""
    heading = [f"{title}, {start}" for title in SCORES.values() for start in ("ImageNet", "random weights", "gain")]
    lines = [f"| labelled | {' | '.join(heading)} |", "|---|" + "---|" * len(heading)]
    for share in SHARES:
        if len(of(record, SCRATCH, share)) < len(TEST_FOLDS):
            continue
        with_weights, without = mean_scores(record, "random", share), mean_scores(record, SCRATCH, share)
        gain = difference(record, (SCRATCH, share), ("random", share))
        cells = [
            f"{100 * with_weights[name]:.1f} | {100 * without[name]:.1f} | {points(gain[name])}" for name in SCORES
        ]
        lines.append(f"| {share} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def points(values: tuple[float, float, float]) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in values))


def needed(record: dict[str, Any]) -> str:
    """Return as Markdown from which share each strategy is within a point of all labels, and how sure that is."""
    lines = [
        "| within one point of all labels | mean of the seeds | 95 % interval above -1 point |",
        "|---|---|---|",
    ]
    for name, title in SCORES.items():
        for strategy in STRATEGIES:
            gaps = {share: difference(record, ("next", SHARES[-1]), (strategy, share))[name] for share in SHARES[:-1]}
            found = [first_share({share: gap[which] for share, gap in gaps.items()}) for which in (0, 1)]
            lines.append(f"| {title}, {strategy} | {found[0]} | {found[1]} |")
    return "\n".join(lines)


def first_share(gaps: dict[int, float]) -> str:
    """Return the smallest share from which on no gap is below minus one point."""
    enough = SHARES[-1]
    for share in sorted(gaps, reverse=True):
        if gaps[share] < -POINT:
            break
        enough = share
    return f"{enough} %"


def draw(record: dict[str, Any]) -> None:
    """Draw the scores over the share of labels: the mean of the seeds, and each seed as a thin line."""
    figure, axes = plt.subplots(1, len(SCORES), figsize=(9.8, 4), layout="constrained")
    seeds = range(len(record["tests"]))
    for axis, (name, title) in zip(axes, SCORES.items(), strict=True):
        for number, strategy in enumerate(STRATEGIES):
            found = [of(record, strategy, share) for share in SHARES]
            for seed in seeds:
                values = [100 * trainings[seed]["scores"][name] for trainings in found]
                axis.plot(SHARES, values, color=f"C{number}", linewidth=0.6, alpha=0.6)
            means = [100 * mean_scores(record, strategy, share)[name] for share in SHARES]
            axis.plot(SHARES, means, color=f"C{number}", linewidth=1.8, marker="o", markersize=4, label=strategy)
        axis.set_xlabel("labelled patches in %")
        axis.set_ylabel(f"{title} in %")
        axis.set_xticks(SHARES, [str(share) for share in SHARES])
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(IMAGE, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="run the missing trainings")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--seeds", type=int, nargs="+", choices=list(TEST_FOLDS), default=list(TEST_FOLDS))
    running.add_argument("--budget", type=int, default=BUDGET, help="training patches seen by each training")
    running.add_argument("--patches", type=int, help="only this many of the patches, for a try")
    running.add_argument(
        "--scratch",
        type=int,
        nargs="+",
        choices=SHARES,
        default=[],
        metavar="SHARE",
        help="train at these shares from random weights, on the labels of the random strategy, and nothing else",
    )
    running.set_defaults(run=run)
    writing = commands.add_parser("write", help="write record, picture and tables")
    writing.add_argument("--out", type=Path, help="folder of finished trainings; the record as it is if left out")
    writing.add_argument("--scratch", type=Path, help="folder of finished trainings from random weights, to add")
    writing.set_defaults(run=write)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except LandslideError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
