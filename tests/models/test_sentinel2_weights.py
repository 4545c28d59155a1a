"""Encoders that start from weights trained on Sentinel-2 images, read from files of the published layout."""

import re
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landslide.errors import ConfigurationError
from landslide.models import ModelSpec, build_model, create_model, ssl4eo
from landslide.models.complexity import complexity
from landslide.models.stored_weights import first_layer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

CSMASK = "smp:Unet:efficientnet-b4"
SIX = ("B2", "B3", "B4", "B8", "B11", "B12")
ALL = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
UNUSED = ("encoder._conv_head.", "encoder._bn1.")
BANDS = ("B4", "ndvi", "B8", "slope")


def network(name: str, weights: str, bands: tuple[str, ...] = BANDS, **options) -> nn.Module:
    return build_model(ModelSpec(name, bands, {"encoder_weights": weights, **options}))


def random_tensors(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights and statistics of a network, positive ones, without counters."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) / 10
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


# ---- csmask


def write_onnx(path: Path, tensors: dict[str, Tensor]) -> None:
    initializers = [onnx.numpy_helper.from_array(value.half().numpy(), f"model.{k}") for k, value in tensors.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "weights", [], [], initializers)), str(path))


@pytest.fixture(scope="module")
def clouds(tmp_path_factory) -> dict[Path, dict[str, Tensor]]:
    """Files with random weights of the published layers."""
    folder, found = tmp_path_factory.mktemp("clouds"), {}
    for seed, (bands, level) in enumerate([(4, "l1c"), (6, "l1c"), (4, "l2a")]):
        model = smp.Unet("efficientnet-b4", encoder_weights=None, in_channels=bands, classes=3)
        tensors = {k: v for k, v in random_tensors(model, seed).items() if not k.startswith(UNUSED)}
        path = folder / f"model_{bands}b_{level}.onnx"
        write_onnx(path, tensors)
        found[path] = tensors
    return found


@pytest.fixture
def package(clouds, tmp_path, monkeypatch) -> Path:
    """The folder of a package ukis_csmask with links to the files of `clouds`; importing it is an error."""
    folder = tmp_path / "ukis_csmask"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('nobody may import this')")
    for path in clouds:
        (folder / path.name).symlink_to(path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ukis_csmask", raising=False)
    return folder


@pytest.mark.parametrize(
    ("weights", "bands", "file"),
    [
        ("csmask", BANDS, "model_4b_l1c.onnx"),
        ("csmask", ("B12", *BANDS), "model_6b_l1c.onnx"),
        ("csmask_l2a", ("B2", "B3"), "model_4b_l2a.onnx"),
    ],
)
def test_encoder_and_decoder_start_from_the_cloud_network(weights, bands, file, package, clouds):
    found = network(CSMASK, weights, bands).network.state_dict()
    (stored,) = (tensors for path, tensors in clouds.items() if path.name == file)
    stem = "encoder._conv_stem.weight"
    compared = [name for name in stored if name.startswith(("encoder.", "decoder.")) and name != stem]
    assert len(compared) > 600
    for name in compared:
        assert torch.equal(found[name], stored[name].half().float()), name
    known = SIX[: stored[stem].shape[1]]
    filters = stored[stem].half().float()
    for place, band in enumerate(bands):
        own = filters[:, known.index(band)] if band in known else filters.mean(dim=1)
        torch.testing.assert_close(found[stem][:, place], own * len(known) / len(bands))
    assert found["segmentation_head.0.weight"].shape[0] == 2


def test_a_step_trains_the_cloud_network(package):
    model = network(CSMASK, "csmask").train()
    x = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss = F.cross_entropy(model(x)["64"], (x[:, 0] > 0.5).long())
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert all(name.removeprefix("network.").startswith(UNUSED) for name in without)
    assert not torch.equal(before["network.encoder._conv_stem.weight"], model.network.encoder._conv_stem.weight)


def test_a_file_without_a_layer_is_refused(package, clouds):
    path, gone = package / "model_4b_l1c.onnx", "encoder._blocks.3._bn1.running_var"
    tensors = clouds[path.resolve()]
    path.unlink()
    write_onnx(path, {name: value for name, value in tensors.items() if name != gone})
    with pytest.raises(ConfigurationError, match=f"model_4b_l1c.onnx do not fit .*: only the network has {gone}"):
        network(CSMASK, "csmask")


@pytest.mark.parametrize("content", [b"<html>", b""])
def test_a_damaged_cloud_network_is_named(content, package):
    path = package / "model_4b_l1c.onnx"
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(
        ConfigurationError, match=r"model_4b_l1c\.onnx, .*, cannot be read or holds no weights"
    ) as error:
        network(CSMASK, "csmask")
    assert "--force-reinstall --no-deps ukis-csmask" in error.value.remedy


def test_a_missing_file_is_named(package):
    (package / "model_4b_l1c.onnx").unlink()
    with pytest.raises(ConfigurationError, match=r"model_4b_l1c\.onnx of the package ukis-csmask is not installed"):
        network(CSMASK, "csmask")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"decoder_channels": [64, 32, 16, 8, 4]}, "size mismatch for decoder"),
        ({"decoder_attention_type": "scse"}, "only the network has decoder.blocks.0.attention1"),
        ({"encoder_depth": 4, "decoder_channels": [64, 32, 16, 8]}, "only the file has decoder.blocks.4"),
    ],
)
def test_options_that_change_the_layers_are_refused(options, named, package):
    with pytest.raises(ConfigurationError, match=named) as error:
        network(CSMASK, "csmask", **options)
    assert "Leave out the options" in error.value.remedy


@pytest.mark.parametrize(("module", "name"), [("ukis_csmask", "ukis-csmask"), ("onnx", "onnx")])
def test_a_missing_package_is_named_before_training(module, name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for attempt in (lambda: network(CSMASK, "csmask"), lambda: complexity(CSMASK, 4, {"encoder_weights": "csmask"})):
        with pytest.raises(ConfigurationError, match=f"'csmask', and the package {name} is not installed") as error:
            attempt()
        assert "pip install '.[clouds]'" in error.value.remedy


def test_a_trained_cloud_network_is_rebuilt_without_the_package(package, monkeypatch):
    spec = ModelSpec(CSMASK, BANDS, {"encoder_weights": "csmask"})
    trained = build_model(spec).eval()
    monkeypatch.setitem(sys.modules, "ukis_csmask", None)
    again = build_model(spec, trained.state_dict())
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(trained(x)["64"], again(x)["64"])


def test_the_cloud_network_is_measured_without_its_weights(package):
    for file in package.glob("*.onnx"):
        file.unlink()
    assert complexity(CSMASK, 4, {"encoder_weights": "csmask"}) == complexity(CSMASK, 4)


@pytest.mark.parametrize(("weights", "bands"), [("csmask", SIX), ("csmask_l2a", SIX), ("csmask", SIX[:4])])
def test_with_its_own_head_the_network_answers_as_the_published_one(weights, bands):
    folder = Path(pytest.importorskip("ukis_csmask", reason="the extra clouds is not installed").__file__).parent
    onnxruntime = pytest.importorskip("onnxruntime")
    file = folder / f"model_{len(bands)}b_{'l2a' if 'l2a' in weights else 'l1c'}.onnx"
    model = network(CSMASK, weights, bands).network.eval()
    model.segmentation_head = smp.base.SegmentationHead(16, 3)
    prefix = "model.segmentation_head."
    model.segmentation_head.load_state_dict(
        {
            one.name.removeprefix(prefix): torch.tensor(onnx.numpy_helper.to_array(one).astype("float32"))
            for one in onnx.load(str(file)).graph.initializer
            if one.name.startswith(prefix)
        }
    )
    x = torch.randn(1, len(bands), 256, 256, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        found = model(x).numpy()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999  # the published one computes in float16


# ---- SSL4EO-S12


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def resnet(encoder: str, n_classes: int = 2) -> dict[str, Tensor]:
    """Random weights as TorchGeo publishes them: timm's ResNet for 13 bands, with or without its classifier."""
    return random_tensors(timm.create_model(encoder, in_chans=13, num_classes=n_classes), seed=0)


@pytest.fixture
def publish(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Put weights at an address of this machine; the name of the file has the digits of its SHA-256, or other ones."""

    def call(
        tensors: dict[str, Tensor],
        encoder: str = "resnet18",
        weights: str = "ssl4eo_s12_moco",
        digits: str | None = None,
    ) -> Path:
        folder = tmp_path / "server"
        folder.mkdir()
        torch.save(tensors, folder / "weights")
        digits = digits or sha256((folder / "weights").read_bytes()).hexdigest()[:8]
        file = (folder / "weights").rename(folder / f"{encoder}-{digits}.pth")
        monkeypatch.setitem(ssl4eo.ADDRESSES, (weights, encoder), file.as_uri())
        return file

    return call


@pytest.mark.parametrize(
    ("architecture", "encoder", "weights"),
    [
        ("Unet", "resnet18", "ssl4eo_s12_moco"),
        ("DeepLabV3Plus", "resnet50", "ssl4eo_s12_moco"),
        ("Unet", "resnet50", "ssl4eo_s12_dino"),
    ],
)
def test_an_encoder_starts_from_ssl4eo(architecture, encoder, weights, hub, publish):
    assert re.fullmatch(r".*/resnet\d+_sentinel2_all_[a-z]+-[0-9a-f]{8}\.pth", ssl4eo.ADDRESSES[weights, encoder])
    stored = resnet(encoder)
    publish(stored, encoder, weights)
    found = network(f"smp:{architecture}:{encoder}", weights).network.encoder.state_dict()
    compared = [name for name in stored if not name.startswith("fc.") and name != "conv1.weight"]
    assert len(compared) > 90
    for name in compared:
        assert torch.equal(found[name], stored[name]), name
    filters = stored["conv1.weight"]
    for place, band in enumerate(BANDS):
        own = filters[:, ALL.index(band)] if band in ALL else filters.mean(dim=1)
        torch.testing.assert_close(found["conv1.weight"][:, place], own * 13 / len(BANDS))


def test_bands_of_the_weights_in_any_order_keep_the_activations():
    filters = torch.randn(8, 13, 7, 7, generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 13, 32, 32, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(13, generator=torch.Generator().manual_seed(2))
    changed = first_layer(filters, ALL, [ALL[place] for place in order])
    torch.testing.assert_close(F.conv2d(x[:, order], changed), F.conv2d(x, filters), rtol=1e-4, atol=1e-4)
    equal = torch.ones(1, 13, 32, 32)  # all bands alike: any bands give what the 13 give, if none is known
    torch.testing.assert_close(
        F.conv2d(equal[:, :3], first_layer(filters, ALL, ["ndvi", "slope", "dem"])),
        F.conv2d(equal, filters),
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_trained_resnet_is_rebuilt_without_the_file(hub, publish):
    server = publish(resnet("resnet18"))
    spec = ModelSpec("smp:Unet:resnet18", BANDS, {"encoder_weights": "ssl4eo_s12_moco"})
    trained = build_model(spec).train()
    trained(torch.randn(2, 4, 64, 64))["64"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())
    server.unlink()
    (hub / server.name).unlink()
    again = build_model(spec, trained.eval().state_dict())
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        assert torch.equal(trained(x)["64"], again(x)["64"])


def test_missing_weights_are_downloaded_once(hub, publish):
    tensors = resnet("resnet18", n_classes=0)
    file = publish(tensors)
    model = network("smp:Unet:resnet18", "ssl4eo_s12_moco")
    assert torch.equal(model.network.encoder.layer4[0].conv1.weight, tensors["layer4.0.conv1.weight"])
    file.unlink()
    network("smp:Unet:resnet18", "ssl4eo_s12_moco")
    assert [path.name for path in hub.iterdir()] == [file.name]


@pytest.mark.parametrize(("digits", "reason"), [("01234567", "invalid hash value"), (None, "No such file")])
def test_a_failed_download_names_file_address_and_folder(digits, reason, hub, publish):
    file = publish({}, digits=digits)
    if digits is None:
        file.unlink()
    with pytest.raises(ConfigurationError, match=f"{file.name} could not be downloaded: .*{reason}") as error:
        network("smp:Unet:resnet18", "ssl4eo_s12_moco")
    assert f"Download {file.as_uri()} elsewhere and put the file into {hub}" in error.value.remedy
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize("content", ["text", "cut off", "other weights", "folder"])
def test_a_damaged_file_is_named(content, hub, publish):
    server = publish(resnet("resnet18"))
    path = hub / server.name
    if content == "other weights":
        torch.save(resnet("resnet18", n_classes=0), path)
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"<html>" if content == "text" else server.read_bytes()[:100_000])
    with pytest.raises(ConfigurationError, match=f"{path.name}, the weights .* is damaged or another file") as error:
        network("smp:Unet:resnet18", "ssl4eo_s12_moco")
    assert f"downloaded again from {server.as_uri()}" in error.value.remedy


def test_weights_of_another_resnet_are_refused(hub, publish):
    publish(resnet("resnet50"))
    with pytest.raises(ConfigurationError, match=r"do not fit .*: only the file has encoder\.layer1\.0\.bn3"):
        network("smp:Unet:resnet18", "ssl4eo_s12_moco")


def test_a_resnet_is_measured_without_its_weights(hub):
    name = "smp:Unet:resnet18"
    assert complexity(name, 4, {"encoder_weights": "ssl4eo_s12_moco"}) == complexity(name, 4)


# ---- both


@pytest.mark.parametrize(
    ("name", "weights", "remedy"),
    [
        ("smp:Unet:resnet18", "csmask", "imagenet, ssl, swsl, ssl4eo_s12_moco"),
        ("smp:DeepLabV3Plus:efficientnet-b4", "csmask", "Use one of advprop, imagenet, or"),
        (CSMASK, "CSMask", "Use one of advprop, imagenet, csmask, csmask_l2a"),
        ("smp:Unet:resnet18", "ssl4eo_s12_dino", "ssl4eo_s12_moco"),
        ("smp:Unet:tu-resnet18", "ssl4eo_s12_moco", "Leave encoder_weights out"),
        ("smp:Unet:resnet18", ["imagenet"], "Use one of imagenet"),
        ("smp:Unet:tu-resnet18", True, "Leave encoder_weights out"),
    ],
)
def test_weights_of_other_networks_are_refused_before_training(name, weights, remedy, package):
    for attempt in (lambda: network(name, weights), lambda: complexity(name, 4, {"encoder_weights": weights})):
        with pytest.raises(ConfigurationError, match=re.escape(f"no weights {weights!r}")) as error:
            attempt()
    assert remedy in error.value.remedy


@pytest.mark.parametrize(("name", "weights"), [(CSMASK, "csmask"), ("smp:Unet:resnet18", "ssl4eo_s12_moco")])
def test_weights_need_the_names_of_the_bands(name, weights, package, hub, publish):
    publish(resnet("resnet18"))
    with pytest.raises(ConfigurationError, match="by name, and the names are unknown") as error:
        create_model(name, 4, encoder_weights=weights)
    assert "build_model" in error.value.remedy
