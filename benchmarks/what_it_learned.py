"""Which known algorithm is the native network like on real voxels? Beside the simulated ones of `analysis/`.

Four people of object2vec (Bonner & Epstein), 200 voxels each, responses to 81 categories, AlexNet's features. From n
categories, drawn at random, all others are predicted by the network and by k steps of gradient descent, Newton
iterations, ridge and Bayesian ridge. Difference: mean squared difference of the predictions from the network's, over
the mean variance of the two (0 the same, 2 unrelated). EV: of the measured responses to the other categories.

    uv run python benchmarks/what_it_learned.py
"""

import argparse

import numpy as np
import pandas as pd
from common import print_table
from real_people import load_object2vec

from braincorl import BayesianRidgeEncoder, InContextEncoder, RidgeEncoder
from braincorl.analysis.algorithms import difference, gradient_descent, newton
from braincorl.metrics import explained_variance

COUNTS, DESCENT, NEWTON = (10, 20, 40), (1, 2, 3, 5, 10, 30, 100), (0, 1, 2, 3, 5, 10)


def predictions(X, y, queries, pool):
    """Predictions of the network and of every algorithm, by name."""

    def linear(weights):
        return (queries - X.mean(axis=0)) @ weights + y.mean(axis=0)

    found = {"network": InContextEncoder().fit(X, y, X_pool=pool).predict(queries)}
    found["Bayesian ridge"] = BayesianRidgeEncoder().fit(X, y, X_pool=pool).predict(queries)
    found["ridge"] = RidgeEncoder().fit(X, y).predict(queries)
    found |= {f"gradient descent, {k} steps": linear(w) for k, w in gradient_descent(X, y, DESCENT).items()}
    return found | {f"Newton, {k} iterations": linear(w) for k, w in newton(X, y, NEWTON).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-draws", type=int, default=5)
    arguments = parser.parse_args()
    X, people, _ = load_object2vec("alexnet20")
    rows = []
    for person, y in enumerate(people):
        for draw in range(arguments.n_draws):
            order = np.random.default_rng(draw).permutation(len(X))
            for n in COUNTS:
                context, rest = order[:n], order[n:]
                found = predictions(X[context], y[context], X[rest], X[order])
                for name, predicted in found.items():
                    ev = float(np.nanmean(explained_variance(y[rest], predicted)))
                    rows.append((name, n, person, draw, difference(found["network"], predicted), ev))
    table = pd.DataFrame(rows, columns=["name", "n", "person", "draw", "difference", "ev"])
    means = table.groupby(["name", "n"], sort=False)[["difference", "ev"]].mean()
    print(f"Real voxels, means over 4 people and {arguments.n_draws} draws: difference from the network / EV\n")
    body = [
        [name, *(f"{means.loc[(name, n), 'difference']:.3f} / {means.loc[(name, n), 'ev']:.3f}" for n in COUNTS)]
        for name in dict.fromkeys(table["name"])
    ]
    print_table(["", *(f"{n} categories" for n in COUNTS)], body)


if __name__ == "__main__":
    main()
