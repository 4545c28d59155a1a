"""How the networks of a map compute: by OpenVINO on a CPU, by PyTorch on a GPU, in float32 or bfloat16.

OpenVINO joins convolutions with their normalisation and activation, and takes half the time of PyTorch for the same
answers (docs/performance.md). In bfloat16, a processor with instructions for it takes another half, and probabilities
change by thousandths, at single pixels by hundredths.
"""

import copy
import os
import threading
import warnings
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.inference.ensemble import Ensemble

Engine = Literal["openvino", "pytorch"]
Precision = Literal["float32", "bfloat16"]

_OPSET = 17
# Windows from which a network is worth the second that its conversion takes.
_MIN_WINDOWS = 256
# Largest difference of logits from PyTorch's, as a share of the largest of them, on a random patch.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


def choose_engine(wanted: Literal["auto"] | Engine, device: torch.device, windows: int) -> Engine:
    """Return what computes the networks of a map.

    Args:
        wanted: The setting; `auto` takes OpenVINO on a CPU if it is installed and the scene is not small.
        device: Where the model computes.
        windows: Number of windows of the scene.

    Raises:
        ConfigurationError: If OpenVINO is wanted and not installed, or the model computes on a GPU.
    """
    if wanted == "pytorch":
        return "pytorch"
    possible = device.type == "cpu" and find_spec("openvino") is not None
    if wanted == "auto":
        return "openvino" if possible and windows >= _MIN_WINDOWS else "pytorch"
    if not possible:
        why = "is not installed" if device.type == "cpu" else "computes on a CPU here, and the model is on a GPU"
        raise ConfigurationError(f"mapping.engine is openvino, which {why}.", remedy="Use auto or pytorch.")
    return "openvino"


def engine_version(engine: Engine) -> str:
    """Return name and version of an engine."""
    return f"OpenVINO {version('openvino')}" if engine == "openvino" else f"PyTorch {version('torch')}"


def with_engine(ensemble: Ensemble, engine: Engine, precision: Precision) -> Ensemble:
    """Return an ensemble, also one of another release, whose networks compute with an engine and a precision.

    Raises:
        ConfigurationError: When it predicts, if OpenVINO cannot compute a network.
    """
    if engine == "pytorch" and precision == "float32":
        return ensemble
    networks: list[nn.Module] = [
        _OpenVinoNetwork(network, precision) if engine == "openvino" else _Autocast(network)
        for network in ensemble.models
    ]
    changed = copy.copy(ensemble)
    changed._models = networks
    return changed


class _Autocast(nn.Module):
    """A network that computes in bfloat16 where that is exact enough."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits: dict[str, Tensor] = self.network(images)
        return {name: head.float() for name, head in logits.items()}


class _Heads(nn.Module):
    """The heads of a network as a tuple, which ONNX knows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(images).values())


class _OpenVinoNetwork(nn.Module):
    """A network that OpenVINO computes; it is converted when the first patches come, for their size."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self._network = network
        self._precision = precision
        self._lock = threading.Lock()
        self._compiled: Any = None
        self._own = threading.local()  # a request for each thread, which keeps its memory
        self._size: tuple[int, ...] = ()
        self._names: list[str] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits by head, for images (B, C, H, W) float32 on a CPU."""
        with self._lock:
            if self._size != images.shape[1:]:
                self._convert(images.shape[1:])
        return self._answer(images)

    def _answer(self, images: Tensor) -> dict[str, Tensor]:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        answers: dict[str, list[Tensor]] = {name: [] for name in self._names}
        for image in images:  # one by one is as quick, and the memory of a request is that of one
            found = request.infer({0: image[None].permute(0, 2, 3, 1).contiguous().numpy()}, share_inputs=True)
            for i, name in enumerate(self._names):
                answers[name].append(torch.from_numpy(found[i]))
        return {name: torch.cat(parts) for name, parts in answers.items()}

    def _convert(self, size: tuple[int, ...]) -> None:
        import openvino

        example = torch.from_numpy(np.random.default_rng(0).normal(size=(2, *size)).astype(np.float32))
        buffer = BytesIO()
        threads = len(os.sched_getaffinity(0))
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # The new exporter cannot trace every layer of ours, and traced sizes are wanted.
                warnings.simplefilter("ignore")
                expected: dict[str, Tensor] = self._network(example)
                torch.onnx.export(
                    _Heads(self._network).eval(), (example[:1],), cast(Any, buffer), dynamo=False, opset_version=_OPSET
                )
            core, self._own = _openvino_core(), threading.local()
            steps = openvino.preprocess.PrePostProcessor(core.read_model(buffer.getvalue()))
            steps.input().tensor().set_layout(openvino.Layout("NHWC"))  # channels last, as the patches come
            steps.input().model().set_layout(openvino.Layout("NCHW"))
            self._compiled = core.compile_model(
                steps.build(),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
                    "NUM_STREAMS": threads,  # each computes one group of windows in one thread
                    "INFERENCE_NUM_THREADS": threads,
                    "ENABLE_CPU_PINNING": False,  # or two processes would share one core
                },
            )
            self._names = list(expected)
            found = self._answer(example)
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise _not_converted(f"OpenVINO cannot compute this network: {str(error).splitlines()[0]}") from error
        for name, logits in expected.items():
            difference = float((found[name] - logits).abs().max() / logits.abs().max().clamp(min=1))
            if not difference <= _TOLERANCE[self._precision]:
                raise _not_converted(f"OpenVINO's answers differ from PyTorch's by {difference:.2g}")
        self._size = size  # only now may other threads use it


@cache
def _openvino_core() -> Any:
    """Return OpenVINO's core: one for the process, which is never freed.

    A core gives its thread another stack for signals, and frees it with the last network. If two are freed in the order
    in which they were made, the thread is left with a stack that is gone, and the next signal kills the process.
    """
    import openvino

    return openvino.Core()


def _not_converted(what: str) -> ConfigurationError:
    return ConfigurationError(what + ".", remedy="Use PyTorch: --engine pytorch, or mapping.engine: pytorch.")
