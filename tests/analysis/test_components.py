import numpy as np
import pytest
from sklearn.decomposition import PCA

from braincorl import RidgeEncoder
from braincorl.analysis import cluster_voxels, compare_encoders, embed_voxels, encoder_components, tuning_correlation
from braincorl.errors import InputError

P = 7


@pytest.fixture
def pool(rng):
    return rng.standard_normal((200, P)) @ rng.standard_normal((P, P)) + 2.0


def encoder_of(weights, pool):
    """Encoder with these weights, as ridge finds them without noise."""
    return RidgeEncoder(alphas=[1e-8]).fit(pool, pool @ np.asarray(weights).T + 1.0)


def test_components_are_those_of_the_predicted_responses(pool, rng):
    encoder = encoder_of(rng.standard_normal((30, P)) * np.geomspace(0.1, 10, 30)[:, None], pool)
    found = encoder_components(encoder, pool, 3)
    predicted = encoder.predict(pool)
    standard = (predicted - predicted.mean(axis=0)) / predicted.std(axis=0)
    u, s, vt = np.linalg.svd(standard, full_matrices=False)
    np.testing.assert_allclose(found.explained, (s**2 / (s**2).sum())[:3], rtol=1e-6)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(vt[:3].T * s[:3] / np.sqrt(len(pool))), atol=1e-6)
    time = (pool - pool.mean(axis=0)) @ found.weights.T
    np.testing.assert_allclose(np.abs(time), np.abs(u[:, :3] * np.sqrt(len(pool))), atol=1e-5)
    np.testing.assert_allclose(time.std(axis=0), 1.0, rtol=1e-6)
    assert (np.sign(found.scores).sum(axis=0) >= 0).all()


def test_the_metric_of_the_images_makes_arbitrary_weights_alike(rng):
    pool = rng.standard_normal((100, 3))
    pool[:, 2] = 0.0  # no image says anything along this feature
    one, other = (encoder_of(np.eye(3)[:1], rng.standard_normal((100, 3))) for _ in range(2))
    other.coef_ = one.coef_ + np.array([0.0, 0.0, 50.0])
    assert tuning_correlation(one, other, pool)[0] == pytest.approx(1.0)
    assert tuning_correlation(one, other)[0] < 0.1


def test_people_share_components_and_keep_their_voxels_apart(pool, rng):
    people = [encoder_of(rng.standard_normal((n, P)), pool) for n in (8, 5)]
    found = encoder_components(people, pool, 2)
    assert found.person.tolist() == [0] * 8 + [1] * 5
    alone = encoder_components(people[0], pool, P)
    both = encoder_components([people[0], people[0]], pool, P)
    np.testing.assert_allclose(both.explained, alone.explained, rtol=1e-8)


def test_clusters_are_found(pool, rng):
    centres = 10 * rng.standard_normal((3, P))
    truth = np.repeat([0, 1, 2], [20, 15, 10])
    encoder = encoder_of(centres[truth] + 0.1 * rng.standard_normal((45, P)), pool)
    labels, weights = cluster_voxels(encoder, pool, 3)
    np.testing.assert_array_equal(labels, truth)
    mean = RidgeEncoder(alphas=[1e-8]).fit(pool, pool @ weights.T)
    pattern = encoder_of(centres, pool)
    assert (tuning_correlation(mean, pattern, pool) > 0.99).all()


def test_voxels_with_like_predictions_are_neighbours_in_the_map(pool, rng):
    kind = np.repeat([0, 1, 2], [20, 15, 10])
    weights = 10 * rng.standard_normal((3, P))[kind] + 0.1 * rng.standard_normal((45, P))
    encoder = encoder_of(weights, pool)
    encoder.coef_[7] = 0.0
    plane = embed_voxels(encoder, pool)
    assert plane.shape == (45, 2)
    assert np.isnan(plane[7]).all()
    rest = np.delete(np.arange(45), 7)
    distance = np.linalg.norm(plane[rest, None] - plane[rest], axis=2) + 1e9 * np.eye(44)
    assert (kind[rest][distance.argmin(axis=1)] == kind[rest]).all()
    np.testing.assert_array_equal(plane, embed_voxels(encoder, pool))


def test_any_reducer_draws_the_map(pool, rng):
    people = [encoder_of(rng.standard_normal((n, P)), pool) for n in (8, 5)]
    plane = embed_voxels(people, pool, PCA(3), n_components=4)
    np.testing.assert_allclose(plane, PCA(3).fit_transform(encoder_components(people, pool, 4).scores))


def test_three_voxels_are_no_map(pool, rng):
    with pytest.raises(InputError, match="3 voxels have weights"):
        embed_voxels(encoder_of(rng.standard_normal((3, P)), pool), pool)


def test_tuning_correlation_is_that_of_predictions(pool, rng):
    one, other = (encoder_of(rng.standard_normal((9, P)), pool) for _ in range(2))
    a, b = one.predict(pool), other.predict(pool)
    expected = [np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(9)]
    np.testing.assert_allclose(tuning_correlation(one, other, pool), expected, rtol=1e-6)


def test_two_people_compare_by_region(pool, rng):
    one, other = encoder_of(rng.standard_normal((9, P)), pool), encoder_of(rng.standard_normal((6, P)), pool)
    rois, other_rois = {"FFA": np.arange(9) < 4, "V1": np.arange(9) > 6}, {"FFA": np.arange(6) < 2}
    table = compare_encoders(one, other, pool, rois, other_rois).set_index("roi")
    assert table.index.tolist() == ["all", "FFA"]

    def standard(encoder, members):
        predicted = encoder.predict(pool)[:, members]
        return (predicted - predicted.mean(axis=0)) / predicted.std(axis=0)

    a, b = standard(one, rois["FFA"]), standard(other, other_rois["FFA"])
    mean_r = np.corrcoef(a.mean(axis=1), b.mean(axis=1))[0, 1]
    cka = np.sum((a.T @ b) ** 2) / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    np.testing.assert_allclose(table.loc["FFA", ["mean_r", "cka"]].astype(float), [mean_r, cka], rtol=1e-6)
    rotated = encoder_of(np.linalg.qr(rng.standard_normal((9, 9)))[0] @ one.coef_, pool)
    assert compare_encoders(one, one, pool).loc[0, "cka"] == pytest.approx(1.0)
    assert compare_encoders(one, rotated, pool).loc[0, "cka"] > 0.5


def test_mistakes_are_told(pool, rng):
    one, narrow = encoder_of(rng.standard_normal((9, P)), pool), encoder_of(np.ones((2, 3)), pool[:, :3])
    with pytest.raises(InputError, match="of one feature space"):
        encoder_components([one, narrow])
    with pytest.raises(InputError, match="n_components must be between 1 and 7"):
        encoder_components(one, pool, 8)
    with pytest.raises(InputError, match="n_clusters must be between 1 and 9"):
        cluster_voxels(one, pool, 10)
    with pytest.raises(InputError, match="use compare_encoders"):
        tuning_correlation(one, narrow)
    with pytest.raises(InputError, match="does not match the voxels"):
        compare_encoders(one, one, pool, {"a": np.ones(3, bool)})
