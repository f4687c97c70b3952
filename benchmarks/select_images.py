"""Images chosen under a prior against random and k-means picks (python benchmarks/select_images.py).

Voxels with the real weights of two people (bold5000_resnet18), each remembered for the other; the noise is SIMULATED,
independent over voxels, ceilings .05 to .7; EV without noise, on images that were not candidates.
"""

import argparse
from collections import defaultdict

import numpy as np
from real_people import PublishedWeights, load_bold5000
from scipy.cluster.vq import kmeans2

from braincorl import GroupPrior, GroupPriorEncoder
from braincorl.metrics import explained_variance
from braincorl.priors.image_selection import select_images

COUNTS = (20, 50)


def kmeans_picks(X, n, seed):
    """Take the candidate nearest to each of n centres."""
    centres, _ = kmeans2(X, n, minit="++", seed=seed)
    taken = []
    for centre in centres:
        order = np.argsort(((X - centre) ** 2).sum(axis=1))
        taken.append(next(i for i in order if i not in taken))
    return np.array(taken)


def picks(candidates, n, prior, draw, rng):
    """Choose rows in three ways."""
    return {
        "random": rng.permutation(len(candidates))[:n],
        "k-means": kmeans_picks(candidates, n, draw),
        "select": select_images(candidates, n, prior),
    }


def real_weights(n_draws):
    """Real weights of two people, each the teacher of the other."""
    X, people = load_bold5000()
    candidates, test = X[:600], X[600:]
    scores = defaultdict(list)
    for source, target in ((0, 1), (1, 0)):
        prior = GroupPrior.fit([PublishedWeights(people[source].coef)], X_pool=X)
        truth = X @ people[target].coef.T
        truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
        for n in COUNTS:
            for draw in range(n_draws):
                rng = np.random.default_rng([source, n, draw])
                ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
                for name, rows in picks(candidates, n, prior, draw, rng).items():
                    noise = rng.standard_normal((n, truth.shape[1]))
                    y = np.sqrt(ceiling) * truth[rows] + np.sqrt(1 - ceiling) * noise
                    predicted = GroupPriorEncoder(prior).fit(X[rows], y).predict(test)
                    score = explained_variance(np.sqrt(ceiling) * truth[600:], predicted).mean()
                    scores[name, n, draw].append(score)
    table("bold5000_resnet18, real weights, SIMULATED independent noise, noise-free EV on 500 other images:", scores)


def table(title, scores):
    """Print means over draws, and their spread."""
    print(title)
    print("| images | " + " | ".join(map(str, COUNTS)) + " |\n|---|---|---|")
    for name in ("random", "k-means", "select"):
        values = {n: [np.mean(v) for (m, count, _), v in scores.items() if (m, count) == (name, n)] for n in COUNTS}
        print(f"| {name} | " + " | ".join(f"{np.mean(v):.3f} ± {np.std(v):.3f}" for v in values.values()) + " |")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    real_weights(options.draws)


if __name__ == "__main__":
    main()
