import numpy as np
import pytest
from scipy.stats import multivariate_t

from braincorl.closed_forms.evidence import SIGNAL_GRID, pool_scale
from braincorl.encoders import BayesianRidgeEncoder, RidgeEncoder
from braincorl.errors import InputError
from braincorl.metrics import explained_variance


def dense_posterior(X, y, scale, grid, queries):
    """Evidence, means and variances of one voxel from dense matrices, with the intercept removed by contrasts."""
    n = len(y)
    contrasts = np.linalg.qr(np.c_[np.ones(n), np.random.default_rng(0).standard_normal((n, n - 1))])[0][:, 1:].T
    A, z, nu = contrasts @ X, contrasts @ y, n - 1
    evidence, means, variances = [], [], []
    for r in grid:
        covariance = r * scale * A @ A.T + (1 - r) * np.eye(nu)
        quadratic = z @ np.linalg.solve(covariance, z)
        evidence.append(-0.5 * np.linalg.slogdet(covariance)[1] - nu / 2 * np.log(quadratic))
        weights = r * scale * A.T @ np.linalg.solve(covariance, z)
        means.append(y.mean() + (queries - X.mean(axis=0)) @ weights)
        q = queries - X.mean(axis=0)
        spread = r * scale * np.eye(X.shape[1]) - (r * scale) ** 2 * A.T @ np.linalg.solve(covariance, A)
        unit = np.einsum("qp,pr,qr->q", q, spread, q) + (1 - r) * (1 + 1 / n)
        variances.append(quadratic / nu * unit * nu / (nu - 2))
    p = np.exp(np.array(evidence) - max(evidence))
    p /= p.sum()
    mean = p @ np.array(means)
    return p, mean, np.sqrt(p @ np.array(variances) + p @ (np.array(means) - mean) ** 2)


@pytest.mark.parametrize("shape", [(25, 6), (8, 30), (7, 6)])
def test_equals_a_dense_gaussian_process(rng, shape):
    X = rng.standard_normal(shape) + 2.0
    y = X @ rng.standard_normal((shape[1], 4)) / np.sqrt(shape[1]) + rng.standard_normal((shape[0], 4))
    queries = rng.standard_normal((5, shape[1]))
    encoder = BayesianRidgeEncoder().fit(X, y)
    mean, std = encoder.predict(queries, return_std=True)
    for voxel in range(4):
        p, expected, expected_std = dense_posterior(X, y[:, voxel], pool_scale(X), SIGNAL_GRID, queries)
        np.testing.assert_allclose(encoder.posterior_.probability[:, voxel], p, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(mean[:, voxel], expected, rtol=1e-7)
        np.testing.assert_allclose(std[:, voxel], expected_std, rtol=1e-7)


def test_evidence_is_a_multivariate_student(rng):
    """Marginalising the variance under 1/s² leaves, up to a constant, a Student density in its shape alone."""
    n, r = 6, 0.4
    X = rng.standard_normal((n, 3))
    X -= X.mean(axis=0)
    covariance = r * X @ X.T + (1 - r) * np.eye(n)
    # With tiny degrees of freedom the density tends to (z' C^-1 z)^(-n/2) |C|^(-1/2), the scale-free form used here.
    a, b = rng.standard_normal((2, n))
    ratio = multivariate_t.logpdf(a, shape=covariance, df=1e-6) - multivariate_t.logpdf(b, shape=covariance, df=1e-6)
    quadratics = [v @ np.linalg.solve(covariance, v) for v in (a, b)]
    assert ratio == pytest.approx(-n / 2 * np.log(quadratics[0] / quadratics[1]), abs=1e-3)


def test_intervals_hold_what_they_promise(rng):
    """SIMULATION from the model itself: 95 % intervals hold 95 % of new responses, at every number of images."""
    for n_images in (10, 40):
        X = rng.standard_normal((n_images + 50, 20)) / np.sqrt(20)
        r = rng.uniform(0, 0.8, 2000)
        y = X @ rng.standard_normal((20, 2000)) * np.sqrt(r) + rng.standard_normal((len(X), 2000)) * np.sqrt(1 - r)
        encoder = BayesianRidgeEncoder().fit(X[:n_images], y[:n_images], X_pool=X)
        mean, std = encoder.predict(X[n_images:], return_std=True)
        inside = (np.abs(y[n_images:] - mean) < 1.96 * std).mean()
        assert 0.94 < inside < 0.97


def test_noise_variance_and_signal_fraction_find_the_truth(rng):
    X = rng.standard_normal((400, 10)) / np.sqrt(10)
    r = np.array([0.05, 0.3, 0.6]).repeat(30)
    y = 3.0 * (X @ rng.standard_normal((10, 90)) * np.sqrt(r) + rng.standard_normal((400, 90)) * np.sqrt(1 - r))
    encoder = BayesianRidgeEncoder().fit(X, y)
    noise = encoder.noise_variance_.reshape(3, 30).mean(axis=1)
    np.testing.assert_allclose(noise, 9 * np.array([0.95, 0.7, 0.4]), rtol=0.05)
    assert (np.diff(encoder.signal_fraction_.reshape(3, 30).mean(axis=1)) > 0.1).all()


def test_ten_images_are_usable_where_cross_validation_is_not(rng):
    """SIMULATION: mean EV over voxels of low signal."""
    X = rng.standard_normal((210, 30)) / np.sqrt(30)
    y = X @ rng.standard_normal((30, 300)) * np.sqrt(0.3) + rng.standard_normal((210, 300)) * np.sqrt(0.7)
    ev = {
        cls: explained_variance(y[10:], cls().fit(X[:10], y[:10]).predict(X[10:])).mean()
        for cls in (RidgeEncoder, BayesianRidgeEncoder)
    }
    assert ev[BayesianRidgeEncoder] > 0 > ev[RidgeEncoder]


def test_a_pool_sets_the_scale_only(rng):
    X, y, pool = rng.standard_normal((10, 5)), rng.standard_normal((10, 3)), rng.standard_normal((100, 5))
    plain = BayesianRidgeEncoder().fit(X, y, X_pool=X)
    np.testing.assert_array_equal(plain.coef_, BayesianRidgeEncoder().fit(X, y).coef_)
    pooled = BayesianRidgeEncoder().fit(X, y, X_pool=pool)
    assert pooled.posterior_.scale == pytest.approx(1 / pool.var(axis=0, ddof=1).sum())
    with pytest.raises(InputError, match="same backbone"):
        BayesianRidgeEncoder().fit(X, y, X_pool=pool[:, :4])


def test_loaded_intervals_are_the_same(rng, tmp_path):
    X, y = rng.standard_normal((10, 5)), rng.standard_normal((10, 3))
    encoder = BayesianRidgeEncoder().fit(X, y)
    encoder.save(tmp_path / "e.safetensors")
    loaded = BayesianRidgeEncoder.load(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(loaded.predict(X, return_std=True)[1], encoder.predict(X, return_std=True)[1])
