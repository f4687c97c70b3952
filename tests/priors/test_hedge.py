import numpy as np
import pytest

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder
from braincorl.metrics import explained_variance
from braincorl.priors.hedge import blend, share_in_metric, share_without_prior
from braincorl.priors.images import count_seen, image_digests
from braincorl.priors.people import seen_images


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
    X = X + 1e-3  # images that nobody else saw
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
    np.testing.assert_array_equal(share_without_prior(known, 1, 1000), [0.25, 0.4])
    np.testing.assert_allclose(share_without_prior(known, 40, 40), [0.6, 8 / 11])
    np.testing.assert_allclose(share_in_metric(known), [0.0, 1 / 3])


def test_the_prior_counts_for_less_on_images_that_taught_it(tmp_path):
    people, queries = make_people(3, 0.0)
    X, y, _ = people[2]
    fits = [BayesianRidgeEncoder().fit(*person[:2], X_pool=queries) for person in people[:2]]
    fits[0].save(tmp_path / "fit.safetensors")
    fits[0] = BayesianRidgeEncoder.load(tmp_path / "fit.safetensors")
    GroupPrior.fit(fits, X_pool=queries, n_components=1).save(tmp_path / "prior.safetensors")
    prior = GroupPrior.load(tmp_path / "prior.safetensors")
    assert prior.image_digests.size == 40
    exact, hedged = (GroupPriorEncoder(prior, hedge=hedge).fit(X, y, X_pool=queries) for hedge in (False, True))
    alone = BayesianRidgeEncoder().fit(X, y, X_pool=queries)
    np.testing.assert_allclose(hedged.coef_, (3 * exact.coef_ + 8 * alone.coef_) / 11)


def test_fingerprints():
    X = np.random.default_rng(0).standard_normal((4, 3))
    digests = image_digests(X)
    assert np.unique(digests).size == 4
    np.testing.assert_array_equal(image_digests(X[::-1].astype(np.float32)), digests[::-1])
    np.testing.assert_array_equal(image_digests(np.array([[0.0, 1.0]])), image_digests(np.array([[-0.0, 1.0]])))
    assert count_seen(digests[1:3], digests[:2]) == 1
    assert count_seen(digests, digests[:0]) == 0
    assert count_seen(image_digests(np.vstack([X, X])), digests) == count_seen(
        digests, digests
    )  # trials of one image are one image
    assert digests[0] == -8839581306433735242  # written into files: must not change


def test_people_of_unknown_images_leave_it_open():
    people, _ = make_people(2, 0.0)
    fit = BayesianRidgeEncoder().fit(*people[0][:2])
    assert seen_images([people[1][:2], fit]).size == 40
    fit.image_digests_ = fit.image_digests_[:0]  # as a file of an earlier version has it
    assert seen_images([people[1][:2], fit]).size == 0


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_blend(shape):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, *shape)).astype(np.float32)
    mean = blend(first, second, np.array([0.0, 0.5, 1.0]))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, [first[0], (first[1] + second[1]) / 2, second[2]], rtol=1e-6)
