import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from braincorl import BayesianRidgeEncoder
from braincorl.analysis import (
    TextSelectivity,
    localizer_accuracy,
    preferred_images,
    preferred_texts,
    selection_by_roi,
    text_selectivity,
    top_voxels,
)
from braincorl.errors import InputError

ROIS = {"FFA": np.arange(10) < 3, "PPA": (np.arange(10) >= 3) & (np.arange(10) < 7), "none": np.zeros(10, bool)}


@pytest.fixture
def result(rng):
    selectivity = rng.standard_normal((10, 2))
    q = np.where(selectivity > 0.3, 0.01, 0.5)
    return TextSelectivity(("face", "place"), selectivity, selectivity * 3, q, "posterior")


def test_regions_count_what_a_text_selects(result):
    table = selection_by_roi(result, ROIS).set_index(["text", "roi"])
    selected = result.q_value[:, 1] < 0.05
    row = table.loc[("place", "PPA")]
    assert (row["n_voxels"], row["n_selected"]) == (4, selected[3:7].sum())
    assert row["share"] == selected[3:7].mean()
    assert row["selectivity_mean"] == pytest.approx(result.selectivity[3:7, 1].mean())
    assert table.loc[("face", "all"), "n_selected"] == (result.q_value[:, 0] < 0.05).sum()
    assert np.isnan(table.loc[("face", "none"), "share"])


def test_top_voxels_are_those_with_the_most_evidence_and_not_with_the_largest_effect(world):
    n = world.people[0].space.n_voxels
    selectivity = np.linspace(1, 2, n)[:, None]
    z = np.arange(n)[::-1, None].astype(float)
    result = TextSelectivity(("a",), selectivity, z, np.full((n, 1), 0.5), "posterior")
    assert top_voxels(result, {}, n=3)["voxel"].tolist() == [0, 1, 2]
    tied = TextSelectivity(("a",), selectivity, np.zeros((n, 1)), np.full((n, 1), 0.5), "posterior")
    assert top_voxels(tied, {}, n=2)["voxel"].tolist() == [n - 1, n - 2]


def test_top_voxels_come_with_their_place(world):
    person = world.people[0]
    n = person.space.n_voxels
    selectivity = np.linspace(0, 1, 2 * n).reshape(n, 2)
    whole = TextSelectivity(("a", "b"), selectivity, selectivity, 1 - selectivity, "posterior")
    table = top_voxels(whole, person.rois, person.space, n=5)
    assert table[table["text"] == "a"]["voxel"].tolist() == list(range(n - 1, n - 6, -1))
    np.testing.assert_allclose(table.loc[0, ["x_mm", "y_mm", "z_mm"]].astype(float), person.space.coordinates()[n - 1])
    voxel = np.flatnonzero(person.rois["FFA"])[0]
    selectivity = np.zeros((n, 1))
    selectivity[voxel] = 9
    only = TextSelectivity(("a",), selectivity, selectivity, 1 - selectivity, "posterior")
    assert top_voxels(only, person.rois, n=1).loc[0, "roi"] == "FFA"


def test_preferred_images_drive_a_region_most(rng):
    X = rng.standard_normal((60, 6))
    encoder = BayesianRidgeEncoder().fit(X, X @ rng.standard_normal((6, 10)) * np.geomspace(0.01, 100, 10))
    names = [f"i{i}" for i in range(60)]
    table = preferred_images(encoder, X, names, {**ROIS, "one": np.arange(10) == 4}, n=3)
    predicted = encoder.predict(X)
    standard = (predicted - predicted.mean(axis=0)) / predicted.std(axis=0)
    for roi, members in (("PPA", ROIS["PPA"]), ("one", np.arange(10) == 4)):
        mean = standard[:, members].mean(axis=1)
        rows = table[table["roi"] == roi]
        assert rows["image"].tolist() == [names[i] for i in np.argsort(-mean)[:3]]
        np.testing.assert_allclose(rows["response"], np.sort(mean)[::-1][:3], rtol=1e-8)
    assert "none" not in set(table["roi"])


def test_preferred_texts_are_those_with_the_highest_mean_selectivity(rng):
    X, texts = rng.standard_normal((60, 6)), rng.standard_normal((25, 6)) + 9.0
    encoder = BayesianRidgeEncoder().fit(X, X @ rng.standard_normal((6, 10)))
    names = [f"word {i}" for i in range(25)]
    table = preferred_texts(encoder, texts, names, ROIS, X, n=4)
    mean = text_selectivity(encoder, texts, X).selectivity[ROIS["PPA"]].mean(axis=0)
    rows = table[table["roi"] == "PPA"]
    assert rows["text"].tolist() == [names[i] for i in np.argsort(-mean)[:4]]
    np.testing.assert_allclose(rows["selectivity"], np.sort(mean)[::-1][:4], rtol=1e-8)
    with pytest.raises(InputError, match="texts has 1 names for 25"):
        preferred_texts(encoder, texts, ["a"], ROIS)


def test_specificity_is_selectivity_relative_to_the_other_voxels(rng):
    X, texts = rng.standard_normal((60, 6)), rng.standard_normal((25, 6)) + 9.0
    y = X @ rng.standard_normal((6, 10))
    y[:, 9] = 3.0  # without weights
    encoder = BayesianRidgeEncoder().fit(X, y)
    names, one = [f"word {i}" for i in range(25)], {"voxel": np.arange(10) == 4}
    result = text_selectivity(encoder, texts, X)
    expected = stats.zscore(result.selectivity, axis=0)
    np.testing.assert_allclose(result.specificity, expected, rtol=1e-8)
    table = preferred_texts(encoder, texts, names, one, X, n=4, order="specificity")
    assert table["text"].tolist() == [names[i] for i in np.argsort(-expected[4])[:4]]
    np.testing.assert_allclose(table["specificity"], np.sort(expected[4])[::-1][:4], rtol=1e-8)
    with pytest.raises(InputError, match="order must be one of selectivity, specificity"):
        preferred_texts(encoder, texts, names, one, order="alphabet")


def test_words_of_single_voxels_are_found_behind_a_word_that_all_share(rng):
    X, texts = rng.standard_normal((300, 30)), rng.standard_normal((60, 30)) + 9.0
    own = texts - texts.mean(axis=0)
    words = np.arange(1, 41)
    encoder = BayesianRidgeEncoder().fit(X, X @ (own[words] + 3.0 * own[0]).T)
    result = text_selectivity(encoder, texts, X)
    assert (result.selectivity.argmax(axis=1) == 0).all()
    assert (result.specificity.argmax(axis=1) == words).mean() > 0.9


def test_accuracy_against_localisers(result):
    table = localizer_accuracy(result, {"face": ["FFA"], "place": ["PPA"]}, ROIS).set_index("text")
    inside = np.arange(10) < 7
    selected = (result.q_value[:, 0] < 0.05) & inside
    assert table.loc["face", "n_selected"] == selected.sum()
    assert table.loc["face", "precision"] == ROIS["FFA"][selected].mean()
    assert table.loc["face", "recall"] == selected[:3].mean()
    assert table.loc["place", "accuracy"] == (result.selectivity[3:7].argmax(axis=1) == 1).mean()
    expected = roc_auc_score(ROIS["PPA"][inside], result.selectivity[inside, 1])
    assert table.loc["place", "auc"] == expected


def test_words_find_the_regions_of_a_simulated_person(world):
    person, subject = world.people[0], world.people[0].subject()
    category = np.array([name.rsplit("-", 1)[0] for name in world.image_ids])
    names = sorted(set(category))
    X = world.features_of(subject.image_ids)
    encoder = BayesianRidgeEncoder().fit(X, subject.responses, X_pool=world.features)
    # The simulation has no language; a text is where its category's images lie, moved away from all images.
    texts = np.stack([world.features[category == name].mean(axis=0) for name in names]) + 10.0
    result = text_selectivity(encoder, texts, world.features, texts=names)
    localizers = {"face": ["FFA"], "body": ["EBA"], "place": ["PPA", "OPA", "RSC"], "food": ["Food"]}
    table = localizer_accuracy(result, localizers, person.rois).set_index("text")
    assert table["auc"].mean() > 0.75
    assert table["accuracy"].mean() > 0.5


def test_mistakes_are_told(result, rng):
    with pytest.raises(InputError, match="'cat', which was not asked: ask face, place"):
        localizer_accuracy(result, {"cat": ["FFA"]}, ROIS)
    with pytest.raises(InputError, match="no region 'V1'"):
        localizer_accuracy(result, {"face": ["V1"]}, ROIS)
    with pytest.raises(InputError, match="localizers is empty"):
        localizer_accuracy(result, {}, ROIS)
    with pytest.raises(InputError, match=r"rois\['a'\] has shape"):
        selection_by_roi(result, {"a": np.ones(3, bool)})
    X = rng.standard_normal((20, 4))
    encoder = BayesianRidgeEncoder().fit(X, X)
    with pytest.raises(InputError, match="image_ids has 2 names"):
        preferred_images(encoder, X, ["a", "b"], {})
