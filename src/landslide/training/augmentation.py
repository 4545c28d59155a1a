"""Augmentation of whole batches on the device: rotations, flips, and pasting of landslides.

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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from landslide.bands.formulas import GLOBAL_RGB_BANDS, BandSettings
from landslide.errors import ConfigurationError, refuse_settings_without_effect
from landslide.inference.symmetries import NO_GRADIENTS, flip, gradient_channels, rotate
from landslide.schema import ORIGINAL_BANDS

_NORMALIZED_BANDS = {"red_normalized": "B4", "green_normalized": "B3", "blue_normalized": "B2"}

_REFLECTANCES = {*(name for name in ORIGINAL_BANDS if name not in ("slope", "dem")), "gray", *GLOBAL_RGB_BANDS}


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
    and +illumination; 0 or more. Indices, bands scaled per patch, and terrain do not change with light. Not in the
    paper."""
    haze: float = 0.0
    """Also add or remove haze: u times the standard deviation of a band in the patch is added to every reflectance, u
    uniform between -haze and +haze and falling with the wavelength as Rayleigh and aerosol scattering do; 0 or more."""
    gain: float = 0.0
    """Also change the spectra of the ground: each reflectance is multiplied by exp(u) around the mean of the patch and
    shifted by v standard deviations, u and v uniform between -gain and +gain and drawn for each band; 0 or more."""
    sharpness: float = 0.0
    """Also blur or sharpen: u times the difference to the mean of 3 x 3 pixels is added, u uniform between -sharpness
    and +sharpness; 0 to 1."""
    warp: float = 0.0
    """Probability of a random affine warp: rotation by any angle, scale 1/1.5 to 1.5, shear up to 0.15."""
    band_dropout: float = 0.0
    """Probability that a patch loses one band: it is set to its mean over the patch."""
    statistics_mixing: float = 0.0
    """Probability that mean and standard deviation of the bands are mixed with those of another training patch."""
    amplitude_mixing: float = 0.0
    """Probability that the amplitude spectrum is mixed with that of another training patch."""
    plain_epochs: int = 4
    """Number of epochs at the end without augmentation; 0 or more."""

    def __post_init__(self) -> None:
        if not 0 <= self.rotation_probability <= 1 or min(self.max_pastes, self.illumination, self.plain_epochs) < 0:
            raise ConfigurationError(
                f"training.augmentation has a value out of range: {self}.",
                remedy="Use a probability between 0 and 1, and 0 or more for the others.",
            )
        if self.mode == "none":
            others = ("rotation_probability", "max_pastes", "flips", "illumination", "plain_epochs")
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
    """

    quarter_turns: Tensor
    flips: Tensor
    pastes: Tensor
    brightness: Tensor
    uniform: Tensor | None = None

    def __getitem__(self, patches: slice) -> "Choices":
        """Return the choices for some patches of the batch."""
        return Choices(
            self.quarter_turns[patches],
            self.flips[:, patches],
            self.pastes[patches],
            self.brightness[patches],
            None if self.uniform is None else self.uniform[patches],
        )


class Augmentation:
    """Augments batches of one training set.

    Args:
        settings: What to do.
        band_names: Names of the image channels, in order.
        bands: How the bands were computed.
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
            (names.index(n), names.index(source))
            for n, source in _NORMALIZED_BANDS.items()
            if n in names and source in names
        ]
        self.n_bands = len(names)
        self.mixes = settings.statistics_mixing > 0 or settings.amplitude_mixing > 0
        self.varies = self.mixes or any(
            (settings.haze, settings.gain, settings.sharpness, settings.warp, settings.band_dropout)
        )
        self._reflectances = [i for i, name in enumerate(names) if name in _REFLECTANCES]

        wavelength = {
            "B1": 443,
            "B2": 490,
            "B3": 560,
            "B4": 665,
            "B5": 705,
            "B6": 740,
            "B7": 783,
            "B8": 842,
            "B9": 945,
            "B10": 1375,
            "B11": 1610,
            "B12": 2190,
        }
        self._scattering = torch.tensor([(490 / wavelength.get(names[i], 560)) ** 2 for i in self._reflectances])

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
        uniform = None
        if self.varies:
            uniform = torch.rand(batch, 24 + 2 * self.n_bands, generator=generator)
        return Choices(quarter_turns, flips, pastes, brightness, uniform)

    def __call__(
        self,
        images: Tensor,
        masks: Tensor,
        donors: Sequence[tuple[Tensor, Tensor]],
        choices: Choices,
        partners: Tensor | None = None,
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
        if choices.uniform is not None:
            images, masks = self._vary(images, masks, choices.uniform.to(images.device, non_blocking=True), partners)
        if settings.illumination:
            factor = choices.brightness.exp()[:, None, None, None]
            images[:, self._reflectances] *= factor.to(images.device, non_blocking=True)
        return images, masks

    def _vary(self, images: Tensor, masks: Tensor, u: Tensor, partners: Tensor | None) -> tuple[Tensor, Tensor]:
        s, r = self.settings, self._reflectances
        if s.warp:
            angle, scale, shear = (u[:, 1] * 2 - 1) * math.pi / 4, 1.5 ** (u[:, 2] * 2 - 1), (u[:, 3] * 2 - 1) * 0.15
            on = u[:, 0] < s.warp
            one, zero = torch.ones_like(angle), torch.zeros_like(angle)
            cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
            theta = torch.stack([torch.stack([cos, shear - sin, zero], 1), torch.stack([sin + shear, cos, zero], 1)], 1)
            same = torch.stack([torch.stack([one, zero, zero], 1), torch.stack([zero, one, zero], 1)], 1)
            grid = F.affine_grid(torch.where(on[:, None, None], theta, same), list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
            masks = F.grid_sample(
                masks[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
            )[:, 0].to(masks.dtype)
        if partners is not None and s.statistics_mixing:
            mean, std = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True) + 1e-6
            mean2, std2 = partners.mean((2, 3), keepdim=True), partners.std((2, 3), keepdim=True) + 1e-6
            weight = torch.where(u[:, 4] < s.statistics_mixing, u[:, 5], 0.0)[:, None, None, None]
            images = (images - mean) / std * (std + weight * (std2 - std)) + mean + weight * (mean2 - mean)
        if partners is not None and s.amplitude_mixing:
            weight = torch.where(u[:, 6] < s.amplitude_mixing, u[:, 7], 0.0)[:, None, None, None]
            spectrum, other = torch.fft.rfft2(images), torch.fft.rfft2(partners)
            amplitude = spectrum.abs()
            ratio = 1 + weight * (other.abs() / (amplitude + 1e-6) - 1)
            images = torch.fft.irfft2(spectrum * ratio, s=images.shape[-2:])
        if s.sharpness:
            blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            images = images + (s.sharpness * (u[:, 8] * 2 - 1))[:, None, None, None] * (images - blurred)
        images = images.clone()
        if s.gain or s.haze:
            band = images[:, r]
            mean, std = band.mean((2, 3), keepdim=True), band.std((2, 3), keepdim=True)
            if s.gain:
                slope = (s.gain * (u[:, 24 : 24 + len(r)] * 2 - 1)).exp()[:, :, None, None]
                shift = (s.gain * (u[:, 24 + self.n_bands : 24 + self.n_bands + len(r)] * 2 - 1))[:, :, None, None]
                band = (band - mean) * slope + mean + shift * std
            if s.haze:
                haze = (s.haze * (u[:, 9] * 2 - 1))[:, None] * self._scattering.to(u.device)
                band = band + haze[:, :, None, None] * std
            images[:, r] = band
        if s.band_dropout:
            lost = torch.where(u[:, 10] < s.band_dropout, (u[:, 11] * self.n_bands).long(), -1)
            mask = lost[:, None] == torch.arange(self.n_bands, device=u.device)
            images = torch.where(mask[:, :, None, None], images.mean((2, 3), keepdim=True), images)
        return images.contiguous(memory_format=torch.channels_last), masks

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
