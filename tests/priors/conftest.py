import numpy as np
import pytest

from braincorl.priors.components import Components, flat_levels, unit_signal

P = 6


@pytest.fixture
def pool(rng):
    return rng.standard_normal((400, P)) * np.linspace(2.0, 0.5, P)


@pytest.fixture
def mixture(rng, pool):
    """Two kinds of voxel with means, and the broad component."""
    mean = np.vstack([rng.standard_normal((2, P)), np.zeros(P)])
    factor = 0.5 * rng.standard_normal((3, P, 2))
    factor[2] = 0
    levels = np.tile(flat_levels(), (3, 1))
    parts = Components(mean, factor, np.array([0.1, 0.05, 1.0]), np.array([0.5, 0.4, 0.1]), levels)
    return unit_signal(parts, np.cov(pool, rowvar=False))


@pytest.fixture
def draw_voxels():
    return _draw_voxels


def _draw_voxels(components, X, n_voxels, r, rng, scale=1.0):
    """Responses of voxels drawn from the mixture, with their weights and kinds."""
    kind = rng.choice(components.n_components, n_voxels, p=components.weight)
    weights = np.stack([rng.multivariate_normal(components.mean[c], components.covariance(c)) for c in kind])
    noise = np.sqrt(1 - r) * rng.standard_normal((X.shape[0], n_voxels))
    y = scale * (np.sqrt(r) * X @ weights.T + noise) + 3.0
    return y, scale * np.sqrt(r) * weights, kind
