"""Two registered versions side by side: scores, and what differs in data, folds, settings and code."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from landslide.metrics.counts import METRIC_NAMES
from landslide.tracking import metric_keys, registry, runs
from landslide.tracking.descriptions import side_by_side
from landslide.tracking.runs import MlflowClient

_COMPARABLE = {
    "data_version": "data",
    "fold_table": "folds",
    "left_out": "patches left out of training",
    "selection": "way of choosing the epoch",
}
_CODE = ("git_commit", "git_dirty", "training_code", "requirements_lock", "start_from")


@dataclass(frozen=True)
class VersionComparison:
    """What `compare` found.

    Attributes:
        versions: The two version numbers, `a` and `b`.
        scores: Rows are scores (`f1_macro`, ..., and `f1_macro_in_scene`, ... if a version has them); columns a, a_std,
            b, b_std (over folds) and difference, b - a.
        tested_on: What the test folds of each version are to its training parts, such as `another scene`; empty if
            they are ground of the same scenes.
        decisions: What was decided about each version, empty if nothing was.
        obstacles: Why the scores do not compare; empty when they do.
        data: Number of patches of each version, of common patches, and of those in another fold; empty if data and
            folds are equal.
        settings: Settings that differ, by dotted name: (of a, of b); None for a missing setting.
        code: Likewise for commit, uncommitted changes, digests of training code and lock, and start.
    """

    versions: tuple[str, str]
    scores: pd.DataFrame
    tested_on: tuple[str, str]
    decisions: tuple[str, str]
    obstacles: list[str]
    data: dict[str, int]
    settings: dict[str, tuple[str | None, str | None]]
    code: dict[str, tuple[str | None, str | None]]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "versions": list(self.versions),
            "scores": {
                name: {key: None if pd.isna(value) else float(value) for key, value in row.items()}
                for name, row in self.scores.to_dict(orient="index").items()
            },
            "tested_on": list(self.tested_on),
            "decisions": list(self.decisions),
            "comparable": not self.obstacles,
            "obstacles": self.obstacles,
            "data": self.data,
            "settings": {name: list(pair) for name, pair in self.settings.items()},
            "code": {name: list(pair) for name, pair in self.code.items()},
        }

    def render(self) -> str:
        """Return the comparison as text for a terminal; scores in percent."""
        a, b = (f"version {number}" for number in self.versions)
        table = pd.DataFrame(
            {
                a: [_percent(row["a"], row["a_std"]) for _, row in self.scores.iterrows()],
                b: [_percent(row["b"], row["b_std"]) for _, row in self.scores.iterrows()],
                "difference": ["-" if pd.isna(v) else f"{100 * v:+.2f}" for v in self.scores["difference"]],
            },
            index=self.scores.index,
        )
        lines = ["", table.to_string(), "", "Cross-validated scores in percent, with the standard deviation of folds."]
        sides = zip((a, b), "ab", self.tested_on, strict=True)
        both = [(name, side_by_side(self._scores_of(column), ground)) for name, column, ground in sides]
        lines += [f"{name}: {text}." for name, text in both if text]
        decided = [f"  {name}: {text}" for name, text in zip((a, b), self.decisions, strict=True) if text]
        lines += ["", "Decisions", *decided] if decided else []
        if self.obstacles:
            lines += ["", "The scores do not compare:", *(f"  {text}" for text in self.obstacles)]
        if self.data:
            lines += ["", "Data", *(f"  {name.replace('_', ' ')}: {count}" for name, count in self.data.items())]
        for heading, pairs in (("Settings", self.settings), ("Code", self.code)):
            lines += ["", heading, *(f"  {name}: {x} -> {y}" for name, (x, y) in pairs.items())]
            lines += [] if pairs else ["  no difference"]
        return "\n".join(lines)

    def _scores_of(self, column: str) -> dict[str, float]:
        """Return the scores of version a or b that are known."""
        return {str(name): float(value) for name, value in self.scores[column].dropna().items()}


def compare(client: MlflowClient, a: str, b: str) -> VersionComparison:
    """Compare two versions.

    Args:
        client: The tracking client.
        a: Number or alias.
        b: Likewise; differences are b - a.

    Raises:
        RegistryError: If a version or its run is missing.
    """
    tags = [registry.with_older_defaults(registry.version(client, name)) for name in (a, b)]
    recorded = [registry.cross_validation(client, one) for one in tags]
    metrics = [metric_keys.metrics(run) for run in recorded]
    in_scene = [f"{name}_in_scene" for name in METRIC_NAMES]
    names = [*METRIC_NAMES, *(name for name in in_scene if any(name in one for one in metrics))]
    scores = pd.DataFrame(
        {
            f"{column}{suffix}": [one.get(f"{name}{suffix}", float("nan")) for name in names]
            for column, one in zip("ab", metrics, strict=True)
            for suffix in ("", "_std")
        },
        index=pd.Index(names, name="score"),
    )
    scores["difference"] = scores["b"] - scores["a"]
    obstacles = [
        f"the {what} differ{'s' if name == 'selection' else ''}: {tags[0].get(name)} and {tags[1].get(name)}"
        for name, what in _COMPARABLE.items()
        if tags[0].get(name) != tags[1].get(name)
    ]
    same_patches = all(tags[0].get(name) == tags[1].get(name) for name in ("data_version", "fold_table"))
    return VersionComparison(
        versions=(tags[0]["version"], tags[1]["version"]),
        scores=scores,
        tested_on=(tags[0].get("tested_on", ""), tags[1].get("tested_on", "")),
        decisions=(tags[0].get("decision", ""), tags[1].get("decision", "")),
        obstacles=obstacles,
        data={} if same_patches else _patches(client, recorded[0].info.run_id, recorded[1].info.run_id),
        settings=_different(recorded[0].data.params, recorded[1].data.params),
        code=_different(*({name: run.data.tags.get(name) for name in _CODE} for run in recorded)),
    )


def _different(a: Mapping[str, str | None], b: Mapping[str, str | None]) -> dict[str, tuple[str | None, str | None]]:
    names = sorted({*a, *b})
    return {name: (a.get(name), b.get(name)) for name in names if (a.get(name) or None) != (b.get(name) or None)}


def _patches(client: MlflowClient, a: str, b: str) -> dict[str, int]:
    """Compare the fold tables of two runs patch by patch; empty if one run has none."""
    with tempfile.TemporaryDirectory() as temporary:
        files = [
            runs.fetch_artifact(client, run_id, "fold_table.csv", Path(temporary, name))
            for name, run_id in (("a", a), ("b", b))
        ]
        if None in files:
            return {}
        first, second = (
            pd.read_csv(file, dtype={"image_md5": str, "mask_md5": str}).drop_duplicates("image_md5")
            for file in files
            if file
        )
    common = first.merge(second, on="image_md5", suffixes=("_a", "_b"))
    return {
        "patches_of_a": len(first),
        "patches_of_b": len(second),
        "in_common": len(common),
        "of_these_with_another_mask": int((common["mask_md5_a"] != common["mask_md5_b"]).sum()),
        "of_these_in_another_fold": int((common["fold_a"] != common["fold_b"]).sum()),
    }


def _percent(mean: float, std: float) -> str:
    return "-" if pd.isna(mean) else f"{100 * mean:.2f} ± {100 * std:.2f}"
