import numpy as np
import pytest

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, RidgeEncoder, load_encoder
from braincorl.errors import FileFormatError, InputError
from braincorl.metrics import explained_variance
from braincorl.priors.people import covariance_of


@pytest.fixture
def people(rng, pool, mixture, draw_voxels):
    """Three people with their own images, voxel counts and units; the third is new."""
    found = []
    for n_images, n_voxels, scale in ((60, 150, 1.0), (80, 120, 7.0), (70, 200, 0.1)):
        X = pool[rng.permutation(400)[:n_images]]
        y, weights, kind = draw_voxels(mixture, X, n_voxels, 0.3, rng, scale)
        found.append((X, y, weights, np.array(["a", "b", ""])[kind]))
    return found


@pytest.fixture
def prior(people):
    pairs, rois = [p[:2] for p in people[:2]], [p[3] for p in people[:2]]
    return GroupPrior.fit(pairs, rois, n_components=2, shrinkage=10.0, provenance={"backbone": "made up"})


def test_em_sees_through_the_noise_of_the_training_weights(rng):
    """The covariance of noisy weights is inflated where features are weak; the learned one is not."""
    p, spread = 8, np.linspace(1.5, 0.1, 8)
    pairs, estimates = [], []
    for _ in range(3):
        X = rng.standard_normal((25, p))
        w = spread * rng.standard_normal((400, p))
        y = X @ w.T + 2 * rng.standard_normal((25, 400))
        pairs.append((X, y))
        estimates.append(np.linalg.lstsq(X - X.mean(axis=0), y - y.mean(axis=0), rcond=None)[0].T)
    learned = GroupPrior.fit(pairs, n_components=1, shrinkage=1.0).components.covariance(0)
    truth, naive = spread**2 / (spread**2).sum(), np.cov(np.vstack(estimates), rowvar=False).diagonal()
    error = np.abs(learned.diagonal() / learned.trace() - truth).sum()
    assert error < 0.5 * np.abs(naive / naive.sum() - truth).sum()
    assert error < 0.15


def test_a_new_person_gains_and_regions_gain_more(people, prior, pool):
    X, y, weights, rois = people[2]
    truth = pool @ weights.T

    def score(encoder, **more):
        return explained_variance(truth, encoder.fit(X[:8], y[:8], **more).predict(pool)).mean()

    ridge, group = score(BayesianRidgeEncoder(), X_pool=pool), score(GroupPriorEncoder(prior))
    assert group > ridge + 0.05
    assert score(GroupPriorEncoder(prior), rois=rois) > group


def test_no_image_is_enough_with_regions(people, prior, pool):
    X, _, weights, rois = people[2]
    encoder = GroupPriorEncoder(prior).fit(X[:0], np.empty((0, 200)), rois=rois)
    known = rois != ""
    r = [np.corrcoef(pool @ w, pool @ v)[0, 1] for w, v in zip(weights[known], encoder.coef_[known], strict=True)]
    assert np.mean(r) > 0.4
    np.testing.assert_allclose(encoder.predict(prior.feature_mean[None]), 0.0, atol=1e-12)
    one = GroupPriorEncoder(prior).fit(X[:1], np.full((1, 200), 5.0), rois=rois)
    np.testing.assert_allclose(one.coef_, encoder.coef_)
    np.testing.assert_allclose(one.predict(X[:1]), 5.0)


def test_order_of_voxels_and_units_do_not_matter(people, rng):
    pairs = [p[:2] for p in people[:2]]
    shuffled = [(X, 10 * y[:, rng.permutation(y.shape[1])]) for X, y in pairs]
    first, second = GroupPrior.fit(pairs, n_components=2), GroupPrior.fit(shuffled, n_components=2)
    assert first.summary["n_components"] == second.summary["n_components"]
    np.testing.assert_allclose(second.components.mean, first.components.mean, atol=1e-6)
    for c in range(2):
        np.testing.assert_allclose(second.components.covariance(c), first.components.covariance(c), atol=1e-6)


def test_encoders_teach_what_their_data_teach(people, pool):
    pairs = [p[:2] for p in people[:2]]
    settings = {"n_components": 2, "shrinkage": 5.0, "X_pool": pool}
    from_data = GroupPrior.fit(pairs, **settings)
    from_encoders = GroupPrior.fit([BayesianRidgeEncoder().fit(X, y, X_pool=pool) for X, y in pairs], **settings)
    np.testing.assert_allclose(from_encoders.components.mean, from_data.components.mean, atol=1e-6)
    from_group = GroupPrior.fit([GroupPriorEncoder(from_data).fit(X, y) for X, y in pairs], **settings)
    np.testing.assert_allclose(from_group.components.mean, from_data.components.mean, atol=1e-6)


def test_plain_weights_need_a_pool(people, pool):
    ridge = [RidgeEncoder().fit(*p[:2]) for p in people[:2]]
    assert GroupPrior.fit(ridge, X_pool=pool).summary["taken_at_their_word"] == [True, True]
    with pytest.raises(InputError, match="X_pool"):
        GroupPrior.fit(ridge)


def test_a_prior_reads_back_as_written(tmp_path, prior, people):
    prior.save(tmp_path / "prior.safetensors")
    again = GroupPrior.load(tmp_path / "prior.safetensors")
    assert again.regions == prior.regions == ("a", "b")
    assert again.provenance == {"backbone": "made up"}
    assert again.summary["n_voxels"] == [150, 120]
    X, y, _, rois = people[2]
    fitted = GroupPriorEncoder(prior).fit(X, y, rois=rois)
    np.testing.assert_allclose(GroupPriorEncoder(again).fit(X, y, rois=rois).coef_, fitted.coef_, rtol=1e-3, atol=1e-6)
    (tmp_path / "prior.safetensors").write_bytes((tmp_path / "prior.safetensors").read_bytes()[:-3])
    with pytest.raises(FileFormatError):
        GroupPrior.load(tmp_path / "prior.safetensors")


def test_an_encoder_reads_back_with_its_uncertainty(tmp_path, prior, people):
    X, y, _, rois = people[2]
    encoder = GroupPriorEncoder(prior).fit(X[:12], y[:12], rois=rois)
    encoder.save(tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    for found, expected in zip(again.predict(X, return_std=True), encoder.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(again.responsibility_, encoder.responsibility_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:, :-1], y, {}), "5 features but the prior was learned with 6"),
        (lambda X, y: (X, y, {"rois": ["a"]}), "one label for each"),
        (lambda X, y: (X[:-1], y, {}), "images"),
        (lambda X, y: (X[:0], y[:1], {}), "images"),
        (lambda X, y: (X, y, {"X_pool": np.ones((4, 3))}), "X_pool"),
        (lambda X, y: (X[:1] * 1e-200, y[:1], {}), "X contains nothing above .* vanish"),
        (lambda X, y: (X[:1], y[:1] * 1e-200, {}), "y contains nothing above .* vanish"),
        (lambda X, y: (X[:1], y[:1] * 1j, {}), "complex"),
        (lambda X, y: (X[:1], y[:1, :0], {}), "no voxels"),
    ],
)
def test_mistakes_of_a_fit_are_named(prior, people, change, message):
    X, y, options = change(*people[2][:2])
    with pytest.raises(InputError, match=message):
        GroupPriorEncoder(prior).fit(X, y, **options)


def test_mistakes_of_learning_are_named(people):
    X, y = people[0][:2]
    for wrong, message in (
        ([], "empty"),
        ((X, y), "list of pairs"),
        ([(X, y), (X[:, 1:], y)], "one backbone"),
        ([(X, y.T)], "transposed|images"),
        ([X], "fitted encoder"),
        ([(X[:2], y[:2])], "at least 3"),
    ):
        with pytest.raises(InputError, match=message):
            GroupPrior.fit(wrong)
    for options in ({"n_components": 0}, {"shrinkage": -1.0}, {"rank": 7}, {"shrinkage": "much"}):
        with pytest.raises(InputError, match=next(iter(options))):
            GroupPrior.fit([(X, y)], **options)
    with pytest.raises(InputError, match="one per person"):
        GroupPrior.fit([(X, y)], [None, None])
    with pytest.raises(InputError, match="neither a file nor a shipped prior"):
        GroupPrior.load("nobody")


def test_regions_cannot_be_told_to_a_prior_without_them(people):
    prior = GroupPrior.fit([people[0][:2]])
    with pytest.raises(InputError, match="without regions"):
        GroupPriorEncoder(prior).fit(*people[2][:2], rois=people[2][3])


def test_covariance_in_blocks_is_the_covariance(monkeypatch):
    monkeypatch.setattr("braincorl.priors.people._POOL_BLOCK", 7)
    pool = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32) + 100
    np.testing.assert_allclose(covariance_of(pool), np.cov(pool.astype(np.float64), rowvar=False), rtol=1e-12)
