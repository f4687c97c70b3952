"""`predict`, `score` and `query` on a fit of every kind of encoder: the library's numbers, or one line."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from published import TINY, make_network

from braincorl import load_encoder
from braincorl.analysis import text_selectivity
from braincorl.checkpoint import save_checkpoint
from braincorl.encoders.choice import ENCODERS, PRIOR_ENCODER, SPACES_ENCODER
from braincorl.features import FeatureTable, save_features
from braincorl.metrics import explained_variance

N, P, GRID = 40, TINY.n_features, (4, 3, 2)
V = 24

# Kind -> options of `fit`, and whether it states a predictive deviation.
KINDS = {
    "ridge": (["--encoder", "ridge"], False),
    "bayesian-ridge": (["--encoder", "bayesian-ridge"], True),
    "in-context": (["--encoder", "in-context"], True),
    "in-context, with a memory": (["--encoder", "in-context", "--prior", "prior.safetensors"], True),
    "in-context, published network": (["--encoder", "in-context", "--checkpoint", "network.safetensors"], False),
    "group-prior": (["--encoder", "group-prior", "--prior", "prior.safetensors"], True),
    "banded-ridge, one space": (["--encoder", "banded-ridge"], True),
    "banded-ridge": ([], True),
    "banded-ridge, with a memory": (["--prior", "spaces.safetensors"], True),
}


def features_of(kind, suffix=""):
    names = [f"a=a{suffix}.npz", f"b=b{suffix}.npz"] if KINDS[kind][0][:1] != ["--encoder"] else [f"f{suffix}.npz"]
    return [part for name in names for part in ("--features", name)]


def data(number):
    return ["--betas", f"sub-0{number}_betas.nii", "--trials", "t.tsv"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Three people's betas in a volume, features in one space and in two, priors of two people, a network."""
    from braincorl.cli.main import main

    folder, rng = tmp_path_factory.mktemp("desk"), np.random.default_rng(0)
    X = rng.standard_normal((N, P)).astype("f4")
    X /= np.linalg.norm(X, axis=1, keepdims=True)  # as published networks expect
    names = np.array([f"i{n}" for n in range(N)])
    spaces = {"f": X, "a": X[:, :4], "b": X[:, 4:]}
    for name, features in spaces.items():
        save_features(folder / f"{name}.npz", FeatureTable(features, names, {}))
        new = np.array([f"new{n}" for n in range(5)])
        save_features(folder / f"{name}-new.npz", FeatureTable(features[:5][::-1] * 0.9, new, {}))
        words = np.array(["face", "place", *(f"thing {n}" for n in range(28))])
        save_features(folder / f"{name}-words.npz", FeatureTable(features[:30] + 0.1, words, {}))
    for number in (1, 2, 3):
        y = X @ rng.standard_normal((P, V)) * 2 + rng.standard_normal((N, V)) + 5
        nib.save(nib.Nifti1Image(y.T.reshape(*GRID, N).astype("f4"), np.eye(4)), folder / f"sub-0{number}_betas.nii")
    nib.save(nib.Nifti1Image(np.ones(GRID, "u1"), np.eye(4)), folder / "mask.nii")
    (folder / "t.tsv").write_text("image\n" + "".join(f"{name}\n" for name in names))
    save_checkpoint(folder / "network.safetensors", make_network(TINY).float(), {"backbone": "unknown"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for prior, kind in (("prior", "bayesian-ridge"), ("spaces", "banded-ridge")):
            for number in (2, 3):
                options = [*features_of(kind), *data(number), *KINDS[kind][0], "--output-dir", f"{prior}{number}"]
                assert main(["fit", *options, "--quiet"]) == 0
            pool = [] if prior == "prior" else features_of(kind)[:0]
            assert main(["prior", f"{prior}2", f"{prior}3", *pool, "--output", f"{prior}.safetensors"]) == 0
    return folder


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def fitted(desk, kind, braincorl, monkeypatch):
    monkeypatch.chdir(desk)
    out = f"fit of {kind}"
    if not (desk / out).exists():
        options = [*features_of(kind), *data(1), "--mask", "mask.nii", *KINDS[kind][0], "--n-context", 25]
        result = braincorl("fit", *options, "--output-dir", out)
        assert result.status == 0, result.err
    return desk / out


def stacked(desk, kind, suffix=""):
    names = ["a", "b"] if len(features_of(kind)) == 4 else ["f"]
    with np.load(desk / f"{names[0]}{suffix}.npz") as first:
        ids = first["image_ids"]
    return ids, np.hstack([np.load(desk / f"{name}{suffix}.npz")["features"] for name in names])


def test_every_name_is_among_the_kinds():
    options = [options for options, _ in KINDS.values()]
    assert {part[1] for part in options if part[:1] == ["--encoder"]} == {*ENCODERS, PRIOR_ENCODER, SPACES_ENCODER}


def test_predictions_are_those_of_the_library(desk, kind, fitted, braincorl, tmp_path):
    has_std = KINDS[kind][1]
    encoder = load_encoder(fitted / "encoder.safetensors")
    command = ["predict", fitted, *features_of(kind, "-new"), "--output-dir", tmp_path / "p"]
    result = braincorl(*command, "--std")
    if not has_std:
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert "has no predictive" in result.err
        assert not (tmp_path / "p").exists()
        assert braincorl(*command).status == 0
    ids, X = stacked(desk, kind, "-new")
    expected = encoder.predict(X, return_std=True) if has_std else (encoder.predict(X),)
    maps = sorted((tmp_path / "p").glob("*_statmap.nii.gz"))
    found = [nib.load(path).get_fdata().reshape(V, -1).T for path in maps]
    assert len(found) == len(expected)
    for values in expected:
        assert any(np.allclose(values, part, rtol=1e-4, atol=1e-5) for part in found)
    table = pd.read_csv(next((tmp_path / "p").glob("*_trials.tsv")), sep="\t")
    assert table["image"].tolist() == ids.tolist()


def test_scores_are_those_of_new_images_alone(desk, kind, fitted, braincorl, tmp_path):
    result = braincorl("score", fitted, *features_of(kind), *data(1), "--output-dir", tmp_path / "s")
    assert result.status == 0, result.err
    ids, X = stacked(desk, kind)
    new = ~np.isin(ids, (fitted / "context.txt").read_text().splitlines())
    assert new.sum() == N - 25
    y = nib.load(desk / "sub-01_betas.nii").get_fdata().reshape(V, -1).T
    encoder = load_encoder(fitted / "encoder.safetensors")
    expected = explained_variance(y[new], encoder.predict(X[new]).astype(np.float64))
    written = nib.load(next((tmp_path / "s").glob("*stat-ev_statmap.nii.gz"))).get_fdata().reshape(V)
    np.testing.assert_allclose(written, expected, atol=1e-4)


def test_words_are_asked_or_refused_in_one_line(desk, kind, fitted, braincorl, tmp_path):
    several = len(features_of(kind)) == 4
    words = ["--text-features", "f-words.npz"]
    result = braincorl("query", fitted, "face", *words, *features_of(kind), "--output-dir", tmp_path / "q")
    if several:
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert not (tmp_path / "q").exists()
        return
    assert result.status == 0, result.err
    encoder = load_encoder(fitted / "encoder.safetensors")
    (_, texts), (_, pool) = stacked(desk, kind, "-words"), stacked(desk, kind)
    expected = text_selectivity(encoder, texts[:1], pool, background=texts).selectivity[:, 0]
    written = nib.load(next((tmp_path / "q").glob("*stat-selectivity*.nii.gz"))).get_fdata().reshape(V)
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-6)
    assert np.ptp(written) > 1e-3
