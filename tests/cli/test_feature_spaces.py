import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer

from braincorl import BandedRidgeEncoder, fit_person, load_encoder
from braincorl.analysis import text_selectivity
from braincorl.analysis.colours import space_colours
from braincorl.analysis.report.page import Section, render_page
from braincorl.analysis.report.question_sections import feature_spaces
from braincorl.cli.main import main
from braincorl.datasets import load_subject
from braincorl.encoders.one_space import in_one_space
from braincorl.features import FeatureTable, join_tables, load_features, save_features
from braincorl.fits import Fit
from braincorl.fits.folder import read_maps


@pytest.fixture(scope="module")
def spaces(inputs, world, tmp_path_factory):
    """A simulated person's features in two halves, and a fit of both."""
    folder = tmp_path_factory.mktemp("spaces")
    for name, columns in (("one", slice(12)), ("two", slice(12, None))):
        table = FeatureTable(world.features[:, columns].copy(), world.image_ids, {"backbone": name})
        save_features(folder / f"{name}.npz", table)
    data = ["--betas", inputs.betas, "--trials", inputs.trials]
    given = [*named(folder), *data, "--mask", inputs.mask, "--rois", inputs.rois]
    arguments = ["fit", *given, "--n-context", 40, "--output-dir", folder / "fit", "--quiet"]
    assert main([str(argument) for argument in arguments]) == 0
    return folder, data


def named(folder, names=("two", "one")):
    return [part for name in names for part in ("--features", f"{name}={folder / name}.npz")]


def test_fit_equals_the_library(spaces, inputs):
    folder, _ = spaces
    encoder = load_encoder(folder / "fit" / "encoder.safetensors")
    assert isinstance(encoder, BandedRidgeEncoder)
    assert encoder.spaces_ == {"one": 12, "two": 12}
    subject = load_subject(inputs.betas, inputs.trials, inputs.mask)
    tables = {name: load_features(folder / f"{name}.npz") for name in ("two", "one")}
    fit = fit_person(subject, tables, context=40)
    np.testing.assert_array_equal(fit.encoder.coef_, encoder.coef_)
    config = json.loads((folder / "fit" / "config.json").read_text())
    assert config["encoder"] == "banded-ridge"
    assert config["features"].keys() == {"one", "two"}
    assert config["features_provenance"]["spaces"]["one"] == {"backbone": "one", "n_features": 12}


def test_score_says_what_each_space_explains(spaces, inputs, braincorl, tmp_path):
    folder, data = spaces
    result = braincorl("score", folder / "fit", *named(folder, ("one", "two")), *data, "--output-dir", tmp_path / "s")
    assert result.status == 0
    assert "EV by feature space: one" in result.out
    mask = nib.load(inputs.mask).get_fdata() > 0
    prefix = "sub-01_task-simulated_stat"

    def voxels(name):
        return nib.load(tmp_path / "s" / f"{prefix}-{name}_statmap.nii.gz").get_fdata()[mask]

    np.testing.assert_allclose(voxels("evshare_desc-one") + voxels("evshare_desc-two"), voxels("ev"), atol=1e-5)
    unique = voxels("evunique_desc-one") + voxels("evunique_desc-two")
    np.testing.assert_allclose(unique + voxels("evshared"), voxels("ev"), atol=1e-5)
    for name, end in (("ev", ""), ("evshared", ""), ("evshare", "_desc-one"), ("evunique", "_desc-two")):
        low, value, high = (voxels(f"{name}{bound}{end}") for bound in ("low", "", "high"))
        assert np.mean((low <= value) & (value <= high)) > 0.95  # a bootstrap's interval need not hold the estimate
        assert np.mean(high - low) > 0.01
    assert set(np.unique(voxels("winningspace"))) == {0, 1, 2}
    table = pd.read_csv(tmp_path / "s" / "partition.tsv", sep="\t").set_index(["roi", "part", "space"])
    assert table.loc[("all", "share", "one"), "mean"] == pytest.approx(np.nanmean(voxels("evshare_desc-one")), abs=1e-4)
    assert ("FFA", "unique", "two") in table.index
    levels = json.loads((tmp_path / "s" / f"{prefix}-winningspace_statmap.json").read_text())["Levels"]
    assert levels["1"] == "one"
    fit = Fit.load(folder / "fit")
    section = feature_spaces(fit, read_maps(tmp_path / "s", "sub-01_task-simulated", fit.space), tmp_path / "s")
    page = render_page("", "", [Section("Feature spaces", "fit/feature_spaces.html", section)])
    assert page.count("data:image/png") == 2
    # The winners are named, in the colours of the bars.
    colours = space_colours(["one", "two"])
    bars = [found for found in section["figure"].axes[1].containers if isinstance(found, BarContainer)]
    assert {bar.get_label(): to_hex(bar[0].get_facecolor()).upper() for bar in bars} == colours
    key, outlined = section["winner"].legends
    assert [text.get_text() for text in key.get_texts()] == ["largest part:", "one", "two"]
    assert [to_hex(patch.get_facecolor()).upper() for patch in key.get_patches()[1:]] == list(colours.values())
    assert "FFA" in [text.get_text() for text in outlined.get_texts()]
    predicted = braincorl("predict", folder / "fit", *named(folder), "--std", "--output-dir", tmp_path / "p")
    assert predicted.status == 0


def test_words_are_asked_through_the_space_that_has_them(spaces, world, braincorl, tmp_path):
    folder, _ = spaces
    words = FeatureTable(
        world.features[:25, 12:].copy(), np.array([f"word {n}" for n in range(25)]), {"backbone": "two"}
    )
    save_features(tmp_path / "words.npz", words)
    asked = ["word 3", "--text-features", tmp_path / "words.npz"]
    result = braincorl("query", folder / "fit", *asked, "--output-dir", tmp_path / "q")
    assert result.status == 0
    assert "1 texts through the feature space 'two'" in result.out
    assert json.loads((tmp_path / "q" / "config.json").read_text())["feature_space"] == "two"
    encoder = load_encoder(folder / "fit" / "encoder.safetensors")
    part = in_one_space(encoder, encoder.spaces_, "two")
    expected = text_selectivity(part, words.features[3:4], world.features[:, 12:], background=words.features)
    table = pd.read_csv(tmp_path / "q" / "selection.tsv", sep="\t").set_index("roi")
    assert table.loc["all", "n_selected"] == expected.selected(0.05).sum()
    assert table.loc["all", "n_selected"] > 10
    for options, message in (
        (["word 3", "--output-dir", tmp_path / "x"], "one, two"),
        ([*asked, "--space", "three", "--output-dir", tmp_path / "x"], "no feature space 'three'"),
        ([*asked, "--space", "one", "--output-dir", tmp_path / "x"], "backbone"),
    ):
        result = braincorl("query", folder / "fit", *options)
        assert result.status == 2
        assert message in result.err.splitlines()[-1]
        assert not (tmp_path / "x").exists()


def test_earlier_people_are_remembered_space_by_space(spaces, inputs, braincorl, tmp_path):
    folder, data = spaces
    assert braincorl("prior", folder / "fit", "--output", tmp_path / "p.safetensors").status == 0
    given = [*named(folder), *data, "--mask", inputs.mask, "--prior", tmp_path / "p.safetensors", "--n-context", 10]
    assert braincorl("fit", *given, "--output-dir", tmp_path / "fit").status == 0
    encoder = load_encoder(tmp_path / "fit" / "encoder.safetensors")
    assert isinstance(encoder, BandedRidgeEncoder)
    assert [factor.shape for factor in encoder.factors_.values()] == [(12, 12), (12, 12)]


def test_mistakes_with_spaces_end_in_one_line(spaces, inputs, braincorl, tmp_path):
    folder, data = spaces
    one = folder / "one.npz"
    for given, message in (
        (["--features", f"one={one}"], "was made with one, two"),
        (["--features", f"one={one}", "--features", f"one={one}"], "'one' is given twice"),
        (["--features", f"one={one}", "--features", one], "several feature spaces need a name each"),
        (["--features", f"one={one}", "--features", f"two={one}"], "say the same of the images"),
        (["--features", inputs.features], "was made with one, two"),
    ):
        result = braincorl("score", folder / "fit", *given, *data, "--output-dir", tmp_path / "s")
        assert result.status == 2
        assert message in result.err.splitlines()[-1]
        assert not (tmp_path / "s").exists()


def test_tables_join_on_the_images_that_all_have(caplog):
    names = np.array([f"i{n}" for n in range(6)])
    rng = np.random.default_rng(0)
    a = FeatureTable(rng.standard_normal((6, 2)), names, {"backbone": "a"})
    b = FeatureTable(rng.standard_normal((5, 3)), names[[4, 3, 2, 1, 0]])
    joined = join_tables({"b": b, "a": a})
    assert "1 of 6 images do not have features in all of a, b" in caplog.text
    assert joined.image_ids.tolist() == names[:5].tolist()
    np.testing.assert_array_equal(joined.features, np.c_[a.features[:5], b.features[::-1]])
    assert list(joined.provenance["spaces"]) == ["a", "b"]
