"""Batches of patches from the band cache, resident in GPU memory if they fit."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from landslide.bands.cache import BandCache

# Share of a GPU's free memory that the patches may take.
_RESIDENT_SHARE = 0.5
_PIECE = 64


_T = TypeVar("_T")


class PatchBatches:
    """Batches of some rows of a band cache on a device.

    Args:
        cache: The band cache.
        rows: (n,) rows of it; indices of batches count within these.
        band_names: The channels of the images, in order.
        device: Where batches are wanted.
        resident: Keep all rows in GPU memory if they take less than half of the free memory.
    """

    def __init__(
        self,
        cache: BandCache,
        rows: npt.NDArray[np.int64],
        band_names: tuple[str, ...],
        device: torch.device,
        *,
        resident: bool = True,
    ) -> None:
        self._cache, self._rows, self._device = cache, rows, device
        self.band_names, self.band_settings = band_names, cache.settings
        self._columns = np.array(cache.columns(band_names))
        self._images: Tensor | None = None
        self._masks: Tensor | None = None
        if resident and device.type == "cuda" and self._fits():
            self._images, self._masks = self._resident(device)

    def __len__(self) -> int:
        """The number of patches."""
        return len(self._rows)

    def _fits(self) -> bool:
        per_patch = len(self._columns) * self._cache.bands[0, 0].nbytes + self._cache.masks[0].nbytes
        return bool(len(self._rows) * per_patch < _RESIDENT_SHARE * torch.cuda.mem_get_info(self._device)[0])

    def _resident(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Copy all rows to a device, a few at a time."""
        height, width = self._cache.bands.shape[2:]
        dtype = torch.from_numpy(np.empty(0, self._cache.bands.dtype)).dtype
        images = torch.empty((len(self._rows), height, width, len(self._columns)), dtype=dtype, device=device)
        masks = torch.empty((len(self._rows), height, width), dtype=torch.uint8, device=device)
        for start in range(0, len(self._rows), _PIECE):
            part = np.arange(start, min(start + _PIECE, len(self._rows)))
            some_images, some_masks = self._read(part)
            images[start : start + _PIECE] = some_images.permute(0, 2, 3, 1).to(device)
            masks[start : start + _PIECE] = some_masks.to(device)
        return images.permute(0, 3, 1, 2), masks

    def _read(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) in the number format of the cache, channels last in memory, and masks."""
        rows, bands = self._rows[indices], self._cache.bands
        height, width = bands.shape[2:]
        images = np.empty((len(rows), height, width, len(self._columns)), bands.dtype)
        for image, row in zip(images, rows, strict=True):
            _to_channels_last(bands[row][self._columns], image)
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(self._cache.masks[rows])

    @property
    def resident(self) -> bool:
        """Whether all rows are in the memory of the device."""
        return self._images is not None

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W) float32 and masks (B, H, W) int64 on the device."""
        if self._images is not None and self._masks is not None:
            chosen = indices.to(self._device, non_blocking=True)
            images, masks = self._images[chosen], self._masks[chosen]
        else:
            images, masks = self._read(indices.numpy())
            if self._device.type == "cuda":  # only from pinned memory does a copy not wait for the GPU
                images, masks = images.pin_memory(), masks.pin_memory()
            images, masks = (tensor.to(self._device, non_blocking=True) for tensor in (images, masks))
        return images.float().contiguous(memory_format=torch.channels_last), masks.long()


def prefetch(items: Iterable[_T]) -> Iterator[_T]:
    """Yield items in order; a thread prepares the next item while the current one is used."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, source, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, source, end)
            yield item  # type: ignore[misc]  # the end was excluded


def _to_channels_last(image: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Write an image (C, H, W) to `out` (H, W, C); OpenCV, which transposes fastest, takes its numbers as integers."""
    bits = np.dtype(f"i{image.itemsize}")
    channels = len(image)
    cv2.transpose(image.view(bits).reshape(channels, -1), dst=out.view(bits).reshape(-1, channels))
