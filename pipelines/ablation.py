"""The ablation pipeline: a table of cross-validations that differ in a few settings, with published figures.

zenml pipeline run pipelines.ablation.ablation_pipeline -c configs/table3.yaml
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from landslide.bands.formulas import BandSettings
from landslide.errors import ConfigurationError
from landslide.training.fold import TrainingSettings
from pipelines.configured import configured_pipeline
from pipelines.cross_validation import cross_validate
from pipelines.grid import RowSettings, expand_rows
from steps.ablation_table import tabulate
from steps.build_bands import build_bands
from steps.ingest import ingest
from steps.measure_bands import measure_bands
from steps.open_run import open_run
from steps.settings import DataSettings, EvaluationSettings, FoldSettings
from steps.split import split
from steps.train_ablation_fold import train_ablation_fold


@configured_pipeline()
def ablation_pipeline(
    name: str = "",
    reference: str = "paper",
    data: DataSettings = DataSettings(),  # noqa: B008 (frozen)
    bands: BandSettings = BandSettings(),  # noqa: B008
    folds: FoldSettings = FoldSettings(),  # noqa: B008
    training: TrainingSettings = TrainingSettings(),  # noqa: B008
    evaluation: EvaluationSettings = EvaluationSettings(),  # noqa: B008
    rows: list[RowSettings] = [],  # noqa: B006 (never changed)
    seeds: list[int] | None = None,
    recorded_tests: str | None = None,
) -> None:
    """Train and evaluate every row, then put them into one table.

    Args:
        name: Name of the table: of its folder, and of the tag `ablation.<name>` that its runs carry.
        reference: Where the published figures come from; a heading of the table.
        data: Where the patches are.
        bands: How the bands are computed, unless a row says otherwise.
        folds: How the patches are split, unless a row says otherwise.
        training: How a fold is trained, unless a row says otherwise.
        evaluation: What is drawn.
        rows: What each row changes.
        seeds: Train every row once with each; only with `training.seed` if None.
        recorded_tests: CSV file with the tests of published trainings, over which the learning curves of rows with
            `recorded_as` are drawn.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ConfigurationError(f"name is {name!r}.", remedy="Use small letters, digits, - and _, such as table3.")
    grid = expand_rows(
        rows, bands=bands, folds=folds, training=training, evaluation=evaluation, seeds=seeds,
        recorded_tests=Path(recorded_tests) if recorded_tests else None,
    )  # fmt: skip
    patch_table, data_version = ingest(data=data, bands=bands)
    sources: dict[BandSettings, Any] = {}
    tables: dict[FoldSettings, Any] = {}
    runs, scores = [], []
    for row in grid:
        if row.bands not in sources:
            sources[row.bands] = build_bands(
                patch_table=patch_table, data_version=data_version, data=data, bands=row.bands
            )
        split_by = replace(row.folds, trained=None)
        if split_by not in tables:
            recorded = split_by.table is not None  # the content of this file may change
            statistics = (
                measure_bands(patch_table=patch_table, patches=sources[row.bands]) if split_by.reads_images else None
            )
            tables[split_by] = split.with_options(enable_cache=not recorded)(
                patch_table=patch_table, folds=split_by, band_statistics=statistics
            )
        for settings in row.trainings:
            prefix = f"{row.label}_seed_{settings.seed}_" if seeds else f"{row.label}_"
            inputs = {
                "fold_table": tables[split_by], "patches": sources[row.bands], "start_from": "",
                "folds": row.folds, "training": settings,
            }  # fmt: skip
            run = open_run(**inputs, labels={f"ablation.{name}": row.name}, id=f"{prefix}open_run")
            _, row_scores = cross_validate(
                **inputs, run=run, bands=row.bands, evaluation=evaluation, train=train_ablation_fold, prefix=prefix
            )
            runs.append(run)
            scores.append(row_scores)
    described = [
        {
            "name": row.name,
            "paper": dict(row.paper),
            "parameters": row.parameters,
            "gflop": row.gflop,
            "seeds": [settings.seed for settings in row.trainings],
            "recorded": {str(fold): tests for fold, tests in row.recorded.items()},
        }
        for row in grid
    ]
    tabulate(name=name, reference=reference, rows=described, run_ids=runs, scores=scores, data_version=data_version)
