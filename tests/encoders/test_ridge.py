import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from braincorl.closed_forms.decomposition import decompose
from braincorl.closed_forms.ridge_solver import auto_alphas, loo_errors, solve_ridge
from braincorl.encoders import BayesianRidgeEncoder, RidgeEncoder, load_encoder
from braincorl.errors import FileFormatError, InputError

# More images than features, fewer, and the two edges between (n = p, n = p + 1).
SHAPES = [(40, 8), (12, 30), (10, 10), (11, 10)]


def draw(rng, n_images, n_features, n_voxels=5, dtype=np.float64):
    X = rng.standard_normal((n_images, n_features)) * np.linspace(2, 0.2, n_features) + 3.0
    y = X @ rng.standard_normal((n_features, n_voxels)) + rng.standard_normal((n_images, n_voxels)) * 4 + 100.0
    return X.astype(dtype), y.astype(dtype)


@parametrize_with_checks([RidgeEncoder(), BayesianRidgeEncoder()])
def test_scikit_learn_estimator_contract(estimator, check):
    check(estimator)  # no exceptions are needed


@pytest.mark.parametrize("shape", SHAPES)
def test_refit_equals_scikit_learn_at_every_voxels_alpha(rng, shape):
    X, y = draw(rng, *shape)
    encoder = RidgeEncoder().fit(X, y)
    for voxel, alpha in enumerate(encoder.alpha_):
        reference = Ridge(alpha=alpha).fit(X, y[:, voxel])
        np.testing.assert_allclose(encoder.coef_[voxel], reference.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(encoder.intercept_[voxel], reference.intercept_, rtol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_leave_one_out_errors_equal_refitting_without_each_image(rng, shape):
    X, y = draw(rng, *shape)
    alphas = np.array([0.01, 1.0, 100.0])
    expected = np.zeros((3, y.shape[1]))
    for row, alpha in enumerate(alphas):
        for left_out in range(len(X)):
            rest = np.delete(np.arange(len(X)), left_out)
            predicted = Ridge(alpha=alpha).fit(X[rest], y[rest]).predict(X[[left_out]])[0]
            expected[row] += (y[left_out] - predicted) ** 2 / len(X)
    np.testing.assert_allclose(loo_errors(decompose(X), y - y.mean(axis=0), alphas), expected, rtol=1e-5)


def test_choice_of_alpha_equals_ridge_cv(rng):
    X, y = draw(rng, 30, 12, n_voxels=20)
    alphas = np.logspace(-2, 4, 7)
    reference = RidgeCV(alphas=alphas, alpha_per_target=True).fit(X, y)
    encoder = RidgeEncoder(alphas=alphas).fit(X, y)
    np.testing.assert_allclose(encoder.alpha_, reference.alpha_)
    np.testing.assert_allclose(encoder.coef_, reference.coef_, rtol=1e-6, atol=1e-9)


def test_k_fold_errors_equal_a_plain_loop(rng):
    X, y = draw(rng, 20, 6)
    alphas = np.array([0.1, 10.0, 1000.0])
    folds = [(np.setdiff1d(np.arange(20), np.arange(s, s + 5)), np.arange(s, s + 5)) for s in range(0, 20, 5)]
    errors = np.zeros((3, y.shape[1]))
    for train, test in folds:
        for row, alpha in enumerate(alphas):
            errors[row] += ((y[test] - Ridge(alpha=alpha).fit(X[train], y[train]).predict(X[test])) ** 2).sum(0) / 20
    encoder = RidgeEncoder(alphas=alphas, cv=4).fit(X, y)
    np.testing.assert_allclose(encoder.alpha_, alphas[errors.argmin(axis=0)])
    np.testing.assert_allclose(encoder.cv_r2_, 1 - errors.min(axis=0) / y.var(axis=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_variance_is_residuals_over_degrees_of_freedom(rng, shape):
    X, y = draw(rng, *shape)
    encoder = RidgeEncoder(alphas=[5.0]).fit(X, y)
    centred = X - X.mean(axis=0)
    hat = centred @ np.linalg.solve(centred.T @ centred + 5.0 * np.eye(shape[1]), centred.T)
    freedom = shape[0] - 1 - np.trace(hat)
    expected = ((y - encoder.predict(X)) ** 2).sum(axis=0) / freedom
    np.testing.assert_allclose(encoder.noise_variance_, expected, rtol=1e-6)


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_batch_size_voxel_order_and_image_order_change_nothing(rng, cls):
    X, y = draw(rng, 15, 20, n_voxels=50)
    whole = cls().fit(X, y)
    batched = cls(voxel_batch_size=7).fit(X, y)
    voxels, images = rng.permutation(50), rng.permutation(15)
    shuffled = cls().fit(X[images], y[images][:, voxels])
    np.testing.assert_allclose(batched.coef_, whole.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(shuffled.coef_, whole.coef_[voxels], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(shuffled.intercept_, whole.intercept_[voxels], rtol=1e-9)


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_units_of_features_and_responses_do_not_matter(rng, cls):
    X, y = draw(rng, 15, 20)
    encoder, scaled = cls().fit(X, y), cls().fit(1000 * X, 0.001 * y - 5)
    np.testing.assert_allclose(scaled.predict(1000 * X), 0.001 * encoder.predict(X) - 5, rtol=1e-8)


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_single_precision_agrees_with_double(rng, cls):
    X, y = draw(rng, 100, 200, n_voxels=50)
    double, single = cls().fit(X, y), cls().fit(X.astype("f4"), y.astype("f4"))
    assert single.coef_.dtype == np.float32
    error = np.linalg.norm(single.predict(X.astype("f4")) - double.predict(X)) / np.linalg.norm(y - y.mean(axis=0))
    assert error < 1e-3


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_two_images_one_feature_and_constant_voxels_are_enough(cls):
    X, y = np.array([[0.0], [1.0]]), np.array([[1.0, 2.0], [3.0, 2.0]])
    encoder = cls().fit(X, y)
    assert np.isfinite(encoder.coef_).all()
    np.testing.assert_allclose(encoder.predict([[0.3]])[0, 1], 2.0)
    np.testing.assert_allclose(encoder.coef_[1], 0.0, atol=1e-12)


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_constant_features_predict_the_mean(rng, cls):
    y = rng.standard_normal((6, 3))
    np.testing.assert_allclose(cls().fit(np.full((6, 4), 0.1), y).predict(np.ones((2, 4))), [y.mean(axis=0)] * 2)


def test_rounding_chooses_no_alpha(rng):
    """In float32, where errors at neighbouring α differ by less than their rounding."""
    X, y = rng.standard_normal((40, 64)).astype("f4"), rng.standard_normal((40, 500)).astype("f4")
    whole = RidgeEncoder().fit(X, y)
    order = rng.permutation(40)
    np.testing.assert_array_equal(RidgeEncoder(voxel_batch_size=1).fit(X, y).alpha_, whole.alpha_)
    np.testing.assert_array_equal(RidgeEncoder().fit(X[order], y[order]).alpha_, whole.alpha_)


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_large_baselines_and_large_constant_features_cost_nothing(rng, cls):
    X = rng.standard_normal((60, 30)).astype("f4")
    y = (X @ rng.standard_normal((30, 20)) + rng.standard_normal((60, 20))).astype("f4")
    plain = cls().fit(X, y).predict(X)
    shifted = cls().fit(np.c_[X, np.full(60, 1e5, "f4")], y + np.float32(1e4))
    np.testing.assert_allclose(shifted.predict(np.c_[X, np.full(60, 1e5, "f4")]) - 1e4, plain, atol=0.02)
    constant = cls().fit(X, np.full((60, 50), 0.1, "f4") * np.arange(1, 51, dtype="f4"))
    assert np.abs(constant.coef_).max() == 0.0
    assert np.isnan(constant.cv_r2_).all() if cls is RidgeEncoder else (constant.signal_fraction_ == 0).all()


def test_pure_noise_is_shrunk_to_the_mean(rng):
    X, y = rng.standard_normal((50, 10)), rng.standard_normal((50, 200))
    solution = solve_ridge(X, y)
    assert np.median(solution.alpha) >= 100 * auto_alphas(decompose(X)).min()
    fresh = rng.standard_normal((500, 10))
    assert ((fresh @ solution.coef.T) ** 2).mean() < 0.1


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
def test_a_saved_encoder_predicts_the_same(rng, tmp_path, cls):
    X, y = draw(rng, 12, 30)
    encoder = cls().fit(X, y)
    encoder.save(tmp_path / "e.safetensors", {"features": {"backbone": "x"}})
    for loaded in (cls.load(tmp_path / "e.safetensors"), load_encoder(tmp_path / "e.safetensors")):
        assert type(loaded) is cls
        assert loaded.provenance_ == {"features": {"backbone": "x"}}
        assert loaded.get_params() == encoder.get_params()
        np.testing.assert_array_equal(loaded.predict(X), encoder.predict(X))
        np.testing.assert_array_equal(loaded.noise_variance_, encoder.noise_variance_)


def test_loading_the_wrong_class_names_both(rng, tmp_path):
    RidgeEncoder().fit(*draw(rng, 12, 3)).save(tmp_path / "e.safetensors")
    with pytest.raises(InputError, match="holds a RidgeEncoder, not a BayesianRidgeEncoder"):
        BayesianRidgeEncoder.load(tmp_path / "e.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is no encoder at all")
    with pytest.raises(FileFormatError, match="not a readable safetensors file"):
        load_encoder(tmp_path / "text.safetensors")


@pytest.mark.parametrize("cls", [RidgeEncoder, BayesianRidgeEncoder])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y.T), "transposed: pass y.T"),
        (lambda X, y: (X, y[:-1]), "X has 12 images but y has 11"),
        (lambda X, y: (X[:1], y[:1]), "minimum of 2 is required"),
        (lambda X, y: (X, np.where(np.arange(5) == 2, np.nan, y)), "y contains NaN in 1 of its 5 columns"),
        (lambda X, y: (np.where(np.arange(3) == 2, np.inf, X), y), "infinity"),
        (lambda X, y: (X, y[:, :0]), "no voxels"),
        (lambda X, y: (X, y[None]), "3 axes"),
        (lambda X, y: (X, None), "requires y"),
    ],
)
def test_bad_arrays_get_one_clear_line(rng, cls, change, message):
    X, y = change(*draw(rng, 12, 3))
    with pytest.raises(InputError, match=message) as caught:
        cls().fit(X, y)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "encoder",
    [
        RidgeEncoder(alphas="best"),
        RidgeEncoder(alphas=[0.0, 1.0]),
        RidgeEncoder(cv=1),
        RidgeEncoder(cv="five"),
        RidgeEncoder(voxel_batch_size=0),
        BayesianRidgeEncoder(signal_grid=[0.5, 1.0]),
        BayesianRidgeEncoder(signal_grid="fine"),
        BayesianRidgeEncoder(voxel_batch_size="all"),
    ],
)
def test_impossible_parameters_are_refused(rng, encoder):
    with pytest.raises(InputError, match="must"):
        encoder.fit(*draw(rng, 12, 3))


def test_ridge_has_no_predictive_distribution(rng):
    X, y = draw(rng, 12, 3)
    with pytest.raises(InputError, match="BayesianRidgeEncoder"):
        RidgeEncoder().fit(X, y).predict(X, return_std=True)


def test_jupyter_shows_parameters_and_fitted_shapes(rng):
    encoder = RidgeEncoder(alphas=(0.5, 1.0))
    assert "alphas" in encoder._repr_html_()
    page = encoder.fit(rng.standard_normal((9, 3)), rng.standard_normal((9, 5)))._repr_html_()
    assert "coef_" in page
    assert "(5, 3)" in page
