"""Settings of the pipelines that the library does not have: where the data is, how it is split, what decides.

They enter once, in a run configuration (configs/*.yaml), and are validated there by pydantic.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from landslide.errors import ConfigurationError
from landslide.folds import SCHEMES
from landslide.metrics import METRIC_NAMES


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the patches are.

    Attributes:
        root: Folder of the data set, relative to the working folder or absolute.
        positions: Where scene, row and column of the patches come from (see `landslide.patches.read_positions`).
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    root: str = "data"
    positions: Literal["auto", "landslide4sense", "none"] = "auto"


@dataclass(frozen=True, kw_only=True)
class FoldSettings:
    """How the patches are split for cross-validation (see `landslide.folds.assign`)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    scheme: str = "contiguous"
    n_folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES or self.n_folds < 2:
            raise ConfigurationError(
                f"folds asks for scheme {self.scheme!r} and {self.n_folds} folds.",
                remedy=f"Use a scheme of {', '.join(SCHEMES)} and at least 2 folds.",
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What is drawn and recorded.

    Attributes:
        overlays: Number of patches of each fold shown in the prediction figure.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    overlays: int = 4


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
