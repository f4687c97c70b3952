import numpy as np
import pytest
from scipy.special import polygamma

from braincorl.priors.components import LEVELS
from braincorl.priors.context import effective_voxels, in_basis, reduce_context
from braincorl.priors.person import inverse_trigamma, update_levels, with_shared_scale


@pytest.mark.parametrize("n_images", [5, 30])
def test_the_statistics_give_the_least_squares_of_the_raw_data(rng, n_images):
    X, y = rng.standard_normal((n_images, 8)), rng.standard_normal((n_images, 4))
    context = reduce_context(X, y)
    w = rng.standard_normal(8)
    centred = y - y.mean(axis=0) - ((X - X.mean(axis=0)) @ w)[:, None]
    inside = ((context.projected * context.scale - (context.rows @ w)[:, None]) ** 2).sum(axis=0)
    np.testing.assert_allclose(inside + context.outside * context.scale**2, (centred**2).sum(axis=0), rtol=1e-9)


def test_weights_of_images_are_weighted_least_squares(rng):
    X, y, omega = rng.standard_normal((12, 3)), rng.standard_normal((12, 2)), rng.uniform(0.2, 2, 12)
    context = reduce_context(X, y, omega)
    w = np.linalg.lstsq(context.rows, context.projected * context.scale, rcond=None)[0]
    design = np.sqrt(omega)[:, None] * np.column_stack([X, np.ones(12)])
    expected = np.linalg.lstsq(design, np.sqrt(omega)[:, None] * y, rcond=None)[0]
    np.testing.assert_allclose(w, expected[:-1], rtol=1e-8)
    np.testing.assert_allclose(context.response_mean - context.feature_mean @ w, expected[-1], rtol=1e-8)


def test_effective_voxels_count_independent_noise(rng):
    X = rng.standard_normal((100, 40))
    independent = rng.standard_normal((100, 600))
    shared = rng.standard_normal((100, 20)) @ rng.standard_normal((20, 600))
    assert effective_voxels(reduce_context(X, independent)) > 200
    assert 10 < effective_voxels(reduce_context(X, shared)) < 30


@pytest.mark.parametrize("x", [0.3, 1.0, 4.0, 80.0])
def test_inverse_trigamma_inverts(x):
    assert inverse_trigamma(float(polygamma(1, x))) == pytest.approx(x, rel=1e-6)


def test_the_shared_scale_recovers_how_variances_spread(rng):
    d0, n_images = 12.0, 8
    variance = d0 / rng.chisquare(d0, 4000) * 2.0
    y = np.sqrt(variance) * rng.standard_normal((n_images, 4000))
    context = with_shared_scale(reduce_context(rng.standard_normal((n_images, 3)), y))
    assert context.prior_freedom == pytest.approx(d0, rel=0.25)
    s2 = context.prior_energy * context.scale**2 / context.prior_freedom
    np.testing.assert_allclose(s2, 2.0, rtol=0.1)


def test_ceilings_adapt_to_a_person_with_little_signal(rng, pool, mixture, draw_voxels):
    y, _, _ = draw_voxels(mixture, pool[:40], 400, 0.05, rng)
    context = reduce_context(pool[:40], y)
    adapted = update_levels(context, mixture, np.log(mixture.weight)[:, None])

    before, after = mixture.level_probability @ LEVELS, adapted.level_probability @ LEVELS
    assert (after < 0.5 * before).all()


def test_a_smaller_basis_is_the_context_of_its_own_features(rng):
    X, y = rng.standard_normal((15, 8)), rng.standard_normal((15, 4))
    basis = np.linalg.qr(rng.standard_normal((8, 3)))[0]
    found, expected = in_basis(reduce_context(X, y), basis), reduce_context(X @ basis, y)
    np.testing.assert_allclose(found.rows.T @ found.rows, expected.rows.T @ expected.rows, atol=1e-9)
    np.testing.assert_allclose(found.rows.T @ found.projected, expected.rows.T @ expected.projected, atol=1e-9)
    np.testing.assert_allclose(found.outside, expected.outside, atol=1e-9)
    np.testing.assert_allclose(found.feature_mean, expected.feature_mean, atol=1e-9)
