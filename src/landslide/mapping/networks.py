"""How the networks of a map compute: by OpenVINO on a CPU, by PyTorch on a GPU, in float32 or bfloat16.

OpenVINO joins convolutions with their normalisation and activation, and takes half the time of PyTorch for the same
answers (docs/performance.md). A Lite U-Net takes a fifth less again: it is rewritten with fewer operations, and
computes four windows at a time. In bfloat16, a processor with instructions for it takes half, and probabilities change
by thousandths, at single pixels by hundredths.
"""

import copy
import math
import os
import threading
import warnings
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from io import BytesIO
from queue import SimpleQueue
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from landslide.errors import ConfigurationError
from landslide.inference.ensemble import Ensemble
from landslide.mapping.joined_lite_unet import is_lite_unet, joined

Engine = Literal["openvino", "pytorch"]
Precision = Literal["float32", "bfloat16"]

_OPSET = 17
# Windows from which a network is worth the second that its conversion takes.
_MIN_WINDOWS = 256
# Largest difference of logits from PyTorch's, as a share of the largest of them, on random patches.
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}

# Patches that a Lite U-Net computes at a time: its deep layers have many weights for small maps, and read them once for
# all. Other networks are as quick with one, which takes less memory.
_TOGETHER = 4
# What the last windows of a row may cost more, as they are filled up to so many; one at a time takes a tenth more.
_FILLED_UP = 1.08


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


def with_engine(ensemble: Ensemble, engine: Engine, precision: Precision, columns: int = _TOGETHER) -> Ensemble:
    """Return an ensemble, also one of another release, whose networks compute with an engine and a precision.

    Args:
        ensemble: Networks of equal cost; with OpenVINO, threads that want a costly one would wait for each other.
        engine: What computes them.
        precision: How it computes.
        columns: Windows in a row of the scene.

    Raises:
        ConfigurationError: When it predicts, if OpenVINO cannot compute a network.
    """
    if engine == "pytorch" and precision == "float32":
        return ensemble
    networks: list[nn.Module]
    if engine == "pytorch":
        networks = [_Autocast(network) for network in ensemble.models]
    else:
        streams = math.ceil(len(os.sched_getaffinity(0)) / len(ensemble.models))
        filled_up = math.ceil(columns / _TOGETHER) * _TOGETHER
        together = _TOGETHER if filled_up <= _FILLED_UP * columns else 1
        networks = [
            _OpenVinoNetwork(network, precision, streams, together if is_lite_unet(network) else 1)
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
    """A network that OpenVINO computes; it is converted when the first patches come, for their size.

    Args:
        network: The network, in evaluation mode.
        precision: How it computes.
        streams: Threads that may use it at the same time; others wait. Threads that pass through several networks are
            soon in different ones, so a network needs fewer streams than there are threads.
        together: Patches that it computes at a time; fewer are filled up.
    """

    def __init__(self, network: nn.Module, precision: Precision, streams: int = 1, together: int = 1) -> None:
        super().__init__()
        self._network = network
        self._precision = precision
        self._streams = streams
        self._lock = threading.Lock()
        self._free: SimpleQueue[Any] = SimpleQueue()  # requests that no thread uses
        self._size: tuple[int, ...] = ()
        self._names: list[str] = []
        self._together = together

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return logits by head, for images (B, C, H, W) float32 on a CPU."""
        with self._lock:
            if self._size != images.shape[1:]:
                self._convert(images.shape[1:])
            free, names = self._free, self._names
        return self._answer(images, free, names)

    def _answer(self, images: Tensor, free: "SimpleQueue[Any]", names: list[str]) -> dict[str, Tensor]:
        answers: dict[str, list[Tensor]] = {name: [] for name in names}
        request = free.get()
        try:
            for part in images.split(self._together):
                lacking = self._together - len(part)
                full = torch.cat([part, *[part[-1:]] * lacking]) if lacking else part
                found = request.infer({0: full.permute(0, 2, 3, 1).contiguous().numpy()}, share_inputs=True)
                for i, name in enumerate(names):
                    answers[name].append(torch.from_numpy(found[i][: len(part)]))
        finally:
            free.put(request)
        return {name: torch.cat(parts) for name, parts in answers.items()}

    def _convert(self, size: tuple[int, ...]) -> None:
        import openvino

        patches = max(2, self._together)
        example = torch.from_numpy(np.random.default_rng(0).normal(size=(patches, *size)).astype(np.float32))
        buffer = BytesIO()
        try:
            with torch.no_grad(), warnings.catch_warnings():
                # The new exporter cannot trace every layer of ours, and traced sizes are wanted.
                warnings.simplefilter("ignore")
                expected: dict[str, Tensor] = self._network(example)
                halves = all(side % 32 == 0 for side in size[1:])  # at all five levels
                exported = _Heads(joined(self._network) if halves else self._network).eval()
                together = (example[: self._together],)
                torch.onnx.export(exported, together, cast(Any, buffer), dynamo=False, opset_version=_OPSET)
            core, free = _openvino_core(), SimpleQueue[Any]()
            steps = openvino.preprocess.PrePostProcessor(core.read_model(buffer.getvalue()))
            steps.input().tensor().set_layout(openvino.Layout("NHWC"))  # channels last, as the patches come
            steps.input().model().set_layout(openvino.Layout("NCHW"))
            compiled = core.compile_model(
                steps.build(),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self._precision],
                    # A single stream of one thread computes in the thread that asks. Several share the weights, and
                    # have threads of their own; to wake them takes a tenth of the time.
                    "NUM_STREAMS": self._streams,
                    "INFERENCE_NUM_THREADS": self._streams,
                    "ENABLE_CPU_PINNING": False,  # or two processes would share one core
                },
            )
            for _ in range(self._streams):
                free.put(compiled.create_infer_request())
            found = self._answer(example, free, list(expected))
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise _not_converted(f"OpenVINO cannot compute this network: {str(error).splitlines()[0]}") from error
        for name, logits in expected.items():
            difference = float((found[name] - logits).abs().max() / logits.abs().max().clamp(min=1))
            if not difference <= _TOLERANCE[self._precision]:
                raise _not_converted(f"OpenVINO's answers differ from PyTorch's by {difference:.2g}")
        self._free, self._names, self._size = free, list(expected), size  # only now may other threads use it


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
