import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from braincorl import GroupPrior, GroupPriorEncoder
from braincorl.errors import InputError
from braincorl.metrics import explained_variance
from braincorl.priors.neighbours import component_evidence, neighbour_weights, smooth_log_weight
from braincorl.priors.posterior import make_frames
from braincorl.priors.context import reduce_context


@pytest.fixture
def prior(mixture, pool):
    weight = np.vstack([mixture.weight] * 2)
    return GroupPrior(mixture, weight, (), pool.mean(axis=0), np.cov(pool, rowvar=False))


@pytest.fixture
def patchy(rng, pool, mixture, draw_voxels):
    """600 voxels on a sheet whose left half is of the first kind and whose right half is of the second."""
    positions = np.argwhere(np.ones((30, 20, 1)))
    X = pool[:10]
    y, weights, kind = draw_voxels(mixture, X, 3000, 0.15, rng)
    left, right = (np.flatnonzero(kind == k)[:300] for k in (0, 1))
    order = np.concatenate([left, right])
    return X, y[:, order], weights[order], kind[order], positions


def test_neighbours_weigh_what_a_loop_over_voxels_gives(rng):
    positions = rng.uniform(0, 6, (40, 3))
    found = neighbour_weights(positions, 1.0).toarray()
    for v in range(40):
        distance = np.linalg.norm(positions - positions[v], axis=1)
        expected = np.where((distance <= 2.5) & (np.arange(40) != v), np.exp(-(distance**2) / 2), 0.0)
        np.testing.assert_allclose(found[v], expected / max(expected.sum(), 1e-300), atol=1e-12)
