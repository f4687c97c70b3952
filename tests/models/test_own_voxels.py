from dataclasses import replace

import numpy as np
import pytest

from braincorl import InContextEncoder
from braincorl.closed_forms.bases import Metric, context_basis
from braincorl.encoders.by_attention import fit_by_attention
from braincorl.metrics import explained_variance
from braincorl.models.attention import LAYERS, AttentionConfig
from braincorl.models.own_voxels import SIGNALS, components_operator, principal_patterns

CONFIG = AttentionConfig()


def person(rng, n=20, p=30, v=200):
    """SIMULATION: two shared directions under noise."""
    X = rng.standard_normal((n, p))
    X -= X.mean(axis=0)
    y = X @ rng.standard_normal((p, 2)) @ rng.standard_normal((2, v)) / np.sqrt(p) + 2 * rng.standard_normal((n, v))
    return X, (y - y.mean(axis=0)) / y.std(axis=0)


@pytest.mark.parametrize(("n", "p"), [(20, 30), (40, 12)])
def test_every_component_is_ridge_averaged_by_its_evidence(rng, n, p):
    X, y = person(rng, n, p)
    X = X / np.sqrt(p)
    left = np.linalg.svd(X, full_matrices=False)[0][:, : min(n - 1, p)]  # what the features span
    u, s, vt = np.linalg.svd(left.T @ y, full_matrices=False)
    outside = n - 1 - left.shape[1]
    # As much noise in a direction that the features span as in one that they do not.
    noise = ((y - left @ left.T @ y) ** 2).sum() / outside if outside else 0.0
    expected = np.zeros((p, y.shape[1]))
    for c in range(len(s)):
        course = y @ vt[c]
        course *= np.sqrt(n) / np.linalg.norm(course)
        logs, means = [], []
        for r in SIGNALS:
            covariance = r * X @ X.T + (1 - r) * np.eye(n)
            # The constant is no part of the context: its eigenvalue, 1 - r, is taken out of the determinant.
            fit = np.linalg.slogdet(covariance)[1] - np.log(1 - r) + course @ np.linalg.solve(covariance, course)
            logs.append(-0.5 * CONFIG.temperature * fit)
            means.append(r * X.T @ np.linalg.solve(covariance, left @ u[:, c]))
        share = np.exp(logs - np.logaddexp.reduce(logs))
        expected += np.outer(share @ np.array(means), s[c] * max(1 - noise / s[c] ** 2, 0) * vt[c])
    fit = fit_by_attention(replace(CONFIG, layers=("components",)), X, y, 1.0, robust=False)
    np.testing.assert_allclose(fit.coef.T, expected, atol=1e-7)


def test_what_voxels_share_is_seen_through_their_noise(rng):
    X, y = person(rng)
    basis = context_basis(X, Metric(None, 1.0, 1 / 30))
    z = basis.vectors.T @ y
    operator = components_operator(basis, principal_patterns(z @ z.T), len(X), 0.5)
    single = basis.to_weights @ ((0.3 / (0.3 * basis.values + 0.7))[:, None] * z)
    together = operator @ z
    # Two directions are shared: more of what the components write lies in two dimensions than of what ridge writes.
    energy = [np.linalg.svd(w, compute_uv=False) ** 2 for w in (together, single)]
    shared = [part[:2].sum() / part.sum() for part in energy]
    assert shared[0] > shared[1] + 0.15


@pytest.mark.parametrize(("n", "p"), [(60, 30), (150, 30), (300, 10)])
def test_more_images_than_features_tell_what_voxels_do_not_share(rng, n, p):
    """Components that are noise are left out: better than each voxel alone, and nothing where there is nothing."""
    X, y = person(rng, n=n + 400, p=p)
    X_new, truth = X[n:], y[n:]
    config = replace(CONFIG, layers=("components",))
    scores = [
        explained_variance(truth, X_new @ fit.coef.T + fit.intercept).mean()
        for fit in (
            fit_by_attention(each, X[:n], y[:n], 1 / p) for each in (config, replace(CONFIG, layers=("alone",)))
        )
    ]
    assert scores[0] > scores[1] + 0.005
    noise = rng.standard_normal((n, 4000))
    shared, alone = (
        fit_by_attention(c, X[:n], noise, 1 / p).coef for c in (config, replace(CONFIG, layers=("alone",)))
    )
    assert (shared**2).sum() < 0.6 * (alone**2).sum()


def test_no_response_gives_no_weights():
    basis = context_basis(np.eye(5) - 0.2, Metric(None, 1.0, 1.0))
    assert not components_operator(basis, principal_patterns(np.zeros((4, 4))), 5, 0.5).any()


def by_layers(X, y, *layers):
    return fit_by_attention(replace(CONFIG, layers=layers), X, y, 1 / X.shape[1], robust=False).coef


def ridge_by_evidence(K, centred, y, metric_to_weights):
    """Weights by ridge under the kernel K, averaged over r by the evidence, tempered: dense, no eigenbasis."""
    n = len(y)
    logs, means = [], []
    for r in CONFIG.signals:
        covariance = r * K + (1 - r) * np.eye(n)
        solved = np.linalg.solve(covariance, y)
        log = np.linalg.slogdet(covariance)[1] - np.log(1 - r) + (y * solved).sum(axis=0)
        logs.append(-0.5 * CONFIG.temperature * log)
        means.append(r * metric_to_weights @ solved)
    share = np.exp(np.array(logs) - np.logaddexp.reduce(logs))
    return np.einsum("rv,rpv->pv", share, means)


@pytest.mark.parametrize(("n", "p"), [(20, 30), (40, 12)])
def test_the_own_metric_is_ridge_under_the_second_moment_of_all_encoders(rng, n, p):
    X, y = person(rng, n, p)
    isotropic, k = np.eye(p) / p, min(n - 1, p)
    written = by_layers(X, y, "components").T
    for _ in range(2):
        moment = written @ written.T
        moment *= np.trace(X @ isotropic @ X.T) / np.trace(X @ moment @ X.T)
        metric = (k * isotropic + 200 * moment) / (k + 200)
        written = ridge_by_evidence(X @ metric @ X.T, X, y, metric @ X.T)
    np.testing.assert_allclose(by_layers(X, y, "own metric"), (written).T, atol=1e-6)


def test_the_encoder_is_the_mean_of_the_layers(rng):
    X, y = person(rng)
    each = [by_layers(X, y, name) for name in LAYERS]
    np.testing.assert_allclose(by_layers(X, y, *LAYERS), np.mean(each, axis=0), atol=1e-10)


def test_smoothed_components_are_components_of_what_voxels_alone_show(rng):
    X, y = person(rng)
    basis = context_basis(X, Metric(None, 1.0, 1 / 30))
    seen = basis.rows @ by_layers(X, y, "alone").T
    operator = components_operator(basis, principal_patterns(seen @ seen.T), len(X), 0.5)
    np.testing.assert_allclose(by_layers(X, y, "smoothed components"), (operator @ seen).T, atol=1e-8)


def test_all_voxels_together_see_more_than_each_alone(rng):
    X, y = person(rng, n=400)
    X, X_new, y, y_new = X[:20], X[20:], y[:20], y[20:]
    scores = []
    for layers in (("alone",), LAYERS):
        fit = fit_by_attention(replace(CONFIG, layers=layers), X, y, 1 / 30)
        scores.append(explained_variance(y_new, X_new @ fit.coef.T + fit.intercept).mean())
    assert scores[1] > scores[0] + 0.02


@pytest.mark.parametrize("layer", LAYERS)
def test_order_of_voxels_and_batches_change_nothing(rng, layer):
    X, y = person(rng, v=37)
    config, order = replace(CONFIG, layers=(layer,)), rng.permutation(37)
    whole = fit_by_attention(config, X, y, 1 / 30).coef
    parts = fit_by_attention(config, X, y[:, order], 1 / 30, voxel_batch_size=5).coef
    np.testing.assert_allclose(parts, whole[order], atol=1e-9)


@pytest.mark.parametrize("n_voxels", [1, 3])
def test_few_voxels_and_constant_ones_are_no_trouble(rng, n_voxels):
    X, y = person(rng, v=n_voxels + 1)
    y[:, -1] = 3.0
    encoder = InContextEncoder().fit(X, y)
    assert np.isfinite(encoder.coef_).all()
    assert not encoder.coef_[-1].any()
    nothing = InContextEncoder().fit(X, np.ones((len(X), 2)))
    assert not nothing.coef_.any()
