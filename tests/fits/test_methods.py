"""What the methods paragraph says is true of the fit, and what it does not know it leaves out."""

import re

import numpy as np
import pytest

from braincorl import (
    BandedRidgeEncoder,
    BayesianRidgeEncoder,
    Fit,
    GroupPrior,
    GroupPriorEncoder,
    InContextEncoder,
    RidgeEncoder,
    __version__,
    fit_person,
)
from braincorl.datasets import SubjectData, VoxelSpace
from braincorl.features import FeatureTable
from braincorl.fits.references import REFERENCES


def person(rng, n_images=24, n_voxels=10, repeats=2, zscore="none"):
    names = np.array([f"img{n:02d}" for n in range(n_images)])
    X = rng.standard_normal((n_images, 6)).astype("f4")
    y = X @ rng.standard_normal((6, n_voxels)) + rng.standard_normal((n_images, n_voxels))
    space = VoxelSpace(np.arange(n_voxels + 2) < n_voxels)
    table = FeatureTable(X, names, {"backbone": "timm:resnet18", "weights": "tv_in1k", "normalized": True})
    counts = np.full(n_images, repeats)
    return SubjectData(
        name="sub-07",
        responses=y,
        image_ids=names,
        n_repeats=counts,
        space=space,
        ncsnr=np.full(n_voxels, 2.0),
        zscore=zscore,
    ), table


SAID = {
    "ridge": ("ridge regression", "leave-one-out", "ridge"),
    "bayesian-ridge": ("17 values (0 to 0.8)", "nothing was cross-validated", "evidence"),
    "in-context": ("in-context transformer in closed form", "plain mean of 4 estimates", "in-context"),
    "group-prior": ("attended to 20 voxels of 2 earlier people", "the posterior over them", "in-context"),
    "in-context with a prior": ("attended to 20 voxels of 2 earlier people", "how alike voxels are", "in-context"),
    "banded-ridge": ("feature spaces", "shares by the evidence", "banded"),
}


def encoder(kind, table, rng):
    if "prior" in kind:
        others = [person(rng) for _ in range(2)]
        prior = GroupPrior.fit([(other[1].features, other[0].responses) for other in others], X_pool=table.features)
        return GroupPriorEncoder(prior) if kind == "group-prior" else InContextEncoder(prior=prior)
    return {
        "ridge": RidgeEncoder(),
        "bayesian-ridge": BayesianRidgeEncoder(),
        "in-context": InContextEncoder(),
        "banded-ridge": BandedRidgeEncoder(spaces={"one": 2, "two": 4}),
    }[kind]


@pytest.mark.parametrize("kind", SAID)
def test_every_encoder_is_described_by_what_it_did(kind, rng, tmp_path):
    subject, table = person(rng, zscore="session")
    fit = fit_person(subject, table, encoder(kind, table, rng), context=14, random_state=3)
    text, loaded = str(fit.methods()), str(fit.save(tmp_path / "fit").load(tmp_path / "fit").methods())
    assert text == loaded  # nothing that it says is lost on the way to disk and back
    *said, cited = SAID[kind]
    for part in (*said, REFERENCES[cited].text.replace("{version}", __version__)):
        assert part in text
    for part in (
        "Voxelwise encoders of sub-07",
        "14 images (28 trials), drawn at random (seed 3)",
        "z-scored per voxel over all trials of each session, those of images left out of the fit among them",
        "10 voxels entered; 2 that were constant or not finite were left out",
        "6 features of timm:resnet18",
        "10 images that the fit had not seen",
        f"{np.nanmean(fit.scores['ev']):.3f} on average over voxels",
    ):
        assert part in text
    other = {
        "ridge": "evidence of",
        "bayesian-ridge": "leave-one-out",
        "in-context": "earlier",
        "group-prior": "plain mean",
    }
    assert other.get(kind, "leave-one-out") not in text


@pytest.mark.parametrize("kind", SAID)
def test_references_are_numbered_as_they_are_mentioned(kind, rng):
    subject, table = person(rng)
    methods = fit_person(subject, table, encoder(kind, table, rng)).methods()
    mentioned = list(dict.fromkeys(map(int, re.findall(r"\[(\d+)\]", " ".join(methods.paragraphs)))))
    assert mentioned == list(range(1, len(methods.references) + 1))
    assert "[@" not in str(methods)
    # For other writers the same things are cited by the keys of the entries, and nothing else is a mark of theirs.
    keys = re.findall(r"^@\w+\{([^,]+),$", methods.bibtex(), re.MULTILINE)
    assert len(keys) == len(methods.references)
    assert list(dict.fromkeys(re.findall(r"(?<!\\)\[@([^]]+)\]", methods.markdown()))) == keys
    assert list(dict.fromkeys(re.findall(r"\\cite\{([^}]+)\}", methods.latex()))) == keys
    assert not re.search(r"(?<!\\)[&%$#_]", re.sub(r"\\cite\{[^}]+\}", "", methods.latex()))
    assert "timm:resnet18" in methods.latex()
    assert r"tv\_in1k" in methods.latex()
    assert "Accuracy on images outside the fit was not measured." in methods.paragraphs


def test_what_is_not_known_is_not_said(rng, tmp_path):
    subject, table = person(rng)
    fit = fit_person(subject, FeatureTable(table.features, table.image_ids, {}), "ridge", notes={"simulation": True})
    fit.save(tmp_path / "fit")
    bare = Fit.load(tmp_path / "fit")
    for name in ("n_trials", "braincorl", "n_features", "versions"):
        bare.config.pop(name)
    text = str(bare.methods())
    assert text.startswith("SIMULATION")
    assert "features of unstated origin" in text
    assert "trials)" not in text
    assert "seed" not in text


def test_scores_of_other_images_are_told_as_theirs(rng, tmp_path):
    subject, table = person(rng, 60)
    fit = fit_person(subject, table, "ridge", context=subject.image_ids[:20]).save(tmp_path / "fit")
    new = subject.select_images(subject.image_ids[30:])
    scored = fit.score(new, table, n_permutations=50)
    scored.save(tmp_path / "scores")
    text = str(fit.methods(tmp_path / "scores"))
    assert "30 images that the fit had not seen" in text
    assert f"{np.nanmean(scored.maps['ev']):.3f} on average" in text
    assert f"{int((scored.maps['q'] < 0.05).sum())} of 10 voxels were predicted better than by 50 random orders" in text
    scored.save(tmp_path / "fit" / "scores")
    assert str(fit.methods()) == text
