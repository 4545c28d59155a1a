"""An ensemble of fold models on disk: raw patches in, landslide probability and uncertainty out.

    <directory>/ensemble.json          digest of the code, band settings, members with bands, statistics, threshold, ...
                member-1.safetensors   weights of the first member, and so on

The same folder with one member is the model of a single fold. It depends on nothing but torch, NumPy and OpenCV. In a
registered model a copy of the package is in `../../code`; it predicts if this installation has other code.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn

from landslide.bands.formulas import BandSettings, engineer_each
from landslide.bands.rounding import rounded
from landslide.errors import DataError, PredictionError, RegistryError
from landslide.files import sha256
from landslide.inference.own_code import CODE, import_ensemble
from landslide.inference.prediction import PUBLISHED, PredictionSettings, ensemble_probability
from landslide.models import ModelSpec, build_model
from landslide.schema import PATCH_SIZE

_FILE = "ensemble.json"
_SIDE = 16  # the networks halve a patch up to four times
_PIECE = 8  # patches that are searched for missing values at a time
_REMEDY = "Download the model again, or train it again."


@dataclass(frozen=True)
class Member:
    """One trained network of an ensemble.

    Attributes:
        fold: The fold that it was not trained on.
        spec: What rebuilds the network.
        threshold: Landslide probability chosen on its selection part.
        weights: Its safetensors file.
        prediction: How its logits become the probabilities on which the threshold was chosen.
        detection_threshold: Score of a patch from which it is said to hold a landslide (see
            `landslide.metrics.detection`), chosen on the selection part; None if none was chosen.
    """

    fold: int
    spec: ModelSpec
    threshold: float
    weights: Path
    prediction: PredictionSettings = PUBLISHED
    detection_threshold: float | None = None


class Ensemble:
    """Fold models that answer together.

    Args:
        members: The trained networks.
        settings: Settings of the bands on which they were trained.
        device: Where to compute; a GPU if there is one by default.
    """

    def __init__(self, members: Iterable[Member], settings: BandSettings, device: torch.device | None = None) -> None:
        self.members = tuple(members)
        self.settings = settings
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._models: list[nn.Module] = [
            build_model(member.spec, load_file(member.weights)).to(self.device) for member in self.members
        ]
        self._bands = self.members[0].spec.bands

    @property
    def models(self) -> list[nn.Module]:
        """The networks, in evaluation mode, in the order of the members."""
        return self._models

    @property
    def threshold(self) -> float:
        """The mean of the members' thresholds."""
        return float(np.mean([member.threshold for member in self.members]))

    def predict(
        self, images: npt.NDArray[Any], batch_size: int = 8
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Predict raw patches.

        Args:
            images: (N, C, H, W), any real dtype, values as stored, bands as `settings.stored` names them. H and W are
                multiples of 16; some networks need more. A network was trained on one size, 128 x 128 or a crop of it.
            batch_size: Patches at a time.

        Returns:
            Mean landslide probability and its standard deviation over the members, each (N, H, W) float32. Both are NaN
            in pixels of which a stored band is NaN or infinite: there the networks see the band's median of the patch,
            which reaches the pixels around it.

        Raises:
            DataError: If shape or dtype do not fit, or if a network does not take patches of this size.
        """
        images = _unmasked(images)
        self._check(images)
        n, _, height, width = images.shape
        probability = np.empty((n, height, width), np.float32)
        uncertainty = np.empty_like(probability)
        for start in range(0, n, batch_size):
            raw = images[start : start + batch_size]
            computed, missing = self._computed(raw)
            batch = torch.from_numpy(computed).to(self.device).float().contiguous(memory_format=torch.channels_last)
            variants = [member.prediction for member in self.members]
            try:
                mean, std = ensemble_probability(self._models, batch, variants, self._bands)
            except PredictionError as error:
                raise self._explained(error, _without_gaps(raw)[0]) from error
            except (RuntimeError, ValueError, KeyError) as error:
                if (height, width) == (PATCH_SIZE, PATCH_SIZE) or isinstance(error, torch.OutOfMemoryError):
                    raise
                name = self.members[0].spec.name
                raise DataError(
                    f"The network {name} does not take patches of {height} x {width} pixels.",
                    remedy=f"Cut them to {PATCH_SIZE} x {PATCH_SIZE}.",
                ) from error
            for answer, values in ((probability, mean), (uncertainty, std)):
                answer[start : start + batch_size] = np.where(missing, np.nan, values.cpu().numpy())
        return probability, uncertainty

    def _computed(self, raw: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the networks' bands, rounded to the number format of the cache as in training, and what is missing."""
        n, _, height, width = raw.shape
        bands = np.empty((n, len(self._bands), height, width), self.settings.dtype)
        missing = np.empty((n, height, width), bool)

        def filled() -> Iterator[npt.NDArray[Any]]:
            for start in range(0, n, _PIECE):  # in pieces that stay in the processor's cache
                part = slice(start, start + _PIECE)
                stored, missing[part] = _without_gaps(raw[part])
                yield from stored

        targets = iter(bands)

        def as_cached(computed: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
            return rounded(computed, self.settings.dtype, out=next(targets))

        with np.errstate(over="ignore"):  # as infinity, it is found in the network's answer
            for _ in engineer_each(filled(), self.settings, as_cached, self._bands):  # each goes to its target
                pass
        return bands, missing

    def _explained(self, error: PredictionError, stored: npt.NDArray[Any]) -> PredictionError:
        """Add the largest value of the patches to an error: a no-data value such as 1e30 makes any network overflow."""
        patch, band, row, column = np.unravel_index(np.abs(stored).argmax(), stored.shape)
        return PredictionError(
            f"{error.what} The largest value among them is {stored[patch, band, row, column]:g}, in band "
            f"{self.settings.stored[band]} of patch {patch} of its batch.",
            remedy="If such values stand for missing data, set them to NaN: these pixels are then not analysed. "
            f"Otherwise: {error.remedy}",
        )

    def _check(self, images: npt.NDArray[Any]) -> None:
        """Check shape and dtype of raw patches."""
        bands = len(self.settings.stored)
        if images.ndim != 4 or images.shape[1] != bands:
            raise DataError(
                f"Patches of shape (N, {bands}, H, W) are needed, not {images.shape}.",
                remedy=f"Stack patches with their bands first, in this order: {', '.join(self.settings.stored)}.",
            )
        if images.dtype.kind not in "iuf":
            raise DataError(
                f"Patches of integers or real numbers are needed, not of {images.dtype}.",
                remedy="Give the values as they are stored in the patch files.",
            )
        height, width = images.shape[2:]
        if not height or not width or height % _SIDE or width % _SIDE:
            raise DataError(
                f"Patches with sides that are multiples of {_SIDE} pixels are needed, not of {height} x {width}.",
                remedy=f"Cut them to {PATCH_SIZE} x {PATCH_SIZE}, the size of the training patches.",
            )


def _unmasked(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array whose masked values, if there are any, are NaN."""
    if isinstance(images, np.ma.MaskedArray) and images.dtype.kind in "iuf":
        return np.where(np.ma.getmaskarray(images), np.nan, images.data) if images.mask.any() else images.data
    return np.asarray(images)


def _without_gaps(stored: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Fill pixels that have a non-finite band with the medians of the bands; return the patches and these pixels."""
    with np.errstate(over="ignore"):
        missing = np.asarray(~np.isfinite(stored.astype(np.float32)).all(axis=1))
    if missing.any():
        stored = stored.astype(np.float64)
        for patch, gaps in zip(stored, missing, strict=True):
            patch[:, gaps] = 0 if gaps.all() else np.median(patch[:, ~gaps], axis=1)[:, None]
    return stored, missing


def save_ensemble(directory: Path, members: Iterable[Member], settings: BandSettings, code: str | None = CODE) -> None:
    """Write an ensemble to a new folder.

    Args:
        directory: Folder to create.
        members: Its members; their weights are copied.
        settings: Settings of the bands on which they were trained.
        code: Digest of the code that reads them; another one only if a model is copied.
    """
    directory.mkdir(parents=True)
    described = []
    for number, member in enumerate(members, start=1):
        weights = directory / f"member-{number}.safetensors"
        weights.write_bytes(member.weights.read_bytes())
        described.append(
            {
                "fold": member.fold,
                "spec": member.spec.to_dict(),
                "threshold": member.threshold,
                "prediction": asdict(member.prediction),
                "detection_threshold": member.detection_threshold,
                "weights": weights.name,
                "sha256": sha256(weights),
            }
        )
    content = {"code": code, "band_settings": settings.to_dict(), "members": described}
    (directory / _FILE).write_text(json.dumps(content, indent=2))


def recorded_code(directory: Path) -> str | None:
    """Return the digest of the code that reads a saved ensemble, None if an older release saved it.

    Raises:
        RegistryError: If the description of the ensemble is missing or damaged.
    """
    try:
        code: str | None = json.loads((directory / _FILE).read_text()).get("code")
    except (OSError, ValueError, AttributeError) as error:
        raise RegistryError(f"The model in {directory} cannot be read: {error}.", remedy=_REMEDY) from error
    return code


def load_members(directory: Path, *, any_code: bool = False) -> tuple[list[Member], BandSettings]:
    """Read what `save_ensemble` wrote and verify the weights against their digests.

    Args:
        directory: The folder.
        any_code: Read it even if other code wrote it: to compare or copy it, not to predict.

    Raises:
        RegistryError: If a file is missing or damaged, or if other code wrote the ensemble.
    """
    code = recorded_code(directory)
    if code != CODE and not any_code:
        raise RegistryError(
            f"The model in {directory} was saved by other code ({code or 'an older release'}) than this ({CODE}): its "
            "bands or networks may be computed otherwise here.",
            remedy="Download the whole model and load its folder artifacts/ensemble by `load_ensemble`, which uses the "
            "code beside it; or use the release that saved it.",
        )
    try:
        content = json.loads((directory / _FILE).read_text())
        members = [
            Member(
                m["fold"],
                ModelSpec.from_dict(m["spec"]),
                m["threshold"],
                directory / m["weights"],
                PredictionSettings(**m.get("prediction", {})),  # older models have neither this nor the next
                m.get("detection_threshold"),
            )
            for m in content["members"]
        ]
        damaged = [m["weights"] for m in content["members"] if sha256(directory / m["weights"]) != m["sha256"]]
        settings = BandSettings.from_dict(content["band_settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"The model in {directory} cannot be read: {error}.", remedy=_REMEDY) from error
    if damaged:
        raise RegistryError(f"The model in {directory} is damaged: {', '.join(damaged)}.", remedy=_REMEDY)
    return members, settings


def load_ensemble(directory: Path, device: torch.device | None = None) -> Ensemble:
    """Load an ensemble from the folder that `save_ensemble` wrote, ready to predict.

    If other code wrote it, the copy of the package in `../../code` is imported and predicts. The result is then an
    `Ensemble` of that copy, and no instance of this class.

    Args:
        directory: The folder.
        device: Where to compute; a GPU if there is one by default.

    Raises:
        RegistryError: If a file is missing or damaged, or if other code wrote the ensemble and is not beside it.
    """
    recorded, copy = recorded_code(directory), directory.resolve().parents[1] / "code"
    if recorded == CODE or not copy.is_dir():
        return Ensemble(*load_members(directory), device=device)
    own = import_ensemble(copy, recorded)
    ensemble: Ensemble = own.Ensemble(*own.load_members(directory), device=device)
    return ensemble
