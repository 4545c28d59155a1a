"""Settings of the pipelines beyond those of the library: data, folds, evaluation, registration, retraining.

They enter once, in a run configuration (configs/*.yaml), and are validated there by pydantic.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from landslide.errors import ConfigurationError, refuse_settings_without_effect
from landslide.folds.parts import HoldOut
from landslide.folds.schemes import ELSEWHERE, GAPPED, SCHEMES
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.metrics.counts import METRIC_NAMES
from landslide.schema import SEEDS


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the patches are."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    root: str = "data"
    """Folder of the data set, relative to the working folder or absolute."""
    positions: Literal["auto", "landslide4sense", "none"] = "auto"
    """Where scene, row and column of the patches come from: `scenes.csv` in the data folder if there is one; otherwise
    `landslide4sense` takes the built-in table of the official set, and `auto` does so if it is the official set. With
    `none` no positions are known."""
    fetch: bool = False
    """First bring what `<root>.dvc` pins from the DVC remote."""
    repository: str | None = None
    """Address of a git repository whose newest commit pins the data, for a place without a checkout, such as a
    container. Needs `fetch`, and holds no password."""
    revision: str = "main"
    """Branch or tag of that repository."""

    def __post_init__(self) -> None:
        if self.repository and not self.fetch:
            raise ConfigurationError(
                f"data.repository is {self.repository}, and data.fetch is off.",
                remedy="Set data.fetch: true, or leave data.repository out.",
            )
        if not self.repository:
            refuse_settings_without_effect(self, "data", ("revision",), because="data.repository is not given")
        if self.repository and urlsplit(self.repository).password:
            raise ConfigurationError(
                "data.repository holds a password, and settings are recorded in MLflow.",
                remedy="Give credentials to git by its own configuration (docs/how-to/use-kubeflow.md).",
            )


@dataclass(frozen=True, kw_only=True)
class FoldSettings:
    """How the patches are split for cross-validation."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    scheme: str = "contiguous"
    """`contiguous` (the authors' folds: fifths in natural file order, fold 1 is the last), `random`, `stratified` (by
    landslide pixels), `scene_blocked` (blocks of neighbouring tiles stay together; needs positions), `scene` (every
    scene is in one fold, so each fold is tested on other scenes; needs positions), or `cluster` (blocks of neighbouring
    tiles, grouped by their band statistics, stand for other scenes in data of one scene). A retraining keeps the
    champion's."""
    n_folds: int = 5
    """Number of folds, 2 or more. The paper has 5."""
    trained: tuple[int, ...] | None = None
    """The folds that are trained and scored, such as [1] for the 80/20 split of the paper's Tables III to V; all if
    null."""
    seed: int = 0
    """Seed of the schemes that are random, and of the draw of the in-scene part, 0 to 4,294,967,295. Not with
    `contiguous`."""
    gap: int = 1
    """Width in tiles of the ring around the test fold, and around the in-scene part, that is not trained on; 0 for
    none. Only with `scene_blocked`, `scene` and `cluster`, and for patches with a position."""
    in_scene_fraction: float = 0.1
    """Share of the other folds that is kept for a second test of the same network, on ground like that of its training
    (`<score>_in_scene`); at most 0.5, 0 for none. Only with `scene` and `cluster`."""
    allow_duplicates: bool = False
    """Accept an image that occurs under several numbers in different folds: the fold that is tested on it has trained
    on it. Otherwise this is an error that names the patches."""
    table: str | None = None
    """A recorded fold table (CSV with number, image_md5 and fold) to split by instead. Beside it the schemes
    `scene_blocked`, `scene` and `cluster` have an effect: they say what is left out of training."""

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES or self.n_folds < 2:
            raise ConfigurationError(
                f"folds asks for scheme {self.scheme!r} and {self.n_folds} folds.",
                remedy=f"Use a scheme of {', '.join(SCHEMES)} and at least 2 folds.",
            )
        if self.seed not in SEEDS:
            raise ConfigurationError(f"folds.seed is {self.seed}.", remedy=f"Set it to 0 to {SEEDS[-1]:,}.")
        possible = range(1, self.n_folds + 1)
        if self.trained is not None and not (
            self.trained and set(self.trained) <= set(possible) and len(set(self.trained)) == len(self.trained)
        ):
            raise ConfigurationError(
                f"folds.trained is {list(self.trained)}.",
                remedy=f"Name distinct folds from 1 to {self.n_folds}, or leave it out to train all.",
            )
        for names, because in self._without_effect():
            refuse_settings_without_effect(self, "folds", names, because=because)

    def _without_effect(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield names of settings, and why they have no effect."""
        if self.scheme not in ELSEWHERE:
            yield ("in_scene_fraction",), f"{self.scheme} folds test on ground like that of the training"
        if self.scheme not in GAPPED:
            yield ("gap",), f"{self.scheme} folds have no gap"
        in_scene = self.hold_out.in_scene_fraction > 0
        if self.scheme == "scene" and not in_scene:
            yield ("gap",), "no tile of a scene adjoins another scene, and there is no in-scene part"
        if self.table is not None:
            names = () if self.scheme in GAPPED else ("scheme",)
            yield (*(() if in_scene else ("seed",)), *names), "the folds are those of folds.table"
        elif self.scheme == "contiguous" or (self.scheme == "scene" and not in_scene):
            yield ("seed",), f"{self.scheme} folds are not random"

    @property
    def hold_out(self) -> HoldOut:
        """What is kept out of training and selection beside the test fold."""
        fraction = self.in_scene_fraction if self.scheme in ELSEWHERE else 0.0
        return HoldOut(gap=self.gap if self.scheme in GAPPED else 0, in_scene_fraction=fraction, seed=self.seed)

    @property
    def tested_on(self) -> str | None:
        """What the test folds are to the training parts, under the schemes that test on other ground."""
        return ELSEWHERE.get(self.scheme)

    @property
    def reads_images(self) -> bool:
        """Whether the split looks at the images themselves."""
        return self.scheme == "cluster" and self.table is None

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
    """What is drawn and recorded."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    figures: bool = True
    """Draw the figures of every fold and of the cross-validation. They take a second or two per fold."""
    overlays: int = 4
    """Number of patches of each fold shown in the prediction figure."""
    test_time_augmentation: TestTimeAugmentation = "none"
    """Also score the mean over `rotations` (four passes through the network) or `flips_and_rotations` (eight), as
    `<score>_tta`."""

    def __post_init__(self) -> None:
        if self.overlays < 1:
            raise ConfigurationError(
                f"evaluation.overlays is {self.overlays}.", remedy="Use 1 or more, or set evaluation.figures: false."
            )
        if not self.figures:
            refuse_settings_without_effect(self, "evaluation", ("overlays",), because="evaluation.figures is false")


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """Which model is called better."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    metric: str = "f1_macro"
    """The cross-validated score that decides between champion and challenger: `f1_macro`, `miou`, `f1_landslide`,
    `iou_landslide`, `precision_landslide`, `recall_landslide` or `accuracy`."""

    def __post_init__(self) -> None:
        if self.metric not in METRIC_NAMES:
            raise ConfigurationError(
                f"registration.metric is {self.metric!r}.", remedy=f"Use one of {', '.join(METRIC_NAMES)}."
            )


@dataclass(frozen=True, kw_only=True)
class RetrainingSettings:
    """How the unattended retraining goes about its work."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    start: Literal["scratch", "champion"] = "scratch"
    """Train from `scratch`, or start fold k from the champion's network of fold k."""
    force: bool = False
    """Train and decide even if nothing changed, or if this data version has its decision already. The environment
    variable `LANDSLIDE_FORCE=1` does the same."""
    drift_limit: float = 0.5
    """Shift of a band's mean from which it is reported as drift, in standard deviations of the champion's training
    data; for the shares of landslides, the logarithm of their ratio. Above 0."""
    disk_budget_gb: float | None = None
    """Gigabytes that everything under `LANDSLIDE_HOME` may take before old caches and abandoned checkpoints are
    deleted; above 0. No limit if null."""

    def __post_init__(self) -> None:
        if self.drift_limit <= 0 or (self.disk_budget_gb is not None and self.disk_budget_gb <= 0):
            raise ConfigurationError(
                f"retraining.drift_limit is {self.drift_limit} and retraining.disk_budget_gb {self.disk_budget_gb}.",
                remedy="Set both above 0, or leave them out.",
            )
