"""Out-of-fold predictions: the right member, turned patches, the deviation over them."""

import numpy as np
import pytest
import torch

from landslide.bands.formulas import BandSettings, engineer
from landslide.data.patches import read_mask, read_stored
from landslide.data.table import patch_table
from landslide.inference.ensemble import Ensemble
from landslide.inference.prediction import PredictionSettings, landslide_probability
from landslide.labels.predictions import predict_out_of_fold
from tests.support.versions import members

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    return Ensemble(members(tmp_path_factory.mktemp("weights")), BandSettings())


@pytest.fixture(scope="module")
def table(root):
    return patch_table(root).assign(fold=[2, 1, 0, 2, 1, 0])


def images(root, table, rows):
    return np.stack([read_stored(root / table["image"].iloc[row]) for row in rows]).transpose(0, 3, 1, 2)


def test_each_patch_is_predicted_by_the_member_that_left_it_out(root, ensemble, table):
    done = []
    found = predict_out_of_fold(ensemble, root, table, augmentation="none", progress=done.append)
    assert sum(done) == len(table)
    first, second = (Ensemble([member], ensemble.settings) for member in ensemble.members)
    for fold, alone in ((1, first), (2, second), (0, ensemble)):
        rows = np.flatnonzero(table["fold"] == fold)
        mean, deviation = alone.predict(images(root, table, rows))
        np.testing.assert_allclose(found.probability[rows], mean, rtol=1e-6)
        np.testing.assert_allclose(found.deviation[rows], deviation, atol=2e-4)  # a difference of squares
    assert (found.deviation[table["fold"] == 0] > 0).any()
    np.testing.assert_array_equal(found.masks, [read_mask(root / path) for path in table["mask"]])
    assert found.threshold.tolist() == [0.5] * 6


def test_turned_patches_give_mean_and_deviation(root, ensemble, table):
    """B4 and the slope of a turned patch are those of the patch, turned."""
    found = predict_out_of_fold(ensemble, root, table, augmentation="flips_and_rotations")
    row = 1  # of fold 1
    bands = engineer(images(root, table, [row]), ensemble.settings, ("B4", "slope"))
    batch = torch.from_numpy(bands.astype(ensemble.settings.dtype).astype(np.float32))
    model = ensemble.models[0]
    turned = PredictionSettings(augmentation="flips_and_rotations")
    expected = landslide_probability(model, batch, turned, ("B4", "slope"))[0].numpy()
    np.testing.assert_allclose(found.probability[row], expected, atol=1e-5)
    each = []
    for mirrored in (False, True):
        for turns in range(4):
            moved = torch.rot90(batch, turns, (-2, -1))
            moved = moved.flip(-1) if mirrored else moved
            answer = landslide_probability(model, moved.contiguous())[0]
            answer = answer.flip(-1) if mirrored else answer
            each.append(torch.rot90(answer, -turns, (-2, -1)).numpy())
    np.testing.assert_allclose(found.deviation[row], np.std(each, axis=0), atol=1e-4)
    assert found.deviation[row].max() > 1e-3


def test_the_members_own_augmentation_is_not_added(root, ensemble, table):
    turning = [
        type(member)(**{**vars(member), "prediction": PredictionSettings(augmentation="rotations")})
        for member in ensemble.members
    ]
    plain, turned = (
        predict_out_of_fold(one, root, table, augmentation="none").probability
        for one in (ensemble, Ensemble(turning, ensemble.settings))
    )
    np.testing.assert_array_equal(plain, turned)
