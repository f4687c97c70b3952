"""Several feature spaces: equal to a dense Gaussian process, and to one space where there is one."""

import numpy as np
import pytest
from scipy.stats import dirichlet_multinomial
from sklearn.utils.estimator_checks import parametrize_with_checks

from braincorl import BandedRidgeEncoder, BayesianRidgeEncoder, GroupPrior, load_encoder
from braincorl.closed_forms.evidence import SIGNAL_GRID, pool_scale
from braincorl.closed_forms.feature_spaces import fit_spaces, share_grid, standard_subsets
from braincorl.encoders.one_space import in_one_space
from braincorl.errors import InputError
from braincorl.metrics import explained_variance


@parametrize_with_checks([BandedRidgeEncoder()])
def test_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


def made(rng, n=24, sizes=(5, 40, 9), n_voxels=6, weights=(1.0, 1.0, 0.0), noise=1.0, queries=12):
    """Voxels told by each space with a known share of the signal: SIMULATION."""
    X = {f"space-{s}": 3.0 * s + (1 + s) * rng.standard_normal((n + queries, p)) for s, p in enumerate(sizes)}
    y = noise * rng.standard_normal((n + queries, n_voxels)) + 5.0
    for part, weight in zip(X.values(), weights, strict=True):
        signal = part @ rng.standard_normal((part.shape[1], n_voxels))
        y += np.sqrt(weight) * (signal - signal.mean(axis=0)) / signal.std(axis=0)
    return {k: v[:n] for k, v in X.items()}, y[:n], {k: v[n:] for k, v in X.items()}, y[n:]


def dense(X, y, queries, steps=None):
    """Mean, standard deviation and shares of one voxel from dense matrices, the intercept removed by contrasts."""
    n, spaces = len(y), list(X.values())
    contrasts = np.linalg.qr(np.c_[np.ones(n), np.random.default_rng(0).standard_normal((n, n - 1))])[0][:, 1:].T
    shares, log_prior = share_grid(len(spaces), steps)
    centred = [part - part.mean(axis=0) for part in spaces]
    new = [query - part.mean(axis=0) for query, part in zip(queries.values(), spaces, strict=True)]
    scales, nu = [pool_scale(part) for part in spaces], n - 1
    levels, means, variances, explained = [], [], [], []
    for point, prior in zip(shares, log_prior, strict=True):
        weights = [p * c for p, c in zip(point, scales, strict=True)]
        K = contrasts @ sum(w * part @ part.T for w, part in zip(weights, centred, strict=True)) @ contrasts.T
        cross = sum(w * q @ part.T for w, q, part in zip(weights, new, centred, strict=True)) @ contrasts.T
        own = sum(w * (q**2).sum(axis=1) for w, q in zip(weights, new, strict=True))
        z = contrasts @ y
        for r in SIGNAL_GRID:
            C = r * K + (1 - r) * np.eye(nu)
            quadratic = z @ np.linalg.solve(C, z)
            levels.append(prior - 0.5 * np.linalg.slogdet(C)[1] - nu / 2 * np.log(quadratic))
            means.append(y.mean() + r * cross @ np.linalg.solve(C, z))
            latent = r * own - r**2 * np.einsum("qn,nq->q", cross, np.linalg.solve(C, cross.T))
            variances.append(quadratic / nu * (latent + (1 - r) * (1 + 1 / n)) * nu / (nu - 2))
            explained.append(r * point)
    p = np.exp(np.array(levels) - max(levels))
    p /= p.sum()
    mean = p @ np.array(means)
    return mean, np.sqrt(p @ np.array(variances) + p @ (np.array(means) - mean) ** 2), p @ np.array(explained)


def remembered(rng, n_people=3, n=60):
    """SIMULATION: people whose voxels weigh two of the features of each space, and no other."""
    scale = {"space-0": np.r_[1.0, 1.0, np.zeros(18)], "space-1": np.r_[1.0, 1.0, np.zeros(28)]}
    people = []
    for _ in range(n_people):
        X = {name: rng.standard_normal((n, len(spread))) for name, spread in scale.items()}
        signal = sum(
            X[name] @ (spread[:, None] * rng.standard_normal((len(spread), 40))) for name, spread in scale.items()
        )
        people.append((X, signal + 1.5 * rng.standard_normal((n, 40)), signal))
    return people


def test_a_memory_of_earlier_people_tells_where_weights_lie(rng, tmp_path):
    """Equal to the same model for features times F, better than without where people are alike, kept by its file."""
    *earlier, (X, y, signal) = remembered(rng)
    prior = GroupPrior.fit([BandedRidgeEncoder().fit(*person[:2]) for person in earlier])
    few, new = ({name: part[rows] for name, part in X.items()} for rows in (slice(15), slice(15, None)))
    encoder = BandedRidgeEncoder(prior=prior).fit(few, y[:15])
    plain = BandedRidgeEncoder().fit(few, y[:15])
    gain = [explained_variance(signal[15:], fitted.predict(new)).mean() for fitted in (plain, encoder)]
    assert gain[1] > gain[0] + 0.1
    turned = {}
    for name, columns in encoder.columns_.items():
        learned, C = prior.moment[columns, columns], prior.pool_covariance[columns, columns]
        F = encoder.factors_[name]
        np.testing.assert_allclose(F @ F.T, np.eye(len(C)) / 2 / np.trace(C) + learned / 2 / np.trace(learned @ C))
        turned[name] = few[name] @ F, new[name] @ F
    same = BandedRidgeEncoder().fit({name: pair[0] for name, pair in turned.items()}, y[:15])
    expected = same.predict({name: pair[1] for name, pair in turned.items()}, return_std=True)
    np.testing.assert_allclose(encoder.predict(new, return_std=True), expected, rtol=1e-7)
    np.testing.assert_allclose(encoder.shares_, same.shares_)
    alone = same.parts_[("space-1",)]
    coef, intercept = encoder.parts_[("space-1",)]
    np.testing.assert_allclose(new["space-1"] @ coef.T + intercept, turned["space-1"][1] @ alone[0].T + alone[1])
    joined = np.concatenate(list(few.values()), axis=1)
    np.testing.assert_allclose(encoder.context_mean_, joined.mean(axis=0))
    centred = joined - joined.mean(axis=0)
    np.testing.assert_allclose(encoder.context_rows_.T @ encoder.context_rows_, centred.T @ centred, atol=1e-8)
    encoder.save(tmp_path / "e.safetensors")
    again = load_encoder(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(again.predict(new, return_std=True), encoder.predict(new, return_std=True))
    with pytest.raises(InputError, match="the prior was learned with 50"):
        BandedRidgeEncoder(prior=prior).fit({"one": few["space-0"]}, y[:15])


def test_one_space_is_the_whole_with_the_others_held(rng):
    X, y, new, _ = made(rng)
    encoder = BandedRidgeEncoder().fit(X, y)
    part = in_one_space(encoder, encoder.spaces_, "space-1")
    held = {name: np.tile(X[name].mean(axis=0), (12, 1)) for name in X} | {"space-1": new["space-1"]}
    for found, expected in zip(
        part.predict(new["space-1"], return_std=True), encoder.predict(held, return_std=True), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(InputError, match="no feature space 'space-7'"):
        in_one_space(encoder, encoder.spaces_, "space-7")
    with pytest.raises(InputError, match="features together"):
        in_one_space(encoder, {"space-0": 5}, "space-0")


@pytest.mark.parametrize(("n", "sizes"), [(24, (5, 40)), (40, (6, 4, 9)), (9, (30, 3, 20))])
def test_equals_a_dense_gaussian_process(rng, n, sizes):
    X, y, queries, _ = made(rng, n, sizes, 3, np.ones(len(sizes)))
    encoder = BandedRidgeEncoder().fit(X, y)
    mean, std = encoder.predict(queries, return_std=True)
    for voxel in range(3):
        expected, expected_std, shares = dense(X, y[:, voxel], queries)
        np.testing.assert_allclose(mean[:, voxel], expected, rtol=1e-6)
        np.testing.assert_allclose(std[:, voxel], expected_std, rtol=1e-5)
        np.testing.assert_allclose(encoder.shares_[voxel], shares, rtol=1e-5, atol=1e-9)


def test_parts_are_the_encoders_that_know_only_these_spaces(rng):
    """The encoder without a space is that of a grid without it, with the same relative prior."""
    X, y, queries, _ = made(rng, 20, (5, 30, 9), 4)
    encoder = BandedRidgeEncoder().fit(X, y)
    assert set(encoder.parts_) == {(a, b) for a in X for b in X if a < b} | {(name,) for name in X}
    first = ("space-0", "space-1")
    coef, intercept = encoder.parts_[first]
    steps = 6  # of three spaces
    few = [X[name] for name in first]
    alone = fit_spaces(few, y, [pool_scale(part) for part in few], steps=steps)
    np.testing.assert_allclose(coef, alone.coef, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(intercept, alone.intercept, rtol=1e-6)
    coef, intercept = encoder.parts_[("space-2",)]
    single = BayesianRidgeEncoder().fit(X["space-2"], y)
    np.testing.assert_allclose(queries["space-2"] @ coef.T + intercept, single.predict(queries["space-2"]), rtol=1e-6)


def test_one_space_is_bayesian_ridge(rng):
    X, y, queries, _ = made(rng, 15, (40,), 5, (1,))
    ours, plain = BandedRidgeEncoder().fit(X, y), BayesianRidgeEncoder().fit(X["space-0"], y)
    for one, other in zip(
        ours.predict(queries, return_std=True), plain.predict(queries["space-0"], return_std=True), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(ours.noise_variance_, plain.noise_variance_)
    np.testing.assert_allclose(ours.signal_fraction_, plain.signal_fraction_)


def test_batches_order_and_units_do_not_matter(rng):
    X, y, queries, _ = made(rng, 20, (5, 30), 130, (1, 1))
    encoder = BandedRidgeEncoder().fit(X, y)
    small = BandedRidgeEncoder(voxel_batch_size=7).fit(X, y)
    np.testing.assert_allclose(small.coef_, encoder.coef_, rtol=1e-10, atol=1e-13)
    turned = BandedRidgeEncoder().fit(dict(reversed(X.items())), y)
    np.testing.assert_allclose(turned.predict(queries), encoder.predict(queries), rtol=1e-8)
    np.testing.assert_allclose(turned.shares_[:, ::-1], encoder.shares_, rtol=1e-7, atol=1e-10)
    order = rng.permutation(20)
    mixed = BandedRidgeEncoder().fit({name: part[order] for name, part in X.items()}, y[order])
    np.testing.assert_allclose(mixed.coef_, encoder.coef_, rtol=1e-7, atol=1e-10)
    scaled = BandedRidgeEncoder().fit({"space-0": 1e4 * X["space-0"] - 7, "space-1": X["space-1"]}, 1e-3 * y)
    np.testing.assert_allclose(scaled.shares_, encoder.shares_, rtol=1e-6, atol=1e-10)


def test_named_features_and_columns_are_the_same(rng):
    X, y, queries, _ = made(rng, 20, (5, 30), 4, (1, 1))
    joined, more = (np.concatenate(list(part.values()), axis=1) for part in (X, queries))
    named, plain = BandedRidgeEncoder().fit(X, y), BandedRidgeEncoder(spaces={"space-0": 5, "space-1": 30})
    np.testing.assert_array_equal(plain.fit(joined, y).coef_, named.coef_)
    np.testing.assert_array_equal(plain.predict(more), named.predict(dict(reversed(queries.items()))))
    parts = named.predict_parts(queries)
    np.testing.assert_allclose(sum(parts.values()) + named.intercept_, named.predict(queries))


def test_shares_find_the_truth_and_a_space_of_noise_costs_little():
    """SIMULATION: three spaces, the last one of which tells nothing."""
    rng = np.random.default_rng(5)
    X, y, queries, new = made(rng, 80, (10, 150, 40), 60, (0.6, 0.4, 0.0), noise=0.7, queries=60)
    encoder = BandedRidgeEncoder().fit(X, y)
    found = encoder.shares_.mean(axis=0) / encoder.signal_fraction_.mean()
    np.testing.assert_allclose(found, [0.6, 0.4, 0.0], atol=0.12)
    joined = np.concatenate(list(X.values()), axis=1)
    plain = BayesianRidgeEncoder().fit(joined, y).predict(np.concatenate(list(queries.values()), axis=1))
    gain = explained_variance(new, encoder.predict(queries)).mean() - explained_variance(new, plain).mean()
    assert gain > 0.05


def test_the_grid_is_a_dirichlet_multinomial():
    for n_spaces, steps in ((2, 10), (3, 6), (6, 3)):
        shares, log_prior = share_grid(n_spaces)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        assert len(np.unique(shares, axis=0)) == len(shares)
        counts = np.rint(shares * steps).astype(int)
        np.testing.assert_allclose(log_prior, dirichlet_multinomial([0.5] * n_spaces, steps).logpmf(counts))
    assert standard_subsets(2) == [(1,), (0,)]
    assert len(standard_subsets(4)) == 8


def test_a_saved_encoder_is_the_same(rng, tmp_path):
    X, y, queries, _ = made(rng, 20, (5, 30), 4, (1, 1))
    encoder = BandedRidgeEncoder().fit(X, y)
    encoder.save(tmp_path / "e.safetensors")
    loaded = load_encoder(tmp_path / "e.safetensors")
    for one, other in zip(
        loaded.predict(queries, return_std=True), encoder.predict(queries, return_std=True), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert loaded.spaces_ == encoder.spaces_
    assert loaded.parts_.keys() == encoder.parts_.keys()
    for name, part in encoder.parts_.items():
        np.testing.assert_array_equal(loaded.parts_[name][0], part[0])


@pytest.mark.parametrize("sizes", [(3, 5), (4, 4)])
def test_a_saved_encoder_keeps_the_order_of_its_spaces(rng, tmp_path, sizes):
    """Headers sort their keys, weights do not."""
    X = {"gabor": rng.standard_normal((20, sizes[0])), "clip": rng.standard_normal((20, sizes[1]))}
    encoder = BandedRidgeEncoder().fit(X, X["gabor"] @ rng.standard_normal((sizes[0], 6)))
    encoder.save(tmp_path / "e.safetensors")
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert list(loaded.spaces_) == ["gabor", "clip"]
    np.testing.assert_array_equal(loaded.predict(X), encoder.predict(X))
    for name, part in encoder.predict_parts(X).items():
        np.testing.assert_array_equal(loaded.predict_parts(X)[name], part)


def test_constant_voxels_and_spaces_are_harmless(rng):
    X, y, queries, _ = made(rng, 20, (5, 30), 4, (1, 1))
    y[:, 2] = 7.0
    X["space-2"], queries["space-2"] = np.ones((20, 3)), np.ones((12, 3))
    encoder = BandedRidgeEncoder().fit(X, y)
    mean, std = encoder.predict(queries, return_std=True)
    np.testing.assert_array_equal(mean[:, 2], 7.0)
    assert np.isfinite(mean).all()
    assert np.isnan(std[:, 2]).all()  # what varies by nothing in 20 images may vary in others
    assert np.isfinite(np.delete(std, 2, axis=1)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: {}, "there are 0 feature spaces"),
        (lambda X: X | {"more": np.zeros((19, 2))}, "all need the same images"),
        (lambda X: X | {"flat": np.zeros(20)}, "the space 'flat' has shape"),
        (lambda X: X | {"bad": np.full((20, 2), np.nan)}, "the space 'bad' contains NaN"),
        (lambda X: X | {f"s{n}": np.zeros((20, 2)) for n in range(5)}, "there are 7 feature spaces"),
    ],
)
def test_mistakes_are_named(rng, change, message):
    X, y, _, _ = made(rng, 20, (5, 30), 4, (1, 1))
    with pytest.raises(InputError, match=message):
        BandedRidgeEncoder().fit(change(X), y)


def test_other_spaces_are_refused(rng):
    X, y, queries, _ = made(rng, 20, (5, 30), 4, (1, 1))
    encoder = BandedRidgeEncoder().fit(X, y)
    with pytest.raises(InputError, match="pass each of these"):
        encoder.predict({"space-0": queries["space-0"]})
    with pytest.raises(InputError, match="'space-1' has 29 features"):
        encoder.predict(queries | {"space-1": queries["space-1"][:, 1:]})
    with pytest.raises(InputError, match="spaces says"):
        BandedRidgeEncoder(spaces={"a": 3, "b": 3}).fit(X["space-0"], y)
