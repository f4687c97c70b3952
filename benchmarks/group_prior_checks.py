"""Calibration, spoilt trials and cost of group priors: tables of `group_prior.py`."""

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from real_people import load_object2vec
from group_prior_scores import Scores, print_table, score
from scipy.stats import norm

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder
from braincorl.priors.components import Components, flat_levels, unit_signal

Array = npt.NDArray[Any]


def calibration(n_draws: int) -> None:
    """Share of left-out real responses inside predictive intervals."""
    X, responses, rois = load_object2vec("alexnet20")
    inside: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for draw in range(n_draws):
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for new in range(4):
            rest = [i for i in range(4) if i != new]
            prior = GroupPrior.fit([(X[train], responses[i][train]) for i in rest], [rois[i] for i in rest])
            for n in (10, 20, 40):
                for method, encoder, more in (
                    ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": X}),
                    ("group prior", GroupPriorEncoder(prior), {}),
                    ("group prior, regions known", GroupPriorEncoder(prior), {"rois": rois[new]}),
                    ("in-context with it", InContextEncoder(prior=prior), {}),
                    ("in-context with it, regions known", InContextEncoder(prior=prior), {"rois": rois[new]}),
                ):
                    encoder.fit(X[train[:n]], responses[new][train[:n]], **more)
                    predicted, std = encoder.predict(X[test], return_std=True)
                    z = np.abs(responses[new][test] - predicted) / std
                    inside[method, n].append([float((z < norm.ppf(0.5 + p / 2)).mean()) for p in (0.5, 0.8, 0.95)])
    print("object2vec, alexnet20, real responses to 41 categories seen by nobody, inside the 50 / 80 / 95 % intervals:")
    print("| method | images | 50 % | 80 % | 95 % |\n|---|---|---|---|---|")
    for (method, n), values in inside.items():
        print(f"| {method} | {n} | " + " | ".join(f"{share:.3f}" for share in np.mean(values, axis=0)) + " |")


def outlier(n_draws: int) -> None:
    """One spoilt trial among the context, with image weights and without (real data, one trial spoilt on purpose)."""
    X, responses, _ = load_object2vec("alexnet20")
    scores: Scores = defaultdict(list)
    for draw in range(n_draws):
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for new in range(4):
            prior = GroupPrior.fit([(X[train], responses[i][train]) for i in range(4) if i != new])
            for n in (5, 10, 20, 40):
                rng = np.random.default_rng([draw, new, n])
                good = responses[new][train[:n]]
                bad = good.copy()
                shared = rng.standard_normal(15) @ rng.standard_normal((15, good.shape[1])) / np.sqrt(15)
                bad[rng.integers(n)] += 4 * good.std(axis=0) * shared
                for state, y in (("as measured", good), ("one trial spoilt", bad)):
                    for weighting in (True, False):
                        encoder = GroupPriorEncoder(prior, robust=weighting).fit(X[train[:n]], y)
                        method = f"{state}, {'weighted' if weighting else 'all images alike'}"
                        scores[method, n, draw].append(score(responses[new][test], encoder.predict(X[test])))
    print(
        "object2vec, alexnet20, group prior (mixture), categories seen by nobody; spoilt: 4 sd of noise in one trial:"
    )
    print_table(scores, (5, 10, 20, 40))


def speed(_: int) -> None:
    """Seconds and memory beside himalaya, in one process."""
    from common import measure
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV

    rng = np.random.default_rng(0)
    X = rng.standard_normal((100, 512)).astype("f4")
    y = (X @ rng.standard_normal((512, 20_000)) / 23 + 1.5 * rng.standard_normal((100, 20_000))).astype("f4")
    parts = Components(
        mean=rng.standard_normal((20, 512)),
        factor=rng.standard_normal((20, 512, 64)),
        floor=np.ones(20),
        weight=np.full(20, 0.05),
        level_probability=np.tile(flat_levels(), (20, 1)),
    )
    prior = GroupPrior(unit_signal(parts, np.eye(512)), np.full((2, 20), 0.05), (), np.zeros(512), np.eye(512))
    set_backend("numpy")
    alphas = np.logspace(-1, 6, 22) * 512
    runs = {
        "himalaya KernelRidgeCV, 22 alphas, 5 folds": lambda: (
            KernelRidgeCV(alphas=alphas, cv=5).fit(X, y).get_primal_coef(X.T)
        ),
        "GroupPriorEncoder, 20 components": lambda: GroupPriorEncoder(prior).fit(X, y),
    }
    measured = {name: measure(run, repeats=3) for name, run in runs.items()}
    base = next(iter(measured.values()))
    print("SIMULATION: 20,000 voxels x 100 images x 512 features, float32; median of 3; memory beyond the inputs:")
    print("| encoder | seconds | peak MiB | time ratio |\n|---|---|---|---|")
    for name, (seconds, memory) in measured.items():
        print(f"| {name} | {seconds:.2f} | {memory:.0f} | {seconds / base[0]:.1f} |")
