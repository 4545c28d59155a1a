"""What the processor can do: the floors under the other figures."""

import time

import numpy as np
import torch
from torch.nn import functional as F

ROUNDS = 7


def peak_gflops(dtype: torch.dtype) -> float:
    """Return 10^9 operations a second of one thread in a 3x3 convolution that suits it (64 channels, 128 pixels)."""
    torch.set_num_threads(1)
    layout = {"memory_format": torch.channels_last}
    images = torch.randn(4, 64, 128, 128).to(dtype).contiguous(**layout)
    weight = torch.randn(64, 64, 3, 3).to(dtype).contiguous(**layout)
    operations = 2 * weight.numel() * 4 * 128**2
    return operations / _fastest(lambda: F.conv2d(images, weight, padding=1)) / 1e9


def copy_gigabytes() -> float:
    """Return 10^9 bytes a second, read and written, of one thread that copies an array larger than the caches."""
    array = np.ones(1 << 25)
    target = np.empty_like(array)
    return 2 * array.nbytes / _fastest(lambda: np.copyto(target, array)) / 1e9


def _fastest(work) -> float:
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
