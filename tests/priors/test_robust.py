import numpy as np
import pytest

from braincorl import GroupPrior, GroupPriorEncoder
from braincorl.metrics import explained_variance
from braincorl.closed_forms.spoilt_images import image_weights, left_out_energy


def test_left_out_residuals_are_those_of_leaving_out(rng):
    n = 9
    root = rng.standard_normal((n, 4))
    signal, y = root @ root.T, rng.standard_normal((n, 3))
    found = left_out_energy(signal, y @ y.T / y.shape[1], np.ones(n))
    for i in range(n):
        rest = np.delete(np.arange(n), i)
        covariance = signal + np.eye(n) + 1e7  # a flat intercept is one of enormous variance
        gain = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[rest, i])
        residual = y[i] - gain @ y[rest]
        expected = (residual**2).mean() / (covariance[i, i] - gain @ covariance[rest, i])
        assert found[i] == pytest.approx(expected, rel=1e-3)


def test_a_spoilt_image_is_found_and_good_ones_are_kept(rng, pool, mixture, draw_voxels):
    X = pool[:20]
    y, _, _ = draw_voxels(mixture, X, 300, 0.3, rng)
    assert (image_weights(X, y, mixture) > 0.9).all()
    y[6] += 6 * y.std() * rng.standard_normal(300)
    weights = image_weights(X, y, mixture)
    assert weights[6] < 0.3
    assert (np.delete(weights, 6) > 0.9).all()


def test_one_spoilt_image_costs_little(rng, pool, mixture, draw_voxels):
    people = [(pool[:80], draw_voxels(mixture, pool[:80], 200, 0.3, rng)[0]) for _ in range(2)]
    prior = GroupPrior.fit(people, n_components=2, shrinkage=3.0)
    X = pool[100:120]
    y, weights, _ = draw_voxels(mixture, X, 300, 0.3, rng)
    truth = pool[200:] @ weights.T
    clean = explained_variance(truth, GroupPriorEncoder(prior).fit(X, y).predict(pool[200:])).mean()
    y[3] += 6 * y.std() * rng.standard_normal(300)
    spoilt = explained_variance(truth, GroupPriorEncoder(prior).fit(X, y).predict(pool[200:])).mean()
    assert spoilt > clean - 0.1
