"""Z-scoring within a session, in pieces as in one go, on any baseline."""

import numpy as np
import pytest

from braincorl.datasets.trials.zscoring import SessionMoments
from braincorl.errors import InputError


def scaling(trials, pieces):
    moments = SessionMoments(trials[0])
    for piece in np.array_split(trials, pieces):
        moments.add(piece)
    return moments.scaling("01")


@pytest.mark.parametrize("pieces", [1, 3, 12])
def test_trials_may_come_in_any_pieces(rng, pieces):
    trials = (rng.standard_normal((12, 5)) * [1e-3, 1, 50, 1e4, 1] + 3).astype("f4")
    scaled = scaling(trials, pieces).apply(trials)
    exact = trials.astype("f8")
    np.testing.assert_allclose(scaled, (exact - exact.mean(axis=0)) / exact.std(axis=0), rtol=1e-5, atol=1e-5)


def test_a_large_baseline_costs_no_digits(rng):
    trials = rng.integers(-8, 9, (20, 4)).astype("f4")
    raised = trials + np.float32(2**20)
    np.testing.assert_array_equal(scaling(raised, 1).apply(raised), scaling(trials, 1).apply(trials))


def test_constant_voxels_become_nan_and_others_stay(rng):
    trials = rng.standard_normal((6, 3)).astype("f4")
    trials[:, 1] = 0.1
    scaled = scaling(trials, 2).apply(trials)
    assert np.isnan(scaled[:, 1]).all()
    assert np.isfinite(scaled[:, [0, 2]]).all()


def test_one_trial_cannot_be_scaled():
    with pytest.raises(InputError, match="session '01' has one trial"):
        scaling(np.ones((1, 2), "f4"), 1)
