import numpy as np
import pytest

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder
from braincorl.metrics import explained_variance
from braincorl.priors.hedge import blend, share_in_metric, share_without_prior


def make_people(n_people, unexplained, seed=0, n_images=40, n_voxels=80, p=12):
    """SIMULATION: people who saw the same images, part of whose responses no feature explains, in all people alike."""
    rng = np.random.default_rng(seed)
    X, queries = rng.standard_normal((n_images, p)), rng.standard_normal((300, p))
    patterns = rng.standard_normal((n_images, 4))
    people = []
    for _ in range(n_people):
        weights = rng.standard_normal((p, n_voxels))
        y = X @ weights + unexplained * patterns @ rng.standard_normal((4, n_voxels))
        people.append((X, y + 3 * rng.standard_normal(y.shape), queries @ weights))
    return people, queries


def test_it_is_four_tenths_bayesian_ridge():
    people, queries = make_people(3, 0.0)
    prior = GroupPrior.fit([person[:2] for person in people[:2]], n_components=1)
    X, y, _ = people[2]
    exact, hedged = (GroupPriorEncoder(prior, hedge=hedge).fit(X, y, X_pool=queries) for hedge in (False, True))
    alone = BayesianRidgeEncoder().fit(X, y, X_pool=queries)
    np.testing.assert_allclose(hedged.coef_, 0.6 * exact.coef_ + 0.4 * alone.coef_)
    np.testing.assert_allclose(hedged.intercept_, 0.6 * exact.intercept_ + 0.4 * alone.intercept_)
    np.testing.assert_array_equal(hedged.responsibility_, exact.responsibility_)


def test_without_images_the_prior_alone_speaks():
    people, _ = make_people(3, 0.0)
    rois = ["V1", "V2"] * 40
    prior = GroupPrior.fit([person[:2] for person in people[:2]], [rois, rois], n_components=1)
    none = [
        GroupPriorEncoder(prior, hedge=h).fit(people[2][0][:0], np.empty((0, 80)), rois=rois) for h in (True, False)
    ]
    np.testing.assert_array_equal(none[0].coef_, none[1].coef_)


def test_it_protects_from_a_prior_that_is_bent_to_the_images():
    """What no feature explains about the context's images is in the prior: right for those, wrong for new ones."""
    people, queries = make_people(5, 3.0)
    prior = GroupPrior.fit([person[:2] for person in people[:4]], n_components=3, shrinkage=1.0)
    X, y, truth = people[4]
    exact, hedged = (
        explained_variance(truth, GroupPriorEncoder(prior, hedge=hedge).fit(X, y).predict(queries)).mean()
        for hedge in (False, True)
    )
    assert hedged > exact + 0.01


def test_shares():
    known = np.array([True, False])
    np.testing.assert_array_equal(share_without_prior(known), [0.25, 0.4])
    np.testing.assert_allclose(share_in_metric(known), [0.0, 1 / 3])


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_blend(shape):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, *shape)).astype(np.float32)
    mean = blend(first, second, np.array([0.0, 0.5, 1.0]))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, [first[0], (first[1] + second[1]) / 2, second[2]], rtol=1e-6)
