"""What a forward pass keeps for the gradient, at full width: memory a patch, and how many patches a GPU can take.

Counted are the bytes of all tensors that the operations save for their gradients, each piece of memory once, parameters
left out; what a second patch adds is the memory of a patch, the rest is there once (weights in bf16). What a backward
pass needs beside it is not counted, so that the number of patches is the most there can be.
"""

import torch
from torch import Tensor

from benchmarks.measure import Comparison
from benchmarks.plain import plain
from landslide.models import create_model
from landslide.training.losses import create_loss, multi_head_loss

N_BANDS, SIZE = 23, 128
# Weights, gradients and the optimizer's two averages, in float32.
BYTES_A_PARAMETER = 16
GPU_GIGABYTES = 24


def kept(model: torch.nn.Module, n: int, *, autocast: bool) -> int:
    """Return the bytes that a forward pass of n patches keeps, the loss included."""
    parameters = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    pieces: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            pieces[storage.data_ptr()] = storage.nbytes()
        return tensor

    layout = torch.channels_last if autocast else torch.contiguous_format
    images = torch.rand(n, N_BANDS, SIZE, SIZE).contiguous(memory_format=layout)
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(images)
        loss = multi_head_loss(logits, masks, create_loss("focal_iou"))
    found = sum(pieces.values())
    del loss  # until here nothing was freed
    return found


def run(quick: bool) -> list[Comparison]:
    results = []
    for name in ("unet",) if quick else ("rau_net", "unet"):
        values, once = {}, 0
        for side, ours in (("plain float32", False), ("ours, bf16", True)):
            model = create_model(name, N_BANDS).train()
            if ours:
                model.to(memory_format=torch.channels_last)
            else:
                plain(model)
            one, two = (kept(model, n, autocast=ours) for n in (1, 2))
            values[side], once = (two - one) / 1e6, 2 * one - two
        constant = once + BYTES_A_PARAMETER * sum(weight.numel() for weight in model.parameters())
        fit = int((GPU_GIGABYTES * 1e9 - constant) / (1e6 * values["ours, bf16"]))
        results.append(
            Comparison(
                name=f"kept for the gradient, {name}",
                unit="MB a patch",
                values=values,
                reference="plain float32",
                ours="ours, bf16",
                facts={"once": f"{constant / 1e9:.2f} GB", f"patches in {GPU_GIGABYTES} GB at most": fit},
            )
        )
    return results
