"""Heads and test-time augmentation: compared with equivariant networks, loops, and OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from landslide.errors import ConfigurationError, PredictionError
from landslide.inference.prediction import (
    PredictionSettings,
    landslide_probabilities,
    landslide_probability,
    number_of_heads,
)
from landslide.models import ModelSpec, build_model
from tests.support.caches import build_band_cache
from tests.support.predictions import predict_rows, predict_variants

pytestmark = pytest.mark.usefixtures("one_thread")

BANDS = ("B4", "gradient_x", "gradient_y")
CPU = torch.device("cpu")
VARIANTS = [PredictionSettings(augmentation=a) for a in ("none", "rotations", "flips_and_rotations")]


class Toy(nn.Module):
    """A network of one head whose landslide logit is a function of the image."""

    def __init__(self, logit) -> None:
        super().__init__()
        self.logit, self.passes = logit, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.passes += 1
        logit = self.logit(x)
        return {str(x.shape[-1]): torch.stack([torch.zeros_like(logit), logit], dim=1)}


def derivative_along_gradient(x: Tensor) -> Tensor:
    """The derivative of the first band along the gradient: invariant if both are rotated together."""
    padded = nn.functional.pad(x[:, :1], (1, 1, 1, 1))[:, 0]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return x[:, 1] * right + x[:, 2] * down


def position_dependent(x: Tensor) -> Tensor:
    """Depends on the position of a pixel."""
    ramp = torch.linspace(-2, 2, x.shape[-1])
    return x[:, 0] * ramp + x[:, 1] - 0.5 * x[:, 2] + ramp[: x.shape[-2], None] * 0.3


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("prediction", VARIANTS[:2])
def test_answers_that_are_not_finite_are_an_error_that_counts_the_patches(images, value, prediction):
    def logit(x: Tensor) -> Tensor:
        answer = x[:, 0].clone()
        answer[1, 0, 0] = value * 0  # NaN, whatever the infinity
        return answer

    with pytest.raises(PredictionError, match="not finite for 1 of 3 patches") as error:
        landslide_probabilities(Toy(logit), images, [VARIANTS[0], prediction], BANDS)
    assert "landslide models promote" in error.value.remedy


# ---- test-time augmentation


@pytest.mark.parametrize("prediction", VARIANTS, ids=lambda variant: variant.augmentation)
def test_an_equivariant_network_predicts_the_same_with_and_without_augmentation(images, prediction):
    plain = landslide_probability(Toy(derivative_along_gradient), images)
    augmented = landslide_probability(Toy(derivative_along_gradient), images, prediction, BANDS)
    torch.testing.assert_close(augmented, plain, rtol=0, atol=1e-6)
    # Without names, gradients keep their values and would point in a wrong direction.
    if prediction.augmentation != "none":
        unnamed = landslide_probability(Toy(derivative_along_gradient), images, prediction, ("B4", "B3", "B2"))
        assert (unnamed - plain).abs().max() > 0.1


def test_augmented_prediction_is_the_mean_over_symmetries_moved_back(images):
    def turned(x: np.ndarray, k: int, mirrored: bool) -> np.ndarray:
        moved = np.rot90(x, k, axes=(-2, -1)).copy()
        for _ in range(k):
            moved[:, [1, 2]] = np.stack([moved[:, 2], -moved[:, 1]], axis=1)
        if mirrored:
            moved = moved[..., ::-1].copy()
            moved[:, 1] *= -1
        return moved

    expected = {"rotations": [], "flips_and_rotations": []}
    for mirrored in (False, True):
        for k in range(4):
            answer = position_dependent(torch.from_numpy(turned(images.numpy(), k, mirrored)).double())
            back = 1 / (1 + np.exp(-answer.numpy()))
            back = np.rot90(back[..., ::-1] if mirrored else back, -k, axes=(-2, -1))
            expected["flips_and_rotations"].append(back)
            if not mirrored:
                expected["rotations"].append(back)
    for augmentation, answers in expected.items():
        found = landslide_probability(
            Toy(position_dependent), images, PredictionSettings(augmentation=augmentation), BANDS
        )
        np.testing.assert_allclose(found.numpy(), np.mean(answers, axis=0), atol=1e-6)


def test_patches_that_are_not_square_can_be_rotated():
    images = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(1))
    found = landslide_probability(Toy(derivative_along_gradient), images, VARIANTS[2], BANDS)
    torch.testing.assert_close(found, landslide_probability(Toy(derivative_along_gradient), images), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("variants", "passes"), [(VARIANTS[:1], (1, 1)), (VARIANTS[:2], (2, 4)), (VARIANTS[1:], (3, 8)), (VARIANTS, (3, 8))]
)
@pytest.mark.parametrize("copies", [1, 9])
def test_several_variants_share_passes_and_equal_single_predictions(images, variants, passes, copies):
    network, images = Toy(position_dependent), images.repeat(copies, 1, 1, 1)
    together = landslide_probabilities(network, images, variants, BANDS)
    assert network.passes == passes[copies > 1]  # symmetries share a pass if the batch is small
    for variant, found in zip(variants, together, strict=True):
        torch.testing.assert_close(
            found, landslide_probability(Toy(position_dependent), images, variant, BANDS), rtol=0, atol=0
        )


def test_unnamed_bands_and_a_single_gradient_are_not_rotated(images):
    with pytest.raises(ValueError, match="names of the bands"):
        landslide_probability(Toy(position_dependent), images, VARIANTS[1])
    with pytest.raises(ConfigurationError, match="only gradient_x is selected"):
        landslide_probability(Toy(position_dependent), images, VARIANTS[1], ("B4", "gradient_x", "B3"))


# ---- heads


class ThreeHeads(nn.Module):
    """A network with fixed logits at twice, the same and half the resolution of a 16-pixel input."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(3)
        self.logits = {str(side): torch.randn(2, 2, side, side, generator=rng) * 3 for side in (32, 16, 8)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.logits


def softmax_reference(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy())
    return powers[:, 1] / powers.sum(axis=1)


def test_the_main_head_is_the_softmax_at_the_resolution_of_the_input():
    network, images = ThreeHeads(), torch.zeros(2, 1, 16, 16)
    expected = softmax_reference(network.logits["16"])
    np.testing.assert_allclose(landslide_probability(network, images).numpy(), expected, atol=1e-6)


def test_the_average_is_over_probabilities_of_all_heads_at_input_resolution():
    network, images = ThreeHeads(), torch.zeros(2, 1, 16, 16)
    fine, same, coarse = (softmax_reference(network.logits[side]) for side in ("32", "16", "8"))
    fine = fine.reshape(2, 16, 2, 16, 2).mean(axis=(2, 4))
    coarse = np.stack([cv2.resize(one, (16, 16), interpolation=cv2.INTER_LINEAR) for one in coarse])
    found = landslide_probability(network, images, PredictionSettings(heads="average"))
    np.testing.assert_allclose(found.numpy(), (fine + same + coarse) / 3, atol=1e-6)


def test_one_head_is_its_own_average(images):
    average = landslide_probability(Toy(position_dependent), images, PredictionSettings(heads="average"))
    assert torch.equal(average, landslide_probability(Toy(position_dependent), images))


@pytest.mark.parametrize(("name", "heads"), [("unet", 1), ("rau_net", 3)])
def test_heads_are_counted(name, heads):
    assert number_of_heads(build_model(ModelSpec(name=name, options={"width": 4}, bands=BANDS)), 3, CPU) == heads


# ---- patches of the cache


def test_predictions_of_several_variants_equal_single_predictions():
    torch.manual_seed(0)
    model = build_model(ModelSpec(name="rau_net", options={"width": 4, "head_width": 4}, bands=BANDS)).eval()
    cache, rows = build_band_cache(4, names=("gradient_y", "B4", "gradient_x")), np.array([3, 0, 2])
    variants = {
        "plain": PredictionSettings(),
        "average": PredictionSettings(heads="average"),
        "both": PredictionSettings(heads="average", augmentation="rotations"),
    }
    found = predict_variants(model, cache, rows, BANDS, variants, device=CPU, batch_size=2)
    assert list(found) == list(variants)
    images = torch.from_numpy(np.stack([cache.bands[row][[1, 2, 0]] for row in rows]))
    for name, variant in variants.items():
        alone = predict_rows(model, cache, rows, BANDS, device=CPU, batch_size=2, prediction=variant)
        np.testing.assert_array_equal(found[name], alone)
        np.testing.assert_allclose(alone, landslide_probability(model, images, variant, BANDS).numpy(), atol=1e-5)
    assert np.abs(found["plain"] - found["average"]).max() > 0.01
    assert np.abs(found["both"] - found["average"]).max() > 0.01


# ---- settings


@pytest.mark.parametrize("wrong", [{"heads": "all"}, {"augmentation": "flips"}, {"head": "main"}])
def test_unknown_settings_are_refused(wrong):
    adapter = TypeAdapter(PredictionSettings)
    assert adapter.validate_python({}) == PredictionSettings(heads="main", augmentation="none")
    with pytest.raises(ValidationError):
        adapter.validate_python(wrong)
