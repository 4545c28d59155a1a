"""One optimisation step on the CPU: the project's path against plain eager float32.

Batches of 4 patches of 128 pixels and 23 bands, focal + IoU loss, Adam, one thread; networks of reduced width. `plain`
has PyTorch's own layers in the default memory format; `memory not kept` is the same in a process without the settings
of `activate.sh`, which is how a script of one's own would run. Ours in float32 is what training does by default on a
CPU, bf16 what `training.precision: bf16-mixed` does.
"""

import torch
from torch import Tensor

from benchmarks.floors import peak_gflops
from benchmarks.measure import Comparison, PlainProcess, in_turn
from benchmarks.plain import plain, processor_has_bf16
from landslide.models import create_model
from landslide.models.complexity import complexity
from landslide.training.losses import create_loss, multi_head_loss
from landslide.training.optimizers import create_optimizer

BATCH, SIZE, N_BANDS, WIDTH = 4, 128, 23, 16


class Step:
    """A network of its own, and how it takes a step; returns the loss."""

    def __init__(self, name: str, *, ours: bool, autocast: bool = False, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.autocast = autocast
        self.model = create_model(name, N_BANDS, width=WIDTH)
        self.format = torch.channels_last if ours else torch.contiguous_format
        if not ours:
            plain(self.model)
        self.model.to(memory_format=self.format).train()
        if ours:
            weights = self.model.parameters()
            self.optimizer = create_optimizer("adam", weights, rate=1e-4, epsilon=1e-7, weight_decay=0.0)
        else:
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, eps=1e-7)
        self.loss = create_loss("focal_iou")
        self.images, self.masks = batch()
        self.images = self.images.contiguous(memory_format=self.format)

    def __call__(self) -> Tensor:
        """Take a step."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = multi_head_loss(self.model(self.images), self.masks, self.loss)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, N_BANDS, SIZE, SIZE, generator=generator)
    return images, (torch.rand(BATCH, SIZE, SIZE, generator=generator) < 0.05).long()


def plain_step(name: str) -> Step:
    return Step(name, ours=False)


def run(quick: bool) -> list[Comparison]:
    rounds = 3 if quick else 9
    results = []
    for name in ("rau_net", "unet"):
        elsewhere = PlainProcess(plain_step, name)
        sides = {
            "plain float32, memory not kept": elsewhere,
            "plain float32": Step(name, ours=False),
            "ours, float32": Step(name, ours=True),
        }
        if processor_has_bf16():
            sides["ours, bf16"] = Step(name, ours=True, autocast=True)
        losses = {side: step().item() for side, step in sides.items() if isinstance(step, Step)}
        for side, loss in losses.items():  # dropout is drawn in other ways
            torch.testing.assert_close(losses["plain float32"], loss, rtol=5e-2, atol=0, msg=side)
        seconds = in_turn(sides, rounds)
        elsewhere.close()
        gigaflop = 3 * BATCH * complexity(name, N_BANDS, {"width": WIDTH}).gflop
        seconds["floor: float32 convolutions at their peak"] = gigaflop / peak_gflops(torch.float32)
        if processor_has_bf16():
            seconds["floor: bf16 convolutions at their peak"] = gigaflop / peak_gflops(torch.bfloat16)
        compared = Comparison(
            name=f"training step, {name}, width {WIDTH}",
            unit="ms",
            values={side: 1e3 * value for side, value in seconds.items()},
            reference="plain float32, memory not kept",
            ours=list(sides)[-1],
            goal=3.0 if processor_has_bf16() else None,
            facts={"batch": f"{BATCH} x {N_BANDS} x {SIZE} x {SIZE}", "threads": 1, "rounds": rounds},
        )
        results += [compared, compared.against("plain float32", "memory kept")]
    return results
