import numpy as np
import pytest
from people import P, make_person, make_pool

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder, RidgeEncoder, load_encoder
from braincorl.errors import FileFormatError, InputError
from braincorl.metrics import explained_variance
from braincorl.priors.remembered import pool_moments
from braincorl.storage.tensorfile import write_tensors


@pytest.fixture
def pool(rng):
    return make_pool(rng)


@pytest.fixture
def people(pool, rng):
    """Three people with their own images, voxel counts and units; the third is new."""
    sizes = ((60, 150, 1.0), (80, 120, 7.0), (70, 200, 0.1))
    return [make_person(pool, rng, n_images=n, n_voxels=v, scale=scale) for n, v, scale in sizes]


@pytest.fixture
def prior(people):
    taught = people[:2]
    return GroupPrior.fit([p.pair for p in taught], [p.rois for p in taught], provenance={"backbone": "made up"})


def scores(pool, person, encoder, n=8, **more):
    fitted = encoder.fit(person.X[:n], person.y[:n], **more)
    return explained_variance(pool @ person.weights.T, fitted.predict(pool)).mean()


def test_items_are_voxels_of_unit_signal(people, prior):
    assert len(prior.mass) == 270
    assert prior.mass.sum() == pytest.approx(1.0)
    covariance = prior.pool_covariance
    np.testing.assert_allclose(np.einsum("jp,pq,jq->j", prior.weights, covariance, prior.weights), 1.0, rtol=1e-5)
    assert np.einsum("pq,qp->", prior.moment, covariance) == pytest.approx(1.0)
    truth = np.vstack([p.weights for p in people[:2]])
    truth /= np.sqrt(np.einsum("jp,pq,jq->j", truth, covariance, truth))[:, None]
    alike = np.einsum("jp,pq,jq->j", prior.weights, covariance, truth)
    assert np.median(alike) > 0.9


def test_noisy_voxels_count_for_less(pool, rng):
    clean, noisy = (make_person(pool, rng, n_images=30, r=r) for r in (0.7, 0.05))
    prior = GroupPrior.fit([clean.pair, noisy.pair])
    assert prior.mass[:150].mean() > 1.5 * prior.mass[150:].mean()
    assert prior.summary["reliability"][0] > prior.summary["reliability"][1] + 0.2


def test_a_new_person_gains_and_regions_gain_more(people, prior, pool):
    new = people[2]
    ridge = scores(pool, new, BayesianRidgeEncoder(), X_pool=pool)
    group = scores(pool, new, GroupPriorEncoder(prior))
    assert group > ridge + 0.05
    assert scores(pool, new, GroupPriorEncoder(prior), rois=new.rois) > group


def test_places_are_worth_as_much_where_kinds_have_places(pool, rng):
    def placed(person):
        return np.c_[10.0 * (person.rois == "a"), rng.uniform(0, 2, (person.rois.size, 2))]

    people = [make_person(pool, rng) for _ in range(3)]
    places = [placed(person) for person in people]
    prior = GroupPrior.fit([p.pair for p in people[:2]], positions=places[:2])
    plain = GroupPrior.fit([p.pair for p in people[:2]])
    with_places = scores(pool, people[2], GroupPriorEncoder(prior), n=5, positions=places[2])
    assert with_places > scores(pool, people[2], GroupPriorEncoder(plain), n=5) + 0.02
    # A prior that knows no places takes none, and one that knows some can be read without.
    without = scores(pool, people[2], GroupPriorEncoder(plain), n=5, positions=places[2])
    assert without == pytest.approx(scores(pool, people[2], GroupPriorEncoder(plain), n=5))
    assert scores(pool, people[2], GroupPriorEncoder(prior), n=5) == pytest.approx(without)


def test_voxels_tell_their_region(people, prior):
    new = people[2]
    encoder = GroupPriorEncoder(prior).fit(new.X[:40], new.y[:40])
    assert encoder.region_names_.tolist() == ["a", "b"]
    known = new.rois != ""
    likeliest = encoder.region_names_[encoder.region_probability_.argmax(axis=1)]
    assert (likeliest == new.rois)[known].mean() > 0.8
    assert (encoder.region_probability_.sum(axis=1) < 1 + 1e-9).all()


def test_no_image_is_enough_with_regions(people, prior, pool):
    new = people[2]
    encoder = GroupPriorEncoder(prior).fit(new.X[:0], np.empty((0, 200)), rois=new.rois)
    known = new.rois != ""
    pairs = zip(new.weights[known], encoder.coef_[known], strict=True)
    assert np.mean([np.corrcoef(pool @ w, pool @ v)[0, 1] for w, v in pairs]) > 0.4
    one = GroupPriorEncoder(prior).fit(new.X[:1], np.full((1, 200), 5.0), rois=new.rois)
    np.testing.assert_allclose(one.coef_, encoder.coef_)
    np.testing.assert_allclose(one.predict(new.X[:1]), 5.0)


def test_order_of_voxels_and_units_do_not_matter(people, pool, rng):
    pairs = [p.pair for p in people[:2]]
    shuffled = [(X, 10 * y[:, rng.permutation(y.shape[1])]) for X, y in pairs]
    for limit in ("auto", 40):
        encoders = [
            GroupPriorEncoder(GroupPrior.fit(p, max_items=limit)).fit(people[2].X[:9], people[2].y[:9])
            for p in (pairs, shuffled)
        ]
        np.testing.assert_allclose(encoders[0].coef_, encoders[1].coef_, rtol=1e-4, atol=1e-7)


def test_fewer_items_keep_mass_regions_and_accuracy(people, pool):
    taught = people[:2]
    pairs, rois = [p.pair for p in taught], [p.rois for p in taught]
    full, small = GroupPrior.fit(pairs, rois), GroupPrior.fit(pairs, rois, max_items=40)
    assert 38 <= len(small.mass) <= 42
    assert small.mass.sum() == pytest.approx(1.0)
    for region in (-1, 0, 1):
        assert small.mass[small.region == region].sum() == pytest.approx(full.mass[full.region == region].sum())
    np.testing.assert_allclose(small.moment, full.moment)
    lost = scores(pool, people[2], GroupPriorEncoder(full)) - scores(pool, people[2], GroupPriorEncoder(small))
    assert abs(lost) < 0.03


def test_encoders_teach_what_their_data_teach(people, pool):
    pairs = [p.pair for p in people[:2]]
    from_data = GroupPrior.fit(pairs)
    from_ridge = GroupPrior.fit([BayesianRidgeEncoder().fit(*pair) for pair in pairs])
    alike = np.einsum("jp,pq,jq->j", from_data.weights, from_data.pool_covariance, from_ridge.weights)
    assert alike.min() > 0.99
    np.testing.assert_allclose(from_ridge.pool_covariance, from_data.pool_covariance, rtol=1e-6)
    for encoder in (InContextEncoder, lambda: GroupPriorEncoder(from_data)):
        again = GroupPrior.fit([encoder().fit(*pair) for pair in pairs])
        np.testing.assert_allclose(again.pool_covariance, from_data.pool_covariance, rtol=1e-5)
        assert np.median(np.einsum("jp,pq,jq->j", from_data.weights, from_data.pool_covariance, again.weights)) > 0.9


def test_plain_weights_need_a_pool(people, pool):
    ridge = [RidgeEncoder().fit(*p.pair) for p in people[:2]]
    assert GroupPrior.fit(ridge, X_pool=pool).summary["reliability"] == [1.0, 1.0]
    with pytest.raises(InputError, match="X_pool"):
        GroupPrior.fit(ridge)


def test_constant_voxels_are_not_remembered(people):
    X, y = people[0].pair
    spoilt = np.insert(y, 3, 2.5, axis=1)
    prior = GroupPrior.fit([(X, spoilt)])
    assert len(prior.mass) == 150
    with pytest.raises(InputError, match="nothing to remember"):
        GroupPrior.fit([(X, np.ones((60, 4)))])


def test_a_prior_reads_back_as_written(tmp_path, prior, people):
    prior.save(tmp_path / "prior.safetensors")
    again = GroupPrior.load(tmp_path / "prior.safetensors")
    assert again.regions == prior.regions == ("a", "b")
    assert again.provenance == {"backbone": "made up"}
    assert again.summary["n_voxels"] == [150, 120]
    X, y, rois = people[2].X, people[2].y, people[2].rois
    fitted = GroupPriorEncoder(prior).fit(X, y, rois=rois)
    np.testing.assert_allclose(GroupPriorEncoder(again).fit(X, y, rois=rois).coef_, fitted.coef_, rtol=1e-3, atol=1e-6)
    (tmp_path / "prior.safetensors").write_bytes((tmp_path / "prior.safetensors").read_bytes()[:-3])
    with pytest.raises(FileFormatError):
        GroupPrior.load(tmp_path / "prior.safetensors")


def test_a_prior_of_an_earlier_version_says_how_to_make_a_new_one(tmp_path):
    write_tensors(tmp_path / "old.safetensors", "braincorl-prior/1", {"mean": np.zeros(3)}, {})
    with pytest.raises(FileFormatError, match="make it again with braincorl prior"):
        GroupPrior.load(tmp_path / "old.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("moment"), "holds no 'moment'"),
        (lambda a: a.update(mass=a["mass"][1:]), "'mass' has shape"),
        (lambda a: a.update(region=a["region"] + 5), "do not fit"),
        (lambda a: a.update(positions=np.zeros((3, 3))), "do not fit"),
        (lambda a: a["weights"].__setitem__((0, 0), np.nan), "'weights' are not all finite"),
        (lambda a: a.update(region=a["region"].astype("f4")), "'region' are not all finite"),
        (lambda a: a.update(mass=-a["mass"]), "no mass, region or distance"),
        (lambda a: a.update(region=a["region"] - 2), "no mass, region or distance"),
        (lambda a: a.update(moment=-a["moment"]), "'moment' is no covariance"),
        (lambda a: a.update(pool_covariance=np.triu(np.ones_like(a["moment"]))), "'pool_covariance' is no covariance"),
    ],
)
def test_arrays_that_disagree_are_refused(prior, change, message):
    arrays, header = prior.to_arrays()
    change(arrays)
    with pytest.raises(FileFormatError, match=message):
        GroupPrior.from_arrays(arrays, header)


@pytest.mark.parametrize("change", [{"spacing": 0.0}, {"spacing": "near"}, {"summary": []}, {"regions": None}])
def test_headers_that_make_no_sense_are_refused_with_the_name_of_the_file(prior, change, tmp_path):
    arrays, header = prior.to_arrays()
    write_tensors(tmp_path / "p.safetensors", "braincorl-prior/2", arrays, header | change)
    with pytest.raises(FileFormatError):
        GroupPrior.load(tmp_path / "p.safetensors")


def test_an_encoder_reads_back_with_its_uncertainty(tmp_path, prior, people):
    X, y = people[2].X, people[2].y
    encoder = GroupPriorEncoder(prior).fit(X[:12], y[:12])
    encoder.save(tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    for found, expected in zip(again.predict(X, return_std=True), encoder.predict(X, return_std=True), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(again.region_probability_, encoder.region_probability_)
    assert again.region_names_.tolist() == ["a", "b"]


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
    X, y, options = change(*people[2].pair)
    with pytest.raises(InputError, match=message):
        GroupPriorEncoder(prior).fit(X, y, **options)


def test_no_prior_is_a_mistake(people):
    with pytest.raises(InputError, match="prior is None"):
        GroupPriorEncoder(None).fit(*people[0].pair)


def test_mistakes_of_learning_are_named(people):
    X, y = people[0].pair
    for wrong, message in (
        ([], "empty"),
        ((X, y), "list of pairs"),
        ([(X, y), (X[:, 1:], y)], "one backbone"),
        ([(X, y.T)], "transposed|images"),
        ([X], "fitted encoder"),
        ([(X[:2], y[:2])], "at least 3"),
        ([(X[:, 0], y)], "pass \\(n_images, n_features\\)"),
        ([(np.ones_like(X), y)], "do not vary"),
    ):
        with pytest.raises(InputError, match=message):
            GroupPrior.fit(wrong)
    for options in ({"max_items": 0}, {"max_items": "few"}, {"max_items": 1.5}):
        with pytest.raises(InputError, match="max_items"):
            GroupPrior.fit([(X, y)], **options)
    with pytest.raises(InputError, match="one per person"):
        GroupPrior.fit([(X, y)], [None, None])
    with pytest.raises(InputError, match="neither a file nor a shipped name"):
        GroupPrior.load("nobody")


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([np.zeros((150, 2))], "coordinates"),
        ([np.zeros((3, 3))], "3 places for 150"),
        ([np.full((150, 3), np.nan)], "NaN"),
        ([np.zeros((150, 3))] * 2, "one per person"),
        ([np.arange(150.0)], "whole numbers"),
    ],
)
def test_mistakes_of_places_are_named(people, positions, message):
    with pytest.raises(InputError, match=message):
        GroupPrior.fit([people[0].pair], positions=positions)


def test_regions_cannot_be_told_to_a_prior_without_them(people):
    prior = GroupPrior.fit([people[0].pair])
    with pytest.raises(InputError, match="without regions"):
        GroupPriorEncoder(prior).fit(*people[2].pair, rois=people[2].rois)


def test_covariance_in_blocks_is_the_covariance(monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", "100 B")
    pool = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32) + 100
    moments = pool_moments(pool)
    np.testing.assert_allclose(moments.covariance, np.cov(pool.astype(np.float64), rowvar=False), rtol=1e-12)
    assert moments.mean.shape == (4,)
    assert P == 6
