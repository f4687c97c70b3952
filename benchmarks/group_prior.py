"""Group priors on real people: python benchmarks/group_prior.py {actions,object2vec,bold5000,...}.

Every table gives means over people and draws ± the spread (standard deviation) over draws of the mean over people.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from group_prior_data import load_actions, load_bold5000, load_object2vec, parcels

from braincorl import BayesianRidgeEncoder, GroupPrior, GroupPriorEncoder, RidgeEncoder
from braincorl.metrics import explained_variance, pearson_r

Array = npt.NDArray[Any]
Scores = dict[tuple[str, int, int], list[tuple[float, float]]]  # (method, n, draw) -> per person (EV, r)


def main() -> None:
    """Run the named tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", choices=tuple(TABLES))
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    for name in options.tables:
        start = time.perf_counter()
        TABLES[name](options.draws)
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n")


def actions(n_draws: int) -> None:
    """Leave one of six people out: prior from session 1 of the others, fit on session 1, score on session 2."""
    people, coordinates = load_actions()
    scores: Scores = defaultdict(list)
    for new, person in enumerate(people):
        others = [(person.features[1], p.responses[1]) for i, p in enumerate(people) if i != new]
        pool, X, y = np.vstack([*person.features.values()]), person.features[1], person.responses[1]
        priors = {"group prior, Gaussian": (GroupPrior.fit(others, n_components=1), None)}
        priors["group prior, mixture"] = (GroupPrior.fit(others), None)
        for count in (60, 300):
            labels = parcels(coordinates, count)
            priors[f"mixture, {count} parcels known"] = (GroupPrior.fit(others, [labels] * 5), labels)
        mean_of_others = np.mean([p.responses[2] for i, p in enumerate(people) if i != new], axis=0)
        keep = (np.ptp(y, axis=0) > 0) & (np.ptp(person.responses[2], axis=0) > 0)
        for n in (5, 10, 20, 40, 60):
            for draw in range(n_draws if n < 60 else 1):
                chosen = np.random.default_rng([new, n, draw]).permutation(60)[:n]
                predictions = {"mean of the others, same voxel and clips": mean_of_others}
                for method, encoder, more in _encoders(priors, pool):
                    predictions[method] = encoder.fit(X[chosen], y[chosen], **more).predict(person.features[2])
                for method, predicted in predictions.items():
                    scores[method, n, draw].append(_score(person.responses[2][:, keep], predicted[:, keep]))
    print("actions_fmri, 6 people left out in turn, all voxels that vary, EV / r of session 2.")
    print("The features were made from the other people's responses to the same clips (both sessions).")
    _table(scores, (5, 10, 20, 40, 60))


def object2vec(n_draws: int) -> None:
    """Leave one of four people out, categories of the test set unseen by anybody or seen by the others."""
    for name in ("alexnet20", "word2vec30"):
        X, responses, rois = load_object2vec(name)
        for strict in (True, False):
            scores: Scores = defaultdict(list)
            for draw in range(n_draws):
                order = np.random.default_rng([draw, 7]).permutation(81)
                test, train = order[:41], order[41:]
                seen = train if strict else order
                for new in range(4):
                    rest = [i for i in range(4) if i != new]
                    others, labels = [(X[seen], responses[i][seen]) for i in rest], [rois[i] for i in rest]
                    priors = {
                        "group prior, Gaussian": (GroupPrior.fit(others, n_components=1), None),
                        "group prior, mixture": (GroupPrior.fit(others), None),
                        "mixture, regions known": (GroupPrior.fit(others, labels), rois[new]),
                    }
                    for n in (0, 5, 10, 20, 40):
                        context = train[:n]
                        for method, encoder, more in _encoders(priors, X):
                            if n < 2 and "known" not in method:
                                continue
                            encoder.fit(X[context], responses[new][context], **more)
                            value = _score(responses[new][test], encoder.predict(X[test]))
                            scores[method, n, draw].append(value)
            seen_by = "by nobody" if strict else "by the other people"
            print(f"object2vec, {name}, 4 people left out in turn, EV / r of 41 test categories seen {seen_by}:")
            _table(scores, (0, 5, 10, 20, 40))


def bold5000(n_draws: int) -> None:
    """Prior from one person's real voxel weights, the other's voxels as new ones, simulated noise."""
    X, people = load_bold5000()
    for shared in (False, True):
        scores: Scores = defaultdict(list)
        for source, target in ((0, 1), (1, 0)):
            teacher, new = _Weights(people[source].coef), people[target]
            priors: dict[str, tuple[GroupPrior, Array | None]] = {
                "group prior, Gaussian": (GroupPrior.fit([teacher], X_pool=X, n_components=1), None),
                "group prior, mixture": (GroupPrior.fit([teacher], X_pool=X), None),
            }
            regional = GroupPrior.fit([teacher], [people[source].rois], X_pool=X)
            priors["mixture, one per region"] = (regional, None)
            priors["mixture, regions known"] = (regional, new.rois)
            truth = X @ new.coef.T
            truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
            for draw in range(n_draws):
                rng = np.random.default_rng([source, draw])
                order = rng.permutation(len(X))
                ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
                noise = _noise(rng, 200, new.positions, shared)
                for n in (10, 20, 50, 100, 200):
                    rows, test = order[:n], order[600:]
                    y = np.sqrt(ceiling) * truth[rows] + np.sqrt(1 - ceiling) * noise[:n]
                    for method, encoder, more in _encoders(priors, X):
                        predicted = encoder.fit(X[rows], y, **more).predict(X[test])
                        scores[method, n, draw].append(_score(np.sqrt(ceiling) * truth[test], predicted))
        kind = "shared by neighbours (half of its variance, 3 voxels wide)" if shared else "independent"
        print(f"bold5000_resnet18, each person from the other, noise-free EV / r, noise {kind}, ceilings .05 to .7:")
        _table(scores, (10, 20, 50, 100, 200))


class _Weights:
    """Weights of an encoder that was fitted elsewhere."""

    def __init__(self, coef: Array) -> None:
        self.coef_ = coef


def _noise(rng: np.random.Generator, n_images: int, positions: Array, shared: bool) -> Array:
    """Draw unit noise (n_images, n_voxels); if shared, half of it is smooth over voxels (Gaussian, sd 1.5 voxels)."""
    own = rng.standard_normal((n_images, len(positions)))
    if not shared:
        return own
    distance = ((positions[:, None] - positions[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distance / (2 * 1.5**2))
    smooth = rng.standard_normal(own.shape) @ (kernel / np.linalg.norm(kernel, axis=0))
    return np.sqrt(0.5) * smooth + np.sqrt(0.5) * own


def _encoders(
    priors: dict[str, tuple[GroupPrior, Array | None]], pool: Array
) -> Sequence[tuple[str, Any, dict[str, Any]]]:
    baselines: list[tuple[str, Any, dict[str, Any]]] = [
        ("ridge, alpha per voxel", RidgeEncoder(), {}),
        ("Bayesian ridge", BayesianRidgeEncoder(), {"X_pool": pool}),
    ]
    return baselines + [(name, GroupPriorEncoder(prior), {"rois": rois}) for name, (prior, rois) in priors.items()]


def _score(measured: Array, predicted: Array) -> tuple[float, float]:
    ev = explained_variance(measured, predicted)
    r = pearson_r(measured, predicted)
    return float(np.nanmean(ev)), float(np.nanmean(r))


def _table(scores: Scores, counts: Sequence[int]) -> None:
    methods = list(dict.fromkeys(method for method, _, _ in scores))
    print("| EV ± spread / r | " + " | ".join(str(n) for n in counts) + " |")
    print("|---" * (len(counts) + 1) + "|")
    for method in methods:
        cells = []
        for n in counts:
            values = np.array([np.mean(v, axis=0) for (m, count, _), v in scores.items() if (m, count) == (method, n)])
            if not len(values):
                cells.append("")
                continue
            ev, r = values.mean(axis=0)
            cells.append(f"{ev:.3f} ± {values[:, 0].std():.3f} / {r:.3f}")
        print(f"| {method} | " + " | ".join(cells) + " |")


TABLES: dict[str, Callable[[int], None]] = {"actions": actions, "object2vec": object2vec, "bold5000": bold5000}

if __name__ == "__main__":
    main()
