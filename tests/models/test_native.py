import numpy as np
import pytest
import torch

from braincorl.closed_forms.evidence import SIGNAL_GRID, fit_evidence
from braincorl.errors import InputError
from braincorl.models.native import ANCHOR, NativeConfig, NativeTransformer
from braincorl.models.person import draw_folds, read_person
from braincorl.models.smoothers import NAMES, Spectrum, readout, smooth


def make_person(n=24, p=12, n_voxels=40, seed=0):
    """Features (n, p), standardised responses (n, V) of voxels that share directions, scale c."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) * (1 + np.arange(p)) ** -0.5
    weights = rng.standard_normal((p, 3)) @ rng.standard_normal((3, n_voxels))
    y = X @ weights + 2 * rng.standard_normal((n, n_voxels))
    return X, (y - y.mean(axis=0)) / y.std(axis=0), 1 / X.var(axis=0, ddof=1).sum()


def gram_of(X, scale):
    centred = X - X.mean(axis=0)
    return torch.from_numpy(scale * centred @ centred.T)


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = NativeTransformer(NativeConfig(width=16, depth=1)).double()
    for parameter in network.parameters():  # away from the closed form, so that every part has a say
        parameter.data += 0.3 * torch.randn_like(parameter)
    return network.eval()


def predict(network, X, y, scale, regions=None, chunk=4096):
    person, vectors = read_person(gram_of(X, scale), torch.from_numpy(y), regions, chunk=chunk)
    with torch.no_grad():
        signal, spread, gates = network(person)
    return vectors @ signal, spread, gates


def test_the_first_smoother_is_bayesian_ridge():
    X, y, scale = make_person()
    person, vectors = read_person(gram_of(X, scale), torch.from_numpy(y))
    coef, intercept, _ = fit_evidence(X, y, scale, SIGNAL_GRID)
    fitted = vectors @ smooth(person.smoothers, person.z)[0]
    np.testing.assert_allclose(fitted.numpy(), X @ coef.T + intercept - y.mean(axis=0), atol=1e-10)
    other = np.random.default_rng(1).standard_normal((5, X.shape[1]))
    cross = torch.from_numpy(scale * (other - X.mean(axis=0)) @ (X - X.mean(axis=0)).T)
    matrix = readout(cross, Spectrum(vectors, person.smoothers.values))
    predicted = matrix @ smooth(person.smoothers, person.z)[0]
    np.testing.assert_allclose(predicted.numpy(), other @ coef.T + intercept - y.mean(axis=0), atol=1e-8)


def test_the_second_is_bayesian_ridge_of_principal_components():
    X, y, scale = make_person()
    person, vectors = read_person(gram_of(X, scale), torch.from_numpy(y))
    left, strength, patterns = np.linalg.svd(y, full_matrices=False)
    kept = strength > 1e-8 * strength[0]
    components = (left * strength)[:, kept]
    coef, intercept, _ = fit_evidence(X, components, scale, SIGNAL_GRID)
    expected = (X @ coef.T + intercept - components.mean(axis=0)) @ patterns[kept]
    np.testing.assert_allclose((vectors @ smooth(person.smoothers, person.z)[1]).numpy(), expected, atol=1e-8)


def test_learned_covariance_has_the_trace_and_range_of_the_images(network):
    X, y, scale = make_person(n=24, p=6)
    person, _ = read_person(gram_of(X, scale), torch.from_numpy(y))
    smoothers = person.smoothers
    assert torch.all(smoothers.own_values >= 0)
    torch.testing.assert_close(smoothers.own_values.sum(), smoothers.values.sum())
    outside = smoothers.values < 1e-9  # six features leave most directions of 24 images without signal
    covariance = smoothers.own_vectors @ torch.diag(smoothers.own_values) @ smoothers.own_vectors.T
    assert covariance[outside][:, outside].abs().max() < 1e-9


def test_held_out_statistics_are_those_of_five_folds():
    """The share of left-out energy that Bayesian ridge explains, computed with the encoder itself."""
    X, y, scale = make_person(n_voxels=6)
    person, _ = read_person(gram_of(X, scale), torch.from_numpy(y))
    distance = ((X - X.mean(axis=0)) ** 2).sum(axis=1)
    fold = np.empty(len(X), dtype=int)
    fold[np.argsort(distance, kind="stable")] = np.arange(len(X)) % 5
    error, energy = np.zeros(6), np.zeros(6)
    for index in range(5):
        inside = fold != index
        coef, intercept, _ = fit_evidence(X[inside], y[inside], scale, SIGNAL_GRID)
        error += ((y[~inside] - X[~inside] @ coef.T - intercept) ** 2).sum(axis=0)
        energy += ((y[~inside] - y[inside].mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(person.statistics[:, 0, 3].numpy(), 1 - error / energy, atol=1e-8)


def test_order_of_images_does_not_matter(network):
    X, y, scale = make_person()
    order = np.random.default_rng(1).permutation(len(X))
    fitted, spread, _ = predict(network, X, y, scale)
    shuffled, same, _ = predict(network, X[order], y[order], scale)
    torch.testing.assert_close(shuffled, fitted[order], atol=1e-8, rtol=0)
    torch.testing.assert_close(same, spread)


def test_copies_of_an_image_share_a_fold_in_any_order(network):
    X, y, scale = make_person(n=12)
    X, y = np.repeat(X, 3, axis=0), np.random.default_rng(2).standard_normal((36, 40)) + np.repeat(y, 3, axis=0)
    fold = draw_folds(gram_of(X, scale)).numpy().reshape(12, 3)
    assert (fold == fold[:, :1]).all()
    assert set(fold[:, 0]) == set(range(5))
    order = np.random.default_rng(1).permutation(36)
    fitted = predict(network, X, y, scale)[0]
    torch.testing.assert_close(predict(network, X[order], y[order], scale)[0], fitted[order], atol=1e-8, rtol=0)


def test_order_of_voxels_and_batches_do_not_matter(network):
    X, y, scale = make_person()
    order = np.random.default_rng(1).permutation(y.shape[1])
    fitted, _, gates = predict(network, X, y, scale)
    shuffled, _, same = predict(network, X, y[:, order], scale, chunk=7)
    torch.testing.assert_close(shuffled, fitted[:, order], atol=1e-8, rtol=0)
    torch.testing.assert_close(same, gates[order], atol=1e-8, rtol=0)


def test_features_enter_through_their_gram_matrix_alone(network):
    X, y, scale = make_person()
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((30, X.shape[1])))[0]  # 12 features as 30
    fitted, _, _ = predict(network, X, y, scale)
    rotated, _, _ = predict(network, X @ rotation.T, y, scale)
    torch.testing.assert_close(rotated, fitted, atol=1e-8, rtol=0)


def test_training_starts_at_the_closed_form():
    X, y, scale = make_person()
    person, _ = read_person(gram_of(X, scale), torch.from_numpy(y).float())
    network = NativeTransformer(NativeConfig()).train()
    gates = network(person)[2]
    assert torch.all(gates[:, 0] > 0.8)
    torch.testing.assert_close(gates.sum(1), torch.ones(len(gates)))
    even = NativeTransformer(NativeConfig(closed_form_start=False)).train()(person)[2]
    torch.testing.assert_close(even, torch.full_like(even, 1 / len(NAMES)))


def test_insurance_mixes_the_anchor_in_when_the_network_is_used(network):
    X, y, scale = make_person()
    own = predict(network.train(), X, y, scale)[2]
    used = predict(network.eval(), X, y, scale)[2]
    torch.testing.assert_close(used, 0.5 * own + 0.5 * torch.tensor(ANCHOR, dtype=torch.float64))


def test_regions_are_read_where_they_are_known(network):
    X, y, scale = make_person()
    plain = predict(network, X, y, scale)[0]
    unknown = predict(network, X, y, scale, torch.full((y.shape[1],), -1))[0]
    known = predict(network, X, y, scale, torch.arange(y.shape[1]) // 20)[0]
    torch.testing.assert_close(unknown, plain)
    assert not torch.allclose(known, plain)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_shortest_contexts(network, n):
    X, y, scale = make_person(n=n)
    fitted, spread, gates = predict(network, X, y, scale)
    assert all(torch.isfinite(part).all() for part in (fitted, spread, gates))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 10, "n_heads": 4}, "multiple"), ({"depth": -1}, "positive"), ({"insurance": 1.5}, "from 0 to 1")],
)
def test_impossible_sizes(change, message):
    with pytest.raises(InputError, match=message):
        NativeConfig(**change)
