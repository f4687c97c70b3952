import numpy as np
import pytest
import torch
from published import TINY, make_context, make_network

from braincorl import BayesianRidgeEncoder, InContextEncoder, RidgeEncoder
from braincorl.analysis import context_attention, context_by_roi, context_influence
from braincorl.errors import InputError
from braincorl.models import InferenceEngine


@pytest.fixture
def data():
    """X (9, 6) of unit norm, y (9, 5)."""
    X, y = make_context(TINY.n_features, n_context=9, n_voxels=5)
    return X, 3.0 * y.T + 2.0


@pytest.fixture(scope="module")
def engine(tiny_network):
    return InferenceEngine(tiny_network, device="cpu", precision="float64")


# -- attention ---------------------------------------------------------------------------------------------------------


def test_attention_is_that_of_the_token_that_becomes_the_weights(engine, data):
    X, y = data
    z = ((y - y.mean(axis=0)) / y.std(axis=0)).T
    maps = engine.attention(X, z, query_tokens=None)[:, :, :, 0, TINY.n_learned_tokens :].mean(axis=2)
    found = context_attention(engine, X, y, per_layer=True)
    np.testing.assert_allclose(found, maps / maps.sum(axis=-1, keepdims=True), rtol=1e-10)
    mean = maps.mean(axis=1)
    np.testing.assert_allclose(context_attention(engine, X, y), mean / mean.sum(axis=-1, keepdims=True), rtol=1e-10)
    last = context_attention(engine, X, y, layers=[-1])
    np.testing.assert_allclose(last, found[:, -1], rtol=1e-10)


def test_rollout_multiplies_the_layers(engine, data):
    X, y = data
    z = ((y - y.mean(axis=0)) / y.std(axis=0)).T
    maps = engine.attention(X, z, query_tokens=None).mean(axis=2)
    for voxel, layers in enumerate(maps):
        joint = np.eye(layers.shape[-1])
        for layer in layers:
            joint = 0.5 * (layer + np.eye(len(layer))) @ joint
        expected = joint[0, TINY.n_learned_tokens :]
        found = context_attention(engine, X, y, how="rollout")[voxel]
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-10)


def test_encoder_network_and_engine_agree(engine, tiny_network, data, tmp_path):
    X, y = data
    expected = context_attention(engine, X, y)
    np.testing.assert_allclose(expected.sum(axis=1), 1.0)
    np.testing.assert_allclose(context_attention(tiny_network, X, y), expected, rtol=1e-4)
    torch.save(make_network(TINY).state_dict(), tmp_path / "network.pth")
    encoder = InContextEncoder(tmp_path / "network.pth", device="cpu", precision="float64")
    np.testing.assert_allclose(context_attention(encoder, 7 * X, y), expected, rtol=1e-8)
    np.testing.assert_allclose(context_attention(encoder.fit(7 * X, y), 7 * X, y[:, 1:3]), expected[1:3], rtol=1e-8)


def test_order_of_the_context_and_units_do_not_matter(engine, data):
    X, y = data
    order = np.random.default_rng(1).permutation(9)
    expected = context_attention(engine, X, y)[:, order]
    np.testing.assert_allclose(context_attention(engine, X[order], 5 * y[order] - 1), expected, rtol=1e-8)


def test_constant_voxels_are_nan(engine, data):
    X, y = data
    y[:, 2] = 1.0
    found = context_attention(engine, X, y)
    assert np.isnan(found[2]).all()
    assert np.isfinite(found[[0, 1, 3, 4]]).all()


class Other:
    """Another network, which says in its own way what it attends to."""

    def attention(self, features, responses):
        return np.abs(responses) + 0.0 * features.sum(axis=1)


class Wrong:
    def attention(self, features, responses):
        return np.ones((2, 3))


def test_other_networks_plug_in(data):
    X, y = data
    z = np.abs((y - y.mean(axis=0)) / y.std(axis=0)).T
    np.testing.assert_allclose(context_attention(Other(), X, y), z / z.sum(axis=1, keepdims=True))
    with pytest.raises(InputError, match="attention of Wrong has shape"):
        context_attention(Wrong(), X, y)
    with pytest.raises(InputError, match="of the published network"):
        context_attention(Other(), X, y, layers=[0])


def test_mistakes_are_told(engine, data):
    X, y = data
    with pytest.raises(InputError, match="RidgeEncoder has no attention"):
        context_attention(RidgeEncoder(), X, y)
    with pytest.raises(InputError, match="how must be"):
        context_attention(engine, X, y, how="flow")
    with pytest.raises(InputError, match="rollout runs through all layers"):
        context_attention(engine, X, y, how="rollout", per_layer=True)
    with pytest.raises(InputError, match=r"pass y\.T"):
        context_attention(engine, X, y.T)


# -- influence ---------------------------------------------------------------------------------------------------------


def test_influence_is_what_leaving_out_changes(rng):
    """Least squares has it in closed form: leverage times the left-out residual (Cook and Weisberg)."""
    X = np.column_stack([rng.standard_normal((12, 3))])
    y = rng.standard_normal((12, 2))
    found = context_influence(RidgeEncoder(alphas=[1e-9]), X, y)
    design = np.column_stack([X, np.ones(12)])
    inverse = np.linalg.inv(design.T @ design)
    hat = design @ inverse @ design.T
    residual = y - hat @ y
    left_out = residual / (1 - np.diag(hat))[:, None]
    expected = np.sqrt(np.mean(hat**2, axis=1))[:, None] * np.abs(left_out)
    np.testing.assert_allclose(found, expected.T, rtol=1e-5)


def test_an_odd_trial_has_the_largest_influence(rng):
    X, pool = rng.standard_normal((30, 5)), rng.standard_normal((100, 5))
    y = X @ rng.standard_normal((5, 8)) + 0.3 * rng.standard_normal((30, 8))
    y[11] += 15.0
    seen = []
    influence = context_influence(
        BayesianRidgeEncoder(), X, y, pool, progress=lambda done, total: seen.append((done, total))
    )
    assert influence.shape == (8, 30)
    assert (influence.argmax(axis=1) == 11).all()
    assert seen[-1] == (31, 31)


def test_influence_needs_three_images(rng):
    with pytest.raises(InputError, match="at least 3"):
        context_influence(RidgeEncoder(), rng.standard_normal((2, 3)), rng.standard_normal((2, 1)))


# -- regions -----------------------------------------------------------------------------------------------------------


def test_regions_average_their_voxels_and_sort_their_images():
    attention = np.array([[0.2, 0.8], [0.6, 0.4], [np.nan, np.nan]])
    influence = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    rois = {"V1": np.array([False, True, True])}
    table = context_by_roi({"attention": attention, "influence": influence}, ["a", "b"], rois)
    everyone = table[table["roi"] == "all"].set_index("image")
    assert everyone.index.tolist() == ["b", "a"]
    np.testing.assert_allclose(everyone.loc["a", ["attention", "influence"]].astype(float), [0.4, 3.0])
    v1 = table[table["roi"] == "V1"].set_index("image")
    np.testing.assert_allclose(v1.loc["a", ["attention", "influence"]].astype(float), [0.6, 4.0])
    with pytest.raises(InputError, match="one column per image"):
        context_by_roi({"attention": attention}, ["a"], rois)
    with pytest.raises(InputError, match="has shape"):
        context_by_roi({"attention": attention}, ["a", "b"], {"V1": np.ones(2, bool)})


def test_the_native_networks_encoder_is_the_sum_of_its_images_terms():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 30)), rng.standard_normal((12, 5))
    y[:, 4] = 1.0
    shares = context_attention(InContextEncoder(), X, y)
    assert shares.shape == (5, 12)
    np.testing.assert_allclose(shares[:4].sum(axis=1), 1)
    assert np.isnan(shares[4]).all()
    # With more features than images the terms are unique: solve for them in another way.
    weights = InContextEncoder().fit(X, y).coef_[:4]
    centred = X - X.mean(axis=0)
    terms = np.linalg.lstsq(centred.T, weights.T, rcond=None)[0].T
    expected = np.abs(terms) * np.linalg.norm(centred, axis=1)
    np.testing.assert_allclose(shares[:4], expected / expected.sum(axis=1, keepdims=True), rtol=1e-4)
