"""The eight symmetries: each has an exact inverse, all differ, and gradients equal those of the moved patch."""

import numpy as np
import pytest
import torch

from landslide.bands.formulas import BAND_NAMES, engineer
from landslide.errors import ConfigurationError
from landslide.inference.symmetries import (
    IDENTITY,
    ROTATIONS,
    ROTATIONS_AND_FLIPS,
    Symmetry,
    flip,
    gradient_channels,
    rotate,
)

X, Y = BAND_NAMES.index("gradient_x"), BAND_NAMES.index("gradient_y")


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)


def expected(symmetry: Symmetry, patch: np.ndarray) -> np.ndarray:
    turned = np.rot90(patch, symmetry.quarter_turns, axes=(-2, -1))
    return turned[..., ::-1] if symmetry.mirrored else turned


@pytest.mark.parametrize("symmetry", ROTATIONS_AND_FLIPS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 2, 4, 6)])
def test_each_symmetry_is_inverted_exactly(symmetry, shape):
    images = numbered(*shape)
    moved = symmetry.apply(images)
    np.testing.assert_array_equal(moved.numpy(), expected(symmetry, images.numpy()))
    assert torch.equal(symmetry.invert(moved), images)
    assert torch.equal(symmetry.invert(moved[:, 0]), images[:, 0])


def test_eight_symmetries_include_four_rotations_and_the_identity():
    square = numbered(1, 1, 3, 3)
    images = {tuple(symmetry.apply(square).flatten().tolist()) for symmetry in ROTATIONS_AND_FLIPS}
    assert len(images) == 8
    assert set(ROTATIONS) < set(ROTATIONS_AND_FLIPS)
    assert len(ROTATIONS) == 4
    assert torch.equal(IDENTITY.apply(square), square)
    assert IDENTITY in ROTATIONS


@pytest.mark.parametrize("symmetry", ROTATIONS_AND_FLIPS)
def test_gradients_equal_those_of_the_moved_patch(symmetry):
    raw = np.abs(np.random.default_rng(0).normal(size=(14, 24, 24))) + 1
    moved = symmetry.apply(torch.from_numpy(engineer(raw))[None], (X, Y))[0].numpy()
    recomputed = engineer(np.ascontiguousarray(expected(symmetry, raw)))
    np.testing.assert_allclose(moved[[X, Y]], recomputed[[X, Y]], rtol=1e-6, atol=1e-6)
    assert np.abs(moved[[X, Y]]).max() > 0.1


@pytest.mark.parametrize("symmetry", ROTATIONS_AND_FLIPS)
def test_the_input_images_are_unchanged(symmetry):
    images = numbered(2, 3, 4, 4)
    symmetry.apply(images, (0, 2))
    assert torch.equal(images, numbered(2, 3, 4, 4))


def test_rotating_and_mirroring_a_ramp_moves_its_gradient():
    ramp = torch.arange(4.0).expand(4, 4)
    image = torch.stack([ramp, torch.ones(4, 4), torch.zeros(4, 4)])  # value, gradient_x, gradient_y (down)
    turned, mirrored = rotate(image, 1, (1, 2)), flip(image, -1, (1, 2))
    assert turned[0, 0, 0] == 3  # the high side moved from the right to the top
    assert (turned[1].unique().tolist(), turned[2].unique().tolist()) == ([0], [-1])
    assert (mirrored[1].unique().tolist(), mirrored[2].unique().tolist()) == ([-1], [0])
    assert flip(image, -2, (1, 2))[1].unique().tolist() == [1]


def test_gradients_are_found_by_name_and_only_as_a_pair():
    assert gradient_channels(BAND_NAMES) == (X, Y)
    assert gradient_channels(("gradient_y", "B4", "gradient_x")) == (2, 0)
    assert gradient_channels(("B4", "slope")) == (None, None)
    for name in ("gradient_x", "gradient_y"):
        with pytest.raises(ConfigurationError, match=f"only {name} is selected") as error:
            gradient_channels(("B4", name))
        assert "neither" in error.value.remedy
