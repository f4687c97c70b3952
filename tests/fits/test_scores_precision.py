"""Scores of predictions that hardly vary around a large mean: as exact as the weights."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from braincorl import BayesianRidgeEncoder, RidgeEncoder
from braincorl.analysis import scaling_curve, score_encoder
from braincorl.datasets import SubjectData, VoxelSpace
from braincorl.errors import InputError
from braincorl.fits.scores import predict_exactly

N, TEST, P, V = 60, 80, 20, 300


def person(baseline, sd, dtype=np.float32, seed=0):
    """Features and responses of which little can be predicted: many voxels are shrunk to next to nothing."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N + TEST, P)).astype(dtype)
    signal = X @ rng.standard_normal((P, V)) * np.linspace(0, 0.3, V)
    return X, (baseline + sd * (signal + rng.standard_normal((N + TEST, V)))).astype(dtype)


def scores_of(encoder, X, y):
    space = VoxelSpace(np.ones(V, dtype=bool))
    names = np.array([f"image-{row}" for row in range(TEST)])
    subject = SubjectData(y[N:], names, space, np.ones(TEST, dtype=int))
    return score_encoder(encoder, space, X[N:], subject)


@pytest.mark.parametrize("make", [RidgeEncoder, BayesianRidgeEncoder])
@pytest.mark.parametrize(("baseline", "sd"), [(0, 1), (1e3, 6), (-1e3, 6), (1e4, 10), (1e5, 300), (20, 1e-2)])
def test_maps_of_r_agree_with_an_independent_computation(make, baseline, sd):
    X, y = person(baseline, sd)
    encoder = make().fit(X[:N], y[:N])
    scores = scores_of(encoder, X, y)
    exact = X[N:].astype(float) @ encoder.coef_.astype(float).T
    expected = np.array([pearsonr(a, b).statistic for a, b in zip(y[N:].T.astype(float), exact.T, strict=True)])
    np.testing.assert_allclose(scores["r"], expected, atol=1e-5)
    assert not (scores["r"] == 0).any()
    error = y[N:].astype(float) - exact
    np.testing.assert_allclose(scores["ev"], 1 - error.var(axis=0) / y[N:].astype(float).var(axis=0), atol=1e-5)


def test_a_large_baseline_costs_no_accuracy():
    X, y = person(0, 6)
    without = scores_of(RidgeEncoder().fit(X[:N], y[:N]), X, y)["r"]
    raised = (y + np.float32(1000)).astype(np.float32)
    with_baseline = scores_of(RidgeEncoder().fit(X[:N], raised[:N]), X, raised)["r"]
    assert with_baseline.mean() == pytest.approx(without.mean(), abs=0.003)


def test_learning_curves_are_as_exact():
    X, y = person(0, 6)
    raised = (y + np.float32(1000)).astype(np.float32)
    curves = [
        scaling_curve({"ridge": RidgeEncoder()}, X[:N], data[:N], [20, 40], 2, X_test=X[N:], y_test=data[N:])
        for data in (y, raised)
    ]
    np.testing.assert_allclose(curves[0]["r"], curves[1]["r"], atol=0.003)


@pytest.mark.parametrize("damage", ["too few", "one axis", "nan"])
def test_features_that_do_not_match_are_refused(damage):
    X, y = person(0, 1)
    encoder = RidgeEncoder().fit(X[:N], y[:N])
    bad = {"too few": X[:, :3], "one axis": X[0], "nan": np.where(X > 1, np.nan, X)}[damage]
    with pytest.raises(InputError, match="features"):
        predict_exactly(encoder, bad)
