"""The model of a map: from the registry or a folder, with what it needs of a scene."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from landslide.bands.formulas import BandSettings, source_bands
from landslide.errors import RegistryError
from landslide.files import sha256
from landslide.inference.ensemble import Ensemble, load_ensemble
from landslide.inference.symmetries import TestTimeAugmentation
from landslide.scenes.units import TERRAIN_BANDS, Units, stored_values, to_stored

_FAR = 8.0  # factor from the mean of Landslide4Sense, or standard deviations from the model's own mean


@dataclass(frozen=True)
class MapModel:
    """A model that is ready to map.

    Attributes:
        ensemble: The networks.
        name: Name of the registered model, or of the folder.
        version: Number of its version; empty for a folder.
        address: Where it was read from.
        digest: SHA-256 of the description of its members, which holds the digests of their weights.
    """

    ensemble: Ensemble
    name: str
    version: str
    address: str
    digest: str

    @property
    def settings(self) -> BandSettings:
        """Settings of its bands."""
        return self.ensemble.settings

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of a scene that its networks need, in the order of the patch files."""
        used = source_bands([name for member in self.ensemble.members for name in member.spec.bands])
        return tuple(name for name in self.settings.stored if name in used)

    @property
    def level(self) -> str:
        """Processing level of the reflectance on which it was trained."""
        return str(getattr(self.settings, "level", "L1C"))  # an older release has L1C only

    @property
    def augmentation(self) -> TestTimeAugmentation:
        """Its test-time augmentation."""
        return self.ensemble.members[0].prediction.augmentation

    def augmented(self, augmentation: TestTimeAugmentation | None) -> "MapModel":
        """Return the model with another test-time augmentation; with its own if None."""
        if augmentation is None:
            return self
        members = [
            replace(member, prediction=replace(member.prediction, augmentation=augmentation))
            for member in self.ensemble.members
        ]
        kind = type(self.ensemble)  # of the model's own release
        return replace(self, ensemble=kind(members, self.settings, self.ensemble.device))

    def to_stored(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Bring windows of a scene to the bands, order and units of the training patches.

        Args:
            values: (N, C, H, W), the bands of `bands`: reflectance from 0 to 1, degrees, metres.

        Returns:
            (N, stored bands, H, W) float64; 0 in bands that the networks do not need.
        """
        return to_stored(values, self.bands, self.settings.stored, self._units)

    @property
    def _units(self) -> Units:
        return getattr(self.settings, "units", "landslide4sense")  # an older release has these only

    def unusual(self, medians: Sequence[float]) -> list[str]:
        """Describe the bands whose values look wrong for the model.

        Args:
            medians: Median of each of `bands` in a scene, as `to_stored` takes them; NaN where there is none.

        Returns:
            A line for each band far from the mean that the model has recorded, or, if it has none, from that of
            Landslide4Sense.
        """
        spec = self.ensemble.members[0].spec
        recorded = dict(zip(spec.bands, zip(spec.mean or (), spec.std or (), strict=True), strict=False))
        found = []
        for name, median in zip(self.bands, medians, strict=True):
            value = float(stored_values(name, median, self._units))
            if name in recorded:
                mean, std = recorded[name]
                strange, usual = abs(value - mean) > _FAR * std, f"{mean:.3g} +- {std:.2g}"
            elif self._units == "landslide4sense" and name not in TERRAIN_BANDS:
                strange, usual = not 1 / _FAR <= value <= _FAR, "about 1"
            else:
                continue
            if strange and np.isfinite(value):
                found.append(f"the median of {name} is {value:.3g}; in the training patches it is {usual}")
        return found


def open_model(name: str, folder: Path, device: torch.device | None = None) -> MapModel:
    """Load a model.

    Args:
        name: Version or alias of the registered model (`3`, `champion`), `models:/NAME/3`, `models:/NAME@champion`, or
            the folder of a saved ensemble or of a downloaded model.
        folder: Folder for downloaded files.
        device: Where to compute; a GPU if there is one by default.

    Raises:
        RegistryError: If there is no such model, or it is damaged.
    """
    for candidate in (Path(name), Path(name, "artifacts", "ensemble")):
        if (candidate / "ensemble.json").is_file():
            found = candidate.resolve()
            return MapModel(load_ensemble(found, device), Path(name).resolve().name, "", str(found), _digest(found))
    if Path(name).is_dir():
        raise RegistryError(
            f"The folder {name} holds no model: there is no ensemble.json.",
            remedy="Give the folder of a saved ensemble, or a version or alias (`landslide models list`).",
        )
    from landslide.paths import default_tracking_uri
    from landslide.tracking import registry, runs

    client = runs.connect(default_tracking_uri())
    number = registry.version(client, name)["version"]
    ensemble = registry.fetch(number, folder)
    address = registry.address(number)
    return MapModel(load_ensemble(ensemble, device), registry.MODEL_NAME, number, address, _digest(ensemble))


def _digest(ensemble: Path) -> str:
    return sha256(ensemble / "ensemble.json")
