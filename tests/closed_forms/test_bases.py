import numpy as np
import pytest

from braincorl.closed_forms.bases import Metric, context_basis


def metrics(p, rng):
    root = rng.standard_normal((p, p))
    return [Metric(None, 1.0, 0.3), Metric(root @ root.T / p, 0.4, 0.3), Metric(root @ root.T / p, 1.0, 0.3)]


@pytest.mark.parametrize(("n", "p"), [(9, 30), (30, 9), (12, 12), (2, 5), (5, 1)])
def test_ridge_in_the_basis_is_generalised_ridge(n, p, rng):
    """w = S XᵀU (r / (r λ + 1 - r)) Uᵀy is the posterior mean under w ~ N(0, r S), noise 1 - r."""
    X = rng.standard_normal((n, p))
    X -= X.mean(axis=0)
    y = rng.standard_normal((n, 4))
    y -= y.mean(axis=0)
    r = 0.3
    for metric in metrics(p, rng):
        basis = context_basis(X, metric)
        S = metric @ np.eye(p)
        expected = r * S @ X.T @ np.linalg.solve(r * X @ S @ X.T + (1 - r) * np.eye(n), y)
        found = basis.to_weights @ ((r / (r * basis.values + 1 - r))[:, None] * (basis.vectors.T @ y))
        np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize(("n", "p"), [(9, 30), (30, 9)])
def test_vectors_are_orthonormal_and_rows_are_projections(n, p, rng):
    X = rng.standard_normal((n, p))
    X -= X.mean(axis=0)
    basis = context_basis(X, metrics(p, rng)[1])
    np.testing.assert_allclose(basis.vectors.T @ basis.vectors, np.eye(len(basis.values)), atol=1e-10)
    np.testing.assert_allclose(basis.vectors.sum(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(basis.rows, basis.vectors.T @ X, atol=1e-12)
    assert (np.diff(basis.values) <= 0).all()


def test_features_that_repeat_leave_no_direction_of_rounding(rng):
    X = np.repeat(rng.standard_normal((4, 3)), 5, axis=0) @ rng.standard_normal((3, 50))
    assert len(context_basis(X - X.mean(axis=0), Metric(None, 1.0, 1.0)).values) == 3


def test_no_image_and_one_have_no_directions():
    for n in (0, 1):
        basis = context_basis(np.zeros((n, 5)), Metric(None, 1.0, 1.0))
        assert basis.values.size == 0
        assert basis.to_weights.shape == (5, 0)
