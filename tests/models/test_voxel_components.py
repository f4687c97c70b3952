import numpy as np

from braincorl.closed_forms.bases import Metric, context_basis
from braincorl.models.components import SIGNALS, components_operator


def person(rng, n=20, p=30, v=200):
    """SIMULATION: two shared directions under noise."""
    X = rng.standard_normal((n, p))
    X -= X.mean(axis=0)
    y = X @ rng.standard_normal((p, 2)) @ rng.standard_normal((2, v)) / np.sqrt(p) + 2 * rng.standard_normal((n, v))
    return X, (y - y.mean(axis=0)) / y.std(axis=0)


def test_every_component_is_ridge_averaged_by_its_evidence(rng):
    X, y = person(rng)
    basis = context_basis(X, Metric(None, 1.0, 1 / 30))
    z = basis.vectors.T @ y
    operator = components_operator([basis], z @ z.T / y.shape[1], len(X))
    u, s, vt = np.linalg.svd(y, full_matrices=False)
    K = X @ X.T / 30
    expected = np.zeros((30, y.shape[1]))
    for c in range(len(X) - 1):
        course = np.sqrt(len(X)) * u[:, c]
        logs, means = [], []
        for r in SIGNALS:
            covariance = r * K + (1 - r) * np.eye(len(X))
            # The constant is no part of the context: its eigenvalue, 1 - r, is taken out of the determinant.
            logs.append(
                -0.5 * (np.linalg.slogdet(covariance)[1] - np.log(1 - r) + course @ np.linalg.solve(covariance, course))
            )
            means.append(r * X.T @ np.linalg.solve(covariance, course) / 30)
        share = np.exp(logs - np.logaddexp.reduce(logs))
        expected += np.outer(share @ np.array(means), s[c] * vt[c] / np.sqrt(len(X)))
    np.testing.assert_allclose(operator @ z, expected, atol=1e-8)


def test_what_voxels_share_is_seen_through_their_noise(rng):
    X, y = person(rng)
    basis = context_basis(X, Metric(None, 1.0, 1 / 30))
    z = basis.vectors.T @ y
    operator = components_operator([basis], z @ z.T / y.shape[1], len(X))
    single = basis.to_weights @ ((0.3 / (0.3 * basis.values + 0.7))[:, None] * z)
    together = operator @ z
    # Two directions are shared: more of what the components write lies in two dimensions than of what ridge writes.
    energy = [np.linalg.svd(w, compute_uv=False) ** 2 for w in (together, single)]
    shared = [part[:2].sum() / part.sum() for part in energy]
    assert shared[0] > shared[1] + 0.2


def test_no_response_gives_no_weights():
    basis = context_basis(np.eye(5) - 0.2, Metric(None, 1.0, 1.0))
    assert not components_operator([basis], np.zeros((4, 4)), 5).any()
