"""One optimisation step on the CPU: the project's path against plain eager float32.

    python benchmarks/training_step.py

RAU-Net of width 16, batch of 4 patches of 128 pixels and 23 bands, three heads, focal + IoU loss, Adam. `plain`
keeps tensors in the default memory format; `channels last` has PyTorch's own weight gradient; `matrix gradient` is
what `landslide.training` does (`landslide.models.cpu_convolution`); the last has bf16 autocast in its place. The sides
take turns, step by step.

Memory that the C library hands back to the system and takes again costs every side: compare with the variables
MALLOC_* and GLIBC_TUNABLES of activate.sh and without.
"""

import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from landslide.losses import create_loss, multi_head_loss
from landslide.models import cpu_convolution, create_model

ROUNDS, BATCH, SIZE, N_BANDS, WIDTH, THREADS = 7, 4, 128, 23, 16, 1


class Side:
    """A network of its own, and how it takes a step."""

    def __init__(self, *, channels_last: bool, matrix_gradient: bool = False, autocast: bool = False) -> None:
        torch.manual_seed(0)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.autocast, self.matrix_gradient = autocast, matrix_gradient
        self.model = create_model("rau_net", N_BANDS, width=WIDTH, dropout=0.0).to(memory_format=self.format).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, eps=1e-7)
        self.loss = create_loss("focal_iou")

    def step(self, images: Tensor, masks: Tensor) -> float:
        """Take one optimisation step; return the loss."""
        images = images.contiguous(memory_format=self.format)
        plain = patch.object(cpu_convolution, "suits", lambda x, weight: False)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=self.autocast),
            nullcontext() if self.matrix_gradient else plain,
        ):
            loss = multi_head_loss(self.model(images), masks, self.loss)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def has_bf16() -> bool:
    """Return whether the processor has instructions for bf16, as Linux tells."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16", "bf16 "))


def main() -> None:
    torch.set_num_threads(THREADS)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, N_BANDS, SIZE, SIZE, generator=generator)
    masks = (torch.rand(BATCH, SIZE, SIZE, generator=generator) < 0.05).long()
    sides = {
        "plain float32": Side(channels_last=False),
        "channels last float32": Side(channels_last=True),
        "matrix gradient": Side(channels_last=True, matrix_gradient=True),
    }
    if has_bf16():  # elsewhere it is emulated, and a step takes minutes
        sides["channels last bf16"] = Side(channels_last=True, autocast=True)
    first = {name: side.step(images, masks) for name, side in sides.items()}  # the warm-up as well
    for name, loss in first.items():
        torch.testing.assert_close(first["plain float32"], loss, rtol=5e-2 if "bf16" in name else 1e-3, atol=0)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            start = time.perf_counter()
            side.step(images, masks)
            times[name].append(time.perf_counter() - start)
    reference = statistics.median(times["plain float32"])
    print(f"rau_net width {WIDTH}, batch {BATCH} x {N_BANDS} x {SIZE} x {SIZE}, {THREADS} thread(s), {ROUNDS} rounds")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:24} median {median * 1e3:7.1f} ms a step   ratio {reference / median:5.2f}")


if __name__ == "__main__":
    main()
