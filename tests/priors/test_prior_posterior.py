import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from braincorl.encoders import BayesianRidgeEncoder
from braincorl.priors.components import LEVELS, broad_components
from braincorl.priors.context import reduce_context
from braincorl.priors.posterior import expected_scale, log_scale_integral
from braincorl.priors.predictive import predictive_std, solve_mixture


@pytest.mark.parametrize(("alpha", "beta"), [(9.0, 0.0), (8.0, 3.0), (12.0, -4.0)])
@pytest.mark.parametrize("power", [5, 9, 40])
def test_scale_integrals_are_those_of_quadrature(alpha, beta, power):
    def integral(k):
        return quad(lambda t: t ** (k - 1) * np.exp(-0.5 * alpha * t**2 + beta * t), 0, np.inf)[0]

    a, b = np.array([alpha]), np.array([beta])
    assert log_scale_integral(a, b, power)[0] == pytest.approx(np.log(integral(power)), abs=0.2 / power)
    assert expected_scale(a, b, power)[0] == pytest.approx(integral(power - 1) / integral(power), rel=0.01)
    assert expected_scale(a, b, power, moment=2)[0] == pytest.approx(integral(power - 2) / integral(power), rel=0.03)


def brute_force_weights(X, y, components, log_weight):
    """Posterior mean weights of one voxel by summing over kinds, levels and a fine grid of scales."""
    n = X.shape[0]
    basis = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]  # directions that a flat intercept leaves
    Xb, yb = basis.T @ X, basis.T @ y
    total, mean = 0.0, np.zeros(X.shape[1])
    for c in range(components.n_components):
        covariance = components.covariance(c)
        for r, chance in zip(LEVELS, components.level_probability[c], strict=True):
            for log_s in np.linspace(-3, 3, 121) + np.log(y.std()):
                s = np.exp(log_s)
                marginal = s**2 * (r * Xb @ covariance @ Xb.T + (1 - r) * np.eye(n - 1))
                expected = s * np.sqrt(r) * Xb @ components.mean[c]
                density = multivariate_normal.logpdf(yb, expected, marginal)
                q = np.exp(log_weight[c, 0] + density) * chance
                gain = s**2 * r * covariance @ Xb.T @ np.linalg.solve(marginal, yb - expected)
                total += q
                mean += q * (s * np.sqrt(r) * components.mean[c] + gain)
    return mean / total


@pytest.mark.parametrize("n_images", [5, 12])
def test_weights_are_those_of_brute_force(rng, pool, mixture, n_images, draw_voxels):
    X = pool[:n_images]
    y, _, _ = draw_voxels(mixture, X, 4, 0.4, rng, scale=2.5)
    log_weight = np.log(mixture.weight)[:, None]
    coef = solve_mixture(reduce_context(X, y), mixture, log_weight, pool.mean(axis=0)).coef
    expected = np.stack([brute_force_weights(X, y[:, v], mixture, log_weight) for v in range(4)])
    np.testing.assert_allclose(coef, expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("n_images", [8, 40])
def test_the_broad_component_alone_is_bayesian_ridge(rng, pool, n_images):
    X, y = pool[:n_images], rng.standard_normal((n_images, 5)) + pool[:n_images, :1]
    covariance = np.cov(pool, rowvar=False)
    broad = broad_components(covariance)
    uniform = np.full((1, LEVELS.size), 1 / LEVELS.size)
    object.__setattr__(broad, "level_probability", uniform)
    posterior = solve_mixture(reduce_context(X, y), broad, np.zeros((1, 1)), pool.mean(axis=0))
    ridge = BayesianRidgeEncoder(signal_grid=LEVELS).fit(X, y, X_pool=pool)
    np.testing.assert_allclose(posterior.coef, ridge.coef_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(posterior.intercept, ridge.intercept_, rtol=1e-6)
    np.testing.assert_allclose(posterior.signal_fraction, ridge.signal_fraction_, rtol=1e-6)


def test_predictive_intervals_hold_what_they_promise(rng, pool, mixture, draw_voxels):
    X, new = pool[:15], pool[200:]
    y, weights, _ = draw_voxels(mixture, X, 1500, 0.3, rng)
    log_weight = np.log(mixture.weight)[:, None]
    context = reduce_context(X, y)
    posterior = solve_mixture(context, mixture, log_weight, pool.mean(axis=0))
    std = predictive_std(context, mixture, log_weight, pool.mean(axis=0), new)
    measured = new @ weights.T + 3.0 + np.sqrt(0.7) * rng.standard_normal((new.shape[0], 1500))
    z = (measured - new @ posterior.coef.T - posterior.intercept) / std
    assert (z**2).mean() == pytest.approx(1.0, abs=0.1)
    assert (np.abs(z) < 1.96).mean() == pytest.approx(0.95, abs=0.02)


def test_responsibility_finds_the_kind_of_a_voxel(rng, pool, mixture, draw_voxels):
    X = pool[:100]
    y, _, kind = draw_voxels(mixture, X, 300, 0.7, rng)
    posterior = solve_mixture(reduce_context(X, y), mixture, np.log(mixture.weight)[:, None], pool.mean(axis=0))
    np.testing.assert_allclose(posterior.responsibility.sum(axis=1), 1.0)
    named = kind < 2
    assert (posterior.responsibility.argmax(axis=1) == kind)[named].mean() > 0.8


def test_batches_of_voxels_change_nothing(rng, pool, mixture):
    X, log_weight = pool[:10], np.log(rng.dirichlet(np.ones(3), 50)).T
    context = reduce_context(X, rng.standard_normal((10, 50)))
    whole = solve_mixture(context, mixture, log_weight, pool.mean(axis=0))
    parts = solve_mixture(context, mixture, log_weight, pool.mean(axis=0), voxel_batch_size=7)
    np.testing.assert_allclose(parts.coef, whole.coef, rtol=1e-9, atol=1e-12)
    std = predictive_std(context, mixture, log_weight, pool.mean(axis=0), pool[:3])
    std_parts = predictive_std(context, mixture, log_weight, pool.mean(axis=0), pool[:3], voxel_batch_size=7)
    np.testing.assert_allclose(std_parts, std, rtol=1e-9)


def test_a_constant_voxel_gets_no_weights(pool, mixture, rng):
    y = rng.standard_normal((10, 2))
    y[:, 1] = 7.0
    posterior = solve_mixture(reduce_context(pool[:10], y), mixture, np.log(mixture.weight)[:, None], pool.mean(axis=0))
    assert np.isfinite(posterior.coef).all()
    assert not posterior.coef[1].any()
    assert posterior.intercept[1] == 7.0
