import logging

import numpy as np
import pytest
import torch
from published import TINY, make_context, make_network
from sklearn.base import clone

from braincorl.encoders import load_encoder
from braincorl.encoders.in_context import InContextEncoder
from braincorl.errors import InputError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "authors.pth"
    torch.save(make_network(TINY).state_dict(), path)
    return path


@pytest.fixture
def data():
    """X (12, 6) of unit norm, y (12, 4) z-scored."""
    X, y = make_context(TINY.n_features, n_context=12, n_voxels=4)
    y = y.T
    return X, (y - y.mean(axis=0)) / y.std(axis=0)


def make_encoder(checkpoint, **options):
    return InContextEncoder(checkpoint, **{"device": "cpu", "precision": "float64", **options})


def test_weights_are_the_networks_own(checkpoint, data, tiny_network):
    X, y = data
    encoder = make_encoder(checkpoint).fit(X, y)
    weights = tiny_network(X, y.T).numpy()
    np.testing.assert_allclose(encoder.coef_, weights[:, :-1], rtol=1e-9)
    np.testing.assert_allclose(encoder.intercept_, weights[:, -1], rtol=1e-9)
    np.testing.assert_allclose(encoder.predict(X), X @ weights[:, :-1].T + weights[:, -1], rtol=1e-9)
    np.testing.assert_allclose(encoder.noise_variance_, np.mean((y - encoder.predict(X)) ** 2, axis=0))


def test_units_of_responses_and_features_are_the_users(checkpoint, data):
    X, y = data
    plain = make_encoder(checkpoint).fit(X, y)
    gain, offset = np.array([0.1, 2.0, 30.0, 1e4]), np.array([5.0, -1.0, 0.0, 300.0])
    scaled = make_encoder(checkpoint).fit(20 * X, gain * y + offset)
    np.testing.assert_allclose(scaled.predict(20 * X), gain * plain.predict(X) + offset, rtol=1e-9)
    np.testing.assert_allclose(scaled.coef_, gain[:, None] * plain.coef_ / 20, rtol=1e-9)
    np.testing.assert_allclose(scaled.noise_variance_, gain**2 * plain.noise_variance_, rtol=1e-9)


def test_prediction_is_linear_in_the_features_as_given(checkpoint, data, caplog):
    X, y = data
    X = X * np.linspace(0.95, 1.05, len(X))[:, None]
    with caplog.at_level(logging.WARNING):
        encoder = make_encoder(checkpoint).fit(X, y)
    assert "trained on features of equal length" in caplog.text
    np.testing.assert_allclose(encoder.predict(X), X @ encoder.coef_.T + encoder.intercept_, rtol=1e-12)


def test_the_pool_gives_the_length(checkpoint, data):
    X, y = data
    encoder = make_encoder(checkpoint).fit(X, y, X_pool=np.vstack([X, -X]))
    np.testing.assert_allclose(encoder.coef_, make_encoder(checkpoint).fit(X, y).coef_, rtol=1e-9)


def test_constant_voxels_get_weights_of_zero(checkpoint, data):
    X, y = data
    others = make_encoder(checkpoint).fit(X, y)
    y = y.copy()
    y[:, 2] = 0.1
    encoder = make_encoder(checkpoint).fit(X, y)
    assert not encoder.coef_[2].any()
    np.testing.assert_allclose(encoder.predict(X)[:, 2], 0.1)
    np.testing.assert_allclose(encoder.coef_[[0, 1, 3]], others.coef_[[0, 1, 3]], rtol=1e-9)


def test_single_precision_and_one_voxel(checkpoint, data):
    X, y = data
    encoder = make_encoder(checkpoint, precision="auto").fit(X.astype(np.float32), y[:, 0].astype(np.float32))
    assert encoder.coef_.dtype == encoder.intercept_.dtype == encoder.noise_variance_.dtype == np.float32
    assert encoder.predict(X).shape == (12,)
    exact = make_encoder(checkpoint).fit(X, y[:, 0])
    assert np.linalg.norm(encoder.coef_ - exact.coef_) < 0.05 * np.linalg.norm(exact.coef_)


def test_save_and_load(checkpoint, data, tmp_path):
    X, y = data
    encoder = make_encoder(checkpoint).fit(X, y)
    encoder.save(tmp_path / "encoder.safetensors")
    for loaded in (
        InContextEncoder.load(tmp_path / "encoder.safetensors"),
        load_encoder(tmp_path / "encoder.safetensors"),
    ):
        np.testing.assert_array_equal(loaded.predict(X), encoder.predict(X))
        assert loaded.provenance_["network"]["source"]["name"] == "authors.pth"
        assert loaded.provenance_["network"]["precision"] == "float64"


def test_behaves_as_an_estimator(checkpoint, data):
    X, y = data
    encoder = make_encoder(checkpoint, voxel_batch_size=3)
    assert clone(encoder).get_params() == encoder.get_params()
    seen = []
    assert encoder.fit(X, y, progress=lambda done, total: seen.append((done, total))) is encoder
    assert seen == [(3, 4), (4, 4)]
    assert np.isfinite(encoder.score(X, y))


def test_mistakes_name_their_remedy(checkpoint, data, tmp_path):
    X, y = data
    with pytest.raises(InputError, match="prior is for the native transformer"):
        make_encoder(checkpoint, prior="bold5000-resnet18").fit(X, y)
    with pytest.raises(InputError, match=r"absent\.pth does not exist"):
        make_encoder(tmp_path / "absent.pth").fit(X, y)
    with pytest.raises(InputError, match=r"X has 5 features.*reads 6 \(backbone: unknown\)"):
        make_encoder(checkpoint).fit(X[:, :5] / np.linalg.norm(X[:, :5], axis=1, keepdims=True), y)
    with pytest.raises(InputError, match=r"features of length 0.* keepdims=True"):
        make_encoder(checkpoint).fit(X * np.arange(12)[:, None], y)
    with pytest.raises(InputError, match="features of length 0 to 0"):
        make_encoder(checkpoint).fit(np.zeros_like(X), y)
    with pytest.raises(InputError, match="voxel_batch_size must be"):
        make_encoder(checkpoint, voxel_batch_size=0).fit(X, y)
    encoder = make_encoder(checkpoint).fit(X, y)
    with pytest.raises(InputError, match="features of length 10, but the context's had 1"):
        encoder.predict(10 * X)
    with pytest.raises(InputError, match="no predictive distribution"):
        encoder.predict(X, return_std=True)
