import numpy as np
import pytest

from braincorl import BayesianRidgeEncoder, RidgeEncoder
from braincorl.analysis import scaling_curve, summarize_rois
from braincorl.analysis.scaling import summarize_curve
from braincorl.errors import InputError
from braincorl.metrics import explained_variance
from braincorl.questions.intervals import bootstrap_interval


@pytest.fixture
def data(rng):
    X, T, W = rng.standard_normal((40, 6)), rng.standard_normal((30, 6)), rng.standard_normal((4, 6))
    return X, X @ W.T + rng.standard_normal((40, 4)), T, T @ W.T


def test_a_curve_holds_every_fit(data):
    X, y, T, truth = data
    encoders = {"ridge": RidgeEncoder(), "bayes": BayesianRidgeEncoder}
    seen = []
    curve = scaling_curve(
        encoders, X, y, [40, 10, 20], 3, X_test=T, y_test=truth, progress=lambda done, total: seen.append((done, total))
    )
    assert len(curve) == 2 * (3 + 3 + 1)  # all images are one context
    assert seen[-1] == (14, 14)
    context = np.random.default_rng(1).permutation(40)[:10]
    expected = explained_variance(truth, BayesianRidgeEncoder().fit(X[context], y[context], X_pool=X).predict(T)).mean()
    row = curve[(curve["encoder"] == "bayes") & (curve["n_context"] == 10) & (curve["draw"] == 1)]
    assert row["ev"].item() == pytest.approx(expected)
    means = curve.groupby("n_context")["ev"].mean()
    assert means[10] < means[20] < means[40]
    assert (curve["seconds"] > 0).all()


def test_a_curve_is_summarised_with_its_spread(data):
    X, y, T, truth = data
    curve = scaling_curve({"ridge": RidgeEncoder()}, X, y, [10, 40], 2, X_test=T, y_test=truth)
    table = summarize_curve(curve, "ev")
    few = curve[curve["n_context"] == 10]["ev"]
    assert table.loc[0, "10"] == f"{few.mean():.3f} ± {few.std():.3f}"
    assert "±" not in table.loc[0, "40"]


def test_impossible_curves_are_refused(data):
    X, y, T, truth = data
    for changes in ({"counts": [1]}, {"counts": [41]}, {"counts": []}, {"n_draws": 0}, {"encoders": {}}):
        arguments = {"encoders": {"ridge": RidgeEncoder()}, "counts": [10], "n_draws": 1} | changes
        with pytest.raises(InputError, match="expected numbers between 2 and the 40 images"):
            scaling_curve(X=X, y=y, X_test=T, y_test=truth, **arguments)


def test_intervals_of_means_have_their_coverage(rng):
    inside = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.standard_normal(50), 300, 0.9, trial)
        inside += low < 0 < high
    assert 0.82 < inside / 200 < 0.96


def test_intervals_agree_with_the_normal_approximation(rng):
    values = rng.gamma(2.0, size=2000)
    low, high = bootstrap_interval(values, 2000)
    error = 1.96 * values.std() / np.sqrt(2000)
    np.testing.assert_allclose([low, high], [values.mean() - error, values.mean() + error], rtol=0.01)


def test_draws_widen_an_interval(rng):
    voxels = 0.1 * rng.standard_normal(300)
    draws = voxels + rng.standard_normal((5, 1))
    narrow, wide = bootstrap_interval(draws.mean(axis=0)), bootstrap_interval(draws)
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])


def test_missing_values_are_left_out(rng):
    values = rng.standard_normal(100)
    gaps = np.concatenate([values, [np.nan] * 50])
    np.testing.assert_allclose(bootstrap_interval(gaps), bootstrap_interval(values))
    assert np.isnan(bootstrap_interval(np.array([np.nan]))).all()
    with pytest.raises(InputError, match="level"):
        bootstrap_interval(values, level=1.0)


def test_region_tables_carry_intervals(rng):
    values = {"ev": rng.standard_normal((3, 20))}
    rois = {"A": np.arange(20) < 8, "empty": np.zeros(20, bool)}
    table = summarize_rois(values, rois, n_bootstrap=200).set_index("roi")
    assert table.loc["A", "ev_mean"] == pytest.approx(values["ev"][:, :8].mean())
    assert table.loc["A", "ev_low"] < table.loc["A", "ev_mean"] < table.loc["A", "ev_high"]
    assert table.loc["A", "ev_low"] == bootstrap_interval(values["ev"][:, :8], 200)[0]
    assert np.isnan(table.loc["empty", "ev_low"])
