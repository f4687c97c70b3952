"""The first layer against the mixture posterior written out with dense Gaussians, and its properties."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from braincorl.closed_forms.items import Items, Nearby
from braincorl.encoders.by_attention import fit_by_attention
from braincorl.errors import InputError
from braincorl.models.attention import AttentionConfig, VoxelAttention, lay_out_heads

N, P, J, V = 7, 5, 11, 4
LIKE = torch.zeros(0, dtype=torch.float64)


@pytest.fixture
def context(rng):
    X = rng.standard_normal((N, P))
    return X - X.mean(axis=0)


@pytest.fixture
def items(rng):
    weights = rng.standard_normal((J, P)) / np.sqrt(P)
    mass = rng.uniform(0.5, 1.5, J)
    mass /= mass.sum()
    moment = (weights * mass[:, None]).T @ weights
    return Items(weights, np.log(mass), moment, np.array([0, 1] * 5 + [-1]), 2)


@pytest.fixture
def responses(rng):
    y = rng.standard_normal((N, V))
    return (y - y.mean(axis=0)) / y.std(axis=0)


def write(context, responses, items=None, config=None, nearby=None, probes=None):
    layer = VoxelAttention(
        config or AttentionConfig(), context, 1 / P, items, np.eye(P) if probes is None else probes, 1, LIKE
    )
    return layer, layer.write(torch.from_numpy(responses), nearby)


def mixture(config, X, y, items, log_prior):
    """Posterior of one voxel, component by component: weights' mean, second moment, regions, head probabilities."""
    centring = np.linalg.svd(np.eye(N) - 1 / N)[0][:, : N - 1]  # responses without their mean
    moments = [(share, (1 - share) * items.moment + share * np.eye(P) / P) for share in config.metrics]
    metric = dict(moments)[config.attended_metric]
    heads, logs = [], []
    rare = {r: max(r, 0.05) ** -config.rarity for r in (*config.signals, *config.attended_signals)}
    counts = {
        "ridge": len(config.metrics) * sum(rare[r] for r in config.signals),
        "attending": sum(rare[r] for r in config.attended_signals),
    }
    prior = -np.log(1 + len(config.likenesses))

    def component(mean, covariance, r):
        total = centring.T @ (X @ covariance @ X.T + (1 - r) * np.eye(N)) @ centring
        residual = centring.T @ (y - X @ mean)
        gain = covariance @ X.T @ centring @ np.linalg.inv(total)
        log = multivariate_normal(np.zeros(N - 1), total).logpdf(residual)
        return mean + gain @ residual, log

    # Ridge heads in the order of the layer: the attended metric last.
    last = config.attended_metric
    for _, S in sorted(moments, key=lambda pair: (pair[0] == last, config.metrics.index(pair[0]))):
        for r in config.signals:
            mean, log = component(np.zeros(P), r * S, r)
            heads.append((mean[None], np.ones(1)))
            logs.append(config.temperature * log + prior + np.log(rare[r] / counts["ridge"]))
    for a in config.likenesses:
        for r in config.attended_signals:
            parts = [component(a * np.sqrt(r) * u, r * (1 - a * a) * metric, r) for u in items.weights]
            evidence = np.array([log for _, log in parts]) + log_prior
            total = np.logaddexp.reduce(evidence)
            heads.append((np.array([mean for mean, _ in parts]), np.exp(evidence - total)))
            logs.append(config.temperature * total + prior + np.log(rare[r] / counts["attending"]))
    share = np.exp(np.array(logs) - np.logaddexp.reduce(logs))
    mean = sum(s * (w @ means) for s, (means, w) in zip(share, heads, strict=True))
    square = sum(s * (w @ means**2) for s, (means, w) in zip(share, heads, strict=True))
    return mean, square - mean**2, share, heads


def test_attention_is_the_posterior_of_the_mixture(context, items, responses):
    config = AttentionConfig()
    _, written = write(context, responses, items)
    for voxel in range(V):
        mean, spread, share, heads = mixture(config, context, responses[:, voxel], items, items.log_mass)
        np.testing.assert_allclose(written.coef[voxel], mean, atol=1e-10)
        np.testing.assert_allclose(written.probability[voxel], share, atol=1e-10)
        np.testing.assert_allclose(written.between[voxel], spread, atol=1e-10)
        attending = [(s, w) for s, (_, w) in zip(share, heads, strict=True) if len(w) == J]
        attended = sum(s * w for s, w in attending) / sum(s for s, _ in attending)
        expected = [attended[items.region == region].sum() for region in range(2)]
        np.testing.assert_allclose(written.region[voxel], expected, atol=1e-10)


def test_a_place_is_a_prior_over_items(context, items, responses, rng):
    index = np.array([rng.permutation(J)[:6] for _ in range(V)])
    weight = rng.standard_normal((V, 6))
    _, written = write(context, responses, items, nearby=Nearby(index, (weight,)))
    for voxel in range(V):
        prior = np.full(J, -np.inf)
        prior[index[voxel]] = items.log_mass[index[voxel]] + weight[voxel]
        prior -= np.logaddexp.reduce(prior)
        mean, spread, _, _ = mixture(AttentionConfig(), context, responses[:, voxel], items, prior)
        np.testing.assert_allclose(written.coef[voxel], mean, atol=1e-10)
        np.testing.assert_allclose(written.between[voxel], spread, atol=1e-10)


def test_in_a_region_items_of_others_count_for_less(items):
    inside = items.in_region(1, -4.0)
    mass = np.exp(inside.log_mass)
    assert mass.sum() == pytest.approx(1.0)
    ratio = np.exp(inside.log_mass - items.log_mass)
    own = items.region == 1
    np.testing.assert_allclose(ratio[~own] / ratio[own][0], np.exp(-4.0))
    np.testing.assert_allclose(inside.moment, (items.weights * mass[:, None]).T @ items.weights)
    assert items.in_region(-1, -4.0) is items


def test_without_a_memory_it_is_ridge_averaged_by_evidence(context, responses):
    layer, written = write(context, responses)
    assert (layer.heads.likeness == 0).all()
    assert written.region.shape == (V, 0)
    K = context @ context.T / P
    means = [
        context.T @ np.linalg.solve(r * K + (1 - r) * np.eye(N), responses) * r / P for r in AttentionConfig().signals
    ]
    expected = np.einsum("vh,hpv->vp", written.probability.numpy(), np.array(means))
    np.testing.assert_allclose(written.coef, expected, atol=1e-10)


def test_the_order_of_items_images_and_voxels_does_not_matter(context, items, responses, rng):
    _, first = write(context, responses, items)
    images, order, voxels = rng.permutation(N), rng.permutation(J), rng.permutation(V)
    shuffled = Items(items.weights[order], items.log_mass[order], items.moment, items.region[order], 2)
    _, second = write(context[images], responses[images][:, voxels], shuffled)
    np.testing.assert_allclose(second.coef, first.coef[voxels], atol=1e-12)
    np.testing.assert_allclose(second.region, first.region[voxels], atol=1e-12)


def test_an_item_that_stands_for_two_is_two_items(context, items, responses):
    mass = np.exp(items.log_mass)
    twice = Items(
        np.vstack([items.weights, items.weights[:1]]),
        np.log(np.append(mass, mass[0] / 2) - np.append([mass[0] / 2], np.zeros(J))),
        items.moment,
        np.append(items.region, items.region[0]),
        2,
    )
    np.testing.assert_allclose(
        write(context, responses, twice)[1].coef, write(context, responses, items)[1].coef, atol=1e-12
    )


def test_it_is_as_good_in_single_precision(context, items, responses):
    layer = VoxelAttention(AttentionConfig(), context, 1 / P, items, np.eye(P), 1, torch.zeros(0))
    single = layer.write(torch.from_numpy(responses).float())
    np.testing.assert_allclose(single.coef, write(context, responses, items)[1].coef, atol=1e-5)


def test_more_responses_than_features_are_not_forgotten(rng):
    """With more images than features some of a response lies outside their span, and says how noisy it is."""
    X = rng.standard_normal((30, 2))
    X -= X.mean(axis=0)
    y = (X @ rng.standard_normal((2, 3)) + 3 * rng.standard_normal((30, 3))).astype(np.float64)
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    layer = VoxelAttention(AttentionConfig(temperature=1.0), X, 0.5, None, np.eye(2), 1, LIKE)
    centring = np.linalg.svd(np.eye(30) - 1 / 30)[0][:, :29]
    logs = [
        multivariate_normal(np.zeros(29), centring.T @ (0.5 * r * X @ X.T + (1 - r) * np.eye(30)) @ centring).logpdf(
            (centring.T @ y).T
        )
        for r in AttentionConfig().signals
    ]
    expected = np.exp(logs - np.logaddexp.reduce(logs, axis=0)).T
    np.testing.assert_allclose(layer.write(torch.from_numpy(y)).probability, expected, atol=1e-10)


def test_heads_are_flat_over_likeness():
    config = AttentionConfig(likenesses=(0.5, 0.8))
    heads = lay_out_heads(config, 3, 2)
    prior = np.exp(heads.log_prior)
    assert prior.sum() == pytest.approx(3.0)  # 1 for each likeness: their common factor is the softmax's
    for a in (0.0, 0.5, 0.8):
        assert prior[heads.likeness == a].sum() == pytest.approx(1.0)
    np.testing.assert_allclose(heads.gain**2 + heads.residual, heads.signal)


@pytest.mark.parametrize(
    "wrong",
    [
        {"likenesses": (1.0,)},
        {"temperature": 0.0},
        {"signals": ()},
        {"signals": (1.0,)},
        {"metrics": (1.5,)},
        {"elsewhere": 1.0},
        {"rarity": -1.0},
        {"layers": ("alone", "another")},
        {"attended_metric": 2.0},
    ],
)
def test_impossible_heads_are_refused(wrong):
    with pytest.raises(InputError):
        AttentionConfig(**wrong)


def test_a_memory_that_nobody_attends_to_is_a_metric(rng):
    """Without attending heads, the second moment of remembered voxels still says which weights are likely."""
    X, y = rng.standard_normal((12, 6)), rng.standard_normal((12, 9))
    weights = rng.standard_normal((20, 6)) * [3, 1, 1, 0.1, 0.1, 0.1]
    moment = weights.T @ weights
    items = Items(weights, np.full(20, -np.log(20)), moment / np.trace(moment), np.full(20, -1), 0)
    config = AttentionConfig(likenesses=())
    fit = fit_by_attention(config, X, y, 1 / 6, items, np.eye(6))
    assert np.isfinite(fit.coef).all()
    assert np.square(fit.coef[:, :3]).sum() > np.square(fit.coef[:, 3:]).sum()
