"""One training step on the CPU: the project's networks compared with plain float32, and each CPU layer on and off.

Batches of 4 patches of 128 pixels and 23 bands, focal + IoU loss, Adam, one thread; networks of reduced width. `plain`
uses PyTorch's own layers, eagerly, in the default memory format; `memory not kept` is the same in a process without
the settings of `activate.sh`, as any other script would run. Ours in float32 is the default of training on a CPU, bf16
is `training.precision: bf16-mixed`. The floor is the time of the arithmetic of all convolutions.

The CPU layers (`landslide.models.cpu_layers`) are then switched off one by one; each has to save a tenth of the step.
The weight gradient layer is used only without AVX-512: `ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2` enables it
on any processor.
"""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Comparison, PlainProcess, in_turn
from landslide.models import cpu_layers, create_model
from landslide.models.complexity import complexity
from landslide.training.losses import create_loss, multi_head_loss
from landslide.training.optimizers import create_optimizer

BATCH, SIZE, N_BANDS = 4, 128, 23
NETWORKS: dict[str, dict[str, Any]] = {"rau_net": {"width": 16}, "unet": {"width": 16}, "lite_unet": {}}
COMPARED = ("rau_net", "unet")
# Each CPU layer, a network that uses it, and whether it is used in bf16.
LAYERS = (
    ("transposed_convolution", "rau_net", False),
    ("transposed_convolution", "rau_net", True),
    ("weight_gradient", "rau_net", False),
    ("depthwise_float32", "lite_unet", True),
)
SAVES_A_TENTH = 1.11


class Step:
    """A network with its optimizer and batch; a call trains one step and returns the loss."""

    def __init__(self, name: str, *, plain: bool = False, off: Collection[str] = (), bf16: bool = False) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.bf16, self.off = bf16, cpu_layers.CPU_LAYERS if plain else off
        layout = torch.contiguous_format if plain else torch.channels_last
        self.model = create_model(name, N_BANDS, **NETWORKS[name]).to(memory_format=layout).train()
        if plain:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, eps=1e-7)
        else:
            weights = self.model.parameters()
            self.optimizer = create_optimizer("adam", weights, rate=1e-4, epsilon=1e-7, weight_decay=0.0)
        self.loss = create_loss("focal_lin+iou")
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(BATCH, N_BANDS, SIZE, SIZE, generator=generator).contiguous(memory_format=layout)
        self.masks = (torch.rand(BATCH, SIZE, SIZE, generator=generator) < 0.05).long()

    def __call__(self) -> Tensor:
        """Train one step; return the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16), cpu_layers.switched_off(self.off):
            loss = multi_head_loss(self.model(self.images), self.masks, self.loss)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def plain_step(name: str) -> Step:
    return Step(name, plain=True)


def run(quick: bool) -> list[Comparison]:
    rounds = 3 if quick else 9
    results = [against_plain(name, rounds) for name in COMPARED]
    for layer, name, bf16 in LAYERS:
        if bf16 and not processor_has_bf16():
            print(f"{layer} in bf16: skipped, this processor has no bf16")
        elif layer == "weight_gradient" and torch.backends.cpu.get_cpu_capability() == "AVX512":
            print(f"{layer}: skipped, it is not used on a processor with AVX-512")
        else:
            results.append(on_and_off(layer, name, bf16, rounds))
    return results


def against_plain(name: str, rounds: int) -> Comparison:
    """Compare the steps of a network with those of PyTorch's own layers."""
    separate_process = PlainProcess(plain_step, name)
    sides = {
        "plain float32, memory not kept": separate_process,
        "plain float32": plain_step(name),
        "ours, float32": Step(name),
    }
    if processor_has_bf16():
        sides["ours, bf16"] = Step(name, bf16=True)
    losses = {side: step().item() for side, step in sides.items() if isinstance(step, Step)}
    for side, loss in losses.items():
        torch.testing.assert_close(losses["plain float32"], loss, rtol=5e-2, atol=0, msg=side)
    seconds = in_turn(sides, rounds)
    separate_process.close()
    gigaflop = 3 * BATCH * complexity(name, N_BANDS, NETWORKS[name]).gflop
    seconds["floor: float32 convolutions at their peak"] = gigaflop / peak_gflops(torch.float32)
    if processor_has_bf16():
        seconds["floor: bf16 convolutions at their peak"] = gigaflop / peak_gflops(torch.bfloat16)
    return Comparison(
        name=f"training step, {name}, width {NETWORKS[name]['width']}",
        unit="ms",
        values={side: 1e3 * value for side, value in seconds.items()},
        reference="plain float32, memory not kept",
        ours=list(sides)[-1],
        goal=3.0 if processor_has_bf16() else None,
        facts={"batch": f"{BATCH} x {N_BANDS} x {SIZE} x {SIZE}", "threads": 1, "rounds": rounds},
    )


def on_and_off(layer: str, name: str, bf16: bool, rounds: int) -> Comparison:
    """Compare the steps of a network with one CPU layer on and off."""
    seconds = in_turn({"off": Step(name, off=[layer], bf16=bf16), "on": Step(name, bf16=bf16)}, rounds)
    return Comparison(
        name=f"{layer}, {name}, {'bf16' if bf16 else 'float32'}",
        unit="ms",
        values={side: 1e3 * value for side, value in seconds.items()},
        reference="off",
        ours="on",
        goal=SAVES_A_TENTH,
        facts={"threads": 1, "rounds": rounds},
    )


def processor_has_bf16() -> bool:
    """Return whether Linux reports bf16 for the processor; without it, bf16 is emulated and a step takes minutes."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and any(name in facts.read_text() for name in ("avx512_bf16", "amx_bf16", "bf16 "))


def peak_gflops(dtype: torch.dtype) -> float:
    """Return 10^9 operations per second of one thread in a 3x3 convolution that suits it (64 channels, 128 pixels)."""
    torch.set_num_threads(1)
    images = torch.randn(4, 64, SIZE, SIZE).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        F.conv2d(images, weight, padding=1)
        seconds.append(time.perf_counter() - start)
    return 2 * weight.numel() * len(images) * SIZE**2 / min(seconds) / 1e9
