"""Images chosen under a prior against random and k-means picks (python benchmarks/group_prior_select.py).

Real weights of two people (bold5000_resnet18), each the teacher of the other; SIMULATED noise, independent over voxels,
ceilings .05 to .7; noise-free EV on the images that were not candidates.
"""

from collections import defaultdict

import numpy as np
from group_prior_data import load_bold5000
from scipy.cluster.vq import kmeans2

from braincorl import GroupPrior, GroupPriorEncoder
from braincorl.metrics import explained_variance
from braincorl.priors.selection import select_images

N_DRAWS = 3


class _Weights:
    def __init__(self, coef):
        self.coef_ = coef


def kmeans_picks(X, n, seed):
    """Take the candidate nearest to each of n centres."""
    centres, _ = kmeans2(X, n, minit="++", seed=seed)
    taken = []
    for centre in centres:
        order = np.argsort(((X - centre) ** 2).sum(axis=1))
        taken.append(next(i for i in order if i not in taken))
    return np.array(taken)


def main():
    """Print the table."""
    X, people = load_bold5000()
    candidates, test = X[:600], X[600:]
    scores = defaultdict(list)
    for source, target in ((0, 1), (1, 0)):
        prior = GroupPrior.fit([_Weights(people[source].coef)], X_pool=X, n_components=1)
        truth = X @ people[target].coef.T
        truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
        for n in (20, 50):
            chosen = select_images(candidates, n, prior.components)
            for draw in range(N_DRAWS):
                rng = np.random.default_rng([source, n, draw])
                ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
                picks = {
                    "random": rng.permutation(600)[:n],
                    "k-means": kmeans_picks(candidates, n, draw),
                    "select": chosen,
                }
                for name, rows in picks.items():
                    noise = rng.standard_normal((n, truth.shape[1]))
                    y = np.sqrt(ceiling) * truth[rows] + np.sqrt(1 - ceiling) * noise
                    predicted = GroupPriorEncoder(prior).fit(X[rows], y).predict(test)
                    scores[name, n].append(explained_variance(np.sqrt(ceiling) * truth[600:], predicted).mean())
    print("| images | 20 | 50 |\n|---|---|---|")
    for name in ("random", "k-means", "select"):
        cells = [f"{np.mean(scores[name, n]):.3f} ± {np.std(scores[name, n]):.3f}" for n in (20, 50)]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
