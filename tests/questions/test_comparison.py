import numpy as np
import pytest
from scipy.stats import permutation_test as scipy_test

from braincorl.analysis import compare_predictions
from braincorl.errors import InputError
from braincorl.metrics import explained_variance
from braincorl.questions.resampling import draw_counts, interval, resampled_ev


def made(rng, n_images=40, n_voxels=30, better=0.0):
    """Two predictions of the same signal with errors of their own, A's smaller by `better`: SIMULATION."""
    signal = rng.standard_normal((n_images, n_voxels))
    y = signal + rng.standard_normal(signal.shape)
    a, b = (signal + size * rng.standard_normal(signal.shape) for size in (1 - better, 1.0))
    return y, a, b


def test_changing_places_turns_the_sign_and_nothing_else(rng):
    y, a, b = made(rng, better=0.4)
    first, second = compare_predictions(y, a, b), compare_predictions(y, b, a)
    np.testing.assert_allclose(first.difference, -second.difference)
    np.testing.assert_allclose(first.low, -second.high)
    np.testing.assert_array_equal(first.p, second.p)
    np.testing.assert_allclose(first.ev_a, explained_variance(y, a))
    np.testing.assert_allclose(first.ev_b, explained_variance(y, b))


def test_a_voxel_is_what_it_would_be_alone_in_any_unit(rng):
    y, a, b = made(rng, n_voxels=900, better=0.3)
    whole = compare_predictions(y, a, b, n_permutations=50, n_bootstrap=50)
    part = compare_predictions(*(7 + 100 * x[:, 41:44] for x in (y, a, b)), n_permutations=50, n_bootstrap=50)
    np.testing.assert_array_equal(part.p, whole.p[41:44])
    np.testing.assert_allclose([part.low, part.high], [whole.low[41:44], whole.high[41:44]], rtol=1e-8)


def test_p_agrees_with_scipys_paired_permutations(rng):
    y, a, b = made(rng, n_voxels=3, better=0.3)
    ours = compare_predictions(y, a, b, n_permutations=4000).p
    a_errors, b_errors = ((y - x - (y - x).mean(axis=0)) ** 2 for x in (a, b))
    theirs = scipy_test(
        (a_errors, b_errors), lambda x, z, axis: (x - z).mean(axis=axis), permutation_type="samples",
        n_resamples=4000, vectorized=True, rng=2,
    )  # fmt: skip
    np.testing.assert_allclose(ours, theirs.pvalue, atol=0.03)


def test_resampled_scores_are_the_scores_of_the_resampled_images(rng):
    y, a, _ = made(rng, n_images=12, n_voxels=5)
    counts = draw_counts(12, 6)
    (drawn,) = resampled_ev(y, [y - a], counts)
    for row, count in zip(drawn, counts.astype(int), strict=True):
        rows = np.repeat(np.arange(12), count)
        np.testing.assert_allclose(row, explained_variance(y[rows], a[rows]))


def test_intervals_are_numpys_percentiles(rng):
    samples = rng.standard_normal((37, 4, 3))
    samples[3:9, 1, 1] = np.nan
    samples[:, 2, 0] = np.nan
    known = np.isfinite(samples).any(axis=0)
    expected = np.nanpercentile(samples[:, known], [5, 95], axis=0)
    found = interval(samples, 0.9)
    np.testing.assert_allclose(found[:, known], expected)
    assert np.isnan(found[:, ~known]).all()


def test_regions_are_means_over_their_voxels(rng):
    y, a, b = made(rng, better=0.5)
    rois = {"V1": np.arange(30) < 12, "none": np.zeros(30, dtype=bool)}
    result = compare_predictions(y, a, b, rois=rois)
    table = result.regions.set_index("roi")
    assert table.loc["V1", "difference"] == pytest.approx(result.difference[:12].mean())
    assert table.loc["V1", "low"] < table.loc["V1", "difference"] < table.loc["V1", "high"]
    assert table.loc["V1", "high"] - table.loc["V1", "low"] < (result.high - result.low)[:12].mean()
    assert table.loc["all", "p"] < 0.01
    assert np.isnan(table.loc["none", ["difference", "low", "p"]].astype(float)).all()


def test_equally_good_encoders_differ_no_more_often_than_promised_and_intervals_cover():
    """Errors that voxels share, too: SIMULATION."""
    rng = np.random.default_rng(4)
    found, covered = [], []
    for seed in range(80):
        y, a, b = made(rng, 40, 8)
        y += rng.standard_normal((40, 1))
        result = compare_predictions(y, a, b, n_permutations=99, n_bootstrap=200, random_state=seed)
        found.append([np.mean(result.p <= 0.05), result.regions["p"][0] <= 0.05])
        covered.append(np.mean((result.low < 0) & (result.high > 0)))
    assert np.all(np.mean(found, axis=0) < 0.12)
    assert 0.88 < np.mean(covered) < 0.98


def test_missing_voxels_are_left_out(rng):
    y, a, b = made(rng)
    y[:, 0], y[2, 1] = 3.0, np.nan
    result = compare_predictions(y, a, b)
    for values in (result.difference, result.low, result.p, result.q):
        assert np.isnan(values[:2]).all()
        assert np.isfinite(values[2:]).all()
    assert result.regions["n_voxels"][0] == 30
    assert result.regions["difference"][0] == pytest.approx(result.difference[2:].mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_b": np.zeros((40, 3))}, "have shapes"),
        ({"level": 95}, "level must be between 0 and 1"),
        ({"n_permutations": 0}, "n_permutations"),
        ({"n_bootstrap": 0}, "bootstrap samples"),
        ({"rois": {"V1": np.ones(2, dtype=bool)}}, "every region"),
    ],
)
def test_mistakes_are_named(rng, changes, message):
    y, a, b = made(rng)
    with pytest.raises(InputError, match=message):
        compare_predictions(**{"y_true": y, "y_a": a, "y_b": b} | changes)
