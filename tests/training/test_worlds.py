from dataclasses import replace

import numpy as np
import pytest
import torch

from braincorl import RidgeEncoder
from braincorl.errors import InputError
from braincorl.priors import GroupPrior
from braincorl.training.episodes import Episodes, prepare_episode
from braincorl.training.objective import explained, ridge_score
from braincorl.training.real import RealPeople
from braincorl.training.real_images import ImagePool, read_images
from braincorl.training.recipe import RealConfig
from braincorl.training.voxels import Memory, draw_features, draw_noise, log_integer, remembered_weights, shared_weights
from braincorl.training.worlds import WorldConfig, draw_episode

SMALL = WorldConfig(n_images=(4, 30), n_query=20, n_voxels=(8, 40))


@pytest.fixture(scope="module")
def prior():
    """SIMULATION: voxels of two regions, each along two directions of its own, in twelve features that covary."""
    rng = np.random.default_rng(0)
    X = 3 + rng.standard_normal((200, 12)) @ rng.standard_normal((12, 12))
    signal = (X - X.mean(axis=0)) @ np.hstack(
        [rng.standard_normal((12, 2)) @ rng.standard_normal((2, 40)) for _ in "ab"]
    )
    signal /= signal.std(axis=0)
    return GroupPrior.fit([(X, signal + 0.1 * rng.standard_normal(signal.shape))], rois=[np.repeat(["a", "b"], 40)])


@pytest.fixture(scope="module")
def memory(prior):
    return Memory.of(prior)


def test_people_are_within_the_ranges_and_noise_adds_to_the_truth(memory):
    for seed in range(30):
        episode = draw_episode(SMALL, 12, [memory], [], np.random.default_rng(seed))
        n, p = episode.features.shape
        assert 4 <= n <= 30
        assert 8 <= episode.responses.shape[1] <= 40
        assert episode.truth.shape == episode.measured.shape == (20, episode.responses.shape[1])
        assert p == 12
        assert np.isfinite(episode.responses).all()
        assert episode.measured.var() > episode.truth.var()


def test_noise_has_unit_variance_and_is_shared_only_in_brain_like_people():
    regions = np.repeat(np.arange(4), 50)
    plain = draw_noise(4000, regions, False, np.random.default_rng(0))
    correlation = np.corrcoef(plain.T) - np.eye(200)
    assert np.abs(correlation).max() < 0.1
    variances, shared = [], []
    for seed in range(20):
        noise = draw_noise(2000, regions, True, np.random.default_rng(seed))
        variances.append(np.median(noise.var(axis=0)))
        shared.append(np.abs(np.corrcoef(noise.T) - np.eye(200)).max())
    assert 0.8 < np.median(variances) < 1.4  # spoilt images add to it
    assert np.mean(np.array(shared) > 0.2) > 0.5


def test_shared_weights_give_unit_signals():
    spectrum = (1.0 + np.arange(30)) ** -1.5
    for seed in range(5):
        weights = shared_weights(spectrum, np.repeat([0, 1], 40), np.random.default_rng(seed))
        assert np.median((weights**2) @ spectrum) == pytest.approx(1, rel=0.5)


def test_a_memory_says_of_images_what_its_prior_says(prior, memory):
    """Signals of remembered voxels, and their second moment, from coordinates and from features."""
    drawn = (draw_features(50, 12, memory, np.random.default_rng(seed)) for seed in range(100))
    features, coordinates, spectrum = next(draw for draw in drawn if draw[2] is memory.spectrum)
    by_coordinates = coordinates @ (memory.weights / np.sqrt(spectrum)).T
    np.testing.assert_allclose(by_coordinates, (features - prior.feature_mean) @ prior.weights.T, atol=1e-5)
    np.testing.assert_allclose((memory.weights**2).sum(axis=1), 1, rtol=1e-4)
    turned = memory.axes * np.sqrt(memory.spectrum)
    np.testing.assert_allclose(memory.factor @ memory.factor.T, turned.T @ prior.moment @ turned, atol=1e-8)
    covariance = memory.axes.T @ prior.pool_covariance @ memory.axes
    np.testing.assert_allclose(covariance, np.diag(memory.spectrum), atol=1e-8)


def test_voxels_are_like_remembered_ones_of_one_region(memory):
    regions = np.repeat(np.arange(6), 2000)
    weights = remembered_weights(memory, memory.spectrum, regions, np.random.default_rng(0))
    energy = weights * np.sqrt(memory.spectrum)
    assert np.mean(energy**2) * 12 == pytest.approx(1, abs=0.05)
    cosines = energy @ memory.weights.T / np.linalg.norm(energy, axis=1, keepdims=True)
    alike, nearest = cosines.max(axis=1), memory.region[cosines.argmax(axis=1)]
    assert np.mean(alike > 0.99) > 0.05
    in_second = [np.mean(nearest[(regions == region) & (alike > 0.99)]) for region in range(6)]
    # A voxel that is hardly like its own may by chance be like one of the other region.
    assert min(in_second) < 0.2
    assert max(in_second) > 0.8
    assert all(abs(share - 0.5) > 0.3 for share in in_second)


def test_voxels_are_carried_to_other_feature_spaces(memory):
    for p in (5, 40):
        spectrum = (1.0 + np.arange(p)) ** -1.0
        weights = remembered_weights(memory, spectrum, np.zeros(50, dtype=int), np.random.default_rng(0))
        assert weights.shape == (50, p)
        assert np.isfinite(weights).all()


def test_an_episode_is_its_number():
    def draw(rng):
        return draw_episode(SMALL, 6, [], [], rng)

    some = Episodes(draw, (1, 2), [5, 9])
    other = Episodes(draw, (1, 2), range(20))
    np.testing.assert_array_equal(some.drawn(1).responses, other.drawn(9).responses)
    np.testing.assert_array_equal(some[1].responses, other[9].responses)
    assert not np.array_equal(some.drawn(0).features[:2, :2], some.drawn(1).features[:2, :2])


def test_prepared_episodes_are_in_the_units_of_the_published_network():
    """Without noise, encoders of unit-norm features predict the queries' truth."""
    rng = np.random.default_rng(0)
    episode = draw_episode(WorldConfig((40, 40), 20, (30, 30), brain_like=0.0), 3, [], [], rng)
    X, Q = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (episode.features, episode.query_features))
    W = rng.standard_normal((3, 30))
    item = prepare_episode(replace(episode, responses=5 + X @ W, truth=5 + Q @ W, measured=5 + Q @ W))
    np.testing.assert_allclose(item.responses.mean(dim=1), 0, atol=1e-5)
    np.testing.assert_allclose(item.responses.std(dim=1, correction=0), 1, rtol=1e-5)
    design = np.column_stack([item.features, np.ones(40)])
    encoders = np.linalg.lstsq(design, item.responses.T.numpy(), rcond=None)[0]
    predicted = np.column_stack([item.query_features, np.ones(20)]) @ encoders
    np.testing.assert_allclose(predicted, item.truth, atol=1e-4)
    assert explained(torch.from_numpy(predicted), item) == pytest.approx(1, abs=0.01)
    assert explained(torch.zeros(20, 30), item) == 0
    assert prepare_episode(episode, n_voxels=7).truth.shape == (20, 7)


def test_the_score_of_ridge_is_that_of_its_predictions():
    episode = draw_episode(WorldConfig((40, 40), 20, (9, 9), brain_like=0.0), 3, [], [], np.random.default_rng(0))
    item = prepare_episode(episode)
    predicted = RidgeEncoder().fit(episode.features, episode.responses).predict(episode.query_features)
    standard = (predicted - episode.responses.mean(axis=0)) / episode.responses.std(axis=0)
    assert ridge_score(episode) == pytest.approx(explained(torch.from_numpy(standard), item), abs=2e-3)


def test_voxels_that_do_not_vary_are_left_out():
    episode = draw_episode(WorldConfig((20, 20), 20, (9, 9)), 5, [], [], np.random.default_rng(1))
    constant = [0, 4]
    responses = episode.responses.copy()
    responses[:, constant] = 3.0
    item = prepare_episode(replace(episode, responses=responses))
    varying = np.delete(np.arange(9), constant)
    y = responses[:, varying]
    expected = (episode.truth[:, varying] - y.mean(axis=0)) / y.std(axis=0)
    np.testing.assert_allclose(item.truth.numpy(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="no voxel"):
        prepare_episode(replace(episode, responses=np.ones_like(responses)))


def test_log_integers_cover_their_range():
    rng = np.random.default_rng(0)
    drawn = [log_integer((2, 5), rng) for _ in range(500)]
    assert set(drawn) == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images": (1, 5)}, "at least 2"),
        ({"n_voxels": (9, 3)}, "low to high"),
        ({"brain_like": 2}, "shares"),
        ({"real_images": -1}, "shares"),
    ],
)
def test_impossible_worlds(change, message):
    with pytest.raises(InputError, match=message):
        WorldConfig(**change)


def test_real_people_keep_context_and_queries_apart():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 6))
    responses = np.arange(50)[:, None] + rng.standard_normal((50, 8))
    responses[:10] = np.nan  # not seen
    config = RealConfig("f", ("a",), ("b",), n_images=(5, 20), n_query=10)
    people = RealPeople(config, features, [responses])
    for seed in range(20):
        episode = people.draw(np.random.default_rng(seed))
        images = [tuple(row) for row in np.vstack([episode.features, episode.query_features])]
        assert len(set(images)) == len(images)
        assert 5 <= len(episode.features) <= 20
        assert episode.responses.min() > 5
    with pytest.raises(InputError, match="too few"):
        RealPeople(config, features, [np.full((50, 8), np.nan)])
    with pytest.raises(InputError, match="50 images"):
        RealPeople(config, features, [responses[:20]])


@pytest.fixture(scope="module")
def photos():
    """Features in the place of real ones: 80 images, 12 features, their mean far from the origin."""
    rng = np.random.default_rng(0)
    return 5 + rng.standard_normal((80, 12)) @ rng.standard_normal((12, 12))


def rows_of(images, episode):
    """Which images of a file an episode shows, context first."""
    shown = np.vstack([episode.features, episode.query_features])
    same = (images[None] == shown[:, None]).all(axis=2)
    assert (same.sum(axis=1) == 1).all()
    return same.argmax(axis=1)


def test_real_images_are_rows_of_the_file_in_the_context_or_among_the_queries(photos, memory):
    world, pool = replace(SMALL, real_images=1.0, n_images=(4, 500)), ImagePool.of(photos)
    lengths, seen = [], set()
    for seed in range(60):
        episode = draw_episode(world, 12, [memory], [pool], np.random.default_rng(seed))
        rows = rows_of(photos, episode)
        assert len(set(rows)) == len(rows)
        assert len(episode.query_features) == 20
        assert np.isfinite(episode.responses).all()
        lengths.append(len(episode.features))
        seen |= set(rows)
    assert min(lengths) == 4
    assert 45 < max(lengths) <= 60  # as far as the file goes
    assert len(seen) == 80


def test_responses_to_real_images_are_linear_in_them(photos):
    """Weights that exist in the file's own features, found by least squares; ceilings of .7 at most."""
    world = WorldConfig((59, 60), 20, (30, 30), brain_like=0.0, real_images=1.0)
    episode = draw_episode(world, 12, [], [ImagePool.of(photos)], np.random.default_rng(3))
    design = np.column_stack([episode.query_features, np.ones(20)])
    fitted = design @ np.linalg.lstsq(design, episode.truth, rcond=None)[0]
    np.testing.assert_allclose(fitted, episode.truth, atol=1e-9)
    whole = draw_episode(
        replace(world, n_query=4, n_images=(76, 76)), 12, [], [ImagePool.of(photos)], np.random.default_rng(0)
    )
    assert 0 < whole.truth.var(axis=0).max() < 2
    assert np.vstack([whole.responses, whole.measured]).var(axis=0).mean() == pytest.approx(1, abs=0.2)


def test_components_of_images_are_their_features_turned(photos):
    pool = ImagePool.of(photos)
    centred = photos - photos.mean(axis=0)
    np.testing.assert_allclose(pool.coordinates @ pool.coordinates.T, centred @ centred.T, atol=1e-9)
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(photos.T))[::-1], pool.spectrum)
    assert ImagePool.of(photos[:6]).coordinates.shape == (6, 5)
    with pytest.raises(InputError, match="do not vary"):
        ImagePool.of(np.ones((5, 3)))


def test_the_share_of_people_with_real_images(photos):
    pools = [ImagePool.of(photos), ImagePool.of(photos[:, :3])]
    world = replace(SMALL, real_images=0.5)
    p = [draw_episode(world, 20, [], pools, np.random.default_rng(seed)).features.shape[1] for seed in range(200)]
    assert 70 < sum(count < 20 for count in p) < 130
    assert 30 < p.count(3) < 70
    again = draw_episode(world, 20, [], pools, np.random.default_rng(7))
    np.testing.assert_array_equal(
        draw_episode(world, 20, [], pools, np.random.default_rng(7)).responses, again.responses
    )
    without = draw_episode(replace(world, real_images=0.0), 20, [], pools, np.random.default_rng(7))
    assert without.features.shape[1] == 20


def test_files_of_images(photos, tmp_path):
    np.savez(tmp_path / "photos.npz", features=photos, image_ids=[f"i{i}" for i in range(80)])
    (pool,) = read_images([str(tmp_path / "photos.npz")], 80)
    np.testing.assert_array_equal(pool.features, photos)
    with pytest.raises(InputError, match="has 80 images, but the smallest context and n_query take 81"):
        read_images([str(tmp_path / "photos.npz")], 81)
    with pytest.raises(InputError, match=r"nosuch\.npz does not exist"):
        read_images([str(tmp_path / "nosuch.npz")], 2)
