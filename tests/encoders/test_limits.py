import numpy as np
import pytest
from people import make_person, make_pool

from braincorl import (
    BandedRidgeEncoder,
    BayesianRidgeEncoder,
    GroupPrior,
    GroupPriorEncoder,
    InContextEncoder,
    RidgeEncoder,
    load_encoder,
)
from braincorl.analysis.scaling import scaling_curve
from braincorl.encoders.limits import choices_at_limit, mean_limits, tell_limits

N, P, V = 60, 6, 40


def responses(rng, X, noise):
    """Responses of V voxels to X with so much noise, the last of them constant."""
    signal = X @ rng.standard_normal((P, V))
    y = signal / signal.std(axis=0) + noise * rng.standard_normal(signal.shape)
    y[:, -1] = 3.0
    return y


@pytest.fixture(scope="module")
def memory():
    pool, rng = make_pool(np.random.default_rng(1)), np.random.default_rng(2)
    return GroupPrior.fit([make_person(pool, rng).pair, make_person(pool, rng).pair])


def every_encoder(memory):
    return {
        "ridge": RidgeEncoder(),
        "bayesian ridge": BayesianRidgeEncoder(),
        "banded": BandedRidgeEncoder(spaces={"a": 2, "b": P - 2}),
        "in-context": InContextEncoder(),
        "with a memory": InContextEncoder(prior=memory),
        "group prior": GroupPriorEncoder(memory),
    }


KINDS = ["ridge", "bayesian ridge", "banded", "in-context", "with a memory", "group prior"]


@pytest.mark.parametrize("kind", KINDS)
def test_responses_of_fmri_need_no_word(memory, rng, kind):
    X = rng.standard_normal((N, P))
    assert tell_limits(choices_at_limit(every_encoder(memory)[kind].fit(X, responses(rng, X, noise=1.5)))) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_responses_without_noise_are_told(memory, rng, kind, tmp_path):
    X = rng.standard_normal((N, P))
    encoder = every_encoder(memory)[kind].fit(X, responses(rng, X, noise=0.02))
    told = tell_limits(choices_at_limit(encoder))
    assert told.startswith("100% of the voxels "), told  # of those that vary
    assert ("chose the smallest" in told) == (kind == "ridge")
    assert ("largest share of signal at hand (0.8)" in told) == (kind != "ridge")
    # What was chosen, and from what, is part of the file.
    encoder.save(tmp_path / "e.safetensors")
    assert tell_limits(choices_at_limit(load_encoder(tmp_path / "e.safetensors"))) == told


@pytest.mark.parametrize("kind", KINDS)
def test_noise_alone_is_told_where_it_is_most_voxels(memory, rng, kind):
    X = rng.standard_normal((N, P))
    encoder = every_encoder(memory)[kind].fit(X, responses(rng, rng.standard_normal((N, P)), noise=5.0))
    lowest = next(limit for limit in choices_at_limit(encoder) if limit.bound)
    assert lowest.worth_telling == (lowest.share >= 0.5)
    if kind == "ridge":
        assert lowest.share > 0.1


def test_shares_are_those_of_the_arrays(rng):
    X = rng.standard_normal((N, P))
    y = responses(rng, X, noise=1.0)
    y[:, :10] = responses(rng, X, noise=0.01)[:, :10]
    alphas = [1.0, 10.0, 1000.0]
    encoder = RidgeEncoder(alphas=alphas).fit(X, y)
    low, high = choices_at_limit(encoder)
    varying = np.ptp(y, axis=0) > 0
    assert low.share == np.mean(encoder.alpha_[varying] == 1.0)
    assert high.share == np.mean(encoder.alpha_[varying] == 1000.0)
    assert not high.bound  # a grid of one's own has no end by nature
    bayes = BayesianRidgeEncoder().fit(X, y)
    high, _ = choices_at_limit(bayes)
    assert high.share == np.mean(bayes.posterior_.probability[:, varying][16] > 0.5)


def test_one_value_is_no_choice(rng):
    X = rng.standard_normal((N, P))
    y = responses(rng, X, noise=0.01)
    for encoder in (RidgeEncoder(alphas=3.0), BayesianRidgeEncoder(signal_grid=[0.5])):
        assert choices_at_limit(encoder.fit(X, y)) == []
    assert [limit.share for limit in choices_at_limit(RidgeEncoder().fit(X, np.full((N, 2), 1.0)))] == [0, 0]


def test_a_file_of_an_earlier_version_is_read_without(rng, tmp_path):
    X = rng.standard_normal((N, P))
    encoder = RidgeEncoder().fit(X, responses(rng, X, noise=0.01))
    encoder.alpha_limits_ = None
    encoder.save(tmp_path / "e.safetensors")
    assert choices_at_limit(load_encoder(tmp_path / "e.safetensors")) == []


def test_curves_say_it_once_for_each_encoder(rng, caplog):
    X = rng.standard_normal((N, P))
    y = responses(rng, X, noise=0.02)
    makers = {"ridge": RidgeEncoder(), "bayes": BayesianRidgeEncoder()}
    scaling_curve(makers, X[:40], y[:40], [10, 30], 3, X_test=X[40:], y_test=y[40:])
    assert [record.args[:2] for record in caplog.records] == [("ridge", 30), ("bayes", 30)]


def test_means_over_fits(rng):
    X = rng.standard_normal((N, P))
    y = responses(rng, X, noise=0.3)
    fits = [choices_at_limit(RidgeEncoder().fit(X[n:], y[n:])) for n in (0, 30)]
    assert [limit.share for limit in mean_limits(fits)] == [
        np.mean([a.share, b.share]) for a, b in zip(*fits, strict=True)
    ]


def test_the_choice_among_shares_of_several_spaces_is_summed_over_how_the_spaces_divide_them(rng):
    X = rng.standard_normal((N, P))
    y = responses(rng, X, noise=1.0)
    y[:, :10] = responses(rng, X, noise=0.01)[:, :10]
    encoder = BandedRidgeEncoder(spaces={"a": 2, "b": P - 2}).fit(X, y)
    high, low = choices_at_limit(encoder)
    posterior = encoder.posterior_
    largest = np.argmax(posterior.signal_grid)
    expected = [sum(part[largest, v] for part in posterior.probability) > 0.5 for v in range(V - 1)]
    assert high.share == np.mean(expected)
    assert 0.2 < high.share < 0.9
    assert low.bound
