"""`InContextEncoder` with the network that comes with the package."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, load_checkpoint
from braincorl.checkpoint import find_checkpoint
from braincorl.encoders import load_encoder
from braincorl.encoders.native import fit_native
from braincorl.errors import InputError
from braincorl.metrics import explained_variance
from braincorl.models import NativeTransformer


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
    return GroupPrior.fit(people, n_components=1)


def test_the_default_needs_no_file_and_no_download():
    assert isinstance(load_checkpoint("default"), NativeTransformer)
    assert find_checkpoint("default").is_relative_to(find_checkpoint("native-2026-11").parent)
    with pytest.raises(InputError, match="native-2026-11"):
        load_checkpoint("nosuch")


def test_it_beats_bayesian_ridge_where_voxels_share_what_they_respond_to():
    X, y, queries, truth = make_person()
    ours = InContextEncoder().fit(X, y, X_pool=queries)
    ridge = BayesianRidgeEncoder().fit(X, y, X_pool=queries)
    gain = explained_variance(truth, ours.predict(queries)) - explained_variance(truth, ridge.predict(queries))
    assert gain.mean() > 0.05
    assert (gain > 0).mean() > 0.9


@parametrize_with_checks([InContextEncoder(device="cpu")])
def test_scikit_learn_estimator_contract(estimator, check):
    check(estimator)  # no exceptions are needed


def test_golden_values():
    """What the shipped network writes for these numbers; a change here is a change for every user."""
    X, y, queries, _ = make_person()
    encoder = InContextEncoder(device="cpu").fit(X, y, X_pool=queries)
    predicted, std = encoder.predict(queries[:1], return_std=True)
    np.testing.assert_allclose(predicted[0, :3], GOLDEN["predicted"], rtol=1e-4)
    np.testing.assert_allclose(std[0, :3], GOLDEN["std"], rtol=1e-4)
    np.testing.assert_allclose(encoder.shares_[0], GOLDEN["shares"], atol=1e-4)


GOLDEN = {
    "predicted": [4.26825, 6.58491, 3.28027],
    "std": [2.21414, 2.33915, 1.67498],
    "shares": [0.184137, 0.301591, 0.0907051, 0.282688, 0.0697489],
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
        fit_native(load_checkpoint("default"), X, y, 1.0, voxel_batch_size="7")


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
    np.testing.assert_array_equal(again.shares_, encoder.shares_)
    assert again.provenance_["network"]["architecture"] == "native"


def test_with_a_prior_it_is_the_mean_of_network_and_closed_form(prior):
    X, y, queries, truth = make_person(8)
    closed = GroupPriorEncoder(prior, hedge=False).fit(X, y, X_pool=queries)
    encoder = InContextEncoder(prior=prior).fit(X, y, X_pool=queries)
    alone = InContextEncoder().fit(X, y, X_pool=queries)
    np.testing.assert_allclose(encoder.prior_encoder_.coef_, closed.coef_)
    # What remains is the network in the metric of the prior, a fifth.
    metric = (encoder.coef_ - 0.4 * alone.coef_ - 0.4 * closed.coef_) / 0.2
    assert np.abs(metric - alone.coef_).max() > 0.05 * np.abs(alone.coef_).max()
    assert np.abs(metric - closed.coef_).max() > 0.05 * np.abs(closed.coef_).max()
    score = {name: explained_variance(truth, e.predict(queries)).mean() for name, e in
             {"alone": alone, "closed": closed, "both": encoder}.items()}  # fmt: skip
    assert score["both"] > score["alone"]
    np.testing.assert_allclose(encoder.predict(queries, True)[1], closed.predict(queries, True)[1])


def test_where_regions_are_known_the_posterior_counts_for_more():
    people = [make_person(60, seed=seed)[:2] for seed in (1, 2)]
    rois = np.resize(["V1", "PPA"], 60)
    prior = GroupPrior.fit(people, [rois, rois], n_components=1)
    X, y, queries, _ = make_person(8)
    rois = np.resize(["V1", "PPA", ""], 60)
    closed = GroupPriorEncoder(prior, hedge=False).fit(X, y, X_pool=queries, rois=rois)
    encoder = InContextEncoder(prior=prior).fit(X, y, X_pool=queries, rois=rois)
    network = InContextEncoder().fit(X, y, X_pool=queries, rois=rois)
    mean = 0.25 * network.coef_ + 0.75 * closed.coef_
    np.testing.assert_allclose(encoder.coef_[rois != ""], mean[rois != ""])
    assert not np.isclose(encoder.coef_[rois == ""], mean[rois == ""]).any(axis=1).all()


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
        ({}, {"rois": ["V1"]}, "60 voxels"),
        ({"checkpoint": "missing.safetensors"}, {}, "one of: default"),
    ],
)
def test_mistakes_name_their_remedy(options, arguments, message):
    X, y, _, _ = make_person()
    with pytest.raises(InputError, match=message):
        InContextEncoder(**options).fit(X, y, **arguments)
