"""A localiser without a localiser: the region of BOLD5000's voxels from few images, each person from the other.

    uv run python benchmarks/localiser.py --draws 5

Real weights, SIMULATED noise, half of it shared by neighbours. Beside it: the nearest of five centroids, the means of
the other person's unit-signal weights in each region, to the person's own ridge weights (cosine in the pool's
covariance).
"""

import argparse
from collections import defaultdict

import numpy as np
from common import print_table
from few_shot_cases import cases

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder


def main() -> None:
    """Print the share of voxels whose region is told rightly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    right = defaultdict(list)
    memory = {}
    for case in cases("bold5000", range(options.draws)):
        if case.n > 100:
            continue
        if case.others.key not in memory:
            memory = {case.others.key: GroupPrior.fit(case.others.people, case.others.rois, X_pool=case.others.pool)}
        prior = memory[case.others.key]
        encoder = GroupPriorEncoder(prior).fit(case.X, case.y)
        told = encoder.region_names_[encoder.region_probability_.argmax(axis=1)]
        right["attention", case.person, case.n].append((told == case.rois).mean())
        items = prior.items()
        centroids = np.array([items.weights[items.region == r].mean(axis=0) for r in range(len(prior.regions))])
        ridge = BayesianRidgeEncoder().fit(case.X, case.y, X_pool=case.pool).coef_
        told = np.array(prior.regions)[_cosine(ridge, centroids, prior.pool_covariance).argmax(axis=1)]
        right["nearest centroid of ridge weights", case.person, case.n].append((told == case.rois).mean())
        commonest = max((case.rois == region).mean() for region in prior.regions)
        right["the commonest region for all", case.person, case.n].append(commonest)
    counts = sorted({n for *_, n in right})
    print("bold5000_resnet18, SIMULATED noise, share of voxels whose region of five is told rightly")
    rows = [
        [name, f"person {person + 1}", *(f"{np.mean(right[name, person, n]):.3f}" for n in counts)]
        for name, person in dict.fromkeys((name, person) for name, person, _ in right)
    ]
    print_table(["rule", "of", *map(str, counts)], rows)


def _cosine(a: np.ndarray, b: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    def unit(w: np.ndarray) -> np.ndarray:
        return w / np.sqrt(np.maximum(np.einsum("vp,pq,vq->v", w, covariance, w), 1e-300))[:, None]

    return unit(a) @ covariance @ unit(b).T


if __name__ == "__main__":
    main()
