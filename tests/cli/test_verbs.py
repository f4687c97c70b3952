import json
import os
import re
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from braincorl.cli.main import VERBS
from braincorl.datasets import load_subject
from braincorl.encoders import InContextEncoder, RidgeEncoder, load_encoder
from braincorl.features import load_features
from braincorl.fits import describe
from braincorl.fits.scores import SCORES
from braincorl.metrics import explained_variance


@pytest.fixture(scope="module")
def fitted(inputs, tmp_path_factory):
    """A ridge fit on forty images, by the command line."""
    from braincorl.cli.main import main

    out = tmp_path_factory.mktemp("fit") / "fit"
    arguments = inputs.arguments(rois=inputs.rois)
    status = main([str(a) for a in ("fit", *arguments, "--encoder", "ridge", "--n-context", 40, "--output-dir", out)])
    assert status == 0
    return out


def image(folder, stat):
    (path,) = folder.glob(f"*_stat-{stat}_statmap.nii.gz")
    return nib.load(path)


def test_fit_writes_what_the_interface_names(fitted, inputs):
    description = json.loads((fitted / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    config = json.loads((fitted / "config.json").read_text())
    assert (config["n_context"], config["encoder"], config["subject"]) == (40, "ridge", "sub-01")
    names = {path.name for path in fitted.iterdir()}
    assert {"encoder.safetensors", "space.safetensors", "context.txt", "scores.tsv"} <= names
    maps = [name for name in names if name.endswith("_statmap.nii.gz")]
    assert all(name.startswith("sub-01_task-simulated_stat-") for name in maps)
    for name in maps:
        sidecar = json.loads((fitted / name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Description"]
        assert sidecar["Units"]


def test_fit_equals_the_library_and_scikit_learn(fitted, inputs):
    encoder = load_encoder(fitted / "encoder.safetensors")
    assert isinstance(encoder, RidgeEncoder)
    table = load_features(inputs.features)
    context = (fitted / "context.txt").read_text().split()
    subject = load_subject(inputs.betas, inputs.trials, inputs.mask).select_images(context)
    X = table.features[table.rows(context)]
    expected = RidgeEncoder().fit(X, subject.responses)
    np.testing.assert_allclose(encoder.coef_, expected.coef_, rtol=1e-5, atol=1e-6)
    plain = Ridge(alpha=encoder.alpha_[7]).fit(X.astype("f8"), subject.responses[:, 7].astype("f8"))
    np.testing.assert_allclose(encoder.coef_[7], plain.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(image(fitted, "alpha").get_fdata()[subject.space.mask], encoder.alpha_, rtol=1e-6)


def test_left_out_images_are_scored_in_maps_and_table(fitted, inputs):
    encoder = load_encoder(fitted / "encoder.safetensors")
    table = load_features(inputs.features)
    subject = load_subject(inputs.betas, inputs.trials, inputs.mask)
    context = set((fitted / "context.txt").read_text().split())
    left_out = [name for name in subject.image_ids.tolist() if name not in context]
    test = subject.select_images(left_out)
    ev = explained_variance(test.responses, encoder.predict(table.features[table.rows(left_out)]))
    np.testing.assert_allclose(image(fitted, "ev").get_fdata()[subject.space.mask], ev, rtol=1e-3, atol=1e-5)
    scores = pd.read_csv(fitted / "scores.tsv", sep="\t").set_index("roi")
    assert scores.loc["all", "ev_mean"] == pytest.approx(ev.mean(), abs=1e-4)
    assert "FFA" in scores.index


def test_score_leaves_out_images_that_the_fit_has_seen(fitted, inputs, braincorl, tmp_path):
    result = braincorl("score", fitted, *inputs.arguments(mask=None), "--output-dir", tmp_path / "s")
    assert result.status == 0
    assert "40 images that the fit has seen are left out" in result.err
    assert "50 held-out images: mean EV" in result.out
    again = image(tmp_path / "s", "ev").get_fdata()
    np.testing.assert_array_equal(again, image(fitted, "ev").get_fdata())
    assert (tmp_path / "s" / "scores.tsv").read_text() == (fitted / "scores.tsv").read_text()


def test_score_gives_intervals_on_request(fitted, inputs, braincorl, tmp_path):
    arguments = [*inputs.arguments(mask=None), "--intervals", "--output-dir", tmp_path / "s"]
    assert braincorl("score", fitted, *arguments).status == 0
    table = pd.read_csv(tmp_path / "s" / "scores.tsv", sep="\t")
    assert (table["ev_low"] < table["ev_mean"]).all()
    assert (table["ev_mean"] < table["ev_high"]).all()


def test_score_of_the_context_alone_is_refused(inputs, braincorl, tmp_path):
    assert braincorl("fit", *inputs.arguments(), "--output-dir", tmp_path / "f").status == 0
    result = braincorl("score", tmp_path / "f", *inputs.arguments(mask=None))
    assert result.status == 2
    assert "0 of 90 images are new to the fit" in result.err.splitlines()[-1]
    assert not (tmp_path / "f" / "scores").exists()


def test_predictions_and_their_spread(inputs, braincorl, tmp_path):
    fit = tmp_path / "f"
    assert braincorl("fit", *inputs.arguments(), "--n-context", 20, "--output-dir", fit).status == 0
    wanted = tmp_path / "wanted.txt"
    table = load_features(inputs.features)
    wanted.write_text("\n".join(table.image_ids[[5, 2, 9]]))
    result = braincorl(
        "predict", fit, "--features", inputs.features, "--images", wanted, "--std", "--output-dir", tmp_path / "p"
    )
    assert result.status == 0
    encoder = InContextEncoder.load(fit / "encoder.safetensors")
    mean, std = encoder.predict(table.features[[5, 2, 9]], return_std=True)
    mask = nib.load(inputs.mask).get_fdata() > 0
    for kind, expected in (("predicted", mean), ("predictedstd", std)):
        stem = tmp_path / "p" / f"sub-01_task-simulated_stat-effect_desc-{kind}"
        written = nib.load(f"{stem}_statmap.nii.gz").get_fdata()
        np.testing.assert_allclose(written[mask].T, expected, rtol=1e-5)
        trials = pd.read_csv(f"{stem}_trials.tsv", sep="\t")
        assert trials["image"].tolist() == table.image_ids[[5, 2, 9]].tolist()


def test_a_random_context_depends_on_the_seed_and_not_on_the_order_of_trials(inputs, braincorl, tmp_path):
    def context(name, *options):
        assert braincorl("fit", *options, "--n-context", 10, "--output-dir", tmp_path / name).status == 0
        return (tmp_path / name / "context.txt").read_text()

    first = context("a", *inputs.arguments())
    assert context("b", *inputs.arguments()) == first
    assert context("c", *inputs.arguments(), "--random-state", 1) != first
    betas = nib.load(inputs.betas)
    flipped = nib.Nifti1Image(np.asarray(betas.dataobj)[..., ::-1], betas.affine)
    nib.save(flipped, tmp_path / "sub-01_flipped.nii.gz")
    rows = inputs.trials.read_text().splitlines()
    (tmp_path / "flipped.tsv").write_text("\n".join([rows[0], *rows[:0:-1]]))
    changed = inputs.arguments(betas=tmp_path / "sub-01_flipped.nii.gz", trials=tmp_path / "flipped.tsv")
    assert context("d", *changed) == first


def test_arrays_without_a_mask_go_all_the_way(inputs, world, braincorl, tmp_path):
    person = world.people[0]
    np.save(tmp_path / "betas.npy", person.trials)
    changed = inputs.arguments(betas=tmp_path / "betas.npy", mask=None)
    assert braincorl("fit", *changed, "--n-context", 40, "--output-dir", tmp_path / "f").status == 0
    (path,) = (tmp_path / "f").glob("*_stat-ev_statmap.npy")
    assert np.load(path).shape == (person.trials.shape[1],)
    assert braincorl("score", tmp_path / "f", *changed).status == 0
    result = braincorl("predict", tmp_path / "f", "--features", inputs.features, "--output-dir", tmp_path / "p")
    assert result.status == 0
    (path,) = (tmp_path / "p").glob("*.npy")
    assert np.load(path).shape == (len(world.image_ids), person.trials.shape[1])


def test_demo_shows_every_encoder_and_says_that_it_is_a_simulation(braincorl, tmp_path):
    result = braincorl("demo", "--output-dir", tmp_path / "demo", "--n-draws", 1)
    assert result.status == 0
    assert result.out.startswith("SIMULATION")
    assert "ridge" in result.out
    assert "bayesian-ridge" in result.out
    scores = pd.read_csv(tmp_path / "demo" / "scores.tsv", sep="\t")
    assert sorted(scores["n_context"].unique()) == [10, 20, 50, 100]
    best = scores.pivot_table(index="n_context", columns="encoder", values="score")
    assert (best["bayesian-ridge"] > best["ridge"]).all()
    assert (tmp_path / "demo" / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "demo" / "report.html").read_text()
    # The two kinds of EV have a name each: of noise-free and of measured responses.
    assert "EV against the truth, by context images" in result.out
    assert "<th>EV against the truth, by context images</th>" in page
    assert "EV of measured responses" in page
    assert not re.search(r">(mean )?EV<", page)
    assert "SIMULATION" in page
    assert "://" not in page  # letters alone come about by chance in pictures
    fit = tmp_path / "demo" / "fit"
    simulated = tmp_path / "demo" / "simulated" / "features.npz"
    assert braincorl("predict", fit, "--features", simulated, "--output-dir", tmp_path / "p").status == 0


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_shapes_and_files(braincorl, verb):
    result = braincorl(verb, "--help")
    assert result.status == 0
    single_files = {
        "convert": "--output FILE",
        "embed": "--output FILE",
        "prior": "--output FILE",
        "select": "--output TXT",
        "report": "--output FILE",
        "data": "check",
    }
    assert single_files.get(verb, "--output-dir DIR") in result.out


def test_only_verbs_that_work_are_listed(braincorl):
    result = braincorl("--help")
    assert all(verb in result.out for verb in VERBS)
    assert braincorl("dream").status == 2


def test_a_run_killed_while_writing_leaves_the_earlier_result(inputs, fitted, tmp_path, braincorl):
    out = tmp_path / "f"
    assert braincorl("fit", *inputs.arguments(), "--n-context", 20, "--output-dir", out).status == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code = (
        "import os, signal, sys\n"
        "from braincorl.fits import folder, maps\n"
        "original = maps.save_map\n"
        "def die(*args, **kwargs):\n"
        "    original(*args, **kwargs)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "folder.save_map = die\n"
        "from braincorl.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = [*map(str, inputs.arguments()), "--encoder", "ridge", "--overwrite", "--output-dir", str(out)]
    done = subprocess.run([sys.executable, "-c", code, "fit", *arguments], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert braincorl("fit", *arguments).status == 0
    assert json.loads((out / "config.json").read_text())["encoder"] == "ridge"


def test_output_read_by_a_program_that_stops_reading(inputs, tmp_path):
    command = f"{sys.executable} -m braincorl --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=os.environ)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_precision_is_the_type_that_the_native_network_computes_in(inputs, braincorl, tmp_path, precision):
    table = load_features(inputs.features)
    other = "float64" if precision == "float32" else "float32"
    np.savez(tmp_path / "f.npz", features=table.features.astype(other), image_ids=table.image_ids)
    given = inputs.arguments(features=tmp_path / "f.npz")
    arguments = [*given, "--precision", precision, "--n-context", 12, "--output-dir", tmp_path / "f"]
    assert braincorl("fit", *arguments).status == 0
    encoder = load_encoder(tmp_path / "f" / "encoder.safetensors")
    assert encoder.coef_.dtype == encoder.intercept_.dtype == precision
    assert encoder.provenance_["network"]["precision"] == precision


def test_the_native_network_refuses_a_precision_that_it_does_not_have(inputs, braincorl, tmp_path):
    done = braincorl("fit", *inputs.arguments(), "--precision", "bfloat16", "--output-dir", tmp_path / "f")
    assert done.status == 2
    assert "precision 'bfloat16' is for published networks" in done.err
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("known", [(), ("ev",), ("ev", "r"), ("ev", "r2"), ("ev", "noiseceiling"), SCORES])
def test_scores_of_nothing_are_said_in_words_without_a_warning(known):
    rng = np.random.default_rng(0)
    scores = {name: rng.random(4) if name in known else np.full(4, np.nan) for name in SCORES}
    line = describe(scores, 7)
    assert "nan" not in line
    assert line.startswith("7 held-out images: ")
    assert ("constant in every voxel" in line) is ("ev" not in known)


def test_constant_left_out_responses_end_in_words(braincorl, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 4)), rng.standard_normal((30, 6)).astype(np.float32)
    y[20:] = 3.0
    np.savez(tmp_path / "f.npz", features=X, image_ids=[f"i{row}" for row in range(30)])
    np.save(tmp_path / "b.npy", y)
    (tmp_path / "t.tsv").write_text("image\n" + "".join(f"i{row}\n" for row in range(30)))
    (tmp_path / "c.txt").write_text("".join(f"i{row}\n" for row in range(20)))
    data = ["--features", tmp_path / "f.npz", "--betas", tmp_path / "b.npy", "--trials", tmp_path / "t.tsv"]
    done = braincorl(
        "fit", *data, "--encoder", "ridge", "--context", tmp_path / "c.txt", "--output-dir", tmp_path / "o"
    )
    assert done.status == 0
    assert "10 held-out images: no scores, because the responses to them are constant in every voxel" in done.out
    assert "nan" not in done.out
    assert "Warning" not in done.err
    scored = braincorl("score", tmp_path / "o", *data)
    assert scored.status == 0
    assert "no scores" in scored.out
    assert braincorl("report", tmp_path / "o").status == 0


def test_permutations_write_p_and_q_of_voxels_and_regions(fitted, inputs, braincorl, tmp_path):
    given = [*inputs.arguments(mask=None), "--permutations", 99, "--output-dir"]
    result = braincorl("score", fitted, *given, tmp_path / "s")
    assert result.status == 0
    assert "voxels are predicted better than chance (q < 0.05, 99 permutations" in result.out
    p, q, ev = (image(tmp_path / "s", name).get_fdata() for name in ("p", "q", "ev"))
    tested = np.isfinite(p)
    np.testing.assert_array_equal(tested, np.isfinite(ev))
    assert p[tested].min() == np.float32(0.01)
    assert (q[tested] >= p[tested]).all()
    assert ev[tested & (q < 0.05)].mean() > ev[tested].mean()
    table = pd.read_csv(tmp_path / "s" / "scores.tsv", sep="\t")
    assert table["r_p"].between(0.01, 1).all()
    config = json.loads((tmp_path / "s" / "config.json").read_text())
    assert (config["n_permutations"], config["random_state"]) == (99, 0)
    assert braincorl("score", fitted, *given, tmp_path / "again").status == 0
    assert (tmp_path / "again" / "scores.tsv").read_bytes() == (tmp_path / "s" / "scores.tsv").read_bytes()
    refused = braincorl("score", fitted, *inputs.arguments(mask=None), "--permutations", 0)
    assert (refused.status, len(refused.err.splitlines())) == (2, 1)
