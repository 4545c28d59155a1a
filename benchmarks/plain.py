"""Networks of PyTorch's own layers: what the project's layers are compared with, in speed and in values."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from landslide.models.attention import SqueezeExcitation
from landslide.models.blocks import SELU, Dropout, SameConv2d, SameConvTranspose2d
from landslide.models.heads import MultiResolutionHeads


class PlainConv2d(SameConv2d):
    """Padding, then PyTorch's convolution and its gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, H, W)."""
        padded = F.pad(x, (0, self._extra, 0, self._extra)) if self._extra else x
        return nn.Conv2d.forward(self, padded)


class PlainConvTranspose2d(SameConvTranspose2d):
    """PyTorch's transposed convolution, then the crop."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample x (B, C, H, W) to twice its sides."""
        return nn.ConvTranspose2d.forward(self, x)[..., : 2 * x.shape[-2], : 2 * x.shape[-1]]


class PlainHeads(MultiResolutionHeads):
    """The three heads, each a sequence of layers."""

    def _double(self, x: Tensor) -> Tensor:
        logits: Tensor = self.double_resolution(x)
        return logits


class PlainSqueezeExcitation(SqueezeExcitation):
    """The mean over height and width as it is usually written."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel of x (B, C, H, W)."""
        weights: Tensor = self.excite(x.mean(dim=(2, 3)))
        return x * weights[:, :, None, None]


_PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    SameConv2d: PlainConv2d,
    SameConvTranspose2d: PlainConvTranspose2d,
    MultiResolutionHeads: PlainHeads,
    SqueezeExcitation: PlainSqueezeExcitation,
    SELU: nn.SELU,
    Dropout: nn.Dropout,
}


def plain(model: nn.Module) -> nn.Module:
    """Give a network PyTorch's own layers, in place; weights and their names stay."""
    for module in model.modules():
        module.__class__ = _PLAIN.get(type(module), type(module))
    return model


def processor_has_bf16() -> bool:
    """Return whether the processor has bf16, as Linux tells; elsewhere it is emulated and a step takes minutes."""
    facts = Path("/proc/cpuinfo")
    return facts.exists() and any(name in facts.read_text() for name in ("avx512_bf16", "amx_bf16", "bf16 "))
