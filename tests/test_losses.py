"""The losses against closed forms in float64."""

import math

import numpy as np
import pytest
import torch

from landslide.errors import ConfigurationError
from landslide.losses import HEAD_WEIGHTS, LOSS_NAMES, create_loss, multi_head_loss

CLIP = 1e-7


def random_case(seed: int = 0, shape: tuple[int, int, int] = (3, 8, 6), spread: float = 3.0):
    rng = np.random.default_rng(seed)
    batch, height, width = shape
    logits = rng.normal(scale=spread, size=(batch, 2, height, width)).astype(np.float32)
    return logits, (rng.random(shape) < 0.3).astype(np.int64)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def one_hot(mask: np.ndarray) -> np.ndarray:
    return np.stack([mask == 0, mask == 1], axis=1).astype(np.float64)


def reference_cross_entropy(logits, mask):
    return -(one_hot(mask) * np.log(softmax(logits))).sum(axis=1).mean()


def reference_focal(logits, mask):
    """Two binary problems a pixel, one for each one-hot channel; mean over all channels and pixels."""
    p, y = softmax(logits).clip(CLIP, 1 - CLIP), one_hot(mask)
    return (y * (1 - p) ** 2 * -np.log(p) + (1 - y) * p**2 * -np.log(1 - p)).mean()


def reference_iou(logits, mask):
    p, y = softmax(logits), one_hot(mask)
    total = 0.0
    for c in (0, 1):
        intersection = (p[:, c] * y[:, c]).sum()
        union = (p[:, c] + y[:, c] - p[:, c] * y[:, c]).sum()
        total += -math.log((intersection + 1e-7) / (union + 1e-7))
    return total / 2


REFERENCES = {
    "cross_entropy": reference_cross_entropy,
    "focal": reference_focal,
    "iou": reference_iou,
    "focal_iou": lambda logits, mask: reference_focal(logits, mask) + reference_iou(logits, mask),
}


def test_every_loss_has_a_reference():
    assert set(REFERENCES) == set(LOSS_NAMES)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mask_dtype", [torch.int64, torch.uint8])
def test_a_loss_equals_its_closed_form(name, seed, mask_dtype):
    logits, mask = random_case(seed)
    loss = create_loss(name)(torch.tensor(logits), torch.tensor(mask).to(mask_dtype))
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert loss.item() == pytest.approx(REFERENCES[name](logits, mask), rel=1e-5)


def test_the_focal_loss_of_both_channels_is_that_of_the_true_class():
    logits, mask = random_case()
    p_true = (softmax(logits) * one_hot(mask)).sum(axis=1)
    of_true_class = ((1 - p_true) ** 2 * -np.log(p_true)).mean()
    assert reference_focal(logits, mask) == pytest.approx(of_true_class, rel=1e-9)
    loss = create_loss("focal")(torch.tensor(logits), torch.tensor(mask))
    assert loss.item() == pytest.approx(of_true_class, rel=1e-5)


def test_losses_of_one_pixel_of_even_odds_by_hand():
    logits, mask = torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, dtype=torch.int64)
    assert create_loss("cross_entropy")(logits, mask).item() == pytest.approx(math.log(2), rel=1e-6)
    assert create_loss("focal")(logits, mask).item() == pytest.approx(0.25 * math.log(2), rel=1e-6)
    absent = -math.log(1e-7 / (0.5 + 1e-7))  # background: nothing true, half predicted
    assert create_loss("iou")(logits, mask).item() == pytest.approx((math.log(2) + absent) / 2, rel=1e-5)


def test_iou_is_of_the_whole_batch_and_not_a_mean_over_patches():
    logits, mask = random_case(shape=(2, 8, 8))
    mask[0], mask[1] = 0, 1
    whole = create_loss("iou")(torch.tensor(logits), torch.tensor(mask)).item()
    patches = [create_loss("iou")(torch.tensor(logits[i : i + 1]), torch.tensor(mask[i : i + 1])) for i in (0, 1)]
    assert whole == pytest.approx(reference_iou(logits, mask), rel=1e-5)
    assert whole < torch.stack(patches).mean().item() / 2


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("content", ["both classes", "background alone"])
def test_a_perfect_prediction_costs_almost_nothing_and_a_wrong_one_much(name, content):
    _, mask = random_case()
    mask = mask if content == "both classes" else np.zeros_like(mask)
    perfect = torch.tensor((one_hot(mask) * 2 - 1) * 50, dtype=torch.float32)
    loss, mask = create_loss(name), torch.tensor(mask)
    assert 0 <= loss(perfect, mask).item() < 1e-5
    assert loss(-perfect, mask).item() > 5


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_scored_in_float32(name, dtype):
    logits, mask = random_case()
    rounded = torch.tensor(logits).to(dtype).requires_grad_()
    loss = create_loss(name)(rounded, torch.tensor(mask))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(REFERENCES[name](rounded.detach().float().numpy(), mask), rel=1e-5)
    loss.backward()
    assert rounded.grad.dtype == dtype
    assert rounded.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("right", [True, False])
def test_loss_and_gradient_are_finite_for_saturated_logits(name, right):
    _, mask = random_case()
    sign = 100.0 if right else -100.0
    logits = torch.tensor((one_hot(mask) * 2 - 1) * sign, dtype=torch.float32, requires_grad=True)
    loss = create_loss(name)(logits, torch.tensor(mask))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_gradient_is_that_of_the_closed_form(name):
    logits, mask = random_case(shape=(2, 3, 3), spread=1.0)
    tensor = torch.tensor(logits, requires_grad=True)
    create_loss(name)(tensor, torch.tensor(mask)).backward()
    step, wide = 1e-5, logits.astype(np.float64)
    for at in [(0, 0, 0, 0), (0, 1, 2, 1), (1, 1, 0, 2)]:
        shift = np.zeros_like(wide)
        shift[at] = step
        slope = (REFERENCES[name](wide + shift, mask) - REFERENCES[name](wide - shift, mask)) / (2 * step)
        assert tensor.grad[at].item() == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_an_unknown_loss_is_a_configuration_error_that_lists_the_others():
    with pytest.raises(ConfigurationError, match="no loss 'dice'") as error:
        create_loss("dice")
    assert all(name in error.value.remedy for name in LOSS_NAMES)


# ---- several heads


def value_of_head(seen: dict[int, torch.Tensor]):
    """A loss that is the side of its head, and that remembers the mask of each side."""

    def loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen[logits.shape[-1]] = mask
        return torch.tensor(float(logits.shape[-1]))

    return loss


def heads(*sides: int) -> dict[str, torch.Tensor]:
    return {str(side): torch.zeros(2, 2, side, side) for side in sides}


def test_three_heads_weigh_a_quarter_a_half_and_a_quarter():
    assert HEAD_WEIGHTS == {"256": 0.25, "128": 0.5, "64": 0.25}
    mask = torch.zeros(2, 128, 128, dtype=torch.int64)
    for single in (64, 128, 256):
        value = multi_head_loss(heads(256, 128, 64), mask, lambda z, m, s=single: torch.tensor(z.shape[-1] == s) * 1.0)
        assert value.item() == HEAD_WEIGHTS[str(single)]


def test_masks_are_resized_by_nearest_neighbour():
    mask = (torch.rand(2, 128, 128, generator=torch.Generator().manual_seed(0)) < 0.4).long()
    seen: dict[int, torch.Tensor] = {}
    multi_head_loss(heads(256, 128, 64), mask, value_of_head(seen))
    assert torch.equal(seen[128], mask)
    assert torch.equal(seen[256], mask.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2))
    assert torch.equal(seen[64], mask[:, ::2, ::2])
    assert all(not resized.is_floating_point() for resized in seen.values())


def test_the_combined_loss_of_three_heads_equals_its_closed_form():
    mask = random_case(shape=(2, 128, 128))[1]
    logits = {side: random_case(side, (2, side, side))[0] for side in (256, 128, 64)}
    resized = {256: mask.repeat(2, axis=1).repeat(2, axis=2), 128: mask, 64: mask[:, ::2, ::2]}
    reference = REFERENCES["focal_iou"]
    expected = sum(w * reference(logits[s], resized[s]) for s, w in ((256, 0.25), (128, 0.5), (64, 0.25)))
    given = {str(side): torch.tensor(values) for side, values in logits.items()}
    value = multi_head_loss(given, torch.tensor(mask), create_loss("focal_iou"))
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("side", [64, 128])
def test_a_single_head_has_weight_1(side):
    mask = torch.zeros(2, side, side, dtype=torch.int64)
    assert multi_head_loss(heads(side), mask, value_of_head({})).item() == side


def test_the_weights_of_the_heads_at_hand_are_divided_by_their_sum():
    mask = torch.zeros(2, 128, 128, dtype=torch.int64)
    value = multi_head_loss(heads(256, 128), mask, value_of_head({}))
    assert value.item() == pytest.approx((0.25 * 256 + 0.5 * 128) / 0.75)


def test_the_heads_of_a_crop_weigh_by_their_ratio_to_it():
    mask = torch.zeros(2, 64, 64, dtype=torch.int64)
    seen: dict[int, torch.Tensor] = {}
    value = multi_head_loss(heads(128, 64, 32), mask, value_of_head(seen))
    assert value.item() == pytest.approx(0.25 * 128 + 0.5 * 64 + 0.25 * 32)
    assert {side: tuple(m.shape) for side, m in seen.items()} == {s: (2, s, s) for s in (128, 64, 32)}
    skewed = multi_head_loss(heads(128, 64, 32), mask, value_of_head({}), {"256": 0.5, "128": 0.25, "64": 0.25})
    assert skewed.item() == pytest.approx(0.5 * 128 + 0.25 * 64 + 0.25 * 32)


def test_heads_without_any_weight_are_a_configuration_error():
    mask = torch.zeros(2, 128, 128, dtype=torch.int64)
    with pytest.raises(ConfigurationError, match=r"Not every head of \['32'\] has a weight for input of 128 pixels"):
        multi_head_loss(heads(32), mask, create_loss("focal"))


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_loss_reaches_every_head(name):
    logits = {str(s): torch.tensor(random_case(s, (2, s, s))[0], requires_grad=True) for s in (32, 16, 8)}
    mask = torch.tensor(random_case(shape=(2, 16, 16))[1])
    multi_head_loss(logits, mask, create_loss(name)).backward()
    assert all(head.grad is not None and head.grad.abs().max() > 0 for head in logits.values())
