"""Whose images, whose features, whose fit: names that agree or differ wrongly are refused or told."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from braincorl.encoders import RidgeEncoder
from braincorl.errors import InputError
from braincorl.features import FeatureTable, load_features, save_features
from braincorl.fits import Fit
from braincorl.fits.folder import SPACE_KIND
from braincorl.fits.seen_images import SameImages, check_features_fit
from braincorl.storage import tensorfile
from braincorl.storage.tensorfile import read_tensors


@pytest.fixture(scope="module")
def fitted(inputs, tmp_path_factory):
    """A Bayesian ridge fit on forty images."""
    return fit(inputs.arguments(), tmp_path_factory.mktemp("fit") / "fit", "--n-context", 40)


def fit(arguments, out, *options):
    from braincorl.cli.main import main

    command = ("fit", *arguments, "--encoder", "bayesian-ridge", *options, "--output-dir", out, "--quiet")
    assert main([str(a) for a in command]) == 0
    return out


def change(inputs, path, features=None, names=None):
    table = load_features(inputs.features)
    features = table.features if features is None else features(table)
    save_features(path, FeatureTable(features, table.image_ids if names is None else names(table), table.provenance))
    return path


def context_of(fit_dir):
    return (fit_dir / "context.txt").read_text().split()


def one_other(fit_dir):
    def features(table):
        changed = table.features.copy()
        changed[table.rows(context_of(fit_dir)[:1])] += 0.5
        return changed

    return features


UNRELATED = {
    "of another origin": (lambda d: lambda t: np.random.default_rng(1).standard_normal(t.features.shape), "40 of 40"),
    "in another order": (lambda d: lambda t: t.features[::-1], "of 40 images"),
    "in another unit": (lambda d: lambda t: 2 * t.features, "40 of 40"),
    "of the other sign": (lambda d: lambda t: -t.features, "40 of 40"),
    "with one changed image": (one_other, "1 of 40 images"),
    "rounded": (lambda d: lambda t: t.features.astype("f2").astype("f4"), "40 of 40"),
}


@pytest.mark.parametrize("case", UNRELATED)
@pytest.mark.parametrize("verb", ["score", "predict", "query", "report"])
def test_other_features_under_the_fits_names_are_refused(fitted, inputs, braincorl, tmp_path, verb, case):
    features, count = UNRELATED[case]
    other = change(inputs, tmp_path / "other.npz", features(fitted))
    more = {
        "score": (*inputs.arguments(features=None, mask=None), "--output-dir", tmp_path / "o"),
        "predict": ("--output-dir", tmp_path / "o"),
        "query": ("face", "--text-features", other, "--output-dir", tmp_path / "o"),
        "report": ("--output", tmp_path / "o.html"),
    }
    words = ("face", *more[verb][1:]) if verb == "query" else more[verb]
    result = braincorl(verb, fitted, *words, "--features", other)
    assert result.status == 2
    assert count in result.err
    assert "have other features here" in result.err
    assert not list(tmp_path.glob("o*.html")) + [p for p in tmp_path.iterdir() if p.name == "o"]


def test_the_same_features_in_another_file_type_and_order_pass(fitted, inputs, braincorl, tmp_path):
    table = load_features(inputs.features)
    shuffled = np.random.default_rng(0).permutation(len(table.image_ids))
    for name, dtype in (("a.h5", "f4"), ("b.safetensors", "f8")):
        rows = table.features[shuffled].astype(dtype)
        save_features(tmp_path / name, FeatureTable(rows, table.image_ids[shuffled], table.provenance))
        out = ("--output-dir", tmp_path / name.partition(".")[0])
        result = braincorl("score", fitted, *inputs.arguments(features=tmp_path / name, mask=None), *out)
        assert result.status == 0, result.err
        assert "50 held-out images" in result.out


def test_new_images_of_new_names_are_predicted(fitted, inputs, braincorl, tmp_path):
    other = change(inputs, tmp_path / "n.npz", lambda t: t.features[::-1], lambda t: np.char.add("new-", t.image_ids))
    result = braincorl("predict", fitted, "--features", other, "--output-dir", tmp_path / "p")
    assert result.status == 0, result.err


RENAMED = {
    "an ending": lambda name: f"{name}.png",
    "a folder": lambda name: f"stimuli/{name}",
    "capitals": str.upper,
    "a number": lambda name: f"img{abs(hash(name)) % 10**9:09d}",
    "a prefix": lambda name: f"copy_of_{name}",
}


@pytest.mark.parametrize("case", RENAMED)
def test_images_that_were_seen_under_other_names_do_not_count(fitted, inputs, braincorl, tmp_path, case):
    """Renamed in features and trials, all forty would be new by name."""
    rename = RENAMED[case]
    renamed = change(inputs, tmp_path / "r.npz", None, lambda t: np.array([rename(n) for n in t.image_ids.tolist()]))
    trials = pd.read_csv(inputs.trials, sep="\t")
    trials["image"] = trials["image"].map(rename)
    trials.to_csv(tmp_path / "trials.tsv", sep="\t", index=False)
    changed = inputs.arguments(features=renamed, trials=tmp_path / "trials.tsv", mask=None)
    result = braincorl("score", fitted, *changed, "--output-dir", tmp_path / "s")
    assert result.status == 0, result.err
    assert "40 images have the features of images that the fit has seen, under other names" in result.err
    assert "50 held-out images" in result.out
    assert (json.loads((tmp_path / "s" / "config.json").read_text())["n_seen"]) == 40


@pytest.mark.parametrize("n", [1, 5, 39, 41])
def test_a_context_that_was_cut_or_grew_is_refused(fitted, inputs, braincorl, tmp_path, n):
    broken = tmp_path / "broken"
    shutil.copytree(fitted, broken)
    names = [*context_of(fitted), "stranger"][:n]
    (broken / "context.txt").write_text("".join(f"{name}\n" for name in names))
    result = braincorl("score", broken, *inputs.arguments(mask=None), "--output-dir", tmp_path / "s")
    assert result.status == 2
    assert f"context.txt lists {n} images, but config.json says that the fit was made from 40" in result.err


def test_a_context_of_other_names_does_not_make_seen_images_new(fitted, inputs, braincorl, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(fitted, broken)
    (broken / "context.txt").write_text("".join(f"x{number}\n" for number in range(40)))
    result = braincorl("score", broken, *inputs.arguments(mask=None), "--output-dir", tmp_path / "s")
    assert result.status == 0, result.err
    assert "50 held-out images" in result.out


def with_copies(inputs, folder, n):
    """Features and trials in which the last n of the seen images show the first n under other names."""
    seen = list(dict.fromkeys(pd.read_csv(inputs.trials, sep="\t")["image"]))

    def features(table):
        changed = table.features.copy()
        changed[table.rows(seen[-n:])] = table.features[table.rows(seen[:n])]
        return changed

    (folder / "context.txt").write_text("\n".join(seen[:40]))
    return change(inputs, folder / "copies.npz", features)


@pytest.mark.parametrize("n", [1, 20, 40])
def test_a_fit_does_not_score_copies_of_its_images(inputs, braincorl, tmp_path, n):
    changed = inputs.arguments(features=with_copies(inputs, tmp_path, n))
    options = ("--encoder", "ridge", "--context", tmp_path / "context.txt", "--output-dir", tmp_path / "f")
    result = braincorl("fit", *changed, *options)
    assert result.status == 0, result.err
    assert f"{n} of 50 images to be scored have the same features as images that are fitted" in result.err
    assert f"{50 - n} held-out images" in result.out


def test_a_benchmark_does_not_score_copies_of_its_images(inputs, braincorl, tmp_path):
    changed = inputs.arguments(features=with_copies(inputs, tmp_path, 20))
    seen = list(dict.fromkeys(pd.read_csv(inputs.trials, sep="\t")["image"]))
    (tmp_path / "test.txt").write_text("\n".join(seen[-25:]))
    options = ("--encoders", "ridge", "--counts", 10, "--n-draws", 1, "--test", tmp_path / "test.txt")
    result = braincorl("benchmark", *changed, *options, "--random-state", 7, "--output-dir", tmp_path / "b")
    assert result.status == 0, result.err
    assert "20 of 25 images to be scored have the same features" in result.err
    made = json.loads((tmp_path / "b" / "config.json").read_text())["inputs"]
    assert (made["n_test"], made["random_state"], made["features"]) == (5, 7, str(tmp_path / "copies.npz"))
    assert len(made["responses_sha256"]) == 64


@pytest.mark.parametrize("verb", ["fit", "benchmark"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_are_all_the_same_are_refused(inputs, braincorl, tmp_path, verb, value):
    same = change(inputs, tmp_path / "same.npz", lambda t: np.full_like(t.features, value))
    result = braincorl(verb, *inputs.arguments(features=same), "--output-dir", tmp_path / "o")
    assert result.status == 2
    assert "are the same" in result.err or "have the same features" in result.err


@pytest.mark.parametrize("verb", ["fit", "benchmark"])
def test_features_of_one_image_each_are_told(inputs, braincorl, tmp_path, verb):
    table = load_features(inputs.features)
    hot = FeatureTable(np.eye(len(table.image_ids), dtype="f4"), table.image_ids, table.provenance)
    save_features(tmp_path / "hot.npz", hot)
    more = ("--encoders", "ridge", "--n-draws", 1, "--counts", 10) if verb == "benchmark" else ("--encoder", "ridge")
    result = braincorl(verb, *inputs.arguments(features=tmp_path / "hot.npz"), *more, "--output-dir", tmp_path / "o")
    assert "every image has a feature that no other image has" in result.err


def named(inputs, folder, name):
    shutil.copy(inputs.betas, folder / name)
    return folder / name


def test_betas_of_another_person_are_told(fitted, inputs, braincorl, tmp_path):
    trials = shutil.copy(inputs.trials, tmp_path / "trials.tsv")  # one that names sub-01 is refused beside these betas
    other = inputs.arguments(betas=named(inputs, tmp_path, "sub-77_betas.nii.gz"), trials=trials, mask=None)
    result = braincorl("score", fitted, *other, "--output-dir", tmp_path / "s")
    assert result.status == 0
    assert "the betas are of sub-77, but the fit is of sub-01" in result.err
    made = json.loads((tmp_path / "s" / "config.json").read_text())
    assert (made["subject"], made["betas_subject"]) == ("sub-01", "sub-77")
    unnamed = inputs.arguments(betas=named(inputs, tmp_path, "betas.nii.gz"), mask=None)
    assert "the betas are of" not in braincorl("score", fitted, *unnamed, "--output-dir", tmp_path / "t").err


@pytest.mark.parametrize(("given", "label"), [("07", "sub-07"), ("sub-x1", "sub-x1")])
def test_the_person_can_be_named(inputs, tmp_path, given, label):
    out = fit(inputs.arguments(), tmp_path / "f", "--subject", given)
    assert json.loads((out / "config.json").read_text())["subject"] == label
    assert list(out.glob(f"{label}_task-simulated_stat-*.nii.gz"))


@pytest.mark.parametrize("given", ["../x", "a b", "sub-", "sub_01", "é"])
def test_a_name_that_is_no_label_is_refused(inputs, braincorl, tmp_path, given):
    result = braincorl("fit", *inputs.arguments(), "--subject", given, "--output-dir", tmp_path / "f")
    assert (result.status, "expected letters and digits, as in sub-01" in result.err) == (2, True)


def test_scores_of_another_fit_are_refused_by_the_report(fitted, inputs, braincorl, tmp_path):
    other = fit(inputs.arguments(), tmp_path / "other", "--n-context", 30)
    for made in (fitted, other):
        scored = braincorl("score", made, *inputs.arguments(mask=None), "--output-dir", tmp_path / made.name / "scores")
        assert scored.status == 0, scored.err
    ours, theirs = (tmp_path / made.name / "scores" for made in (fitted, other))
    assert braincorl("report", fitted, "--score", ours, "--output", tmp_path / "a.html").status == 0
    result = braincorl("report", fitted, "--score", theirs, "--output", tmp_path / "b.html")
    assert result.status == 2
    assert f"{theirs} was made with another fit ({other}) than the fit in {fitted}" in result.err
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize("prepared", ["session", "none"])
def test_responses_in_other_units_than_the_fits_are_refused(inputs, braincorl, tmp_path, prepared):
    """A prepared person knows how it was scaled; a fit does, too."""
    from braincorl.datasets import prepare
    from braincorl.datasets.load import open_subject

    trials = pd.read_csv(inputs.trials, sep="\t").assign(session="1")
    trials.to_csv(tmp_path / "trials.tsv", sep="\t", index=False)
    person = open_subject(inputs.betas, tmp_path / "trials.tsv", inputs.mask, zscore=prepared)
    prepare(person, tmp_path / "sub-01.h5")
    of_fit = "none" if prepared == "session" else "session"
    changed = inputs.arguments(trials=tmp_path / "trials.tsv")
    made = fit(changed, tmp_path / "f", "--n-context", 40, "--zscore", of_fit)
    score = ("score", made, "--features", inputs.features, "--betas", tmp_path / "sub-01.h5", "--output-dir")
    result = braincorl(*score, tmp_path / "s")
    assert result.status == 2
    assert f"scaled '{prepared}', but the fit in {made} was made from '{of_fit}'" in result.err
    result = braincorl(*score, tmp_path / "t", "--zscore", prepared)
    assert (result.status, f"scaled '{prepared}', but" in result.err) == (0, True)
    same = fit(["--features", inputs.features, "--betas", tmp_path / "sub-01.h5"], tmp_path / "g", "--n-context", 40)
    assert braincorl("score", same, *score[2:], tmp_path / "u").status == 0


# -- what a result says of itself is data ------------------------------------------------------------------------------

HOSTILE = ["../evil", "/tmp/evil", "a/b", "", "a b", "sub-01\n", "..", "sub-01\0", 7, None, ["x"], {"a": 1}, "é"]


@pytest.mark.parametrize("prefix", HOSTILE, ids=repr)
@pytest.mark.parametrize("verb", ["score", "predict", "query", "report"])
def test_a_prefix_that_leads_elsewhere_is_refused(fitted, inputs, braincorl, tmp_path, verb, prefix):
    shared = tmp_path / "shared"
    shutil.copytree(fitted, shared)
    config = json.loads((shared / "config.json").read_text())
    (shared / "config.json").write_text(json.dumps({**config, "prefix": prefix}))
    more = {
        "score": (*inputs.arguments(mask=None), "--output-dir", tmp_path / "deep" / "o"),
        "predict": ("--features", inputs.features, "--output-dir", tmp_path / "deep" / "o"),
        "query": ("face", "--text-features", inputs.features, "--output-dir", tmp_path / "deep" / "o"),
        "report": ("--output", tmp_path / "o.html"),
    }
    result = braincorl(verb, shared, *more[verb])
    assert result.status == 2
    assert "prefix" in result.err
    assert len(result.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("subject", 3), ("zscore", "often"), ("zscore", None), ("features_provenance", []), ("n_context", "40"),
     ("subject", {"a": 1}), ("features_provenance", "clip")],
)  # fmt: skip
def test_settings_of_another_type_are_refused_by_name(fitted, inputs, braincorl, tmp_path, name, value):
    shared = tmp_path / "shared"
    shutil.copytree(fitted, shared)
    config = json.loads((shared / "config.json").read_text())
    (shared / "config.json").write_text(json.dumps({**config, name: value}))
    result = braincorl("predict", shared, "--features", inputs.features, "--output-dir", tmp_path / "o")
    assert result.status == 2
    assert f"'{name}' is" in result.err
    assert len(result.err.splitlines()) == 1


def a_pipe(path, inputs):
    import os

    os.mkfifo(path)


OWN_FEATURES = {
    "another person's": lambda path, inputs: change(inputs, path, lambda t: t.features[::-1]),
    "without the fit's images": lambda path, inputs: change(
        inputs, path, None, lambda t: np.char.add("x", t.image_ids)
    ),
    "damaged": lambda path, inputs: path.write_bytes(b"PK" + b"\0" * 200),
    "gone": lambda path, inputs: None,
    "a pipe": a_pipe,
}


@pytest.mark.parametrize("case", OWN_FEATURES)
def test_a_pool_that_is_not_the_fits_own_is_not_followed(fitted, inputs, braincorl, tmp_path, case):
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere.npz"
    shutil.copytree(fitted, shared)
    OWN_FEATURES[case](elsewhere, inputs)
    config = json.loads((shared / "config.json").read_text())
    (shared / "config.json").write_text(json.dumps({**config, "features": str(elsewhere)}))
    name = load_features(inputs.features).image_ids[0]
    asked = (name, "--text-features", inputs.features, "--output-dir", tmp_path / "q")
    result = braincorl("query", shared, *asked)
    assert result.status == 0, result.err
    assert "pass a pool of images as --features" in result.err
    assert not (tmp_path / "q" / "images.tsv").exists()
    assert braincorl("query", fitted, *asked, "--overwrite").status == 0
    assert (tmp_path / "q" / "images.tsv").exists()


# -- results say what they hold ----------------------------------------------------------------------------------------


def test_every_result_says_which_files_it_holds_and_what_it_was_made_from(fitted, inputs, braincorl, tmp_path):
    image = load_features(inputs.features).image_ids[0]
    verbs = {
        "score": inputs.arguments(mask=None),
        "predict": ["--features", inputs.features],
        "query": [image, "--text-features", inputs.features],
    }
    for verb, arguments in verbs.items():
        assert braincorl(verb, fitted, *arguments, "--output-dir", tmp_path / verb).status == 0
        made = json.loads((tmp_path / verb / "config.json").read_text())
        assert made["fit"] == str(fitted)
        assert made["subject"] == "sub-01"
    for folder in (fitted, *(tmp_path / verb for verb in verbs)):
        readme = (folder / "README.md").read_text()
        patterns = [line.split("`")[1] for line in readme.splitlines() if line.startswith("- `")]
        assert all(list(folder.glob(pattern)) for pattern in patterns)
        told = {path for pattern in patterns for path in folder.glob(pattern)}
        assert {path for path in folder.iterdir() if path.suffix in (".tsv", ".safetensors", ".txt")} <= told


def test_a_fit_that_scores_nothing_says_how_to_go_on(inputs, braincorl, tmp_path):
    result = braincorl("fit", *inputs.arguments(), "--encoder", "ridge", "--output-dir", tmp_path / "f")
    assert result.status == 0
    assert "not scored, as no 2 images are left out; fit fewer (--n-context)" in result.out
    assert f"braincorl score {tmp_path / 'f'}" in result.out


def other_person(inputs, folder, change_features):
    return fit(inputs.arguments(features=change(inputs, folder / "o.npz", change_features)), folder / "o")


def test_people_whose_features_agree_may_be_put_together(fitted, inputs, tmp_path):
    same = SameImages()
    for folder in (fitted, other_person(inputs, tmp_path, None), fitted):
        same.add(Fit.load(folder))


@pytest.mark.parametrize("case", ["of another origin", "in another order", "in another unit", "of the other sign"])
def test_people_whose_features_of_the_same_images_differ_may_not(fitted, inputs, tmp_path, case):
    other = other_person(inputs, tmp_path, UNRELATED[case][0](fitted))
    same = SameImages()
    same.add(Fit.load(other))
    with pytest.raises(InputError, match=f"of 40 images of .* have other features than in the fit in {other}"):
        same.add(Fit.load(fitted))


# -- spaces that somebody's script has written, with a checksum that is right -----------------------------------------

SPACES = {
    "no arrays": lambda a, h: ({}, h),
    "no regions": lambda a, h: (a, {}),
    "regions that are no names": lambda a, h: (a, {"rois": [1]}),
    "regions that are a number": lambda a, h: (a, {"rois": 3}),
    "a region without members": lambda a, h: (a, {"rois": [*h["rois"], "V9"]}),
    "a region of another size": lambda a, h: ({**a, "roi0": np.ones(3, dtype=bool)}, {"rois": ["V1"]}),
    "a region of numbers": lambda a, h: ({**a, "roi0": np.ones(a["included"].sum())}, {"rois": ["V1"]}),
    "a mask of numbers": lambda a, h: ({**a, "mask": a["mask"].astype(float)}, h),
    "a flat mask": lambda a, h: ({**a, "mask": a["mask"].ravel()}, h),
    "a mask of another size": lambda a, h: ({**a, "mask": np.ones_like(a["mask"])}, h),
    "a small affine": lambda a, h: ({**a, "affine": np.eye(3)}, h),
    "an affine of NaN": lambda a, h: ({**a, "affine": np.full((4, 4), np.nan)}, h),
    "no affine": lambda a, h: ({name: array for name, array in a.items() if name != "affine"}, h),
    "nothing included": lambda a, h: ({**a, "included": np.zeros_like(a["included"])}, h),
    "a surface without vertices": lambda a, h: (a, {**h, "surface": "fsaverage"}),
    "a header that is a list": lambda a, h: (a, ["rois"]),
}


@pytest.mark.parametrize("case", SPACES)
def test_a_space_of_another_form_is_refused(fitted, inputs, braincorl, tmp_path, case):
    shared = tmp_path / "shared"
    shutil.copytree(fitted, shared)
    arrays, header = read_tensors(shared / "space.safetensors", SPACE_KIND)
    arrays, header = SPACES[case](arrays, header)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorfile, "read_tensors", lambda *_: None)  # which would refuse to read some back
        tensorfile.write_tensors(shared / "space.safetensors", SPACE_KIND, arrays, header)
    result = braincorl("predict", shared, "--features", inputs.features, "--output-dir", tmp_path / "o")
    assert result.status == 2
    assert "space.safetensors" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["encoder.safetensors", "space.safetensors"])
def test_no_flipped_bit_of_a_fit_passes(fitted, tmp_path, name, rng):
    shared = tmp_path / "shared"
    shutil.copytree(fitted, shared)
    content = (shared / name).read_bytes()
    for place in [*range(0, 200, 3), *rng.integers(0, len(content), 60).tolist()]:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        (shared / name).write_bytes(changed)
        with pytest.raises(InputError):
            Fit.load(shared)


@pytest.mark.parametrize(
    "alphas",
    [
        [np.float32(1), np.float32(10)],
        np.logspace(0, 2, 3),
        range(1, 4),
        pd.Series([1.0, 10.0]),
        (1, 10),
        np.int64([1]),
    ],
    ids=repr,
)
def test_whatever_a_fit_accepts_can_be_saved(rng, tmp_path, alphas):
    encoder = RidgeEncoder(alphas=alphas).fit(rng.standard_normal((12, 3)), rng.standard_normal((12, 2)))
    encoder.save(tmp_path / "e.safetensors", {"seed": np.int64(1), "rows": np.arange(2), "at": tmp_path})
    back = RidgeEncoder.load(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(back.coef_, encoder.coef_)
    assert list(back.alphas) == [float(alpha) for alpha in alphas]
    assert back.provenance_ == {"seed": 1, "rows": [0, 1], "at": str(tmp_path)}


def test_features_that_do_not_say_their_network_are_taken_on_trust_and_that_is_said(fitted, inputs, caplog):
    """Unless images of the fit's are among them, with the same features."""
    found, table = Fit.load(fitted), load_features(inputs.features)
    found.config["features_provenance"] = {"backbone": "one"}
    unknown = FeatureTable(table.features + 1, np.char.add("new", table.image_ids), {})
    for unstated, is_said in (
        (FeatureTable(table.features, table.image_ids, {}), False),
        (FeatureTable(unknown.features, unknown.image_ids, {"backbone": "one"}), False),
        (unknown, True),
    ):
        caplog.clear()
        check_features_fit(found, unstated)
        assert ("do not say which network they are of: they are taken for those of 'one'" in caplog.text) == is_said
