import weakref

import numpy as np
import pytest
from people import make_person, make_pool

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder
from braincorl.fits.earlier.one_by_one import OneByOne, each
from braincorl.metrics import explained_variance
from braincorl.priors import gathering
from braincorl.priors.gathering import _fraction


@pytest.fixture
def pool(rng):
    return make_pool(rng)


@pytest.fixture
def people(pool, rng):
    return [make_person(pool, rng, n_images=40, n_voxels=120) for _ in range(5)]


@pytest.fixture
def encoders(people):
    return [BayesianRidgeEncoder().fit(*person.pair) for person in people]


def same(one, other):
    arrays = [prior.to_arrays()[0] for prior in (one, other)]
    return all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])


class Encoder:
    """What a memory reads of an encoder, as an object of its own."""

    def __init__(self, fitted):
        self.coef_, self.posterior_ = fitted.coef_, fitted.posterior_
        self.image_digests_ = fitted.image_digests_


def test_one_person_at_a_time_is_enough(encoders, people, monkeypatch):
    alive, most = weakref.WeakSet(), []

    def read(number):
        encoder = Encoder(encoders[number])
        alive.add(encoder)
        most.append(len(alive))
        return encoder

    lazy = OneByOne(5, read)
    rois = [person.rois for person in people]
    together = GroupPrior.fit(encoders, rois, max_items=60)
    monkeypatch.setenv("BRAINCORL_MEMORY", "100 kB")  # no room to keep everybody's voxels in between
    apart = GroupPrior.fit(each(lazy, lambda encoder: encoder), each(rois, lambda labels: labels), max_items=60)
    assert same(together, apart)
    assert len(most) == 3 * 5
    assert max(most) <= 2  # a person, and the next while it is read


def test_a_sequence_makes_members_when_they_are_asked_for_and_keeps_the_last():
    made = []
    squares = OneByOne(4, lambda number: made.append(number) or number**2)
    assert (squares[2], squares[2], squares[-1], made) == (4, 4, 9, [2, 3])
    assert list(squares[1:3]) == [1, 4]
    assert list(squares) == [0, 1, 4, 9]
    with pytest.raises(IndexError):
        squares[4]


@pytest.mark.parametrize("with_places", [False, True])
def test_a_sample_is_compared_and_everybody_counts(with_places, people, encoders, pool, rng, monkeypatch):
    rois = [person.rois for person in people]
    places = [rng.standard_normal((120, 3)) for _ in people] if with_places else None
    exact = GroupPrior.fit(encoders, rois, places, max_items=60)
    monkeypatch.setattr(gathering, "MOST_COMPARED", 200)
    sampled = GroupPrior.fit(encoders, rois, places, max_items=60)
    assert not same(exact, sampled)
    assert sampled.mass.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(sampled.moment, exact.moment)  # of all voxels, whoever is compared
    for region in (-1, 0, 1):  # no voxel leaves its region
        assert sampled.mass[sampled.region == region].sum() == pytest.approx(exact.mass[exact.region == region].sum())
    new = make_person(pool, np.random.default_rng(5))
    evs = []
    for prior in (exact, sampled):
        encoder = GroupPriorEncoder(prior).fit(new.X[:8], new.y[:8])
        evs.append(explained_variance(pool @ new.weights.T, encoder.predict(pool)).mean())
    assert evs[1] == pytest.approx(evs[0], abs=0.02)


def test_a_region_that_the_sample_misses_is_remembered(encoders, people, monkeypatch):
    rois = [np.full(120, "a", dtype="<U4") for _ in people]
    rois[3][7] = "tiny"
    monkeypatch.setattr(gathering, "MOST_COMPARED", 60)
    prior = GroupPrior.fit(encoders, rois, max_items=20)
    assert np.isin([0, 1], prior.region).all()
    assert prior.regions == ("a", "tiny")


def test_who_is_compared_depends_on_what_voxels_are_and_is_as_good_as_random(rng):
    rows = rng.standard_normal((4000, 5)).astype(np.float32)
    fraction, order = _fraction(rows), rng.permutation(4000)
    np.testing.assert_array_equal(_fraction(rows[order]), fraction[order])
    # Kolmogorov-Smirnov: the distance from uniform is below 1.63 / sqrt(n) in 99 of 100.
    assert np.abs(np.sort(fraction) - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / np.sqrt(4000)
    assert abs(np.corrcoef(fraction, rows[:, 0])[0, 1]) < 0.06
