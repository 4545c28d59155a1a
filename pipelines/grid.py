"""The rows of an ablation: cross-validations that differ in a few settings, all checked before any is trained."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

from landslide.ablation.record import read_recorded_tests
from landslide.bands.formulas import BandSettings
from landslide.errors import ConfigurationError, LandslideError, refuse_settings_without_effect
from landslide.metrics.counts import METRIC_NAMES
from landslide.models.complexity import Complexity, complexity
from landslide.training.fold import TrainingSettings
from pipelines.configured import describe, refuse_no_numbers
from pipelines.cross_validation import input_bands
from steps.settings import EvaluationSettings, FoldSettings

_Settings = TypeVar("_Settings", BandSettings, FoldSettings, TrainingSettings)
# Published figures that a row may have: scores in percent, trainable parameters in millions.
_PUBLISHED = (*METRIC_NAMES, "parameters")


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """A row of the grid: its changes of the common settings."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    """Its name in the table."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """Published figures for comparison: scores in percent under their metric names, and `parameters` in
    millions."""
    recorded_as: str = ""
    """Name of a training in the file `recorded_tests`, over which the row's learning curves are drawn."""
    bands: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the band settings; not of `stored`."""
    folds: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the fold settings."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the training settings. Mappings are merged key by key, but a row that names another `model` starts
    without the `model_options` of the common one, a row that names another kind of `schedule` without its values, and
    `augmentation: {mode: none}` without the other common values."""

    def __post_init__(self) -> None:
        for key, value in self.paper.items():
            if key not in _PUBLISHED or not 0 <= value <= 100:
                raise ConfigurationError(
                    f"row {self.name!r}: paper.{key} is {value!r}.",
                    remedy=f"Use {', '.join(_PUBLISHED)}, in percent (parameters in millions).",
                )


@dataclass(frozen=True)
class Row:
    """A row with all its settings.

    Attributes:
        name: Its name in the table.
        label: The name as part of the names of steps.
        paper: Published figures.
        bands: Band settings.
        folds: Fold settings.
        trainings: Training settings, one for each seed.
        parameters: Trainable parameters of the network.
        gflop: 10^9 operations of its forward pass for one patch.
        recorded: Tests of a published training by fold, see `landslide.ablation.record.read_recorded_tests`.
    """

    name: str
    label: str
    paper: Mapping[str, float]
    bands: BandSettings
    folds: FoldSettings
    trainings: tuple[TrainingSettings, ...]
    parameters: int
    gflop: float
    recorded: Mapping[int, list[list[float]]]


def expand_rows(
    rows: Sequence[RowSettings],
    *,
    bands: BandSettings,
    folds: FoldSettings,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    seeds: Sequence[int] | None,
    recorded_tests: Path | None = None,
) -> list[Row]:
    """Return every row with all its settings, after building its network once without memory.

    Args:
        rows: The changes of the rows.
        bands: Common band settings.
        folds: Common fold settings.
        training: Common training settings.
        evaluation: How all rows are scored.
        seeds: Seeds with which every row is trained; only `training.seed` if None.
        recorded_tests: File with the tests of published trainings.

    Raises:
        ConfigurationError: If a setting is unknown or out of range (with the row's name), or two rows have one name.
    """
    if not rows:
        raise ConfigurationError(
            "The grid has no rows.", remedy="Add some under parameters.rows (docs/how-to/run-an-ablation.md)."
        )
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds)):
        raise ConfigurationError(f"seeds is {list(seeds)}.", remedy="Name distinct seeds, or leave it out.")
    if seeds is not None:
        refuse_settings_without_effect(training, "training", ("seed",), because="the grid has seeds")
    resolved: list[Row] = []
    for number, row in enumerate(rows):
        try:
            resolved.append(_resolve_row(row, bands, folds, training, evaluation, seeds, recorded_tests))
        except LandslideError as error:
            where = f"rows[{number}] ({row.name})"
            raise ConfigurationError(f"{where}: {error.what}", remedy=error.remedy) from error
        same = [other.name for other in resolved[:-1] if other.label == resolved[-1].label]
        if same:
            raise ConfigurationError(
                f"rows[{number}] ({row.name}) has the name of another row, {same[0]!r}.",
                remedy="Give every row a unique name; case and punctuation do not count.",
            )
    return resolved


def _resolve_row(
    row: RowSettings,
    bands: BandSettings,
    folds: FoldSettings,
    training: TrainingSettings,
    evaluation: EvaluationSettings,
    seeds: Sequence[int] | None,
    recorded_tests: Path | None,
) -> Row:
    label = re.sub(r"[^a-z0-9]+", "_", row.name.lower()).strip("_")
    if not label:
        raise ConfigurationError(f"name is {row.name!r}.", remedy="Give the row a name with letters or digits.")
    if "stored" in row.bands:
        raise ConfigurationError(
            "a row cannot change bands.stored, which describes the files of the data set.",
            remedy="Set it in the common `bands`, and choose the bands of a row by training.bands.",
        )
    if seeds is not None and "seed" in row.training:
        raise ConfigurationError("it sets training.seed, and the grid has seeds.", remedy="Leave one of them out.")
    row_bands = _changed(bands, row.bands, "bands")
    row_folds = _changed(folds, row.folds, "folds")
    common = asdict(training)
    if "model" in row.training:
        common["model_options"] = {}
    row_training = _changed(training, row.training, "training", common)
    names = input_bands(row_bands, row_training, evaluation)
    cost = _cost(row_training.model, len(names), json.dumps(row_training.model_options, sort_keys=True))
    chosen = [row_training.seed] if seeds is None else seeds
    trainings = tuple(_changed(row_training, {"seed": seed}, "training") for seed in chosen)
    recorded = {}
    if recorded_tests is not None and row.recorded_as:
        recorded = read_recorded_tests(recorded_tests, row.recorded_as, row_training)
    return Row(row.name, label, row.paper, row_bands, row_folds, trainings, cost.parameters, cost.gflop, recorded)


@lru_cache
def _cost(model: str, n_bands: int, options: str) -> Complexity:
    """Measure a network without memory; the options come as JSON, because many rows have the same."""
    return complexity(model, n_bands, json.loads(options))


def _changed(
    settings: _Settings, changes: Mapping[str, Any], name: str, common: Mapping[str, Any] | None = None
) -> _Settings:
    """Return settings with changes, validated as a run configuration is."""
    values = _merged(asdict(settings) if common is None else common, changes)
    refuse_no_numbers(changes, name, type(settings))
    try:
        return TypeAdapter(type(settings)).validate_python(values)
    except ValidationError as error:
        what, _, remedy = describe(error, "", name, type(settings)).partition("\n  -> ")
        raise ConfigurationError(what, remedy=remedy) from error


def _merged(common: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    if changes.get("kind", common.get("kind")) != common.get("kind") or changes.get("mode") == "none":
        return dict(changes)
    merged = dict(common)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
