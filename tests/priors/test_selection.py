from types import SimpleNamespace

import numpy as np
import pytest

from braincorl import GroupPrior
from braincorl.errors import InputError
from braincorl.priors.image_selection import expected_variance, select_images

P = 6


@pytest.fixture
def pool(rng):
    return rng.standard_normal((400, P)) * np.linspace(2.0, 0.5, P)


@pytest.fixture
def prior(rng, pool):
    """Of voxels that care for two directions of feature space more than for the others."""
    weights = rng.standard_normal((50, 2)) @ rng.standard_normal((2, P)) + 0.1 * rng.standard_normal((50, P))
    return GroupPrior.fit([SimpleNamespace(coef_=weights)], X_pool=pool)


def test_every_choice_is_the_best_next_one(pool, prior):
    """Against trying every image and inverting the full covariance each time."""
    X = pool[:25]
    chosen = select_images(X, 4, prior)
    taken: list[int] = []
    for _ in range(4):
        left = [i for i in range(25) if i not in taken]
        values = [expected_variance(X, np.array([*taken, i]), prior) for i in left]
        taken.append(left[int(np.argmin(values))])
    assert chosen.tolist() == taken


def test_expected_variance_is_that_of_a_regression_on_weights(pool, prior):
    """Against the posterior covariance of the weights themselves: the intercept a feature, signals a share of .3."""
    X, chosen = pool[:25], np.array([3, 11, 20])
    design = np.hstack([X - X.mean(axis=0), np.ones((25, 1))])
    covariance = np.zeros((P + 1, P + 1))
    spherical = np.eye(P) / np.trace(prior.pool_covariance)
    covariance[:P, :P] = 0.3 * (0.6 * prior.moment + 0.4 * spherical)
    covariance[P, P] = 100.0
    posterior = np.linalg.inv(np.linalg.inv(covariance) + design[chosen].T @ design[chosen] / 0.7)
    expected = np.mean(np.diag(design @ posterior @ design.T))
    assert expected_variance(X, chosen, prior) == pytest.approx(expected, rel=1e-4)


def test_chosen_images_leave_less_variance_than_random_ones(rng, pool, prior):
    chosen = expected_variance(pool, select_images(pool, 12, prior), prior)
    random = [expected_variance(pool, rng.permutation(400)[:12], prior) for _ in range(10)]
    assert chosen < min(random)


def test_mistakes_are_named(pool, prior):
    with pytest.raises(InputError, match="between 1 and"):
        select_images(pool, 401, prior)
    with pytest.raises(InputError, match="as in the prior"):
        select_images(pool[:, 1:], 3, prior)
