"""Settings of a map."""

import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

from landslide.errors import ConfigurationError
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.mapping.networks import Engine, Precision


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What a scene does not say about itself. What its metadata say may not be contradicted."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    bands: tuple[str, ...] | None = None
    """Names of the bands of a raster, in its order; `-` skips one."""
    quantification: float | None = None
    """Digital numbers of a reflectance of 1, such as 10000; 1 if the values are reflectance."""
    offset: float | None = None
    """What is added to the digital numbers before they are divided, such as 0 or -1000."""
    level: Literal["L1C", "L2A"] | None = None
    """Processing level: `L1C` at the top of the atmosphere, `L2A` at the surface."""


@dataclass(frozen=True, kw_only=True)
class MappingSettings:
    """How the map of a scene is made from a model."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    overlap: float = 0.5
    """Share of a window that the next one covers again, from 0 to 0.95. Overlapping predictions are blended; 0.5 costs
    four times as much as 0."""
    augmentation: TestTimeAugmentation | None = None
    """Test-time augmentation: `none`, `rotations` or `flips_and_rotations`. By default that of the model."""
    threshold: float | None = None
    """Landslide probability from which a pixel is a landslide; by default the model's."""
    min_area: float = 500.0
    """Minimum mapping unit in square metres: smaller landslides are counted, but become no polygons."""
    min_valid: float = 0.1
    """Share of a window's pixels that must be valid, or the window is left out."""
    engine: Literal["auto"] | Engine = "auto"
    """What computes the networks: `openvino` on a CPU, `pytorch` anywhere; `auto` is OpenVINO on a CPU if it is
    installed and the scene has 256 windows or more. Logits differ by about one millionth."""
    precision: Precision = "float32"
    """Number format of the networks: `float32`, or `bfloat16`, which is up to twice as fast where the processor or GPU
    has it and changes probabilities by thousandths, at single pixels by hundredths."""

    def __post_init__(self) -> None:
        for name, high in (("overlap", 0.95), ("min_area", sys.float_info.max), ("min_valid", 1)):
            if not 0 <= getattr(self, name) <= high:
                limits = "0 or more square metres" if name == "min_area" else f"a number from 0 to {high}"
                raise ConfigurationError(f"mapping.{name} is {getattr(self, name)}.", remedy=f"Give {limits}.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigurationError(
                f"mapping.threshold is {self.threshold}.", remedy="Give a probability between 0 and 1."
            )
