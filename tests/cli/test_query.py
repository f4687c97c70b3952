import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from braincorl.analysis import text_selectivity
from braincorl.analysis.words.answers import text_labels
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.fits import Fit

WORDS = ("face", "body", "place", "food")
LOCALIZERS = ("face=FFA", "body=EBA", "place=PPA,OPA,RSC", "food=Food")


@pytest.fixture(scope="module")
def fitted(inputs, tmp_path_factory):
    """A Bayesian ridge fit on ninety images."""
    from braincorl.cli.main import main

    out = tmp_path_factory.mktemp("query") / "fit"
    arguments = (*inputs.arguments(rois=inputs.rois), "--encoder", "bayesian-ridge")
    assert main([str(a) for a in ("--quiet", "fit", *arguments, "--output-dir", out)][1:]) == 0
    return out


@pytest.fixture(scope="module")
def words(world, tmp_path_factory):
    """Features of words: where the images of their category lie, in a region of its own, as CLIP's texts are."""
    category = np.array([name.rsplit("-", 1)[0] for name in world.image_ids])
    rng = np.random.default_rng(5)
    means = [world.features[category == word].mean(axis=0) for word in WORDS]
    others = world.features[rng.permutation(len(world.features))[:40]]
    features = np.concatenate([np.stack(means), others]).astype("f4") + 5.0
    path = tmp_path_factory.mktemp("words") / "words.npz"
    names = np.array([*WORDS, *(f"thing {number}" for number in range(40))])
    save_features(path, FeatureTable(features, names, {"backbone": "simulation", "normalized": True}))
    return path


def read_map(folder, stat, label):
    (path,) = folder.glob(f"*_stat-{stat}_desc-{label}_statmap.nii.gz")
    return nib.load(path)


def test_words_find_their_regions(fitted, words, world, braincorl, tmp_path):
    out = tmp_path / "q"
    result = braincorl(
        "query", fitted, *WORDS, "--text-features", words, "--localizer", *LOCALIZERS, "--output-dir", out
    )
    assert result.status == 0, result.err
    accuracy = pd.read_csv(out / "accuracy.tsv", sep="\t").set_index("text")
    assert accuracy["auc"].mean() > 0.75
    assert "voxels selected (q < 0.05), most of" in result.out
    selection = pd.read_csv(out / "selection.tsv", sep="\t").set_index(["text", "roi"])
    assert selection.loc[("place", "PPA"), "share"] > selection.loc[("place", "FFA"), "share"]
    voxels = pd.read_csv(out / "voxels.tsv", sep="\t")
    assert (voxels.groupby("text").size() == 20).all()
    images = pd.read_csv(out / "images.tsv", sep="\t")
    top = images[images["roi"] == "FFA"]["image"].str.rsplit("-", n=1).str[0]
    assert (top == "face").mean() > 0.5
    things = world.image_ids[np.random.default_rng(5).permutation(len(world.features))[:40]]
    meaning = {f"thing {number}": name.rsplit("-", 1)[0] for number, name in enumerate(things)}
    best = pd.read_csv(out / "words.tsv", sep="\t").query("roi == 'PPA' and rank == 1")["text"].item()
    assert meaning.get(best, best) == "place"
    config = json.loads((out / "config.json").read_text())
    assert (config["texts"], config["significance"], config["n_background"]) == (list(WORDS), "posterior", 44)


def test_maps_are_the_librarys(fitted, words, inputs, braincorl, tmp_path):
    out = tmp_path / "q"
    arguments = ("face", "place", "--versus", "food", "--text-features", words, "--words-by", "specificity")
    assert braincorl("query", fitted, *arguments, "--output-dir", out).status == 0
    best = pd.read_csv(out / "words.tsv", sep="\t")
    assert best["specificity"].groupby(best["roi"]).is_monotonic_decreasing.all()
    fit, table = Fit.load(fitted), load_features(words)
    pool = load_features(inputs.features).features
    rows = table.rows(["face", "place", "food"])
    plain = text_selectivity(fit.encoder, table.features[rows[:2]], pool, background=table.features)
    contrast = text_selectivity(
        fit.encoder, table.features[rows[:2]], pool, versus=table.features[rows[2:]], background=table.features
    )
    for result, labels in ((plain, ("face", "place")), (contrast, ("faceVersusFood", "placeVersusFood"))):
        for column, label in enumerate(labels):
            for stat, values in (("selectivity", result.selectivity), ("z", result.z), ("q", result.q_value)):
                image = read_map(out, stat, label)
                np.testing.assert_allclose(image.get_fdata()[fit.space.mask], values[:, column], rtol=1e-5, atol=1e-7)
                np.testing.assert_allclose(image.affine, fit.space.affine)
    sidecar = json.loads(next(out.glob("*stat-z_desc-placeVersusFood_statmap.json")).read_text())
    assert (sidecar["Text"], sidecar["Versus"]) == ("place", ["food"])
    selection = pd.read_csv(out / "selection.tsv", sep="\t", keep_default_na=False)
    assert set(selection["versus"]) == {"n/a", "food"}


def test_example_images_stand_in_for_words(fitted, inputs, world, words, braincorl, tmp_path):
    places = [name for name in world.image_ids if name.startswith("place")]
    (tmp_path / "place.txt").write_text("\n".join(places[:10]))
    table = load_features(inputs.features)
    save_features(tmp_path / "face.npz", table.select([n for n in world.image_ids if n.startswith("face")][:10]))
    out = tmp_path / "q"
    result = braincorl(
        "query", fitted, "--like", tmp_path / "place.txt", tmp_path / "face.npz", "--output-dir", out,
        "--localizer", "place=PPA,OPA,RSC", "face=FFA",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert (pd.read_csv(out / "accuracy.tsv", sep="\t")["auc"] > 0.7).all()


def test_more_regions_and_no_pool(fitted, inputs, words, braincorl, tmp_path):
    config = json.loads((fitted / "config.json").read_text())
    n = config["n_voxels"] + config["n_excluded_voxels"]
    (tmp_path / "labels.txt").write_text("\n".join(["front"] * (n // 2) + ["back"] * (n - n // 2)))
    moved = tmp_path / "fit"
    shutil.copytree(fitted, moved)
    (moved / "config.json").write_text(json.dumps(config | {"features": "/gone.npz"}))
    few = load_features(words).select([*WORDS])
    save_features(tmp_path / "few.npz", few)
    given = ("--text-features", tmp_path / "few.npz", "--rois", tmp_path / "labels.txt", "--output-dir", tmp_path / "q")
    result = braincorl("query", moved, "face", *given)
    assert result.status == 0
    assert "no longer at hand" in result.err
    assert result.err.count(f"{len(WORDS)} texts say little about texts in general") == 1
    assert {"front", "back", "FFA"} <= set(pd.read_csv(tmp_path / "q" / "selection.tsv", sep="\t")["roi"])
    assert not (tmp_path / "q" / "images.tsv").exists()


def test_words_go_through_the_fits_own_backbone(inputs, braincorl, tmp_path):
    """A tiny CLIP with random weights: nothing means anything, but everything is connected."""
    import open_clip

    from braincorl.features import ImageEmbedder

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (tmp_path / "query-clip.json").write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(tmp_path / "query-clip.json")
    embedder = ImageEmbedder("open_clip:query-clip", weights="random:1", precision="float32")
    rng = np.random.default_rng(0)
    names = load_features(inputs.features).image_ids
    table = embedder.embed(rng.integers(0, 255, (len(names), 32, 32, 3), dtype=np.uint8), names.tolist())
    save_features(tmp_path / "clip.npz", table)
    changed = inputs.arguments(features=tmp_path / "clip.npz")
    assert braincorl("fit", *changed, "--n-context", 20, "--output-dir", tmp_path / "fit").status == 0
    assert braincorl("query", tmp_path / "fit", "face", "a red car", "--output-dir", tmp_path / "q").status == 0
    assert read_map(tmp_path / "q", "selectivity", "aRedCar")
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "toy.png")
    result = braincorl("query", tmp_path / "fit", "--like", tmp_path / "toy.png", "--output-dir", tmp_path / "like")
    assert result.status == 0, result.err
    with np.load(tmp_path / "clip.npz") as file:
        provenance = json.loads(str(file["provenance"]))
    assert (
        json.loads((tmp_path / "q" / "config.json").read_text())["text_provenance"]["weights_sha256"]
        == (provenance["weights_sha256"])
    )


def other_space(words, folder):
    table = load_features(words)
    path = folder / "other.npz"
    save_features(path, FeatureTable(table.features, table.image_ids, {"backbone": "open_clip:ViT-B-32"}))
    return path


def narrow(words, folder):
    table = load_features(words)
    path = folder / "narrow.npz"
    save_features(path, FeatureTable(table.features[:, :5], table.image_ids))
    return path


CASES = {
    "no question": (lambda w, f: [], "pass either texts or --like"),
    "two questions": (lambda w, f: ["face", "--like", w], "pass either texts or --like"),
    "an unknown word": (lambda w, f: ["fase", "--text-features", w], "did you mean face"),
    "an unknown contrast": (lambda w, f: ["face", "--versus", "plaze", "--text-features", w], "did you mean place"),
    "an empty word": (lambda w, f: [" ", "--text-features", w], "a text is empty"),
    "words of another backbone": (
        lambda w, f: ["face", "--text-features", other_space(w, f)], "backbone 'open_clip:ViT-B-32' but the fit in"),
    "words of another size": (lambda w, f: ["face", "--text-features", narrow(w, f)], "the texts have 5 features"),
    "a backbone that cannot be loaded": (lambda w, f: ["face"], "names no backbone that can be loaded here"),
    "a missing file": (lambda w, f: ["face", "--text-features", f / "none.npz"], "does not exist"),
    "a missing picture": (lambda w, f: ["--like", f / "none.png"], "does not exist: pass a feature file"),
    "a word against itself": (
        lambda w, f: ["face", "--versus", "face", "--text-features", w], "does not differ from what it is contrasted"),
    "a localiser without region": (
        lambda w, f: ["face", "--text-features", w, "--localizer", "face"], "must be TEXT=ROI"),
    "a localiser of another word": (
        lambda w, f: ["face", "--text-features", w, "--localizer", "food=FFA"], "'food', which was not asked"),
    "a localiser without such a region": (
        lambda w, f: ["face", "--text-features", w, "--localizer", "face=V9"], "no region 'V9'"),
    "an impossible rate": (lambda w, f: ["face", "--text-features", w, "--q", "5"], "--q must be between 0 and 1"),
    "a template for known features": (
        lambda w, f: ["face", "--text-features", w, "--template", "photo"], "leave it out with --text-features"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_one_line_and_leaves_nothing(fitted, words, braincorl, tmp_path, case):
    change, message = CASES[case]
    (tmp_path / "made").mkdir()
    result = braincorl("query", fitted, *change(words, tmp_path / "made"), "--output-dir", tmp_path / "q")
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "q").exists()


def test_ridge_is_asked_with_random_directions(inputs, words, braincorl, tmp_path):
    arguments = [*inputs.arguments(), "--encoder", "ridge", "--output-dir", tmp_path / "f"]
    assert braincorl("fit", *arguments).status == 0
    asked = ("query", tmp_path / "f", "face", "--text-features", words)
    result = braincorl(*asked, "--significance", "posterior", "--output-dir", tmp_path / "q")
    assert (result.status, "BayesianRidgeEncoder" in result.err) == (2, True)
    assert braincorl(*asked, "--output-dir", tmp_path / "q").status == 0
    assert json.loads((tmp_path / "q" / "config.json").read_text())["significance"] == "directions"


def test_labels_are_letters_and_digits_and_distinct():
    texts = ["a photo of a face", "A photo, of a face!", "家", "家具", "x" * 100]
    assert text_labels(texts) == ["aPhotoOfAFace", "APhotoOfAFace2", "text", "text2", "x" * 60]
