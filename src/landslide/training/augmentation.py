"""Augmentation of whole batches on the device: rotations, flips, pasting of landslides, and other light and colours.

The paper rotates by 90, 180 or 270 degrees and pastes the landslide regions of other patches ("cutmix",
section III-A). Two modes differ in what happens to the computed bands:

`published` moves stored and computed bands as they are, as the authors' code does: after a rotation the
gradients still point along the old axes, and pasted pixels keep the scaling of the patch they come from.

`consistent` makes the bands those of the augmented patch as far as that is possible without recomputing them:
gradients are swapped and signed under rotations and flips; after a paste the per-patch RGB normalisation is
recomputed, and neighbourhood bands are set to zero near the edge of the paste, where they would depend on pixels of
both patches. How near follows from the kernels of the selected bands (`BandSettings.reach`). What the hysteresis of
`canny` carries farther along an edge stays: it has no bound, and masking for it would empty the whole patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from landslide.bands.formulas import GLOBAL_RGB_BANDS, SOURCES, BandSettings
from landslide.errors import ConfigurationError, refuse_settings_without_effect
from landslide.inference.symmetries import NO_GRADIENTS, flip, gradient_channels, rotate
from landslide.schema import ORIGINAL_BANDS, STORED_DIVISORS

_NORMALIZED_BANDS = ("red_normalized", "green_normalized", "blue_normalized")
_INDICES = ("ndvi", "ndmi", "nbr")
_REFLECTANCES = {*(name for name in ORIGINAL_BANDS if name not in ("slope", "dem")), "gray", *GLOBAL_RGB_BANDS}
# Central wavelengths of the stored Sentinel-2 bands in nm (ESA, Sentinel-2 spectral response functions).
_WAVELENGTHS = {
    "B1": 443, "B2": 492, "B3": 560, "B4": 665, "B5": 704, "B6": 741, "B7": 783, "B8": 833, "B9": 945, "B10": 1374,
    "B11": 1614, "B12": 2202,
}  # fmt: skip
_SPECTRAL = tuple(_WAVELENGTHS)
# Which of them a band that is computed from reflectances changes with; gray only if its three sources are not selected.
_SAME_COLOUR = {**{name: SOURCES[name][0] for name in GLOBAL_RGB_BANDS}, "gray": "B3"}


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """How training patches are varied; the defaults are the paper's (section III-A and the authors' code)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    mode: Literal["published", "consistent", "none"] = "published"
    """`published` moves all bands as they are, as the authors' code does. `consistent` also swaps and signs gradients
    under rotations and flips, and recomputes or masks bands around a paste. `none` varies nothing."""
    rotation_probability: float = 0.7
    """Probability of a rotation by 90, 180 or 270 degrees, each equally likely; from 0 to 1."""
    max_pastes: int = 2
    """A patch gets 0 to this many landslides of other training patches, each number equally likely; 0 or more."""
    flips: bool = False
    """Also flip horizontally and vertically, each with probability 1/2. Not in the paper."""
    illumination: float = 0.0
    """Also make a patch brighter or darker: all reflectances are multiplied by exp(u), u uniform between -illumination
    and +illumination; 0 to 1. Indices, bands scaled per patch, and terrain do not change with light. Not in the
    paper."""
    band_gain: float = 0.0
    """Also change the colours, as other ground and other air do: each of B1 to B12 is multiplied by exp(u), u uniform
    between -band_gain and +band_gain and drawn for each band; 0 to 1. Indices and gray follow if the bands that they
    are computed from are selected. Not in the paper."""
    haze: float = 0.0
    """Also add haze or take it away: to each of B1 to B12, u (492 nm / wavelength)^2 times the band's mean in the patch
    is added, u uniform between -haze and +haze; 0 to 1. No more is taken away than leaves the darkest pixel at 0.
    Indices and gray follow as above. Not in the paper."""
    plain_epochs: int = 4
    """Number of epochs at the end without augmentation; 0 or more."""

    def __post_init__(self) -> None:
        shares = (self.rotation_probability, self.illumination, self.band_gain, self.haze)
        if not all(0 <= share <= 1 for share in shares) or min(self.max_pastes, self.plain_epochs) < 0:
            raise ConfigurationError(
                f"training.augmentation has a value out of range: {self}.",
                remedy="Use 0 or more for max_pastes and plain_epochs, and 0 to 1 for the other numbers.",
            )
        if self.mode == "none":
            others = (
                "rotation_probability",
                "max_pastes",
                "flips",
                "illumination",
                "band_gain",
                "haze",
                "plain_epochs",
            )
            refuse_settings_without_effect(
                self, "training.augmentation", others, because="training.augmentation.mode is none"
            )


@dataclass(frozen=True)
class Choices:
    """The random choices for each patch of a batch, on the CPU, so that the device is never waited for.

    Attributes:
        quarter_turns: (B,) 0 to 3 counter-clockwise.
        flips: (2, B) whether a patch is flipped horizontally and vertically.
        pastes: (B,) number of landslides to paste.
        brightness: (B,) logarithm of the factor of all reflectances.
        gains: (B, 12) logarithm of the factor of each of B1 to B12.
        haze: (B,) share of the mean of a band at 492 nm that is added.
    """

    quarter_turns: Tensor
    flips: Tensor
    pastes: Tensor
    brightness: Tensor
    gains: Tensor
    haze: Tensor

    def __getitem__(self, patches: slice) -> "Choices":
        """Return the choices for some patches of the batch."""
        return Choices(
            self.quarter_turns[patches], self.flips[:, patches], self.pastes[patches], self.brightness[patches],
            self.gains[patches], self.haze[patches],
        )  # fmt: skip


class Augmentation:
    """Augments batches of one training set.

    Args:
        settings: What to do.
        band_names: Names of the image channels, in order.
        bands: How the bands were computed.

    Raises:
        ConfigurationError: If light or colours are to change, and no band is a reflectance.
    """

    def __init__(self, settings: AugmentationSettings, band_names: Sequence[str], bands: BandSettings) -> None:
        self.settings = settings
        names = list(band_names)
        self._consistent = settings.mode == "consistent"
        self._gradients = gradient_channels(names) if self._consistent else NO_GRADIENTS
        reach = {name: pixels for name, pixels in bands.reach.items() if name in names}
        self._neighbourhood = [names.index(name) for name in reach]
        self._radius = max(reach.values(), default=0)
        self._normalized = [
            (names.index(name), names.index(SOURCES[name][0]))
            for name in _NORMALIZED_BANDS
            if {name, *SOURCES[name]} <= set(names)
        ]
        self._reflectances = [i for i, name in enumerate(names) if name in _REFLECTANCES]
        self._changes_reflectance = bool(settings.illumination or settings.band_gain or settings.haze)
        if self._changes_reflectance and not self._reflectances:
            raise ConfigurationError(
                "training.augmentation changes light or colours, and none of the selected bands is a reflectance: "
                f"{', '.join(names)}.",
                remedy="Leave out illumination, band_gain and haze, or select one of B1 to B12, gray or red_global.",
            )
        self._colours = torch.tensor(
            [_SPECTRAL.index(_SAME_COLOUR.get(names[i], names[i])) for i in self._reflectances]
        )
        self._clipped = [i for i, name in enumerate(names) if name in GLOBAL_RGB_BANDS]
        self._scattering = torch.tensor([(492 / _WAVELENGTHS[_SPECTRAL[i]]) ** 2 for i in self._colours.tolist()])
        self._gray: list[int] = []
        if {"gray", *SOURCES["gray"]} <= set(names):
            self._gray = [names.index(name) for name in ("gray", *SOURCES["gray"])]
        scales = STORED_DIVISORS if bands.reflectance else {}
        self._indices = [
            (names.index(name), names.index(a), names.index(b), scales.get(a, 1.0), scales.get(b, 1.0))
            for name, (a, b) in ((name, SOURCES[name]) for name in _INDICES)
            if {name, a, b} <= set(names)
        ]

    def draw(self, batch: int, generator: torch.Generator) -> Choices:
        """Draw the choices for the patches of a batch; `generator` is the only source of randomness."""
        settings = self.settings
        turned = torch.rand(batch, generator=generator) < settings.rotation_probability
        quarter_turns = torch.where(turned, torch.randint(1, 4, (batch,), generator=generator), 0)
        flips = torch.zeros(2, batch, dtype=torch.bool)
        if settings.flips:
            flips = torch.stack([torch.rand(batch, generator=generator) < 0.5 for _ in range(2)])
        pastes = torch.randint(0, settings.max_pastes + 1, (batch,), generator=generator)
        brightness = torch.zeros(batch)
        if settings.illumination:
            brightness = settings.illumination * (2 * torch.rand(batch, generator=generator) - 1)
        gains, haze = torch.zeros(batch, len(_SPECTRAL)), torch.zeros(batch)
        if settings.band_gain:
            gains = settings.band_gain * (2 * torch.rand(batch, len(_SPECTRAL), generator=generator) - 1)
        if settings.haze:
            haze = settings.haze * (2 * torch.rand(batch, generator=generator) - 1)
        return Choices(quarter_turns, flips, pastes, brightness, gains, haze)

    def __call__(
        self, images: Tensor, masks: Tensor, donors: Sequence[tuple[Tensor, Tensor]], choices: Choices
    ) -> tuple[Tensor, Tensor]:
        """Augment one batch.

        Args:
            images: (B, C, H, W) float, bands as stored; H = W.
            masks: (B, H, W) integers 0 and 1.
            donors: `max_pastes` batches (images, masks) of the same shapes, drawn from the positive patches of
                the same fold's training part; empty if it has none.
            choices: What to do, see `draw`.

        Returns:
            New images and masks of the same shapes.
        """
        settings = self.settings
        if settings.mode == "none":
            return images, masks
        images, masks = self._rotate(images, masks, choices.quarter_turns)
        if settings.flips:
            for axis, chosen in zip((-1, -2), choices.flips, strict=True):
                images, masks = self._flip(images, masks, chosen, axis)
        for i, (donor_images, donor_masks) in enumerate(donors):
            wanted = (choices.pastes > i).to(images.device, non_blocking=True)
            images, masks = self._paste(images, masks, donor_images, donor_masks, wanted)
        if settings.illumination:
            factor = choices.brightness.exp()[:, None, None, None]
            images[:, self._reflectances] *= factor.to(images.device, non_blocking=True)
        if settings.band_gain or settings.haze:
            self._recolour(images, choices)
        if self._changes_reflectance and self._clipped:
            images[:, self._clipped] = images[:, self._clipped].clamp(0, 1)
        return images, masks

    def _recolour(self, images: Tensor, choices: Choices) -> None:
        """Change the colours of the patches, in place."""
        before = images[:, self._reflectances]
        means = before.mean(dim=(2, 3), keepdim=True)
        gains = choices.gains[:, self._colours].exp()[:, :, None, None].to(images.device, non_blocking=True)
        haze = (choices.haze[:, None] * self._scattering)[:, :, None, None].to(images.device, non_blocking=True)
        before *= gains
        darkest = before.amin(dim=(2, 3), keepdim=True).clamp_min(0)
        images[:, self._reflectances] = before + torch.maximum(haze * means, -darkest)
        if self._gray:
            gray, *sources = self._gray
            images[:, gray] = images[:, sources].mean(dim=1)
        for index, a, b, scale_a, scale_b in self._indices:
            one, two = scale_a * images[:, a], scale_b * images[:, b]
            images[:, index] = ((one - two) / (one + two).clamp_min(1e-8)).clamp(-1, 1)

    def _rotate(self, images: Tensor, masks: Tensor, quarter_turns: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate each patch counter-clockwise by its number of quarter turns."""
        images, masks = images.clone(), masks.clone()
        for k in (1, 2, 3):
            chosen = torch.nonzero(quarter_turns == k).squeeze(1).to(images.device, non_blocking=True)
            if len(chosen):
                images[chosen] = rotate(images[chosen], k, self._gradients)
                masks[chosen] = torch.rot90(masks[chosen], k, dims=(-2, -1))
        return images, masks

    def _flip(self, images: Tensor, masks: Tensor, chosen: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        index = torch.nonzero(chosen).squeeze(1).to(images.device, non_blocking=True)
        if len(index):
            images[index] = flip(images[index], axis, self._gradients)
            masks[index] = masks[index].flip(axis)
        return images, masks

    def _paste(
        self, images: Tensor, masks: Tensor, donor_images: Tensor, donor_masks: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Paste the landslide pixels of the donors, all bands and the mask, into the wanted patches."""
        pasted = (donor_masks > 0) & wanted[:, None, None]
        images = torch.where(pasted[:, None], donor_images, images)
        masks = torch.where(pasted, donor_masks, masks)
        if self._consistent:
            images = self._renormalize(images, pasted)
        return images, masks

    def _renormalize(self, images: Tensor, pasted: Tensor) -> Tensor:
        changed = pasted.flatten(1).any(dim=1)[:, None, None]
        for normalized, source in self._normalized:
            band = images[:, source]
            low, high = band.amin(dim=(1, 2), keepdim=True), band.amax(dim=(1, 2), keepdim=True)
            scaled = (band - low) / (high - low).clamp_min(torch.finfo(band.dtype).tiny)
            images[:, normalized] = torch.where(changed, scaled, images[:, normalized])
        if self._neighbourhood:
            inside = pasted[:, None].float()
            mixed = (_dilate(inside, self._radius) * _dilate(1 - inside, self._radius)) > 0
            images[:, self._neighbourhood] = images[:, self._neighbourhood].masked_fill(mixed, 0.0)
        return images


def _dilate(masks: Tensor, radius: int) -> Tensor:
    """Grow masks (B, 1, H, W) by a square, along one axis after the other."""
    side = 2 * radius + 1
    wider = F.max_pool2d(masks, (1, side), stride=1, padding=(0, radius))
    return F.max_pool2d(wider, (side, 1), stride=1, padding=(radius, 0))
