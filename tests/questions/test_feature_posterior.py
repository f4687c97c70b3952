import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from braincorl import BayesianRidgeEncoder
from braincorl.analysis import context_noise, feature_posterior
from braincorl.errors import InputError
from braincorl.questions import feature_posterior as module
from braincorl.questions.feature_posterior import FeaturePrior
from braincorl.questions.identification import predictive_spread


def made(n_voxels=40, p=8, n_pool=60, noise=0.8, seed=0):
    """SIMULATION: an encoder, responses to new images, their features, a pool, and the context."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((p, p)) / np.sqrt(1 + np.arange(p))
    X = 2 + rng.standard_normal((n_pool + 100, p)) @ mixing
    W = rng.standard_normal((p, n_voxels))
    y = 3 + X @ W + noise * (rng.standard_normal((len(X), n_voxels)) + rng.standard_normal((len(X), 1)))
    encoder = BayesianRidgeEncoder().fit(X[:n_pool], y[:n_pool])
    return encoder, y[n_pool:], X[n_pool:], X[:n_pool], y[:n_pool]


@pytest.mark.parametrize("n_pool", [60, 12])
@pytest.mark.parametrize("shared", ["not", "how sure", "weighed"])
def test_posterior_is_that_of_the_dense_gaussian(n_pool, shared):
    """By the covariance of features and responses together, which needs no inverse of the prior."""
    encoder, y, _, pool, trained = made(p=20, n_pool=n_pool)
    noise = context_noise(encoder, pool, trained)
    options = {"not": {}, "how sure": {"noise": noise}, "weighed": {"noise": noise, "weigh": True}}[shared]
    found = feature_posterior(encoder, y, pool, **options)
    prior = FeaturePrior.of(pool)
    S, W = prior.factor @ prior.factor.T, encoder.coef_
    D = np.diag(predictive_spread(encoder, prior.examples))
    R = noise.shrinkage * np.eye(40) + noise.factors @ noise.factors.T
    a = np.linalg.inv(D) @ W @ prior.factor
    sure = np.trace(a.T @ a) / np.trace(a.T @ R @ a)
    R = {"not": np.eye(40), "how sure": np.eye(40) / min(1, sure), "weighed": R}[shared]
    cross, inner = S @ W.T, W @ S @ W.T + D @ R @ D
    mean = pool.mean(axis=0) + (y - pool.mean(axis=0) @ W.T - encoder.intercept_) @ np.linalg.solve(inner, cross.T)
    covariance = S - cross @ np.linalg.solve(inner, cross.T)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found.factor @ found.factor.T, covariance, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.std**2, np.diag(covariance), rtol=1e-7)
    assert found.settled == pytest.approx(1 - np.trace(covariance) / np.trace(S))


def test_the_prior_is_the_covariance_of_ledoit_and_wolf():
    pool = made(p=20)[3]
    prior = FeaturePrior.of(pool)
    np.testing.assert_allclose(prior.factor @ prior.factor.T, LedoitWolf().fit(pool).covariance_, atol=1e-10)
    few = FeaturePrior.of(pool[:12])
    assert few.factor.shape == (20, 11)
    inside = few.factor @ few.factor.T
    basis = np.linalg.qr((pool[:12] - pool[:12].mean(axis=0)).T)[0][:, :11]
    whole = LedoitWolf().fit(pool[:12]).covariance_
    np.testing.assert_allclose(basis.T @ inside @ basis, basis.T @ whole @ basis, atol=1e-10)


def test_it_is_as_sure_as_it_is_right():
    """SIMULATION with noise that looks like images: the truth lies at the distance of p normal numbers."""
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((600, 8)), rng.standard_normal((8, 40))
    noise = 0.4 * rng.standard_normal((600, 4)) @ rng.standard_normal((4, 8)) @ W + 2 * rng.standard_normal((600, 40))
    y = 3 + X @ W + noise
    encoder, pool = BayesianRidgeEncoder().fit(X[:400], y[:400]), X[:400]
    shared = context_noise(encoder, pool, y[:400])

    def distance(**options):
        found = feature_posterior(encoder, y[400:], pool, **options)
        return np.square(np.linalg.solve(found.factor, (X[400:] - found.mean).T)).sum(axis=0).mean() / 8

    assert distance(noise=shared) == pytest.approx(1, abs=0.3)
    assert distance(noise=shared, weigh=True) == pytest.approx(1, abs=0.3)
    assert distance() > 1.7


def test_voxels_that_tell_nothing_leave_the_prior_and_many_settle_it():
    encoder, y, X, pool, _ = made()
    nothing = feature_posterior(encoder, y, pool, noise_ratio=1e9)
    np.testing.assert_allclose(nothing.mean, np.tile(pool.mean(axis=0), (100, 1)), atol=1e-3)
    assert nothing.settled < 1e-3
    encoder, y, X, pool, _ = made(n_voxels=400, noise=0.05)
    much = feature_posterior(encoder, y, pool)
    assert much.settled > 0.97
    assert np.square(much.mean - X).mean() < 0.05 * X.var(axis=0).mean()
    few = feature_posterior(encoder, y, FeaturePrior.of(pool), voxels=np.arange(400) < 4)
    assert few.settled < much.settled


def test_nearest_is_that_of_draws_and_blocks_change_nothing(monkeypatch):
    encoder, y, X, pool, _ = made(noise=3)
    found = feature_posterior(encoder, y[:40], pool)
    near = found.nearest(X, n_draws=300)
    draws = np.random.default_rng(0).standard_normal((300, found.factor.shape[1])) @ found.factor.T
    for trial in (0, 31):
        x = found.mean[trial] + draws - pool.mean(axis=0)
        c = X - pool.mean(axis=0)
        cosines = (x / np.linalg.norm(x, axis=1)[:, None]) @ (c / np.linalg.norm(c, axis=1)[:, None]).T
        np.testing.assert_allclose(near.similarity[trial], cosines.mean(axis=0), atol=1e-9)
        np.testing.assert_allclose(near.low[trial], np.percentile(cosines, 2.5, axis=0), atol=1e-9)
        share = np.bincount(cosines.argmax(axis=1), minlength=100) / 300
        np.testing.assert_allclose(near.probability[trial], share, atol=0.01)
    np.testing.assert_allclose(near.probability.sum(axis=1), 1)
    monkeypatch.setattr(module, "batches", lambda n, _: [slice(k, min(k + 7, n)) for k in range(0, n, 7)])
    parts = found.nearest(X, n_draws=300)
    np.testing.assert_allclose(parts.similarity, near.similarity, atol=1e-12)
    np.testing.assert_array_equal(parts.probability, near.probability)


def test_words_are_found_from_an_origin_of_their_own():
    """SIMULATION: words lie far from images, and each is one image moved by the same gap."""
    encoder, y, X, pool, _ = made(n_voxels=200, noise=0.3)
    words = X[:30] + 50.0
    near = feature_posterior(encoder, y[:30], pool).nearest(words, origin=words.mean(axis=0))
    assert np.mean(near.best(1)[:, 0] == np.arange(30)) > 0.7
    assert near.probability[np.arange(30), np.arange(30)].mean() > 0.5
    astray = feature_posterior(encoder, y[:30], pool).nearest(words)
    assert np.mean(astray.best(1)[:, 0] == np.arange(30)) < 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool": np.zeros((2, 8))}, "at least three images"),
        ({"pool": np.ones((9, 8))}, "all have the same features"),
        ({"pool": np.random.default_rng(0).random((9, 7))}, "pool has 7 features"),
        ({"responses": np.zeros((3, 39))}, "responses has shape"),
        ({"noise_ratio": 0}, "noise_ratio must be above 0"),
        ({"noise_ratio": np.nan}, "noise_ratio must be above 0"),
    ],
)
def test_mistakes_are_named(changes, message):
    encoder, y, _, pool, _ = made()
    with pytest.raises(InputError, match=message):
        feature_posterior(**{"encoder": encoder, "responses": y, "pool": pool} | changes)


def test_mistakes_about_candidates_are_named():
    encoder, y, X, pool, _ = made()
    found = feature_posterior(encoder, y, pool)
    with pytest.raises(InputError, match="candidates has shape"):
        found.nearest(X[:, :7])
    with pytest.raises(InputError, match="points nowhere"):
        found.nearest(X[:1], origin=X[0])
    with pytest.raises(InputError, match="n_draws"):
        found.nearest(X, n_draws=0)
    with pytest.raises(InputError, match="origin has shape"):
        found.nearest(X, origin=[1.0])
