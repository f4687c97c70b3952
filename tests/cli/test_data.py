"""`braincorl data check` on tiny but format-true data sets, whole and damaged."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "datasets"))

from layouts import TinyAlgonauts, TinyBids, TinyBold5000, TinyGlmsingle, TinyNsd
from nsd_writer import write_nsd_design


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("design")
    return root, write_nsd_design(root)


@pytest.fixture
def nsd(tmp_path, experiment):
    root = tmp_path / "nsd"
    (root / "nsddata").mkdir(parents=True)
    (root / "nsddata" / "experiments").symlink_to(experiment[0] / "nsddata" / "experiments")
    return TinyNsd(root, experiment[1])


def lines(result, level):
    return [line for line in result.out.splitlines() if line.startswith(level)]


def test_nsd_says_what_is_there_and_what_is_missing(nsd, braincorl):
    result = braincorl("data", "check", nsd.root)
    assert result.status == 0, result.err
    assert result.out.startswith(f"NSD in {nsd.root}")
    assert any("30000 trials, 10000 images of each of 8 subjects" in line for line in lines(result, "ok"))
    assert any("2250 trials of" in line and "in 3 sessions, 210 voxels" in line for line in lines(result, "ok"))
    assert any("37 of 40 sessions; there are 1, 2, 3" in line for line in lines(result, "missing"))
    assert lines(result, "wrong") == []


def damage_nsd(nsd):
    path = nsd.folder.betas / "betas_session02.nii.gz"
    path.write_bytes(path.read_bytes()[:-1000])


def unscaled(nsd):
    import nibabel as nib
    import numpy as np
    from layouts import AFFINE

    volume = np.moveaxis(nsd.stored[1], 0, -1).astype("f4")
    nib.save(nib.Nifti1Image(volume, AFFINE), nsd.folder.betas / "betas_session01.nii.gz")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_nsd, "betas_session02.nii.gz is truncated"),
        (unscaled, "too much for % signal change"),
        (lambda n: (n.folder.betas / "betas_session01.nii.gz").write_text("<html>"), "not a readable NIfTI"),
    ],
)
def test_what_is_unusable_gets_status_two(nsd, braincorl, damage, words):
    damage(nsd)
    result = braincorl("data", "check", nsd.root)
    assert result.status == 2
    assert any(words in line for line in lines(result, "wrong")), result.out
    assert result.err.splitlines()[-1].startswith("braincorl data: ")


@pytest.mark.parametrize(
    ("make", "name", "words"),
    [
        (TinyBold5000, "BOLD5000", "46 trials of 40 images in 15 sessions"),
        (TinyAlgonauts, "Algonauts 2023", "12 trials of 12 images"),
        (TinyBids, "BIDS derivatives", "40 trials of 9 images in 10 sessions"),
        (TinyGlmsingle, "GLMsingle", "10 trials, 210 voxels"),
    ],
)
def test_every_layout_is_recognised(tmp_path, braincorl, make, name, words):
    root = tmp_path / "data"
    if make in (TinyGlmsingle, TinyAlgonauts):
        root.mkdir()
    make(root)
    result = braincorl("data", "check", root)
    assert result.status == 0, result.err + result.out
    assert result.out.startswith(name)
    assert any(words in line for line in lines(result, "ok")), result.out


def test_other_folders_get_one_line(tmp_path, braincorl):
    for root, words in ((tmp_path, "looks like none of NSD"), (tmp_path / "nothing", "is not a folder")):
        result = braincorl("data", "check", root)
        assert result.status == 2
        assert words in result.err
        assert len(result.err.splitlines()) == 1


def test_a_prepared_person_is_fitted_and_scored_without_further_files(nsd, braincorl, tmp_path):
    import json

    import numpy as np

    from braincorl.datasets import load_nsd
    from braincorl.features import FeatureTable, save_features

    out = tmp_path / "person.h5"
    prepare = ("data", "prepare", "nsd", nsd.root, "--subject", 1, "--sessions", "1-3", "--output", out)
    result = braincorl(*prepare)
    assert result.status == 0, result.err
    assert "2250 trials" in result.out
    assert braincorl(*prepare).status == 0
    direct = load_nsd(nsd.root, 1, sessions=[1, 2, 3])
    images = direct.image_ids[:200]
    features = np.random.default_rng(0).standard_normal((images.size, 8)).astype("f4")
    save_features(tmp_path / "f.npz", FeatureTable(features, images, {}))
    given = ("--features", tmp_path / "f.npz", "--betas", out)
    result = braincorl("fit", *given, "--n-context", 50, "--output-dir", tmp_path / "fit")
    assert result.status == 0, result.err
    config = json.loads((tmp_path / "fit" / "config.json").read_text())
    assert (config["zscore"], config["n_voxels"], config["n_context"]) == ("session", direct.n_voxels, 50)
    result = braincorl("score", tmp_path / "fit", *given, "--output-dir", tmp_path / "scores")
    assert result.status == 0, result.err
    result = braincorl("compare", *[tmp_path / "fit"] * 2, "--permutations", 9, "--output-dir", tmp_path / "compared")
    assert result.status == 0, result.err
    result = braincorl("identify", tmp_path / "fit", *given, "--output-dir", tmp_path / "identified")
    assert result.status == 0, result.err
    for extra in (("--mask", out), ("--trials", out)):
        result = braincorl("fit", *given, *extra, "--output-dir", tmp_path / "no")
        assert result.status == 2
        assert f"leave out {extra[0][2:]}" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("algonauts2023", "--subject", "1", "--zscore", "none"), "knows no --zscore"),
        (("nsd", "--subject", "one"), "no list of numbers"),
        (("nsd", "--subject", "9"), "must be 1 to 8"),
        (("nsd", "--subject", "1,2"), "--subject names 2 subjects, but a file holds one"),
        (("nsd", "--subject", "1", "--sessions", "1-999999999999"), "lists more than 10000 numbers"),
        (("nsd", "--subject", "9" * 25), "no list of numbers"),
        (("nsd", "--subject", "1", "--sessions", "50"), "must be among 1 to 40"),
        (("nsd", "--subject", "1", "--sessions", "1", "--voxels", "V9"), "voxels names V9"),
    ],
)
def test_mistakes_in_preparing_get_one_line(nsd, braincorl, tmp_path, arguments, words):
    dataset, *rest = arguments
    result = braincorl("data", "prepare", dataset, nsd.root, *rest, "--output", tmp_path / "p.h5")
    assert result.status == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "p.h5").exists()
