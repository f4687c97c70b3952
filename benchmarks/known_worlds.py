"""Worlds whose prior over voxels is known: how much of what could be predicted an encoder predicts.

Bounds. The world's own prior is the best that anyone can do who knows the world. Somebody who does not can learn, from
very many voxels of the person, how responses to the context's images are distributed, and no more: nothing tells how
voxels differ in directions of feature space that these images do not span. Whoever knows that distribution exactly, and
takes all directions outside the span as equally likely, predicts with the projection of the optimal weights onto the
span: the bound without a prior, reached with infinitely many voxels only. The third row knows the second moment of all
voxels in the span, and no kinds: the bound for whoever learns one covariance.
"""

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
from common import mean_ev, print_table

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, InContextEncoder
from braincorl.priors.components import Components, flat_levels, unit_signal

Array = npt.NDArray[Any]

OPTIMAL, BOUND = "true prior (optimal)", "true prior, in the context's span"
COVARIANCE = "true covariance, in the context's span"


def simulated(options: argparse.Namespace) -> None:
    """Share of the Bayes-optimal EV in worlds of known priors, none of them among those of training."""
    print("SIMULATION: 400 voxels, r from .05 to .7, independent noise; noise-free EV over that of the true prior, and")
    print("over that of the true prior as far as the context's images show it (the bound without a prior):")
    counts = (10, 20, 50, 100, 200)
    rows = []
    for world, (rank, slope) in {
        "isotropic weights, slope 1": (0, 0.5),
        "4 kinds of rank 4, slope 1": (4, 0.5),
        "4 kinds of rank 4, slope 2": (4, 1.0),
    }.items():
        found: dict[str, dict[int, list[float]]] = {}
        for draw in range(options.draws):
            rng = np.random.default_rng([17, draw])
            pool = rng.standard_normal((1000, 48)) * (1.0 + np.arange(48)) ** -slope
            truth = _world(rank, pool, rng)
            exact, gaussian = (
                GroupPrior(parts, np.vstack([parts.weight] * 2), (), pool.mean(axis=0), np.cov(pool, rowvar=False))
                for parts in (truth, _one_covariance(truth))
            )
            X, y, weights = _person(truth, pool, rng)
            clean = pool @ weights.T
            for n in counts:
                optimal, covariance = (
                    GroupPriorEncoder(known, hedge=False).fit(X[:n], y[:n]) for known in (exact, gaussian)
                )
                predictions = {
                    "Bayesian ridge": BayesianRidgeEncoder().fit(X[:n], y[:n], X_pool=pool).predict(pool),
                    "in-context": InContextEncoder().fit(X[:n], y[:n], X_pool=pool).predict(pool),
                    COVARIANCE: pool @ _shown(covariance.coef_, X[:n]).T,
                    BOUND: pool @ _shown(optimal.coef_, X[:n]).T,
                    OPTIMAL: optimal.predict(pool),
                    "in-context, true prior": InContextEncoder(prior=exact).fit(X[:n], y[:n]).predict(pool),
                }
                for name, predicted in predictions.items():
                    found.setdefault(name, {}).setdefault(n, []).append(mean_ev(clean, predicted))
        best, bound = ({n: np.mean(found[name][n]) for n in counts} for name in (OPTIMAL, BOUND))
        for name, values in found.items():
            ev = {n: np.mean(values[n]) for n in counts}
            cells = [f"{ev[n]:.3f} ({100 * ev[n] / best[n]:.0f} %, {100 * ev[n] / bound[n]:.0f} %)" for n in counts]
            rows.append([world, name, *cells])
    print_table(["world", "encoder", *map(str, counts)], rows)


def _shown(weights: Array, X: Array) -> Array:
    """Part of weights (V, p) that images (n, p) show, once their mean is taken off."""
    _, singular, directions = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
    span = directions[singular > 1e-9 * singular[0]]
    return np.asarray(weights @ span.T @ span)


def _one_covariance(truth: Components) -> Components:
    """One component of zero mean with the second moment of all voxels of a mixture."""
    moment = sum(
        share * (truth.covariance(c) + np.outer(truth.mean[c], truth.mean[c])) for c, share in enumerate(truth.weight)
    )
    values, vectors = np.linalg.eigh(moment)
    floor = 0.5 * values[0]
    factor = vectors * np.sqrt(values - floor)
    return Components(np.zeros((1, len(values))), factor[None], floor[None], np.ones(1), flat_levels()[None])


def _world(rank: int, pool: Array, rng: np.random.Generator) -> Components:
    """Mixture of four kinds and a broad one, or the broad one alone."""
    p = pool.shape[1]
    levels = flat_levels()
    if rank == 0:
        parts = Components(np.zeros((1, p)), np.zeros((1, p, 1)), np.ones(1), np.ones(1), levels[None])
    else:
        mean, factor = rng.standard_normal((5, p)), 0.7 * rng.standard_normal((5, p, rank))
        mean[-1], factor[-1] = 0.0, 0.0
        weight = np.array([0.3, 0.3, 0.2, 0.18, 0.02])
        parts = Components(mean, factor, np.array([0.2] * 4 + [1.0]), weight, np.tile(levels, (5, 1)))
    return unit_signal(parts, np.cov(pool, rowvar=False))


def _person(truth: Components, pool: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    kind = rng.choice(truth.n_components, 400, p=truth.weight)
    weights = np.stack([rng.multivariate_normal(truth.mean[c], truth.covariance(c)) for c in kind])
    X, r = pool[rng.permutation(len(pool))[:200]], rng.uniform(0.05, 0.7, 400)
    weights *= np.sqrt(r)[:, None]
    return X, X @ weights.T + np.sqrt(1 - r) * rng.standard_normal((200, 400)), weights
