import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from braincorl import Fit
from braincorl.analysis import compare_fits
from braincorl.cli.main import main
from braincorl.datasets import load_subject
from braincorl.encoders import load_encoder
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.metrics import explained_variance


@pytest.fixture(scope="module")
def fits(inputs, world, tmp_path_factory):
    """Two fits of one person: all features, and six of them."""
    folder = tmp_path_factory.mktemp("fits")
    save_features(folder / "few.npz", FeatureTable(world.features[:, :6].copy(), world.image_ids, {"backbone": "few"}))
    for name, features in (("all", inputs.features), ("six", folder / "few.npz")):
        given = inputs.arguments(rois=inputs.rois, features=features)
        arguments = ["fit", *given, "--encoder", "bayesian-ridge", "--n-context", 40, "--output-dir", folder / name]
        assert main([*map(str, arguments), "--quiet"]) == 0
    return folder


def test_two_fits_are_compared_with_what_they_were_made_from(fits, inputs, braincorl, tmp_path):
    result = braincorl("compare", fits / "all", fits / "six", "--output-dir", tmp_path / "c")
    assert result.status == 0
    assert "50 held-out images: mean EV" in result.out
    subject = load_subject(inputs.betas, inputs.trials, inputs.mask)
    left_out = sorted(set(subject.image_ids.tolist()) - set((fits / "all" / "context.txt").read_text().split()))
    held_out = subject.select_images(left_out)
    ev = []
    for name, path in (("all", inputs.features), ("six", fits / "few.npz")):
        features = load_features(path).select(left_out).features
        predicted = load_encoder(fits / name / "encoder.safetensors").predict(features)
        ev.append(explained_variance(held_out.responses, predicted))
    (path,) = (tmp_path / "c").glob("*_stat-evdifference_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata()[subject.space.mask], ev[0] - ev[1], atol=1e-5)
    found = compare_fits(Fit.load(fits / "all"), Fit.load(fits / "six"), n_permutations=1)
    np.testing.assert_allclose(found.result.difference, ev[0] - ev[1], atol=1e-5)
    table = pd.read_csv(tmp_path / "c" / "comparison.tsv", sep="\t").set_index("roi")
    assert table.loc["all", "difference"] == pytest.approx((ev[0] - ev[1]).mean(), abs=1e-5)
    assert table.loc["all", "p"] < 0.01
    assert (table["low"] <= table["difference"]).all()
    assert "FFA" in table.index
    page = (tmp_path / "c" / "report.html").read_text()
    assert "://" not in page
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["fit"] != config["other_fit"]["fit"]


def test_a_fit_is_no_better_than_itself(fits, braincorl, tmp_path):
    assert braincorl("compare", fits / "all", fits / "all", "--output-dir", tmp_path / "c").status == 0
    table = pd.read_csv(tmp_path / "c" / "comparison.tsv", sep="\t")
    assert (table["difference"] == 0).all()
    assert (table["p"] == 1).all()


def test_inputs_that_went_away_are_asked_for_and_other_people_refused(fits, inputs, braincorl, tmp_path):
    for name in ("all", "six"):
        (tmp_path / name).mkdir()
        for file in (fits / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "six" / "config.json").read_text())
    (tmp_path / "six" / "config.json").write_text(json.dumps(config | {"features": "gone.npz"}))
    result = braincorl("compare", tmp_path / "all", tmp_path / "six", "--output-dir", tmp_path / "c")
    assert result.status == 2
    assert "gone.npz, which is not there (any more): pass --features-b" in result.err
    given = ["--features-b", fits / "few.npz", "--betas", inputs.betas, "--trials", inputs.trials]
    assert braincorl("compare", tmp_path / "all", tmp_path / "six", *given, "--output-dir", tmp_path / "c").status == 0
    wrong = braincorl("compare", tmp_path / "all", tmp_path / "six", "--features-b", inputs.features,
                      "--output-dir", tmp_path / "d")  # fmt: skip
    assert (wrong.status, len(wrong.err.splitlines())) == (2, 1)
    (tmp_path / "six" / "config.json").write_text(json.dumps(config | {"subject": "sub-02"}))
    other = braincorl("compare", tmp_path / "all", tmp_path / "six", "--output-dir", tmp_path / "d")
    assert other.status == 2
    assert "different people" in other.err
    assert not (tmp_path / "d").exists()
