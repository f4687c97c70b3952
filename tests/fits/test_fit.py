from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from braincorl import Fit, fit_person
from braincorl.encoders import BayesianRidgeEncoder, GroupPriorEncoder
from braincorl.encoders.choice import ENCODERS, encoder_name, make_encoder
from braincorl.errors import InputError, OutputError
from braincorl.features import FeatureTable
from braincorl.metrics import explained_variance
from braincorl.priors import GroupPrior


@pytest.fixture(scope="module")
def table(world):
    return FeatureTable(world.features, world.image_ids, {"backbone": "simulation"})


@pytest.fixture(scope="module")
def subject(world):
    return world.people[0].subject()


@pytest.fixture(scope="module")
def fit(subject, table):
    return fit_person(subject, table, "bayesian-ridge", context=40, random_state=3)


def test_a_fit_is_the_encoder_of_its_context_scored_on_the_others(fit, subject, table):
    assert len(fit.context) == 40
    assert set(fit.context) < set(subject.image_ids)
    left_out = subject.select_images([name for name in subject.image_ids if name not in fit.context])
    context = subject.select_images(fit.context)
    pool = table.features[~np.isin(table.image_ids, left_out.image_ids)]
    by_hand = BayesianRidgeEncoder().fit(table.select(fit.context).features, context.responses, X_pool=pool)
    np.testing.assert_array_equal(fit.encoder.coef_, by_hand.coef_)
    predicted = by_hand.predict(table.select(left_out.image_ids).features)
    np.testing.assert_allclose(fit.scores["ev"], explained_variance(left_out.responses, predicted), atol=1e-5)
    np.testing.assert_allclose(fit.predict(table, left_out.image_ids), predicted, rtol=1e-6)


def test_what_is_left_out_enters_nothing(subject, table):
    fit = fit_person(subject, table, context=30)
    out = ~np.isin(table.image_ids, fit.context) & np.isin(table.image_ids, subject.image_ids)
    changed = table.features.copy()
    changed[out] = changed[out][::-1] * 3.0
    again = fit_person(subject, FeatureTable(changed, table.image_ids, table.provenance), context=fit.context)
    np.testing.assert_array_equal(again.encoder.coef_, fit.encoder.coef_)
    assert not np.allclose(again.scores["ev"], fit.scores["ev"])


def test_a_fit_comes_back_from_disk(fit, table, tmp_path):
    saved = fit.save(tmp_path / "f")
    read = Fit.load(tmp_path / "f")
    assert saved.path == read.path == tmp_path / "f"
    assert (read.context, read.subject, read.config["n_left_out"]) == (fit.context, fit.subject, 50)
    assert set(read.maps()) == set(fit.maps())
    written = pd.read_csv(tmp_path / "f" / "scores.tsv", sep="\t")
    pd.testing.assert_frame_equal(read.table()[written.columns.tolist()], written, rtol=1e-5)
    assert fit.table().loc[0, "ev_mean"] == pytest.approx(np.nanmean(fit.scores["ev"]))
    for name, values in fit.maps().items():
        np.testing.assert_allclose(read.maps()[name], values, rtol=1e-6, err_msg=name)
    assert set(read.scores) == set(fit.scores)
    np.testing.assert_array_equal(read.predict(table), fit.predict(table))
    with pytest.raises(OutputError, match="holds an earlier result"):
        fit.save(tmp_path / "f")


def test_images_that_the_fit_has_seen_do_not_count(fit, subject, table, tmp_path):
    scored = fit.score(subject, table)
    assert set(scored.held_out.image_ids) == set(subject.image_ids) - set(fit.context)
    for name, values in fit.scores.items():
        np.testing.assert_array_equal(scored.maps[name], values, err_msg=name)
    assert str(scored).startswith("50 held-out images: mean EV ")
    scored.save(tmp_path / "s")
    assert (tmp_path / "s" / "scores.tsv").read_text().startswith("roi\tn_voxels\tev_mean")
    with pytest.raises(InputError, match="0 of 40 images are new to the fit"):
        fit.score(subject.select_images(fit.context), table)


def test_responses_scaled_otherwise_are_refused_unless_wanted(fit, subject, table, caplog):
    other = replace(subject, zscore="session")
    with pytest.raises(InputError, match="the responses are scaled 'session', but the fit of sub-01"):
        fit.score(other, table)
    fit.score(other, table, any_scaling=True)
    assert "scaled 'session'" in caplog.text


def test_regions_reach_the_memory(world, subject, table):
    people = [(world.features_of(other.image_ids), other.responses) for other in [world.people[1].subject()]]
    names = np.array(["A", "B"])[(np.arange(world.people[1].subject().n_voxels) % 2)]
    prior = GroupPrior.fit(people, [names], X_pool=world.features)
    fit = fit_person(subject, table, GroupPriorEncoder(prior), context=20)
    assert fit.config["encoder"] == "group-prior"
    assert fit.encoder.region_names_.tolist() == ["A", "B"]


@pytest.mark.parametrize(
    ("context", "line"),
    [
        (91, "context asks for 91 images, but must be between 2 and 90"),
        (["cat", "dog"], "2 images without both responses and features, such as 'cat'"),
        ([], "there is 0 image to fit on"),
    ],
)
def test_an_impossible_context_is_refused(context, line, subject, table):
    with pytest.raises(InputError, match=line):
        fit_person(subject, table, "ridge", context=context)


def test_images_without_features_are_left_out_and_told(subject, table, caplog):
    some = table.select(subject.image_ids[:30])
    fit = fit_person(subject, some, "ridge")
    assert fit.context == subject.image_ids[:30].tolist()
    assert fit.scores == {}
    assert "60 of 90 images have no features" in caplog.text


def test_encoders_go_by_one_name():
    for name in ENCODERS:
        assert encoder_name(make_encoder(name)) == name
    for wrong, line in (
        (("mean",), "expected one of"),
        (("group-prior",), "needs a prior"),
        (("ridge", "p"), "takes no prior"),
    ):
        with pytest.raises(InputError, match=line):
            make_encoder(*wrong)
    with pytest.raises(InputError, match="takes no device"):
        make_encoder("ridge", device="cpu")
