"""What all encoders share: a fit is whole or not there, and no numbers whose squares a type cannot hold."""

import tracemalloc

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder
from braincorl.closed_forms.evidence import pool_scale
from braincorl.encoders.published import feature_length
from braincorl.errors import InputError, OutOfMemoryError


def person(n=14, p=6, n_voxels=9, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X @ rng.standard_normal((p, n_voxels)) + rng.standard_normal((n, n_voxels))


@pytest.fixture(scope="module")
def prior():
    return GroupPrior.fit([person(60, seed=1), person(50, seed=2)])


@pytest.fixture(params=["ridge", "bayesian-ridge", "in-context", "in-context with a prior", "group-prior"])
def encoder(request, prior):
    return {
        "ridge": RidgeEncoder,
        "bayesian-ridge": BayesianRidgeEncoder,
        "in-context": lambda: InContextEncoder(device="cpu"),
        "in-context with a prior": lambda: InContextEncoder(prior=prior, device="cpu"),
        "group-prior": lambda: GroupPriorEncoder(prior),
    }[request.param]()


def stop(error):
    def progress(_done, _total):
        raise error

    return progress


def fitted(encoder):
    return {name: value for name, value in vars(encoder).items() if name.endswith("_")}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutOfMemoryError("full"), RuntimeError("broken")])
@pytest.mark.parametrize("with_prior", [False, True])
def test_a_refit_that_fails_halfway_leaves_an_unfitted_encoder(prior, error, with_prior):
    encoder = InContextEncoder(prior=prior if with_prior else None, device="cpu").fit(*person())
    options = encoder.get_params()
    with pytest.raises(type(error)):
        encoder.fit(*person(20, seed=5), progress=stop(error))
    assert encoder.get_params() == options
    with pytest.raises(NotFittedError):
        encoder.predict(person()[0])
    X, y = person(20, seed=5)
    np.testing.assert_array_equal(encoder.fit(X, y).coef_, type(encoder)(**options).fit(X, y).coef_)


@pytest.mark.parametrize(
    "bad",
    [
        lambda X, y: (X[:-1], y),
        lambda X, y: (X[:, :4], np.full_like(y, np.nan)),
        lambda X, y: (X * np.nan, y),
    ],
)
def test_refused_input_leaves_an_unfitted_encoder(encoder, bad):
    X, y = person()
    encoder.fit(X, y[:, 0])
    with pytest.raises(InputError):
        encoder.fit(*bad(*person(20, seed=5)))
    with pytest.raises(NotFittedError):
        encoder.predict(X)


def test_a_refit_leaves_nothing_of_the_fit_before(prior):
    encoder = InContextEncoder(prior=prior, device="cpu").fit(*person())
    encoder.set_params(prior=None).fit(*person())
    assert set(fitted(encoder)) == set(fitted(InContextEncoder(device="cpu").fit(*person())))


@pytest.mark.parametrize(("dtype", "small", "large"), [(np.float32, -49, 37), (np.float64, -497, 460)])
def test_the_largest_and_smallest_units_change_nothing(encoder, dtype, small, large):
    """Powers of two just inside the limits, whose products are exact."""
    X, y = (array.astype(dtype) for array in person())
    own_space = not isinstance(encoder, RidgeEncoder | BayesianRidgeEncoder) and encoder.prior is not None
    expected = encoder.fit(X, y).predict(X)
    weights, noise = encoder.coef_.astype(np.float64), encoder.noise_variance_.astype(np.float64)
    for x_power, y_power in [(0, small), (0, large), (small, 0), (large, 0), (small, large), (large, small)]:
        x_unit, y_unit = dtype(2.0**x_power), dtype(2.0**y_power)
        if own_space and x_power != 0:
            continue  # the prior has an opinion on units of features
        encoder.fit(x_unit * X, y_unit * y)
        close = {"rtol": 1e-3, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-7, "atol": 1e-9}
        np.testing.assert_allclose(encoder.predict(x_unit * X) / y_unit, expected, **close)
        np.testing.assert_allclose(encoder.coef_.astype(np.float64) * x_unit / y_unit, weights, **close)
        np.testing.assert_allclose(encoder.noise_variance_ / y_unit / y_unit, noise, **close)


@pytest.mark.parametrize(
    ("dtype", "x_unit", "y_unit", "message"),
    [
        (np.float32, 1, 1e20, "y contains .*e\\+20, but numbers above 1e\\+12 in float32 .* overflow: divide"),
        (np.float32, 1, 1e-20, "y contains nothing above .*e-20 in 9 of its 9 columns, .* vanish: multiply"),
        (np.float32, 1e20, 1, "X contains .*e\\+20, but numbers above 1e\\+12 in float32"),
        (np.float32, 1e-20, 1, "X contains nothing above .*e-20, but numbers below 1e-15 in float32"),
        (np.float64, 1, 1e200, "y contains .*e\\+200, but numbers above 1e\\+140 in float64"),
        (np.float64, 1, 1e-200, "y contains nothing above .*e-200"),
        (np.float64, 1e200, 1, "X contains .*e\\+200"),
        (np.float64, 1e-200, 1, "X contains nothing above .*e-200"),
    ],
)
def test_numbers_whose_squares_a_type_cannot_hold_are_refused(encoder, dtype, x_unit, y_unit, message):
    X, y = (array.astype(dtype) for array in person())
    with pytest.raises(InputError, match=message):
        encoder.fit(X * dtype(x_unit), y * dtype(y_unit))
    if x_unit > 1:
        encoder.fit(X, y)
        with pytest.raises(InputError, match=message):
            encoder.predict(X * dtype(x_unit))


def test_a_pool_and_one_voxel_of_impossible_size_are_refused():
    X, y = person()
    for unit, message in ((1e200, "X_pool contains .*overflow"), (1e-200, "X_pool contains nothing .*vanish")):
        with pytest.raises(InputError, match=message):
            BayesianRidgeEncoder().fit(X, y, X_pool=X * unit)
    y[:, 3] *= 1e-200
    with pytest.raises(InputError, match=r"y contains nothing above .* in 1 of its 9 columns"):
        RidgeEncoder().fit(X, y)
    y[:, 3] = 0
    assert not RidgeEncoder().fit(X, y).coef_[3].any()


def test_a_large_pool_is_gone_through_in_blocks():
    """Beside the pool itself no more than a few batches; the scale is that of all of it."""
    pool = np.random.default_rng(0).standard_normal((60_000, 128), dtype=np.float32)
    tracemalloc.start()
    scale, length = pool_scale(pool), feature_length(pool[:1], pool)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 64 * 2**20
    assert scale == pytest.approx(1 / pool.var(axis=0, ddof=1, dtype=np.float64).sum(), rel=1e-12)
    assert length == pytest.approx(np.sqrt((pool.astype(np.float64) ** 2).sum(axis=1).mean()), rel=1e-12)
