from dataclasses import replace

import numpy as np
import pytest

from braincorl import GroupPrior, GroupPriorEncoder
from braincorl.priors.choosing import leading_basis
from braincorl.priors.components import LEVELS
from braincorl.priors.context import reduce_context
from braincorl.priors.expectation import Mixture, Person, expect
from braincorl.priors.left_out import Examinee, examine, make_trials
from braincorl.priors.people import image_folds
from braincorl.priors.posterior import level_evidence, make_frames, mixture_evidence


@pytest.fixture
def person(rng, pool, mixture, draw_voxels):
    y, weights, _ = draw_voxels(mixture, pool[:60], 300, 0.3, rng)
    return pool[:60], y, weights


def test_the_true_mixture_scores_best_and_its_intervals_fit(person, mixture):
    X, y, _ = person
    region = np.zeros(300, dtype=np.intp)
    trials = make_trials(X, y, np.arange(60) % 3 == 0, region)
    assert [trial.context.n_images for trial in trials] == [10, 20]
    examinee = Examinee(Person(reduce_context(X, y), 1.0, region), trials)
    weight = np.vstack([mixture.weight] * 2)
    score, ratio = examine(Mixture(mixture, weight), examinee)
    assert ratio == pytest.approx(1.0, abs=0.07)
    swapped = replace(mixture, mean=-mixture.mean)
    assert examine(Mixture(swapped, weight), examinee)[0] < score


def test_an_image_is_left_out_for_all_who_saw_it(pool, rng):
    people = [(pool[:40], rng.standard_normal((40, 3))), (pool[20:60], rng.standard_normal((40, 3)))]
    folds = image_folds(people)
    np.testing.assert_array_equal(np.sum([first for first, _ in folds], axis=0), 1)
    for first, second in folds:
        np.testing.assert_array_equal(first[20:], second[:20])
    assert image_folds([(pool[:7], np.ones((7, 3)))]) == []


def test_intervals_are_widened_as_the_prior_says(person, mixture, pool):
    X, y, _ = person
    prior = GroupPrior(mixture, np.vstack([mixture.weight] * 2), (), pool.mean(axis=0), np.cov(pool, rowvar=False))
    std = GroupPriorEncoder(prior).fit(X, y).predict(X, return_std=True)[1]
    wide = GroupPriorEncoder(replace(prior, widening=1.3)).fit(X, y).predict(X, return_std=True)[1]
    np.testing.assert_allclose(wide, 1.3 * std)


def test_moments_do_not_depend_on_how_products_are_taken(person, mixture, monkeypatch):
    X, y, _ = person
    people = [Person(reduce_context(X[:20], y), 0.5, np.zeros(300, dtype=np.intp)) for y in (y[:20], y[:20] * 2 + 1)]
    state = Mixture(mixture, np.vstack([mixture.weight] * 2))
    expected = expect(people, state)
    monkeypatch.setattr("braincorl.priors.expectation._FEW_ROWS", 0)
    found = expect(people, state)
    for name in ("level", "region", "count", "first", "second"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)


def test_moments_are_those_of_a_loop_over_voxels_and_levels(person, mixture):
    """E[uuᵀ] = E[u] E[u]ᵀ + Cov[u], summed one by one."""
    X, y, _ = person
    one = mixture.some(slice(0, 3, 2))
    context = reduce_context(X[:12], y[:12, :5])
    state = Mixture(one, np.array([[0.9, 0.1]] * 2))
    frame = make_frames(context, one)[0]
    evidence = level_evidence(frame, context, frame.vectors.T @ context.projected)
    share, _ = mixture_evidence(evidence.log_evidence[None].copy(), np.zeros((1, 1)), one.level_probability[:1])
    covariance, second, first = one.covariance(0), np.zeros((6, 6)), np.zeros(6)
    for g, r in enumerate(LEVELS):
        gram = r * context.rows @ covariance @ context.rows.T + (1 - r) * np.eye(len(context.rows))
        gain = covariance @ context.rows.T @ np.linalg.inv(gram)
        for v in range(5):
            if r > 0 and share[0, g, v] > 0.01:
                error = evidence.mode[g, v] * context.projected[:, v] - np.sqrt(r) * context.rows @ one.mean[0]
                u = one.mean[0] + np.sqrt(r) * gain @ error
                first += share[0, g, v] * u
                second += share[0, g, v] * (np.outer(u, u) + covariance - r * gain @ context.rows @ covariance)
    found = expect([Person(context, 1.0, np.zeros(5, dtype=np.intp))], state)
    np.testing.assert_allclose(found.first[0], first, rtol=1e-8)
    np.testing.assert_allclose(found.second[0], second, rtol=1e-8, atol=1e-9)


def test_settings_of_large_features_are_compared_in_the_leading_directions(rng):
    covariance = np.diag(np.linspace(3, 0.1, 300))
    small, basis = leading_basis(covariance)
    np.testing.assert_allclose(np.sort(np.diag(small)), np.diag(covariance)[:256][::-1])
    np.testing.assert_allclose(basis.T @ basis, np.eye(256), atol=1e-9)
    assert leading_basis(covariance[:9, :9])[1] is None
    people = [(rng.standard_normal((24, 300)), rng.standard_normal((24, 30))) for _ in range(2)]
    prior = GroupPrior.fit(people, rank=4, n_components=1, shrinkage=30.0)
    assert prior.n_features == 300
    assert prior.widening >= 1.0
