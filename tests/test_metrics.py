import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from braincorl.errors import InputError
from braincorl.metrics import (
    estimate_ncsnr,
    explained_variance,
    noise_ceiling,
    normalize_by_ceiling,
    pearson_r,
    r2_score,
)


@pytest.fixture
def pair(rng):
    y = rng.standard_normal((40, 6))
    return y, y + rng.standard_normal((40, 6)) + 1.0


def test_scores_equal_scikit_learn_and_scipy(pair):
    y, predicted = pair
    ev = sklearn.metrics.explained_variance_score(y, predicted, multioutput="raw_values")
    r2 = sklearn.metrics.r2_score(y, predicted, multioutput="raw_values")
    r = [pearsonr(a, b).statistic for a, b in zip(y.T, predicted.T, strict=True)]
    np.testing.assert_allclose(explained_variance(y, predicted), ev)
    np.testing.assert_allclose(r2_score(y, predicted), r2)
    np.testing.assert_allclose(pearson_r(y, predicted), r)


@given(offset=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_what_each_score_forgives(offset, scale):
    rng = np.random.default_rng(1)
    y = rng.standard_normal((30, 3))
    predicted = y + 0.5 * rng.standard_normal((30, 3))
    np.testing.assert_allclose(explained_variance(y, predicted + offset), explained_variance(y, predicted), atol=1e-9)
    np.testing.assert_allclose(pearson_r(y, scale * predicted + offset), pearson_r(y, predicted), atol=1e-9)
    assert (r2_score(y, predicted + offset) <= explained_variance(y, predicted + offset) + 1e-12).all()


def test_constant_voxels_are_nan_and_constant_predictions_are_not(pair):
    y, predicted = pair
    y[:, 0] = 0.1  # a constant whose rounded mean differs from it
    predicted[:, 1] = 3.0
    for score in (explained_variance, r2_score, pearson_r):
        values = score(y, predicted)
        assert np.isnan(values[0])
        assert np.isfinite(values[1:]).all()
    assert pearson_r(y, predicted)[1] == 0.0
    assert explained_variance(y, predicted)[1] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e200, 1e300])
def test_scores_of_any_unit_are_the_same(pair, unit):
    y, predicted = pair
    for score in (explained_variance, r2_score, pearson_r):
        np.testing.assert_allclose(score(y * unit, predicted * unit), score(y, predicted))
    np.testing.assert_allclose(pearson_r(y, predicted * unit), pearson_r(y, predicted))
    np.testing.assert_allclose(pearson_r(y / unit, predicted * unit), pearson_r(y, predicted))
    ids = np.arange(len(y)) // 2
    np.testing.assert_allclose(estimate_ncsnr(y * unit, ids), estimate_ncsnr(y, ids))


def test_a_prediction_beyond_all_measure_is_infinitely_bad(pair):
    y, predicted = pair
    assert (explained_variance(y, 1e200 * predicted) == -np.inf).all()
    assert (r2_score(y, 1e200 * predicted) == -np.inf).all()


def test_shape_mismatch_names_both_shapes(pair):
    y, predicted = pair
    with pytest.raises(InputError, match=r"\(40, 6\) but y_pred has \(6, 40\)"):
        r2_score(y, predicted.T)


def test_noise_ceiling_with_mixed_repeats_equals_the_published_formula():
    ncsnr, a, b, c = np.array([0.0, 0.5, 1.2]), 5, 7, 11
    repeats = np.r_[np.full(a, 3), np.full(b, 2), np.full(c, 1)]
    published = 100 * ncsnr**2 / (ncsnr**2 + (a / 3 + b / 2 + c / 1) / (a + b + c))
    np.testing.assert_allclose(100 * noise_ceiling(ncsnr, repeats), published)
    assert noise_ceiling(np.inf, 1) == 1.0
    assert np.isnan(noise_ceiling(np.nan, 1))


def test_noise_ceiling_is_the_r2_of_a_perfect_encoder(rng):
    signal = rng.standard_normal((20_000, 2)) * [1.0, 0.5]
    measured = signal + rng.standard_normal((3, 20_000, 2)).mean(axis=0)
    np.testing.assert_allclose(r2_score(measured, signal), noise_ceiling(np.array([1.0, 0.5]), 3), atol=0.01)


@pytest.mark.parametrize("counts", [np.full(400, 3), np.arange(400) % 3 + 1, np.r_[np.full(10, 20), np.ones(390, int)]])
def test_ncsnr_is_recovered_from_any_pattern_of_repeats(rng, counts):
    truth = np.repeat([0.0, 0.4, 1.0, 2.0], 50)
    images = np.arange(400).repeat(counts)
    signal = rng.standard_normal((400, truth.size)) * truth
    responses = 5.0 + signal[images] + rng.standard_normal((images.size, truth.size))
    estimated = (estimate_ncsnr(responses, images) ** 2).reshape(4, 50).mean(axis=1)
    np.testing.assert_allclose(estimated, [0.0, 0.16, 1.0, 4.0], atol=0.05, rtol=0.1)


def test_ncsnr_of_z_scored_triples_equals_the_published_recipe(rng):
    images = np.arange(2000).repeat(3)
    y = rng.standard_normal((2000, 4))[images] + rng.standard_normal((6000, 4))
    z = (y - y.mean(axis=0)) / y.std(axis=0)
    noise = np.sqrt((z.reshape(2000, 3, 4).std(axis=1, ddof=1) ** 2).mean(axis=0))
    np.testing.assert_allclose(estimate_ncsnr(z, images), np.sqrt(1 - noise**2) / noise, rtol=1e-3)


def test_ncsnr_needs_repeats():
    with pytest.raises(InputError, match="no repeats"):
        estimate_ncsnr(np.ones((3, 2)), ["a", "b", "c"])


def test_normalised_scores_are_masked_not_clipped():
    normalized, mask = normalize_by_ceiling([0.3, 0.2, 0.3, np.nan], [0.2, 0.05, np.nan, 0.5], min_ceiling=0.1)
    np.testing.assert_array_equal(mask, [True, False, False, False])
    np.testing.assert_allclose(normalized, [1.5, np.nan, np.nan, np.nan])
    with pytest.raises(InputError, match="min_ceiling"):
        normalize_by_ceiling([0.1], [0.1], min_ceiling=0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("baseline", [0.0, 1.0, 1e3, -1e3, 1e6])
@pytest.mark.parametrize("which", ["measured", "predicted", "both"])
def test_r_is_that_of_the_numbers_or_nan_where_only_rounding_is_left(dtype, baseline, which):
    rng = np.random.default_rng(2)
    spread = 10.0 ** np.arange(-9, 2)
    y, p = rng.standard_normal((2, 200, 1)) * spread + 0.5 * rng.standard_normal((200, 1)) * spread
    exact = np.array([pearsonr(a, b).statistic for a, b in zip(y.T, p.T, strict=True)])
    given_y = (y + baseline * (which != "predicted")).astype(dtype if which != "predicted" else np.float64)
    given_p = (p + baseline * (which != "measured")).astype(dtype if which != "measured" else np.float64)
    r = pearson_r(given_y, given_p)
    told = np.isfinite(r) & ~((np.ptp(given_p, axis=0) == 0) & (r == 0))  # constant to the bit: 0, as documented
    np.testing.assert_allclose(r[told], exact[told], atol=0.005)
    assert told[spread > 1e-2 * np.finfo(dtype).eps / 1e-7 * max(abs(baseline), 1e-7)].all()
    assert told.all() or baseline


def test_integers_have_no_rounding():
    y = np.tile([1_000_000, 1_000_001], 20)[:, None]
    assert pearson_r(y, y)[0] == pytest.approx(1.0)
