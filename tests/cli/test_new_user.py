"""What a new user types and gives that could mean two things, is the same twice, or is of another kind."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from braincorl.features import FeatureTable, load_features, save_features

N, P, V = 30, 6, 12


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Features, betas, trials and two fits of one person, in a volume of 3 x 2 x 2 voxels."""
    folder, rng = tmp_path_factory.mktemp("desk"), np.random.default_rng(0)
    X, names = rng.standard_normal((N, P)).astype("f4"), np.array([f"i{n}" for n in range(N)])
    save_features(folder / "f.npz", FeatureTable(X, names, {"backbone": "none"}))
    y = (X @ rng.standard_normal((P, V)) + rng.standard_normal((N, V))).astype("f4")
    volume = y.T.reshape(3, 2, 2, N)
    nib.save(nib.Nifti1Image(volume, np.diag([2, 2, 2, 1])), folder / "sub-01_betas.nii")
    nib.save(nib.Nifti1Image(np.ones((3, 2, 2), "u1"), np.diag([2, 2, 2, 1])), folder / "mask.nii")
    np.save(folder / "sub-01_y.npy", y)
    (folder / "t.tsv").write_text("image\n" + "".join(f"{name}\n" for name in names))
    return folder


@pytest.fixture
def here(desk, monkeypatch, tmp_path):
    shutil.copytree(desk, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def fit(braincorl, *more, features="f.npz", betas="sub-01_betas.nii", trials="t.tsv", encoder="ridge", out="out"):
    return braincorl(
        "fit", "--features", features, "--betas", betas, "--trials", trials, "--encoder", encoder, "--n-context", 20,
        "--output-dir", out, *more,
    )  # fmt: skip


def refused(result, words):
    assert result.status == 2
    assert result.err.splitlines()[-1].count(words) == 1, result.err


# Words of the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--betas", "sub-01_betas.nii", "--betas", "sub-01_y.npy"], "argument --betas: it is given 2 times"),
        (["--trials=t.tsv", "--trials", "t.tsv"], "argument --trials: it is given 2 times"),
        (["--output", "x"], "--output is unknown, did you mean --output-dir?"),
        (["-output-dir", "x"], "-output-dir is unknown, did you mean --output-dir?"),
        (["\u2014output-dir", "x"], "\u2014output-dir is unknown, did you mean --output-dir?"),
        (["--wibble"], "--wibble is unknown (see"),
    ],
)
def test_what_is_misspelt_or_given_in_two_parts_is_named(braincorl, here, words, said):
    refused(braincorl("fit", "--features", "f.npz", *words), said)


def test_options_may_stand_before_the_verb_and_help_is_a_verb_too(braincorl, here):
    data = ("--features", "f.npz", "--betas", "sub-01_y.npy", "--trials", "t.tsv", "--encoder", "ridge")
    result = braincorl("--quiet", "fit", *data, "--output-dir", "out")
    assert (result.status, result.err) == (0, "")
    assert braincorl("help", "fit").out == braincorl("fit", "--help").out
    assert braincorl("help").out == braincorl("--help").out


def test_a_home_is_a_home_wherever_it_is_written(braincorl, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    data = ("--features=~/f.npz", "--betas", "~/sub-01_y.npy", "--trials=~/t.tsv", "--encoder=ridge")
    assert braincorl("fit", *data, "--output-dir=~/out").status == 0
    assert (here / "out" / "encoder.safetensors").is_file()
    assert not (here / "~").exists()
    (here / "~").mkdir()  # who has such a folder means it
    (here / "~" / "f.npz").write_bytes((here / "f.npz").read_bytes())
    assert braincorl("fit", *data, "--output-dir=~/again").status == 0


# Files of another kind


def test_files_of_another_kind_are_called_what_they_are(braincorl, here):
    np.savez(here / "sub-01_y.npz", np.load("sub-01_y.npy"))
    savemat(here / "x.mat", {"betas": np.ones((2, 2))})
    image = nib.load("sub-01_betas.nii")
    nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine), here / "pair.img")
    for mask, words in (
        ("sub-01_y.npy", "is a NumPy array (.npy), expected a NIfTI image"),
        ("sub-01_y.npz", "is a zip archive, as .npz"),
        ("x.mat", "is a MATLAB file, expected a NIfTI image"),
        ("pair.img", "holds the data of a pair of files"),
        ("pair.hdr", "is the header of a pair of files"),
    ):
        result = fit(braincorl, "--mask", mask)
        refused(result, words)
        assert "get a new copy" not in result.err
        assert result.err.count("\n") == 1
    refused(fit(braincorl, "--checkpoint", "f.npz", encoder="in-context"), "is a zip archive without tensors")


def test_tables_of_other_programs_are_read_or_called_what_they_are(braincorl, here):
    import gzip

    text = (here / "t.tsv").read_text()
    expected = fit(braincorl, out="plain").out.split("left over")[0].splitlines()[-1]
    (here / "excel.txt").write_bytes(text.replace("\n", "\r\n").encode("utf-16"))
    assert fit(braincorl, trials="excel.txt", out="excel").out.splitlines()[-1] == expected
    (here / "t.tsv.gz").write_bytes(gzip.compress(text.encode()))
    (here / "t.xlsx").write_bytes(b"PK\x03\x04" + bytes(300))
    (here / "t.csv").write_text(text.replace("image", "trial;image"))
    (here / "events.tsv").write_text(text.replace("image", "stim_file"))
    for name, words in (
        ("t.tsv.gz", "is compressed by gzip, expected a tab-separated text table: unpack it"),
        ("t.xlsx", "as .npz, .xlsx and .pth files are, expected a tab-separated text table: save it as text"),
        ("t.csv", "it looks comma-separated, save it with tabs"),
        ("events.tsv", "name the column of image names so"),
    ):
        refused(fit(braincorl, trials=name), words)


def test_names_that_are_python_objects_are_refused_with_the_way_out(braincorl, here):
    table = load_features("f.npz")
    np.savez(here / "o.npz", features=table.features, image_ids=np.array(table.image_ids, object))
    refused(fit(braincorl, features="o.npz"), "np.asarray(image_ids, dtype=str)")


@pytest.mark.parametrize("name", ["x.NPZ", "x.Npz", "x.H5", "x.SafeTensors"])
def test_an_ending_may_be_written_in_any_letters(tmp_path, name):
    table = FeatureTable(np.ones((2, 3), "f4"), np.array(["a", "b"]), {})
    save_features(tmp_path / name, table)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    np.testing.assert_array_equal(load_features(tmp_path / name).features, table.features)


# Two meanings


def test_a_volume_of_zeros_is_no_response(braincorl, here):
    image = nib.load("sub-01_betas.nii")
    values = image.get_fdata(dtype=np.float32)
    values[..., 5] = 0
    nib.save(nib.Nifti1Image(values, image.affine), here / "sub-01_blank.nii")
    refused(fit(braincorl, "--mask", "mask.nii", betas="sub-01_blank.nii"), "volume 5 (counting from 0) is 0 in all")
    (here / "t.tsv").write_text((here / "t.tsv").read_text().replace("i5\n", "n/a\n"))
    assert fit(braincorl, "--mask", "mask.nii", betas="sub-01_blank.nii").status == 0


def test_a_mask_is_no_noise_ceiling(braincorl, here):
    refused(fit(braincorl, "--mask", "mask.nii", "--ncsnr", "mask.nii"), "holds nothing but 0 and 1, as a mask does")


def test_as_many_trials_as_voxels_is_told(braincorl, here):
    np.save(here / "sub-01_square.npy", np.load("sub-01_y.npy")[:V])
    (here / "t.tsv").write_text("image\n" + "".join(f"i{n}\n" for n in range(V)))
    result = fit(braincorl, betas="sub-01_square.npy")
    assert "as many rows as columns (12): rows are taken as trials" in result.err


# The same twice


def test_a_feature_space_given_twice_is_refused_however_it_is_dressed(braincorl, here):
    table = load_features("f.npz")
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((P, P)))[0]
    for number, features in enumerate((table.features, 3 * table.features + 1, table.features @ turn)):
        save_features(here / f"g{number}.npz", FeatureTable(features.astype("f4"), table.image_ids, {}))
        spaces = ("a=f.npz", "--features", f"b=g{number}.npz")
        result = braincorl("fit", "--features", *spaces, "--betas", "sub-01_y.npy", "--trials", "t.tsv",
                           "--output-dir", "out")  # fmt: skip
        refused(result, "the feature spaces 'a' and 'b' say the same of the images")
    save_features(here / "other.npz", FeatureTable(table.features[:, ::-1] ** 2, table.image_ids, {}))
    spaces = ("a=f.npz", "--features", "b=other.npz")
    assert braincorl("fit", "--features", *spaces, "--betas", "sub-01_y.npy", "--trials", "t.tsv", "--output-dir",
                     "out").status == 0  # fmt: skip


def test_names_and_candidates_that_come_twice_are_told(braincorl, here):
    (here / "c.txt").write_text("".join(f"i{n % 18}\n" for n in range(20)))
    data = ("--features", "f.npz", "--betas", "sub-01_y.npy", "--trials", "t.tsv")
    result = braincorl("fit", *data, "--encoder", "ridge", "--context", "c.txt", "--output-dir", "fit")
    assert "context names 2 images more than once: each counts once" in result.err
    table = load_features("f.npz")
    more = FeatureTable(
        np.vstack([table.features, table.features[-2:]]), np.append(table.image_ids, ["x1", "x2"]), table.provenance
    )
    save_features(here / "more.npz", more)
    result = braincorl("identify", "fit", "--features", "more.npz", *data[2:], "--output-dir", "id")
    assert result.status == 0
    assert "2 candidates have the features of another" in result.err


def test_one_person_in_two_fits_is_told_by_prior_compare_and_fit(braincorl, here):
    data = ("--features", "f.npz", "--betas", "sub-01_y.npy", "--trials", "t.tsv")
    for name, encoder in (("a", "ridge"), ("b", "bayesian-ridge"), ("c", "ridge")):
        n = () if name == "b" else ("--n-context", 20)
        assert braincorl("fit", *data, "--encoder", encoder, *n, "--output-dir", name).status == 0
    assert "hold the same encoder" in braincorl("compare", "a", "c", "--output-dir", "d").err
    assert "hold the same encoder" not in braincorl("compare", "a", "a", "--features", "f.npz").err
    result = braincorl("prior", "a", "b", "--pool", "f.npz", "--output", "p.safetensors")
    assert "2 fits are of sub-01: if that is one person" in result.err
    # Fit b has seen all of the person's images, so that its memory knows what is scored here.
    result = fit(braincorl, "--prior", "p.safetensors", betas="sub-01_y.npy", encoder="in-context", out="e")
    assert "remembers a person called sub-01, with 10 of the 10 images to be scored" in result.err
    result = fit(braincorl, "--prior", "p.safetensors", "--subject", "02", betas="sub-01_y.npy", encoder="in-context",
                 out="f")  # fmt: skip
    assert "remembers a person" not in result.err


def test_files_that_only_bear_the_names_of_those_of_a_fit_are_refused(braincorl, here, monkeypatch):
    for name, encoder in (("a", "ridge"), ("b", "bayesian-ridge")):
        assert fit(braincorl, betas="sub-01_y.npy", encoder=encoder, out=name).status == 0
    other = here / "elsewhere"
    other.mkdir()
    for name in ("f.npz", "t.tsv"):
        shutil.copy(here / name, other / name)
    np.save(other / "sub-01_y.npy", np.load("sub-01_y.npy")[::-1])
    monkeypatch.chdir(other)
    refused(braincorl("compare", here / "a", here / "b", "--output-dir", "c"), "other files bear these names here")
    data = ("--features", "f.npz", "--betas", here / "sub-01_y.npy", "--trials", "t.tsv")
    assert braincorl("compare", here / "a", here / "b", *data, "--permutations", 10, "--output-dir", "c").status == 0
