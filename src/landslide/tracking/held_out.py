"""A registered version on patches that are in no fold at all: the official validation and test sets.

Every member of the ensemble predicts every patch, and their mean is scored as one model. This is the protocol of the
Landslide4Sense challenge; cross-validated scores of the same version are of other patches, and each of one member.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure

from landslide.bands.formulas import BandSettings
from landslide.data.digests import listing_digest
from landslide.data.patches import read_image, read_mask, read_stored
from landslide.data.table import patch_table
from landslide.errors import ComparisonError, DataError
from landslide.evaluation.figures import (
    calibration_figure,
    precision_recall_figure,
    prediction_figure,
    rgb_composite,
    roc_figure,
    uncertainty_figure,
)
from landslide.evaluation.report import example_rows
from landslide.evaluation.scores import FoldEvaluation, FoldEvaluator, patch_report, pooled_scores, threshold_table
from landslide.folds.schemes import BLOCK_SIDE, neighbour_runs
from landslide.inference.ensemble import Member, load_ensemble
from landslide.metrics.counts import METRIC_NAMES
from landslide.metrics.detection import roc_curve, undefined_reason
from landslide.schema import Split
from landslide.tracking import registry, runs
from landslide.tracking.runs import MlflowClient

ROLE = "held_out_evaluation"

_CHUNK = 16  # patches in memory as stored
_N_DRAWN = 4
_ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class HeldOutScores:
    """What `score` found.

    Attributes:
        version: The registered version.
        split: Which split.
        data_version: Digest of its files, as `landslide data digest` gives it for a folder with only this split.
        patches: Number of patches.
        positive_patches: Those with a landslide.
        table: One row for each of the ensemble and its members at threshold 0.5 and at the tuned one: model,
            threshold, tuned, and `METRIC_NAMES`.
        ensemble: Every score of the ensemble by its metric name, with intervals (see
            `landslide.evaluation.scores.pooled_scores`; runs of 16 consecutive patches are drawn, for want of
        positions). run_id: MLflow run that holds them.
    """

    version: str
    split: Split
    data_version: str
    patches: int
    positive_patches: int
    table: pd.DataFrame
    ensemble: dict[str, float]
    run_id: str

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "table": self.table.to_dict(orient="records")}

    def render(self) -> str:
        """Return the scores as text for a terminal, in percent."""
        shown = self.table.assign(threshold=[f"{value:.2f}" for value in self.table["threshold"]])
        shown["threshold"] += np.where(shown.pop("tuned"), " tuned", "")
        for name in METRIC_NAMES:
            shown[name] = [f"{100 * value:.2f}" for value in shown[name]]
        lines = [
            "",
            f"Version {self.version} on the {self.split} split: {self.patches} patches, {self.positive_patches} with "
            f"landslides (data {self.data_version})",
            "",
            shown.to_string(index=False),
            "",
            "Scores in percent, of counts pooled over all patches; the ensemble is the mean of its members.",
        ]
        for name in ("f1_macro", "miou", "f1_landslide", "detection_f1"):
            if f"{name}_low" in self.ensemble:
                low, high = (100 * self.ensemble[f"{name}_{end}"] for end in ("low", "high"))
                lines.append(f"{name} {100 * self.ensemble[name]:.2f}, 95 % interval {low:.2f} to {high:.2f}")
        return "\n".join(lines)


def score(
    client: MlflowClient,
    version: str,
    root: Path,
    split: Split,
    *,
    device: torch.device | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> HeldOutScores:
    """Score a registered version on a held-out split, and record it on an MLflow run with `role=held_out_evaluation`.

    Scoring the same version on the same files again overwrites its run.

    Args:
        client: The tracking client.
        version: Number or alias.
        root: Folder of the data set.
        split: Which split of it.
        device: Where to compute; a GPU if there is one by default.
        progress: Called with the number of patches that a member has just predicted.

    Raises:
        RegistryError: If the version or its run is missing.
        DataError: If patches or masks are missing or damaged, or have other bands than the version.
        ComparisonError: If the version has seen some of the patches, or nobody knows.
    """
    tags = registry.version(client, version)
    table = patch_table(root, split)
    _refuse_missing_masks(root, table, split)
    _refuse_known(registry.seen_patches(client, tags), table, split, tags["version"])
    masks = np.stack([read_mask(root / path) for path in table["mask"]])
    with tempfile.TemporaryDirectory() as temporary:
        ensemble = load_ensemble(registry.fetch(tags["version"], Path(temporary)), device)
        members, settings = ensemble.members, ensemble.settings
        networks = [type(ensemble)([member], settings, device) for member in members]  # of the version's code
    evaluators = {_ENSEMBLE: FoldEvaluator(**_thresholds(members))}
    evaluators |= {f"fold {member.fold}": FoldEvaluator(**_thresholds([member])) for member in members}
    drawn = {int(row): (np.empty(0), np.empty(0)) for row in example_rows(table["positive_pixels"], _N_DRAWN)}
    for start in range(0, len(table), _CHUNK):
        images = [read_stored(root / path, len(settings.stored)) for path in table["image"][start : start + _CHUNK]]
        predicted = []
        for network in networks:
            predicted.append(network.predict(np.stack(images).transpose(0, 3, 1, 2))[0])
            progress(len(images))
        answers = [np.mean(predicted, axis=0), *predicted]
        gaps = np.flatnonzero(~np.isfinite(answers[0]).all(axis=(1, 2)))
        if len(gaps):
            raise DataError(
                f"Patch {table['number'].iloc[start + gaps[0]]} of the {split} split in {root} has pixels without a "
                "value (NaN or infinite), which cannot be scored.",
                remedy=f"List all such patches with `landslide data check {root}`, and mend or remove them.",
            )
        for evaluator, answer in zip(evaluators.values(), answers, strict=True):
            evaluator.add({"": answer}, masks[start : start + _CHUNK])
        deviation = np.std(predicted, axis=0)
        for row in drawn.keys() & range(start, start + len(images)):
            drawn[row] = answers[0][row - start], deviation[row - start]
    evaluations = {name: evaluator.evaluation() for name, evaluator in evaluators.items()}
    pooled = evaluations[_ENSEMBLE]
    patches = patch_report(table.assign(fold=0), {0: pooled}).drop(columns="fold")
    patches["block"] = neighbour_runs(len(patches), BLOCK_SIDE)
    found = HeldOutScores(
        version=tags["version"],
        split=split,
        data_version=split_digest(table),
        patches=len(patches),
        positive_patches=int(pooled.truth.sum()),
        table=_score_table(evaluations),
        ensemble=pooled.scores | pooled_scores(patches),
        run_id=_open_run(client, tags, split, split_digest(table), root),
    )
    runs.log_scores(client, found.run_id, found.ensemble)
    for name, content in (_tables(pooled, patches) | {"scores": found.table}).items():
        runs.log_text(client, found.run_id, content.to_csv(index=False), f"reports/{name}.csv")
    pictures = _drawn_patches(root, table, settings, masks, drawn)
    runs.log_figures(client, found.run_id, _figures(pooled, patches, pictures))
    runs.finish(client, found.run_id)
    return found


def split_digest(table: pd.DataFrame) -> str:
    """Return the digest of the files of a patch table, as DVC would pin a folder with nothing else in it."""
    files = {
        **dict(zip(table["image"], table["image_md5"], strict=True)),
        **dict(zip(table["mask"], table["mask_md5"], strict=True)),
    }
    return listing_digest(files)


def _refuse_missing_masks(root: Path, table: pd.DataFrame, split: Split) -> None:
    lacking = table.loc[table["mask"].isna(), "number"].tolist()
    if lacking:
        raise DataError(
            f"{len(lacking)} of the {len(table)} {split} patches in {root} have no mask, patch {lacking[0]} among them",
            remedy="add the masks (`landslide data fetch` brings those that are published), or score the other split",
        )


def _refuse_known(known: pd.DataFrame, table: pd.DataFrame, split: Split, version: str) -> None:
    """Raise if a patch, byte by byte, is one that the version was trained or tested on."""
    seen = table.loc[table["image_md5"].isin(known["image_md5"]), "number"].tolist()
    if seen:
        raise ComparisonError(
            f"Version {version} was trained on {len(seen)} of the {len(table)} {split} patches: patch {seen[0]}"
            + (" and others." if len(seen) > 1 else "."),
            remedy="Score it on patches that it has not seen, or train a version without these.",
        )


def _thresholds(members: Sequence[Member]) -> dict[str, Any]:
    """Return the tuned thresholds of an ensemble: the means of those of its members."""
    detection = [m.detection_threshold for m in members if m.detection_threshold is not None]
    return {
        "threshold": float(np.mean([member.threshold for member in members])),
        "detection_threshold": float(np.mean(detection)) if len(detection) == len(members) else None,
    }


def _score_table(evaluations: Mapping[str, FoldEvaluation]) -> pd.DataFrame:
    rows = [
        {
            "model": name,
            "threshold": one.scores["threshold"] if tuned else 0.5,
            "tuned": tuned,
            **{metric: one.scores[f"{metric}_tuned" if tuned else metric] for metric in METRIC_NAMES},
        }
        for name, one in evaluations.items()
        for tuned in (False, True)
    ]
    return pd.DataFrame(rows)


def _open_run(client: MlflowClient, tags: Mapping[str, str], split: Split, data_version: str, root: Path) -> str:
    """Find the run of this version on these files, or create it."""
    own = {"role": ROLE, "model_version": tags["version"], "split": split, "data_version": data_version}
    found = runs.search(client, " and ".join(f"tags.{name} = '{value}'" for name, value in own.items()))
    if found:
        return str(found[0].info.run_id)
    name = f"version {tags['version']} on {split}"
    run_id = runs.create_run(client, name, {**own, "cross_validation_run": tags["run_id"]}, {"split": split})
    runs.log_dataset(client, run_id, data_version, str(root))
    return run_id


def _tables(ensemble: FoldEvaluation, patches: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {
        "patches": patches,
        "thresholds": threshold_table(ensemble.threshold_counts),
        "calibration": ensemble.calibration.table(),
    }


def _drawn_patches(
    root: Path,
    table: pd.DataFrame,
    settings: BandSettings,
    masks: npt.NDArray[np.uint8],
    drawn: Mapping[int, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
) -> list[tuple[str, npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return title, picture, mask, mean and deviation of patches from few landslide pixels to many."""
    return [
        (
            f"patch {table['number'].iloc[row]}",
            rgb_composite(read_image(root / table["image"].iloc[row], len(settings.stored)), settings.stored),
            masks[row],
            mean,
            deviation,
        )
        for row, (mean, deviation) in drawn.items()
    ]


def _figures(
    ensemble: FoldEvaluation,
    patches: pd.DataFrame,
    drawn: list[tuple[str, npt.NDArray[np.float64], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]],
) -> dict[str, Figure]:
    figures = {
        "predictions": prediction_figure([patch[:4] for patch in drawn]),
        "uncertainty": uncertainty_figure(drawn),
        "precision_recall": precision_recall_figure({_ENSEMBLE: threshold_table(ensemble.threshold_counts)}),
        "calibration": calibration_figure({_ENSEMBLE: ensemble.calibration.table()}),
    }
    if undefined_reason(ensemble.truth):
        return figures
    return figures | {"roc": roc_figure({_ENSEMBLE: roc_curve(patches["detection_score"].to_numpy(), ensemble.truth)})}
