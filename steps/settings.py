"""Settings of the pipelines that the library does not have: where the data is, how it is split, what decides.

They enter once, in a run configuration (configs/*.yaml), and are validated there by pydantic.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from landslide.errors import ConfigurationError, refuse_ignored
from landslide.folds.schemes import SCHEMES
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.metrics.counts import METRIC_NAMES


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the patches are.

    Attributes:
        root: Folder of the data set, relative to the working folder or absolute.
        positions: Where scene, row and column of the patches come from (see `landslide.data.positions.read_positions`).
        fetch: Bring what `<root>.dvc` pins from the DVC remote first (see `landslide.data.project.fetch`).
        repository: Where there is no checkout: git repository whose newest commit pins the data.
        revision: Branch or tag of that repository.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    root: str = "data"
    positions: Literal["auto", "landslide4sense", "none"] = "auto"
    fetch: bool = False
    repository: str | None = None
    revision: str = "main"

    def __post_init__(self) -> None:
        if self.repository and not self.fetch:
            raise ConfigurationError(
                f"data.repository is {self.repository}, and data.fetch is off.",
                remedy="Set data.fetch: true, or leave data.repository out.",
            )
        if not self.repository:
            refuse_ignored(self, "data", ("revision",), because="data.repository is not given")
        if self.repository and urlsplit(self.repository).password:
            raise ConfigurationError(
                "data.repository holds a password, and settings are recorded in MLflow.",
                remedy="Give credentials to git by its own configuration (docs/operations.md, Kubeflow).",
            )


@dataclass(frozen=True, kw_only=True)
class FoldSettings:
    """How the patches are split for cross-validation.

    Attributes:
        scheme: How they are split anew (see `landslide.folds.schemes.assign`).
        n_folds: Number of folds.
        trained: The folds that are trained and scored, such as (1,) for the 80/20 split of the paper's Tables III to
            V; all if None.
        seed: Seed of the random schemes.
        table: A recorded fold table (CSV) to split by. Beside it, `scheme` is left out, or `scene_blocked` if
            training is to leave out the tiles that touch the test fold.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    scheme: str = "contiguous"
    n_folds: int = 5
    trained: tuple[int, ...] | None = None
    seed: int = 0
    table: str | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES or self.n_folds < 2:
            raise ConfigurationError(
                f"folds asks for scheme {self.scheme!r} and {self.n_folds} folds.",
                remedy=f"Use a scheme of {', '.join(SCHEMES)} and at least 2 folds.",
            )
        possible = range(1, self.n_folds + 1)
        if self.trained is not None and not (
            self.trained and set(self.trained) <= set(possible) and len(set(self.trained)) == len(self.trained)
        ):
            raise ConfigurationError(
                f"folds.trained is {list(self.trained)}.",
                remedy=f"Name distinct folds from 1 to {self.n_folds}, or leave it out to train all.",
            )
        if self.table is not None:
            names = ("seed",) if self.exclude_adjacent else ("seed", "scheme")
            refuse_ignored(self, "folds", names, because="the folds are those of folds.table")
        elif self.scheme == "contiguous":
            refuse_ignored(self, "folds", ("seed",), because="contiguous folds are not random")

    @property
    def exclude_adjacent(self) -> bool:
        """Whether training leaves out the tiles that adjoin the test fold."""
        return self.scheme == "scene_blocked"

    @property
    def trained_folds(self) -> list[int]:
        """The folds that are trained and scored, ascending."""
        return sorted(self.trained or range(1, self.n_folds + 1))

    @property
    def trained_text(self) -> str:
        """The same for a tag: `all`, or numbers with commas between them."""
        return "all" if len(self.trained_folds) == self.n_folds else ",".join(map(str, self.trained_folds))


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is drawn and recorded.

    Attributes:
        overlays: Number of patches of each fold shown in the prediction figure.
        test_time_augmentation: Also score the mean over `rotations` (four passes through the network) or
            `flips_and_rotations` (eight), as `<score>_tta`.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    overlays: int = 4
    test_time_augmentation: TestTimeAugmentation = "none"


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """Which model is called better.

    Attributes:
        metric: The cross-validated score that decides between champion and challenger.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    metric: str = "f1_macro"

    def __post_init__(self) -> None:
        if self.metric not in METRIC_NAMES:
            raise ConfigurationError(
                f"registration.metric is {self.metric!r}.", remedy=f"Use one of {', '.join(METRIC_NAMES)}."
            )


@dataclass(frozen=True, kw_only=True)
class RetrainingSettings:
    """How the unattended retraining goes about its work.

    Attributes:
        start: Train from `scratch`, or warm from the `champion`: fold k then starts from the champion's fold k.
        force: Train and decide although nothing changed, or although this data version has had its decision. The
            environment variable `LANDSLIDE_FORCE=1` does the same.
        drift_limit: Shift of a band's mean, in standard deviations of the champion's training data, from which it is
            reported as drift; for the shares of landslides, the logarithm of their ratio.
        disk_budget_gb: Gigabytes that everything under `LANDSLIDE_HOME` may take before old caches and abandoned
            checkpoints are deleted; no limit if None.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    start: Literal["scratch", "champion"] = "scratch"
    force: bool = False
    drift_limit: float = 0.5
    disk_budget_gb: float | None = None

    def __post_init__(self) -> None:
        if self.drift_limit <= 0 or (self.disk_budget_gb is not None and self.disk_budget_gb <= 0):
            raise ConfigurationError(
                f"retraining.drift_limit is {self.drift_limit} and retraining.disk_budget_gb {self.disk_budget_gb}.",
                remedy="Set both above 0, or leave them out.",
            )
