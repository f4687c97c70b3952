import numpy as np
import pytest

from braincorl import BandedRidgeEncoder
from braincorl.analysis import partition_variance
from braincorl.errors import InputError
from braincorl.metrics import explained_variance


def made(rng, n=60, n_new=80, n_voxels=24, overlap=0.0):
    """A third of the voxels told by each of two spaces, a third by both; the spaces may overlap: SIMULATION."""
    common = rng.standard_normal((n + n_new, 6))
    X = {name: np.sqrt(1 - overlap) * rng.standard_normal((n + n_new, 6)) + np.sqrt(overlap) * common for name in "ab"}
    kind = np.arange(n_voxels) % 3
    y = 0.6 * rng.standard_normal((n + n_new, n_voxels))
    for name, others in (("a", 1), ("b", 0)):
        signal = X[name] @ rng.standard_normal((6, n_voxels)) / np.sqrt(6)
        y += signal * (kind != others)
    return {k: v[:n] for k, v in X.items()}, y[:n], {k: v[n:] for k, v in X.items()}, y[n:], kind


def test_parts_are_what_their_names_say(rng):
    X, y, new, truth, _ = made(rng)
    encoder = BandedRidgeEncoder().fit(X, y)
    result = partition_variance(encoder, new, truth)
    ev = explained_variance(truth, encoder.predict(new))
    np.testing.assert_allclose(result.values["ev", "all"], ev)
    np.testing.assert_allclose(result.values["share", "a"] + result.values["share", "b"], ev)
    for name, other in ("ab", "ba"):
        coef, intercept = encoder.parts_[(other,)]
        alone = explained_variance(truth, new[other] @ coef.T + intercept)
        np.testing.assert_allclose(result.values["alone", other], alone)
        np.testing.assert_allclose(result.values["unique", name], ev - alone)
    total = sum(result.values[part] for part in (("unique", "a"), ("unique", "b"), ("shared", "all")))
    np.testing.assert_allclose(total, ev)


def test_voxels_go_to_the_space_that_tells_them(rng):
    X, y, new, truth, kind = made(rng)
    rois = {"a": kind == 0, "b": kind == 1, "both": kind == 2}
    result = partition_variance(BandedRidgeEncoder().fit(X, y), new, truth, rois=rois)
    np.testing.assert_array_equal(result.winner[kind < 2], 1 + kind[kind < 2])
    table = result.regions.set_index(["roi", "part", "space"])
    assert table.loc[("a", "unique", "a"), "low"] > 0.2
    assert abs(table.loc[("a", "unique", "b"), "mean"]) < 0.1
    assert abs(table.loc[("both", "shared", "all"), "mean"]) < 0.1
    for row in table.itertuples():
        assert row.low <= row.mean <= row.high


def test_spaces_that_overlap_share(rng):
    X, y, new, truth, kind = made(rng, n=200, overlap=0.9)
    result = partition_variance(BandedRidgeEncoder().fit(X, y), new, truth)
    assert result.values["shared", "all"].mean() > 0.3
    assert result.values["unique", "a"][kind == 1].mean() < 0.1


def test_intervals_over_images_cover_the_truth():
    """SIMULATION: parts on 5,000 new images are the truth, which intervals on 60 of them should hold."""
    rng = np.random.default_rng(3)
    X, y, new, truth, _ = made(rng, n_new=5000, n_voxels=30)
    encoder = BandedRidgeEncoder().fit(X, y)
    expected = partition_variance(encoder, new, truth, n_bootstrap=1).values
    covered = []
    for start in range(0, 600, 60):
        rows = slice(start, start + 60)
        some = partition_variance(encoder, {k: v[rows] for k, v in new.items()}, truth[rows], n_bootstrap=200)
        covered += [np.mean((some.low[key] <= expected[key]) & (expected[key] <= some.high[key])) for key in expected]
    assert 0.88 < np.mean(covered) < 0.98


def test_three_spaces_sum_and_voxels_stand_alone(rng):
    X = {name: rng.standard_normal((50, size)) for name, size in (("a", 4), ("b", 80), ("c", 7))}
    y = X["a"] @ rng.standard_normal((4, 600)) + rng.standard_normal((50, 600))
    y[:, 5], y[3, 6] = 1.0, np.nan
    train = {name: part[:30] for name, part in X.items()}
    encoder = BandedRidgeEncoder().fit(train, np.nan_to_num(y[:30]))
    test = {name: part[30:] for name, part in X.items()}
    y[33, 6] = np.nan
    whole = partition_variance(encoder, test, y[30:], n_bootstrap=50)
    np.testing.assert_allclose(sum(whole.values["share", name] for name in "abc"), whole.values["ev", "all"], atol=1e-9)
    assert np.isnan(whole.values["unique", "a"][5:7]).all()
    assert np.isnan(whole.winner[5:7]).all()
    assert set(encoder.parts_) == {("a", "b"), ("a", "c"), ("b", "c"), ("a",), ("b",), ("c",)}


def test_mistakes_are_named(rng):
    X, y, new, truth, _ = made(rng)
    with pytest.raises(InputError, match="has no parts"):
        partition_variance(BandedRidgeEncoder(partition=False).fit(X, y), new, truth)
    with pytest.raises(InputError, match="y has shape"):
        partition_variance(BandedRidgeEncoder().fit(X, y), new, truth[:, 1:])
