import numpy as np
import pytest

from braincorl import GroupPrior, GroupPriorEncoder
from braincorl.errors import InputError
from braincorl.metrics import explained_variance
from braincorl.priors.neighbours import neighbour_weights, smooth_log_weight


@pytest.fixture
def prior(mixture, pool):
    weight = np.vstack([mixture.weight] * 3)
    return GroupPrior(mixture, weight, ("a", "b"), pool.mean(axis=0), np.cov(pool, rowvar=False))


@pytest.fixture
def patchy(rng, pool, mixture, draw_voxels):
    """600 voxels on a sheet, the first kind on one side and the second on the other; responses and weights."""
    y, weights, kind = draw_voxels(mixture, pool[:12], 1400, 0.15, rng)
    order = np.concatenate([np.flatnonzero(kind == k)[:300] for k in (0, 1)])
    return pool[:12], y[:, order], weights[order], np.argwhere(np.ones((30, 20, 1)))


def test_neighbours_weigh_what_a_loop_over_voxels_gives(rng):
    positions = rng.uniform(0, 6, (40, 3))
    found = neighbour_weights(positions, 1.0).toarray()
    for v in range(40):
        distance = np.linalg.norm(positions - positions[v], axis=1)
        expected = np.where((distance <= 2.5) & (np.arange(40) != v), np.exp(-(distance**2) / 2), 0.0)
        np.testing.assert_allclose(found[v], expected / max(expected.sum(), 1e-300), atol=1e-12)


def test_smoothed_weights_are_weights_and_fixed_or_lonely_voxels_keep_theirs(rng):
    positions = np.vstack([rng.uniform(0, 4, (30, 3)), [[50, 50, 50]]])
    prior = np.log(rng.dirichlet(np.ones(3), 31)).T
    fixed = np.arange(31) < 5
    found = smooth_log_weight(rng.standard_normal((3, 31)), prior, neighbour_weights(positions, 1.0), 0.5, fixed)
    np.testing.assert_allclose(np.exp(found).sum(axis=0), 1.0)
    np.testing.assert_allclose(found[:, [*range(5), 30]], prior[:, [*range(5), 30]])
    assert np.abs(found[:, 5:30] - prior[:, 5:30]).max() > 0.1


def test_neighbours_help_where_kinds_are_patches(patchy, prior, pool):
    X, y, weights, positions = patchy
    alone, together = GroupPriorEncoder(prior).fit(X, y), GroupPriorEncoder(prior).fit(X, y, positions=positions)
    assert together.smoothness_ > 0
    right = np.arange(600) // 300
    assert (together.responsibility_.argmax(axis=1) == right).mean() > (
        alone.responsibility_.argmax(axis=1) == right
    ).mean()
    truth = pool[100:] @ weights.T
    gain = [explained_variance(truth, e.predict(pool[100:])).mean() for e in (alone, together)]
    assert gain[1] > gain[0] + 0.02


def test_neighbours_that_are_not_alike_do_no_harm(patchy, prior, rng, pool):
    X, y, weights, positions = patchy
    truth = pool[100:] @ weights.T
    alone = explained_variance(truth, GroupPriorEncoder(prior).fit(X, y).predict(pool[100:])).mean()
    shuffled = GroupPriorEncoder(prior).fit(X, y, positions=positions[rng.permutation(600)])
    assert explained_variance(truth, shuffled.predict(pool[100:])).mean() > alone - 0.005


def test_too_few_images_choose_no_smoothing(patchy, prior):
    X, y, _, positions = patchy
    few = GroupPriorEncoder(prior).fit(X[:5], y[:5], positions=positions)
    assert few.smoothness_ == 0.0
    np.testing.assert_array_equal(few.coef_, GroupPriorEncoder(prior).fit(X[:5], y[:5]).coef_)


def test_known_regions_are_left_alone(patchy, prior):
    X, y, _, positions = patchy
    rois = np.repeat(["a", "b"], 300)
    known = GroupPriorEncoder(prior).fit(X, y, rois=rois, positions=positions)
    np.testing.assert_array_equal(known.coef_, GroupPriorEncoder(prior).fit(X, y, rois=rois).coef_)


def test_mistakes_are_named(patchy, prior):
    X, y, _, positions = patchy
    with pytest.raises(InputError, match=r"np\.argwhere"):
        GroupPriorEncoder(prior).fit(X, y, positions=positions[1:])
    for wrong in (1.0, "much"):
        with pytest.raises(InputError, match="smoothness"):
            GroupPriorEncoder(prior, smoothness=wrong).fit(X, y, positions=positions)
