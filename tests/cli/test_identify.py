import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braincorl import load_encoder
from braincorl.analysis import context_noise, identify
from braincorl.analysis.report.page import Section, render_page
from braincorl.analysis.report.question_sections import which_image
from braincorl.cli.main import main
from braincorl.datasets import load_subject
from braincorl.datasets.load import open_subject
from braincorl.errors import InputError
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.fits import Fit
from braincorl.metrics import trials_per_image


@pytest.fixture(scope="module")
def fitted(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "fit"
    given = inputs.arguments(rois=inputs.rois)
    arguments = ["fit", *given, "--encoder", "bayesian-ridge", "--n-context", 20, "--output-dir", out, "--quiet"]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def test_images_are_identified_as_by_the_library(fitted, inputs, braincorl, tmp_path):
    (tmp_path / "pictures").mkdir()
    table = load_features(inputs.features)
    for name in table.image_ids[:4]:
        Image.new("RGB", (16, 16), "green").save(tmp_path / "pictures" / f"{name}.png")
    given = [*inputs.arguments(mask=None), "--images", tmp_path / "pictures", "--output-dir", tmp_path / "i"]
    result = braincorl("identify", fitted, *given)
    assert result.status == 0
    assert "the seen image is first in" in result.out
    context = (fitted / "context.txt").read_text().split()
    subject = load_subject(inputs.betas, inputs.trials, inputs.mask)
    new = [name for name in subject.image_ids.tolist() if name not in context]
    candidates = [name for name in table.image_ids.tolist() if name not in context]
    encoder, held_out = load_encoder(fitted / "encoder.safetensors"), subject.select_images(new)
    known = subject.select_images(context)
    noise = context_noise(encoder, table.select(context).features, known.responses)
    truth = [candidates.index(name) for name in new]
    ratio = trials_per_image(known.n_repeats) / trials_per_image(held_out.n_repeats)
    among = table.select(candidates).features
    expected = identify(encoder, held_out.responses, among, truth, noise=noise, noise_ratio=ratio)
    ranks = pd.read_csv(tmp_path / "i" / "identification.tsv", sep="\t")
    assert ranks["image"].tolist() == new
    np.testing.assert_array_equal(ranks["rank"], expected.ranks)
    accuracy = pd.read_csv(tmp_path / "i" / "accuracy.tsv", sep="\t")
    assert set(accuracy["ranking"]) == {"independent", "shared", "correlation"}
    assert {"all", "FFA", "EarlyVis"} <= set(accuracy["roi"])
    whole = accuracy[(accuracy["roi"] == "all") & (accuracy["ranking"] == "independent")].iloc[-1]
    assert whole["top1"] == pytest.approx(np.mean(expected.ranks == 1))
    assert whole["top1"] > 5 * whole["top1_chance"]
    page = (tmp_path / "i" / "report.html").read_text()
    assert "http" not in page
    assert "data:image/jpeg" in page
    config = json.loads((tmp_path / "i" / "config.json").read_text())
    assert config["noise_ratio"] == pytest.approx(ratio)
    assert config["noise"] == "residuals of the 20 context images"
    shown = which_image(Fit.load(fitted), tmp_path / "i")
    section = render_page("", "", [Section("Which image was seen", "fit/which_image.html", shown)])
    assert f"Shares of {len(new)} responses" in section
    assert section.count("data:image/png") == 1
    assert f"<td>all</td><td>{whole['n_voxels']}</td><td>{whole['top1']:.3f}</td>" in section
    (tmp_path / "i" / "config.json").write_text(json.dumps(config | {"fit_sha256": "another"}))
    result = braincorl("report", fitted, "--identification", tmp_path / "i", "--output", tmp_path / "r.html")
    assert (result.status, "was made with another fit" in result.err) == (2, True)
    assert not (tmp_path / "r.html").exists()
    (tmp_path / "i" / "config.json").unlink()
    with pytest.raises(InputError, match="no identification"):
        which_image(Fit.load(fitted), tmp_path / "i")
    assert 0 < config["temperature"] <= 1


def test_words_are_ranked_in_place_of_images(fitted, inputs, world, braincorl, tmp_path):
    provenance = dict(load_features(inputs.features).provenance)
    words = FeatureTable(world.features[:6].copy(), np.array([f"word {n}" for n in range(6)]), provenance)
    save_features(tmp_path / "words.npz", words)
    given = [*inputs.arguments(mask=None), "--text-features", tmp_path / "words.npz", "--output-dir", tmp_path / "i"]
    result = braincorl("identify", fitted, *given)
    assert result.status == 0
    assert "70 responses, 6 candidates" in result.out
    ranks = pd.read_csv(tmp_path / "i" / "identification.tsv", sep="\t")
    assert "rank" not in ranks
    assert ranks["best1"].str.startswith("word").all()
    assert not (tmp_path / "i" / "accuracy.tsv").exists()


def test_single_trials_are_asked_one_by_one_and_words_lie_near(fitted, inputs, world, braincorl, tmp_path):
    table = load_features(inputs.features)
    moved = FeatureTable(table.features + 30.0, np.char.add("like ", table.image_ids), {"templates": ["{}"]})
    save_features(tmp_path / "words.npz", moved)
    given = [*inputs.arguments(mask=None), "--nearest", tmp_path / "words.npz", "--output-dir", tmp_path / "i"]
    result = braincorl("identify", fitted, "--single-trials", *given)
    assert result.status == 0
    context = (fitted / "context.txt").read_text().split()
    shown = pd.read_csv(inputs.trials, sep="\t")["image"]
    new = ~shown.isin(context).to_numpy()
    assert f"{new.sum()} single trials" in result.out
    assert "a response settles" in result.out
    ranks = pd.read_csv(tmp_path / "i" / "identification.tsv", sep="\t")
    assert dict(zip(ranks["trial"], ranks["image"], strict=True)) == {
        f"trial-{row + 1}": shown[row] for row in np.flatnonzero(new)
    }
    recording, names = open_subject(inputs.betas, inputs.trials, inputs.mask).trial_by_trial()
    single = recording.load()
    rows = [single.image_ids.tolist().index(name) for name in ranks["trial"]]
    encoder = load_encoder(fitted / "encoder.safetensors")
    candidates = [name for name in table.image_ids.tolist() if name not in context]
    truth = [candidates.index(names[name]) for name in ranks["trial"]]
    ratio = json.loads((fitted / "config.json").read_text())["trials_per_image"]
    features = table.select(candidates).features
    expected = identify(encoder, single.responses[rows], features, truth, noise_ratio=ratio)
    np.testing.assert_array_equal(ranks["rank"], expected.ranks)
    nearest = pd.read_csv(tmp_path / "i" / "nearest.tsv", sep="\t")
    assert ((nearest["low1"] <= nearest["cosine1"]) & (nearest["cosine1"] <= nearest["high1"])).all()
    found = nearest["nearest1"] == "like " + nearest["image"]
    assert found.mean() > 5 / len(candidates)
    decoded = load_features(tmp_path / "i" / "decoded_features.npz")
    assert decoded.image_ids.tolist() == ranks["trial"].tolist()
    assert "Nearest" in (tmp_path / "i" / "report.html").read_text()


def test_mistakes_end_in_one_line(fitted, inputs, braincorl, tmp_path):
    table = load_features(inputs.features)
    context = (fitted / "context.txt").read_text().split()
    save_features(tmp_path / "seen.npz", table.select(context))
    (tmp_path / "words.npz").write_bytes(b"no words")
    for changes, message in (
        ({"features": tmp_path / "seen.npz"}, "the fit has seen all 20 images"),
        ({"text-features": tmp_path / "words.npz"}, "words.npz"),
    ):
        result = braincorl("identify", fitted, *inputs.arguments(mask=None, **changes), "--output-dir", tmp_path / "i")
        assert (result.status, len(result.err.splitlines()[-1:])) == (2, 1)
        assert message in result.err.splitlines()[-1]
        assert not (tmp_path / "i").exists()
