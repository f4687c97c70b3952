"""Encoders by attention as users meet them: `InContextEncoder()` and `InContextEncoder(prior=…)`."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from people import make_person as make_placed_person
from people import make_pool
from sklearn.utils.estimator_checks import parametrize_with_checks

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, load_checkpoint
from braincorl.encoders import load_encoder
from braincorl.errors import InputError
from braincorl.metrics import explained_variance


def make_person(n=40, p=16, n_voxels=60, seed=0):
    """SIMULATION: X (n, p), y (n, V) in odd units, and the noise-free responses to 200 images."""
    rng = np.random.default_rng(seed)
    X, queries = rng.standard_normal((n, p)), rng.standard_normal((200, p))
    directions = np.random.default_rng(99).standard_normal((p, 3))  # the same in all people
    weights = directions @ rng.standard_normal((3, n_voxels))
    y = X @ weights + 6 * rng.standard_normal((n, n_voxels))
    return X, 0.3 * y + 5, queries, 0.3 * queries @ weights + 5


@pytest.fixture(scope="module")
def prior():
    people = [make_person(60, seed=seed)[:2] for seed in (1, 2)]
    return GroupPrior.fit(people)


def test_the_default_needs_no_file_and_no_download():
    with pytest.raises(InputError, match="nothing is trained"):
        load_checkpoint("default")


def test_it_beats_bayesian_ridge_where_voxels_share_what_they_respond_to():
    X, y, queries, truth = make_person()
    ours = InContextEncoder().fit(X, y, X_pool=queries)
    ridge = BayesianRidgeEncoder().fit(X, y, X_pool=queries)
    gain = explained_variance(truth, ours.predict(queries)) - explained_variance(truth, ridge.predict(queries))
    assert gain.mean() > 0.03
    assert (gain > 0).mean() > 0.8


@parametrize_with_checks([InContextEncoder(device="cpu")])
def test_scikit_learn_estimator_contract(estimator, check):
    check(estimator)  # no exceptions are needed


def test_golden_values():
    """What is written for these numbers; a change here is a change for every user."""
    X, y, queries, _ = make_person()
    encoder = InContextEncoder(device="cpu").fit(X, y, X_pool=queries)
    predicted, std = encoder.predict(queries[:1], return_std=True)
    np.testing.assert_allclose(predicted[0, :3], GOLDEN["predicted"], rtol=1e-5)
    np.testing.assert_allclose(std[0, :3], GOLDEN["std"], rtol=1e-5)
    np.testing.assert_allclose(encoder.signal_fraction_[:3], GOLDEN["signal"], rtol=1e-5)


GOLDEN = {
    "predicted": [4.511438136, 6.305038467, 3.557930339],
    "std": [2.166536033, 2.499404948, 1.760683553],
    "signal": [0.238424345, 0.516187794, 0.484314981],
}


def test_units_are_the_users():
    X, y, queries, _ = make_person()
    plain = InContextEncoder().fit(X, y)
    gain = np.geomspace(0.01, 1e4, y.shape[1])
    scaled = InContextEncoder().fit(20 * X + 3, gain * y - 7)
    np.testing.assert_allclose(scaled.predict(20 * queries + 3), gain * plain.predict(queries) - 7, rtol=1e-6)
    np.testing.assert_allclose(scaled.noise_variance_, gain**2 * plain.noise_variance_, rtol=1e-6)


def test_prediction_is_linear_and_in_the_type_of_the_data():
    X, y, queries, _ = make_person()
    encoder = InContextEncoder().fit(X.astype("f4"), y.astype("f4"))
    assert encoder.coef_.dtype == np.float32
    expected = queries.astype("f4") @ encoder.coef_.T + encoder.intercept_
    np.testing.assert_allclose(encoder.predict(queries.astype("f4")), expected, rtol=1e-5)
    np.testing.assert_allclose(encoder.coef_, InContextEncoder().fit(X, y).coef_, atol=2e-4)


def test_voxel_batches_change_nothing():
    X, y, queries, _ = make_person()
    whole = InContextEncoder().fit(X, y).predict(queries)
    np.testing.assert_allclose(InContextEncoder(voxel_batch_size=7).fit(X, y).predict(queries), whole, atol=1e-8)
    with pytest.raises(InputError, match="voxel_batch_size must be 'auto' or a positive integer, but is '7'"):
        InContextEncoder(voxel_batch_size="7").fit(X, y)


def test_constant_voxels_get_zeros_and_disturb_nobody():
    X, y, queries, _ = make_person()
    spoilt = np.insert(y, 3, 2.5, axis=1)
    encoder = InContextEncoder().fit(X, spoilt)
    assert not encoder.coef_[3].any()
    assert encoder.intercept_[3] == pytest.approx(2.5)
    without = InContextEncoder().fit(X, y).predict(queries)
    np.testing.assert_allclose(np.delete(encoder.predict(queries), 3, axis=1), without, atol=1e-8)
    assert not InContextEncoder().fit(X, np.ones((len(X), 2))).coef_.any()


def test_a_spoilt_image_counts_for_less():
    X, y, queries, truth = make_person()
    spoilt = y.copy()
    spoilt[4] += 30 * np.random.default_rng(3).standard_normal(y.shape[1])
    encoder = InContextEncoder().fit(X, spoilt)
    assert encoder.image_weight_.argmin() == 4
    assert encoder.image_weight_[4] < 0.2
    lost = explained_variance(truth, BayesianRidgeEncoder().fit(X, spoilt).predict(queries)).mean()
    assert explained_variance(truth, encoder.predict(queries)).mean() > lost + 0.1
    clean = InContextEncoder().fit(X, y).predict(queries, return_std=True)[1]
    np.testing.assert_allclose(encoder.predict(queries, return_std=True)[1].mean(), clean.mean(), rtol=0.2)


def test_few_voxels_cannot_tell_a_spoilt_image():
    for seed in range(5):
        X, y, _, _ = make_person(n_voxels=3, seed=seed)
        assert (InContextEncoder().fit(X, y).image_weight_ == 1).all()


def test_many_voxels_in_any_order_find_the_same_spoilt_image():
    X, y, _, _ = make_person(20, 4, 3000)
    y[3, ::2] *= 6
    order = np.random.default_rng(0).permutation(3000)
    first, second = InContextEncoder().fit(X, y), InContextEncoder().fit(X, y[:, order])
    assert first.image_weight_[3] < 0.5
    np.testing.assert_allclose(second.image_weight_, first.image_weight_)


@pytest.mark.parametrize(("n", "p", "n_voxels"), [(2, 1, 1), (3, 50, 2), (12, 1, 5), (40, 3, 1)])
def test_any_number_of_images_features_and_voxels(n, p, n_voxels):
    X, y, queries, _ = make_person(n, p, n_voxels)
    predicted, std = InContextEncoder().fit(X, y).predict(queries, return_std=True)
    assert np.isfinite(predicted).all()
    assert (std > 0).all()


@pytest.mark.parametrize("with_prior", [False, True])
def test_save_and_load(tmp_path, with_prior, prior):
    X, y, queries, _ = make_person()
    encoder = InContextEncoder(prior=prior if with_prior else None).fit(X, y)
    encoder.save(tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    for ours, theirs in zip(encoder.predict(queries, True), again.predict(queries, True), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)
    np.testing.assert_array_equal(again.signal_fraction_, encoder.signal_fraction_)
    assert again.n_context_ == 40


def test_with_a_prior_it_is_attention_to_the_memory(prior):
    X, y, queries, truth = make_person(8)
    closed = GroupPriorEncoder(prior).fit(X, y, X_pool=queries)
    encoder = InContextEncoder(prior=prior).fit(X, y, X_pool=queries)
    np.testing.assert_array_equal(encoder.coef_, closed.coef_)
    alone = InContextEncoder().fit(X, y, X_pool=queries)
    gain = explained_variance(truth, encoder.predict(queries)) - explained_variance(truth, alone.predict(queries))
    assert gain.mean() > 0.05


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks on this system")
def test_a_forked_child_fits_too():
    """PyTorch's threads do not survive a fork: a child that waits for them waits for ever."""
    script = textwrap.dedent(
        """
        import os, signal
        import numpy as np, torch
        from braincorl import InContextEncoder

        torch.set_num_threads(2)
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((60, 40)), rng.standard_normal((60, 3000))
        first = InContextEncoder(device="cpu").fit(X, y).coef_
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            same = np.allclose(InContextEncoder(device="cpu").fit(X, y).coef_, first)
            os._exit(0 if same else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False).returncode == 0


def test_predicting_needs_no_memory(prior, tmp_path):
    """A memory may be larger than all encoders of a person: the file holds what was written, not what was read."""
    X, y, _, _ = make_person(8)
    InContextEncoder(prior=prior).fit(X, y).save(tmp_path / "encoder.safetensors")
    assert load_encoder(tmp_path / "encoder.safetensors").prior is None


def test_the_spread_is_that_of_all_heads_and_items():
    """Predictive variance of few heads, written out: noise, what ridge leaves open, and the spread between items."""
    rng = np.random.default_rng(5)
    pool = make_pool(rng)
    people = [make_placed_person(pool, rng) for _ in range(2)]
    new = make_placed_person(pool, rng)
    prior = GroupPrior.fit([person.pair for person in people], X_pool=pool)
    encoder = GroupPriorEncoder(prior, robust=False).fit(new.X[:6], new.y[:6])
    drawn = _draw_responses(encoder, prior, new.X[:6], new.y[:6], pool[:5], rng)
    # The draws take the voxel's variance as known; estimated from six images, it widens the spread, as in Student's t.
    expected = drawn.std(axis=0) * np.sqrt((6 - 1) / (6 - 3))
    found = encoder.predict(pool[:5], return_std=True)[1][:, :4]
    # The outer product of the spread along different directions is left out of the file, so that it holds on average.
    assert np.sqrt((found**2).mean() / (expected**2).mean()) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(found, expected, rtol=0.25)


def _draw_responses(encoder, prior, X, y, queries, rng, n_draws=4000):
    """New responses of four voxels (n_draws, q, 4) by sampling head, item, residual and noise."""
    from braincorl.models.attention import AttentionConfig, lay_out_heads

    config, items = AttentionConfig(), prior.items()
    heads = lay_out_heads(config, len(config.metrics), 1)
    shares = [s for s in config.metrics if s != config.attended_metric] + [config.attended_metric]
    mean, n = X.mean(axis=0), len(X)
    centring = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]
    rows, asked = centring.T @ (X - mean), queries - mean
    out = np.empty((n_draws, len(queries), 4))
    for voxel in range(4):
        deviation = y[:, voxel].std()
        z = centring.T @ (y[:, voxel] - y[:, voxel].mean()) / deviation
        chosen = rng.choice(len(heads.signal), n_draws, p=encoder.posterior_.probability[voxel])
        for head in np.unique(chosen):
            draws = np.flatnonzero(chosen == head)
            r, residual, gain = heads.signal[head], heads.residual[head], heads.gain[head]
            share = shares[heads.basis[head]]
            S = (1 - share) * items.moment + share * prior.scale * np.eye(len(mean))
            total = residual * rows @ S @ rows.T + (1 - r) * np.eye(n - 1)
            project = residual * S @ rows.T @ np.linalg.inv(total)
            spread = residual * S - project @ (residual * rows @ S)
            centres = np.zeros((len(draws), len(mean)))
            if gain > 0:
                misfit = z - gain * items.weights @ rows.T
                log = items.log_mass - 0.5 * np.einsum("jk,kl,jl->j", misfit, np.linalg.inv(total), misfit)
                p = np.exp(log - np.logaddexp.reduce(log))
                centres = gain * items.weights[rng.choice(len(p), len(draws), p=p)]
            weights = centres + (z - centres @ rows.T) @ project.T
            weights += rng.multivariate_normal(np.zeros(len(mean)), spread, len(draws), check_valid="ignore")
            noise = np.sqrt((1 - r) * (1 + 1 / n)) * rng.standard_normal((len(draws), len(queries)))
            out[draws, :, voxel] = (weights @ asked.T + noise) * deviation * np.sqrt(n / (n - 1))
    return out


def test_intervals_hold_what_they_promise():
    """SIMULATION: 95 % intervals of many voxels and new noisy responses."""
    rng = np.random.default_rng(0)
    X, y, queries, truth = make_person(30, n_voxels=200)
    predicted, std = InContextEncoder().fit(X, y, X_pool=queries).predict(queries, return_std=True)
    measured = truth + 0.3 * 6 * rng.standard_normal(truth.shape)
    assert 0.92 < (np.abs(measured - predicted) < 1.96 * std).mean() < 0.98


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"precision": "bfloat16"}, {}, "published networks"),
        ({"voxel_batch_size": 0}, {}, "voxel_batch_size"),
        ({}, {"rois": ["V1"] * 60}, "pass prior"),
        ({"checkpoint": "missing.safetensors"}, {}, "does not exist"),
    ],
)
def test_mistakes_name_their_remedy(options, arguments, message):
    X, y, _, _ = make_person()
    with pytest.raises(InputError, match=message):
        InContextEncoder(**options).fit(X, y, **arguments)


def test_spread_of_a_voxel_of_known_region_is_that_of_its_region_alone():
    """What is left open under the region's own residual metrics, as if no other voxel were remembered there."""
    rng = np.random.default_rng(3)
    kinds = {"A": np.diag([4.0, 1, 1, 0.1, 0.1, 0.1]), "B": np.diag([0.1, 0.1, 0.1, 1, 1, 4.0])}
    people, rois = [], []
    for _ in range(2):
        X = rng.standard_normal((80, 6))
        weights = np.vstack([rng.standard_normal((30, 6)) @ kinds[name] for name in "AB"])
        people.append((X, X @ weights.T + rng.standard_normal((80, 60))))
        rois.append(np.repeat(["A", "B"], 30))
    prior = GroupPrior.fit(people, rois)
    X, y = rng.standard_normal((4, 6)), rng.standard_normal((4, 5))
    queries = np.eye(6) * 3
    spread = {}
    for name in ("A", "B", ""):
        encoder = GroupPriorEncoder(prior, robust=False).fit(X, y, rois=np.repeat([name], 5))
        spread[name] = encoder.predict(queries, return_std=True)[1].mean(axis=1)
    assert spread["A"][0] > spread["B"][0]
    assert spread["B"][5] > spread["A"][5]
    mixed = GroupPriorEncoder(prior, robust=False).fit(X, y, rois=["A", "B", "", "B", "A"])
    alone = GroupPriorEncoder(prior, robust=False).fit(X, y[:, 1:2], rois=["B"])
    np.testing.assert_allclose(
        mixed.predict(queries, return_std=True)[1][:, 1], alone.predict(queries, return_std=True)[1][:, 0], rtol=1e-6
    )
