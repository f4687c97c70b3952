import numpy as np
import pytest

from braincorl.closed_forms.spoilt_images import left_out_energy, weights_under


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


def test_a_spoilt_image_is_found_and_good_ones_are_kept(rng):
    X = rng.standard_normal((20, 6))
    signal = 0.4 / 0.6 * X @ X.T / 6
    y = X @ rng.standard_normal((6, 300)) * np.sqrt(0.4 / 6) + np.sqrt(0.6) * rng.standard_normal((20, 300))
    assert (weights_under(signal, y) > 0.9).all()
    y[6] += 6 * y.std() * rng.standard_normal(300)
    weights = weights_under(signal, y)
    assert weights[6] < 0.3
    assert (np.delete(weights, 6) > 0.9).all()
