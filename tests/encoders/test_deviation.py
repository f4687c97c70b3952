"""The predictive deviation of every encoder that has one is right, or NaN where nothing is known; never 0."""

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
)

N = 48


@pytest.fixture(scope="module")
def people():
    pool, rng = make_pool(np.random.default_rng(1)), np.random.default_rng(2)
    people = [make_person(pool, rng) for _ in range(3)]
    return GroupPrior.fit([person.pair for person in people[:2]]), people[2].X, people[2].y[:, :20]


KINDS = {
    "bayesian ridge": lambda memory: BayesianRidgeEncoder(),
    "banded": lambda memory: BandedRidgeEncoder(spaces={"a": 2, "b": 4}),
    "in-context": lambda memory: InContextEncoder(),
    "with a memory": lambda memory: InContextEncoder(prior=memory),
    "group prior": lambda memory: GroupPriorEncoder(memory),
}


def scaled(y, mean, sd, dtype):
    return ((y - y.mean(axis=0)) / y.std(axis=0) * sd + mean).astype(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mean", "sd", "dtype"),
    [
        (0, 1, "f8"),
        (1e6, 5, "f4"),
        (-1e6, 5, "f4"),
        (1e9, 5, "f8"),
        (1e-3, 1e-8, "f4"),
        (1e4, 0.05, "f4"),
        (3e-6, 1e-9, "f8"),
    ],
)
def test_a_baseline_changes_no_deviation(people, kind, mean, sd, dtype):
    memory, X, y = people
    plain = KINDS[kind](memory).fit(X[:N], scaled(y, 0, 1, "f8")[:N]).predict(X[N:], return_std=True)[1]
    std = KINDS[kind](memory).fit(X[:N], scaled(y, mean, sd, dtype)[:N]).predict(X[N:], return_std=True)[1]
    # Half a step of the type is noise that the responses do have.
    np.testing.assert_allclose(std / sd, plain, rtol=2e-3 + np.finfo(dtype).eps * abs(mean) / sd)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3.0])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_voxels_constant_in_the_context_have_none(people, kind, value, dtype):
    memory, X, y = people
    spoilt = y.astype(dtype)
    spoilt[:N, 4] = value
    encoder = KINDS[kind](memory).fit(X[:N], spoilt[:N])
    predicted, std = encoder.predict(X[N:], return_std=True)
    assert np.isnan(std[:, 4]).all()
    assert np.flatnonzero(np.isnan(encoder.noise_variance_)).tolist() == [4]
    assert (np.delete(std, 4, axis=1) > 0).all()
    np.testing.assert_allclose(predicted[:, 4], value, rtol=1e-6)


def test_the_noise_of_constant_voxels_is_unknown_in_files_too(people, tmp_path):
    _, X, y = people
    encoder = RidgeEncoder().fit(X[:N], np.where(np.arange(20) == 4, 2.5, y[:N]))
    assert np.flatnonzero(np.isnan(encoder.noise_variance_)).tolist() == [4]
    encoder.noise_variance_ = np.nan_to_num(encoder.noise_variance_)  # as earlier versions wrote it
    encoder.save(tmp_path / "e.safetensors")
    assert np.isnan(RidgeEncoder.load(tmp_path / "e.safetensors").noise_variance_[4])


@pytest.mark.parametrize("kind", KINDS)
def test_deviations_finer_than_the_type_are_right_or_nan(people, kind):
    memory, X, y = people
    responses = scaled(y, 1e6, 0.02, "f4")  # float32 has steps of 0.06 there
    std = KINDS[kind](memory).fit(X[:N], responses[:N]).predict(X[N:], return_std=True)[1]
    found = responses[:N].astype("f8").std(axis=0)
    assert not (std == 0).any()
    ratio = std / np.where(found > 0, found, np.nan)
    assert ((ratio > 0.4) & (ratio < 1.5) | np.isnan(std)).all()
