"""What computes the networks of a map: OpenVINO and bfloat16 against PyTorch in float32."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from landslide.bands.formulas import BandSettings
from landslide.errors import ConfigurationError
from landslide.inference.ensemble import Ensemble, Member
from landslide.mapping import networks
from landslide.mapping.joined_lite_unet import is_lite_unet, joined
from landslide.mapping.networks import choose_engine, engine_version, with_engine
from landslide.models import ModelSpec, build_model
from landslide.models.complexity import forward_gflop
from tests.support import versions

CPU = torch.device("cpu")
NETWORKS = {
    "unet": {"width": 4},
    "rau_net": {"width": 2, "head_width": 2},
    "lite_unet": {},
    "smp:Unet:resnet18": {"encoder_weights": None},
}


STOPPED = """
import os, signal, torch
from landslide.mapping.networks import _OpenVinoNetwork
from landslide.termination import exit_on_sigterm

class Half(torch.nn.Module):
    def forward(self, x):
        return {"128": x / 2}

networks = [_OpenVinoNetwork(Half(), "float32") for _ in range(2)]
for network in networks:
    network(torch.ones(1, 2, 32, 32))
network = None
while networks:
    del networks[0]  # in the order in which they were made
with exit_on_sigterm():
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory) -> Ensemble:
    bands = ("B4", "gray", "slope")
    return Ensemble(versions.members(tmp_path_factory.mktemp("members"), bands=bands), BandSettings(), CPU)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, (5, 14, 128, 128))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_openvino_computes_what_pytorch_computes(name, precision, tolerance):
    torch.manual_seed(0)
    spec = ModelSpec(name, ("B4", "B3"), NETWORKS[name], mean=(1.0, 2.0), std=(0.5, 2.0))
    network = build_model(spec, build_model(spec).state_dict())
    patches = torch.randn(3, 2, 128, 128)
    with torch.inference_mode():
        expected = network(patches)
        found = networks._OpenVinoNetwork(network, precision)(patches)
    assert list(found) == list(expected)
    for head, logits in expected.items():
        assert found[head].dtype == torch.float32
        largest = float(logits.abs().max())
        np.testing.assert_allclose(found[head], logits, atol=tolerance * max(1, largest))


def lite_unet(*, standardised: bool) -> torch.nn.Module:
    """A Lite U-Net whose batch normalisation changes what passes through it, unlike that of a new one."""
    torch.manual_seed(0)
    spec = ModelSpec(
        "lite_unet", ("B4", "B3"), mean=(1.0, 2.0) if standardised else None, std=(0.5, 2.0) if standardised else None
    )
    weights = build_model(spec).state_dict()
    for name, values in weights.items():
        if name.endswith(("running_mean", "bias")):
            values.normal_(0, 0.3)
        elif name.endswith("running_var") or values.ndim == 1:
            values.uniform_(0.5, 2)
    return build_model(spec, weights)


@pytest.mark.parametrize("standardised", [False, True])
def test_a_joined_lite_unet_gives_the_same_answers_by_fewer_operations(standardised):
    network = lite_unet(standardised=standardised)
    before = {name: values.clone() for name, values in network.state_dict().items()}
    quicker = joined(network)
    patches = torch.randn(2, 2, 96, 64)
    with torch.inference_mode():
        np.testing.assert_allclose(quicker(patches)["64"], network(patches)["64"], atol=1e-4, rtol=1e-4)
    assert forward_gflop(quicker, 2) < 0.82 * forward_gflop(network, 2)
    assert is_lite_unet(network)
    torch.testing.assert_close(network.state_dict(), before, atol=0, rtol=0)


def test_other_networks_are_not_joined():
    network = build_model(ModelSpec("unet", ("B4", "B3"), {"width": 4}, mean=(1.0, 2.0), std=(0.5, 2.0)))
    assert not is_lite_unet(network)
    assert joined(network).network is network.network


@pytest.mark.parametrize("size", [80, 96])  # 80 is 40, 20, 10, 5, 3: not half at the deepest level
def test_a_lite_unet_answers_each_patch_as_if_it_came_alone(size, monkeypatch):
    network, rewritten = lite_unet(standardised=True), []
    monkeypatch.setattr(networks, "joined", lambda one: rewritten.append(one) or joined(one))
    converted = networks._OpenVinoNetwork(network, "float32", together=4)
    patches = torch.randn(7, 2, size, size)
    with torch.inference_mode():
        together = converted(patches)[str(size)]
        np.testing.assert_allclose(together, network(patches)[str(size)], atol=1e-3)
        for order in ([3], [6, 0, 5], [1, 2, 3, 4, 5]):
            np.testing.assert_array_equal(converted(patches[order])[str(size)], together[order])
    assert rewritten == ([network] if size == 96 else [])


@pytest.mark.parametrize(
    ("columns", "together"), [(1, 1), (4, 4), (5, 1), (15, 4), (17, 1), (30, 4), (61, 4), (171, 4)]
)
def test_few_windows_in_a_row_are_computed_one_by_one(tmp_path, columns, together):
    network = lite_unet(standardised=False)
    spec = ModelSpec("lite_unet", ("B4", "B3"))
    save_file({name: values.contiguous() for name, values in network.state_dict().items()}, tmp_path / "member")
    ensemble = Ensemble([Member(1, spec, 0.5, tmp_path / "member")], BandSettings(), CPU)
    (one,) = with_engine(ensemble, "openvino", "float32", columns).models
    assert one._together == together


def test_several_streams_answer_as_one_does():
    network = lite_unet(standardised=False)
    one, two = (networks._OpenVinoNetwork(network, "float32", streams) for streams in (1, 2))
    patches = torch.randn(3, 2, 64, 64)
    with ThreadPoolExecutor(3) as pool:
        found = [answer["64"] for answer in pool.map(two, [patches] * 6)]
    expected = one(patches)["64"]
    for answer in found:
        np.testing.assert_array_equal(answer, expected)
    assert (one._free.qsize(), two._free.qsize()) == (1, 2)


def test_an_error_does_not_take_a_network_away():
    network = networks._OpenVinoNetwork(lite_unet(standardised=False), "float32")
    patches = torch.randn(2, 2, 64, 64)
    expected = network(patches)["64"]
    with pytest.raises(RuntimeError):
        network._answer(patches[:, :1], network._free, network._names)  # a band is missing
    assert network._free.qsize() == 1
    np.testing.assert_array_equal(network(patches)["64"], expected)


class Twice(torch.nn.Module):
    def forward(self, x):
        return {"128": x * 2}


@pytest.mark.parametrize("fails", [False, True])
def test_another_size_does_not_disturb_a_thread_that_computes(monkeypatch, fails):
    """A thread that waits for its turn while another one converts the network gets the answer of its own size."""
    network, patches = networks._OpenVinoNetwork(Twice(), "float32"), torch.ones(1, 2, 64, 64)
    network(patches)
    waits, go, answer = threading.Event(), threading.Event(), network._answer

    def late(images, *others):
        if threading.current_thread().name.startswith("late"):
            waits.set()
            go.wait(60)
        return answer(images, *others)

    monkeypatch.setattr(network, "_answer", late)
    with ThreadPoolExecutor(1, "late") as pool:
        found = pool.submit(network, patches)
        waits.wait(60)
        if fails:
            monkeypatch.setattr(networks, "_openvino_core", lambda: object())
            with pytest.raises(AttributeError):
                network(patches[..., :32, :32])
        else:
            np.testing.assert_array_equal(network(patches[..., :32, :32])["128"], 2 * patches[..., :32, :32])
        go.set()
        np.testing.assert_array_equal(found.result(60)["128"], 2 * patches)


def test_a_refused_size_does_not_stay_in_a_network():
    class OfOneSize(torch.nn.Module):
        def forward(self, x):
            return {"128": x[:, :2] if x.shape[-1] == 64 else torch.linalg.qr(x[:, :2]).Q}

    converted = networks._OpenVinoNetwork(OfOneSize(), "float32")
    patches = torch.randn(1, 2, 64, 64)
    np.testing.assert_array_equal(converted(patches)["128"], patches)
    with pytest.raises(ConfigurationError, match="cannot compute"):
        converted(patches[..., :32, :32])
    np.testing.assert_array_equal(converted(patches)["128"], patches)


@pytest.mark.parametrize("size", [64, 128])
def test_an_ensemble_with_another_engine_predicts_from_several_threads(ensemble, images, size):
    part = images[:, :, :size, :size]
    expected = ensemble.predict(part)
    other = with_engine(ensemble, "openvino", "float32")
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: other.predict(part), range(6)))
    for answer in answers:
        for found, wanted in zip(answer, expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
            np.testing.assert_array_equal(found, answers[0][0] if wanted is expected[0] else answers[0][1])
    assert ensemble.predict(part)[0].tobytes() == expected[0].tobytes()  # the ensemble itself is unchanged


def test_pytorch_in_bfloat16_changes_probabilities_a_little(ensemble, images):
    expected, _ = ensemble.predict(images)
    found, _ = with_engine(ensemble, "pytorch", "bfloat16").predict(images)
    assert 0 < np.abs(found - expected).max() < 0.1
    assert np.abs(found - expected).mean() < 0.005
    np.testing.assert_array_equal(with_engine(ensemble, "pytorch", "float32").predict(images)[0], expected)


def test_a_network_that_openvino_cannot_compute_is_named_with_a_way_out(ensemble, images):
    class Sized(torch.nn.Module):
        def forward(self, x):
            return {"128": torch.linalg.qr(x).Q}

    changed = with_engine(ensemble, "openvino", "float32")
    changed._models = [networks._OpenVinoNetwork(Sized(), "float32")]
    with pytest.raises(ConfigurationError, match=r"OpenVINO cannot compute(.|\n)*--engine pytorch"):
        changed.predict(images)


def test_other_answers_than_those_of_pytorch_are_refused(ensemble, images):
    class Erratic(torch.nn.Module):
        def forward(self, x):
            return {"128": x[:, :2] + float(x.sum() > 0) + torch.rand(1).item()}

    changed = with_engine(ensemble, "openvino", "float32")
    changed._models = [networks._OpenVinoNetwork(Erratic(), "float32")]
    for _ in range(2):  # no later call may use what was refused
        with pytest.raises(ConfigurationError, match=r"differ from PyTorch's by(.|\n)*engine: pytorch"):
            changed.predict(images)


def test_a_large_scene_on_a_cpu_is_computed_by_openvino():
    assert choose_engine("auto", CPU, 10_000) == "openvino"
    assert choose_engine("auto", CPU, 10) == "pytorch"
    assert choose_engine("openvino", CPU, 10) == "openvino"
    assert choose_engine("pytorch", CPU, 10_000) == "pytorch"
    assert choose_engine("auto", torch.device("cuda"), 10_000) == "pytorch"
    assert engine_version("openvino").startswith("OpenVINO 20")
    assert engine_version("pytorch") == f"PyTorch {torch.__version__.split('+')[0]}"
    with pytest.raises(ConfigurationError, match="the model is on a GPU"):
        choose_engine("openvino", torch.device("cuda"), 10_000)


def test_without_openvino_pytorch_computes_and_openvino_is_refused(monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    assert choose_engine("auto", CPU, 10_000) == "pytorch"
    with pytest.raises(ConfigurationError, match="is not installed"):
        choose_engine("openvino", CPU, 10_000)


@pytest.mark.slow
def test_a_map_can_be_stopped_after_its_networks_are_freed():
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (143, "")
