import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def fitted(inputs, tmp_path_factory):
    from braincorl.cli.main import main

    out = tmp_path_factory.mktemp("fit") / "fit"
    arguments = inputs.arguments(rois=inputs.rois)
    assert main([str(a) for a in ("fit", *arguments, "--n-context", 40, "--output-dir", out)]) == 0
    return out


def test_a_report_belongs_to_its_fit_and_is_replaced_with_it(fitted, inputs, braincorl):
    result = braincorl("report", fitted, "--features", inputs.features)
    assert result.status == 0
    assert result.out.startswith("sub-01: report,")
    page = (fitted / "report.html").read_text(encoding="utf-8")
    assert "Preferred images" in page
    assert "On fsaverage" not in page
    assert "report.html" in json.loads((fitted / ".braincorl.json").read_text())["files"]
    again = braincorl("report", fitted)
    assert again.status == 2
    assert "exists: choose another name, or pass --overwrite" in again.err
    assert braincorl("report", fitted, "--overwrite").status == 0
    assert "Preferred images" not in (fitted / "report.html").read_text(encoding="utf-8")
    redo = ("fit", *inputs.arguments(rois=inputs.rois), "--n-context", 40, "--output-dir", fitted, "--overwrite")
    assert braincorl(*redo).status == 0
    assert not (fitted / "report.html").exists()


def test_scores_of_other_images_and_the_surface_on_request(fitted, inputs, braincorl, tmp_path):
    scored = braincorl("score", fitted, *inputs.arguments(mask=None), "--output-dir", tmp_path / "s")
    assert scored.status == 0
    out = tmp_path / "r.html"
    assert braincorl("report", fitted, "--score", tmp_path / "s", "--space", "mni", "--output", out).status == 0
    assert "On fsaverage" in out.read_text(encoding="utf-8")


def test_methods_are_printed_and_nothing_is_written(fitted, braincorl):
    from braincorl.fits import Fit

    before = sorted(fitted.iterdir())
    result = braincorl("report", fitted, "--methods")
    assert (result.status, result.out) == (0, f"{Fit.load(fitted).methods()}\n")
    for form in ("markdown", "latex", "bibtex"):
        result = braincorl("report", fitted, "--methods", "--format", form)
        assert (result.status, result.out) == (0, f"{getattr(Fit.load(fitted).methods(), form)()}\n")
    assert sorted(fitted.iterdir()) == before
    assert "braincorl fit --features" in json.loads((fitted / "config.json").read_text())["command"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "{tmp}/r.pdf"], "must end in .html"),
        (["--output", "{tmp}/no/r.html"], "does not exist: make that folder first"),
        (["--output", "{tmp}/mine.html", "--overwrite"], "was not written by braincorl"),
        (["--images", "{tmp}"], "--images needs --features"),
        (["--score", "{tmp}/none"], "is not a folder"),
        (["--score", "{tmp}"], "holds no sub-01_task-simulated_stat-ev map"),
        (["--benchmark", "{tmp}"], "is no comparison of encoders"),
        (["--n-top", "0"], "whole number of at least 1"),
        (["--format", "latex"], "is a way to print --methods"),
        (["--figures", "{tmp}"], "holds files that braincorl did not write"),
        (["--background", "{tmp}/none.nii.gz"], "none.nii.gz"),
        (["--background", "{tmp}/elsewhere.nii.gz"], "has nothing where the voxels are"),
    ],
)
def test_mistakes_get_one_line(fitted, braincorl, tmp_path, arguments, message):
    (tmp_path / "mine.html").write_text("<p>mine")
    far = np.diag([1.0, 1, 1, 1])
    far[:3, 3] = 900
    nib.Nifti1Image(np.ones((4, 4, 4), "f4"), far).to_filename(tmp_path / "elsewhere.nii.gz")
    before = sorted(fitted.iterdir())
    result = braincorl("report", fitted, *(part.format(tmp=tmp_path) for part in arguments))
    assert result.status == 2
    assert message in result.err.splitlines()[-1]
    assert sorted(fitted.iterdir()) == before
    assert (tmp_path / "mine.html").read_text() == "<p>mine"


def test_a_folder_that_is_no_fit(braincorl, tmp_path):
    result = braincorl("report", tmp_path)
    assert result.status == 2
    assert "is no fit" in result.err


def test_a_curve_of_the_same_person_is_drawn(fitted, inputs, braincorl, tmp_path):
    bench, out = tmp_path / "b", tmp_path / "r.html"
    asked = ("--encoders", "ridge", "in-context", "--n-draws", 2, "--counts", 10, 60, "--output-dir", bench)
    assert braincorl("benchmark", *inputs.arguments(rois=inputs.rois), *asked).status == 0
    result = braincorl("report", fitted, "--benchmark", bench, "--output", out)
    assert result.status == 0, result.err
    page = out.read_text(encoding="utf-8")
    (section,) = re.findall(r"<h2>Scaling</h2>(.*?)</section>", page, flags=re.DOTALL)
    mean = pd.read_csv(bench / "scores.tsv", sep="\t").groupby(["encoder", "n_context"])["ev"].mean()
    assert f"{mean['in-context', 60]:.3f}" in section
    assert "Dashed: the 40 images of this fit" in section
    assert "<img" in section
    # Of another person it is refused.
    config = json.loads((bench / "config.json").read_text())
    (bench / "config.json").write_text(json.dumps(config | {"subject": "sub-99"}))
    result = braincorl("report", fitted, "--benchmark", bench, "--output", out, "--overwrite")
    assert result.status == 2
    assert "compares encoders on sub-99, but the fit is of sub-01" in result.err
    # One of an earlier version, which does not say whose it is, is refused where it is asked for, and else left out.
    (bench / "config.json").unlink()
    result = braincorl("report", fitted, "--benchmark", bench, "--output", out, "--overwrite")
    assert result.status == 2
    assert "does not say whose responses it is of (no config.json)" in result.err
    bench.rename(fitted / "benchmark")
    result = braincorl("report", fitted, "--output", out, "--overwrite")
    (fitted / "benchmark").rename(bench)
    assert result.status == 0, result.err
    assert "is left out" in result.err
    assert "<h2>Scaling</h2>" not in out.read_text(encoding="utf-8")
