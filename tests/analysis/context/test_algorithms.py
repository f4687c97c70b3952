import numpy as np
import pytest
from sklearn.linear_model import Ridge

from braincorl.analysis.context.algorithms import difference, gradient_descent, nearest, newton, posterior_mean
from braincorl.errors import InputError


@pytest.fixture
def data(rng):
    X = rng.standard_normal((20, 5)) + 2.0
    return X, X @ rng.standard_normal((5, 3)) + rng.standard_normal((20, 3)) + 4.0


def least_squares(X, y):
    return np.linalg.lstsq(X - X.mean(axis=0), y - y.mean(axis=0), rcond=None)[0]


def test_both_iterations_end_at_least_squares(data):
    exact = least_squares(*data)
    np.testing.assert_allclose(gradient_descent(*data, [3000])[3000], exact, atol=1e-6)
    np.testing.assert_allclose(newton(*data, [20])[20], exact, atol=1e-6)


def test_with_fewer_images_than_features_both_end_at_the_smallest_interpolant(rng):
    X, y = rng.standard_normal((5, 9)), rng.standard_normal((5, 2))
    exact = np.linalg.pinv(X - X.mean(axis=0)) @ (y - y.mean(axis=0))
    np.testing.assert_allclose(gradient_descent(X, y, [5000])[5000], exact, atol=1e-6)
    np.testing.assert_allclose(newton(X, y, [15])[15], exact, atol=1e-4)


def test_steps_written_out(data):
    X, y = (values - values.mean(axis=0) for values in data)
    rate = 1 / np.linalg.eigvalsh(X.T @ X)[-1]
    one = rate * X.T @ y
    found = gradient_descent(*data, [0, 1, 2])
    assert (found[0] == 0).all()
    np.testing.assert_allclose(found[1], one)
    np.testing.assert_allclose(found[2], one + rate * X.T @ (y - X @ one))
    K = X @ X.T
    start = K * rate**2
    schulz = newton(*data, [0, 1])
    np.testing.assert_allclose(schulz[0], X.T @ start @ y)
    np.testing.assert_allclose(schulz[1], X.T @ (2 * start - start @ K @ start) @ y)


def test_the_posterior_mean_is_ridge(data):
    np.testing.assert_allclose(posterior_mean(*data, 2.5), Ridge(alpha=2.5).fit(*data).coef_.T, rtol=1e-8)


def test_the_nearest_candidate(data, rng):
    predicted = rng.standard_normal((30, 4))
    candidates = {k: predicted + k * rng.standard_normal((30, 4)) for k in (0.5, 0.1, 2.0)}
    best, how = nearest(predicted, candidates)
    assert best == 0.1
    assert how == difference(predicted, candidates[0.1])
    assert 0.005 < how < 0.02
    assert difference(predicted, predicted) == 0
    assert difference(predicted, candidates[2.0]) == difference(candidates[2.0], predicted)
    unrelated = difference(rng.standard_normal((5000, 4)), rng.standard_normal((5000, 4)))
    assert unrelated == pytest.approx(2.0, abs=0.1)
    assert np.isnan(difference(np.ones((3, 2)), np.ones((3, 2))))


def test_what_cannot_be_is_refused(data):
    with pytest.raises(InputError, match="expected numbers of 0 or more"):
        newton(*data, [-1])
    with pytest.raises(InputError, match="expected numbers of 0 or more"):
        gradient_descent(*data, [])
    with pytest.raises(InputError, match="above 0"):
        posterior_mean(*data, 0.0)
    with pytest.raises(InputError, match="candidates is empty"):
        nearest(data[1], {})
