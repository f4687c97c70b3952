import logging

import numpy as np
import pytest
from scipy import stats

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, RidgeEncoder
from braincorl.analysis import text_selectivity
from braincorl.analysis.words.pool import make_pool
from braincorl.analysis.words.selectivity import contrast_std
from braincorl.analysis.words.text_directions import average_prompts, text_directions
from braincorl.errors import InputError

P, N_TEXTS = 12, 40


@pytest.fixture
def data(rng):
    """Pool (300, 12), texts (40, 12) in a region of their own, voxels (30,) tuned to the first thirty."""
    pool = rng.standard_normal((300, P)) * np.linspace(2, 0.5, P) + 3.0
    texts = rng.standard_normal((N_TEXTS, P)) + 20.0
    weights = (texts - texts.mean(axis=0))[:30]
    X = pool[:80]
    return pool, texts, X, X @ weights.T + 0.5 * rng.standard_normal((80, 30))


def fitted(data, kind=RidgeEncoder):
    _, _, X, y = data
    return kind().fit(X, y)


# -- selectivity -------------------------------------------------------------------------------------------------------


def test_every_voxel_finds_its_word(data):
    pool, texts, *_ = data
    for kind in (RidgeEncoder, BayesianRidgeEncoder):
        result = text_selectivity(fitted(data, kind), texts, pool)
        assert (np.asarray(result)[:, :30].argmax(axis=1) == np.arange(30)).mean() > 0.9
        own = result.selected()[np.arange(30), np.arange(30)]
        assert own.mean() > (0.9 if kind is BayesianRidgeEncoder else 0.5)


def test_the_gap_between_texts_and_images_does_not_matter(data):
    pool, texts, *_ = data
    encoder = fitted(data)
    shifted = text_selectivity(encoder, texts + 100.0, pool)
    np.testing.assert_allclose(shifted.selectivity, text_selectivity(encoder, texts, pool).selectivity, rtol=1e-8)


def test_units_of_responses_do_not_matter(data):
    pool, texts, X, y = data
    plain = text_selectivity(BayesianRidgeEncoder().fit(X, y), texts, pool)
    scaled = text_selectivity(BayesianRidgeEncoder().fit(X, 7.0 * y + 100.0), texts, pool)
    np.testing.assert_allclose(scaled.selectivity, plain.selectivity, rtol=1e-6)
    np.testing.assert_allclose(scaled.z, plain.z, rtol=1e-4)


def test_selectivity_is_a_prediction_at_an_image_moved_toward_the_text(data):
    pool, texts, *_ = data
    encoder = fitted(data)
    deviations = texts - texts.mean(axis=0)
    along = (pool @ deviations.T).std(axis=0)
    moved = pool.mean(axis=0) + deviations * (np.sqrt(np.mean(along**2)) / along)[:, None]
    responses = encoder.predict(pool)
    expected = (encoder.predict(moved) - responses.mean(axis=0)) / responses.std(axis=0)
    np.testing.assert_allclose(text_selectivity(encoder, texts, pool).selectivity, expected.T, rtol=1e-8)


def test_a_contrast_is_against_its_opposite(data):
    pool, texts, *_ = data
    encoder = fitted(data)
    result = text_selectivity(encoder, texts[:1], pool, versus=texts[1:2], background=texts)
    back = text_selectivity(encoder, texts[1:2], pool, versus=texts[:1], background=texts)
    np.testing.assert_allclose(result.selectivity, -back.selectivity, rtol=1e-8)
    np.testing.assert_allclose(result.z, -back.z, rtol=1e-8)
    assert result.selectivity[0, 0] == result.selectivity.max()
    assert result.selectivity[1, 0] < np.percentile(result.selectivity, 10)


def test_prompts_of_a_text_are_averaged_at_unit_length(rng):
    prompts = rng.standard_normal((3, 5, P)) * rng.uniform(1, 9, (3, 5, 1))
    expected = (prompts / np.linalg.norm(prompts, axis=2, keepdims=True)).mean(axis=1)
    np.testing.assert_allclose(average_prompts(prompts, P), expected, atol=1e-7)


def test_images_of_a_kind_stand_in_for_words(data):
    pool, texts, *_ = data
    encoder = fitted(data)
    like = pool.mean(axis=0) + 0.5 * (texts[4] - texts.mean(axis=0))
    result = text_selectivity(encoder, like[None], pool, background=pool)
    assert result.selectivity[:, 0].argmax() == 4


def test_voxels_without_weights_are_selective_for_nothing(data):
    pool, texts, X, y = data
    y = y.copy()
    y[:, 3] = 5.0
    for kind in (RidgeEncoder, BayesianRidgeEncoder):
        result = text_selectivity(kind().fit(X, y), texts, pool)
        assert (result.selectivity[3] == 0).all()
        assert not result.selected()[3].any()
        assert np.isfinite(result.q_value).all()


def test_without_a_pool_every_direction_counts_the_same(data):
    _, texts, *_ = data
    encoder = fitted(data)
    deviations = texts - texts.mean(axis=0)
    length = np.linalg.norm(deviations, axis=1)
    cosine = encoder.coef_ @ deviations.T / np.linalg.norm(encoder.coef_, axis=1)[:, None] / length
    expected = cosine * np.sqrt(np.mean(length**2))
    np.testing.assert_allclose(text_selectivity(encoder, texts).selectivity, expected, rtol=1e-8)


def test_one_text_alone_is_compared_with_images_and_says_so(data, caplog):
    pool, texts, *_ = data
    with caplog.at_level(logging.WARNING):
        result = text_selectivity(fitted(data), texts[:1], pool)
    assert "over the gap" in caplog.text
    assert result.selectivity.shape == (30, 1)


# -- significance ------------------------------------------------------------------------------------------------------


def test_the_posterior_of_a_contrast_comes_from_predictions_alone(rng):
    """Compared with Bayesian ridge's posterior written out for one noise level."""
    X, r = rng.standard_normal((15, P)), 0.4
    y = X @ rng.standard_normal(P) + rng.standard_normal(15)
    encoder = BayesianRidgeEncoder(signal_grid=[r]).fit(X, y)
    centred = X - X.mean(axis=0)
    c = 1.0 / X.var(axis=0, ddof=1).sum()
    gram = r * c * centred @ centred.T
    inverse = np.linalg.pinv(np.eye(15) - np.ones((15, 15)) / 15) @ np.linalg.inv(gram + (1 - r) * np.eye(15))
    target = y - y.mean()
    s2 = target @ np.linalg.inv(gram + (1 - r) * np.eye(15)) @ target / 14 * 14 / 12
    prior = r * c * np.eye(P)
    covariance = s2 * (prior - prior @ centred.T @ inverse @ centred @ prior)
    directions = rng.standard_normal((5, P))
    expected = np.sqrt(np.einsum("tp,pq,tq->t", directions, covariance, directions))
    std = contrast_std(encoder, directions, make_pool(X, P))
    np.testing.assert_allclose(std[0], expected, rtol=1e-6)


def test_posterior_in_single_precision_and_at_any_centre(data):
    pool, texts, X, y = data
    encoder = BayesianRidgeEncoder().fit(X, y)
    directions = text_directions(texts, None, None, make_pool(pool, P)).texts
    exact = contrast_std(encoder, directions, make_pool(pool, P))
    np.testing.assert_allclose(contrast_std(encoder, directions, make_pool(pool + 1.0, P)), exact, rtol=1e-6)
    single = BayesianRidgeEncoder().fit(X.astype("f4"), y.astype("f4"))
    np.testing.assert_allclose(contrast_std(single, directions, make_pool(pool, P)), exact, rtol=2e-2)


def test_group_prior_encoders_have_a_posterior_too(data):
    pool, texts, X, y = data
    prior = GroupPrior.fit([(X, y), (pool[80:160], pool[80:160] @ (texts - texts.mean(axis=0))[:30].T)])
    result = text_selectivity(GroupPriorEncoder(prior).fit(X[:20], y[:20]), texts, pool)
    assert result.significance == "posterior"
    assert (result.z > 2).any()


def test_voxels_of_noise_are_rarely_selected(rng):
    pool, texts = rng.standard_normal((200, P)), rng.standard_normal((N_TEXTS, P))
    encoder = BayesianRidgeEncoder().fit(pool[:40], rng.standard_normal((40, 500)), X_pool=pool)
    result = text_selectivity(encoder, texts, pool)
    assert result.selected().mean() < 0.02


def test_random_directions_agree_with_drawing_them(data, rng):
    """The closed form against a permutation test that draws 4,000 directions."""
    pool, texts, *_ = data
    encoder = fitted(data)
    result = text_selectivity(encoder, texts, pool, significance="directions")
    directions = text_directions(texts, None, None, make_pool(pool, P))
    drawn = rng.standard_normal((4000, N_TEXTS)) @ directions.others / np.sqrt(N_TEXTS)
    null = encoder.coef_ @ drawn.T
    change = encoder.coef_ @ directions.texts.T
    share = (null[:, None, :] >= change[:, :, None]).mean(axis=2)
    np.testing.assert_allclose(stats.norm.sf(result.z), share, atol=0.03)


def test_wrong_signs_are_as_rare_as_promised(rng):
    """Voxels drawn from the encoder's own prior: of those with a posterior of .1 to .2, as many have the other sign."""
    pool, texts = rng.standard_normal((400, P)), rng.standard_normal((N_TEXTS, P))
    weights = rng.standard_normal((2000, P)) / np.sqrt(P)
    X = pool[:15]
    y = X @ weights.T + rng.standard_normal((15, 2000))
    result = text_selectivity(BayesianRidgeEncoder().fit(X, y, X_pool=pool), texts, pool)
    wrong = weights @ text_directions(texts, None, None, make_pool(pool, P)).texts.T < 0
    for low, high in ((0.0, 0.05), (0.1, 0.2), (0.4, 0.5)):
        bin_ = (result.q_value >= low) & (result.q_value < high)
        assert wrong[bin_].mean() == pytest.approx(result.q_value[bin_].mean(), abs=0.04)


def test_false_discoveries_are_corrected_over_voxels(data):
    pool, texts, *_ = data
    result = text_selectivity(fitted(data), texts, pool)
    p = stats.norm.sf(result.z)
    for text in (0, 7):
        order = np.argsort(p[:, text])
        stepped = p[order, text] * 30 / np.arange(1, 31)
        expected = np.minimum.accumulate(stepped[::-1])[::-1]
        np.testing.assert_allclose(result.q_value[order, text], np.minimum(expected, 1), rtol=1e-10)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_features": np.ones((3, P + 1))}, "text_features has shape"),
        ({"text_features": np.full((3, P), np.nan)}, "text_features contains NaN"),
        ({"image_features": np.ones((5, P + 1))}, "image_features has shape"),
        ({"image_features": np.ones((5, P))}, "same for all images"),
        ({"versus": np.ones((1, 3))}, "versus has shape"),
        ({"background": np.ones((2, 3))}, "background has shape"),
        ({"background": np.ones((30, P))}, "all the same"),
        ({"texts": ["a"]}, "texts has 1 names for 40"),
        ({"significance": "none"}, "significance must be"),
        ({"significance": "posterior"}, "RidgeEncoder has no predictive distribution"),
    ],
)
def test_mistakes_are_told(data, change, message):
    pool, texts, *_ = data
    with pytest.raises(InputError, match=message):
        text_selectivity(fitted(data), **{"text_features": texts, "image_features": pool, **change})


def test_a_text_against_itself_is_refused(data):
    pool, texts, *_ = data
    with pytest.raises(InputError, match="does not differ"):
        text_selectivity(fitted(data), texts[:1], pool, versus=texts[:1])
