import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf_shrinkage

from braincorl import BayesianRidgeEncoder, RidgeEncoder
from braincorl.analysis import context_noise, identify, repeat_noise
from braincorl.errors import InputError
from braincorl.questions import identification
from braincorl.questions.identification import candidate_numbers, predictive_spread, top_accuracy
from braincorl.questions.noise import NoiseModel


def made(n_voxels=40, n=30, n_new=25, noise=0.8, shared=0.0, seed=0):
    """An encoder fitted on some images and responses to others: SIMULATION."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n + n_new, 8))
    common = rng.standard_normal((n + n_new, 1))
    own = rng.standard_normal((n + n_new, n_voxels))
    y = 3 + X @ rng.standard_normal((8, n_voxels)) / 3 + noise * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
    return BayesianRidgeEncoder().fit(X[:n], y[:n]), X[n:], y[n:], X[:n], y[:n]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("spread", ["candidate", "mean"])
def test_likelihoods_are_those_of_the_dense_gaussian(shared, spread):
    encoder, candidates, y, X, trained = made(noise=0.3)
    noise = context_noise(encoder, X, trained)
    ranking = "shared" if shared else "independent"
    found = identify(encoder, y, candidates, noise=noise, ranking=ranking, spread=spread)
    own = encoder.predict(candidates, return_std=True)[1]
    std = own if spread == "candidate" else np.tile(predictive_spread(encoder, candidates), (len(candidates), 1))
    R = noise.shrinkage * np.eye(40) + noise.factors @ noise.factors.T if shared else np.eye(40)
    for trial in (0, 7):
        dense = [
            multivariate_normal.logpdf(y[trial], mean, np.diag(deviation) @ R @ np.diag(deviation))
            for mean, deviation in zip(encoder.predict(candidates), std, strict=True)
        ]
        np.testing.assert_allclose(np.diff(found.log_likelihood[trial]), np.diff(dense), rtol=1e-6, atol=1e-8)


def test_noisier_responses_are_less_sure_by_their_noise():
    """A response with four times the noise: the rest of the predictive variance stays."""
    encoder, candidates, y, *_ = made()
    std = encoder.predict(candidates, return_std=True)[1]
    more = np.sqrt(std**2 + 3 * encoder.noise_variance_)
    found = identify(encoder, y, candidates, noise_ratio=4, spread="candidate")
    expected = multivariate_normal.logpdf(y[0], encoder.predict(candidates)[2], np.diag(more[2] ** 2))
    first = multivariate_normal.logpdf(y[0], encoder.predict(candidates)[0], np.diag(more[0] ** 2))
    assert found.log_likelihood[0, 2] - found.log_likelihood[0, 0] == pytest.approx(expected - first, rel=1e-6)
    assert found.probability.max(axis=1).mean() < identify(encoder, y, candidates).probability.max(axis=1).mean()
    with pytest.raises(InputError, match="noise_ratio must be above 0"):
        identify(encoder, y, candidates, noise_ratio=-1)


def test_shrinkage_is_that_of_ledoit_and_wolf(rng):
    e = rng.standard_normal((20, 50)) + rng.standard_normal((20, 1))
    standard = e / np.sqrt(np.mean(e**2, axis=0))
    model = NoiseModel.of(e)
    assert model.shrinkage == pytest.approx(ledoit_wolf_shrinkage(standard, assume_centered=True))
    R = model.shrinkage * np.eye(50) + model.factors @ model.factors.T
    np.testing.assert_allclose(np.diag(R), 1)
    white = model.whiten(np.eye(50))
    np.testing.assert_allclose(white @ R @ white, np.eye(50), atol=1e-9)


@pytest.mark.parametrize("ranking", ["independent", "shared", "correlation"])
def test_some_candidates_at_a_time_are_all_at_once(ranking, monkeypatch):
    encoder, candidates, y, X, trained = made()
    noise = context_noise(encoder, X, trained)
    whole = identify(encoder, y, candidates, noise=noise, ranking=ranking)
    monkeypatch.setattr(identification, "batches", lambda n, _: [slice(k, k + 7) for k in range(0, n, 7)])
    parts = identify(encoder, y, candidates, noise=noise, ranking=ranking)
    np.testing.assert_allclose(parts.log_likelihood, whole.log_likelihood, rtol=1e-9, atol=1e-9)
    assert parts.temperature == pytest.approx(whole.temperature)


def test_seen_images_are_found_and_order_does_not_matter():
    encoder, candidates, y, *_ = made(noise=0.3)
    found = identify(encoder, y, candidates)
    assert np.mean(found.ranks == 1) > 0.9
    order = np.random.default_rng(1).permutation(25)
    turned = identify(encoder, y, candidates[order], truth=np.argsort(order))
    np.testing.assert_array_equal(turned.ranks, found.ranks)
    np.testing.assert_allclose(found.probability.sum(axis=1), 1)
    np.testing.assert_array_equal(found.best(1)[:, 0], found.log_likelihood.argmax(axis=1))


def test_ranks_count_what_is_better_and_half_of_what_is_equal():
    encoder, candidates, y, *_ = made()
    twice = np.r_[candidates, candidates]
    once, doubled = identify(encoder, y, candidates).ranks, identify(encoder, y, twice).ranks
    np.testing.assert_array_equal(doubled, 2 * once)
    nothing = RidgeEncoder().fit(candidates, np.ones((25, 40)))
    nothing.noise_variance_ = np.ones(40)
    ranks = identify(nothing, y, candidates).ranks
    assert (ranks == 13).all()
    assert (identify(encoder, y, candidates, truth=np.full(25, -1)).ranks == 0).all()


def test_accuracy_against_the_number_of_candidates_is_that_of_drawing_them(rng):
    for rank, n_all, size, top in ((3, 40, 10, 1), (9, 40, 20, 5), (1, 40, 40, 1)):
        others = np.arange(2, n_all + 1)
        hits = [
            (np.sort(rng.permutation(np.where(others <= rank, others - 1, others))[: size - 1]) < rank).sum() < top
            for _ in range(4000)
        ]
        assert top_accuracy(np.array([rank]), n_all, size, top)[0] == pytest.approx(np.mean(hits), abs=0.03)
    assert candidate_numbers(60) == [2, 5, 10, 20, 50, 60]


def test_the_table_has_chance_levels_and_intervals():
    encoder, candidates, y, *_ = made(n_new=60)
    table = identify(encoder, y, candidates).table()
    assert table["n_candidates"].tolist() == [2, 5, 10, 20, 50, 60]
    assert ((table["top1_low"] <= table["top1"]) & (table["top1"] <= table["top1_high"])).all()
    assert (table["top1"].diff()[1:] < 0).all()
    np.testing.assert_allclose(table["top1_chance"], 1 / table["n_candidates"])
    blind = identify(encoder, np.random.default_rng(0).permutation(y), candidates).table().iloc[-1]
    assert blind["top1"] < 0.1
    assert blind["median_rank_low"] < blind["median_rank_chance"] < blind["median_rank_high"]
    grouped = identify(encoder, y, candidates).table(groups=np.arange(60) // 20).iloc[-1]
    assert grouped["top1"] == pytest.approx(table["top1"].iloc[-1])


def test_shared_noise_is_a_few_witnesses_and_weighing_it_helps():
    """SIMULATION: noise that all voxels share."""
    encoder, candidates, y, X, trained = made(200, 100, 100, noise=2.5, shared=0.8, seed=2)
    noise = context_noise(encoder, X, trained)
    plain, tempered = identify(encoder, y, candidates), identify(encoder, y, candidates, noise=noise)
    np.testing.assert_array_equal(plain.ranks, tempered.ranks)
    assert tempered.temperature < 0.8
    n = np.arange(100)
    assert np.log(tempered.probability[n, n]).mean() > np.log(plain.probability[n, n]).mean()
    weighed = identify(encoder, y, candidates, noise=noise, ranking="shared")
    assert np.mean(weighed.ranks == 1) > np.mean(plain.ranks == 1)


def test_repeats_tell_the_noise_without_the_signal():
    """SIMULATION: noise of one component, and a large signal of another."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(300), 2)
    y = 5 * rng.standard_normal((300, 30))[images] + rng.standard_normal((600, 1)) + rng.standard_normal((600, 30))
    noise = repeat_noise(y, images)
    R = noise.shrinkage * np.eye(30) + noise.factors @ noise.factors.T
    assert R[np.triu_indices(30, 1)].mean() == pytest.approx(0.5, abs=0.05)
    assert "600 trials of repeated images" in noise.source


def test_voxels_are_chosen_and_constant_ones_ignored():
    encoder, candidates, y, X, trained = made()
    noise = context_noise(encoder, X, trained)
    some = np.arange(40) % 2 == 0
    part = identify(encoder, y, candidates, voxels=some, noise=noise, ranking="shared")
    alone = BayesianRidgeEncoder().fit(X, trained[:, some])
    mine = identify(alone, y[:, some], candidates, noise=noise.select(some), ranking="shared")
    np.testing.assert_allclose(part.log_likelihood, mine.log_likelihood, rtol=1e-6)
    trained = trained.copy()
    trained[:, 3] = 2.0
    flat = identify(BayesianRidgeEncoder().fit(X, trained), y, candidates)
    without = identify(encoder, y, candidates, voxels=np.arange(40) != 3)
    np.testing.assert_allclose(flat.log_likelihood, without.log_likelihood, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"responses": np.zeros((3, 39))}, "responses has shape"),
        ({"candidates": np.zeros((3, 9))}, "candidates has shape"),
        ({"truth": [1, 2]}, "truth must be"),
        ({"ranking": "magic"}, "ranking must be"),
        ({"spread": "magic"}, "spread must be"),
        ({"ranking": "shared"}, "needs noise"),
        ({"voxels": np.zeros(40, dtype=bool)}, "voxels chooses none"),
        ({"noise": NoiseModel.independent(7)}, "noise is of 7 voxels"),
        ({"candidates": np.zeros((3, 8))}, "cannot have shown"),
    ],
)
def test_mistakes_are_named(changes, message):
    encoder, candidates, y, *_ = made()
    with pytest.raises(InputError, match=message):
        identify(**{"encoder": encoder, "responses": y, "candidates": candidates} | changes)
