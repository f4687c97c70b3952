import itertools

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from scipy.stats import permutation_test as scipy_test

from braincorl.analysis import permutation_test
from braincorl.errors import InputError
from braincorl.questions.permutation import draw_orders, log10_orders


def made(rng, n_images=30, n_voxels=40, strength=0.0):
    predicted = rng.standard_normal((n_images, n_voxels))
    return strength * predicted + rng.standard_normal((n_images, n_voxels)), predicted


def test_each_voxel_is_what_it_would_be_alone_and_in_any_place(rng):
    measured, predicted = made(rng, n_voxels=700, strength=0.3)
    whole = permutation_test(measured, predicted, 99)
    some = rng.permutation(700)[:50]
    part = permutation_test(measured[:, some], predicted[:, some], 99)
    np.testing.assert_array_equal(part.p, whole.p[some])
    alone = permutation_test(measured[:, 3:4], predicted[:, 3:4], 99)
    assert alone.p[0] == whole.p[3]


def test_units_do_not_matter_and_a_seed_gives_the_same_numbers(rng):
    measured, predicted = made(rng, strength=0.4)
    first = permutation_test(measured, predicted, 199, random_state=5)
    again = permutation_test(1e30 * measured, -3 + 1e-3 * predicted, 199, random_state=5)
    np.testing.assert_array_equal(first.p, again.p)
    assert (permutation_test(measured, predicted, 199, random_state=6).p != first.p).any()


def test_p_is_that_of_all_orders_enumerated(rng):
    measured, predicted = made(rng, n_images=5, n_voxels=4, strength=0.7)
    orders = np.array(list(itertools.permutations(range(5))))
    for voxel, p in enumerate(permutation_test(measured, predicted, 20_000).p):
        r = [np.corrcoef(measured[:, voxel], predicted[order, voxel])[0, 1] for order in orders]
        exact = np.mean(np.array(r) >= r[0] - 1e-12)
        assert p == pytest.approx(exact, abs=0.012)


def test_p_agrees_with_scipy(rng):
    measured, predicted = made(rng, n_voxels=2, strength=0.3)
    ours = permutation_test(measured, predicted, 3000).p
    for voxel in range(2):
        theirs = scipy_test(
            (predicted[:, voxel],), lambda x, y=measured[:, voxel]: x @ y,
            permutation_type="pairings", alternative="greater", n_resamples=3000, rng=1,
        )  # fmt: skip
        assert ours[voxel] == pytest.approx(theirs.pvalue, abs=0.03)


def test_q_and_family_are_those_of_their_definitions(rng):
    measured, predicted = made(rng, n_voxels=12, strength=0.4)
    test = permutation_test(measured, predicted, 200, random_state=2)
    np.testing.assert_allclose(test.q, false_discovery_control(test.p))
    orders = draw_orders(30, 200, random_state=2)

    def r(order):
        return [np.corrcoef(measured[:, v], predicted[order, v])[0, 1] for v in range(12)]

    observed, permuted = np.array(r(np.arange(30))), np.array([r(order) for order in orders])
    np.testing.assert_array_equal(test.p, (1 + (permuted >= observed - 1e-9).sum(axis=0)) / 201)
    largest = permuted.max(axis=1)
    np.testing.assert_array_equal(test.p_family, [(1 + (largest >= x - 1e-9).sum()) / 201 for x in observed])
    assert test.p_regions["all"] == (1 + (permuted.mean(axis=1) >= observed.mean()).sum()) / 201


def test_noise_is_found_no_more_often_than_promised():
    """Of noise that voxels share, too: SIMULATION."""
    rng = np.random.default_rng(1)
    found = []
    for seed in range(60):
        shared = rng.standard_normal((20, 1))
        measured, predicted = made(rng, 20, 30)
        test = permutation_test(measured + shared, predicted, 99, random_state=seed)
        found.append([np.mean(test.p <= 0.05), (test.q < 0.05).any(), (test.p_family <= 0.05).any()])
    p, q, family = np.mean(found, axis=0)
    assert 0.02 < p < 0.08
    assert q < 0.15
    assert family < 0.15


def test_a_real_effect_is_found_in_its_voxels_and_regions(rng):
    measured, predicted = made(rng, 60, 50)
    measured[:, :10] += predicted[:, :10]
    rois = {"tuned": np.arange(50) < 10, "noise": np.arange(50) >= 10}
    test = permutation_test(measured, predicted, 999, rois=rois)
    assert (test.q[:10] < 0.05).all()
    assert test.p_regions["tuned"] == 0.001
    assert test.p_regions["noise"] > 0.01


def test_images_stay_within_their_stratum(rng):
    strata = np.array([3, 1, 3, 3, 1, 2])
    orders = draw_orders(6, 50, strata)
    assert (strata[orders] == strata).all()
    assert (np.sort(orders, axis=1) == np.arange(6)).all()
    assert len({tuple(order) for order in orders}) == 12
    assert 10 ** log10_orders(strata) == pytest.approx(12)


def test_constant_and_missing_voxels_have_no_p_and_constant_predictions_find_nothing(rng):
    measured, predicted = made(rng, strength=2.0)
    measured[:, 0], measured[3, 1], predicted[:, 2] = 7.0, np.nan, 7.0
    test = permutation_test(measured, predicted, 50)
    assert np.isnan(test.p[:2]).all()
    assert np.isnan(test.q[:2]).all()
    assert np.isnan(test.p_family[:2]).all()
    assert test.p[2] == test.p_family[2] == 1
    assert (test.q[3:] < 0.05).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_permutations": 0}, "n_permutations must be a whole number"),
        ({"strata": [1, 2]}, "strata has shape"),
        ({"rois": {"V1": np.ones(3, dtype=bool)}}, "rois\\['V1'\\]"),
        ({"y_pred": np.zeros((30, 41))}, "y_pred has"),
    ],
)
def test_mistakes_are_named(rng, changes, message):
    measured, predicted = made(rng)
    with pytest.raises(InputError, match=message):
        permutation_test(**{"y_true": measured, "y_pred": predicted} | changes)
