"""Real voxels, six people: encoders from clips of session 1, scored on the clips of session 2.

The 15 features of a clip are principal components of the *other five* people's responses to it, so these figures say
how encoders compare, not how well images predict brains. The data: Tarhan & Konkle (2020), BrainMoversDistance, MIT.

    uv run python benchmarks/actions_fmri.py
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import print_table, real_data
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV as HimalayaRidgeCV
from sklearn.linear_model import RidgeCV

from braincorl.cli.main import main as braincorl
from braincorl.closed_forms.decomposition import decompose
from braincorl.closed_forms.ridge_solver import auto_alphas
from braincorl.datasets import load_subject
from braincorl.encoders import BayesianRidgeEncoder, InContextEncoder, RidgeEncoder
from braincorl.features import load_features
from braincorl.metrics import explained_variance, pearson_r

PEOPLE = [f"sub-{number:02d}" for number in range(1, 7)]


def encoders(X, n):
    """Every encoder with the same grid of alphas; himalaya with at most five folds, scikit-learn leaving one out."""
    alphas = auto_alphas(decompose(X))
    folds = min(5, n)
    return {
        "braincorl ridge": RidgeEncoder(),
        "braincorl in-context": InContextEncoder(),
        "braincorl Bayesian ridge": BayesianRidgeEncoder(),
        "scikit-learn RidgeCV": RidgeCV(alphas=alphas, alpha_per_target=True),
        "himalaya RidgeCV": HimalayaRidgeCV(alphas=alphas, cv=folds, fit_intercept=True),
        "himalaya KernelRidgeCV": KernelRidgeCV(alphas=alphas, cv=folds),
    }


def fit_predict(name, model, X, y, T):
    if name != "himalaya KernelRidgeCV":
        return model.fit(X, y).predict(T)
    # himalaya's kernel ridge has no intercept: centre for it
    mean, offset = X.mean(axis=0), y.mean(axis=0)
    return model.fit(X - mean, y - offset).predict(T - mean) + offset


def by_command_line(folder, person):
    """Mean r of `braincorl fit` on session 1 and `braincorl score` on session 2."""
    found = {}
    for encoder in ("ridge", "bayesian-ridge"):
        with tempfile.TemporaryDirectory() as scratch:
            out = str(Path(scratch) / "fit")
            common = ["--quiet", "--features", f"{folder}/{person}_features.npz"]
            one, two = (
                [
                    "--betas",
                    f"{folder}/{person}_ses-{s}_betas.nii.gz",
                    "--trials",
                    f"{folder}/{person}_ses-{s}_trials.tsv",
                ]
                for s in (1, 2)
            )
            mask = ["--mask", f"{folder}/mask.nii.gz"]
            assert braincorl(["fit", *common, *one, *mask, "--encoder", encoder, "--output-dir", out]) == 0
            assert braincorl(["score", out, *common, *two]) == 0
            found[encoder] = pd.read_csv(f"{out}/scores/scores.tsv", sep="\t").set_index("roi").loc["all", "r_mean"]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-draws", type=int, default=10)
    n_draws = parser.parse_args().n_draws
    folder = real_data() / "actions_fmri"
    rows, commands = [], []
    for person in PEOPLE:
        table = load_features(folder / f"{person}_features.npz")
        sessions = [
            load_subject(
                folder / f"{person}_ses-{s}_betas.nii.gz",
                folder / f"{person}_ses-{s}_trials.tsv",
                folder / "mask.nii.gz",
            )
            for s in (1, 2)
        ]
        both = sessions[0].space.included & sessions[1].space.included
        (X, y), (T, truth) = (
            (table.features[table.rows(s.image_ids)], s.space.expand(s.responses)[:, both]) for s in sessions
        )
        commands.append(by_command_line(folder, person))
        for n in (10, 20, 40, 60):
            for draw in range(n_draws if n < 60 else 1):
                context = np.random.default_rng(draw).permutation(60)[:n]
                for name, model in encoders(X[context], n).items():
                    predicted = fit_predict(name, model, X[context], y[context], T)
                    ev, r = (np.nanmean(metric(truth, predicted)) for metric in (explained_variance, pearson_r))
                    rows.append((person, n, draw, name, ev, r))
    scores = pd.DataFrame(rows, columns=["person", "n", "draw", "encoder", "EV", "r"])
    names = list(dict.fromkeys(scores["encoder"]))
    print(f"actions_fmri, 6 people, context from session 1, scored on 60 clips of session 2; {n_draws} draws\n")
    for metric in ("r", "EV"):
        print(f"Mean {metric} over voxels and people ± spread over draws:\n")
        over_people = scores.groupby(["encoder", "n", "draw"])[metric].mean().groupby(["encoder", "n"])
        mean, std = over_people.mean(), over_people.std().fillna(0)
        counts = (10, 20, 40, 60)
        print_table(
            ["encoder", *map(str, counts)],
            [[name, *(f"{mean[name, n]:.3f} ± {std[name, n]:.3f}" for n in counts)] for name in names],
        )
    print("Mean r of each person from 60 clips (first two: by `braincorl fit` and `braincorl score`):\n")
    full = scores[scores["n"] == 60].set_index(["encoder", "person"])["r"]
    lines = [
        [f"command line, {encoder}", *(f"{found[encoder]:.3f}" for found in commands)]
        for encoder in ("ridge", "bayesian-ridge")
    ]
    print_table(["encoder", *PEOPLE], lines + [[n, *(f"{full[n, p]:.3f}" for p in PEOPLE)] for n in names])
    print("Mean r of each person, ± spread over draws:\n")
    for n in (10, 20, 40):
        few = scores[scores["n"] == n].groupby(["encoder", "person"])["r"].agg(["mean", "std"])
        cells = [[m, *(f"{few.loc[(m, p), 'mean']:.3f} ± {few.loc[(m, p), 'std']:.3f}" for p in PEOPLE)] for m in names]
        print_table([f"{n} clips", *PEOPLE], cells)


if __name__ == "__main__":
    main()
