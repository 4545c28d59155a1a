"""Two processes that share a batch have the losses, statistics and gradients of one process with all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from landslide.models import create_model
from landslide.training.distributed import sum_over_devices, synchronize_batch_norm
from landslide.training.epochs import _share
from landslide.training.losses import _LOCAL_LOSSES as LOCAL_LOSSES
from landslide.training.losses import LOSS_NAMES, create_loss, multi_head_loss

pytestmark = pytest.mark.slow

NETWORKS = {
    "rau_net": {"width": 4, "head_width": 4, "dropout": 0.0},
    "lite_unet": {"width": 4, "dropout": 0.0},  # timm layers, which include an activation
}
LOSSES = tuple(name for name in LOSS_NAMES if name not in LOCAL_LOSSES)
CASES = [*(("rau_net", loss) for loss in LOSSES), ("lite_unet", "cross_entropy")]  # all losses, all layers
SHARES = (slice(0, 1), slice(1, 3))


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(name, 4, **NETWORKS[name]).double().train()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 4, 32, 32, generator=generator, dtype=torch.float64)
    return images, (torch.rand(3, 32, 32, generator=generator) < 0.2).long()


def learn(model: torch.nn.Module, share: slice, loss_name: str, **options) -> dict[str, torch.Tensor]:
    """Return loss, gradients and running statistics of one step on a share of the batch."""
    images, masks = batch()
    loss = multi_head_loss(model(images[share]), masks[share], create_loss(loss_name, **options))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach(), **gradients, **dict(model.named_buffers())}


def learn_together(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}
    for name, loss in CASES:
        model = synchronize_batch_norm(network(name), torch.device("cpu"))
        found[name, loss] = learn(model, SHARES[rank], loss, device_sum=sum_over_devices)
        for key, tensor in found[name, loss].items():
            if key in dict(model.named_parameters()):  # as DistributedDataParallel does
                torch.distributed.all_reduce(tensor)
                tensor /= 2
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[tuple[str, str], dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(learn_together, (folder,), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(("name", "loss"), CASES)
def test_losses_gradients_and_statistics_equal_those_of_the_whole_batch(ranks, name, loss):
    expected = learn(network(name), slice(None), loss)
    for found in ranks:
        for key, tensor in found[name, loss].items():
            scale = float(expected[key].abs().max())
            torch.testing.assert_close(
                tensor, expected[key], rtol=1e-4, atol=1e-5 * scale + 1e-9, msg=lambda text, k=key: f"{k}: {text}"
            )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_layers_for_gpus_have_the_same_weights_and_activations(name):
    model = network(name)
    images, _ = batch()
    expected = model.eval()(images)["32"]
    weights, activations = dict(model.state_dict()), sum("ReLU" in type(m).__name__ for m in model.modules())
    converted = synchronize_batch_norm(model, torch.device("cuda"))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in converted.modules())
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules())
    assert sum("ReLU" in type(m).__name__ for m in converted.modules()) == activations
    assert converted.state_dict().keys() == weights.keys()
    torch.testing.assert_close(converted.eval()(images)["32"], expected)


@pytest.mark.parametrize(("size", "n"), [(8, 1), (8, 2), (5, 2), (7, 3), (1, 2), (2, 5)])
def test_shares_cover_the_batch_and_are_not_empty(size, n):
    patches = torch.arange(10, 10 + size)
    shares = [batch_[share] for batch_, share in (_share(patches, rank, n) for rank in range(n))]
    assert all(len(share) > 0 for share in shares)
    together = torch.cat(shares).tolist()
    assert set(together) == set(patches.tolist())
    if size >= n:
        assert together == patches.tolist()


def test_losses_that_are_means_over_pixels_do_not_sum_over_processes():
    def refused(x):
        raise AssertionError("sums over processes")

    images, masks = batch()
    for name in LOCAL_LOSSES:
        create_loss(name, device_sum=refused)(images[:, :2], masks)
